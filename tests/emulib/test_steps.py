# SPDX-License-Identifier: GPL-2.0
"""Tests of the order in which steps are made."""

import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from emulib.build import step
from emulib.build.config import Failure
from emulib.build.step import Step, ensure_all


class EnsureAll(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for patch in (mock.patch.object(step.config, "cache_dir", lambda: Path(folder.name)),
                      mock.patch.object(step, "say", lambda _: None),
                      mock.patch.object(Step, "all", [])):
            patch.start()
            self.addCleanup(patch.stop)
        (Path(folder.name) / "locks").mkdir()
        self.made = []

    def step(self, name, needs=(), work=lambda: None):
        def build(_log):
            work()
            (made.home() / "product").touch()
            self.made.append(name)

        made = Step(name, name, lambda: name, build, ["product"], needs)
        # Otherwise locked until the process ends, by a file that nobody closed.
        self.addCleanup(lambda: made._lock_file and made._lock_file.close())
        return made

    def test_what_is_needed_comes_first(self):
        source = self.step("source")
        kernel = self.step("kernel", [source])
        module = self.step("module", [kernel, source])
        self.assertEqual(ensure_all([module, kernel]), {})
        self.assertEqual(self.made, ["source", "kernel", "module"])

    def test_what_needs_nothing_of_each_other_is_made_side_by_side(self):
        both = threading.Barrier(2, timeout=10)
        source = self.step("source")
        kernel, qemu = (self.step(name, [source], both.wait) for name in ("kernel", "qemu"))
        self.assertEqual(ensure_all([kernel, qemu]), {})

    def test_a_failure_is_that_of_all_that_need_it_and_of_nothing_else(self):
        failure = Failure("no")
        tried = []

        def fail():
            tried.append("source")
            raise failure

        source = self.step("source", work=fail)
        kernel = self.step("kernel", [source])
        module = self.step("module", [kernel])
        demo = self.step("demo")
        self.assertEqual(ensure_all([module, demo]), {source: failure, kernel: failure, module: failure})
        self.assertEqual((tried, self.made), (["source"], ["demo"]))

    def test_what_goes_wrong_otherwise_is_a_failure_with_a_traceback(self):
        said = []

        def divide():
            return 1 // 0

        source = self.step("source", work=divide)
        with mock.patch.object(step, "say", said.append):
            broken = ensure_all([source])
        self.assertRegex(str(broken[source]), "source: ZeroDivisionError")
        self.assertIn("in divide", "".join(said))


if __name__ == "__main__":
    unittest.main()
