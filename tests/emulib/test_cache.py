# SPDX-License-Identifier: GPL-2.0
"""What several runs and checkouts share: folders of runs, device trees, the cache as a whole."""

import ast
import contextlib
import io
import os
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from emulib import cli
from emulib.build import config
from emulib.checks import mutate
from emulib.host import boot, machines


class Cache(unittest.TestCase):
    """In a cache of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        patch = mock.patch.dict("os.environ", {"XDG_CACHE_HOME": folder.name})
        patch.start()
        self.addCleanup(patch.stop)
        self.cache = config.cache_dir()

    def file(self, name: str) -> Path:
        """A file of the cache."""
        path = self.cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
        return path

    def test_run_of_another_container_keeps_its_folder(self) -> None:
        """Its process has a number that means nothing here."""
        nobody = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="utf-8")) + 1
        left = self.file(f"runs/{nobody}-1/console.log").parent
        with mock.patch.object(boot.os, "getpid", lambda: nobody), boot._run_dir() as running:
            (running / "console.log").touch()
            with mock.patch.object(boot.os, "getpid", os.getppid), boot._run_dir():
                self.assertTrue((running / "console.log").exists())
        self.assertFalse(running.exists())
        self.assertFalse(left.exists())

    def test_what_fuzzing_found_stays(self) -> None:
        kept = [self.file(name) for name in ("fuzz-pure/corpus/lpar/1", "fuzz-pure/crashes/lpar-1", "scratch/a/fuzz/seed-1.jsonl")]
        gone = [self.file(name) for name in ("fuzz-pure/target/x", "scratch/a/mutants/0/x", "scratch/b/x", "made/module/1/x", "x")]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(cli._clean([], False), 0)
        self.assertEqual([path for path in kept if not path.exists()], [])
        self.assertEqual([path for path in gone if path.exists()], [])
        self.assertFalse((self.cache / "scratch/b").exists())
        self.assertIn("fuzz-pure/crashes", said.getvalue())

    def test_without_such_nothing_stays(self) -> None:
        self.file("made/module/1/x")
        with contextlib.redirect_stderr(io.StringIO()):
            cli._clean([], False)
        self.assertFalse(self.cache.exists())

    def test_two_runs_of_the_mutants_follow_each_other(self) -> None:
        order = []
        inside, go_on = threading.Event(), threading.Event()

        def first(_: object) -> int:
            order.append("first begins")
            inside.set()
            go_on.wait(10)
            order.append("first ends")
            return 0

        def second(_: object) -> int:
            order.append("second")
            return 0

        def run(what) -> threading.Thread:
            def work() -> None:
                mutate.run("")
            with mock.patch.object(mutate, "_run", what):
                thread = threading.Thread(target=work)
                thread.start()
                self.assertTrue(inside.wait(10))
            return thread

        with mock.patch.object(mutate, "load", lambda: []), mock.patch.object(mutate, "chosen", lambda *_: []), \
                contextlib.redirect_stderr(io.StringIO()):
            one = run(first)
            two = threading.Thread(target=lambda: mutate.run(""))
            with mock.patch.object(mutate, "_run", second):
                two.start()
                two.join(0.5)
                go_on.set()
                one.join(10)
                two.join(10)
        self.assertEqual(order, ["first begins", "first ends", "second"])


class Trees(unittest.TestCase):
    """The key of a machine's device tree."""

    def test_all_that_makes_a_tree_counts(self) -> None:
        folder = config.TREE / "tests/qemu"
        wanted, found = {folder / "machine.py"}, set()
        while new := wanted - found:
            path = new.pop()
            found.add(path)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                wanted |= {folder / f"{name}.py" for name in names if (folder / f"{name}.py").exists()}
        wanted.add(Path(machines.__file__))
        with mock.patch.object(boot, "digest") as digest:
            digest.return_value = ""
            boot.TREE_STEPS[machines.REDBUD]._inputs()
        self.assertEqual(set(digest.call_args.args), wanted)


if __name__ == "__main__":
    unittest.main()
