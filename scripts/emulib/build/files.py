# SPDX-License-Identifier: GPL-2.0
"""Files and folders, as the steps of the set-up handle them."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from . import config, procs
from .config import Failure

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


def date(path: Path) -> float:
    """When a file was changed, in seconds since 1970; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _but_gone(_function: object, _path: str, error: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def remove(tree: Path) -> None:
    """Remove a folder whose files may be write-protected, and of which another run may be removing the same."""
    if tree.exists():
        procs.run(["chmod", "-R", "u+rwX", str(tree)], capture_output=True)
        shutil.rmtree(tree, onerror=_but_gone)


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


def copy_folders(source: Path, to: Path, copied: Iterable[str], linked: Iterable[str]) -> None:
    """Make the folder `to` of folders in `source`, with all dates: of copies, and of hard links to the same files.

    It appears under its name when it is complete.
    """
    fresh = to.with_name(f"{to.name}.new")
    remove(fresh)
    fresh.mkdir()
    for how, names in (("-a", copied), ("-al", linked)):
        for name in names:
            done = procs.said(["cp", how, "--reflink=auto", str(source / name), str(fresh)])
            if done.returncode:
                remove(fresh)
                raise Failure(f"{source / name} can't be copied: {done.stdout.strip()}. {config.room()}")
    fresh.rename(to)
