# SPDX-License-Identifier: GPL-2.0
"""Tests of which skips are expected."""

import unittest
from unittest import mock

from emulib import check

from emulib.checks import skips
from emulib.checks.report import Result

LISTED = """
[selftests-1chip]
dma.another_container = needs a second chip: --chips 2
"""
KSELFTEST = """\
ok 1 dma.one
ok 2 dma.another_container # SKIP one NPU only: no second group (boot with --chips 2)
"""
KTAP = """\
    ok 1 - cells # SKIP
    not ok 2 - cells
ok 3 - suite
"""
UNITTEST = """\
test_a (test_machine.Tree.test_a) ... ok
test_b (test_machine.Tree.test_b)
What it is about. ... skipped 'no libfdt'
"""
CARGO = """\
test topology::a ... ok
test topology::b ... ignored, takes an hour
"""


class Names(unittest.TestCase):
    def test_every_kind_of_program(self):
        for output, names in [
            (KSELFTEST, ["dma.another_container"]),
            (KTAP, ["cells"]),
            (UNITTEST, ["What it is about."]),
            (CARGO, ["topology::b"]),
            ("2 passed, 0 failed, 0 skipped\n", []),
        ]:
            self.assertEqual(skips.names(output), names)


class Judged(unittest.TestCase):
    def judged(self, check, result, ci="true"):
        with mock.patch.dict("os.environ", {"CI": ci}):
            return skips.judged(check, result, skips.known(LISTED))

    def test_the_list_is_of_one_check(self):
        self.assertEqual(skips.unexpected("selftests-1chip", KSELFTEST, skips.known(LISTED)), [])
        self.assertEqual(skips.unexpected("selftests", KSELFTEST, skips.known(LISTED)), ["dma.another_container"])
        another = f"{KSELFTEST}ok 3 dma.third # SKIP\n"
        self.assertEqual(skips.unexpected("selftests-1chip", another, skips.known(LISTED)), ["dma.third"])
        self.assertEqual(self.judged("selftests-1chip", Result(1, 0, 1, KSELFTEST)).failed, 0)
        self.assertEqual(self.judged("selftests", Result(1, 0, 1, KSELFTEST)).failed, 1)

    def test_only_ci_is_strict(self):
        self.assertEqual(self.judged("selftests", Result(1, 0, 1, KSELFTEST), ci="").failed, 0)

    def test_skips_that_the_text_does_not_name(self):
        self.assertEqual(self.judged("selftests-1chip", Result(1, 0, 2, KSELFTEST)).failed, 1)
        self.assertEqual(self.judged("host", Result(1, 0, 1, "")).failed, 1)

    def test_listed_and_not_skipped(self):
        result = self.judged("selftests-1chip", Result(2, 0, 0, ""))
        self.assertEqual(result.failed, 1)
        self.assertIn("dma.another_container", result.text)

    def test_the_list_is_of_checks_that_exist(self):
        self.assertLessEqual(set(skips.known()), {each.name for each in check.CHECKS + check.LONG_CHECKS})


if __name__ == "__main__":
    unittest.main()
