# SPDX-License-Identifier: GPL-2.0
"""What is fetched from the Debian archive besides the root: sources and ppc64el files."""

import shlex
from pathlib import Path

from . import config, enter, files, root
from .config import Failure
from .step import Log, Step, digest, say

LINUX = "linux-source-7.3"
QEMU_RANGE = ("1:10.0", "1:10.1~")

# ppc64el packages whose files the emulated host needs.
TARGET_PACKAGES = ["busybox-static"]


def firmware() -> Path:
    """The folder of Debian's unmodified skiboot.lid."""
    return QEMU_STEP.home() / "firmware/usr/share/qemu"


def busybox() -> Path:
    """The emulated host's one program."""
    return TARGET_STEP.path()


def shell(log: Log, script: str, network: bool = False, remedy: str = "", tree: Path | None = None) -> None:
    """Run a bash script in the root, or in the copy `tree` of it."""
    log.run(enter.inside(["bash", "-euc", script], network=network, tree=tree), remedy=remedy)


# apt keeps the last good index when a mirror answers with a half-synchronised one.
APT_UPDATE = """
for attempt in 1 2 3; do
    apt-get -q update -o APT::Update::Error-Mode=any && break
    [ $attempt = 3 ] && echo "W: using the package index of the last good update"
    sleep 10
done
"""

# Turns an unpacked source into a repository, so that a changed patch or overlay
# file later touches just the files it changes.
COMMIT = """
rm -rf .git
git init -q
git config gc.auto 0
git config core.fileMode true
git add -A -f .
git -c user.name=base -c user.email=base@localhost commit -q -m base
"""


def _fetch_linux(log: Log) -> None:
    source = config.linux_override()
    tree = LINUX_STEP.path()
    files.remove(tree)
    tree.mkdir()
    into = f"cd {LINUX_TREE}"
    if source and source.is_dir():
        log.run(["cp", "-a", f"{source}/.", str(tree)])
        files.remove(tree / ".git")
        used = str(source)
    elif source:
        log.run(["tar", "-xf", str(source), "-C", str(tree), "--strip-components=1"])
        used = str(source)
    else:
        # The package leaves backports when a newer kernel arrives; unstable may still have it.
        shell(log, f"""
            mkdir -p /tmp/linux && cd /tmp/linux
            {APT_UPDATE}
            if ! apt-get download {LINUX}; then
                . /etc/os-release
                uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
                echo "deb $uri sid main" > /etc/apt/sources.list.d/sid.list
                printf 'Package: *\\nPin: release n=sid\\nPin-Priority: 1\\n' > /etc/apt/preferences.d/sid
                trap 'rm -f /etc/apt/sources.list.d/sid.list' EXIT
                apt-get -q update && apt-get download {LINUX}
            fi
            for deb in *.deb; do basename "$deb" .deb > {LINUX_STEP.inner}/outcome; done
            dpkg-deb -x *.deb unpacked
            {into}
            tar -xf /tmp/linux/unpacked/usr/src/{LINUX}.tar.xz --strip-components=1
        """, network=True, remedy=f"Debian may have dropped {LINUX}: set NVLINK2_LINUX to a Linux 7.3 tree or tarball.")
        used = LINUX_STEP.outcome().strip()
    version = (tree / "Makefile").read_text(encoding="utf-8")
    if "VERSION = 7\nPATCHLEVEL = 3\n" not in version:
        raise Failure(f"{used} is not Linux 7.3. Set NVLINK2_LINUX to a Linux 7.3 tree or tarball.")
    say(f"linux-source: using {used}")
    shell(log, f"{into}\n{COMMIT}")


def _fetch_qemu(log: Log) -> None:
    for folder in ("tree", "firmware"):
        files.remove(QEMU_STEP.home() / folder)
    QEMU_STEP.path().mkdir()
    least, below = (shlex.quote(bound) for bound in QEMU_RANGE)
    # The orig tarball follows trixie's point releases, so apt resolves its name.
    shell(log, f"""
        mkdir -p /tmp/qemu && cd /tmp/qemu
        {APT_UPDATE}
        apt-get source --download-only qemu/{root.SUITE}
        version=$(sed -n 's/^Version: //p' qemu_*.dsc)
        dpkg --compare-versions "$version" ge {least} && dpkg --compare-versions "$version" lt {below} ||
            {{ echo "E: qemu is $version, known to work is {QEMU_RANGE[0]} up to {QEMU_RANGE[1]}"; exit 1; }}
        apt-get download qemu-system-data/{root.SUITE}
        dpkg-deb -x qemu-system-data_*.deb {QEMU_STEP.inner}/firmware
        cd {QEMU_TREE}
        tar -xf /tmp/qemu/qemu_*.orig.tar.xz --strip-components=1
        {COMMIT}
    """, network=True)


def _fetch_target(log: Log) -> None:
    packages = " ".join(f"{package}:ppc64el" for package in TARGET_PACKAGES)
    shell(log, f"""
        mkdir -p /tmp/target && cd /tmp/target
        {APT_UPDATE}
        apt-get download {packages}
        for deb in *.deb; do dpkg-deb -x "$deb" {TARGET_STEP.inner}; done
    """, network=True, remedy="The archive may be half-synchronised: try again in an hour.")


LINUX_STEP = Step(
    "linux-source",
    "fetching and unpacking Linux 7.3",
    lambda: digest(str(config.linux_override())),
    _fetch_linux,
    ["tree", "tree/Makefile", "tree/.git/HEAD"],
    [root.STEP],
)

QEMU_STEP = Step(
    "qemu-source",
    "fetching and unpacking QEMU 10.0 and its OPAL firmware",
    lambda: "",
    _fetch_qemu,
    ["tree", "tree/configure", "firmware/usr/share/qemu/skiboot.lid"],
    [root.STEP],
)

TARGET_STEP = Step(
    "ppc64el",
    "fetching the emulated host's user space",
    lambda: "",
    _fetch_target,
    ["usr/bin/busybox"],
    [root.STEP],
)

# Where the root has the sources as Debian has them, each a git repository with one commit.
LINUX_TREE = f"{LINUX_STEP.inner}/tree"
QEMU_TREE = f"{QEMU_STEP.inner}/tree"
