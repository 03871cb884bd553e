# SPDX-License-Identifier: GPL-2.0
"""nvlink2-vfio-pci.ko for the emulated host's kernel."""

from pathlib import Path

from . import config, kernel, sources
from .step import Log, Step, digest

INPUTS = ["Kbuild", "Kconfig", "src", "include"]


def build_dir() -> Path:
    return config.cache_dir() / "module/build"


def binary() -> Path:
    return build_dir() / "nvlink2-vfio-pci.ko"


def make(goals: str, into: str = "build") -> str:
    """Shell lines that run kbuild's `goals` on a clean copy of the module's source."""
    home = f"{config.ROOT_CACHE}/module"
    paths = " ".join(f"{config.ROOT_TREE}/{name}" for name in INPUTS)
    return f"""
        mkdir -p {home}/tree {home}/{into}
        # Unchanged files keep their dates, or kbuild would compile them again.
        rsync -r --checksum --delete --exclude='*.o' --exclude='*.ko' --exclude='*.cmd' \\
            --exclude='*.mod*' --exclude='*.rmeta' {paths} {home}/tree/
        make -C {config.ROOT_CACHE}/kernel ARCH=powerpc LLVM=-19 \\
            M={home}/tree MO={home}/{into} -j{config.jobs()} {goals}
    """


def _build(log: Log) -> None:
    sources.shell(log, make("modules"))


STEP = Step(
    "module",
    "building nvlink2-vfio-pci.ko",
    lambda: digest(*(config.TREE / name for name in INPUTS)),
    _build,
    [binary()],
    [kernel.STEP],
)
