# SPDX-License-Identifier: GPL-2.0
"""The project's tests: on this machine, of the models, and in the emulated host."""

import datetime
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

from . import boot, config, console, fuzz, programs, qemu, root
from .report import Check, Result, tail
from .step import say

EMU = [sys.executable, str(config.TREE / "scripts/emu"), "run"]
GPUS = 3
# With how many GPUs there is a machine: one chip, two chips.
MACHINES = (3, 6)


class Emulated:
    """A command's run in an emulated host of its own, and what the console said."""

    def __init__(self, name: str, options: list[str], *command: str):
        folder = config.cache_dir() / "consoles"
        folder.mkdir(exist_ok=True)
        log = folder / f"{name}.log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [*EMU, "--console", str(log), *options, "--", *command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )
        self.status = done.returncode
        self.output = done.stdout
        self.console = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def with_console(self, result: Result, expected: str = r"$^") -> Result:
        """`result`, and as one more test that the console has no unknown error line.

        Lines that the pattern `expected` finds are what the test wanted.
        """
        found = [line for line in console.findings(self.console) if not re.search(expected, line)]
        if not self.console:
            found = ["the boot left no console"]
        if found:
            result.failed += 1
            result.text += "\n".join(["", "unexpected on the console:", *found])
        else:
            result.passed += 1
        return result


