# SPDX-License-Identifier: GPL-2.0
"""Tests on the debug kernel, where allocations fail on demand, and tests under load."""

import datetime
import re

from ..build import initrd, programs, qemu
from ..host.machines import REDBUD, REDBUD_HALF, SEQUOIA, Machine
from . import tests
from .report import Check, Result, tail

# How much slower than the everyday kernel it is, generously: for time limits of single tests.
FACTOR = 10
# What run.sh has to say in the end, on this kernel.
VERDICTS = ("ok - lockdep watched to the end", "ok - no memory leaked")
# Time limit of a boot, in seconds.
LIMIT = 7200
# What is said of an operation for which there was no memory (ENOMEM), no copy (EFAULT), or an error of firmware
# (OPAL_HARDWARE, which becomes EIO).
INJECTED = r"(?:error:?|error code is|error filtering suites:) -1[24]\b|(?:OPAL(?: error)?|err|ret =) -6\b|\berr -5\b"
# What the kernel itself prints for want of memory: vmalloc() and the tracing core (tests/selftests/run.sh).
SHORT_OF_MEMORY = re.compile(
    r"^[^\n]*(?:vmalloc error: size|at event_define_fields).*?(?:Mem-Info:|end trace)[^\n]*\n", re.MULTILINE | re.DOTALL)
# Cycles on the debug kernel; tests/selftests/load.c says what a cycle is.
CYCLES = 60
# Pages that KASAN may keep for each of them. It was 71 for 60 cycles in a boot that had done nothing else.
PAGES = 2
ALL_CYCLES = 1000


# How long the fuzzer goes on there, and what keeps its log whole and a slow machine from being taken for a hung one.
FUZZ_SECONDS = 600
FUZZ_OPS = "142000"
FUZZ_LOG = "sysctl.kernel.hung_task_timeout_secs=600 log_buf_len=64M"


def _boot(name: str, machine: Machine, *tests_to_run: str, mutations: tuple[str, ...] = ()) -> Result:
    """Selftests in a boot of the debug kernel of their own."""
    options = [*machine.options(), "--timeout", tests.scaled(LIMIT),
               "--file", str(programs.selftests_dir())]
    injects = any(choice.startswith("fault_injection") for choice in tests_to_run)
    if injects:
        # Loads the module many hundred times: the module's own tests would run as often.
        options += ["--append", "kunit.enable=0"]
    for mutation in mutations:
        options += ["--mutate", mutation]
    run = tests.Emulated(
        f"debug-{name}", options, "env", f"NVLINK2_TIME_FACTOR={tests.scaled(FACTOR)}", f"NVLINK2_LOAD={CYCLES}",
        f"NVLINK2_LOAD_PAGES={PAGES}",
        f"MUTATIONS={','.join(mutations)}", "/files/selftests/run.sh", *tests_to_run, of="debug",
    )
    result = Result.tallied(run.status, run.output)
    for verdict in VERDICTS:
        said = f"\n{verdict}\n" in run.output
        result.add(Result.one(said, f"run.sh did not say: {verdict}"))
    if injects:
        run.console = SHORT_OF_MEMORY.sub("", run.console)
    return run.with_console(result, *(choice.partition(":")[0] for choice in tests_to_run), expected=INJECTED if injects else tests.NOTHING)


def fault_tests(source: str) -> dict[str, str]:
    """The tests of fault_injection.c in parts, as run.sh's arguments: a part for each of its fixtures."""
    parts: dict[str, list[str]] = {}
    for fixture, test in re.findall(r"^TEST_F\w*\((\w+), (\w+)", source, re.MULTILINE):
        parts.setdefault(fixture.removeprefix("fail").strip("_") or "module", ["fault_injection"]).append(test)
    return {f"fault-{part}": ":".join(choice) for part, choice in parts.items()}


FAULTS = fault_tests((programs.SELFTESTS / "fault_injection.c").read_text(encoding="utf-8"))
# The longest first.
BOOTS = [
    *((name, REDBUD_HALF, (choice,), ()) for name, choice in FAULTS.items()),
    ("selftests", REDBUD, ("emulator", "system_memory", *tests.ANY_ORDER), ()),
    ("huge", REDBUD_HALF, ("gpu_ram_huge",), ()),
    ("sequoia", SEQUOIA, tuple(tests.BOARD), ()),
    # One of each kind of device whose node is bad.
    ("bad-gpu", tests.BAD, ("bad_firmware",), ("gpu0-npu-empty", "bridge4-tgt-missing")),
    ("bad-memory", tests.BAD, ("bad_firmware",), ("mem0-reg-zero",)),
    ("bad-npu", tests.BAD, ("bad_firmware",), ("npu0-atsd-missing",)),
]


def _part(name: str, machine: Machine, names: tuple[str, ...], mutations: tuple[str, ...]) -> Check:
    """A boot of the debug kernel as a check of its own."""
    return Check(f"debug-{name}", lambda: _boot(name, machine, *names, mutations=mutations),
                 [qemu.STEP, initrd.DEBUG_STEP, programs.SELFTESTS_STEP],
                 f"On the debug kernel: {' '.join(names[:3])}{' ...' if len(names) > 3 else ''} {' '.join(mutations)}".strip())


# Check "debug" is all of them.
PARTS = [_part(*boot) for boot in BOOTS]


def load() -> Result:
    """The whole load on the everyday kernel."""
    run = tests.Emulated(
        "load", [*REDBUD.options(), "--timeout", tests.scaled(LIMIT), "--file", str(programs.selftests_dir())],
        "env", f"NVLINK2_LOAD={ALL_CYCLES}", f"NVLINK2_TIME_FACTOR={tests.scaled(FACTOR)}", "/files/selftests/run.sh", "load",
    )
    return run.with_console(Result.tallied(run.status, run.output), "load")


def fuzz() -> Result:
    """Random operations on the debug kernel, other ones each day."""
    seed = f"{datetime.date.today():%Y%m%d}"
    run = tests.Emulated(
        "debug-fuzz", [*REDBUD.options(), "--timeout", tests.scaled(LIMIT), "--append", FUZZ_LOG,
                       "--file", str(programs.fuzz_binary())],
        "env", f"NVLINK2_TIME_FACTOR={tests.scaled(FACTOR)}", "/files/nvlink2-fuzz", "run", "--seed", seed,
        "--ops", FUZZ_OPS, "--seconds", str(FUZZ_SECONDS), "--partial", of="debug",
    )
    again = (f"the same again: NVLINK2_TIME_FACTOR={FACTOR} scripts/emu fuzz --kernel-debug --seed {seed} "
             f"--ops {FUZZ_OPS} --append '{FUZZ_LOG}'")
    return run.with_console(Result.one(run.status == 0, f"{tail(run.output, 60)}\n{again}"))


LONG_CHECKS = [*PARTS, Check("debug-fuzz", fuzz, [qemu.STEP, initrd.DEBUG_STEP, programs.FUZZ_STEP]), Check("load", load, tests.SELFTESTS)]
# Checks that are the sum of others.
SUMS = {"debug": PARTS, "debug-fault-injection": [part for part in PARTS if part.name.removeprefix("debug-") in FAULTS]}
