# SPDX-License-Identifier: GPL-2.0
"""What a boot has to show beside what its command prints."""

import unittest
from pathlib import Path
from unittest import mock

from emulib.build import kernel
from emulib.checks import tests
from emulib.checks.report import Result

OURS, OTHER = "0123abcd", "4567cdef"


class Module(unittest.TestCase):
    """The module that ran is this checkout's."""

    def failed(self, console: str, module: bool) -> int:
        """How many failures there are with this console of a boot that loads the module, or does not."""
        run = tests.Emulated.__new__(tests.Emulated)
        run.seconds, run.console, run.pseries, run.module, run.kernel = 1.0, console, True, module, kernel.HOST
        run.log = run.out = Path("x")
        with mock.patch.object(tests.module, "build_id", lambda _: OURS):
            return run.with_console(Result.one(True)).failed

    def test_another_module_is_a_failure(self) -> None:
        said = "emu: nvlink2-vfio-pci has build id {}\n"
        for loads in (True, False):
            self.assertEqual(self.failed(said.format(OURS), loads), 0)
            self.assertEqual(self.failed(said.format(OTHER), loads), 1)
            self.assertEqual(self.failed(said.format(OURS) + said.format(OTHER), loads), 1)

    def test_no_module_is_a_failure_where_there_should_be_one(self) -> None:
        self.assertEqual(self.failed("all is well\n", True), 1)
        self.assertEqual(self.failed("all is well\n", False), 0)


class Json(unittest.TestCase):
    """What nvlink2ctl says in JSON is parsed."""

    def test_each_answer_is_parsed(self) -> None:
        for said, failed in (('# json list: [{"a": 1}]', 0), ("# json list: [{", 1), ("# json list: ", 1), ("nothing", 1),
                             ("# json list: []\n# json show 0004:04:00.0: {,}", 1)):
            self.assertEqual(tests._all_json(f"ok 1\n{said}\nok 2\n").failed, failed, said)


if __name__ == "__main__":
    unittest.main()
