# SPDX-License-Identifier: GPL-2.0
"""Mutants of the driver: does a test notice when a check is missing?"""

import concurrent.futures
import queue
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import config, enter, files, kernel, module, procs, programs
from .config import Failure
from .report import tail
from .step import Log, say

MUTANTS = config.TREE / "tests/mutants.toml"
README = config.TREE / "tests/README.md"
HOST = "host"
# One boot with the slowest of the programs, beside another.
SECONDS = 600
# With a module that cannot be loaded every test fails, which says nothing of the check that it lacks.
RUN = 'insmod "$NVLINK2_KO" && exec /files/selftests/run.sh "$@"'
NOT_OK = re.compile(r"^not ok \d+ (\S+)", re.MULTILINE)
HOST_FAILED = re.compile(r"^test (\S+) \.\.\. FAILED", re.MULTILINE)


@dataclass
class Mutant:
    """One change of one file, and the test that has to fail for it."""

    name: str
    file: str
    old: str
    new: str
    run: list[str] = field(default_factory=list)
    red: str = ""
    gpus: int = 6

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


def table(mutants: list[Mutant]) -> str:
    """The rows of tests/README.md."""
    return "".join(f"| {m.name} | `{m.file}` | {', '.join(m.run)}: {m.red} |\n" for m in mutants)


def complaints() -> list[str]:
    """What does not fit the sources, or is not in tests/README.md."""
    found = []
    readme = README.read_text(encoding="utf-8")
    for mutant in load():
        try:
            mutant.change((config.TREE / mutant.file).read_text(encoding="utf-8"))
        except (Failure, OSError) as error:
            found.append(str(error))
        if table([mutant]) not in readme:
            found.append(f"tests/README.md has no row for it: {table([mutant]).strip()} (emu mutate --table)")
    return found


def _copy(home: Path, folders: list[str]) -> Path:
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


def _on_host(mutant: Mutant, home: Path) -> tuple[int, str]:
    """Run tests/host on the mutant."""
    tree = _copy(home, ["src/pure", "tests/host", "tests/qemu/expected", "tests/selftests/bad_firmware.tsv"])
    mutant.apply(tree)
    done = procs.said(enter.inside(
        ["cargo", "test", "--locked"], workdir=config.inner(tree / "tests/host"),
        env={**programs.CARGO_ENV, "CARGO_TARGET_DIR": config.inner(home / "target")}, network=True))
    return done.returncode, done.stdout


def _in_emulated_host(mutant: Mutant, home: Path) -> tuple[int, str]:
    """Build the mutant and run selftests with it in a host of its own."""
    tree = _copy(home, module.INPUTS)
    mutant.apply(tree)
    build = home / "build"
    build.mkdir(exist_ok=True)
    with Log(f"mutant-{home.name}", home / "build.log") as log:
        log.run(enter.inside(["make", "-C", kernel.HOST.build, "ARCH=powerpc", "LLVM=-19",
                             f"M={config.inner(tree)}", f"MO={config.inner(build)}", "modules"]),
                remedy=f"The mutant '{mutant.name}' does not compile.")
    binary = build / module.STEP.path().name
    done = procs.said(
        [sys.executable, str(config.TREE / "scripts/emu"), "run", "--gpus", str(mutant.gpus), "--no-module",
         "--timeout", str(SECONDS), "--file", str(binary), "--file", str(programs.selftests_dir()), "--",
         "env", f"NVLINK2_KO=/files/{binary.name}", "sh", "-c", RUN, "sh", *mutant.run],
    )
    return done.returncode, done.stdout


def _try(mutant: Mutant, homes: "queue.Queue[Path]") -> tuple[Mutant, bool, str]:
    """Whether the test that has to notice does, and what was seen."""
    home = homes.get()
    try:
        if mutant.run == [HOST]:
            status, output = _on_host(mutant, home)
            failed = HOST_FAILED.findall(output)
        else:
            status, output = _in_emulated_host(mutant, home)
            failed = NOT_OK.findall(output)
    except Failure as failure:
        return mutant, False, str(failure)
    finally:
        homes.put(home)
    if any(name == mutant.red or name.endswith((f".{mutant.red}", f"::{mutant.red}")) for name in failed):
        return mutant, True, ", ".join(failed)
    if failed:
        return mutant, False, f"red are {', '.join(failed)}, not {mutant.red}"
    if status == 0:
        return mutant, False, "SURVIVED"
    return mutant, False, f"status {status}\n{tail(output, 20)}"


def run(only: str) -> int:
    """Try the mutants whose name contains `only`; fail for one that is not noticed as it has to be."""
    mutants = [mutant for mutant in load() if only.lower() in mutant.name.lower()]
    if not mutants:
        raise Failure(f"no mutant's name contains '{only}'")
    folder = config.cache_dir() / "mutants"
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
        for done in concurrent.futures.as_completed([pool.submit(_try, mutant, homes) for mutant in mutants]):
            mutant, red, text = done.result()
            bad += not red
            print(f"{'red ' if red else 'FAIL'} {mutant.name}: {text}", flush=True)
    say(f"mutate: {len(mutants) - bad} of {len(mutants)} mutants are noticed")
    return 1 if bad else 0
