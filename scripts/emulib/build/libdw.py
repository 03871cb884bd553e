# SPDX-License-Identifier: GPL-2.0
"""The library by which the kernel computes versions of symbols from debugging information (gendwarfksyms)."""

from . import archive, config, root, sources
from .archive import Archive
from .step import Log, Step

PACKAGES = ["libdw-dev", "libdw1t64"]


def _fetch(log: Log) -> None:
    def go(place: Archive) -> str:
        sources.shell(log, f"""
            {archive.apt([place.line(root.SUITE, architecture=config.debian_architecture())])}
            mkdir -p /tmp/libdw && cd /tmp/libdw
            apt-get -q download {" ".join(PACKAGES)}
            for deb in *.deb; do dpkg-deb -x "$deb" unpacked; done
            mkdir -p {STEP.inner}/lib
            cp -a unpacked/usr/include {STEP.inner}/
            cp -a unpacked/usr/lib/*/libdw[.-]* {STEP.inner}/lib/
        """, network=True)
        return ", ".join(PACKAGES)

    archive.take(log, archive.ways(root.SUITE, archive.archives(root.SUITE), go), archive.VARIABLES)


STEP = Step(
    "libdw",
    "fetching what gendwarfksyms is linked with",
    lambda: "",
    _fetch,
    ["include/dwarf.h", "lib/libdw.so"],
    [root.STEP],
)

# For make. One word each, as they go through the shell.
VARIABLES = f"HOSTCFLAGS=-I{STEP.inner}/include HOSTLDFLAGS=-Wl,-L{STEP.inner}/lib,-rpath={STEP.inner}/lib"
