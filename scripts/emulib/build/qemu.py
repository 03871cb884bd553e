# SPDX-License-Identifier: GPL-2.0
"""QEMU with our device models laid over Debian's source."""

from pathlib import Path

from . import config, kernel, sources
from .step import Log, Step, digest

MODELS = config.TREE / "tests/qemu"
# Of ppc64's machines and devices only those of overlay/configs; nobody debugs it with gdb.
CONFIGURE = (
    "--without-default-features --without-default-devices --with-devices-ppc64=witherspoon "
    "--target-list=ppc64-softmmu --enable-tcg --enable-fdt=system "
    "--disable-docs --disable-install-blobs --disable-werror --disable-debug-info"
)


def patches() -> list[Path]:
    """The few lines that QEMU's own files need."""
    return sorted(MODELS.glob("*.patch"))


# Our new files, at their places in QEMU's tree.
OVERLAY = MODELS / "overlay"


def _build(log: Log) -> None:
    kernel.retree(log, sources.QEMU_STEP, STEP.home() / "source", [*patches(), OVERLAY], sources.moved_qemu())
    sources.shell(log, f"""
        mkdir -p {BUILD} && cd {BUILD}
        if [ "$(cat configured 2>/dev/null)" != '{CONFIGURE}' ]; then
            # What another configuration built may stay where this one builds nothing.
            find . -mindepth 1 -delete
            ../source/configure {CONFIGURE}
            echo '{CONFIGURE}' > configured
        fi
        ninja -j{config.jobs()} qemu-system-ppc64
    """)


STEP = Step(
    "qemu",
    "building QEMU with the NPU2 and V100 models (2 to 4 min on 2 cores when cold)",
    lambda: digest(*patches(), OVERLAY, kernel.RETREE),
    _build,
    ["build/qemu-system-ppc64"],
    [sources.QEMU_STEP],
    seed=["build"], linked=["source"],
)

# As the root sees them.
BUILD = f"{STEP.inner}/build"
EMULATOR = f"{BUILD}/qemu-system-ppc64"
