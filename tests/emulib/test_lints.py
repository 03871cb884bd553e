# SPDX-License-Identifier: GPL-2.0
"""A lint that looks at nothing has found nothing, and is no success."""

import unittest
from unittest import mock

from emulib.checks import lints
from emulib.checks.report import Result


def begun(*_: object) -> Result:
    """What runs a lint's program."""
    raise AssertionError("it was begun")


class Nothing(unittest.TestCase):
    """Of lints whose list of files is empty."""

    def test_no_file_is_a_failure(self) -> None:
        with mock.patch.object(lints, "tracked", lambda *_: []), mock.patch.object(lints.series, "patches", lambda: []), \
                mock.patch.object(lints.intree.STEP, "path", lambda: lints.TREE / "no such folder"), \
                mock.patch.object(lints, "_script", begun):
            for lint in (lints.rustfmt, lints.checkpatch_c, lints.checkpatch_qemu, lints.checkpatch_series,
                         lints.checkpatch_driver, lints.shellcheck, lints.house_rules, lints.messages):
                self.assertTrue(lint().failed, lint.__name__)


if __name__ == "__main__":
    unittest.main()
