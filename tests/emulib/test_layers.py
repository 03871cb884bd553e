# SPDX-License-Identifier: GPL-2.0
"""Tests of how scripts/emulib is divided."""

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path

import emulib

LIBRARY = Path(emulib.__file__).parent
# What is imported is in the same folder or in one before it.
FOLDERS = ("build", "host", "checks")


def imported(file: Path) -> Iterator[str]:
    """The modules of the library that a file imports, as `folder.module` or `module`, wherever in the file it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            home = file.parents[node.level - 1].relative_to(LIBRARY).parts + tuple((node.module or "").split("."))
            path = [part for part in home if part]
            if (LIBRARY.joinpath(*path)).is_dir():
                yield from (".".join([*path, name.name]) for name in node.names)
            else:
                yield ".".join(path)


class Layers(unittest.TestCase):
    """Who may import whom."""

    def test_folders_import_one_way(self) -> None:
        """build knows nothing of host, host nothing of checks, and none of them the programs."""
        wrong = [f"{file.relative_to(LIBRARY)} imports {module}"
                 for rank, folder in enumerate(FOLDERS)
                 for file in (LIBRARY / folder).glob("*.py")
                 for module in imported(file)
                 if module.partition(".")[0] not in FOLDERS[:rank + 1]]
        self.assertEqual(wrong, [])

    def test_no_circles(self) -> None:
        """No module imports itself by way of others."""
        needs = {".".join(file.relative_to(LIBRARY).with_suffix("").parts): set(imported(file))
                 for file in LIBRARY.rglob("*.py")}
        while free := [name for name, others in needs.items() if not others & needs.keys()]:
            for name in free:
                del needs[name]
        self.assertEqual(sorted(needs), [])


if __name__ == "__main__":
    unittest.main()
