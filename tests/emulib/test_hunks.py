# SPDX-License-Identifier: GPL-2.0
"""Tests of which patches a QEMU gets, and of how their hunks are counted."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from emulib.build import qemu_client
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


class Releases(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        series = Path(folder.name)
        for name in ("0000-cover-letter", "0002-b", "0001-a", "9.2/0003-c", "10.0/0003-d", "10.2/0003-e"):
            patch = series / f"{name}.patch"
            patch.parent.mkdir(exist_ok=True)
            patch.touch()
        change = mock.patch.object(qemu_client, "SERIES", series)
        change.start()
        self.addCleanup(change.stop)

    def of(self, release):
        return [patch.name for patch in qemu_client.patches(release)]

    def test_what_is_of_one_release_comes_last(self):
        self.assertEqual(self.of("10.0"), ["0001-a.patch", "0002-b.patch", "0003-d.patch"])

    def test_a_release_without_a_folder_has_that_of_the_one_before(self):
        self.assertEqual(self.of("10.1"), self.of("10.0"))
        self.assertEqual(self.of("11.1"), self.of("10.2"))

    def test_numbers_are_in_order(self):
        self.assertEqual(qemu_client.releases(), ["9.2", "10.0", "10.2"])


if __name__ == "__main__":
    unittest.main()
