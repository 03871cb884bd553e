# SPDX-License-Identifier: GPL-2.0
"""Skipped tests: where CI=true, tests/known-skips.txt lists those that may be."""

import configparser
import re

from ..build import config
from .report import Result

LIST = config.TREE / "tests/known-skips.txt"

# What a test that was skipped is called: by TAP, by Python's unittest and by cargo.
SKIPPED = re.compile("|".join([
    r"^\s*(?:not )?ok \d+ (?:- )?(?P<tap>.*?)\s*#\s*(?i:SKIP)\b",
    r"^(?P<unittest>.*\S) \.\.\. skipped\b",
    r"^test (?P<cargo>\S+)(?: - should panic)? \.\.\. ignored\b",
]), re.MULTILINE)


def known(text: str | None = None) -> dict[str, set[str]]:
    """The tests that may be skipped, by check."""
    sections = configparser.RawConfigParser(delimiters=["="], comment_prefixes=["#"], default_section="\0")
    sections.optionxform = str  # type: ignore[assignment,method-assign]
    sections.read_string(LIST.read_text(encoding="utf-8") if text is None else text)
    return {name: set(sections[name]) for name in sections.sections()}


def names(output: str) -> list[str]:
    """The tests that were skipped, by what the check's programs printed."""
    return [match[match.lastgroup or 0] for match in SKIPPED.finditer(output)]


def unexpected(check: str, output: str, listed: dict[str, set[str]] | None = None) -> list[str]:
    """The skipped tests of a check that known-skips.txt does not list."""
    may = (known() if listed is None else listed).get(check, set())
    return [name for name in names(output) if name not in may]


def judged(check: str, result: Result, listed: dict[str, set[str]] | None = None) -> Result:
    """`result`, in which each skip that is not listed counts as a failure where CI=true, and so does a list that is wrong."""
    if not config.ci():
        return result
    listed = known() if listed is None else listed
    found = names(result.text)
    complaints = [f"skipped, and not in known-skips.txt: {name}" for name in unexpected(check, result.text, listed)]
    # Of a long text only the end is kept.
    if result.skipped > len(found):
        complaints.append(f"skipped: {result.skipped - len(found)} more, whose names are not in the text above")
    complaints += [f"in known-skips.txt, and not skipped: {name}"
                   for name in sorted(listed.get(check, set()).difference(found))]
    if complaints:
        result.failed += len(complaints)
        result.text = "\n".join([*result.text.splitlines(), *complaints])
    return result
