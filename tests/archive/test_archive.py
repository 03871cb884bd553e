#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of where sources come from, against archives of a few tiny packages that are made here.

Each runs scripts/emu as a user does, in a cache of its own that has this cache's build root.
"""

import email.utils
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from emulib.build import archive, config, enter, root, sources  # noqa: E402
from emulib.build.log import Log  # noqa: E402
from emulib.checks import newest  # noqa: E402

EXACT = sources.LINUX_VERSION
NEWER = "7.3.9-1~bpo13+1"
BACKPORTS = root.BACKPORTS
DEB, NEWER_DEB, DSC = f"linux-source-7.3_{EXACT}_all.deb", f"linux-source-7.3_{NEWER}_all.deb", f"linux_{EXACT}.dsc"
OLD_DEB = "linux-source-5.10_5.10.1-1_all.deb"
BUSYBOX = "busybox-static_1_ppc64el.deb"
SOURCE = [DSC, f"linux_{EXACT.split('-')[0]}.orig.tar.xz", f"linux_{EXACT}.debian.tar.xz"]

PATCH = """\
--- a/init/main.c
+++ b/init/main.c
@@ -1 +1 @@
-upstream
+Debian
"""
CONTROL = """\
Source: linux
Maintainer: nobody <nobody@localhost>

