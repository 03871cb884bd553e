# SPDX-License-Identifier: GPL-2.0
"""Tests of how hunks of a patch are counted."""

import unittest

from emulib.checks.qemu_series import hunks

PATCH = """\
--- a/one
+++ b/one
@@ -1,3 +1,4 @@
@@ -30,3 +31,4 @@
--- a/two
+++ b/two
@@ -1,3 +1,4 @@ static void two(void)
@@ -9,3 +10,4 @@
"""
SAID = """\
Hmm...  Looks like a unified diff to me...
patching file one
Using Plan A...
Hunk #1 succeeded at 1.
Hunk #2 succeeded at 33 (offset 2 lines).
Hmm...  The next patch looks like a unified diff to me...
patching file two
Hunk #1 succeeded at 1 with fuzz 2 (offset -1 line).
Hunk #2 FAILED at 10.
1 out of 2 hunks FAILED
done
"""


class Hunks(unittest.TestCase):
    def count(self, said, **wanted):
        counted = hunks(PATCH, said)
        self.assertEqual({kind.replace(" ", "_"): number for kind, number in counted.items() if number}, wanted)

    def test_each_kind(self):
        self.count(SAID, in_place=1, moved=1, fuzzy=1, refused=1)

    def test_a_file_that_is_not_there_refuses_all(self):
        at = SAID.index("Hmm...  The next")
        self.count(SAID[:at] + "can't find file to patch\nSkipping patch.\n2 out of 2 hunks ignored\n",
                   in_place=1, moved=1, refused=2)

    def test_silence_is_no_consent(self):
        self.count("", refused=4)


if __name__ == "__main__":
    unittest.main()
