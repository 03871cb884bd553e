# SPDX-License-Identifier: GPL-2.0
"""The patches for QEMU as others take them, and their own tests."""

import shutil
from pathlib import Path

from ..build import config, enter, procs, qemu_client, sources
from ..build.config import Failure
from ..build.step import say
from .report import Check, Result, tail

# Applies the patches "$@" to Debian's source as a maintainer would, and has QEMU's own checkpatch look at each.
REVIEW = """
git clone -q --shared "$0" /tmp/review
cd /tmp/review
git config user.name review
git config user.email review@localhost
git am -q "$@"
scripts/checkpatch.pl --strict --branch origin/HEAD..
"""


def review() -> Result:
    """The patches for QEMU apply with git am, and QEMU's checkpatch is content with each."""
    inner = [f"{config.ROOT_TREE}/{patch.relative_to(config.TREE)}" for patch in qemu_client.patches()]
    done = procs.said(enter.inside(["bash", "-euc", REVIEW, sources.QEMU_TREE, *inner]))
    return Result.one(done.returncode == 0, tail(done.stdout, 80))


def write_series(out: Path) -> None:
    """Copy the patches and their cover letter to the folder `out`, which must be new or empty, if they apply."""
    if out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty: series of two versions would mix. Name another folder.")
    if (result := review()).failed:
        raise Failure(f"{result.text}\n{sources.moved_qemu()}")
    out.mkdir(parents=True, exist_ok=True)
    for patch in qemu_client.SERIES.glob("*.patch"):
        shutil.copy(patch, out)
    say(f"qemu-series: {len(list(out.glob('*.patch')))} files in {out}, for QEMU {sources.QEMU_STEP.outcome().strip()}")


def native() -> Result:
    """The series' own test of the pseries machine, and QEMU's of NUMA nodes, on this machine."""
    run = "\n".join(f"QTEST_QEMU_BINARY=./qemu-system-ppc64 {test} --tap -k || status=1" for test in qemu_client.QTESTS)
    done = procs.said(enter.inside(["sh", "-c", f"status=0\n{run}\nexit $status"], workdir=f"{qemu_client.NATIVE_STEP.inner}/build"))
    return Result.tap(done.returncode, done.stdout)


CHECKS = [Check("qemu-series", review, [sources.QEMU_STEP])]
LONG_CHECKS = [Check("qemu-native", native, [qemu_client.NATIVE_STEP])]
