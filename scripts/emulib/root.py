# SPDX-License-Identifier: GPL-2.0
"""The build root: a Debian trixie with the tool chain, and how to run in it.

Every file of the root belongs to the user who made it, so that an unprivileged
user namespace with one id is enough to enter it.
"""

import os
import shlex
import shutil
import time
from pathlib import Path

from . import config, procs
from .config import Failure
from .files import remove
from .step import Log, Step, digest, say

SUITE = "trixie"
BACKPORTS = "trixie-backports"

# What comes from backports; everything else comes from the suite itself.
PINS = f"""\
Package: src:rustc src:linux
Pin: release n={BACKPORTS}
Pin-Priority: 600

Package: src:rustc:any src:linux:any
Pin: release n={BACKPORTS}
Pin-Priority: 600
"""

# Package -> the versions that are known to work: at least, below. Backports move on: a newer one is tried.
VERSIONS = {
    "rustc": ("1.95", "1.98"),
    "bindgen": ("0.71", "0.73"),
    "clang-19": ("1:19", "1:20"),
}

PACKAGES = """
    rustc cargo rust-src rust-clippy rustfmt bindgen
    clang-19 lld-19 llvm-19 libclang-19-dev
    gcc g++ gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross
    make ninja-build meson pkg-config bc bison flex cpio kmod rsync file git patch
    xz-utils zstd perl python3 libelf-dev libssl-dev zlib1g-dev
    libglib2.0-dev libpixman-1-dev libfdt-dev
    python3-venv python3-pip python3-pycotap python3-distlib python3-setuptools python3-wheel
    device-tree-compiler python3-libfdt
    shellcheck sparse codespell pyflakes3 mypy
    dpkg-dev ca-certificates e2fsprogs
""".split()

# Nobody reads manuals in the root.
TRIM = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
]


def path() -> Path:
    """The root's folder."""
    return STEP.path()


def mirror() -> str:
    """The Debian archive: NVLINK2_DEBIAN_MIRROR or what this machine's apt uses."""
    if override := config.mirror_override():
        return override
    listing = procs.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)",
         "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout
    for line in listing.splitlines():
        uri, *origin = line.split()
        # Before the first `apt-get update` apt knows no origin, only the address.
        if origin == ["Debian", "Debian"] or uri.rstrip("/").endswith("/debian"):
            return uri
    raise Failure(
        "this machine's apt configuration names no Debian archive. Set "
        "NVLINK2_DEBIAN_MIRROR to the address of one (the value of a 'URIs:' line)."
    )


def _apt_proxy() -> list[str]:
    """This machine's apt proxy as options for another apt, if it has one."""
    dump = procs.run(
        ["apt-config", "dump", "--format", "%f=%v%n"], capture_output=True, text=True, check=False
    ).stdout
    return [
        f"--aptopt={name} {shlex.quote(value)}"
        for name, _, value in (line.partition("=") for line in dump.splitlines())
        if name.startswith("Acquire::http") and name.endswith("::Proxy") and value
    ]


def _need_mmdebstrap(log: Log) -> None:
    if shutil.which("mmdebstrap") and shutil.which("unshare"):
        return
    if os.geteuid() == 0:
        log.run(["apt-get", "update"])
        log.run(
            ["apt-get", "install", "-y", "--no-install-recommends",
             "mmdebstrap", "util-linux", "debian-archive-keyring"],
            remedy="Install the package mmdebstrap by hand.",
        )
        return
    raise Failure(
        "mmdebstrap is missing and installing it needs root. Ask the administrator for "
        "the packages mmdebstrap, uidmap and debian-archive-keyring."
    )


def bootstrap(log: Log, name: str, into: Path, options: list[str], suite: str, lines: list[str]) -> None:
    """Unpack what mmdebstrap makes with `options` of the apt source `lines` into a fresh folder `into`."""
    _need_mmdebstrap(log)
    command = [
        "mmdebstrap", "--format=tar",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=APT::Sandbox::User "root"',
        '--aptopt=Acquire::Retries "3"',
        *_apt_proxy(),
        *options,
        suite, "-", *lines,
    ]
    script = (
        f"set -o pipefail; {shlex.join(command)} | "
        f"tar -x --no-same-owner --exclude=./dev/* -C {shlex.quote(str(into))}"
    )
    # A mirror in the middle of a synchronisation refuses for a while.
    for attempt in (1, 2, 3):
        remove(into)
        into.mkdir(parents=True)
        try:
            log.run(
                ["bash", "-c", script],
                remedy="Needed: the Debian archive within reach, and root or "
                "unprivileged user namespaces with a subuid range for this user.",
            )
            break
        except Failure as failure:
            if attempt == 3:
                raise
            say(f"{name}: attempt {attempt} of 3 failed, again in 30 s\n{failure}")
            time.sleep(30)


def _build(log: Log) -> None:
    config.check_disk(config.DISK_COLD)
    # Foreign packages come from the suite only. Their backports index is not needed,
    # and was seen half-synchronised for days, which makes apt refuse everything.
    archive = mirror()
    own = config.debian_architecture()
    fresh = path().with_name("root.new")
    pins = shlex.quote(PINS)
    bootstrap(
        log, "root", fresh,
        [
            "--variant=apt",
            *(f"--dpkgopt={line}" for line in TRIM),
            f'--setup-hook=printf %s {pins} > "$1/etc/apt/preferences.d/nvlink2-vfio"',
            '--customize-hook=chroot "$1" dpkg --add-architecture ppc64el',
            "--skip=cleanup/apt/lists",
            "--include=" + ",".join(PACKAGES),
        ],
        SUITE,
        [
            f"deb {archive} {SUITE} main",
            f"deb [arch={own}] {archive} {BACKPORTS} main",
            f"deb-src {archive} {SUITE} main",
        ],
    )
    _check_versions(fresh)
    remove(path())
    fresh.rename(path())


def _check_versions(root: Path) -> None:
    status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    installed = {}
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " "
        )
        installed[fields.get("Package")] = fields.get("Version", "")
    for package, (least, below) in VERSIONS.items():
        version = installed.get(package, "0")
        known = f"root: {package} is {version}, known to work is {least} up to {below}"
        if not _is_version(version, "ge", least):
            raise Failure(f"{known}. Adapt VERSIONS in scripts/emulib/root.py if {SUITE} has moved on.")
        if not _is_version(version, "lt", below):
            say(f"{known}, and newer is being tried: if what follows fails, suspect it first")


def _is_version(version: str, relation: str, bound: str) -> bool:
    return procs.run(["dpkg", "--compare-versions", version, relation, bound], check=False).returncode == 0


STEP = Step(
    "root",
    f"installing the Debian {SUITE} build root (about 2 min)",
    lambda: digest(*PACKAGES),
    _build,
    ["root", "root/usr/bin/rustc"],
)
