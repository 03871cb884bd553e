# SPDX-License-Identifier: GPL-2.0
"""Files and folders, as the steps of the set-up handle them."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from . import procs

# Not the project's: by-products of compilers.
SKIPPED = {"__pycache__", "target"}


def below(path: Path) -> list[Path]:
    """The file itself, or every file of the folder that is not a by-product."""
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not SKIPPED.intersection(file.relative_to(path).parts)
    )


def text(path: Path) -> str:
    """What a file says, whatever it is encoded in; nothing if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def remove(tree: Path) -> None:
    """Remove a folder whose files may be write-protected."""
    if tree.exists():
        procs.run(["chmod", "-R", "u+rwX", str(tree)])
        shutil.rmtree(tree)


def disk_usage(tree: Path) -> int:
    """Bytes that removing the folder would give back: what has links elsewhere stays."""
    seen: dict[tuple[int, int], tuple[int, int, int]] = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            key = (status.st_dev, status.st_ino)
            links = seen.get(key, (0, 0, 0))[0] + 1
            seen[key] = (links, status.st_nlink, status.st_blocks * 512)
    return sum(size for links, all_links, size in seen.values() if links == all_links)


def copy_tree(source: Path, to: Path, linked: Iterable[str]) -> None:
    """Copy a folder with all dates; the folders `linked` in it by hard links. Appears under its name when complete."""
    fresh = to.with_name(f"{to.name}.new")
    remove(fresh)
    fresh.mkdir()
    linked = set(linked)
    for entry in sorted(source.iterdir()):
        if entry.name != ".done":
            procs.run(["cp", "-al" if entry.name in linked else "-a", "--reflink=auto", str(entry), str(fresh)], check=True)
    fresh.rename(to)
