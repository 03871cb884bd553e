# SPDX-License-Identifier: GPL-2.0
"""Linux 5.10: with the original C driver it is the peer of this project's, and guests run it."""

from pathlib import Path

from . import archive, config, kernel, root, sources
from .config import Failure
from .step import Log, Step, digest

LINUX = "linux-source-5.10"
# The last Debian release whose kernel has the driver.
SUITE = "bullseye"
CONFIG = config.TREE / "scripts/kernel/peer.config"
# Debian's current compiler warns of much in a kernel that is older than it.
MAKE = (f"make ARCH=powerpc CROSS_COMPILE=powerpc64le-linux-gnu- KCFLAGS=-w "
        f"O={config.ROOT_MADE}/peer/build -j{config.jobs()}")


def image() -> Path:
    """The ELF vmlinux."""
    return STEP.path()


def _fetch(log: Log) -> None:
    places = archive.archives(SUITE)
    wanted = sources.LinuxSource(log, SOURCE_STEP, SUITE, LINUX, "5.10")
    archive.take(log, [
        *archive.ways(f"package {LINUX}, {SUITE}", places, wanted.package),
        *archive.ways(f"source package linux, {SUITE}", places, wanted.source),
    ], archive.VARIABLES)
    if not (SOURCE_STEP.path() / "drivers/vfio/pci/vfio_pci_nvlink2.c").is_file():
        raise Failure(f"peer-source: {LINUX} of {SUITE} is without the original driver")


def _build(log: Log) -> None:
    sources.shell(log, f"""
        mkdir -p {STEP.inner}/build
        cd {SOURCE_STEP.inner}/tree
        cat {config.ROOT_TREE}/scripts/kernel/{{host,peer}}.config > {STEP.inner}/build/wanted
        KCONFIG_ALLCONFIG={STEP.inner}/build/wanted {MAKE} allnoconfig
        # Of what both have, 5.10 need not know everything; of its own, it must.
        grep -E '^CONFIG_[A-Z0-9_]+=[^n]' {config.ROOT_TREE}/scripts/kernel/peer.config |
            while read -r line; do
                grep -qxF "$line" {STEP.inner}/build/.config ||
                    {{ echo "E: $line of peer.config was not accepted"; exit 1; }}
            done
        # The latter for modules that are built outside of it.
        {MAKE} vmlinux modules
    """)


SOURCE_STEP = Step(
    "peer-source",
    "fetching and unpacking Linux 5.10",
    lambda: digest(Path(sources.__file__)),
    _fetch,
    ["tree", "tree/Makefile"],
    [root.STEP],
)

STEP = Step(
    "peer",
    "building Linux 5.10 with the original driver (6 min on 2 cores when cold)",
    lambda: digest(kernel.CONFIG, CONFIG),
    _build,
    ["build/vmlinux"],
    [SOURCE_STEP],
)
