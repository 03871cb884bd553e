# SPDX-License-Identifier: GPL-2.0
"""Programs that are started end when they are to end, and with whoever started them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from emulib import config

# Runs five commands, two at a time, as scripts/check does. Each leaves its process ids in the folder.
PROGRAM = """
import concurrent.futures, sys
from emulib import cli, procs
def work():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(procs.run, ["unshare", "-r", "--pid", "--fork", "--kill-child", "sh", "-c",
                                        "touch begun-$1; sleep 1000 & sleep 1000", "sh", str(number)], cwd=sys.argv[1])
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


def descendants() -> list[str]:
    """The command lines of what PROGRAM has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", b"1000"] or b"touch begun-$1; sleep 1000 & sleep 1000" in words:
            found.append(str(words))
    return found


class Endings(unittest.TestCase):
    """By signals to the program only, as `kill` and `make` send them."""

    def begin(self) -> tuple[subprocess.Popen, Path]:
        """Start PROGRAM, and wait until it is in the middle."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = subprocess.Popen(  # pylint: disable=consider-using-with
            [sys.executable, "-B", "-c", PROGRAM, folder.name], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(config.TREE / "scripts")})
        self.addCleanup(program.kill)
        end = time.monotonic() + 30
        while len(list(Path(folder.name).iterdir())) < 2:
            self.assertLess(time.monotonic(), end, "it does not begin")
            time.sleep(0.05)
        return program, Path(folder.name)

    def ended(self) -> None:
        """Nothing that was started runs on."""
        end = time.monotonic() + SECONDS
        while descendants() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(descendants(), [])

    def test_told_to_end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                program, folder = self.begin()
                program.send_signal(number)
                _, said = program.communicate(timeout=SECONDS)
                self.assertEqual(program.returncode, 130, said)
                self.assertIn("interrupted", said)
                self.ended()
                # What waited for its turn has not begun.
                self.assertEqual(len(list(folder.iterdir())), 2)

    def test_killed(self) -> None:
        program, _ = self.begin()
        program.kill()
        program.communicate()
        self.ended()


if __name__ == "__main__":
    unittest.main()
