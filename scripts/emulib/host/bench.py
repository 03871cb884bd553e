# SPDX-License-Identifier: GPL-2.0
"""What mapping and using GPU RAM costs, in instructions of the emulated host."""

import re
import shutil
import subprocess
from pathlib import Path

from ..build import config, enter, linux_510, module, procs, programs, root
from ..build.config import Failure
from ..build.step import Log, Step, digest, locked, say
from . import boot, machines

REPORT = config.TREE / "tests/bench/report"
# 32 GiB are touched, which the smaller of the two kinds of V100 does not have.
GPU_RAM = "32G"
# Seconds. Counting instructions, and having only one thread, makes the emulator slow.
TIMEOUT = 4 * 3600


def folder() -> Path:
    return config.scratch() / "bench"


def _build(log: Log) -> None:
    with locked("cargo-report"):
        log.run(programs.cargo("tests/bench/report", "build", "--release", "--locked"),
                remedy="Needed: the registry of Rust crates within reach.")
        shutil.copy2(config.cache_dir() / "cargo-target/release/nvlink2-bench-report", STEP.home())


STEP = Step(
    "bench-report",
    "building the program that makes tables and plots (1 min when cold)",
    lambda: digest(REPORT),
    _build,
    ["nvlink2-bench-report"],
    [root.STEP],
)


def _measure(linux: Path | None, names: list[str]) -> Path:
    """Run tests/bench/measure.c on our kernel, or another; return what it printed."""
    host = boot.Host(machine=machines.REDBUD_HALF, kernel=linux, gpu_ram=GPU_RAM, icount=True, timeout=TIMEOUT,
                     files=[programs.selftests_dir() / "measure", programs.SPLATS])
    result = folder() / f"{'peer' if linux else 'ours'}.tsv"
    with open(result, "wb") as output:
        status = boot.run(host, ["/files/measure", *names], output)
    if status:
        raise Failure(f"measure ended with status {status}; what it printed is in {result}")
    return result


def _code() -> int:
    """Bytes of code in the module."""
    sections = procs.run(
        enter.inside(["powerpc64le-linux-gnu-size", "-A", "-d", config.inner(module.STEP.path())]),
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout
    return sum(int(size) for size in re.findall(r"^\.text\S*\s+(\d+)", sections, re.MULTILINE))


def run(with_peer: bool, names: list[str]) -> int:
    """Measure, and print the report; 1 if something is not as it has to be."""
    folder().mkdir(exist_ok=True)
    inputs: list[str | Path] = ["--ours", _measure(None, names)]
    if with_peer:
        inputs += ["--peer", _measure(linux_510.image(), names)]
    status = procs.run([str(STEP.path()), *map(str, inputs), "--text", str(_code()), "--out", str(folder())]).returncode
    say(f"{folder()}: {', '.join(sorted(path.name for path in folder().iterdir()))}")
    return status
