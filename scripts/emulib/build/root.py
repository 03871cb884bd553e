# SPDX-License-Identifier: GPL-2.0
"""The build root: a Debian trixie with the tool chain, and how to run in it.

Every file of the root belongs to the user who made it, so that an unprivileged
user namespace with one id is enough to enter it.
"""

import os
import shlex
import shutil
from functools import partial
from pathlib import Path

from . import archive, config, enter, procs
from .archive import Archive
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


def _bootstrap(log: Log, into: Path, options: list[str], suite: str, lines: list[str]) -> None:
    """Unpack what mmdebstrap makes with `options` of the apt source `lines` into a fresh folder `into`."""
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
    remove(into)
    into.mkdir(parents=True)
    log.run(["bash", "-c", script])


REMEDY = ("Needed: the Debian archive within reach, and root or unprivileged user namespaces with a subuid range for "
          "this user. " + archive.VARIABLES)


def unpack(log: Log, into: Path, packages: list[str], suites: list[str]) -> None:
    """Unpack ppc64el `packages`, without installing them, into a fresh folder `into`: of the first suite that has them."""
    def go(suite: str, place: Archive) -> str:
        options = ["--variant=extract", "--architectures=ppc64el", "--include=" + ",".join(packages)]
        _bootstrap(log, into, options, suite, [place.line(suite)])
        return f"packages of {suite} for ppc64el"

    _need_mmdebstrap(log)
    archive.take(log, [way for suite in suites
                       for way in archive.ways(suite, archive.archives(suite), partial(go, suite))], REMEDY)


def _build(log: Log) -> None:
    config.check_disk(config.DISK_COLD)
    _need_mmdebstrap(log)
    places = archive.archives(SUITE)
    # Where there is a snapshot, a version that is newer than known to work is the last thing to try.
    choices = list(archive.ways(f"{SUITE} with {BACKPORTS}", places, partial(_install, log, len(places) == 1)))
    if len(places) > 1:
        choices += archive.ways(f"{SUITE} with {BACKPORTS}, newer than known to work,", places[:1],
                                partial(_install, log, True))
    archive.take(log, choices, REMEDY)


def _install(log: Log, newer: bool, place: Archive) -> str:
    """Install the root from an archive. With `newer`, versions may be newer than what is known to work."""
    # Foreign packages come from the suite only. Their backports index is not needed,
    # and was seen half-synchronised for days, which makes apt refuse everything.
    fresh = path().with_name("root.new")
    pins = shlex.quote(PINS)
    _bootstrap(
        log, fresh,
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
            place.line(SUITE),
            place.line(BACKPORTS, architecture=config.debian_architecture()),
            place.line(SUITE, "deb-src"),
        ],
    )
    found = _check_versions(fresh, newer)
    remove(path())
    fresh.rename(path())
    (STEP.home() / "outcome").write_text(found, encoding="utf-8")
    return found


def _check_versions(root: Path, newer: bool) -> str:
    """Fail where a package is not known to work; the versions of those that matter."""
    status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    installed = {}
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " "
        )
        installed[fields.get("Package")] = fields.get("Version", "")
    for package, (least, below) in VERSIONS.items():
        version = installed.get(package, "0")
        known = f"{package} is {version}, known to work is {least} up to {below}"
        if not _is_version(version, "ge", least):
            raise Failure(f"{known}. Adapt VERSIONS in scripts/emulib/build/root.py if {SUITE} has moved on.")
        if not _is_version(version, "lt", below):
            if not newer:
                raise Failure(known)
            say(f"root: {known}, and newer is being tried: if what follows fails, suspect it first. An archive of before "
                "can be named by NVLINK2_SNAPSHOT")
    return ", ".join(f"{package} {installed[package]}" for package in VERSIONS)


def _is_version(version: str, relation: str, bound: str) -> bool:
    return procs.run(["dpkg", "--compare-versions", version, relation, bound], check=False).returncode == 0


STEP = Step(
    "root",
    f"installing the Debian {SUITE} build root (about 2 min)",
    lambda: digest(*PACKAGES, repr(enter.VARIABLES)),
    _build,
    ["root", "root/usr/bin/rustc"],
)
