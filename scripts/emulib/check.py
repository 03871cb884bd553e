# SPDX-License-Identifier: GPL-2.0
"""Runs the checks of `lints` and `tests` and counts them."""

import argparse
import concurrent.futures
import time

from . import cli, client_tests, config, debug_tests, intree_builds, lints, package_tests, tests
from .config import Failure
from .report import Check, Result
from .step import duration, say

CHECKS: list[Check] = [*client_tests.CHECKS, *tests.CHECKS, *lints.CHECKS]
# Too long for each time: these run when they are named.
LONG_CHECKS: list[Check] = [*client_tests.LONG_CHECKS, *tests.LONG_CHECKS, *intree_builds.CHECKS, *package_tests.PARTS,
                            *debug_tests.LONG_CHECKS]
# Names of several.
SUMS = {**tests.SUMS, **package_tests.SUMS, **debug_tests.SUMS}


def _run(check: Check) -> tuple[Check, Result, float]:
    start = time.monotonic()
    try:
        result = check.run()
    except Failure as failure:
        result = Result.one(False, str(failure))
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


def main() -> int:
    """Run the program; return its exit status."""
    names = [*(check.name for check in CHECKS + LONG_CHECKS), *SUMS]
    parser = argparse.ArgumentParser(
        prog="check", description="Run the tests and lints of every day, or the named ones.",
        epilog="checks: " + ", ".join(check.name for check in CHECKS)
        + "; only when named: " + ", ".join(check.name for check in LONG_CHECKS)
        + "; of several: " + ", ".join(SUMS),
    )
    parser.add_argument("name", nargs="*", choices=[[], *names], metavar="CHECK")
    options = parser.parse_args()
    wanted = {*options.name, *(part.name for name in options.name for part in SUMS.get(name, []))}
    chosen = [check for check in CHECKS + LONG_CHECKS if check.name in wanted] if wanted else CHECKS

    start = time.monotonic()
    tally = Result()
    try:
        cli.ensure(cli.STEPS)
        say(f"check: set-up complete after {duration(time.monotonic() - start)}")
        # Longest first (the tables are in that order), as many side by side as there are cores.
        with concurrent.futures.ThreadPoolExecutor(config.jobs()) as pool:
            for done in concurrent.futures.as_completed([pool.submit(_run, c) for c in chosen]):
                check, result, spent = done.result()
                _print(check, result, spent)
                tally.add(result)
    except Failure as failure:
        say(f"check: {failure}")
        tally.add(Result.one(False, str(failure)))
    say(f"check: {duration(time.monotonic() - start)} in all")
    print(tally.line())
    return 1 if tally.failed or not tally.passed else 0
