# SPDX-License-Identifier: GPL-2.0
"""QEMU and libvirt, of today and of before, as users of the driver: tests/clients."""

import dataclasses
from pathlib import Path

from ..build import clients
from ..host.machines import REDBUD, REDBUD_HALF, Machine
from .report import Check, Result
from .tests import BOOT, Emulated, scaled

# Seconds. Guests are emulated twice, and the machine may have other work.
LIMIT = 1800


def _clients(client: str, machine: Machine, *scenarios: str, image: Path | None = None, guest_510: bool = False) -> Result:
    files = [clients.programs_dir(), *([clients.guest_510()] if guest_510 else [])]
    # Only a driver has its kernel tell the nest MMU what a process unmaps, as the vendor's does: most tests have none.
    machine = dataclasses.replace(machine, relaxed=("nmmu-cache",))
    run = Emulated(
        "-".join(["clients", client, *(["5.10"] if guest_510 else []), scenarios[0]]),
        [*machine.options(), "--timeout", scaled(LIMIT), "--disk", str(image or clients.image()),
         *(word for path in files for word in ("--file", str(path)))],
        "/files/programs/enter", "--client", client, *(["--guest", "5.10"] if guest_510 else []), *scenarios,
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


def old_kernel() -> Result:
    """With our QEMU guests whose kernel, 5.10, knows NVLinks, and a driver in it."""
    return _clients("series", REDBUD_HALF, "one", "killed", "chip", guest_510=True)


def new_libvirt() -> Result:
    """With our QEMU and libvirt of Debian testing: it binds the driver by itself; limits, guests, their ends."""
    return _clients("series", REDBUD_HALF, "libvirt", image=clients.new_image())


def old() -> Result:
    """The same with QEMU 7.2, and libvirt 9.0."""
    result = _clients("bookworm", REDBUD_HALF, "one", "killed", "chip", "leftovers")
    result.add(_clients("bookworm", REDBUD, "two"))
    result.add(_clients("bookworm", REDBUD_HALF, "libvirt"))
    return result


NEEDS = [*BOOT, clients.STEP]

CHECKS = [Check("guest", guest, NEEDS)]
PARTS = [
    Check("clients-10.0", more, NEEDS),
    Check("clients-5.10", old_kernel, [*NEEDS, clients.GUEST_510_STEP]),
    Check("clients-libvirt", new_libvirt, [*NEEDS, clients.NEW_IMAGE_STEP]),
    Check("clients-7.2", old, NEEDS),
]
# Names of several.
SUMS = {"clients": PARTS}
