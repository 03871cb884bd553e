# SPDX-License-Identifier: GPL-2.0
"""Tests of how long checks are parted, and of what one takes from the series."""

import re
import unittest
from unittest import mock

from emulib import check, cli

from emulib.build import programs
from emulib.build.config import Failure

from emulib.checks import debug_tests, intree_builds, tests

FAULTS = """\
TEST_F_TIMEOUT(fail, module_load, 1200)
TEST_F(fail_group, group)
TEST_F_TIMEOUT(fail, unbinding, 300)
TEST(stray)
"""
PATCH = """\
--- a/drivers/pci/pci.c
+++ b/drivers/pci/pci.c
--- /dev/null
+++ b/arch/powerpc/platforms/powernv/npu2.c
--- a/rust/kernel/bug.rs
+++ b/rust/kernel/bug.rs
--- a/include/linux/vfio.h
+++ b/include/linux/vfio.h
"""


class Faults(unittest.TestCase):
    def test_a_part_for_each_fixture(self):
        self.assertEqual({"fault-module": "fault_injection:module_load:unbinding", "fault-group": "fault_injection:group"},
                         debug_tests.fault_tests(FAULTS))

    def test_every_test_is_in_a_part(self):
        source = (programs.SELFTESTS / "fault_injection.c").read_text(encoding="utf-8")
        every = re.findall(r"^TEST(?!_HARNESS)\w*\((?:\w+, )?(\w+)", source, re.MULTILINE)
        parted = [test for choice in debug_tests.FAULTS.values() for test in choice.split(":")[1:]]
        self.assertEqual(sorted(every), sorted(parted))


class Selftests(unittest.TestCase):
    def test_words(self):
        text = "# x host\none  host orders\ntwo  own\n"
        with mock.patch("pathlib.Path.read_text", return_value=text):
            self.assertEqual((["one", "two"], ["one"], ["two"]),
                             (tests.selftest_names(), tests.selftest_names("orders"), tests.selftest_names("own")))

    def test_every_program_is_run_by_some_check(self):
        boots = {choice.partition(":")[0] for _, _, names, _ in debug_tests.BOOTS for choice in names}
        # Which no debug kernel is booted for.
        self.assertEqual(set(tests.selftest_names()), boots | {"pseries", "empty_socket", "next_kernel", "iommufd"})


class Machines(unittest.TestCase):
    """What 'emu test' says of programs that take another machine than it boots by itself."""

    def fits(self, *arguments: str) -> str:
        """Why these arguments will not do, or nothing."""
        try:
            cli.check_machine(cli._parser().parse_args(["test", *arguments]))
        except Failure as failure:
            return str(failure)
        return ""

    def test_each_program_that_takes_another_is_refused_with_the_remedy(self):
        self.assertEqual(set(cli.OWN), set(tests.selftest_names()) - set(tests.selftest_names("host")))
        for name, (_, remedy) in cli.OWN.items():
            self.assertIn(f"emu test {remedy} {name}" if remedy else "scripts/check next-kernel", self.fits(name))
            if remedy:
                self.assertEqual(self.fits(*remedy.split(), name), "")

    def test_others_run_anywhere(self):
        self.assertEqual([name for name in tests.selftest_names("host") if self.fits(name)], [])


class Names(unittest.TestCase):
    def test_sums_are_of_checks_that_there_are(self):
        known = [known.name for known in check.CHECKS + check.LONG_CHECKS]
        self.assertEqual(len(known), len(set(known)))
        for name, parts in check.SUMS.items():
            self.assertNotIn(name, known)
            self.assertLessEqual({part.name for part in parts}, set(known))


class X86(unittest.TestCase):
    def test_files_of_patches(self):
        self.assertEqual({"drivers/pci/pci.c", "arch/powerpc/platforms/powernv/npu2.c", "rust/kernel/bug.rs"},
                         intree_builds.files_of([PATCH]))
        self.assertEqual({"arch/powerpc/platforms/powernv/npu2.c"}, intree_builds.files_of([PATCH], added=True))

    def test_the_list_cannot_go_stale(self):
        alone = "drivers/vfio/vfio_iommu_spapr_tce.c"
        with mock.patch.object(intree_builds, "NOT_FOR_X86", {alone: "why"}):
            def complaints(wanted: set[str], found: set[str]) -> list[str]:
                return [line.partition(":")[0] for line in intree_builds.not_as_listed(wanted, found)]

            self.assertEqual([], complaints({alone, "mm/a.c"}, {"mm/a.c"}))
            self.assertEqual(["mm/a.c"], complaints({alone, "mm/a.c"}, set()))
            self.assertEqual([alone], complaints({alone, "mm/a.c"}, {alone, "mm/a.c"}))
            self.assertEqual([alone], complaints({"mm/a.c"}, {"mm/a.c"}))


if __name__ == "__main__":
    unittest.main()
