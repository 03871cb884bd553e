# SPDX-License-Identifier: GPL-2.0
"""Other programs: started so that they end with this one, whatever ends it.

Each is the leader of a session of its own, so that it can be ended with all that it started, and the
kernel kills it when the thread that waits for it dies.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from types import FrameType

# What a program gets to tidy up before it is killed, in seconds.
GRACE = 1.0

_lock = threading.Lock()
_running: set[subprocess.Popen] = set()
_stopping = threading.Event()


class Interrupted(BaseException):
    """This program was told to end. Not an Exception: nobody may take it for a failure and go on."""


def on_signals() -> None:
    """Have SIGINT and SIGTERM end everything that was started here, and raise KeyboardInterrupt in the main thread."""
    def told_to_end(_number: int, _frame: FrameType | None) -> None:
        # A second signal must not interrupt the ending.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        end_all()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told_to_end)


def spawn(command: list[str], **options) -> subprocess.Popen:
    """Start `command`; like subprocess.Popen, which takes the same options."""
    with _lock:
        if _stopping.is_set():
            raise Interrupted
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], start_new_session=True, **options)
        _running.add(process)
        # end_all() may have looked for what runs just before.
        if _stopping.is_set():
            kill(process)
    return process


def forget(process: subprocess.Popen) -> None:
    """`process` has been waited for. Raises Interrupted if it was ended from here."""
    with _lock:
        _running.discard(process)
    if _stopping.is_set():
        raise Interrupted


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """Run `command` to its end without input; takes the options of subprocess.run()."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    check = options.pop("check", False)
    process = spawn(command, stdin=subprocess.DEVNULL, **options)
    try:
        output, errors = process.communicate()
    finally:
        kill(process)
        forget(process)
    done: subprocess.CompletedProcess = subprocess.CompletedProcess(command, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


def said(command: list[str], **options) -> subprocess.CompletedProcess[str]:
    """Run `command`, and take what it prints to either output as one text."""
    return run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)


def kill(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Send the signal to `process` and all that it started, unless it was waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def sleep(seconds: float) -> None:
    """Wait; raises Interrupted at once when this program is told to end."""
    if _stopping.wait(seconds):
        raise Interrupted


def end_all() -> None:
    """End everything that was started here, at once, and let nothing new be started."""
    _stopping.set()
    # The lock may be this very thread's: a signal handler interrupts whatever runs.
    processes = list(_running)
    for process in processes:
        kill(process, signal.SIGTERM)
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(alive(process) for process in processes):
        time.sleep(0.02)
    for process in processes:
        kill(process)


def alive(process: subprocess.Popen) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
