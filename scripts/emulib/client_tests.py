# SPDX-License-Identifier: GPL-2.0
"""QEMU 7.2 and libvirt 9.0 as users of the driver: tests/clients."""

from . import clients
from .report import Check, Result
from .tests import BOOT, Emulated, scaled

# Seconds. Guests are emulated twice, and the machine may have other work.
LIMIT = 1800


def _clients(gpus: int, *scenarios: str) -> Result:
    run = Emulated(
        f"clients-{scenarios[0]}",
        ["--gpus", str(gpus), "--timeout", scaled(LIMIT), "--disk", str(clients.image()),
         "--file", str(clients.programs_dir())],
        "/files/programs/enter", *scenarios,
    )
    return run.with_console(Result.tallied(run.status, run.output))


def guest() -> Result:
    """One GPU in a guest, with all that it can do, and QEMU killed."""
    return _clients(3, "one", "killed")


def more() -> Result:
    """All GPUs of a chip, what guests leave behind, two guests on two chips, libvirt."""
    result = _clients(3, "three", "leftovers")
    result.add(_clients(6, "two"))
    result.add(_clients(3, "libvirt"))
    return result


NEEDS = [*BOOT, clients.STEP]

CHECKS = [Check("guest", guest, NEEDS)]
LONG_CHECKS = [Check("clients", more, NEEDS)]
