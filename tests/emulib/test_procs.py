# SPDX-License-Identifier: GPL-2.0
"""Programs that are started end when they are to end, and with whoever started them."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from emulib.build import config

# Runs five commands, two at a time, as scripts/check does. Each leaves its process ids in the folder.
PROGRAM = """
import concurrent.futures, sys
from emulib import cli
from emulib.build import procs
def work():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(procs.run, ["unshare", "-r", "--pid", "--fork", "--kill-child", "sh", "-c",
                                        "touch $1/begun-$2; sleep 1000 & sleep 1000", "sh", sys.argv[1], str(number)])
                for number in range(5)]
        try:
            for run in concurrent.futures.as_completed(runs):
                run.result()
        except (KeyboardInterrupt, procs.Interrupted):
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return 0
sys.exit(cli.guarded("program", work))
"""
SECONDS = 3


def descendants(folder: Path) -> list[str]:
    """The processes that PROGRAM has started for this folder, which is their environment's FOLDER."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"FOLDER={folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_text(encoding="utf-8"))
        except OSError:
            continue
    return found


class Endings(unittest.TestCase):
    """By signals to the program only, as `kill` and `make` send them."""

    def begin(self) -> tuple[subprocess.Popen, Path]:
        """Start PROGRAM, and wait until it is in the middle."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = subprocess.Popen(  # pylint: disable=consider-using-with
            [sys.executable, "-B", "-c", PROGRAM, folder.name], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(config.TREE / "scripts"), "FOLDER": folder.name})
        self.addCleanup(program.kill)
        end = time.monotonic() + 30
        while len(list(Path(folder.name).iterdir())) < 2:
            self.assertLess(time.monotonic(), end, "it does not begin")
            time.sleep(0.05)
        return program, Path(folder.name)

    def ended(self, folder: Path) -> None:
        """Nothing that was started runs on."""
        end = time.monotonic() + SECONDS
        while descendants(folder) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(descendants(folder), [])

    def test_told_to_end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                program, folder = self.begin()
                self.assertGreaterEqual(len(descendants(folder)), 5)
                program.send_signal(number)
                _, said = program.communicate(timeout=SECONDS)
                self.assertEqual(program.returncode, 130, said)
                self.assertIn("interrupted", said)
                self.ended(folder)
                # What waited for its turn has not begun.
                self.assertEqual(len(list(folder.iterdir())), 2)

    def test_nothing_begins_after_the_end(self) -> None:
        done = subprocess.run(
            [sys.executable, "-B", "-c", "from emulib.build import procs; procs.end_all(); procs.run(['echo', 'it began'])"],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(config.TREE / "scripts")})
        self.assertIn("Interrupted", done.stderr)
        self.assertNotIn("it began", done.stdout)

    def test_killed(self) -> None:
        program, folder = self.begin()
        program.kill()
        program.communicate()
        self.ended(folder)


# Two steps that wait for locks that another run holds, one for each thread of a pool.
WAITING = """
import sys
from emulib import cli
from emulib.build import step
def build(log):
    pass
steps = [step.Step(name, "", lambda: "", build, []) for name in ("one", "two")]
if sys.argv[1:]:
    sys.exit(print(*(one.home().with_suffix(".lock") for one in steps)))
sys.exit(cli.guarded("program", lambda: len(step.ensure_all(steps))))
"""


class Locks(unittest.TestCase):
    """Of products that another run makes."""

    def test_who_waits_ends_when_told_to(self) -> None:
        with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"XDG_CACHE_HOME": cache}), \
                contextlib.ExitStack() as held:
            source = Path(cache) / "waiting.py"
            source.write_text(WAITING, encoding="utf-8")
            environment = {**os.environ, "PYTHONPATH": str(config.TREE / "scripts")}
            locks = subprocess.run([sys.executable, "-B", str(source), "locks"], capture_output=True, text=True, check=True,
                                   env=environment, timeout=30).stdout.split()
            self.assertEqual(len(locks), 2)
            for lock in locks:
                Path(lock).parent.mkdir(parents=True)
                fcntl.flock(held.enter_context(open(lock, "w", encoding="utf-8")), fcntl.LOCK_EX)
            program = subprocess.Popen(  # pylint: disable=consider-using-with
                [sys.executable, "-B", str(source)], stderr=subprocess.PIPE, text=True, env=environment)
            self.addCleanup(program.kill)
            said = [program.stderr.readline(), program.stderr.readline()]  # type: ignore[union-attr]
            self.assertEqual(len([line for line in said if "waiting for another run" in line]), 2, said)
            program.send_signal(signal.SIGTERM)
            _, rest = program.communicate(timeout=SECONDS)
            self.assertEqual(program.returncode, 130, rest)


if __name__ == "__main__":
    unittest.main()
