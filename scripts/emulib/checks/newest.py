# SPDX-License-Identifier: GPL-2.0
"""What archives have today: the newest Linux 7.3.N, QEMU 10.0.N and rustc, and whether the driver still works with them.

They are fetched into a cache of their own, so that nothing of them gets into what others build. Where they are what
this cache has, too, nothing is built again.
"""

import os
import sys
from pathlib import Path

from ..build import config, files, procs, root, sources
from ..build.config import Unavailable
from ..build.step import locked, say
from . import skips
from .report import Check, Result, tail

EMU = str(config.TREE / "scripts/emu")
CHECK = str(config.TREE / "scripts/check")
FETCHED = [root.STEP, sources.LINUX_STEP, sources.QEMU_STEP, sources.TARGET_STEP]


def cache() -> Path:
    """The other cache's folder."""
    return config.cache_dir() / "newest/nvlink2-vfio"


def _there(name: str) -> str:
    """What the step `name` took in the other cache."""
    stamps = (cache() / "made" / name).glob("*/.done")
    last = max(stamps, key=lambda stamp: stamp.stat().st_mtime, default=None)
    return files.text(last.parent / "outcome") if last else ""


def newest() -> Result:
    """The one-chip selftests on the newest Linux 7.3.N, QEMU 10.0.N and rustc that archives have today."""
    with locked("newest"):
        return _newest()


def _newest() -> Result:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache().parent), "NVLINK2_NEWEST": "1"}
    environment.pop("NVLINK2_LINUX", None)
    names = [step.name for step in FETCHED]
    for name in names:
        files.remove(cache() / "made" / name)
    done = procs.said([sys.executable, EMU, "setup", *names], env=environment)
    say("\n".join(f"newest: {line}" for line in done.stdout.splitlines()))
    if done.returncode == config.UNAVAILABLE:
        raise Unavailable(f"the newest can't be fetched, so that nothing was tried:\n{tail(done.stdout)}")
    if done.returncode:
        return Result.one(False, tail(done.stdout))
    moved = [step.name for step in FETCHED if _there(step.name) != step.outcome()]
    found = "\n".join(f"{name}: {_there(name).partition(chr(10))[0]}" + (" (this is new)" if name in moved else "") for name in names)
    say(f"newest: the one-chip selftests, with\n{found}")
    done = procs.said([sys.executable, CHECK, "selftests-1chip"], env=environment if moved else dict(os.environ))
    result = Result.tallied(done.returncode, done.stdout)
    if config.ci():
        # What may be skipped is listed for the check that has judged it, and not for this one.
        result.skipped = 0
        result.text = "\n".join(line for line in result.text.splitlines() if not skips.SKIPPED.search(line))
    if result.failed or result.skipped:
        result.text = f"with\n{found}\n{result.text}"
    return result


CHECKS = [Check("newest", newest, FETCHED)]
