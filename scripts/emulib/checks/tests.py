# SPDX-License-Identifier: GPL-2.0
"""The project's tests: on this machine, of the models, and in the emulated host."""

import concurrent.futures
import dataclasses
import datetime
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ..build import clients, config, enter, files, initrd, kernel, linux_510, module, procs, programs, qemu, root
from ..build.step import locked, say
from ..host import boot, console, fuzz, machines
from ..host.machines import REDBUD, REDBUD_HALF, SEQUOIA, Machine
from .report import Check, Result, tail

EMU = [sys.executable, str(config.TREE / "scripts/emu"), "run"]
# Of which there are recordings of what nvlink2ctl reads, which are compared with the hosts.
RECORDED = (REDBUD, SEQUOIA)
# The machine that bad firmware is tried on.
BAD = REDBUD_HALF
# What tests/qemu/expected has of machines, and the options of check_tree.py; the last is what tests/host reads.
TREES = {"2-gpus.txt": (REDBUD_HALF, []), "4-gpus.txt": (REDBUD, []), "6-gpus.txt": (SEQUOIA, []),
         "2-gpus-mutations.tsv": (BAD, ["--mutations"])}
# What skiboot, whose source QEMU's has, knows of a real Redbud.
RECORDING = f"{qemu.STEP.inner}/source/roms/skiboot/hdata/test/op920.wsp.dts"
# A pattern that finds no line.
NOTHING = r"$^"


# What init says of the module that it has loaded.
BUILD_ID = re.compile(r"^emu: nvlink2-vfio-pci has build id (\w*)", re.MULTILINE)


class Emulated:
    """A command's run in an emulated host of its own, and what the console said."""

    def __init__(self, name: str, options: list[str], *command: str, of: str = "host"):
        folder = config.cache_dir() / "consoles" / config.checkout()
        folder.mkdir(parents=True, exist_ok=True)
        # Kept for whom a failed check's text does not tell enough.
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        self.log.unlink(missing_ok=True)
        if "--timeout" not in options:
            options = ["--timeout", scaled(600), *options]
        options = ["--kernel-config", of, *options]
        # Of limits of time within the emulated host. Where the command sets another value, that one counts.
        command = ("env", f"NVLINK2_TIME_FACTOR={config.time_factor()}", *command)
        start = time.monotonic()
        done = procs.said([*EMU, "--console", str(self.log), *options, "--", *command])
        self.seconds = time.monotonic() - start
        self.status = done.returncode
        self.output = done.stdout
        self.out.write_text(self.output, encoding="utf-8")
        self.console = files.text(self.log)
        self.pseries = "--pseries" in options
        # Init loads it only into a kernel and a root of ours.
        self.module = not {"--no-module", "--kernel", "--initrd"}.intersection(options)
        self.kernel = kernel.BY_NAME[of]

    def with_console(self, result: Result, *tests: str, expected: str = NOTHING) -> Result:
        """`result` with the boot's time, and as one more test that the console has no unknown error line.

        `tests` are the selftests that the boot runs, whose lines of known-noise.txt it may have. Lines
        that the pattern `expected` finds are what the test wanted.
        """
        result.boots.append(self.seconds)
        sections = tests if self.pseries else (console.EMULATED_HOST, *tests)
        found = [line for line in console.findings(self.console, sections) if not re.search(expected, line)]
        if found:
            found.insert(0, "unexpected on the console:")
        elif not result.failed and (dead := console.dead(self.console, tests)):
            found = ["not on the console, so take it out of known-noise.txt:", *dead]
        if not self.console:
            found = ["the boot left no console"]
        # Of another checkout's module nobody wants to know.
        loaded = set(BUILD_ID.findall(self.console))
        if (loaded or self.module) and loaded != {module.build_id(self.kernel)}:
            found.append(f"the module that ran has build id {', '.join(loaded) or '(none said that it was loaded)'}, this "
                         f"checkout's {module.build_id(self.kernel)}")
        if found:
            result.failed += 1
            result.text += "\n".join(["", *found])
        else:
            result.passed += 1
        if result.failed:
            result.text += f"\nthe whole output: {self.out}\nthe console: {self.log}"
        return result


