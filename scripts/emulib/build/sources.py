# SPDX-License-Identifier: GPL-2.0
"""What is fetched from the Debian archive besides the root: sources and ppc64el files."""

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import archive, config, enter, files, root
from .archive import Archive
from .config import Failure
from .step import Log, Step, digest, say

LINUX = "linux-source-7.3"
# What the series is made for. Backports moves on to a 7.3.N that is newer, and then to another Linux.
LINUX_VERSION = "7.3.4-1~bpo13+1"
# The device models are made for the first, and build with the others.
QEMU_VERSION = "1:10.0.13+ds-0+deb13u1"
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


# Turns an unpacked source into a repository, so that a changed patch or overlay
# file later touches just the files it changes.
COMMIT = """
rm -rf .git
git init -q
git config gc.auto 0
git config core.fileMode true
git add -A -f .
# The same content is the same commit, whenever it was fetched.
export GIT_AUTHOR_DATE='@0 +0000' GIT_COMMITTER_DATE='@0 +0000'
git -c user.name=base -c user.email=base@localhost commit -q -m base
"""


@dataclass(frozen=True)
class LinuxSource:
    """The ways to Debian's source of a Linux, which becomes `tree` in the home of `step`."""

    log: Log
    step: Step
    suite: str
    # The binary package that has it as a tarball, and the first numbers of its version.
    name: str
    series: str
    # The only version that will do; without one, the newest.
    version: str = ""

    def package(self, place: Archive) -> str:
        """Take it from the binary package."""
        wanted = f"{self.name}={self.version}" if self.version else self.name
        self._fetch(place, "deb", f"""
            apt-get -q download {shlex.quote(wanted)}
            dpkg-deb -x {self.name}_*.deb unpacked
            mkdir {self.step.inner}/tree
            tar -xf unpacked/usr/src/{self.name}.tar.xz --strip-components=1 -C {self.step.inner}/tree
            version=$(dpkg-deb -f {self.name}_*.deb Version)
        """)
        return self._got()

    def source(self, place: Archive) -> str:
        """Take it from the source package, which archives list for years; its content is the same."""
        wanted = f"-xF {shlex.quote(self.version)}" if self.version else f"'^{self.series.replace('.', '[.]')}[.]'"
        self._fetch(place, "deb-src", f"""
            listed=$(apt-cache showsrc --only-source linux 2>/dev/null | sed -n 's/^Version: //p' | sort -V)
            version=$(printf '%s\\n' "$listed" | grep {wanted} | tail -n 1)
            [ "$version" ] || {{ echo "E: it is not among the source packages of linux:" ${{listed:-none}}; exit 1; }}
            apt-get -q source --download-only "linux=$version"
            dpkg-source -x linux_*.dsc {self.step.inner}/tree
            rm -rf {self.step.inner}/tree/debian {self.step.inner}/tree/.pc
        """)
        return self._got()

    def _fetch(self, place: Archive, kind: str, script: str) -> None:
        line = place.line(self.suite, kind, architecture=config.debian_architecture() if kind == "deb" else "")
        shell(self.log, f"""
            {archive.apt([line])}
            rm -rf {self.step.inner}/tree
            mkdir -p /tmp/linux && cd /tmp/linux
            {script}
            echo "$version" > {self.step.inner}/outcome
        """, network=True)

    def _got(self) -> str:
        return f"Linux {self.step.outcome().strip()}"


MOVED = (f"Set NVLINK2_SNAPSHOT to an archive as of a date when {root.BACKPORTS} had linux {LINUX_VERSION}, "
         "or NVLINK2_LINUX to a tree or tarball of that version.")


def moved_linux() -> str:
    """What to do when a patch does not apply to the source that was taken."""
    used = LINUX_STEP.outcome().split("\n")[0]
    made_for = f"The series is made for Linux {LINUX_VERSION}"
    return f"{made_for}, which this is." if used == LINUX_VERSION else f"{made_for}, and this is {used}. {MOVED}"


def moved_qemu() -> str:
    """The same for QEMU."""
    return (f"The patches are made for QEMU {QEMU_VERSION}, and this is {QEMU_STEP.outcome().strip()}. Set NVLINK2_SNAPSHOT "
            "to an archive as of a date when it had that version.")


def _linux_ways(log: Log) -> list[archive.Way]:
    places = archive.archives(root.BACKPORTS)
    exact = LinuxSource(log, LINUX_STEP, root.BACKPORTS, LINUX, "7.3", LINUX_VERSION)
    newest = LinuxSource(log, LINUX_STEP, root.BACKPORTS, LINUX, "7.3")
    newest_ways = [
        *archive.ways(f"the newest {LINUX}, {root.BACKPORTS}", places, newest.package),
        *archive.ways(f"the newest 7.3.N as source package, {root.BACKPORTS}", places, newest.source),
    ]
    if config.newest():
        return newest_ways
    # An archive as of a date is there for the exact version: a newer one comes after all of these.
    return [
        *archive.ways(f"{LINUX} {LINUX_VERSION}, {root.BACKPORTS}", places, exact.package),
        *archive.ways(f"source package linux {LINUX_VERSION}, {root.BACKPORTS}", places, exact.source),
        *newest_ways,
    ]


