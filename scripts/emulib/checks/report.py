# SPDX-License-Identifier: GPL-2.0
"""Results of checks, from what test programs print."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..build.step import Step

TALLY = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)
TAP = re.compile(r"^\s*(not ok|ok)\b(?:[^#\n]*)(#\s*SKIP)?", re.MULTILINE | re.IGNORECASE)
PLAN = re.compile(r"^\s*1\.\.(\d+)", re.MULTILINE)

PROGRESS = re.compile(r"^ok\b(?!.*# SKIP)|^#\s+(?:RUN|OK) |^TAP version|^1\.\.|^# (?:Starting|Totals|PASSED|\w+ took)")
CARGO = re.compile(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
UNITTEST = re.compile(r" \.\.\. (ok|FAIL|ERROR|skipped.*)$", re.MULTILINE)


@dataclass
class Result:
    """What one check found; `text` explains failures and skips.

    `boots` has the seconds of each emulated host, `parts` what is counted here of tests with names of their own.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    text: str = ""
    boots: list[float] = field(default_factory=list)
    parts: dict[str, "Result"] = field(default_factory=dict)

    @classmethod
    def one(cls, passed: bool, text: str = "") -> "Result":
        """The result of a check that is a single test."""
        return cls(int(passed), int(not passed), 0, text)

    @classmethod
    def tallied(cls, status: int, output: str) -> "Result":
        """The result of a program that ends with `N passed, N failed[, N skipped]`.

        A program that failed without saying so, or that ran nothing, has failed.
        """
        tallies = TALLY.findall(output)
        if not tallies:
            return cls.one(False, f"exit status {status}, no tally\n{tail(output)}")
        passed, failed, skipped = (int(number or 0) for number in tallies[-1])
        if failed == 0 and (status != 0 or passed == 0):
            return cls(passed, 1, skipped, f"exit status {status}\n{tail(output)}")
        # Of all that a suite says, a person wants what failed and why.
        lines = [line for line in output.splitlines() if not PROGRESS.search(line)]
        return cls(passed, failed, skipped, tail("\n".join(lines), 120) if failed or skipped else "")

    @classmethod
    def tap(cls, status: int, output: str) -> "Result":
        """The result of a program that prints TAP, with its plan, or several one after the other."""
        found = TAP.findall(output)
        planned = sum(map(int, PLAN.findall(output)))
        skipped = sum(1 for _, skip in found if skip)
        failed = sum(1 for verdict, skip in found if verdict.lower() == "not ok" and not skip)
        passed = len(found) - skipped - failed
        result = cls._sum(status, output, [(passed, failed, skipped)])
        if planned != len(found):
            result.failed += 1
            result.text = f"{result.text or tail(output)}\n{len(found)} tests of {planned} that were planned"
        return result

    @classmethod
    def cargo(cls, status: int, output: str) -> "Result":
        """The result of `cargo test`."""
        return cls._sum(status, output, CARGO.findall(output))

    @classmethod
    def unittest(cls, status: int, output: str) -> "Result":
        """The result of Python's `unittest -v`."""
        verdicts = UNITTEST.findall(output)
        count = verdicts.count("ok"), len([v for v in verdicts if v in ("FAIL", "ERROR")]), \
            len([v for v in verdicts if v.startswith("skipped")])
        return cls._sum(status, output, [count])

    @classmethod
    def _sum(cls, status: int, output: str, counts: list[tuple]) -> "Result":
        """A sum of (passed, failed, skipped); a run of nothing has failed."""
        passed, failed, skipped = (sum(int(count[i]) for count in counts) for i in range(3)) \
            if counts else (0, 0, 0)
        if failed == 0 and (status != 0 or passed == 0):
            failed = 1
        return cls(passed, failed, skipped, tail(output, 120) if failed or skipped else "")

    def line(self) -> str:
        """The closing line that CI reads."""
        text = f"{self.passed} passed, {self.failed} failed"
        return f"{text}, {self.skipped} skipped" if self.skipped else text

    def add(self, other: "Result") -> None:
        """Count another result with this one."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.boots += other.boots
        if other.failed or other.skipped:
            self.text = "\n".join(text for text in (self.text, other.text) if text)


    def add_part(self, name: str, part: "Result") -> None:
        """Count a result with this one under a name of its own."""
        if part.text:
            part.text = f"{name}:\n{part.text}"
        self.parts[name] = part
        self.add(part)


@dataclass
class Check:
    """A named check; `needs` are the steps whose products it takes, and `what` is a line about it."""

    name: str
    run: Callable[[], Result]
    needs: Sequence[Step] = ()
    what: str = ""

    def line(self) -> str:
        """What it does, in a line."""
        return self.what or (inspect.getdoc(self.run) or "").partition("\n")[0]


def tail(text: str, lines: int = 40) -> str:
    """The end of a text."""
    return "\n".join(text.splitlines()[-lines:])
