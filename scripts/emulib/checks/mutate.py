# SPDX-License-Identifier: GPL-2.0
"""Mutants of the driver and of the kernel series: does a test notice when a check is missing?"""

import concurrent.futures
import datetime
import queue
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..build import config, enter, files, initrd, kernel, module, procs, programs, qemu, series
from ..build.config import Failure
from ..build.step import Log, locked, say
from ..host import boot
from .report import Check, Result, tail

MUTANTS = config.TREE / "tests/mutants.toml"
README = config.TREE / "tests/README.md"
HOST = "host"
# One boot with the slowest of the programs, beside another.
SECONDS = 600
# What has nothing to do with the mutant, so that it has to be green; a program's name and a test of it.
GREEN = "region_info: gpu_says_what_the_device_tree_says"
GREEN_ON_HOST = f"{HOST}: cells::tests::most_significant_byte_comes_first"
# With a module that cannot be loaded every test fails, which says nothing of the check that it lacks. A kernel that
# is given loads nothing by itself.
RUN = "".join(f"modprobe {name} && " for name in initrd.MODULES) + \
    'insmod "$NVLINK2_KO" && exec /files/selftests/run.sh "$@"'

PROGRAM = re.compile(r"^# (\w+)$")
OK = re.compile(r"^ok \d+ (\S+)(?!.*# SKIP)")
# Of what run.sh itself judges there is no number.
NOT_OK = re.compile(r"^not ok (?:\d+ |- (?=kernel log$))(\S+(?: log)?)")
BEGUN = re.compile(r"^#\s+RUN\s+(\S+) \.\.\.")
ON_HOST = re.compile(r"^test (\S+) \.\.\. (ok|FAILED)$", re.MULTILINE)


@dataclass
class Seen:
    """What a run's programs said, as (program, test)."""

    status: int
    output: str
    ok: set[tuple[str, str]] = field(default_factory=set)
    failed: set[tuple[str, str]] = field(default_factory=set)
    begun: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of_selftests(cls, status: int, output: str) -> "Seen":
        """What run.sh printed."""
        seen, program = cls(status, output), ""
        for line in output.splitlines():
            if match := PROGRAM.match(line):
                program = match[1]
            for pattern, tests in ((OK, seen.ok), (NOT_OK, seen.failed), (BEGUN, seen.begun)):
                if match := pattern.match(line):
                    tests.add((program, match[1]))
        return seen

    @classmethod
    def of_cargo(cls, status: int, output: str) -> "Seen":
        """What `cargo test` printed."""
        found = ON_HOST.findall(output)
        return cls(status, output, {(HOST, name) for name, verdict in found if verdict == "ok"},
                   {(HOST, name) for name, verdict in found if verdict != "ok"})


def _has(tests: Iterable[tuple[str, str]], programs_run: Iterable[str], name: str) -> bool:
    """Whether the test `name` of one of the programs is there; the fixture or module that it is in is not named."""
    return any(program in programs_run and (test == name or test.endswith((f".{name}", f"::{name}")))
               for program, test in tests)


# What run.sh calls the test that there is no splat.
KERNEL_LOG = "kernel log"


