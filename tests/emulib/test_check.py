# SPDX-License-Identifier: GPL-2.0
"""What becomes of checks that go wrong in other ways than by failing."""

import contextlib
import datetime
import io
import unittest
from unittest import mock

from emulib import check

from emulib.build import kernel
from emulib.checks import mutate, tests
from emulib.build.config import Failure, Unavailable
from emulib.checks.report import Check, Result
from emulib.build.step import Step


def raising(error: BaseException):
    """Something that raises `error`."""
    def run(*_: object) -> Result:
        raise error
    return run


class Checks(unittest.TestCase):
    """Run as scripts/check runs them."""

    def run_checks(self, *checks: Check) -> tuple[Result, str]:
        """The tally, and what was printed."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            return check.run(list(checks), 2), said.getvalue()

    def test_exception_is_one_failure_with_its_traceback(self) -> None:
        tally, said = self.run_checks(Check("bad", raising(ZeroDivisionError("by nothing"))), Check("good", lambda: Result.one(True)))
        self.assertEqual(tally.line(), "1 passed, 1 failed")
        self.assertIn("ZeroDivisionError: by nothing", said)
        self.assertIn("in run", said)

    def test_step_that_fails_fails_those_that_need_it(self) -> None:
        with mock.patch.object(Step, "all", []):
            step = Step("thing", "", lambda: "", lambda _: None, [])
            user = Step("user", "", lambda: "", lambda _: None, [], [step])
        with mock.patch.object(check.cli, "ALL_STEPS", [step, user]), \
                mock.patch.object(Step, "ensure", raising(Failure("thing: no"))):
            tally, said = self.run_checks(Check("bad", lambda: Result.one(True), [user]), Check("good", lambda: Result.one(True)))
        self.assertEqual(tally.line(), "1 passed, 1 failed")
        self.assertIn("thing: no", said)

    def test_only_long_checks_may_lack_packages(self) -> None:
        missing = Check("missing", raising(Unavailable("no archive has it")))
        tally, _ = self.run_checks(missing)
        self.assertEqual(tally.line(), "0 passed, 1 failed")
        with mock.patch.object(check, "LONG_CHECKS", [missing]), mock.patch.dict("os.environ", {"CI": "true"}):
            tally, said = self.run_checks(missing)
        self.assertEqual(tally.line(), "0 passed, 0 failed, 1 skipped")
        self.assertIn("no archive has it", said)


class Rotation(unittest.TestCase):
    """The long check of a day."""

    def test_each_has_its_turn(self) -> None:
        first = datetime.date(2026, 12, 1)
        days = [check.long_check_of(first + datetime.timedelta(day)) for day in range(len(check.ROTATION))]
        self.assertEqual(sorted(days), sorted(check.ROTATION))

    def test_all_are_known(self) -> None:
        names = {long.name for long in check.LONG_CHECKS} | set(check.SUMS)
        self.assertEqual([name for name in check.ROTATION if name not in names], [])

    def test_each_configuration_has_its_turn(self) -> None:
        first = datetime.date(2026, 12, 1)
        names = [tests.config_of(first + datetime.timedelta(day)) for day in range(len(tests.IN_TURN))]
        self.assertEqual(sorted(names), sorted(tests.IN_TURN))
        self.assertLessEqual(set(names), set(kernel.HEADERS))

    def test_left_out_without_time(self) -> None:
        said = io.StringIO()
        with mock.patch.object(check.procs, "spawn", raising(AssertionError("it was begun"))), contextlib.redirect_stderr(said):
            late = check.time.monotonic() - (check.CI_MINUTES - check.LONG_MINUTES + 1) * 60
            self.assertEqual(check._in_turn(late).line(), "0 passed, 0 failed")
        self.assertIn("is left out", said.getvalue())

    def test_what_does_not_end_is_killed_and_said_to_be_late(self) -> None:
        said = io.StringIO()
        with mock.patch.object(check, "TO_END", 0.3), contextlib.redirect_stdout(said):
            result = check.limited(["sh", "-c", "trap '' TERM; echo begun; sleep 60 & wait; wait"], 0.3)
        self.assertEqual(result.line(), "0 passed, 1 failed")
        self.assertIn("did not end within 0.3 s", result.text)
        self.assertEqual(said.getvalue(), "begun\n")

    def test_tally_of_what_ended_counts_and_is_not_printed(self) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            results = [check.limited(["sh", "-c", f"echo {line}; exit {status}"], 10).line() for line, status in (
                ("3 passed, 0 failed", 0), ("3 passed, 1 failed", 1), ("0 passed, 0 failed, 1 skipped", 0),
                ("3 passed, 0 failed", 1), ("", 0))]
        self.assertEqual(results, ["3 passed, 0 failed", "3 passed, 1 failed", "0 passed, 0 failed, 1 skipped",
                                   "0 passed, 1 failed", "0 passed, 1 failed"])
        self.assertEqual(said.getvalue().strip(), "")

    def test_each_part_of_ci_has_an_end(self) -> None:
        begun = []

        def limited(command: list[str], seconds: float) -> Result:
            begun.append((command[2:], seconds / 60))
            return Result.one(True)

        today = check.long_check_of(datetime.date.today())
        with mock.patch.object(check, "limited", limited), mock.patch.object(check.sys, "argv", ["check", "--ci"]), \
                contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(check.main(), 0)
        self.assertEqual(begun, [([], check.CI_MINUTES), ([today], check.MINUTES.get(today, check.LONG_MINUTES))])
        self.assertEqual(said.getvalue(), "2 passed, 0 failed\n")

    def test_a_long_check_may_have_a_limit_of_its_own(self) -> None:
        for name, minutes in (("intree", check.LONG_MINUTES), ("newest", 60)):
            with mock.patch.object(check, "long_check_of", lambda _, name=name: name), \
                    mock.patch.object(check, "limited") as limited, contextlib.redirect_stderr(io.StringIO()):
                limited.return_value = Result.one(True)
                check._in_turn(check.time.monotonic() - (check.CI_MINUTES - minutes - 1) * 60)
                self.assertEqual(limited.call_args.args[1], minutes * 60)
                limited.reset_mock()
                check._in_turn(check.time.monotonic() - (check.CI_MINUTES - minutes + 1) * 60)
                limited.assert_not_called()

    def test_parts_of_the_mutants_have_their_turn(self) -> None:
        self.assertEqual(mutate.TURN, len(check.ROTATION))
        first = datetime.date(2026, 12, 1)
        parts = {mutate.part_of(first + datetime.timedelta(turn * mutate.TURN)) for turn in range(mutate.PARTS)}
        self.assertEqual(len(parts), mutate.PARTS)


if __name__ == "__main__":
    unittest.main()
