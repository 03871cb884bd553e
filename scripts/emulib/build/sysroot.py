# SPDX-License-Identifier: GPL-2.0
"""Headers and libraries for programs of ppc64el that need more than the C library, of an older release, so that these
programs run on that and on later ones.
"""

import os

from . import files, root
from .step import Log, Step

SUITE = "bookworm"
LIBRARIES = "libc6-dev libgcc-12-dev libglib2.0-dev zlib1g-dev libfdt-dev libpixman-1-dev libseccomp-dev".split()
LEFT_OUT = "usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/bash-completion var".split()


def _build(log: Log) -> None:
    sysroot = STEP.path()
    root.unpack(log, sysroot, LIBRARIES, [SUITE])
    for path in LEFT_OUT:
        files.remove(sysroot / path)
    # A link that begins with / would lead out of it.
    for link in sysroot.rglob("*"):
        if link.is_symlink() and (target := os.readlink(link)).startswith("/"):
            link.unlink()
            link.symlink_to(os.path.relpath(f"{sysroot}{target}", link.parent))


STEP = Step(
    "client-sysroot",
    f"unpacking headers and libraries of Debian {SUITE} for ppc64el",
    lambda: "",
    _build,
    ["root", "root/usr/include/glib-2.0/glib.h"],
    [root.STEP],
)

# As the root sees it, and what makes pkg-config look there.
TREE = f"{STEP.inner}/root"
PKG_CONFIG = f"export PKG_CONFIG_SYSROOT_DIR={TREE} " \
    f"PKG_CONFIG_LIBDIR={TREE}/usr/lib/powerpc64le-linux-gnu/pkgconfig:{TREE}/usr/share/pkgconfig"