Package: linux-source-7.3
Architecture: all
Description: nothing
"""


def in_root(script: str, folder: Path) -> None:
    """Run a script in the root, in a folder of the cache."""
    done = subprocess.run(enter.inside(["bash", "-euc", script], workdir=config.inner(folder)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stdout)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def linux(folder: Path, version: str, main: str) -> None:
    """A tree that has just enough of Linux."""
    numbers = version.split("-")[0].split(".")
    write(folder / "Makefile", "".join(f"{name} = {number}\n" for name, number in
                                       zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), numbers)))
    write(folder / "init/main.c", f"{main}\n")
    write(folder / "drivers/vfio/pci/vfio_pci_nvlink2.c", "the original\n")


def binary_package(pool: Path, name: str, version: str, architecture: str = "all") -> None:
    package = pool / f"{name}_{version}_{architecture}"
    write(package / "DEBIAN/control", f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
                                      "Maintainer: nobody <nobody@localhost>\nDescription: nothing\n")
    if name.startswith("linux"):
        linux(pool / name, version, "Debian")
        (package / "usr/src").mkdir(parents=True)
        with tarfile.open(package / f"usr/src/{name}.tar.xz", "w:xz") as tar:
            tar.add(pool / name, name)
        shutil.rmtree(pool / name)
    else:
        write(package / "usr/bin/busybox", f"{version}\n")


class Archives(unittest.TestCase):
    """What scripts/emu does with archives that have this and lack that."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory(prefix="archive-test-", dir=config.cache_dir())
        cls.pool = Path(cls.scratch.name) / "pool"
        for package in (("linux-source-7.3", EXACT), ("linux-source-7.3", NEWER), ("linux-source-5.10", "5.10.1-1"),
                        ("busybox-static", "1", "ppc64el")):
            binary_package(cls.pool, *package)
        tree = cls.pool / "linux"
        linux(tree, EXACT, "upstream")
        with tarfile.open(cls.pool / SOURCE[1], "w:xz") as tar:
            tar.add(tree, "linux")
        write(tree / "debian/control", CONTROL)
        write(tree / "debian/changelog", f"linux ({EXACT}) x; urgency=low\n\n  * x\n\n"
                                         " -- nobody <nobody@localhost>  Thu, 01 Jan 1970 00:00:00 +0000\n")
        write(tree / "debian/source/format", "3.0 (quilt)\n")
        write(tree / "debian/patches/series", "main.patch\n")
        write(tree / "debian/patches/main.patch", PATCH)
        write(tree / "debian/rules", "")
        in_root("""
            for package in */DEBIAN; do dpkg-deb --root-owner-group -b "${package%/DEBIAN}" .; done
            dpkg-source -b linux
        """, cls.pool)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.scratch.cleanup()

    def setUp(self) -> None:
        cache = tempfile.TemporaryDirectory(prefix="archive-test-", dir=config.cache_dir())
        self.addCleanup(cache.cleanup)
        self.cache = Path(cache.name) / "nvlink2-vfio"
        home = self.cache / root.STEP.home().relative_to(config.cache_dir())
        home.parent.mkdir(parents=True)
        home.symlink_to(root.STEP.home())
        self.said = ""

    def archive(self, name: str, suite: str, files: list[str], gone: tuple[str, ...] = (), valid: float = 3600) -> str:
        """Make an archive of files of the pool; its address. Those that are `gone` are in its index only.

        Its Release file is valid for so many seconds.
        """
        folder = self.cache / name
        (folder / "pool").mkdir(parents=True)
        for file in files:
            shutil.copy(self.pool / file, folder / "pool")
        indexes = [f"main/binary-{architecture}/Packages" for architecture in (config.debian_architecture(), "ppc64el")]
        dist = folder / "dists" / suite
        for index in [*indexes, "main/source/Sources"]:
            (dist / index).parent.mkdir(parents=True)
        # The root sees the cache of this process, and emu's root that of the test.
        in_root("\n".join([
            *(f"dpkg-scanpackages -m -a {index.split('/')[1][7:]} pool > dists/{suite}/{index}" for index in indexes),
            f"dpkg-scansources pool > dists/{suite}/main/source/Sources",
        ]), folder)
        lines = [f"Suite: {suite}", f"Codename: {suite}", "Components: main", "Architectures: all amd64 arm64 ppc64el",
                 f"Date: {email.utils.formatdate(time.time() - 7200, usegmt=True)}",
                 f"Valid-Until: {email.utils.formatdate(time.time() + valid, usegmt=True)}", "SHA256:"]
        for index in [*indexes, "main/source/Sources"]:
            data = (dist / index).read_bytes()
            lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {index}")
        write(dist / "Release", "\n".join(lines) + "\n")
        for file in gone:
            (folder / "pool" / file).unlink()
        return f"[trusted=yes] copy:{config.ROOT_CACHE}/{name}"

    def emu(self, *arguments: str, status: int = 0, **variables: str) -> None:
        """Run scripts/emu; what it says is in self.said."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NVLINK2_")}
        # Nothing may be taken from anywhere else.
        environment |= {"XDG_CACHE_HOME": str(self.cache.parent), "NVLINK2_DEBIAN_MIRROR": "copy:/nowhere", **variables}
        done = subprocess.run([sys.executable, str(config.TREE / "scripts/emu"), *arguments], env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.said = done.stdout
        self.assertEqual(done.returncode, status, self.said)

    def step_home(self, name: str) -> Path:
        (stamp,) = (self.cache / "made" / name).glob("*/.done")
        return stamp.parent

    def tree(self, name: str = "linux-source") -> dict[str, str]:
        """The files of the tree that was taken."""
        tree = self.step_home(name) / "tree"
        return {str(path.relative_to(tree)): path.read_text(encoding="utf-8") for path in tree.rglob("*")
                if path.is_file() and ".git" not in path.parts}

    def outcome(self) -> list[str]:
        """What was taken, and what it is."""
        return (self.step_home("linux-source") / "outcome").read_text(encoding="utf-8").split("\n")

    def test_exact_version(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB, NEWER_DEB, *SOURCE])
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertIn(f"linux-source: using Linux {EXACT}, way 1 of 4: ", self.said)
        self.assertNotIn("failed", self.said)
        self.assertEqual(self.tree()["Makefile"], "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")

    def test_source_package_when_the_binary_is_hidden(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB])
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        tree, outcome = self.tree(), self.outcome()
        self.emu("clean", "linux-source")
        here = self.archive("b", BACKPORTS, [NEWER_DEB, *SOURCE])
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertRegex(self.said, rf"way 1 of 4, linux-source-7.3 {re.escape(EXACT)}.* failed: .*{re.escape(EXACT)}")
        self.assertIn(f"linux-source: using Linux {EXACT}, way 2 of 4: source package", self.said)
        # What is built of either is the same.
        self.assertEqual(self.tree(), tree)
        self.assertEqual(self.outcome(), outcome)

    def test_newest_when_the_exact_is_gone(self) -> None:
        here = self.archive("a", BACKPORTS, [NEWER_DEB])
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertIn("way 2 of 4, source package", self.said)
        self.assertIn(f"linux-source: using Linux {NEWER}, way 3 of 4: ", self.said)
        self.assertIn(f"{NEWER} is not {EXACT}, for which the series is made", self.said)
        self.assertEqual(self.outcome()[0], NEWER)

    def test_newest_as_source_package(self) -> None:
        # The only version of this pool, when another is wanted: as if the pinned one had never been there.
        here = self.archive("a", BACKPORTS, SOURCE)
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here, NVLINK2_NEWEST="1")
        self.assertIn("way 1 of 2, the newest linux-source-7.3", self.said)
        self.assertIn(f"using Linux {EXACT}, way 2 of 2: the newest 7.3.N as source package", self.said)

    def test_index_names_what_the_pool_lacks(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB, NEWER_DEB], gone=(DEB,))
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertRegex(self.said, r"way 1 of 4, .* failed: Failed to fetch")
        self.assertIn(f"using Linux {NEWER}, way 3 of 4", self.said)

    def test_everything_gone(self) -> None:
        here = self.archive("a", BACKPORTS, [OLD_DEB])
        self.emu("setup", "linux-source", status=config.UNAVAILABLE, NVLINK2_DEBIAN_MIRROR=here)
        ending = self.said[self.said.index("linux-source: there is no way left"):]
        for number, what in enumerate(("linux-source-7.3 7", "source package", "the newest linux", "the newest 7.3.N"), 1):
            self.assertRegex(ending, rf"(?m)^  {number}\. {what}.*: \S")
        for variable in ("NVLINK2_DEBIAN_MIRROR", "NVLINK2_SNAPSHOT", "NVLINK2_LINUX"):
            self.assertIn(variable, ending)

    def test_snapshot_comes_before_a_newer_version(self) -> None:
        here = self.archive("a", BACKPORTS, [NEWER_DEB])
        # Such an archive is as old as its date.
        then = self.archive("b", BACKPORTS, [DEB], valid=-3600)
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here, NVLINK2_SNAPSHOT=then)
        self.assertRegex(self.said, f"using Linux {re.escape(EXACT)}, way 2 of 8: .* of the archive of NVLINK2_SNAPSHOT")

    def test_own_linux_comes_first_and_alone(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB])
        tree = self.cache / "mine"
        linux(tree, "7.3.1", "mine")
        ball = self.cache / "mine.tar.xz"
        with tarfile.open(ball, "w:xz") as tar:
            tar.add(tree, "linux-7.3.1")
        outcomes = []
        for mine in (tree, ball):
            self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here, NVLINK2_LINUX=str(mine))
            self.assertIn(f"using {mine}, as NVLINK2_LINUX says", self.said)
            self.assertNotIn("way", self.said)
            self.assertEqual(self.tree()["init/main.c"], "mine\n")
            outcomes.append(self.outcome())
            self.emu("clean", "linux-source", NVLINK2_LINUX=str(mine))
        # The same content is the same, and another is another, so that the kernel is built again.
        linux(tree, "7.3.1", "changed")
        self.emu("setup", "linux-source", NVLINK2_LINUX=str(tree))
        self.assertEqual(outcomes[0][1], outcomes[1][1])
        self.assertNotEqual(outcomes[0], self.outcome())
        self.emu("clean", "linux-source", NVLINK2_LINUX=str(tree))
        linux(tree, "7.4.0", "mine")
        self.emu("setup", "linux-source", status=1, NVLINK2_DEBIAN_MIRROR=here, NVLINK2_LINUX=str(tree))
        self.assertIn(f"{tree} is not Linux 7.3", self.said)

    def test_expired_release_file_is_a_later_way(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB], valid=-3600)
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertRegex(self.said, "way 1 of 4, .* failed: .*expired")
        self.assertRegex(self.said, f"using Linux {re.escape(EXACT)}, way 5 of 8: .*, whose date is not checked")

    def test_last_good_index_says_why(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB])
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertNotIn("last good", self.said)
        self.emu("clean", "linux-source")
        # Half-synchronised: the Release file is of another day than the index.
        release = self.cache / f"a/dists/{BACKPORTS}/Release"
        packages = release.parent / f"main/binary-{config.debian_architecture()}/Packages"
        sum_of = hashlib.sha256(packages.read_bytes()).hexdigest()
        write(release, release.read_text(encoding="utf-8").replace(sum_of, "0" * 64))
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here)
        self.assertRegex(self.said, "linux-source: using the package index of the last good update, as there is no new package "
                                    "index: Failed to fetch")
        self.assertIn(f"using Linux {EXACT}, way 1 of 4", self.said)
        self.emu("clean", "linux-source")
        # To ask for the newest is to ask today's index.
        self.emu("setup", "linux-source", status=1, NVLINK2_DEBIAN_MIRROR=here, NVLINK2_NEWEST="1")
        self.assertRegex(self.said, "way 1 of 2, .* failed: Failed to fetch")

    def test_newest_first(self) -> None:
        here = self.archive("a", BACKPORTS, [DEB, NEWER_DEB])
        self.emu("setup", "linux-source", NVLINK2_DEBIAN_MIRROR=here, NVLINK2_NEWEST="1")
        self.assertIn(f"using Linux {NEWER}, way 1 of 2", self.said)

    def test_old_releases_have_an_archive_of_their_own(self) -> None:
        here, old = self.archive("a", BACKPORTS, [DEB]), self.archive("b", "bullseye", [OLD_DEB])
        both = {"NVLINK2_DEBIAN_MIRROR": here, "NVLINK2_OLD_MIRROR": old}
        self.emu("setup", "linux-source", "peer-source", **both)
        self.assertIn(f"linux-source: using Linux {EXACT}, way 1 of 8", self.said)
        self.assertRegex(self.said, "peer-source: using Linux 5.10.1-1, way 1 of 4: .* of the archive of NVLINK2_OLD_MIRROR")
        self.assertIn("drivers/vfio/pci/vfio_pci_nvlink2.c", self.tree("peer-source"))

    def test_another_suite_for_ppc64el(self) -> None:
        here = self.archive("a", "testing", [BUSYBOX])
        self.emu("setup", "ppc64el", NVLINK2_DEBIAN_MIRROR=here)
        self.assertRegex(self.said, f"way 1 of 3, {root.SUITE}.* failed: ")
        self.assertIn("ppc64el: using busybox-static of testing, way 2 of 3", self.said)

    def test_patch_that_does_not_apply_is_named_with_the_remedy(self) -> None:
        here = self.archive("a", BACKPORTS, [NEWER_DEB])
        self.emu("setup", "kernel", status=1, NVLINK2_DEBIAN_MIRROR=here)
        self.assertRegex(self.said, r"E: scripts/kernel/\S+\.patch does not apply")
        self.assertIn(f"made for Linux {EXACT}, and this is {NEWER}. Set NVLINK2_SNAPSHOT", self.said)


class Order(unittest.TestCase):
    """How ways are gone."""

    def test_options_before_an_address(self) -> None:
        place = archive.Archive("it", " [trusted=yes] copy:/there", dated=False)
        self.assertEqual(place.line("sid", architecture="arm64"),
                         "deb [trusted=yes arch=arm64 check-valid-until=no] copy:/there sid main")
        self.assertEqual(archive.Archive("it", "copy:/there").line("sid", "deb-src"), "deb-src copy:/there sid main")

    def test_reason_is_what_apt_complains_of(self) -> None:
        said = "step: 'unshare ...' failed with status 100.\nW: not this\nE: Failed to fetch copy:/x  404  Not Found\n" \
               "E: Unable to fetch some archives, maybe run apt-get update\nThe whole log is /x. Remedy"
        self.assertEqual(archive.reason(said), "Failed to fetch copy:/x  404  Not Found")
        self.assertEqual(archive.reason("rustc is 2.0\n"), "rustc is 2.0")


    def test_archive_that_the_root_is_from(self) -> None:
        said = iter(["", "copy:/security Debian-Security Debian-Security\ncopy:/there Debian Debian\n"])

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 0, next(said), "")

        names = ("NVLINK2_DEBIAN_MIRROR", "NVLINK2_OLD_MIRROR", "NVLINK2_SNAPSHOT")
        with mock.patch.dict(os.environ), mock.patch.object(archive.procs, "run", run):
            for name in names:
                os.environ.pop(name, None)
            # This machine knows none.
            self.assertEqual([place.address for place in archive.archives("trixie")], ["copy:/there"])
            said = iter(["", ""])
            with self.assertRaisesRegex(config.Failure, "Set NVLINK2_DEBIAN_MIRROR"):
                archive.archives("trixie")
            said = iter(["", ""])
            os.environ["NVLINK2_SNAPSHOT"] = "copy:/then"
            self.assertEqual([place.address for place in archive.archives("trixie")], ["copy:/then"])

    def test_full_disk_is_not_the_archives_fault(self) -> None:
        with self.assertRaisesRegex(config.Failure, config.NO_ROOM) as raised:
            self.take([config.no_room()])
        self.assertNotIsInstance(raised.exception, config.Unavailable)

    def take(self, answers: list[str]) -> tuple[str, int]:
        """Go one way, which fails for each of the reasons but an empty one; what it got, and how often there was a pause."""
        def go() -> str:
            if why := answers.pop(0):
                raise config.Failure(f"E: {why}")
            return "it"

        with (tempfile.TemporaryDirectory() as folder, Log("step", Path(folder) / "log") as log,
              mock.patch.object(archive, "say"), mock.patch.object(archive.procs, "sleep") as sleep):
            return archive.take(log, [archive.Way("the way", go)], "the remedy"), sleep.call_count

    def test_what_may_pass_is_tried_again(self) -> None:
        self.assertEqual(self.take(["Failed to fetch it  404  Not Found", ""]), ("it", 1))
        with self.assertRaisesRegex(config.Unavailable, "(?s)1. the way: .*404.*the remedy"):
            self.take(["404"] * archive.ROUNDS)

    def test_what_stays_so_is_not_tried_again(self) -> None:
        with self.assertRaisesRegex(config.Unavailable, "was not found"):
            self.take(["Version '1' for 'x' was not found"])

    def test_what_no_archive_says_may_be_our_fault(self) -> None:
        with self.assertRaisesRegex(config.Failure, "syntax error") as raised:
            self.take(["bash: syntax error"])
        self.assertNotIsInstance(raised.exception, config.Unavailable)


class Newest(unittest.TestCase):
    """What `check newest` makes of what it can fetch."""

    def setUp(self) -> None:
        cache = tempfile.TemporaryDirectory()
        self.addCleanup(cache.cleanup)
        for patch in (mock.patch.object(newest, "cache", lambda: Path(cache.name)), mock.patch.object(newest, "say")):
            patch.start()
            self.addCleanup(patch.stop)
        self.ran: list[tuple[list[str], dict[str, str]]] = []

    def found(self, linux_here: str, linux_there: str, setup: int = 0) -> None:
        """The check, where this cache has one Linux, and the archive another."""
        def said(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
            self.ran.append((command[2:], env))
            if command[2] == "setup":
                for step in newest.FETCHED:
                    home = newest.cache() / "made" / step.name / "key"
                    write(home / "outcome", linux_there if step is sources.LINUX_STEP else "same")
                    write(home / ".done", "")
            status = setup if command[2] == "setup" else 0
            return subprocess.CompletedProcess(command, status, "E: gone" if status else "2 passed, 0 failed\n", "")

        for step in newest.FETCHED:
            patch = mock.patch.object(step, "outcome", lambda here=linux_here if step is sources.LINUX_STEP else "same": here)
            patch.start()
            self.addCleanup(patch.stop)
        with mock.patch.object(newest.procs, "said", said):
            self.result = newest.newest()

    def test_what_moved_is_built_in_the_other_cache(self) -> None:
        self.found("7.3.4\ntree", "7.3.9\ntree")
        self.assertEqual([command[0] for command, _ in self.ran], ["setup", "selftests-1chip"])
        for _, environment in self.ran:
            self.assertEqual((environment["NVLINK2_NEWEST"], environment["XDG_CACHE_HOME"]), ("1", str(newest.cache().parent)))
        self.assertEqual((self.result.passed, self.result.failed), (2, 0))

    def test_what_did_not_move_is_not_built_again(self) -> None:
        self.found("7.3.4\ntree", "7.3.4\ntree")
        command, environment = self.ran[-1]
        self.assertEqual(command, ["selftests-1chip"])
        self.assertNotIn("NVLINK2_NEWEST", environment)

    def test_what_cannot_be_fetched_is_nobodys_failure(self) -> None:
        with self.assertRaisesRegex(config.Unavailable, "E: gone"):
            self.found("", "", setup=config.UNAVAILABLE)
        self.assertEqual(self.ran[-1][0][0], "setup")

    def test_what_goes_wrong_otherwise_is_a_failure(self) -> None:
        self.found("", "", setup=1)
        self.assertEqual((self.result.passed, self.result.failed), (0, 1))
        self.assertIn("E: gone", self.result.text)

    def test_it_is_fetched_anew_each_time(self) -> None:
        def said(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
            self.assertEqual([path.name for path in (newest.cache() / "made").iterdir()], ["kernel"])
            return subprocess.CompletedProcess(command, config.UNAVAILABLE, "E: gone", "")

        for name in [*(step.name for step in newest.FETCHED), "kernel"]:
            write(newest.cache() / "made" / name / "key/outcome", "old")
        with mock.patch.object(newest.procs, "said", said):
            self.assertRaises(config.Unavailable, newest.newest)


if __name__ == "__main__":
    unittest.main()