@dataclass
class Mutant:
    """One change of one file, and the test that has to fail for it."""

    name: str
    file: str
    old: str
    new: str
    run: list[str] = field(default_factory=list)
    red: str = ""
    green: str = ""
    gpus: int = 4
    # The patch of the series that it takes something out of: the beginning of its name without the number.
    patch: str = ""
    # Whether the host ends, or hangs, in the test that has to notice.
    ends: bool = False
    # Whether somebody has seen it.
    seen: bool = True

    def __post_init__(self) -> None:
        self.green = self.green or (GREEN_ON_HOST if self.run == [HOST] else GREEN)

    @property
    def green_test(self) -> tuple[str, str]:
        """Program and name of the test that has to be green."""
        program, _, name = self.green.partition(": ")
        return program, name

    @property
    def programs(self) -> list[str]:
        """All that it runs; first what has to be green, as the mutant may be the host's end."""
        program, green = self.green_test
        return self.run if program in self.run else [f"{program}:{green}", *self.run]

    @property
    def names(self) -> list[str]:
        """The programs among which is the test that has to be red."""
        return [choice.partition(":")[0] for choice in self.run]

    def source(self) -> Path:
        """The file that it changes."""
        return (kernel.STEP.home() / "linux" if self.patch else config.TREE) / self.file

    def baseline(self, seen: Seen) -> str:
        """What is wrong with the tests on the unchanged driver and kernel, or nothing."""
        program, green = self.green_test
        missing = [name for programs_run, name in ((self.names, self.red), ([program], green))
                   if not _has(seen.ok, programs_run, name) and name != KERNEL_LOG]
        if missing:
            return f"without the mutant {' and '.join(missing)} did not pass"
        return "without the mutant the kernel's log has a splat" if _has(seen.failed, self.names, KERNEL_LOG) else ""

    def verdict(self, seen: Seen) -> tuple[bool, str]:
        """Whether it is noticed as it has to be, and what was seen."""
        program, green = self.green_test
        failed = ", ".join(sorted(name for _, name in seen.failed))
        if not _has(seen.ok, [program], green):
            return False, f"{self.green} is not green; red are: {failed}\nstatus {seen.status}\n{tail(seen.output, 20)}"
        if _has(seen.failed, self.names, self.red):
            return True, failed
        if self.ends and seen.status in (boot.HOST_DIED, boot.TIMED_OUT) and _has(seen.begun, self.names, self.red) \
                and not _has(seen.ok, self.names, self.red):
            return True, f"the host ended in {self.red}" + (f"; red are {failed}" if failed else "")
        if failed:
            return False, f"red are {failed}, not {self.red}"
        if seen.status == 0:
            return False, "SURVIVED"
        return False, f"status {seen.status}\n{tail(seen.output, 20)}"

    def change(self, text: str) -> str:
        """The file with the change; a change that fits nowhere, or twice, is none."""
        old, new = self.old.removeprefix("\n"), self.new.removeprefix("\n")
        if text.count(old) != 1:
            raise Failure(f"mutant '{self.name}': what it changes is {text.count(old)} times in {self.file}; "
                          f"bring {MUTANTS.relative_to(config.TREE)} up to date")
        return text.replace(old, new)

    def apply(self, tree: Path) -> None:
        """Change the file in a copy of the project's tree."""
        path = tree / self.file
        path.write_text(self.change(path.read_text(encoding="utf-8")), encoding="utf-8")


def load() -> list[Mutant]:
    """All mutants."""
    with open(MUTANTS, "rb") as file:
        return [Mutant(**entry) for entry in tomllib.load(file)["mutant"]]


def without() -> dict[str, str]:
    """The patches that have no mutant, by the beginning of their names, and why."""
    with open(MUTANTS, "rb") as file:
        return tomllib.load(file)["without"]


def table(mutants: list[Mutant]) -> str:
    """The rows of tests/README.md."""
    return "".join(
        f"| {m.name} | `{m.file}` | {', '.join(m.names)}: {m.red}"
        f"{', in which the host ends' if m.ends else ''}{'' if m.seen else ' (not yet seen)'} |\n"
        for m in mutants
    )


def of_patches(mutants: list[Mutant], excused: Iterable[str], names: Iterable[str]) -> list[str]:
    """What is wrong with which patches have mutants; `names` are the patches', without their numbers."""
    found = []
    claimed: dict[str, list[str]] = {name: [] for name in names}
    for what, beginning in [*((f"mutant '{m.name}'", m.patch) for m in mutants if m.patch),
                            *(("[without]", beginning) for beginning in excused)]:
        fits = [name for name in claimed if name.startswith(beginning)]
        if len(fits) != 1:
            found.append(f"{what}: '{beginning}' is the beginning of {len(fits)} patches' names")
        for name in fits:
            claimed[name].append(what)
    for name, by in claimed.items():
        if not by:
            found.append(f"no mutant is of the patch {name}, and [without] says no reason")
        elif len(set(by)) > 1 and "[without]" in by:
            found.append(f"{name} has a mutant, and is in [without]")
    return found


def complaints() -> list[str]:
    """What does not fit the sources, or is not in tests/README.md."""
    found = of_patches(load(), without(), map(series.name, series.patches()))
    readme = README.read_text(encoding="utf-8")
    for mutant in load():
        program, green = mutant.green_test
        if not green or (green == mutant.red and program in mutant.names):
            found.append(f"mutant '{mutant.name}': 'green' has to be another test than 'red', with its program")
        try:
            mutant.change(mutant.source().read_text(encoding="utf-8"))
        except (Failure, OSError) as error:
            found.append(str(error))
        if table([mutant]) not in readme:
            found.append(f"tests/README.md has no row for it: {table([mutant]).strip()} (emu mutate --table)")
    return found


