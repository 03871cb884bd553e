# SPDX-License-Identifier: GPL-2.0
"""What the original C driver, on Linux 5.10, and this one leave behind."""

import dataclasses
import io
import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..build import linux_510, programs
from ..build.config import Failure
from ..build.step import say
from . import boot, machines

@dataclass
class Seen:
    """What one driver left behind: defects and subject of each observation, and what was seen."""

    host: str
    rows: dict[tuple[str, str], str]
    # The observations that need bad firmware.
    bad: set[tuple[str, str]]


# The original lets accesses of GPU RAM through that nobody answers: the host has to survive that to be looked at.
MACHINE = dataclasses.replace(machines.REDBUD_HALF, dead_access="ones")

# Boots of the program: its argument, and the mutations of firmware that it stands for.
BOOTS: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["no-atsd"], ["npu0-atsd-missing"]),
    (["one-atsd"], ["npu0-atsd-short"]),
    (["bad-links"], ["bridge3-tgt-missing"]),
    (["no-link"], ["bridge4-nvlink-missing"]),
]


def _look(linux: Path | None) -> Seen:
    """Run tests/selftests/left_behind on our kernel, or another."""
    seen = Seen("", {}, set())
    for arguments, mutations in BOOTS:
        host = boot.Host(machine=MACHINE, kernel=linux, files=[programs.selftests_dir() / "left_behind", programs.SPLATS],
                         mutations=mutations, timeout=300)
        output = io.BytesIO()
        status = boot.run(host, ["/files/left_behind", *arguments], output)
        text = output.getvalue().decode(errors="replace")
        said = re.search(r"^# (\S+ on Linux \S+)$", text, re.MULTILINE)
        if status or not said:
            raise Failure(f"left_behind ended with status {status}:\n{text}")
        seen.host = said[1]
        for line in text.splitlines():
            if len(cells := line.split(" | ")) == 3:
                seen.rows[cells[0], cells[1]] = cells[2]
                if mutations:
                    seen.bad.add((cells[0], cells[1]))
            elif line.startswith("# ") and said[1] not in line:
                say(f"{said[1]}: {line[2:]}")
    return seen


def guards(defects: str, bad_firmware: bool) -> str:
    """The selftests that have a case "defect_N_..." for one of `defects` ("6, 8").

    Those of bad firmware are one program, whose cases are properties of the device tree.
    """
    pattern = re.compile(rf"\bdefect_(?:{'|'.join(defects.split(', '))})_")
    tests = sorted(programs.SELFTESTS.glob("*.c"))
    found = [test.stem for test in tests if pattern.search(test.read_text(encoding="utf-8"))]
    return ", ".join(dict.fromkeys([*found, *(["bad_firmware"] if bad_firmware else [])]))


WIDTHS = (6, 38, 26, 26, 14)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A simple table of reStructuredText."""
    border = "  ".join("=" * width for width in WIDTHS)
    lines = [border]
    for row in [head, *rows]:
        cells = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, WIDTHS)]
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(texts, WIDTHS)).rstrip()
            for texts in itertools.zip_longest(*cells, fillvalue="")
        ]
        # A blank line keeps rows apart for the eye; the table goes on.
        lines.append(border if row is head else "")
    lines[-1] = border
    return "\n".join(lines)


def compare() -> int:
    """Print what the original and this driver leave behind, side by side."""
    peer = _look(linux_510.image())
    ours = _look(None)
    nothing = "not seen"
    rows = [
        (key[0], key[1], peer.rows.get(key, nothing), ours.rows.get(key, nothing),
         guards(key[0], key in peer.bad | ours.bad))
        for key in dict.fromkeys([*peer.rows, *ours.rows])
    ]
    print(_table(("Defect", "What is looked at", peer.host, ours.host, "Guarded by"), rows))
    return 0
