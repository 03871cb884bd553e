# SPDX-License-Identifier: GPL-2.0
"""nvlink2-vfio-pci.ko for the emulated host's kernels."""

import re

from . import config, enter, kernel, procs, sources
from .config import Failure
from .kernel import Kernel
from .step import Step, digest

INPUTS = ["Kbuild", "Kconfig", "src", "include"]


def make(goals: str, into: str, of: Kernel = kernel.HOST) -> str:
    """Shell lines that run kbuild's `goals` on a clean copy of the module's source.

    What they make goes to the folder `into` of the step's home.
    """
    home = step(of).inner
    paths = " ".join(f"{config.ROOT_TREE}/{name}" for name in INPUTS)
    # With MO= kbuild looks for the kernel's changed headers and options in the wrong place, but the home is of one kernel.
    return f"""
        mkdir -p {home}/tree {home}/{into}
        # Unchanged files keep their dates, or kbuild would compile them again.
        rsync -r --checksum --delete --exclude='*.o' --exclude='*.ko' --exclude='*.cmd' \\
            --exclude='*.mod*' --exclude='*.rmeta' {paths} {home}/tree/
        make -C {of.build} {of.flags} M={home}/tree MO={home}/{into} {goals}
    """


def build_id(of: Kernel = kernel.HOST) -> str:
    """What the linker has called the module that this checkout makes, by its content."""
    notes = procs.said(enter.inside(["powerpc64le-linux-gnu-readelf", "-n", config.inner(step(of).path())])).stdout
    found = re.search(r"Build ID: ([0-9a-f]+)", notes)
    if not found:
        raise Failure(f"{step(of).path()} has no build id: {notes}")
    return found[1]


def _step(name: str, what: str, of: Kernel) -> Step:
    return Step(name, what, lambda: digest(*(config.TREE / name for name in INPUTS)),
                lambda log: sources.shell(log, make("modules", "build", of)),
                ["build/nvlink2-vfio-pci.ko"], [of.step], seed=["tree", "build"])


STEP = _step("module", "building nvlink2-vfio-pci.ko", kernel.HOST)
DEBUG_STEP = _step("module-debug", "building nvlink2-vfio-pci.ko for the debug kernel", kernel.DEBUG)
STEPS = {kernel.HOST: STEP, kernel.DEBUG: DEBUG_STEP,
         **{of: _step(f"module-{name}", f"building nvlink2-vfio-pci.ko for the kernel '{name}'", of)
            for name, of in kernel.VARIANTS.items()},
         **{of: _step(f"module-headers-{name}", f"compiling nvlink2-vfio-pci.ko with the headers of the kernel '{name}'", of)
            for name, of in kernel.HEADERS.items()}}


def step(of: Kernel) -> Step:
    """What builds the module for one of the kernels."""
    return STEPS[of]
