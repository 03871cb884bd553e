# SPDX-License-Identifier: GPL-2.0
"""Where things are and what the user may change.

Every variable a user may set is read here and nowhere else.
"""

import hashlib
import os
import platform
import shutil
import sys
from pathlib import Path

# The project's tree.
TREE = Path(__file__).resolve().parents[3]

# As seen from inside the build root: the tree, the cache, and the products that belong to this tree, by step.
ROOT_TREE = "/src"
ROOT_CACHE = "/cache"
ROOT_MADE = "/made"

# What a full set-up needs.
DISK_COLD = 15 << 30

# Debian's name of each machine architecture whose archive has the cross tools.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Failure(Exception):
    """A step can't be done. The text says why, and what to do about it."""


# The exit status of what ends for want of something that no archive has; sysexits.h's EX_UNAVAILABLE.
UNAVAILABLE = 69


class Unavailable(Failure):
    """An archive does not have, or does not hand out, what a step needs: nothing of this project can be at fault."""


def cache_dir() -> Path:
    """The cache folder, created if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "nvlink2-vfio"
    path.mkdir(parents=True, exist_ok=True)
    return path


def scratch() -> Path:
    """A folder of this checkout for what is made and used by one check, and no product."""
    path = cache_dir() / "scratch" / checkout()
    path.mkdir(parents=True, exist_ok=True)
    return path


def inner(path: Path) -> str:
    """A path below the cache as the root sees it."""
    return f"{ROOT_CACHE}/{path.relative_to(cache_dir())}"


def jobs() -> int:
    """How many compilers to run side by side."""
    return len(os.sched_getaffinity(0))


# Memory of this machine for each emulated host that runs, in bytes: it takes less than 2 GiB, and compilers want some.
# A machine says that it has some less than what was bought.
HOST_MEMORY = 4 << 30


def hosts_side_by_side() -> int:
    """How many checks to run side by side: emulated hosts wait for timers and for one another half of their time."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(jobs(), min(2 * jobs(), round(memory / HOST_MEMORY)))


def linux_override() -> Path | None:
    """NVLINK2_LINUX: a Linux 7.3 tree or tarball to use instead of Debian's."""
    value = os.environ.get("NVLINK2_LINUX")
    return Path(value).resolve() if value else None


def ci() -> bool:
    """CI=true: nobody watches, so a skipped test that nobody expects is a failure."""
    return os.environ.get("CI") == "true"


def time_factor() -> int:
    """NVLINK2_TIME_FACTOR: how many times as long as usual everything in emulated hosts may take."""
    value = os.environ.get("NVLINK2_TIME_FACTOR", "1")
    if not value.isdecimal() or int(value) < 1:
        raise Failure(f"NVLINK2_TIME_FACTOR is '{value}'; it has to be a whole number from 1 on")
    return int(value)


def mirror_override() -> str | None:
    """NVLINK2_DEBIAN_MIRROR: the Debian archive that packages are taken from."""
    return os.environ.get("NVLINK2_DEBIAN_MIRROR")


def old_mirror_override() -> str | None:
    """NVLINK2_OLD_MIRROR: an archive that still has the packages of old releases."""
    return os.environ.get("NVLINK2_OLD_MIRROR")


def snapshot_override() -> str | None:
    """NVLINK2_SNAPSHOT: an archive as of a date, for what others do not have any more."""
    return os.environ.get("NVLINK2_SNAPSHOT")


def newest() -> bool:
    """NVLINK2_NEWEST: take the newest Linux 7.3.N and not the one that the series is made for."""
    return os.environ.get("NVLINK2_NEWEST", "") not in ("", "0")


def debian_architecture() -> str:
    """This machine's architecture in Debian's words."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise Failure(
            f"this machine is {sys.platform}/{machine}; the tool chain is packaged "
            f"for Linux on {known}. Use such a machine or virtual machine."
        )
    return ARCHITECTURES[machine]


def free_disk() -> int:
    """Bytes that the cache's file system has left."""
    return shutil.disk_usage(cache_dir()).free


NO_ROOM = "The disk is full"
# As good as none.
LITTLE_ROOM = 64 << 20


def no_room() -> str:
    """What is to be done about a full disk."""
    return (f"{NO_ROOM}: {cache_dir()} has {free_disk() >> 20} MiB free. Free some space ('scripts/emu clean "
            "--old' removes what this checkout does not use), or set XDG_CACHE_HOME to a larger file system.")


def room() -> str:
    """How much room there is, and what to do if it is too little."""
    return no_room() if free_disk() < LITTLE_ROOM else f"{cache_dir()} has {free_disk() >> 20} MiB free."


def check_disk(need: int) -> None:
    """Fail early when the cache's file system has less than `need` bytes free."""
    if (free := free_disk()) < need:
        raise Failure(
            f"{cache_dir()} has {free >> 20} MiB free, {need >> 20} MiB are needed. "
            "Free some space, or set XDG_CACHE_HOME to a larger file system."
        )


def checkout() -> str:
    """A name of this checkout, for what is no product of its content: consoles, outputs."""
    return f"{TREE.name}-{hashlib.sha256(str(TREE).encode()).hexdigest()[:8]}"
