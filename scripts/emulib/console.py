# SPDX-License-Identifier: GPL-2.0
"""Reads a console (firmware and kernel) for lines that should not be there."""

import re

from . import config, programs

NOISE = config.TREE / "tests/known-noise.txt"

# OPAL: "[   12.345678901,3] ", Linux: "[    1.234567] ".
STAMP = re.compile(r"^\[\s*\d+\.\d+(?:,\d)?\]\s?")
SUSPECT = re.compile("|".join([
    r"(?i:error|timed out|warning)|\bBUG\b|kmemleak: .*(?:disabled|suspected)",
    *map(re.escape, programs.SPLATS.read_text(encoding="utf-8").splitlines()),
]))


def known_noise() -> set[str]:
    """The lines that are not ours, by exact text without their time stamp."""
    lines = NOISE.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def findings(console: str) -> list[str]:
    """The suspect lines of a console that are not known noise."""
    noise = known_noise()
    lines = (STAMP.sub("", line.strip()) for line in console.splitlines())
    return [line for line in lines if SUSPECT.search(line) and line not in noise]
