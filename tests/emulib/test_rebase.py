# SPDX-License-Identifier: GPL-2.0
"""Tests of scripts/rebase, and of what is said of the parts of the series, on a kernel of two files."""

import contextlib
import io
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from emulib import rebase
from emulib.build import config, series
from emulib.checks import series as checks

ORDER = """
[[part]]
folder = "fixes/mm"
to = ["a@list"]
needed = ["mm-one"]

[[part]]
folder = "vfio"
to = ["b@list"]
after = ["fixes/mm"]
needed = true
"""
LINES = "".join(f"{number}\n" for number in range(40))


def commit(tree: Path, changes: dict[str, str], subject: str) -> None:
    for name, text in changes.items():
        (tree / name).write_text(text, encoding="utf-8")
    repository = rebase.Repository(tree)
    repository.git("add", "-A")
    repository.git("commit", "-q", "-m", f"{subject}\n\nAs it is.")


class Kernel(unittest.TestCase):
    """A kernel, three patches in two parts for it, and no other project."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.linux, self.kernel = self.home / "linux", self.home / "kernel"
        subprocess.run(["git", "init", "-q", str(self.linux)], check=True)
        commit(self.linux, {"a": LINES, "b": LINES, "Makefile": "# x\nVERSION = 7\n"}, "base")
        base = rebase.Repository(self.linux).git("rev-parse", "HEAD")
        for part, names in (("fixes/mm", ["one", "two"]), ("vfio", ["three"])):
            start = rebase.Repository(self.linux).git("rev-parse", "HEAD")
            for name in names:
                file, line = {"one": ("a", "5"), "two": ("a", "30"), "three": ("b", "9")}[name]
                commit(self.linux, {file: (self.linux / file).read_text().replace(f"\n{line}\n", f"\n{name}\n")}, f"mm: {name}")
            rebase.Repository(self.linux).git(*rebase.FORMAT, "-o", str(self.kernel / part), f"{start}..HEAD")
            (self.kernel / part / series.COVER).write_text("Subject\n\nText\n", encoding="utf-8")
        (self.kernel / "order.toml").write_text(ORDER, encoding="utf-8")
        (self.kernel / "README.md").write_text("mm-one mm-two mm-three", encoding="utf-8")
        rebase.Repository(self.linux).git("reset", "-q", "--hard", base)
        for patch in (mock.patch.object(series, "HOME", self.kernel), mock.patch.object(series, "ORDER", self.kernel / "order.toml"),
                      mock.patch.object(checks, "README", self.kernel / "README.md"),
                      mock.patch.object(config, "TREE", self.home),
                      mock.patch.object(rebase.sources.LINUX_STEP, "path", lambda: self.linux)):
            patch.start()
            self.addCleanup(patch.stop)
        said = contextlib.redirect_stderr(io.StringIO())
        said.__enter__()
        self.addCleanup(said.__exit__, None, None, None)

    def target(self, changes: dict[str, str], repository: bool = True) -> str:
        """Another tree, in which files are other ones."""
        tree = self.home / "target"
        subprocess.run(["cp", "-a", str(self.linux), str(tree)], check=True)
        commit(tree, changes, "moved on")
        if not repository:
            subprocess.run(["rm", "-rf", str(tree / ".git")], check=True)
        return str(tree)


class Rebase(Kernel):
    """What becomes of patches on another tree."""

    def test_all_apply_where_lines_moved(self) -> None:
        for repository in (True, False):
            with self.subTest(repository=repository):
                out = self.home / f"out{repository}"
                outcome = rebase.rebase(self.target({"a": f"new\n{LINES}"}, repository), out)
                self.assertEqual((outcome.applied, outcome.there, outcome.failed), (3, [], []))
                self.assertIn("@@ -4,7 +4,7 @@", (out / "kernel/fixes/mm/0001-mm-one.patch").read_text())
                subprocess.run(["rm", "-rf", str(self.home / "target")], check=True)

    def test_conflict_is_listed_and_kept_apart(self) -> None:
        before = {path: path.read_bytes() for path in self.kernel.rglob("*") if path.is_file()}
        out = self.home / "out"
        outcome = rebase.rebase(self.target({"a": LINES.replace("\n5\n", "\nother\n")}), out)
        self.assertEqual((outcome.applied, outcome.there), (2, []))
        self.assertEqual(outcome.failed, ["fixes/mm/0001-mm-one.patch: a"])
        self.assertRegex((out / "failed/fixes/mm/0001-mm-one.patch.diff").read_text(), r"(?s)other.*one")
        self.assertEqual([path.name for path in sorted((out / "kernel").rglob("*.patch"))], ["0001-mm-two.patch", "0001-mm-three.patch"])
        self.assertEqual({path: path.read_bytes() for path in self.kernel.rglob("*") if path.is_file()}, before)

    def test_what_is_there_already_is_said(self) -> None:
        outcome = rebase.rebase(self.target({"a": LINES.replace("\n5\n", "\none\n")}), self.home / "out")
        self.assertEqual((outcome.applied, outcome.there, outcome.failed), (2, ["fixes/mm/0001-mm-one.patch"], []))

    def test_edits_are_taken_back_to_the_byte(self) -> None:
        before = {path: path.read_bytes() for path in self.kernel.rglob("*.patch")}
        out = self.home / "out"
        rebase.rebase(rebase.SAME, out)
        rebase.take(out)
        self.assertEqual({path: path.read_bytes() for path in self.kernel.rglob("*.patch")}, before)
        tree = out / "linux"
        commit(tree, {"b": (tree / "b").read_text().replace("three", "3")}, "fixup! mm: three")
        rebase.Repository(tree).git("rebase", "-q", "-i", "--autosquash", "--update-refs", "base", GIT_SEQUENCE_EDITOR="true")
        rebase.take(out)
        after = {path: path.read_bytes() for path in self.kernel.rglob("*.patch")}
        self.assertEqual([path.name for path in after if after[path] != before[path]], ["0001-mm-three.patch"])

    def test_folder_that_is_used_is_refused(self) -> None:
        with self.assertRaisesRegex(rebase.Failure, "is not empty"):
            rebase.rebase(rebase.SAME, self.home)

    def test_what_is_no_tree_is_said(self) -> None:
        with self.assertRaisesRegex(rebase.Failure, "neither a folder nor a version"):
            rebase.rebase("nonsense", self.home / "out")


class Parts(Kernel):
    """What check 'series' finds."""

    def test_all_is_well(self) -> None:
        self.assertEqual(checks.misfits(series.parts()), [])
        self.assertEqual([patch.name for patch in series.necessary()], ["0001-mm-one.patch", "0001-mm-three.patch"])

    def test_what_is_wrong(self) -> None:
        (self.kernel / "README.md").write_text("mm-one mm-three", encoding="utf-8")
        (self.kernel / "fixes/mm" / series.COVER).unlink()
        (self.kernel / "lost").mkdir()
        (self.kernel / "vfio/0001-mm-three.patch").rename(self.kernel / "lost/0001-x.patch")
        parts = series.parts()[::-1]
        found = "\n".join(checks.misfits(parts))
        for said in ("lost has patches, but no entry", "vfio comes before fixes/mm", "vfio: its patches are not numbered from 1",
                     "fixes/mm: no cover-letter.txt", "README.md says nothing of fixes/mm/0002-mm-two.patch"):
            self.assertIn(said, found)

    def test_closure_is_in_order(self) -> None:
        parts = {part.folder: part for part in series.parts()}
        self.assertEqual([part.folder for part in checks.closure(parts["vfio"], parts)], ["fixes/mm", "vfio"])
        self.assertEqual([part.folder for part in checks.closure(parts["fixes/mm"], parts)], ["fixes/mm"])
