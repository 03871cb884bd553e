# SPDX-License-Identifier: GPL-2.0
"""Tests of when a mutant counts as noticed."""

import unittest

from emulib.checks import mutate

from emulib.host import boot
from emulib.build.config import Failure
from emulib.checks.mutate import Mutant, Seen

GREEN = """\
# region_info
TAP version 13
#  RUN           region.gpu_says_what_the_device_tree_says ...
ok 1 region.gpu_says_what_the_device_tree_says
"""
MAPS = """\
# gpu_ram_mmap
#  RUN           mmap.defect_1_bounds ...
ok 1 mmap.defect_1_bounds
#  RUN           mmap.other ...
ok 2 mmap.other
ok - kernel log has no splat
"""
RED = MAPS.replace("ok 1", "not ok 1")


def mutant(**more):
    """A mutant of gpu_ram_mmap."""
    return Mutant(**{"name": "m", "file": "f", "old": "a", "new": "b", "run": ["gpu_ram_mmap"], "red": "defect_1_bounds",
                     **more})


def seen(output, status=0):
    return Seen.of_selftests(status, output)


class Verdict(unittest.TestCase):
    def red(self, output, status=1, **more):
        return mutant(**more).verdict(seen(output, status))[0]

    def test_one_is_red_and_another_is_green(self):
        self.assertTrue(self.red(GREEN + RED))

    def test_everything_fails(self):
        self.assertFalse(self.red(GREEN.replace("ok 1", "not ok 1") + RED))
        self.assertFalse(self.red(RED))

    def test_what_has_to_be_green_was_skipped(self):
        self.assertFalse(self.red(GREEN.replace("tree_says\n", "tree_says # SKIP no tree\n") + RED))

    def test_all_is_green(self):
        self.assertFalse(self.red(GREEN + MAPS, 0))

    def test_another_is_red(self):
        self.assertFalse(self.red(GREEN + MAPS.replace("ok 2", "not ok 2")))
        # Of the same name, in a program that is not the mutant's.
        self.assertFalse(self.red(GREEN + MAPS + RED.replace("# gpu_ram_mmap", "# atsd")))

    def test_it_needs_its_own_green_test(self):
        self.assertTrue(self.red(RED, green="gpu_ram_mmap: other"))
        self.assertFalse(self.red(RED.replace("ok 2", "not ok 2"), green="gpu_ram_mmap: other"))

    def test_the_kernel_log(self):
        said = GREEN + MAPS.replace("ok - kernel log has no splat", "not ok - kernel log")
        self.assertTrue(self.red(said, red="kernel log"))
        self.assertFalse(self.red(GREEN + MAPS, red="kernel log"))

    def test_the_host_ends(self):
        begun = GREEN + MAPS[:MAPS.index("ok 1 mmap")]
        self.assertTrue(self.red(begun, boot.HOST_DIED, ends=True))
        self.assertFalse(self.red(begun, boot.HOST_DIED))
        self.assertFalse(self.red(begun, 0, ends=True))
        self.assertFalse(self.red(GREEN, boot.HOST_DIED, ends=True))
        self.assertFalse(self.red(GREEN + MAPS, boot.HOST_DIED, ends=True))

    def test_on_this_machine(self):
        said = "test range::tests::a ... FAILED\ntest cells::tests::most_significant_byte_comes_first ... ok\n"
        on_host = mutant(run=["host"], red="range::tests::a")
        self.assertTrue(on_host.verdict(Seen.of_cargo(1, said))[0])
        self.assertFalse(on_host.verdict(Seen.of_cargo(1, said.replace("ok\n", "FAILED\n")))[0])
        self.assertFalse(on_host.verdict(Seen.of_cargo(101, "error: could not compile"))[0])


class Baseline(unittest.TestCase):
    def test_both_tests_pass_without_the_mutant(self):
        self.assertEqual(mutant().baseline(seen(GREEN + MAPS)), "")
        for said in (GREEN + RED, MAPS, GREEN, ""):
            self.assertNotEqual(mutant().baseline(seen(said)), "")

    def test_the_kernel_log_has_no_splat(self):
        splat = GREEN + MAPS + "not ok - kernel log\n"
        self.assertNotEqual(mutant().baseline(seen(splat)), "")
        self.assertEqual(mutant(red="kernel log").baseline(seen(GREEN + MAPS)), "")


class Chosen(unittest.TestCase):
    ALL = [mutant(name=f"{number}", file="g" if number > 7 else "f") for number in range(10)]

    def names(self, only, part):
        return [int(m.name) for m in mutate.chosen(self.ALL, only, part)]

    def test_parts_are_everything_once(self):
        self.assertEqual(self.names("", "2/4"), [1, 5, 9])
        self.assertEqual(sorted(sum((self.names("", f"{part}/3") for part in (1, 2, 3)), [])), list(range(10)))

    def test_parts_of_a_choice(self):
        self.assertEqual(self.names("g", ""), [8, 9])
        self.assertEqual(self.names("g", "2/2"), [9])

    def test_nonsense(self):
        for only, part in [("", "0/2"), ("", "3/2"), ("", "1"), ("", "a/b"), ("nothing", ""), ("g", "3/3")]:
            with self.assertRaises(Failure, msg=part):
                self.names(only, part)


class Patches(unittest.TestCase):
    NAMES = ["npu2-Probe", "npu2-Mirror", "mm-Fix"]

    def test_each_has_a_mutant_or_a_reason(self):
        both = [mutant(patch="npu2-P"), mutant(patch="npu2-M"), mutant()]
        self.assertEqual(mutate.of_patches(both, ["mm-"], self.NAMES), [])
        self.assertEqual(len(mutate.of_patches(both, [], self.NAMES)), 1)
        self.assertEqual(len(mutate.of_patches(both, ["mm-", "npu2-Mirror"], self.NAMES)), 1)
        self.assertEqual(len(mutate.of_patches(both, ["mm-", "kvm-"], self.NAMES)), 1)


if __name__ == "__main__":
    unittest.main()
