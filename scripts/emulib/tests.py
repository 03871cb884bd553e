# SPDX-License-Identifier: GPL-2.0
"""The project's tests: on this machine, of the models, and in the emulated host."""

import subprocess
import sys

from . import config, console, programs
from .report import Check, Result, tail

EMU = [sys.executable, str(config.TREE / "scripts/emu"), "run"]


class Emulated:
    """A command's run in an emulated host of its own, and what the console said."""

    def __init__(self, name: str, options: list[str], *command: str):
        folder = config.cache_dir() / "consoles"
        folder.mkdir(exist_ok=True)
        log = folder / f"{name}.log"
        done = subprocess.run(
            [*EMU, "--console", str(log), *options, "--", *command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )
        self.status = done.returncode
        self.output = done.stdout
        self.console = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def with_console(self, result: Result) -> Result:
        """`result`, and as one more test that the console has no unknown error line."""
        found = console.findings(self.console)
        if not self.console:
            found = ["the boot left no console"]
        if found:
            result.failed += 1
            result.text += "\n".join(["", "unexpected on the console:", *found])
        else:
            result.passed += 1
        return result


def groups() -> Result:
    """One IOMMU group holds the three GPUs and the six bridges; other devices have others."""
    boot = Emulated("iommu-groups", [], "sh", "-c",
                    "cd /sys/kernel/iommu_groups; for f in */devices/*; do echo $f; done")
    members: dict[str, set[str]] = {}
    for line in boot.output.splitlines():
        if line.count("/devices/") == 1:
            group, _, device = line.partition("/devices/")
            members.setdefault(group, set()).add(device)
    wanted = {"0000:03:00.0", "0000:04:00.0", "0000:05:00.0",
              *(f"0006:00:0{slot}.{function}" for slot in range(3) for function in range(2))}
    found = wanted in members.values() and len(members) > 1
    return boot.with_console(Result.one(boot.status == 0 and found, tail(boot.output)))


def selftests() -> Result:
    """The kselftests, in one emulated host."""
    boot = Emulated("selftests", ["--file", str(programs.selftests_dir())], "/files/selftests/run.sh")
    return boot.with_console(Result.tallied(boot.status, boot.output))


def demo() -> Result:
    """What `make demo` shows ends well."""
    boot = Emulated("demo", ["--file", str(programs.demo_binary())], "/files/nvlink2-demo")
    return boot.with_console(Result.one(boot.status == 0, tail(boot.output)))


CHECKS = [
    Check("selftests", selftests),
    Check("demo", demo),
    Check("iommu-groups", groups),
]
