# SPDX-License-Identifier: GPL-2.0
"""Runs checks and counts what they found."""

import argparse
import concurrent.futures
import datetime
import difflib
import signal
import subprocess
import sys
import threading
import time
import traceback

from . import cli
from .build import config, enter, kernel, module, procs, root
from .build.config import Failure, Unavailable
from .build.step import Step, duration, ensure_all, say
from .checks import (
    client_tests, debug_tests, intree_builds, lints, mutate, newest, package_tests, qemu_series, series, skips, tests,
)
from .checks.report import TALLY, Check, Result

CHECKS: list[Check] = [*client_tests.CHECKS, *tests.CHECKS, *lints.CHECKS, *series.CHECKS, *qemu_series.CHECKS]
# Too long for each time: these run when they are named, all with --all, and in turn, a day one, with --ci.
LONG_CHECKS: list[Check] = [*client_tests.PARTS, *qemu_series.LONG_CHECKS, *tests.LONG_CHECKS, *intree_builds.CHECKS,
                            *package_tests.LONG_CHECKS, *debug_tests.LONG_CHECKS, *mutate.CHECKS, *newest.CHECKS, *series.LONG_CHECKS]
# Names of several.
SUMS = {**client_tests.SUMS, **tests.SUMS, **package_tests.SUMS, **debug_tests.SUMS}
# What CI has for all it does, and for a long check, in minutes. A long check for which there is no such time is left out.
CI_MINUTES = 80
LONG_MINUTES = 35
# Of those that may need more: where an archive has something new, "newest" builds all of it in a cache of its own.
MINUTES = {"newest": 60}
# What a check may take to end when it is told to, in seconds.
TO_END = 5


def _set_up(checks: list[Check]) -> dict[Step, Failure]:
    """Build what the checks need; the steps that can't be done, and why."""
    wanted = [step for step in cli.ALL_STEPS if any(step in check.needs for check in checks)]
    if not wanted:
        return {}
    if broken := ensure_all([root.STEP]):
        return {step: broken[root.STEP] for step in wanted}
    try:
        enter.check_entry()
    except Failure as failure:
        say(f"check: {failure}")
        return {step: failure for step in wanted}
    return ensure_all(wanted)


def _run(check: Check, broken: dict[Step, Failure]) -> tuple[Check, Result, float]:
    """Run a check. Whatever goes wrong in it is its failure and nobody else's."""
    start = time.monotonic()
    try:
        for step in check.needs:
            if step in broken:
                raise broken[step]
        result = skips.judged(check.name, check.run())
    except Unavailable as failure:
        # Only what nobody has to pass may be missing for want of packages.
        result = Result(skipped=1, text=str(failure)) if check in LONG_CHECKS else Result.one(False, str(failure))
    except Failure as failure:
        result = Result.one(False, str(failure))
    except Exception:  # pylint: disable=broad-exception-caught
        result = Result.one(False, traceback.format_exc())
    return check, result, time.monotonic() - start


def _print(check: Check, result: Result, spent: float) -> None:
    count = f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped"
    verdict = "FAIL" if result.failed else "ok"
    times = "; ".join([duration(spent), *(f"boot {duration(seconds)}" for seconds in result.boots)])
    print(f"{verdict:4} {check.name}: {count} ({times})", flush=True)
    for name, part in result.parts.items():
        print(f"     {name}: {part.line()}", flush=True)
    if result.failed or result.skipped:
        print("".join(f"     {line}\n" for line in result.text.splitlines()), flush=True)


def run(checks: list[Check], side_by_side: int) -> Result:
    """Build what the checks need, and run them. They are to be in order, the longest first."""
    if not checks:
        return Result()
    start = time.monotonic()
    tally = Result()
    broken = _set_up(checks)
    say(f"check: set-up complete after {duration(time.monotonic() - start)}")
    with concurrent.futures.ThreadPoolExecutor(side_by_side) as pool:
        try:
            for done in concurrent.futures.as_completed([pool.submit(_run, check, broken) for check in checks]):
                check, result, spent = done.result()
                _print(check, result, spent)
                tally.add(result)
        except (KeyboardInterrupt, procs.Interrupted):
            # What waits for its turn must not begin.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tally


# What CI runs of these, in turn, a day one. What builds the debug kernel has to leave time for that.
ROTATION = ["clients-10.0", "qemu-newest", "clients-5.10", "clients-libvirt", "clients-7.2", "intree", "packages", "orders",
            "load", "bad-firmware-all", "debug-fuzz", "debug-huge", "newest", "mutants-run", "debug-selftests", "config-gcc",
            "config-4k"]


def long_check_of(day: datetime.date) -> str:
    """The name of the long check, or of several, whose turn it is on a day: two runs of a day agree."""
    return ROTATION[day.toordinal() % len(ROTATION)]


