# SPDX-License-Identifier: GPL-2.0
"""The project's tests: on this machine, of the models, and in the emulated host."""

import subprocess
import sys
from pathlib import Path

from . import config, programs
from .report import Check, Result, tail

EMU = [sys.executable, str(config.TREE / "scripts/emu"), "run"]


def emulated(options: list[str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an emulated host of its own."""
    return subprocess.run(
        [*EMU, *options, "--", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )


def groups() -> Result:
    """One IOMMU group holds the three GPUs and the six bridges; other devices have others."""
    done = emulated([], "sh", "-c", "cd /sys/kernel/iommu_groups; for f in */devices/*; do echo $f; done")
    members: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.count("/devices/") == 1:
            group, _, device = line.partition("/devices/")
            members.setdefault(group, []).append(device)
    wanted = {"0000:03:00.0", "0000:04:00.0", "0000:05:00.0",
              *(f"0006:00:0{slot}.{function}" for slot in range(3) for function in range(2))}
    found = any(set(devices) == wanted for devices in members.values())
    return Result.one(done.returncode == 0 and found and len(members) > 1, tail(done.stdout))


CHECKS = [
    Check("iommu-groups", groups),
]
