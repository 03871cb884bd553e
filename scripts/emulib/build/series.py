# SPDX-License-Identifier: GPL-2.0
"""The kernel series: its parts, the order in which they apply, and what of them the driver needs."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import config

HOME = config.TREE / "scripts/kernel"
ORDER = HOME / "order.toml"
COVER = "cover-letter.txt"


def name(patch: Path) -> str:
    """The name of a patch, without its number."""
    return patch.stem.partition("-")[2]


@dataclass(frozen=True)
class Part:
    """Patches that are sent together. They apply to Linux and the parts in `after`."""

    # Below scripts/kernel.
    folder: str
    # Lists that it is for.
    to: list[str]
    # Which of its patches the driver cannot do without: the beginnings of their names, or True for all of them.
    needed: list[str] | bool = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """Where its patches are."""
        return HOME / self.folder

    def patches(self) -> list[Path]:
        """Its patches in order."""
        return sorted(self.home.glob("*.patch"))

    def necessary(self) -> list[Path]:
        """Those that the driver cannot do without."""
        if isinstance(self.needed, bool):
            return self.patches() if self.needed else []
        return [patch for patch in self.patches() if name(patch).startswith(tuple(self.needed))]


def parts() -> list[Part]:
    """All parts, in the order in which they apply."""
    with open(ORDER, "rb") as file:
        return [Part(**entry) for entry in tomllib.load(file)["part"]]


def patches() -> list[Path]:
    """All patches in the order in which they apply."""
    return [patch for part in parts() for patch in part.patches()]


def necessary() -> list[Path]:
    """Those that the driver cannot do without."""
    return [patch for part in parts() for patch in part.necessary()]
