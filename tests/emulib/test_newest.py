# SPDX-License-Identifier: GPL-2.0
"""What becomes of tests that were skipped in a check that another check runs."""

import subprocess
import unittest
from unittest import mock

from emulib.checks import newest, skips

SAID = "ok   selftests-1chip: 9 passed, 0 failed, 1 skipped\n     ok 3 ats.two # SKIP needs a second chip\n9 passed, 0 failed, 1 skipped\n"


class Skips(unittest.TestCase):
    """The check "newest" has no list in known-skips.txt: that of the selftests counts."""

    def judged(self, said: str, status: int) -> tuple[int, int]:
        """What failed and what was skipped, with this output of the inner run."""
        outputs = iter([subprocess.CompletedProcess([], 0, ""), subprocess.CompletedProcess([], status, said)])
        with mock.patch.object(newest, "FETCHED", []), mock.patch.object(newest.procs, "said", lambda *_, **__: next(outputs)), \
                mock.patch.object(newest, "say"):
            result = skips.judged("newest", newest._newest())
        return result.failed, result.skipped

    def test_what_was_judged_is_not_judged_again(self) -> None:
        with mock.patch.dict("os.environ", {"CI": "true"}):
            self.assertEqual(self.judged(SAID, 0), (0, 0))
            self.assertEqual(self.judged(SAID.replace("0 failed", "1 failed"), 1), (1, 0))

    def test_elsewhere_skips_are_said(self) -> None:
        with mock.patch.dict("os.environ", {"CI": "false"}):
            self.assertEqual(self.judged(SAID, 0), (0, 1))


if __name__ == "__main__":
    unittest.main()