def _in_turn(start: float) -> Result:
    """The long check whose turn it is, if there is time for it."""
    check = long_check_of(datetime.date.today())
    left = CI_MINUTES - (time.monotonic() - start) / 60
    wanted = MINUTES.get(check, LONG_MINUTES)
    if left < wanted:
        say(f"check: today's long check, {check}, is left out: {left:.0f} minutes are left, and it may take {wanted}")
        return Result()
    say(f"check: today's long check is {check}")
    return _in_process([check], wanted)


def _in_process(names: list[str], minutes: int) -> Result:
    """Checks, those of every day if none is named, in a process of their own that has an end."""
    result = limited([sys.executable, str(config.TREE / "scripts/check"), *names], minutes * 60)
    if result.text:
        print(f"FAIL {' '.join(names) or 'checks of every day'}: {result.text}", flush=True)
    return result


def limited(command: list[str], seconds: float) -> Result:
    """The tally of checks that run in a process of their own, with an end to it; what they print is passed on."""
    process = procs.spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        procs.kill(process, signal.SIGTERM)
        # Who does not end by that is not asked again.
        procs.sleep(TO_END)
        procs.kill(process)

    limit = threading.Timer(seconds, expire)
    limit.daemon = True
    limit.start()
    said = []
    try:
        for line in process.stdout or ():
            said.append(line)
            # Its tally is not the last line of ours.
            if not TALLY.match(line):
                print(line, end="", flush=True)
        process.wait()
    finally:
        limit.cancel()
        procs.kill(process)
        procs.forget(process)
    if expired.is_set():
        return Result.one(False, f"it did not end within {duration(seconds)}")
    tally = TALLY.search(said[-1]) if said else None
    if not tally or (process.returncode and tally[2] == "0"):
        return Result.one(False, f"it ended with status {process.returncode}, without a failed test")
    # What it says of its failures is printed already. A check that was skipped has passed nothing.
    passed, failed, skipped = (int(number or 0) for number in tally.groups())
    return Result(passed, failed, skipped)


def _list() -> None:
    for title, checks in (("of every day:", CHECKS), ("long, only when named:", LONG_CHECKS)):
        print(title)
        for check in checks:
            print(f"  {check.name:22} {check.line()}")
    print("of several:")
    for name, parts in SUMS.items():
        print(f"  {name:22} {', '.join(part.name for part in parts)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check", description="Run the tests and lints of every day, or the named ones, and build what they need.",
        epilog="exit status: 0 all passed; 1 something failed, or nothing ran; 2 usage; 130 interrupted",
    )
    parser.add_argument("name", nargs="*", metavar="CHECK", help="see --list")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--list", action="store_true", help="list the checks, with a line on each")
    group.add_argument("--all", action="store_true", help="run the long ones, too, which takes a night")
    group.add_argument("--ci", action="store_true",
                       help=f"run those of every day and the long one whose turn it is, within {CI_MINUTES} minutes")
    return parser


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Check]:
    known = {check.name: check for check in CHECKS + LONG_CHECKS}
    wanted = {*options.name, *(part.name for name in options.name for part in SUMS.get(name, []))}
    for name in options.name:
        if name not in known and name not in SUMS:
            near = difflib.get_close_matches(name, [*known, *SUMS])
            parser.error(f"there is no check {name}" + (f"; is {' or '.join(near)} meant?" if near else "; see --list"))
    if options.name:
        return [check for name, check in known.items() if name in wanted]
    return list(known.values()) if options.all else CHECKS


def _end(tally: Result) -> int:
    """Print the closing line; the exit status."""
    print(tally.line(), flush=True)
    return 1 if tally.failed or not tally.passed + tally.skipped else 0


def main() -> int:
    """Run the program; return its exit status."""
    parser = _parser()
    options = parser.parse_args()
    if options.ci and options.name:
        parser.error("--ci chooses by itself")
    if options.list:
        _list()
        return 0
    chosen = _chosen(parser, options)

    def work() -> int:
        start = time.monotonic()
        if options.ci:
            tally = _in_process([], CI_MINUTES)
            tally.add(_in_turn(start))
            return _end(tally)
        # Checks of every day are a boot or a lint each, parts of "debug" a boot. The other long ones use both cores by themselves.
        tally = run([check for check in chosen if check in CHECKS], config.hosts_side_by_side())
        tally.add(run([check for check in chosen if check in debug_tests.PARTS], config.jobs()))
        for check in chosen:
            if check in LONG_CHECKS and check not in debug_tests.PARTS:
                tally.add(run([check], 1))
        if module.STEP.fresh() and any(set(check.needs).intersection(tests.BOOT) for check in chosen):
            say(f"check: what ran was nvlink2-vfio-pci.ko with build id {module.build_id()}, on kernel {kernel.STEP.home().name}")
        say(f"check: {duration(time.monotonic() - start)} in all")
        return _end(tally)

    return cli.guarded("check", work)
