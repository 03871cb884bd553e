# SPDX-License-Identifier: GPL-2.0
"""Tests of which bad firmware is booted."""

import re
import unittest

from emulib.build import config

from emulib.checks import tests


def kind(mutation):
    """A mutation's name without the number of the device."""
    return re.sub(r"^([a-z]+)\d+", r"\1", mutation)


def device(mutation):
    return re.match(r"[a-z]+", mutation)[0]


def expected():
    """The rows of the table of what the driver makes of each kind."""
    table = (config.TREE / "tests/selftests/bad_firmware.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in table.splitlines() if not line.startswith("#")]


class Firmware(unittest.TestCase):
    def test_all_kinds_are_booted_by_the_long_check(self):
        kinds = {row[0] for row in expected()}
        booted = [kind(name) for mutations in tests.firmware_sets() for name in mutations]
        self.assertEqual(sorted(booted), sorted(kinds))

    def test_what_reaches_into_another_gpus_memory_is_booted_alone(self):
        reaches = {row[0] for row in expected() if "overlaps" in row[3:]}
        self.assertEqual(reaches, {"mem-reg-overlap", "mem-reg-beyond", "mem-reg-unaligned"})
        for mutations in tests.firmware_sets():
            if reaches.intersection(map(kind, mutations)):
                self.assertEqual(len(mutations), 1, mutations)

    def test_a_gpu_stays_in_the_group(self):
        gpus = [[name for name in mutations if device(name) == "gpu"] for mutations in tests.firmware_sets()]
        self.assertEqual({len(names) for names in gpus}, {0, 1})

    def test_each_kind_of_device_is_booted_every_day(self):
        known = [name for mutations in tests.firmware_sets() for name in mutations]
        booted = [name for mutations in tests.FIRMWARE.values() for name in mutations]
        self.assertEqual({device(name) for name in booted}, {device(name) for name in known})
        self.assertIn("mem-reg-overlap", map(kind, booted))


if __name__ == "__main__":
    unittest.main()