def in_root(command: list[str], folder: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in the build root."""
    return subprocess.run(
        root.inside(command, workdir=f"{config.ROOT_TREE}/{folder}"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )


# Seconds: a boot with many tests, on a machine that has other work.
LIMIT = "1500"

# What maps GPU RAM, and what depends on it: with the other sizes of pages these run each time.
MAPPING = ["gpu_ram_mmap", "gpu_ram_rw", "gpu_ram_vma", "gpu_ram_dma", "gpu_ram_reset", "lpar", "driver_binding"]
# The selftests but gpu_ram_huge, which loads the module with orders of its own.
ANY_ORDER = ["iommu_group", "region_info", "bridge_bars", "bridge_config", *MAPPING, "eeh", "memory_failure", "atsd", "nvlink_dma", "ats", "load"]
# With how large pages, as orders: 64 KiB only, and none larger than 2 MiB. Without a limit: selftests().
ORDERS = (0, 5)


def _selftests(name: str, gpus: int, names: list[str], *options: str, parameters: str = "") -> Result:
    run = Emulated(name, ["--gpus", str(gpus), "--timeout", LIMIT, *options, "--file", str(programs.selftests_dir())],
                   "env", f"NVLINK2_PARAMETERS={parameters}", "/files/selftests/run.sh", *names)
    return run.with_console(Result.tallied(run.status, run.output))


def selftests() -> Result:
    """The kselftests on two chips with six GPUs."""
    return _selftests("selftests-6", 6, ["emulator", *ANY_ORDER])


def selftests_huge() -> Result:
    """Those of huge pages, which take as long as all others."""
    return _selftests("selftests-huge", 6, ["gpu_ram_huge"])


def selftests_one_chip() -> Result:
    """What depends on the machine, on one chip with three GPUs."""
    return _selftests("selftests-3", 3, ["iommu_group", "region_info", "driver_binding"])


def _with_orders(names: list[str]) -> Result:
    total = Result()
    for order in ORDERS:
        result = _selftests(f"selftests-order-{order}", 6, names, "--no-module", parameters=f"max_order={order}")
        if result.failed or result.skipped:
            result.text = f"max_order={order}:\n{result.text}"
        total.add(result)
    return total


def selftests_orders() -> Result:
    """What maps GPU RAM, with smaller pages."""
    return _with_orders(MAPPING)


def orders() -> Result:
    """All of them with smaller pages."""
    return _with_orders(ANY_ORDER)


def pseries() -> Result:
    """In a guest the driver refuses to bind."""
    run = Emulated("pseries", ["--pseries", "--file", str(programs.selftests_dir())],
                   "/files/selftests/run.sh", "pseries")
    return run.with_console(Result.tallied(run.status, run.output))


def firmware_sets(known: str) -> Iterator[list[str]]:
    """Sets of mutations that cover every kind once and don't disturb each other in one boot.

    `known` is what `emu mutations` prints. Mutations of different GPUs, of their
    bridges and memory can share a boot; those of the NPU, and apertures that reach
    into a neighbour's, can't.
    """
    kinds: dict[str, dict[int, str]] = defaultdict(dict)
    for line in known.splitlines():
        name = line.split("\t")[0]
        device, _, defect = name.partition("-")
        kind, number = device.rstrip("0123456789"), int(device.lstrip("abcdefghijklmnopqrstuvwxyz"))
        gpu = number // 2 if kind == "bridge" else number
        kinds[f"{kind}-{defect}"].setdefault(gpu, name)
    # The NPU is everybody's; an aperture that reaches beyond its end reaches into the next higher.
    alone = {kind: 0 if kind.endswith("beyond") else max(kinds[kind]) for kind in kinds
             if kind.startswith("npu") or kind.endswith(("overlap", "beyond"))}
    for kind, gpu in alone.items():
        yield [kinds[kind][gpu]]
    shared = [kind for kind in kinds if kind not in alone]
    for start in range(0, len(shared), GPUS):
        yield [kinds[kind][gpu] for gpu, kind in enumerate(shared[start:start + GPUS])]


def bad_firmware() -> Result:
    """What the driver makes of a device tree with bad properties, one boot a set of them."""
    total = Result()
    for mutations in firmware_sets(boot.mutations(GPUS)):
        names = ",".join(mutations)
        options = ["--file", str(programs.selftests_dir())]
        for name in mutations:
            options += ["--mutate", name]
        run = Emulated(f"bad-firmware-{names}", options,
                       "env", f"MUTATIONS={names}", "/files/selftests/run.sh", "bad_firmware")
        result = run.with_console(Result.tallied(run.status, run.output))
        total.passed += result.passed
        total.failed += result.failed
        total.skipped += result.skipped
        if result.failed or result.skipped:
            total.text += f"{names}:\n{result.text}\n"
    return total


def demo() -> Result:
    """What `make demo` shows ends well."""
    run = Emulated("demo", ["--file", str(programs.demo_binary())], "/files/nvlink2-demo")
    return run.with_console(Result.one(run.status == 0, tail(run.output)))


def fuzzer() -> Result:
    """A short run of what `make fuzz` runs for long, and all that once broke something."""
    binary = ["--gpus", "6", "--timeout", "400", "--append", fuzz.COUNTED, "--file", str(programs.fuzz_binary())]
    # Other operations each day, and what fails today can be had again tomorrow.
    seed = f"{datetime.date.today():%Y%m%d}"
    again = f"fuzz: seed {seed}; make fuzz SEED={seed} does the same operations again"
    say(again)
    short = ["/files/nvlink2-fuzz", "run", "--seed", seed, "--ops", "20000", "--seconds", "30", "--partial"]
    run = Emulated("fuzz", binary, *short)
    result = run.with_console(Result.one(run.status == 0, f"{tail(run.output, 60)}\n{again}"))
    known = fuzz.reproducers()
    if known:
        files = [option for path in known for option in ("--file", str(path))]
        run = Emulated("fuzz-reproducers", [*binary, *files],
                       "/files/nvlink2-fuzz", "replay", *(f"/files/{path.name}" for path in known))
        result.add(run.with_console(Result.one(run.status == 0, tail(run.output, 60))))
    return result


def kunit() -> Result:
    """The module's own tests of its pure logic, in the kernel."""
    run = Emulated("kunit", [], "sh", "-c", "cat /sys/kernel/debug/kunit/*/results")
    return run.with_console(Result.tap(run.status, run.output))


def _cargo_test(package: str) -> Result:
    done = subprocess.run(
        programs.cargo(package, "test", "--locked"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    return Result.cargo(done.returncode, done.stdout)


def host() -> Result:
    """The same logic, on this machine."""
    return _cargo_test("tests/host")


def bench_report() -> Result:
    """What judges the measurements of `make bench`."""
    return _cargo_test("tests/bench/report")


def nvlink2ctl() -> Result:
    """The host tool on this machine, on recordings of emulated hosts."""
    return _cargo_test("scripts/nvlink2ctl")


def models() -> Result:
    """Unit tests of the device models."""
    done = in_root(["sh", f"{config.ROOT_TREE}/tests/qemu/run-qtests",
                    f"{config.ROOT_CACHE}/{qemu.binary().parent.name}"])
    return Result.tap(done.returncode, done.stdout)


def machine() -> Result:
    """Tests of the machine description program, and of the tree that OPAL makes of its input."""
    done = in_root(["python3", "-m", "unittest", "-v", "test_machine"], "tests/qemu")
    result = Result.unittest(done.returncode, done.stdout)
    for gpus in MACHINES:
        step = boot.tree_step(gpus)
        step.ensure()
        tree = f"{config.ROOT_CACHE}/{step.products[0].relative_to(config.cache_dir())}"
        done = in_root(["python3", "check_tree.py", "check", f"expected/{gpus}-gpus.txt", tree], "tests/qemu")
        result.add(Result.one(done.returncode == 0, tail(done.stdout)))
    return result




def groups() -> Result:
    """One IOMMU group holds the three GPUs and the six bridges; other devices have others."""
    run = Emulated("iommu-groups", [], "sh", "-c",
                   "cd /sys/kernel/iommu_groups; for f in */devices/*; do echo $f; done")
    members: dict[str, set[str]] = defaultdict(set)
    for line in run.output.splitlines():
        if line.count("/devices/") == 1:
            group, _, device = line.partition("/devices/")
            members[group].add(device)
    wanted = {"0000:03:00.0", "0000:04:00.0", "0000:05:00.0",
              *(f"0006:00:0{slot}.{function}" for slot in range(3) for function in range(2))}
    found = wanted in members.values() and len(members) > 1
    return run.with_console(Result.one(run.status == 0 and found, tail(run.output)))


def exit_status() -> Result:
    """`emu run` ends with its command's status, and with 124 when time is up."""
    command = Emulated("exit-status", ["--no-module"], "sh", "-c", "exit 42")
    late = Emulated("time-out", ["--no-module", "--timeout", "25"], "sleep", "1000")
    text = f"exit 42 gave {command.status}, a time-out gave {late.status}\n{tail(late.output)}"
    result = Result.one(command.status == 42, text)
    result.add(Result.one(late.status == 124 and "last lines of the console" in late.output, text))
    return result


def nvlink2ctl_host() -> Result:
    """The host tool on emulated hosts: what it says is what is there, what it changes is changed."""
    total = Result()
    for gpus in MACHINES:
        run = Emulated(
            f"nvlink2ctl-{gpus}",
            ["--gpus", str(gpus), "--file", str(programs.nvlink2ctl_binary()),
             "--file", str(config.TREE / "tests/nvlink2ctl-host"),
             "--file", str(programs.NVLINK2CTL / "tests/recordings")],
            "/files/nvlink2ctl-host/run.sh", "/files/nvlink2ctl", "/files/recordings",
        )
        total.add(run.with_console(Result.tap(run.status, run.output)))
    return total


CHECKS = [
    Check("bad-firmware", bad_firmware),
    Check("selftests", selftests),
    Check("selftests-huge", selftests_huge),
    Check("selftests-1chip", selftests_one_chip),
    Check("selftests-orders", selftests_orders),
    Check("exit-status", exit_status),
    Check("models", models),
    Check("pseries", pseries),
    Check("demo", demo),
    Check("fuzz", fuzzer),
    Check("kunit", kunit),
    Check("machine", machine),
    Check("iommu-groups", groups),
    Check("host", host),
    Check("bench-report", bench_report),
    Check("nvlink2ctl", nvlink2ctl),
    Check("nvlink2ctl-host", nvlink2ctl_host),
]
LONG_CHECKS = [Check("orders", orders)]