def copied(home: Path, folders: list[str]) -> Path:
    """A copy of parts of the project's tree, of which unchanged files keep their dates."""
    tree = home / "tree"
    for name in folders:
        source = config.TREE / name
        if source.is_dir():
            shutil.copytree(source, tree / name, dirs_exist_ok=True, symlinks=True,
                            ignore=shutil.ignore_patterns("target", "*.o", "*.ko", "*.cmd", "*.mod*"))
        else:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name)
    return tree


def _on_host(mutant: Mutant | None, home: Path) -> Seen:
    """Run tests/host on the mutant, or on what is there."""
    tree = copied(home, ["src/pure", "tests/host", "tests/qemu/expected", "tests/selftests/bad_firmware.tsv"])
    if mutant:
        mutant.apply(tree)
    done = procs.said(enter.inside(
        ["cargo", "test", "--locked"], workdir=config.inner(tree / "tests/host"),
        env={**programs.CARGO_ENV, "CARGO_TARGET_DIR": config.inner(home / "target")}, network=True))
    return Seen.of_cargo(done.returncode, done.stdout)


def _module_of(mutant: Mutant, home: Path) -> Path:
    """Build the mutant of the driver."""
    tree = copied(home, module.INPUTS)
    mutant.apply(tree)
    build = home / "build"
    build.mkdir(exist_ok=True)
    with Log(f"mutant-{home.name}", home / "build.log") as log:
        log.run(enter.inside(["make", "-C", kernel.HOST.build, "ARCH=powerpc", "LLVM=-19",
                             f"M={config.inner(tree)}", f"MO={config.inner(build)}", "modules"]),
                remedy=f"The mutant '{mutant.name}' does not compile.")
    return build / module.STEP.path().name


def _kernel_of(mutant: Mutant, home: Path) -> list[str]:
    """Build the mutant of the kernel in a build folder of the home's own; the options that boot it.

    In the root, the folder and the changed files lie over those that everything else is built of, so that all paths
    are as they were and little is built anew.
    """
    build, changed, install = home / "kernel", home / "changed", home / "install"
    if not build.exists():
        fresh = home / "kernel.new"
        files.remove(fresh)
        procs.run(["cp", "-a", "--reflink=auto", str(kernel.STEP.home() / "build"), str(fresh)], check=True)
        fresh.rename(build)
    target = changed / mutant.file
    target.parent.mkdir(parents=True, exist_ok=True)
    # What earlier mutants changed has a new date when it is as it was again, or make would keep their objects.
    for path in [path for path in changed.rglob("*") if path.is_file()]:
        text = (kernel.STEP.home() / "linux" / path.relative_to(changed)).read_text(encoding="utf-8")
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    target.write_text(mutant.change(mutant.source().read_text(encoding="utf-8")), encoding="utf-8")
    over = {config.inner(build): kernel.HOST.build}
    for path in changed.rglob("*"):
        if path.is_file():
            over[config.inner(path)] = f"{kernel.HOST.source}/{path.relative_to(changed)}"
    with Log(f"mutant-{home.name}", home / "build.log") as log:
        log.run(enter.inside(["bash", "-euc", f"""
            {kernel.HOST.make} vmlinux modules
            rm -rf {config.inner(install)}
            {kernel.HOST.make} INSTALL_MOD_PATH={config.inner(install)} modules_install
            cd {config.inner(install)}
            find lib -name '*.ko' | cpio --quiet -o -H newc -R 0:0 > {config.inner(home)}/modules.cpio
        """], over=over), remedy=f"The mutant '{mutant.name}' does not compile.")
    with open(home / "initrd", "wb") as whole:
        whole.write(initrd.base(kernel.HOST).read_bytes())
        # An archive starts at a multiple of four bytes.
        whole.write(bytes(-whole.tell() % 4))
        whole.write((home / "modules.cpio").read_bytes())
    return ["--kernel", str(build / "vmlinux"), "--initrd", str(home / "initrd")]


