# SPDX-License-Identifier: GPL-2.0
"""What archives have today: the newest Linux 7.3.N, QEMU 10.0.N and rustc, and whether the driver still works with them.

It is built in a cache of its own, so that nothing of it gets into what others build.
"""

import os
import sys

from . import config, files, procs, root, sources
from .config import Unavailable
from .report import Check, Result, tail
from .step import say

EMU = str(config.TREE / "scripts/emu")
CHECK = str(config.TREE / "scripts/check")
# What is fetched. What is built of it is built again only where it is another one than the last time.
FETCHED = [root.STEP, sources.LINUX_STEP, sources.QEMU_STEP, sources.TARGET_STEP]


def newest() -> Result:
    """The one-chip selftests on the newest of everything there is."""
    cache = config.cache_dir() / "newest"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "NVLINK2_NEWEST": "1"}
    environment.pop("NVLINK2_LINUX", None)
    names = [step.name for step in FETCHED]
    for arguments in (["clean", *names], ["setup", *names]):
        # Of a cache that is new there is nothing to clean.
        done = procs.said([sys.executable, EMU, *arguments], env=environment)
        say("".join(f"newest: {line}\n" for line in done.stdout.splitlines()).rstrip())
        if done.returncode:
            raise Unavailable(f"newest: could not be fetched, so that nothing was tried:\n{tail(done.stdout)}")
    done = procs.said([sys.executable, CHECK, "selftests-1chip"], env=environment)
    result = Result.tallied(done.returncode, done.stdout)
    outcomes = sorted((cache / "nvlink2-vfio/made").glob("*/*/outcome"))
    found = "\n".join(f"{path.parts[-3]}: {files.text(path).splitlines()[0]}" for path in outcomes)
    say(f"newest: it was tried with\n{found}")
    if result.failed:
        result.text = f"with\n{found}\n{result.text}"
    return result


CHECKS = [Check("newest", newest)]
