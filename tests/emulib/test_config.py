# SPDX-License-Identifier: GPL-2.0
"""What this machine can do at the same time."""

import unittest
from unittest import mock

from emulib.build import config

# A machine of so many GiB reports somewhat less.
GIB = 1 << 30
RESERVED = 400 << 20


class Hosts(unittest.TestCase):
    """Emulated hosts side by side."""

    def test_a_machine_has_a_little_less_than_its_memory(self) -> None:
        for gib, jobs, hosts in ((16, 2, 4), (8, 2, 2), (4, 2, 2), (24, 2, 4), (12, 2, 3), (64, 8, 16), (16, 8, 8)):
            sizes = {"SC_PHYS_PAGES": (gib * GIB - RESERVED) // 4096, "SC_PAGE_SIZE": 4096}
            with mock.patch.object(config.os, "sysconf", sizes.__getitem__), mock.patch.object(config, "jobs", lambda jobs=jobs: jobs):
                self.assertEqual(config.hosts_side_by_side(), hosts, f"{gib} GiB, {jobs} cores")


if __name__ == "__main__":
    unittest.main()