def boot_selftests(binary: Path, gpus: int, names: list[str], *options: str) -> Seen:
    """Run selftests with this module in an emulated host of their own."""
    # A lost access is counted, so that a test can tell of it, and is not the host's end.
    done = procs.said(
        [sys.executable, str(config.TREE / "scripts/emu"), "run", "--gpus", str(gpus), "--dead-access", "ones", "--no-module",
         "--timeout", str(SECONDS * config.time_factor() * max(1, len(names) // 4)), *options,
         "--file", str(binary), "--file", str(programs.selftests_dir()), "--",
         "env", f"NVLINK2_KO=/files/{binary.name}", f"NVLINK2_TIME_FACTOR={config.time_factor()}",
         "sh", "-c", RUN, "sh", *names],
    )
    return Seen.of_selftests(done.returncode, done.stdout)


def _try(mutant: Mutant, homes: "queue.Queue[Path]") -> tuple[bool, str]:
    """Whether the test that has to notice does, and what was seen."""
    home = homes.get()
    try:
        if mutant.run == [HOST]:
            return mutant.verdict(_on_host(mutant, home))
        if mutant.patch:
            options = _kernel_of(mutant, home)
            return mutant.verdict(boot_selftests(module.STEP.path(), mutant.gpus, mutant.programs, *options))
        return mutant.verdict(boot_selftests(_module_of(mutant, home), mutant.gpus, mutant.programs))
    except Failure as failure:
        return False, str(failure)
    finally:
        homes.put(home)


# A run without a mutant: on this machine (0), or in an emulated host with so many GPUs.
def _baseline(gpus: int, names: list[str], homes: "queue.Queue[Path]") -> Seen:
    if gpus:
        return boot_selftests(module.STEP.path(), gpus, names)
    home = homes.get()
    try:
        return _on_host(None, home)
    finally:
        homes.put(home)


def _machine(mutant: Mutant) -> int:
    """Which baseline is the mutant's."""
    return 0 if mutant.run == [HOST] else mutant.gpus


def chosen(mutants: list[Mutant], only: str, part: str) -> list[Mutant]:
    """The mutants whose name or file contains `only`, and of those each Nth from the Kth on if `part` is K/N."""
    found = [mutant for mutant in mutants if only.lower() in f"{mutant.name}\0{mutant.file}".lower()]
    if part:
        first, _, step = part.partition("/")
        if not (first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
            raise Failure(f"'{part}' is no part of the mutants: K/N, with K from 1 to N")
        found = found[int(first) - 1::int(step)]
    if not found:
        raise Failure(f"no mutant's name or file contains '{only}'" + (f", or none is in part {part}" if part else ""))
    return found


# So many that one fits into the time that CI has for a long check: some 11 mutants each, 3 of them kernels.
PARTS = 12
# Days until it is their turn again: the length of check.ROTATION.
TURN = 17


def part_of(day: datetime.date) -> str:
    """The part of the mutants for a day; another one each time that it is their turn in CI, which is not each day."""
    return f"{day.toordinal() // TURN % PARTS + 1}/{PARTS}"


def of_today() -> Result:
    """One of a few parts of the mutants, another each time: a test has to notice each of them."""
    part = part_of(datetime.date.today())
    return Result.one(run("", part) == 0, f"scripts/emu mutate --part {part} says what was not noticed")


def run(only: str, part: str = "") -> int:
    """Try the chosen mutants; fail for one that is not noticed as it has to be, or whose tests fail without it."""
    # Its builds are in the checkout's scratch folder.
    with locked(f"mutants-{config.checkout()}"):
        return _run(chosen(load(), only, part))


def _run(mutants: list[Mutant]) -> int:
    folder = config.scratch() / "mutants"
    # What was built for an earlier kernel is not built again for this one.
    files.remove(folder)
    folder.mkdir()
    homes: "queue.Queue[Path]" = queue.Queue()
    for number in range(config.jobs()):
        home = folder / str(number)
        home.mkdir(exist_ok=True)
        homes.put(home)
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(config.jobs()) as pool:
        say(f"mutate: {len(mutants)} mutants; first their tests without any")
        machines = {gpus: sorted({name for m in mutants if _machine(m) == gpus for name in m.programs})
                    for gpus in {_machine(m) for m in mutants}}
        waiting = {gpus: pool.submit(_baseline, gpus, names, homes) for gpus, names in machines.items()}
        seen = {gpus: future.result() for gpus, future in waiting.items()}
        trying = {}
        for mutant in mutants:
            if wrong := mutant.baseline(seen[_machine(mutant)]):
                bad += 1
                print(f"FAIL {mutant.name}: {wrong}", flush=True)
            else:
                trying[pool.submit(_try, mutant, homes)] = mutant
        for done in concurrent.futures.as_completed(trying):
            red, text = done.result()
            bad += not red
            print(f"{'red ' if red else 'FAIL'} {trying[done].name}: {text}", flush=True)
    say(f"mutate: {len(mutants) - bad} of {len(mutants)} mutants are noticed")
    return 1 if bad else 0


CHECKS = [Check("mutants-run", of_today, [qemu.STEP, initrd.STEP, programs.SELFTESTS_STEP])]
