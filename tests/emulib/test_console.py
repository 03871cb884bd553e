# SPDX-License-Identifier: GPL-2.0
"""Tests of what is excused on a console, and for whom."""

import unittest

from emulib.build import config

from emulib.host import console

NOISE = """
# a comment
[emulated host]
OPAL: an error: of = everyone's
[eeh]
EEH: Call Trace:
[lpar]
XSCOM: read error [0x0]
"""
SAID = """\
[   12.345678901,3] OPAL: an error: of = everyone's
[    1.234567] EEH: Call Trace:
[    1.234567] all is well
"""


class Findings(unittest.TestCase):
    def setUp(self):
        self.noise = console.known_noise(NOISE)

    def test_lines_are_kept_as_they_are(self):
        self.assertEqual(self.noise["emulated host"], {"OPAL: an error: of = everyone's"})
        self.assertEqual(self.noise["lpar"], {"XSCOM: read error [0x0]"})

    def test_a_test_excuses_its_own_lines_only(self):
        for sections, found in [
            (["emulated host", "eeh"], []),
            (["emulated host", "eeh", "ats"], []),
            (["emulated host"], ["EEH: Call Trace:"]),
            (["emulated host", "lpar"], ["EEH: Call Trace:"]),
            (["eeh"], ["OPAL: an error: of = everyone's"]),
        ]:
            self.assertEqual(console.findings(SAID, sections, self.noise), found, sections)

    def test_part_of_a_line_excuses_nothing(self):
        said = "[    1.234567] EEH: Call Trace: more"
        self.assertEqual(console.findings(said, ["eeh"], self.noise), ["EEH: Call Trace: more"])

    def test_modules_that_are_not_loaded_are_suspect(self):
        said = "emu: can't load the module nvlink2-vfio-pci"
        self.assertEqual(console.findings(f"{SAID}{said}\n", ["emulated host", "eeh"], self.noise), [said])

    def test_excuses_without_a_line_are_dead(self):
        for sections, dead in [
            (["emulated host", "eeh"], []),
            (["emulated host", "eeh", "lpar"], ["[lpar] XSCOM: read error [0x0]"]),
            (["ats"], []),
        ]:
            self.assertEqual(console.dead(SAID, sections, self.noise), dead, sections)


class List(unittest.TestCase):
    def test_sections_are_of_tests_that_exist(self):
        for name in console.known_noise():
            if name != console.EMULATED_HOST:
                test = name.removesuffix(console.ON_CHIP_8)
                self.assertTrue((config.TREE / f"tests/selftests/{test}.c").is_file(), name)

    def test_what_is_excused_would_be_found(self):
        for name, lines in console.known_noise().items():
            self.assertTrue(lines, name)
            for line in lines:
                self.assertRegex(line, console.SUSPECT)


if __name__ == "__main__":
    unittest.main()