def in_root(command: list[str], folder: str = "", tree: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in the build root, or in the copy `tree` of it."""
    return procs.said(enter.inside(command, workdir=f"{config.ROOT_TREE}/{folder}", tree=tree))


# What a boot takes; one with selftests; one with nvlink2ctl.
BOOT = [qemu.STEP, initrd.STEP]
SELFTESTS = [*BOOT, programs.SELFTESTS_STEP]
NVLINK2CTL = [*BOOT, programs.NVLINK2CTL_STEP]


def scaled(number: int) -> str:
    """A limit of time as an option, or the factor of one: NVLINK2_TIME_FACTOR times as much."""
    return str(number * config.time_factor())


# Seconds: a boot with many tests, on a machine that has other work.
LIMIT = 2400


def selftest_names(word: str = "") -> list[str]:
    """The selftests, all of them or those with the word in tests/selftests/programs.txt, in its order."""
    lines = [line.split() for line in (programs.SELFTESTS / "programs.txt").read_text(encoding="utf-8").splitlines()
             if not line.startswith("#")]
    return [name for name, *words in lines if not word or word in words]


# What maps GPU RAM, and what depends on it: with smaller pages these run each time, on the other machines.
MAPPING = selftest_names("mapping")
# The selftests but gpu_ram_huge, which loads the module with orders of its own.
ANY_ORDER = selftest_names("orders")
# What depends on the machine: its chips, and its board.
BOARD = selftest_names("board")
# What has to do with the numbers of a chip.
CHIP = selftest_names("chip")
# What depends on how the kernel was configured.
CONFIGURED = selftest_names("config")
# With how large pages, as orders: 64 KiB only, and none larger than 2 MiB. Without a limit: selftests().
ORDERS = (0, 5)


def _selftests(name: str, machine: Machine, names: list[str], *options: str, parameters: str = "", first: int = 0,
               of: str = "host") -> Result:
    run = Emulated(name, [*machine.options(), "--timeout", scaled(LIMIT), *options, "--file", str(programs.selftests_dir())],
                   "env", f"NVLINK2_PARAMETERS={parameters}", f"NVLINK2_FIRST_GPU={first}", "/files/selftests/run.sh", *names,
                   of=of)
    return run.with_console(Result.tallied(run.status, run.output), *(f"{name}{console.ON_CHIP_8 if first else ''}" for name in names))


# The kselftests on a Redbud, in boots that take about as long as each other (1 to 3 min): with one chip where that
# suffices. What each program takes is in what run.sh prints, which is kept beside the console.
PARTS = {
    "selftests-huge": (REDBUD_HALF, ["gpu_ram_huge"]),
    "selftests-load": (REDBUD, ["load"]),
    "selftests-mapping": (REDBUD, MAPPING),
    "selftests-eeh": (REDBUD_HALF, ["eeh"]),
    "selftests": (REDBUD, [name for name in selftest_names("host") if name not in [*MAPPING, "gpu_ram_huge", "load", "eeh"]]),
}


def _selftests_check(name: str) -> Check:
    machine, names = PARTS[name]
    return Check(name, lambda: _selftests(name, machine, names), SELFTESTS,
                 f"Selftests on {machine.sockets} GPUs: {', '.join(names)}.")


def selftests_one_chip() -> Result:
    """What depends on the machine, on a Redbud with one chip."""
    return _selftests("selftests-1chip", REDBUD_HALF, BOARD)


# Nothing depends on a machine and on the size of pages at the same time, so that one boot has both.
def _small_pages(name: str, machine: Machine, names: list[str], order: int, first: int = 0) -> Result:
    also = [each for each in selftest_names() if each in {*names, *MAPPING}]
    return _selftests(name, machine, also, "--no-module", parameters=f"max_order={order}", first=first)


def selftests_sequoia() -> Result:
    """What depends on the machine, on a Sequoia with two chips, and what maps GPU RAM, by pages of 64 KiB."""
    return _small_pages("selftests-sequoia", SEQUOIA, BOARD, ORDERS[0])


def selftests_second_chip() -> Result:
    """What depends on numbers of a chip, with the first GPU of a Redbud's chip 8, and what maps GPU RAM, by pages of 2 MiB."""
    return _small_pages("selftests-chip8", REDBUD, CHIP, ORDERS[1], first=REDBUD_HALF.sockets)


def selftests_uvm() -> Result:
    """Shootdowns where the NPU reads ATSD LAUNCH as NVIDIA's driver writes it."""
    return _selftests("selftests-uvm", dataclasses.replace(REDBUD, atsd_is="uvm"), ["ats"])


# Where nobody knows what the hardware does the other answer: GPUs with function level reset, in slots that are switched
# off and on, PEs that ones thaw, and ones for what is loaded from GPU RAM that does not answer.
OTHER_SILICON = dataclasses.replace(REDBUD_HALF, relaxed=("flr",), dead_access="ones", slot_power=True, pest_ones=True)


def selftests_other_silicon() -> Result:
    """What depends on answers that nobody has, with the other ones."""
    return _selftests("selftests-silicon", OTHER_SILICON, selftest_names("silicon"))


# What a test is skipped for on a machine that does not say that it is a model.
NEEDS_MODEL = re.compile(r"^ok \d+ (\S+) # SKIP needs the model: ", re.MULTILINE)
# What run.sh prints before a program's output, and a test that ran: its fixture, perhaps a variant, its name.
RAN = re.compile(r"^# (?P<program>[a-z_]+)$|^(?:not )?ok \d+ (?:\w+\.)+(?P<test>\w+)$", re.MULTILINE)


def ran(output: str) -> set[tuple[str, str]]:
    """The selftests that were not skipped, by program."""
    found, program = set(), ""
    for match in RAN.finditer(output):
        program = match["program"] or program
        if match["test"]:
            found.add((program, match["test"]))
    return found


def run_on_hardware(names: list[str]) -> set[tuple[str, str]]:
    """The tests of these selftests that hardware.tsv says run on hardware."""
    return {(program, test) for program, test, why in _table("tests/selftests/hardware.tsv") if why == "runs" and program in names}


def selftests_hardware() -> Result:
    """The selftests as a person with the hardware runs them: nothing tells that the GPUs are models."""
    machine = dataclasses.replace(REDBUD_HALF, hide_model=True)
    names = selftest_names("host")
    run = Emulated("selftests-hardware", [*machine.options(), "--timeout", scaled(LIMIT), "--file", str(programs.selftests_dir())],
                   "env", "NVLINK2_HARDWARE=1", "/files/selftests/run.sh", *names)
    result = Result.tallied(run.status, run.output)
    # These are no lack of this machine, but what is to be shown.
    skipped = NEEDS_MODEL.findall(run.output)
    result.skipped -= len(skipped)
    result.text = "\n".join(line for line in result.text.splitlines() if "needs the model: " not in line)
    wanted, seen = run_on_hardware(names), ran(run.output)
    result.add(Result.one(seen == wanted, "hardware.tsv says otherwise: " + ", ".join(
        [*(f"{': '.join(test)} did not run" for test in sorted(wanted - seen)),
         *(f"{': '.join(test)} ran" for test in sorted(seen - wanted))])))
    # Without the tests whose noise that is.
    return run.with_console(result)


TRIAL = [*BOOT, programs.TRIAL_STEP]
# What a report has where something is wrong, in a line that is as long as the text is wide.
FIRST = re.compile(r"^WHAT IS WRONG FIRST\n(.*?)\n\n", re.MULTILINE | re.DOTALL)


def _trial(name: str, options: list[str], *command: str) -> Emulated:
    bundle = [word for path in programs.trial_files() for word in ("--file", str(path))]
    return Emulated(name, ["--hide-model", "--timeout", scaled(LIMIT), *options, *bundle], *command)


def _first(run: Emulated, wanted: str) -> Result:
    """Whether the report's first words are that something with `wanted` in it is wrong."""
    found = FIRST.search(run.output)
    said = " ".join(found[1].split()) if found else ""
    return Result.one(run.status == 1 and wanted in said,
                      f"status {run.status}, and what is wrong first is '{said}', not '{wanted}':\n{tail(run.output, 100)}")


def _report(output: str) -> dict[str, Any]:
    """The report as JSON in what a run printed."""
    try:
        report, _ = json.JSONDecoder().raw_decode(output[output.index("\n{\n") + 1:])
    except ValueError:
        return {}
    return cast(dict[str, Any], report)


# Steps that a machine without a person, a QEMU and a model leaves out, in whole or in part.
OF_OTHERS = re.compile(r"vendor-|untrained|guest-|selftest-")
# Numbers of devices, links and table entries, which other machines have others of.
NUMBERS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|\b\d+\b")
EXAMPLE = config.TREE / "Documentation/trial-report.json"


def structure(report: dict[str, Any]) -> set[str]:
    """What a report has, without what it says: steps, and in them findings, observations and texts."""
    def name(*words: str) -> str:
        return NUMBERS.sub("N", ": ".join(words))

    found = {*report} | {name("assumption", judged["assumption"]) for judged in report["assumptions"]}
    for step in report["steps"]:
        found |= {name("step", step["step"], step["verdict"])}
        found |= {name(step["step"], "finding", finding["check"]) for finding in step.get("findings", [])}
        found |= {name(step["step"], fact["phase"], fact["what"]) for fact in step.get("facts", [])}
        found |= {name(step["step"], "text", text) for text in step.get("texts", {})}
    return found


def trial() -> Result:
    """nvlink2-trial on a host that does not say that it is a model, with an empty socket: a report as the one in the documents."""
    # One GPU on the first chip, two on the other: an empty socket is no fault.
    machine = dataclasses.replace(REDBUD, empty=("GPU1",))
    run = _trial("trial", machine.options(), "/files/nvlink2-trial", "--yes", "--json", "--brief")
    report = _report(run.output)
    left_out = [step["step"] for step in report.get("steps", []) if step["verdict"] != "passed" and not OF_OTHERS.match(step["step"])]
    result = Result.one(run.status == 0 and bool(report) and not report["wrong"] and not left_out,
                        f"status {run.status}, left out: {left_out}\n{tail(run.output, 200)}")
    if not result.failed:
        example = structure(json.loads(EXAMPLE.read_text(encoding="utf-8")))
        other = sorted(structure(report) ^ example)
        result.add(Result.one(not other, f"only in one of this report and {EXAMPLE.name}: {other}\nIf this change is meant: "
                              "scripts/record trial"))
    return run.with_console(result)


def trial_untrained() -> Result:
    """What the report says of a load of GPU RAM while links are down: of each of the two that it may be."""
    result = Result()
    for access, said in zip(machines.DEAD, ("the load was a machine check", "the load gave ones")):
        machine = dataclasses.replace(REDBUD_HALF, dead_access=access)
        run = _trial(f"trial-untrained-{access}", machine.options(), "/files/nvlink2-trial", "--yes", "--brief",
                     "--only", "bind", "--only", "untrained", "--dangerous", "untrained")
        found = Result.one(said in run.output, f"no '{said}' in:\n{tail(run.output, 100)}")
        # What the kernel says of a machine check is what was wanted.
        result.add_part(access, run.with_console(found, expected=r"^MCE: CPU\d+: Hardware error$"))
    return result


def trial_guest() -> Result:
    """The steps of nvlink2-trial with a guest, in QEMU 10.0 with the series of scripts/qemu."""
    steps = [f"guest-{gpu}" for gpu in ("0004:04:00.0", "0004:05:00.0")]
    # The whole bundle is too much for an initial RAM disk that has the clients, too.
    bundle = programs.TRIAL_STEP.home() / programs.BUNDLE
    files = [clients.programs_dir(), *(bundle / name for name in (programs.BUNDLE, "guest.cpio.gz", "selftests/observe"))]
    run = Emulated(
        "trial-guest",
        ["--hide-model", "--timeout", scaled(2 * LIMIT), *REDBUD_HALF.options(), "--disk", str(clients.image()),
         *(word for path in files for word in ("--file", str(path)))],
        "sh", "-c",
        "cd /files/programs && mkdir -p trial/selftests && mv ../nvlink2-trial ../guest.cpio.gz trial && mv ../observe trial/selftests && "
        "cp nvlink2ctl trial && PROGRAM=/files/trial/nvlink2-trial exec "
        f"./enter --yes --json --only bind {' '.join(f'--only {step}' for step in steps)} "
        f"--guest-kernel /files/vmlinux --guest-machine '{clients.GUEST_MACHINE}'",
    )
    done = {step["step"]: step for step in _report(run.output).get("steps", [])}
    result = Result()
    for step in steps:
        passed = done.get(step, {}).get("verdict") == "passed"
        result.add(Result.one(passed, f"{step} has not passed:\n{tail(run.output, 200)}"))
    return run.with_console(result)


def trial_unbound() -> Result:
    """The same where bridges are not bound: the report begins with that."""
    run = _trial("trial-unbound", REDBUD_HALF.options(), "sh", "-c",
                 "/files/nvlink2ctl bind --all && /files/nvlink2ctl unbind --no-probe 0006:00:00.1 && "
                 "exec /files/nvlink2-trial --yes --skip bind")
    return run.with_console(_first(run, "doctor-bound: binding: not all bridges of 0004:04:00.0"))


def trial_firmware() -> Result:
    """The same with bad firmware: the report begins with the property."""
    run = _trial("trial-firmware", [*BAD.options(), "--mutate", "mem0-reg-zero"], "/files/nvlink2-trial", "--yes")
    return run.with_console(_first(run, "reg of "))


def trial_series() -> Result:
    """The same with a kernel without the series, Linux 5.10: the report begins with that."""
    run = _trial("trial-5.10", [*REDBUD_HALF.options(), "--kernel", str(linux_510.image())], "/files/nvlink2-trial", "--yes")
    return run.with_console(_first(run, "doctor: kernel options"))


def trial_program() -> Result:
    """nvlink2-trial on this machine, on recordings of emulated hosts."""
    return _cargo_test("scripts/trial")


# A socket that is free, and one whose card does not answer, each beside one that is full: with a GPU of the larger size,
# in firmware's other map of memory.
HOLES = Machine(REDBUD.board, REDBUD.chips, empty=("GPU1",), dead=("GPU3",), small_map=True)
HOLES_SAY = (
    "This host is ready", "not connected, as links to an empty socket are: 0006:00:01.0, 0006:00:01.1, 0006:00:01.2, 0007:00:00.0",
    "aperture 0x40000000000 (128 GiB), RAM 32 GiB", "aperture 0x242000000000 (128 GiB), RAM 32 GiB",
)


def empty_sockets() -> Result:
    """Sockets without a card, and with one that does not answer, are no fault of anybody's; GPUs of 32 GiB from 4 TiB up."""
    run = Emulated("empty-sockets", [*HOLES.options(), "--gpu-ram", "32G", "--file", str(programs.selftests_dir()),
                                     "--file", str(programs.nvlink2ctl_binary()), "--file", str(programs.demo_binary())],
                   "sh", "-c", "/files/nvlink2ctl bind --all && /files/nvlink2ctl doctor && /files/nvlink2ctl list && "
                   "/files/nvlink2-demo && exec /files/selftests/run.sh empty_socket")
    result = Result.tallied(run.status, run.output)
    missing = [text for text in HOLES_SAY if text not in run.output]
    result.add(Result.one(not missing and "FAILED" not in run.output,
                          f"nvlink2ctl is not content, or does not say {missing}:\n{tail(run.output)}"))
    return run.with_console(result, "empty_socket")


def _configured(of: str, what: str) -> Check:
    """Selftests on one chip, on our kernel of another configuration."""
    name = f"config-{of}"
    return Check(name, lambda: _selftests(name, REDBUD_HALF, CONFIGURED, of=of),
                 [qemu.STEP, initrd.step(kernel.BY_NAME[of]), programs.SELFTESTS_STEP],
                 f"Selftests on a kernel {what}: {', '.join(CONFIGURED)}.")


def _order(order: int) -> Check:
    """Selftests with pages of GPU RAM up to that order."""
    name = f"orders-{order}"
    return Check(name, lambda: _selftests(name, REDBUD, ANY_ORDER, "--no-module", parameters=f"max_order={order}"), SELFTESTS)


def pseries() -> Result:
    """In a guest every device is an ordinary one."""
    run = Emulated("pseries", ["--pseries", "--file", str(programs.selftests_dir())],
                   "/files/selftests/run.sh", "pseries")
    return run.with_console(Result.tallied(run.status, run.output), "pseries")


# Of each of its GPUs.
LINKS = 3
# Whom a mutation concerns without leaving its GPU, in the words of bad_firmware.tsv.
OWN = {"gpu", "link", "other", "links"}
# What puts a GPU into the IOMMU group of its bridges, which cannot be used if no GPU is left in it.
MEMBERSHIP = "ibm,npu"


def _table(path: str) -> Iterator[list[str]]:
    """The rows of a table."""
    for line in (config.TREE / path).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split("\t")


def firmware_sets() -> Iterator[list[str]]:
    """Sets of mutations that cover every kind once and don't disturb each other in one boot.

    Mutations of different GPUs, of their bridges and memory can share a boot. One that concerns other GPUs, too, can't,
    nor can those that take each GPU out of the group.
    """
    kinds: dict[str, dict[int, str]] = defaultdict(dict)
    changed: dict[str, str] = {}
    for name, _, changes, _ in _table(f"tests/qemu/expected/{BAD.sockets}-gpus-mutations.tsv"):
        device, _, defect = name.partition("-")
        kind, number = device.rstrip("0123456789"), int(device.lstrip("abcdefghijklmnopqrstuvwxyz"))
        gpu = number // LINKS if kind == "bridge" else number
        kinds[f"{kind}-{defect}"].setdefault(gpu, name)
        changed[f"{kind}-{defect}"] = changes
    alone = {kind for kind, who, *_ in _table("tests/selftests/bad_firmware.tsv") if who not in OWN}
    for kind in kinds:
        if kind in alone:
            yield [kinds[kind][max(kinds[kind])]]
    rest = [kind for kind in kinds if kind not in alone]
    while rest:
        shared: list[str] = []
        for kind in rest:
            outside = sum(changed[other] == MEMBERSHIP for other in (*shared, kind))
            if len(shared) < BAD.sockets and outside < BAD.sockets:
                shared.append(kind)
        yield [kinds[kind][gpu] for gpu, kind in enumerate(shared)]
        rest = [kind for kind in rest if kind not in shared]


# What only a boot shows of bad firmware, with a mutation of each kind of device: what the platform makes of it, the
# message in the log, no region, and no harm to others. What the driver says of each of them is tests/host's.
FIRMWARE = {
    "gpu": ["gpu0-npu-dangling", "bridge4-gpu-missing"],
    "memory": ["mem0-reg-zero"],
    "overlap": ["mem1-reg-overlap"],
    "npu": ["npu0-atsd-short"],
}


def _bad_firmware(name: str, mutations: list[str]) -> Check:
    """What the driver makes of a device tree with bad properties."""
    def run() -> Result:
        names = ",".join(mutations)
        options = [*BAD.options(), "--file", str(programs.selftests_dir())]
        for mutation in mutations:
            options += ["--mutate", mutation]
        booted = Emulated(f"bad-firmware-{name}", options,
                       "env", f"MUTATIONS={names}", "/files/selftests/run.sh", "bad_firmware")
        result = booted.with_console(Result.tallied(booted.status, booted.output), "bad_firmware")
        if result.text:
            result.text = f"{names}:\n{result.text}"
        return result

    return Check(f"bad-firmware-{name}", run, [*SELFTESTS, boot.TREE_STEPS[BAD]],
                 f"What the driver makes of bad firmware: {', '.join(mutations)}.")


# What one emulated host does for several checks, one after the other; the last command ends it with a status of its own.
BASICS = {
    # The module's own tests of its pure logic, in the kernel.
    "kunit": "cat /sys/kernel/debug/kunit/*/results",
    "iommu-groups": "cd /sys/kernel/iommu_groups; for f in */devices/*; do echo $f; done",
    # What `make demo` shows.
    "demo": "/files/nvlink2-demo",
}
STATUS = 42


def _groups(status: int, output: str) -> Result:
    """Two IOMMU groups hold the two GPUs and the six bridges of a chip each; other devices have others."""
    members: dict[str, set[str]] = defaultdict(set)
    for line in output.splitlines():
        if line.count("/devices/") == 1:
            group, _, device = line.partition("/devices/")
            members[group].add(device)
    wanted = [{*gpus, *(f"{bridges}:00:0{slot}.{function}" for slot in range(2) for function in range(3))}
              for gpus, bridges in ((("0004:04:00.0", "0004:05:00.0"), "0006"), (("0035:03:00.0", "0035:04:00.0"), "0007"))]
    found = all(group in members.values() for group in wanted) and len(members) > 2
    return Result.one(status == 0 and found, tail(output))


def shown_demo() -> list[str]:
    """The lines of the demo that README.md shows."""
    text = (config.TREE / "README.md").read_text(encoding="utf-8")
    shown = text[text.index("The demo ends with"):text.index("Other commands:")]
    return [line.strip() for line in shown.splitlines()[1:] if line.strip()]


def basics() -> Result:
    """KUnit, the groups, the demo, and that `emu run` ends with its command's status."""
    script = "".join(f"echo '-- {name} starts'\n({command})\nprintf '\\n-- {name} ended with %s\\n' $?\n"
                     for name, command in BASICS.items())
    run = Emulated("basics", [*REDBUD.options(), "--file", str(programs.demo_binary())], "sh", "-c", f"{script}exit {STATUS}")

    def part(name: str) -> tuple[int, str]:
        found = re.search(rf"^-- {name} starts$(.*)^-- {name} ended with (\d+)$", run.output, re.MULTILINE | re.DOTALL)
        return (int(found[2]), found[1]) if found else (1, f"no end of it in:\n{tail(run.output)}")

    result = Result()
    result.add_part("kunit", _kunit(*part("kunit")))
    result.add_part("iommu-groups", _groups(*part("iommu-groups")))
    status, said = part("demo")
    result.add_part("demo", Result.one(status == 0, tail(said)))
    missing = [line for line in shown_demo() if line not in said]
    result.add_part("readme", Result.one(not missing, f"README.md shows of the demo what it does not print: {missing}"))
    result.add_part("exit-status", Result.one(run.status == STATUS, f"exit {STATUS} gave {run.status}\n{tail(run.output)}"))
    return run.with_console(result)


def time_out() -> Result:
    """`emu run` ends with 124 when time is up, and shows the console."""
    run = Emulated("time-out", [*REDBUD_HALF.options(), "--no-module", "--timeout", "10"], "sleep", "1000")
    said = "last lines of the console" in run.output
    result = Result.one(run.status == 124 and said, f"a time-out gave {run.status}\n{tail(run.output)}")
    result.boots.append(run.seconds)
    return result


def _next_kernel(check: str, leaves: str, *options: str) -> Result:
    run = Emulated(check, [*options, "--file", str(programs.selftests_dir()), "--file", str(kernel.HOST.image())],
                   "/files/selftests/kexec.sh", leaves)
    return run.with_console(Result.tallied(run.status, run.output))


def next_kernel() -> Result:
    """What a kernel that kexec starts finds of the maps of GPUs that the one before left, while a guest had one."""
    return _next_kernel("next-kernel", "guest")


def next_kernel_peer() -> Result:
    """The same, after Linux 5.10, which is what petitboot has."""
    return _next_kernel("next-kernel-5.10", "plain", "--kernel", str(linux_510.image()))


def _fuzz(name: str, *arguments: str, files: list[Path]) -> Result:
    options = [option for path in files for option in ("--file", str(path))]
    run = Emulated(name, [*REDBUD.options(), "--timeout", scaled(400), "--append", fuzz.COUNTED, "--file", str(programs.fuzz_binary()), *options],
                   "/files/nvlink2-fuzz", *arguments)
    return run.with_console(Result.one(run.status == 0, tail(run.output, 60)))


def fuzzer() -> Result:
    """A short run of what `make fuzz` runs for long, with other operations each day."""
    seed = f"{datetime.date.today():%Y%m%d}"
    # What fails today can be had again tomorrow.
    again = f"fuzz: seed {seed}; make fuzz SEED={seed} does the same operations again"
    say(again)
    result = _fuzz("fuzz", "run", "--seed", seed, "--ops", "20000", "--seconds", "30", "--partial", files=[])
    if result.failed:
        result.text += f"\n{again}"
    return result


def fuzz_reproducers() -> Result:
    """All that once broke something."""
    known = fuzz.reproducers()
    return _fuzz("fuzz-reproducers", "replay", *(f"/files/{path.name}" for path in known), files=known)


PURE = config.TREE / "src/pure"
KUNIT_SUITE = re.compile(r"kunit_tests\((\w+)\)")


def _kunit(status: int, output: str) -> Result:
    """The module's own tests of its pure logic, in the kernel; of each suite that its source has."""
    result = Result.tap(status, output)
    for suite in KUNIT_SUITE.findall("".join(path.read_text(encoding="utf-8") for path in PURE.glob("*.rs"))):
        said = re.search(rf"^(?:not )?ok \d+ {suite}\b", output, re.MULTILINE)
        result.add(Result.one(bool(said), f"no results of the suite {suite}"))
    return result


def _cargo_test(package: str) -> Result:
    with locked(f"cargo-{Path(package).name}"):
        done = procs.said(programs.cargo(package, "test", "--locked"))
    return Result.cargo(done.returncode, done.stdout)


def host() -> Result:
    """The same logic, on this machine."""
    return _cargo_test("tests/host")


def bench_report() -> Result:
    """What judges the measurements of `make bench`."""
    return _cargo_test("tests/bench/report")


def clients_program() -> Result:
    """How the program that runs real clients counts what their guests print."""
    return _cargo_test("tests/clients")


def emulib() -> Result:
    """What the checks themselves make of consoles, skipped tests and mutants."""
    done = procs.said([sys.executable, "-B", "-m", "unittest", "-v"], cwd=config.TREE / "tests/emulib",
                      env={**os.environ, "PYTHONPATH": str(config.TREE / "scripts")})
    return Result.unittest(done.returncode, done.stdout)


def nvlink2ctl() -> Result:
    """The host tool on this machine, on recordings of emulated hosts."""
    return _cargo_test("scripts/nvlink2ctl")


def models() -> Result:
    """Unit tests of the device models."""
    with locked("qtests"):
        done = in_root(["sh", f"{config.ROOT_TREE}/tests/qemu/run-qtests", qemu.BUILD])
    return Result.tap(done.returncode, done.stdout)


def machine() -> Result:
    """Tests of the machine description program, and of the tree that OPAL makes of its input."""
    done = in_root(["python3", "-m", "unittest", "-v", "test_machine"], "tests/qemu")
    result = Result.unittest(done.returncode, done.stdout)
    for name, (which, options) in TREES.items():
        tree = config.inner(boot.TREE_STEPS[which].ensured())
        done = in_root(["python3", "check_tree.py", "check", *options, f"expected/{name}", tree], "tests/qemu")
        result.add(Result.one(done.returncode == 0, f"{tail(done.stdout)}\nIf this change is meant: scripts/record trees"))
    tree = config.inner(boot.TREE_STEPS[REDBUD].ensured())
    done = in_root(["python3", "check_tree.py", "recording", RECORDING, tree], "tests/qemu")
    result.add(Result.one(done.returncode == 0, tail(done.stdout)))
    return result


def archive() -> Result:
    """What is fetched from where: the ways and their order, with archives of a few tiny packages."""
    done = procs.said([sys.executable, "-B", "-m", "unittest", "-v", "test_archive"], cwd=config.TREE / "tests/archive")
    return Result.unittest(done.returncode, done.stdout)


# What tests/nvlink2ctl-host/run.sh prints of a command that was to answer in JSON.
JSON = re.compile(r"^# json (.*?): (.*)$", re.MULTILINE)


def _all_json(output: str) -> Result:
    """Whether all that was to be JSON is: that of several commands."""
    said, wrong = JSON.findall(output), []
    for command, text in said:
        try:
            json.loads(text)
        except ValueError as error:
            wrong.append(f"nvlink2ctl --json {command}: {error}: {text[:200]}")
    return Result.one(bool(said) and not wrong, "\n".join(wrong) or "no command answered in JSON")


def _nvlink2ctl_host(machine: Machine) -> Check:
    def run() -> Result:
        gpus = str(machine.sockets)
        booted = Emulated(
            f"nvlink2ctl-{gpus}",
            [*machine.options(), "--file", str(programs.nvlink2ctl_binary()),
             "--file", str(config.TREE / "tests/nvlink2ctl-host"),
             "--file", str(programs.NVLINK2CTL / "tests/recordings")],
            "/files/nvlink2ctl-host/run.sh", "/files/nvlink2ctl", "/files/recordings", gpus,
        )
        result = Result.tap(booted.status, booted.output)
        result.add(_all_json(booted.output))
        return booted.with_console(result)

    return Check(f"nvlink2ctl-host-{machine.sockets}", run, NVLINK2CTL,
                 f"nvlink2ctl on a host with {machine.sockets} GPUs: what it says is there, what it changes is changed.")


# Whose headers the module is compiled with in turn, a day one. "4k" has not been seen to pass, and waits for that.
IN_TURN = ["gcc"]


def config_of(day: datetime.date) -> str:
    """The other configuration of the kernel whose turn it is on a day."""
    return IN_TURN[day.toordinal() % len(IN_TURN)]


def _compiled() -> Check:
    name = config_of(datetime.date.today())
    step = module.step(kernel.HEADERS[name])
    return Check("module-config", lambda: Result.one(step.path().exists(), f"there is no {step.path()}"), [step],
                 f"The module compiles with the headers of the kernel '{name}'.")


# A check of an emulated host is one boot, so that they can be run side by side. The longest come first.
CHECKS: list[Check] = [
    Check("selftests-sequoia", selftests_sequoia, SELFTESTS),
    Check("selftests-chip8", selftests_second_chip, SELFTESTS),
    *map(_selftests_check, PARTS),
    Check("selftests-uvm", selftests_uvm, SELFTESTS),
    Check("selftests-1chip", selftests_one_chip, SELFTESTS),
    Check("selftests-silicon", selftests_other_silicon, SELFTESTS),
    Check("selftests-hardware", selftests_hardware, SELFTESTS),
    Check("trial", trial, TRIAL),
    Check("trial-unbound", trial_unbound, TRIAL),
    Check("trial-firmware", trial_firmware, [*TRIAL, boot.TREE_STEPS[BAD]]),
    Check("empty-sockets", empty_sockets, [*SELFTESTS, programs.NVLINK2CTL_STEP, programs.DEMO_STEP]),
    *map(_nvlink2ctl_host, RECORDED),
    Check("fuzz", fuzzer, [*BOOT, programs.FUZZ_STEP]),
    *([Check("fuzz-reproducers", fuzz_reproducers, [*BOOT, programs.FUZZ_STEP])] if fuzz.reproducers() else []),
    *(_bad_firmware(*each) for each in FIRMWARE.items()),
    Check("models", models, [qemu.STEP]),
    Check("basics", basics, [*BOOT, programs.DEMO_STEP]),
    Check("archive", archive, [root.STEP]),
    Check("next-kernel", next_kernel, SELFTESTS),
    Check("pseries", pseries, SELFTESTS),
    Check("clients-program", clients_program, [root.STEP]),
    Check("emulib", emulib, [root.STEP]),
    Check("time-out", time_out, BOOT),
    Check("machine", machine, [boot.TREE_STEPS[which] for which in dict.fromkeys(which for which, _ in TREES.values())]),
    Check("nvlink2ctl", nvlink2ctl, [root.STEP]),
    Check("trial-program", trial_program, [root.STEP]),
    Check("host", host, [root.STEP]),
    Check("bench-report", bench_report, [root.STEP]),
    _compiled(),
]


def _side_by_side(checks: list[Check]) -> Result:
    """A long check that is the sum of others, as many boots side by side as there are cores."""
    total = Result()
    with concurrent.futures.ThreadPoolExecutor(config.jobs()) as pool:
        running = {pool.submit(check.run): check.name for check in checks}
        for done in concurrent.futures.as_completed(running):
            say(f"{running[done]}: {done.result().line()}")
            total.add_part(running[done], done.result())
    return total


def bad_firmware_all() -> Result:
    """All kinds of bad firmware in boots."""
    return _side_by_side([_bad_firmware("-".join(mutations), mutations) for mutations in firmware_sets()])


def orders() -> Result:
    """All selftests with smaller pages."""
    return _side_by_side([_order(order) for order in ORDERS])


LONG_CHECKS = [Check("orders", orders, SELFTESTS),
               _configured("gcc", "that GCC compiled, with iommufd as a module"),
               _configured("4k", "with pages of 4 KiB, iommufd and versions of symbols"),
               Check("bad-firmware-all", bad_firmware_all, [*SELFTESTS, boot.TREE_STEPS[BAD]]),
               Check("next-kernel-5.10", next_kernel_peer, [*SELFTESTS, linux_510.STEP]),
               Check("trial-5.10", trial_series, [*TRIAL, linux_510.STEP]),
               Check("trial-untrained", trial_untrained, TRIAL),
               Check("trial-guest", trial_guest, [*TRIAL, clients.STEP])]


def _named(*names: str) -> list[Check]:
    return [check for check in CHECKS if check.name in names]


# Names of several, and of what a boot does for several.
SUMS = {
    "bad-firmware": _named(*(f"bad-firmware-{name}" for name in FIRMWARE)),
    "nvlink2ctl-host": _named(*(f"nvlink2ctl-host-{machine.sockets}" for machine in RECORDED)),
    "exit-status": _named("basics", "time-out"),
    **{name: _named("basics") for name in BASICS},
}
