# SPDX-License-Identifier: GPL-2.0
"""Products of steps: each has a place by its inputs, that nobody takes away while it is used."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from emulib import cli

from emulib.build import config
from emulib.build.config import Failure
from emulib.build.step import KEPT, Log, Step

MODULE = """
def build(log):
    pass
"""


class Homes(unittest.TestCase):
    """In a cache of their own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = Path(folder.name)
        for patch in (mock.patch.dict(os.environ, {"XDG_CACHE_HOME": folder.name}), mock.patch.object(Step, "all", [])):
            patch.start()
            self.addCleanup(patch.stop)
        self.said = io.StringIO()
        quiet = contextlib.redirect_stderr(self.said)
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    def step(self, inputs: str, build: Callable[[Path], None] | None = None, **options) -> Step:
        """A step that writes its inputs into its product, one of several checkouts'."""
        def make(_: Log) -> None:
            (build or (lambda home: (home / "product").write_text(inputs, encoding="utf-8")))(step.home())

        step = Step("thing", "making it", lambda: inputs, make, ["product"], **options)
        return step

    def test_products_of_other_inputs_stay(self) -> None:
        ours, theirs = self.step("ours"), self.step("theirs")
        ours.ensure()
        theirs.ensure()
        self.assertEqual(ours.path().read_text(encoding="utf-8"), "ours")
        self.assertEqual(theirs.path().read_text(encoding="utf-8"), "theirs")

    def test_equal_inputs_are_one_product(self) -> None:
        built: list[Path] = []

        def build(home: Path) -> None:
            built.append(home)
            (home / "product").touch()

        self.step("same", build).ensure()
        self.step("same", build).ensure()
        self.assertEqual(len(built), 1)

    def test_recipe_is_an_input(self) -> None:
        keys = set()
        for comment in ("", "# another way to do it\n"):
            path = self.cache / "recipe.py"
            path.write_text(MODULE + comment, encoding="utf-8")
            names: dict = {}
            exec(compile(MODULE, str(path), "exec"), names)  # pylint: disable=exec-used
            keys.add(Step("thing", "", lambda: "", names["build"], []).key())
        self.assertEqual(len(keys), 2)

    def test_needs_are_inputs(self) -> None:
        keys = {self.step("same", needs=[self.step(need)]).key() for need in ("one", "two")}
        self.assertEqual(len(keys), 2)

    def test_what_a_need_has_chosen_is_an_input(self) -> None:
        need = self.step("need")
        user = self.step("user", needs=[need])
        need.ensure()
        before = user.key()
        (need.home() / "outcome").write_text("the second way", encoding="utf-8")
        self.assertNotEqual(user.key(), before)

    def test_interrupted_is_gone_on_with(self) -> None:
        def interrupted(home: Path) -> None:
            (home / "half").touch()
            raise KeyboardInterrupt

        step = self.step("same", interrupted)
        self.assertRaises(KeyboardInterrupt, step.ensure)
        self.assertFalse(step.fresh())
        found: list[bool] = []

        def build(home: Path) -> None:
            found.append((home / "half").exists())
            (home / "product").touch()

        again = self.step("same", build)
        again.ensure()
        self.assertEqual(found, [True])
        self.assertTrue(again.fresh())

    def test_without_its_product_it_failed(self) -> None:
        step = self.step("same", lambda _: None)
        self.assertRaisesRegex(Failure, "thing: did not make product", step.ensure)
        self.assertFalse(step.fresh())

    def test_begins_as_a_copy(self) -> None:
        def build(home: Path) -> None:
            self.assertEqual([path.name for path in home.iterdir()], [])
            for name in ("shared", "own", "other"):
                (home / name).mkdir()
                (home / name / "file").touch()
            (home / "product").touch()

        first = self.step("first", build, seed=["own"], linked=["shared"])
        first.ensure()
        second = self.step("second", lambda home: (home / "product").touch(), seed=["own"], linked=["shared"])
        second.ensure()
        self.assertFalse((second.home() / "other").exists())
        inodes = [[(step.home() / name / "file").stat().st_ino for step in (first, second)] for name in ("shared", "own")]
        self.assertEqual(inodes[0][0], inodes[0][1])
        self.assertNotEqual(inodes[1][0], inodes[1][1])

    def test_begins_anew_on_another_foundation(self) -> None:
        def build(home: Path) -> None:
            self.assertFalse((home / "tree").exists())
            (home / "tree").mkdir()
            (home / "product").touch()

        for need in ("one", "two"):
            self.step("same", build, seed=["tree"], needs=[self.step(need)]).ensure()

    def test_old_ones_go(self) -> None:
        steps = [self.step(str(number)) for number in range(KEPT + 2)]
        for step in steps:
            step.ensure()
            # Whoever made it has ended.
            step._lock_file.close()  # type: ignore[union-attr]
        self.assertEqual([step.home().exists() for step in steps], [False, False, *[True] * KEPT])

    def test_what_is_used_stays(self) -> None:
        steps = [self.step(str(number)) for number in range(KEPT + 2)]
        for step in steps:
            step.ensure()
        self.assertTrue(all(step.home().exists() for step in steps))

    def test_clean_says_what_it_frees(self) -> None:
        step = self.step("same", lambda home: (home / "product").write_bytes(bytes(3 << 20)) and None)
        step.ensure()
        step._lock_file.close()  # type: ignore[union-attr]
        self.step("same").clean()
        self.assertFalse(step.home().exists())
        self.assertIn("thing: removed, 3 MiB free again", self.said.getvalue())

    def test_clean_of_what_is_used_is_refused(self) -> None:
        step = self.step("same")
        step.ensure()
        self.assertRaisesRegex(Failure, "is used by another run", self.step("same").clean)
        self.assertTrue(step.fresh())

    def test_edit_during_the_build_is_no_product(self) -> None:
        inputs = ["old"]
        step = Step("thing", "", lambda: inputs[0], lambda _: (inputs.append("new"), inputs.pop(0),
                                                               (step.home() / "product").touch()) and None, ["product"])
        self.assertRaisesRegex(Failure, "thing: its inputs were changed while it was built", step.ensure)
        self.assertFalse(step.fresh())

    def test_unfinished_ones_go(self) -> None:
        def fails(home: Path) -> None:
            (home / "half").touch()
            raise Failure("no")

        steps = [self.step(str(number), fails) for number in range(KEPT)]
        for step in steps:
            self.assertRaises(Failure, step.ensure)
        self.step("good").ensure()
        self.assertEqual(sum(step.home().exists() for step in steps), KEPT - 1)

    def test_several_are_cleaned_though_one_tells_where_the_other_is(self) -> None:
        need = self.step("need")
        user = Step("user", "", lambda: "", lambda _: (user.home() / "product").touch(), ["product"], [need])
        need.ensure()
        (need.home() / "outcome").write_text("the second way", encoding="utf-8")
        user.ensure()
        homes = [step.home() for step in (need, user)]
        for step in (need, user):
            step._lock_file.close()  # type: ignore[union-attr]
        with mock.patch.object(cli, "ALL_STEPS", [need, user]):
            cli._clean(["thing", "user"], False)
        self.assertEqual([home.exists() for home in homes], [False, False])

    def test_full_disk_is_said_as_such(self) -> None:
        def build(_: Path) -> None:
            with Log("thing", self.cache / "log") as log:
                log.run(["sh", "-c", "echo 'cp: error writing: No space left on device'; exit 1"])

        self.assertRaisesRegex(Failure, "The disk is full: .* has [0-9]+ MiB free", self.step("same", build).ensure)


GUARDED = """
import sys
from emulib import cli
from emulib.build import config
sys.exit(cli.guarded("emu", lambda: open("/dev/full", "w").write("x" * 100000)))
"""


class FullDisk(unittest.TestCase):
    """Where this program itself writes."""

    def test_is_said_as_such(self) -> None:
        done = subprocess.run([sys.executable, "-B", "-c", GUARDED], capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(config.TREE / "scripts")})
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"^emu: No space left on device: .* The disk is full: ")


if __name__ == "__main__":
    unittest.main()
