# SPDX-License-Identifier: GPL-2.0
"""A step of the set-up: built once, keyed by the content of its inputs."""

import contextlib
import fcntl
import hashlib
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from . import config
from .config import Failure

# How often a long step says how far it is, in seconds.
PROGRESS_INTERVAL = 20


def say(text: str) -> None:
    """One line to the user; standard output belongs to the command that runs."""
    print(text, file=sys.stderr, flush=True)


def digest(*parts: str | bytes | Path) -> str:
    """A key made of texts and of the names and contents of files and folders."""
    result = hashlib.sha256()

    def add(data: bytes) -> None:
        result.update(len(data).to_bytes(8, "little"))
        result.update(data)

    for part in parts:
        if isinstance(part, Path):
            for file in files_below(part):
                add(str(file.relative_to(part.parent)).encode())
                add(b"x" if file.stat().st_mode & 0o100 else b"-")
                add(file.read_bytes())
        else:
            add(part.encode() if isinstance(part, str) else part)
    return result.hexdigest()[:32]


def files_below(path: Path) -> list[Path]:
    """The file itself, or every file of the folder that is not a by-product."""
    if path.is_file():
        return [path]
    skip = {"__pycache__", "target"}
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not skip.intersection(file.relative_to(path).parts)
    )


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other runs of this program out of the step `name`."""
    folder = config.cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with open(folder / name, "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another run that works on it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Step:
    """One product of the set-up.

    `key` names the inputs by content; `build` makes the product and may be
    interrupted at any time: the stamp is written only after it returned.
    """

    def __init__(
        self,
        name: str,
        what: str,
        key: Callable[[], str],
        build: Callable[["Log"], None],
        products: Iterable[Path],
        needs: Iterable["Step"] = (),
    ):
        self.name = name
        self.what = what
        self._own_key = key
        self._build = build
        self.products = tuple(products)
        self.needs = tuple(needs)
        self._key: str | None = None
        self._ready = False

    @property
    def stamp(self) -> Path:
        folder = config.cache_dir() / "stamps"
        folder.mkdir(exist_ok=True)
        return folder / self.name

    def key(self) -> str:
        """The inputs of this step and of all it needs; read once a process."""
        if self._key is None:
            self._key = digest(self._own_key(), *(step.key() for step in self.needs))
        return self._key

    def fresh(self) -> bool:
        """Whether the product in the cache is made of today's inputs."""
        return (
            self.stamp.exists()
            and self.stamp.read_text(encoding="utf-8") == self.key()
            and all(product.exists() for product in self.products)
        )

    def ensure(self) -> None:
        """Make the product if it is missing or its inputs changed."""
        if self._ready:
            return
        for step in self.needs:
            step.ensure()
        if not self.fresh():
            with locked(self.name):
                if not self.fresh():
                    self._make()
        self._ready = True

    def _make(self) -> None:
        say(f"{self.name}: {self.what}")
        self.stamp.unlink(missing_ok=True)
        start = time.monotonic()
        with Log(self.name) as log:
            self._build(log)
        missing = [str(product) for product in self.products if not product.exists()]
        if missing:
            raise Failure(f"{self.name}: did not make {', '.join(missing)}; see {log.path}")
        self.stamp.write_text(self.key(), encoding="utf-8")
        say(f"{self.name}: done in {duration(time.monotonic() - start)}")


class Log:
    """A step's log file, which also reports progress of what runs into it."""

    # "[12/345]" as ninja prints it, or kbuild's "  CC  file".
    NINJA = re.compile(rb"^\[(\d+)/(\d+)\]")
    KBUILD = re.compile(rb"^  (?:CC|AS|LD|AR|RUSTC|BINDGEN|EXPORTS)\b")

    def __init__(self, name: str):
        folder = config.cache_dir() / "logs"
        folder.mkdir(exist_ok=True)
        self.name = name
        self.path = folder / f"{name}.log"

    def __enter__(self) -> "Log":
        self._file = open(self.path, "wb")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def run(self, command: list[str], remedy: str = "", **options: object) -> None:
        """Run a command into the log; on failure quote its last lines."""
        self._file.write(("$ " + " ".join(command) + "\n").encode())
        self._file.flush()
        tail: deque[bytes] = deque(maxlen=25)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,  # type: ignore[call-overload]
        ) as process, _Ticker(self.name) as ticker:
            for line in process.stdout:
                self._file.write(line)
                tail.append(line)
                if match := self.NINJA.match(line):
                    ticker.text = f"{match[1].decode()} of {match[2].decode()} steps"
                elif self.KBUILD.match(line):
                    ticker.count += 1
                    ticker.text = f"{ticker.count} files compiled"
        self._file.flush()
        if process.returncode:
            quote = b"".join(tail).decode(errors="replace")
            raise Failure(
                f"{self.name}: '{command[0]} ...' failed with status {process.returncode}.\n"
                f"{quote}The whole log is {self.path}.{' ' + remedy if remedy else ''}"
            )


class _Ticker:
    """Says every PROGRESS_INTERVAL seconds how far a command is."""

    def __init__(self, name: str):
        self.name = name
        self.text = "working"
        self.count = 0
        self._start = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "_Ticker":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._stop.wait(PROGRESS_INTERVAL):
            spent = duration(time.monotonic() - self._start)
            say(f"{self.name}: {self.text}, {spent} so far")


def duration(seconds: float) -> str:
    """`seconds` as a person says it."""
    whole = int(seconds)
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{seconds:.1f} s"
