# SPDX-License-Identifier: GPL-2.0
"""What emulated hosts look like, kept in the tree: the tests see by it what a change of the machine changes."""

import argparse
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

from . import cli
from .build import config, enter, procs, programs
from .build.config import Failure
from .build.step import say
from .checks import tests
from .host import boot
from .host.machines import REDBUD, REDBUD_HALF, Machine

# Between the two recordings of one boot.
MARK = "\n-- bound --\n"
RECORD = f"""
set -e
/files/nvlink2ctl record
printf '{MARK}'
/files/nvlink2ctl bind --all >/dev/null
/files/nvlink2ctl record
"""
# A report, without what the program says while it works, in both forms.
TEXT = "-- as text --\n"
TRIAL = f"""
set -e
/files/nvlink2-trial --yes --json --brief 2>/dev/null
printf '{TEXT}'
/files/nvlink2-trial --show nvlink2-trial-report.json --brief
"""
TREES = config.TREE / "tests/qemu/expected"


def _with_an_empty_socket() -> str:
    """What nvlink2ctl reads of a Redbud that lacks one of its cards."""
    said = io.BytesIO()
    machine = Machine(REDBUD.board, REDBUD.chips, empty=("GPU1",))
    status = boot.run(boot.Host(machine=machine, files=[programs.nvlink2ctl_binary()], timeout=300),
                      ["/files/nvlink2ctl", "record"], said)
    text = said.getvalue().decode()
    if status:
        raise Failure(f"record: the emulated host with an empty socket ended with status {status}:\n{text}")
    json.loads(text)
    return text


def nvlink2ctl() -> Iterator[tuple[Path, str]]:
    """What nvlink2ctl reads of a host, before and after `bind --all`."""
    cli.ensure([*cli.FOR_BOOT, programs.NVLINK2CTL_STEP])
    for machine in tests.RECORDED:
        gpus = machine.sockets
        said = io.BytesIO()
        status = boot.run(boot.Host(machine=machine, files=[programs.nvlink2ctl_binary()], timeout=300),
                          ["sh", "-c", RECORD], said)
        before, mark, after = said.getvalue().decode().partition(MARK)
        if status or not mark:
            raise Failure(f"record: the emulated host with {gpus} GPUs ended with status {status}:\n{said.getvalue().decode()}")
        for name, text in (("gpus", before), ("bound", after)):
            # What is not a recording is better found here than in a test.
            json.loads(text)
            yield programs.NVLINK2CTL / f"tests/recordings/{gpus}-{name}.json", text
    yield programs.NVLINK2CTL / f"tests/recordings/{REDBUD.sockets}-empty.json", _with_an_empty_socket()


def trees() -> Iterator[tuple[Path, str]]:
    """The NVLink2 part of the device tree that OPAL makes, and what can be done to it."""
    cli.ensure(cli.FOR_BOOT)
    for name, (machine, options) in tests.TREES.items():
        tree = config.inner(boot.TREE_STEPS[machine].ensured())
        done = procs.run(enter.inside(["python3", "check_tree.py", "print", *options, tree],
                                      workdir=f"{config.ROOT_TREE}/tests/qemu"), capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"record: check_tree.py: {done.stderr}")
        path = TREES / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        head = [line for line in old.splitlines(keepends=True) if line.startswith("#")]
        yield path, "".join(head) + done.stdout


def trial() -> Iterator[tuple[Path, str]]:
    """The example of a report in the documents, without logs."""
    cli.ensure([*cli.FOR_BOOT, programs.TRIAL_STEP])
    said = io.BytesIO()
    factor = config.time_factor()
    status = boot.run(boot.Host(machine=dataclasses.replace(REDBUD_HALF, hide_model=True), files=programs.trial_files(), timeout=1500 * factor),
                      ["env", f"NVLINK2_TIME_FACTOR={factor}", "sh", "-c", TRIAL], said)
    report, mark, text = said.getvalue().decode().partition(TEXT)
    if status or not mark:
        raise Failure(f"record: nvlink2-trial ended with status {status}:\n{said.getvalue().decode()}")
    json.loads(report)
    yield config.TREE / "Documentation/trial-report.json", report
    yield config.TREE / "Documentation/trial-report.txt", text


KINDS = {"nvlink2ctl": nvlink2ctl, "trees": trees, "trial": trial}


def main() -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="record", description="Make recordings of emulated hosts again, in the project's tree: "
        + "; ".join(f"{name}: {make.__doc__}" for name, make in KINDS.items())
        + " Look at what 'git diff' says of them before you commit them.",
    )
    parser.add_argument("kind", nargs="*", choices=[[], *KINDS], metavar="KIND",
                        help=f"{' or '.join(KINDS)} (default: all)")
    options = parser.parse_args()

    def work() -> int:
        for kind in options.kind or KINDS:
            for path, text in KINDS[kind]():
                same = path.exists() and path.read_text(encoding="utf-8") == text
                path.write_text(text, encoding="utf-8")
                say(f"record: {path.relative_to(config.TREE)}: {'as it was' if same else 'changed'}")
        return 0

    return cli.guarded("record", work)
