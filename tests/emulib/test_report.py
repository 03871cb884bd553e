# SPDX-License-Identifier: GPL-2.0
"""Tests of how tests are counted."""

import unittest

from emulib.checks.report import Result

KTAP = """\
KTAP version 1
1..1
    # Subtest: cells
    1..2
    ok 1 one
    ok 2 two # SKIP not here
ok 1 cells
"""


class Tap(unittest.TestCase):
    def test_all_that_is_planned_is_counted(self):
        self.assertEqual(Result.tap(0, KTAP * 2).line(), "4 passed, 0 failed, 2 skipped")

    def test_what_was_planned_and_is_missing_is_a_failure(self):
        result = Result.tap(0, KTAP.replace("    ok 2 two # SKIP not here\n", ""))
        self.assertEqual(result.line(), "2 passed, 1 failed")
        self.assertIn("2 tests of 3 that were planned", result.text)

    def test_what_has_no_plan_is_a_failure(self):
        self.assertEqual(Result.tap(0, "ok 1 one\n").line(), "1 passed, 1 failed")


if __name__ == "__main__":
    unittest.main()
