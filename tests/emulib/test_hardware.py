# SPDX-License-Identifier: GPL-2.0
"""Tests of which selftests run on hardware: the table has each of them, and nothing else."""

import re
import unittest

from emulib.build import config
from emulib.checks.tests import ran, run_on_hardware

FOLDER = config.TREE / "tests/selftests"
TEST = re.compile(r"^TEST(?:_F)?(?:_TIMEOUT)?\((?:\w+, )?(\w+?)(?:, \w+)?\)$", re.MULTILINE)


class Table(unittest.TestCase):
    """tests/selftests/hardware.tsv."""

    def setUp(self) -> None:
        self.rows = [line.split("\t") for line in (FOLDER / "hardware.tsv").read_text(encoding="utf-8").splitlines()
                     if not line.startswith("#")]
        self.tests = {path.stem: set(TEST.findall(text)) for path in FOLDER.glob("*.c")
                      if "TEST_HARNESS_MAIN" in (text := path.read_text(encoding="utf-8"))}

    def test_each_line_is_of_a_test(self) -> None:
        """No line is left of a test that has another name now."""
        for program, test, _ in self.rows:
            self.assertIn(test, self.tests[program] | {"*"})

    def test_each_test_has_a_line(self) -> None:
        """Somebody has said of each whether it runs."""
        for program, tests in self.tests.items():
            self.assertTrue(tests, program)
            named = {test for name, test, _ in self.rows if name == program}
            self.assertLessEqual(tests, tests if "*" in named else named, program)

    def test_nothing_runs_by_a_line_for_all(self) -> None:
        """What is new is not run on hardware because its neighbours are."""
        self.assertFalse([program for program, test, why in self.rows if test == "*" and why == "runs"])

    def test_all_that_ran_is_found(self) -> None:
        """Of a run's output: by program, whatever the fixture and its variant are called; nothing that was skipped."""
        said = """# lpar
TAP version 13
ok 1 lpar.first
not ok 2 lpar.with_kvm.second
# lpar took 3 s
ok 3 lpar.third # SKIP needs the model: hardware.tsv has no line for it
# atsd
ok 1 global.first
ok - kernel log has no splat
"""
        self.assertEqual(ran(said), {("lpar", "first"), ("lpar", "second"), ("atsd", "first")})

    def test_all_that_runs_is_wanted(self) -> None:
        wanted = run_on_hardware(["lpar", "eeh"])
        self.assertEqual(wanted, {("lpar", test) for program, test, why in self.rows if program == "lpar" and why == "runs"})
        self.assertTrue(wanted)


if __name__ == "__main__":
    unittest.main()
