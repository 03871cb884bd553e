# SPDX-License-Identifier: GPL-2.0
"""What is said to the user, and the log file of a step, with progress of what runs into it."""

import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from . import config, procs
from .config import Failure

# How often a long step says how far it is, in seconds.
PROGRESS_INTERVAL = 20
# What programs print when there is no room left.
NO_ROOM = b"No space left on device"


def say(text: str) -> None:
    """One line to the user; standard output belongs to the command that runs."""
    # In one piece, as others speak, too.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """`seconds` as a person says it."""
    whole = int(seconds)
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{seconds:.1f} s"


class Log:
    """A log file, which also reports progress of what runs into it under `name`."""

    # "[12/345]" as ninja prints it, or kbuild's "  CC  file".
    NINJA = re.compile(rb"^\[(\d+)/(\d+)\]")
    KBUILD = re.compile(rb"^  (?:CC|AS|LD|AR|RUSTC|BINDGEN|EXPORTS)\b")

    def __init__(self, name: str, path: Path):
        self.name = name
        self.path = path

    def __enter__(self) -> "Log":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "wb")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def run(self, command: list[str], remedy: str = "", **options: object) -> None:
        """Run a command into the log; on failure quote its last lines."""
        self._file.write(("$ " + " ".join(command) + "\n").encode())
        self._file.flush()
        tail: deque[bytes] = deque(maxlen=25)
        process = procs.spawn(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
        )
        with _Ticker(self.name) as ticker, process:
            try:
                for line in process.stdout or ():
                    self._file.write(line)
                    tail.append(line)
                    if match := self.NINJA.match(line):
                        ticker.text = f"{match[1].decode()} of {match[2].decode()} steps"
                    elif self.KBUILD.match(line):
                        ticker.count += 1
                        ticker.text = f"{ticker.count} files compiled"
                process.wait()
            finally:
                # Before Popen's own end, which would wait for it.
                procs.kill(process)
        procs.forget(process)
        self._file.flush()
        if process.returncode:
            quote = b"".join(tail)
            if NO_ROOM in quote or config.free_disk() < config.LITTLE_ROOM:
                remedy = config.no_room()
            raise Failure(
                f"{self.name}: '{command[0]} ...' failed with status {process.returncode}.\n"
                f"{quote.decode(errors='replace')}The whole log is {self.path}.{' ' + remedy if remedy else ''}"
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