def _override() -> str:
    """Which tree or tarball of the user's own is to be taken, and in which state: its content would take long to read."""
    source = config.linux_override()
    if not source:
        return ""
    found = [source] if source.is_file() else [path for path in source.rglob("*") if ".git" not in path.parts]
    states = (path.lstat() for path in found)
    return digest(str(source), *(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in zip(found, states)))


def _fetch_linux(log: Log) -> None:
    source = config.linux_override()
    tree = LINUX_STEP.path()
    outcome = LINUX_STEP.home() / "outcome"
    if source:
        # The user's own comes first, and alone.
        files.remove(tree)
        tree.mkdir()
        log.run(["cp", "-a", f"{source}/.", str(tree)] if source.is_dir()
                else ["tar", "-xf", str(source), "-C", str(tree), "--strip-components=1"])
        files.remove(tree / ".git")
        outcome.write_text(f"{source}\n", encoding="utf-8")
        say(f"linux-source: using {source}, as NVLINK2_LINUX says")
    else:
        archive.take(log, _linux_ways(log), f"{MOVED} {archive.VARIABLES}")
        if (used := outcome.read_text(encoding="utf-8").strip()) != LINUX_VERSION:
            say(f"linux-source: {used} is not {LINUX_VERSION}, for which the series is made: a patch may not apply")
    version = files.text(tree / "Makefile")
    if "VERSION = 7\nPATCHLEVEL = 3\n" not in version:
        raise Failure(f"{files.text(outcome).strip()} is not Linux 7.3. Set NVLINK2_LINUX to a Linux 7.3 tree or tarball.")
    # What a tree is called does not tell what it is: steps that use it depend on its content.
    shell(log, f"cd {LINUX_TREE}\n{COMMIT}\ngit rev-parse HEAD^{{tree}} >> ../outcome")


def _fetch_qemu(log: Log) -> None:
    least, below = (shlex.quote(bound) for bound in QEMU_RANGE)

    def go(place: Archive) -> str:
        # The tarball follows trixie's point releases, so that its name is not known before.
        lines = [place.line(root.SUITE, architecture=config.debian_architecture()), place.line(root.SUITE, "deb-src")]
        shell(log, f"""
            {archive.apt(lines)}
            rm -rf {QEMU_TREE} {QEMU_STEP.inner}/firmware
            mkdir -p {QEMU_TREE} /tmp/qemu && cd /tmp/qemu
            version=
            listed=$(apt-cache showsrc --only-source qemu 2>/dev/null | sed -n 's/^Version: //p' | sort -V | paste -s -d ' ')
            for one in $listed; do
                if dpkg --compare-versions "$one" ge {least} && dpkg --compare-versions "$one" lt {below}; then
                    version=$one
                fi
            done
            [ "$version" ] ||
                {{ echo "E: qemu is ${{listed:-not there}}, known to work is {QEMU_RANGE[0]} up to {QEMU_RANGE[1]}"; exit 1; }}
            apt-get -q source --download-only "qemu=$version"
            apt-get -q download "qemu-system-data=$version"
            dpkg-deb -x qemu-system-data_*.deb {QEMU_STEP.inner}/firmware
            tar -xf qemu_*.orig.tar.xz --strip-components=1 -C {QEMU_TREE}
            echo "$version" > {QEMU_STEP.inner}/outcome
        """, network=True)
        return f"QEMU {QEMU_STEP.outcome().strip()}"

    archive.take(log, archive.ways(f"the newest 10.0.N, {root.SUITE}", archive.archives(root.SUITE), go),
                 archive.VARIABLES)
    if (used := QEMU_STEP.outcome().strip()) != QEMU_VERSION:
        say(f"qemu-source: {used} is not {QEMU_VERSION}, for which the models are made: a patch may not apply")
    shell(log, f"cd {QEMU_TREE}\n{COMMIT}")


# Programs without libraries: those of any release will do.
TARGET_SUITES = [root.SUITE, "testing", "bookworm"]


def _fetch_target(log: Log) -> None:
    def go(suite: str, place: Archive) -> str:
        shell(log, f"""
            {archive.apt([place.line(suite, architecture="ppc64el")])}
            mkdir -p /tmp/target && cd /tmp/target
            apt-get -q download {" ".join(f"{package}:ppc64el" for package in TARGET_PACKAGES)}
            for deb in *.deb; do dpkg-deb -x "$deb" {TARGET_STEP.inner}; done
            # The suite and not the version: for a newer one of the same release nothing is built again.
            echo {suite} > {TARGET_STEP.inner}/outcome
        """, network=True)
        return f"{', '.join(TARGET_PACKAGES)} of {suite}"

    archive.take(log, [way for suite in TARGET_SUITES
                       for way in archive.ways(suite, archive.archives(suite), partial(go, suite))], archive.VARIABLES)


LINUX_STEP = Step(
    "linux-source",
    "fetching and unpacking Linux 7.3",
    lambda: digest(_override(), str(config.newest())),
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
