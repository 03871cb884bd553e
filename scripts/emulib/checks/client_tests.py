# SPDX-License-Identifier: GPL-2.0
"""QEMU 7.2 and 10.0 and libvirt 9.0 as users of the driver: tests/clients."""

import dataclasses

from ..build import clients
from ..host.machines import REDBUD, REDBUD_HALF, Machine
from .report import Check, Result
from .tests import BOOT, Emulated, scaled

# Seconds. Guests are emulated twice, and the machine may have other work.
LIMIT = 1800


def _clients(client: str, machine: Machine, *scenarios: str) -> Result:
    # No driver in the guest has its kernel tell the nest MMU what a process unmaps, as the vendor's does.
    machine = dataclasses.replace(machine, relaxed=("nmmu-cache",))
    run = Emulated(
        f"clients-{client}-{scenarios[0]}",
        [*machine.options(), "--timeout", scaled(LIMIT), "--disk", str(clients.image()),
         "--file", str(clients.programs_dir())],
        "/files/programs/enter", "--client", client, *scenarios,
    )
    return run.with_console(Result.tallied(run.status, run.output))


def guest() -> Result:
    """One GPU in a guest of our QEMU, with all that it can do, and QEMU killed."""
    return _clients("series", REDBUD_HALF, "one", "killed")


def more() -> Result:
    """With our QEMU all GPUs of a chip, what guests leave behind, two guests on two chips; the tree that 7.2 makes."""
    result = _clients("series", REDBUD_HALF, "chip", "leftovers", "trees")
    result.add(_clients("series", REDBUD, "two"))
    return result


def old() -> Result:
    """The same with QEMU 7.2, and libvirt 9.0."""
    result = _clients("bookworm", REDBUD_HALF, "one", "killed", "chip", "leftovers")
    result.add(_clients("bookworm", REDBUD, "two"))
    result.add(_clients("bookworm", REDBUD_HALF, "libvirt"))
    return result


NEEDS = [*BOOT, clients.STEP]

CHECKS = [Check("guest", guest, NEEDS)]
PARTS = [Check("clients-10.0", more, NEEDS), Check("clients-7.2", old, NEEDS)]
# Names of several.
SUMS = {"clients": PARTS}
