# SPDX-License-Identifier: GPL-2.0
"""Reads a console (firmware and kernel) for lines that should not be there."""

import configparser
import re
from collections.abc import Collection

from ..build import config, programs

NOISE = config.TREE / "tests/known-noise.txt"
# The section of every boot but those of pseries guests, which have firmware and devices of their own.
EMULATED_HOST = "emulated host"
# Behind the name of a selftest: of boots that run it on the second chip, which messages of firmware are about.
ON_CHIP_8 = " on chip 8"

# OPAL: "[   12.345678901,3] ", Linux: "[    1.234567] ".
STAMP = re.compile(r"^\[\s*\d+\.\d+(?:,\d)?\]\s?")
SUSPECT = re.compile("|".join([
    r"(?i:error|timed out|warning)|\bBUG\b|kmemleak: .*(?:disabled|suspected)|^emu: can't load the module",
    *map(re.escape, programs.SPLATS.read_text(encoding="utf-8").splitlines()),
]))


def known_noise(text: str | None = None) -> dict[str, set[str]]:
    """The lines that are not ours, by exact text without their time stamp, by section of known-noise.txt."""
    # A line is the name of an option without a value: no line has the delimiter.
    sections = configparser.RawConfigParser(allow_no_value=True, delimiters=["\0"], comment_prefixes=["#"],
                                            default_section="\0")
    sections.optionxform = str  # type: ignore[assignment,method-assign]
    sections.read_string(NOISE.read_text(encoding="utf-8") if text is None else text)
    return {name: set(sections[name]) for name in sections.sections()}


def _lines(console: str) -> list[str]:
    return [STAMP.sub("", line.strip()) for line in console.splitlines()]


def findings(console: str, sections: Collection[str], noise: dict[str, set[str]] | None = None) -> list[str]:
    """The suspect lines of a console that are not the noise of these sections."""
    noise = known_noise() if noise is None else noise
    excused = set().union(*(noise.get(name, set()) for name in sections))
    return [line for line in _lines(console) if SUSPECT.search(line) and line not in excused]


def dead(console: str, sections: Collection[str], noise: dict[str, set[str]] | None = None) -> list[str]:
    """What is excused in these sections, and the console does not have: nobody needs the excuse."""
    noise = known_noise() if noise is None else noise
    said = set(_lines(console))
    return [f"[{name}] {line}" for name in sections for line in sorted(noise.get(name, set()) - said)]
