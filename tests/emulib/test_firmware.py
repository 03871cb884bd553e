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


class Firmware(unittest.TestCase):
    def test_all_kinds_are_booted_by_the_long_check(self):
        table = (config.TREE / "tests/selftests/bad_firmware.tsv").read_text(encoding="utf-8")
        kinds = {line.split("\t")[0] for line in table.splitlines() if not line.startswith("#")}
        booted = [kind(name) for mutations in tests.firmware_sets() for name in mutations]
        self.assertEqual(sorted(booted), sorted(kinds))

    def test_each_kind_of_device_is_booted_every_day(self):
        known = [name for mutations in tests.firmware_sets() for name in mutations]
        booted = [name for mutations in tests.FIRMWARE.values() for name in mutations]
        self.assertEqual({device(name) for name in booted}, {device(name) for name in known})
        self.assertIn("mem-reg-overlap", map(kind, booted))


if __name__ == "__main__":
    unittest.main()
