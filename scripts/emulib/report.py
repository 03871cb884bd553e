# SPDX-License-Identifier: GPL-2.0
"""Results of checks and their sum."""

import re
from collections.abc import Callable
from dataclasses import dataclass

TALLY = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)
TAP = re.compile(r"^\s*(not ok|ok)\b(?:[^#\n]*)(#\s*SKIP)?", re.MULTILINE | re.IGNORECASE)


@dataclass
class Result:
    """What one check found; `text` explains failures and skips."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    text: str = ""

    @classmethod
    def one(cls, passed: bool, text: str = "") -> "Result":
        """The result of a check that is a single test."""
        return cls(int(passed), int(not passed), 0, text)

    @classmethod
    def tallied(cls, status: int, output: str) -> "Result":
        """The result of a program that ends with `N passed, N failed[, N skipped]`.

        A program that failed without saying so, or that ran nothing, has failed.
        """
        lines = TALLY.findall(output)
        if not lines:
            return cls.one(False, f"exit status {status}, no tally\n{tail(output)}")
        passed, failed, skipped = (int(number or 0) for number in lines[-1])
        if failed == 0 and (status != 0 or passed == 0):
            return cls(passed, 1, skipped, f"exit status {status}\n{tail(output)}")
        wanted = re.compile(r"not ok|# SKIP|FAIL", re.IGNORECASE)
        text = output if failed else "\n".join(l for l in output.splitlines() if wanted.search(l))
        return cls(passed, failed, skipped, tail(text, 120))

    @classmethod
    def tap(cls, status: int, output: str) -> "Result":
        """The result of a program that prints TAP."""
        found = TAP.findall(output)
        skipped = sum(1 for _, skip in found if skip)
        failed = sum(1 for verdict, skip in found if verdict.lower() == "not ok" and not skip)
        passed = len(found) - skipped - failed
        if failed == 0 and (status != 0 or passed == 0):
            failed = 1
        return cls(passed, failed, skipped, tail(output, 120) if failed or skipped else "")


@dataclass
class Check:
    """A named check."""

    name: str
    run: Callable[[], Result]


@dataclass
class Tally:
    """The sum of all results."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, result: Result) -> None:
        self.passed += result.passed
        self.failed += result.failed
        self.skipped += result.skipped

    def line(self) -> str:
        """The closing line that CI reads."""
        text = f"{self.passed} passed, {self.failed} failed"
        return f"{text}, {self.skipped} skipped" if self.skipped else text


def tail(text: str, lines: int = 40) -> str:
    """The end of a text."""
    return "\n".join(text.splitlines()[-lines:])
