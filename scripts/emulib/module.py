# SPDX-License-Identifier: GPL-2.0
"""nvlink2-vfio-pci.ko for the emulated host's kernels."""

from pathlib import Path

from . import config, kernel, sources
from .kernel import Kernel
from .step import Log, Step, digest

INPUTS = ["Kbuild", "Kconfig", "src", "include"]


def build_dir(of: Kernel = kernel.HOST) -> Path:
    return config.cache_dir() / "module" / ("build" if of is kernel.HOST else f"build-{of.name}")


def binary(of: Kernel = kernel.HOST) -> Path:
    """The module for one of the kernels."""
    return build_dir(of) / "nvlink2-vfio-pci.ko"


def make(goals: str, into: str, of: Kernel = kernel.HOST) -> str:
    """Shell lines that run kbuild's `goals` on a clean copy of the module's source.

    What they make goes to the folder `into` of module/.
    """
    home = f"{config.ROOT_CACHE}/module"
    paths = " ".join(f"{config.ROOT_TREE}/{name}" for name in INPUTS)
    return f"""
        # With MO= kbuild looks for the kernel's changed headers and options in the wrong place.
        [ "$(cat {home}/{into}/.kernel 2>/dev/null)" = {of.step.key()} ] || rm -rf {home}/{into}
        mkdir -p {home}/tree {home}/{into}
        echo {of.step.key()} > {home}/{into}/.kernel
        # Unchanged files keep their dates, or kbuild would compile them again.
        rsync -r --checksum --delete --exclude='*.o' --exclude='*.ko' --exclude='*.cmd' \\
            --exclude='*.mod*' --exclude='*.rmeta' {paths} {home}/tree/
        make -C {of.inner()} {of.flags} M={home}/tree MO={home}/{into} {goals}
    """


def _step(name: str, what: str, of: Kernel) -> Step:
    def build(log: Log) -> None:
        sources.shell(log, make("modules", build_dir(of).name, of))

    return Step(name, what, lambda: digest(*(config.TREE / name for name in INPUTS)), build,
                [binary(of)], [of.step])


STEP = _step("module", "building nvlink2-vfio-pci.ko", kernel.HOST)
DEBUG_STEP = _step("module-debug", "building nvlink2-vfio-pci.ko for the debug kernel", kernel.DEBUG)
