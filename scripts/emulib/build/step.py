# SPDX-License-Identifier: GPL-2.0
"""A step of the set-up: built once, and kept by the content of its inputs.

A step's product is in a folder of the cache that is named by the step and its key, `made/NAME/KEY`: the step's home.
What two checkouts of the project make of the same inputs is one product; where their inputs differ each has its own.
Inside of the build root the home that belongs to this checkout is always at `/made/NAME`, so that build systems find
the same paths again in a home that began as a copy of another.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import inspect
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, TextIO

from . import config, files, procs
from .config import Failure
from .log import Log, duration, say

__all__ = ["Log", "Step", "digest", "duration", "ensure_all", "locked", "say"]

# How many homes of a step stay: this checkout's, and what was used last of the others.
KEPT = 2
# How often one that waits for a lock looks again, in seconds.
LOOK_AGAIN = 0.2


def digest(*parts: str | bytes | Path) -> str:
    """A key made of texts and of the names and contents of files and folders."""
    result = hashlib.sha256()

    def add(data: bytes) -> None:
        result.update(len(data).to_bytes(8, "little"))
        result.update(data)

    for part in parts:
        if isinstance(part, Path):
            for file in files.below(part):
                add(str(file.relative_to(part.parent)).encode())
                add(b"x" if file.stat().st_mode & 0o100 else b"-")
                add(file.read_bytes())
        else:
            add(part.encode() if isinstance(part, str) else part)
    return result.hexdigest()[:32]


def _lock(handle: TextIO, how: int, what: str) -> None:
    """flock(), which says so when it has to wait, and ends when this program is to end: flock() in a thread would not."""
    waiting = False
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waiting:
                say(f"{what}: waiting for another run that works on it")
                waiting = True
            procs.sleep(LOOK_AGAIN)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other runs, and other threads of this one, out of what `name` stands for."""
    folder = config.cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with open(folder / name, "w", encoding="utf-8") as handle:
        _lock(handle, fcntl.LOCK_EX, name)
        yield


class Step:
    """One product of the set-up.

    `inputs` names the inputs by content; the file that `build` is defined in counts as one of them. `build` makes
    the product in the home and may be interrupted at any time: the stamp is written only after it returned, and what
    is there is gone on with. `products` are paths below the home. A new home begins with copies of the folders `seed`
    and `linked` of the one that was used last, if that is made of the same products of other steps; files of those in
    `linked` are shared by hard links, so that they must be replaced and not written to.
    """

    all: ClassVar[list["Step"]] = []

    def __init__(
        self,
        name: str,
        what: str,
        inputs: Callable[[], str],
        build: Callable[[Log], None],
        products: Iterable[str],
        needs: Iterable["Step"] = (),
        seed: Iterable[str] = (),
        linked: Iterable[str] = (),
    ):
        self.name = name
        self.what = what
        self._inputs = inputs
        self._recipe = Path(inspect.getsourcefile(build) or "")
        self._build = build
        self._products = tuple(products)
        self.needs = tuple(needs)
        self._seed = tuple(seed)
        self._linked = tuple(linked)
        self._own_key: str | None = None
        self._ready = False
        self._thread_lock = threading.Lock()
        self._lock_file: TextIO | None = None
        Step.all.append(self)

    @property
    def inner(self) -> str:
        """The home as the build root sees it."""
        return f"{config.ROOT_MADE}/{self.name}"

    def home(self) -> Path:
        """The folder of what this checkout's inputs make."""
        return config.cache_dir() / "made" / self.name / self.key()[:16]

    def path(self, number: int = 0) -> Path:
        """One of the products."""
        return self.home() / self._products[number]

    def ensured(self, number: int = 0) -> Path:
        """One of the products, made if it was not."""
        self.ensure()
        return self.path(number)

    def key(self) -> str:
        """The inputs of this step and of all it needs. Its own are read once a process."""
        if self._own_key is None:
            self._own_key = self._read_inputs()
        return digest(self._own_key, self._foundation())

    def _read_inputs(self) -> str:
        return digest(self._recipe, self._inputs())

    def _foundation(self) -> str:
        """What the other steps' products are made of, and which of several possible ones they are."""
        return digest(*(part for step in self.needs for part in (step.key(), step.outcome())))

    def outcome(self) -> str:
        """What a step that had a choice has chosen, by its own word; the file `outcome` in its home."""
        return files.text(self.home() / "outcome")

    @property
    def _stamp(self) -> Path:
        return self.home() / ".done"

    def fresh(self) -> bool:
        """Whether the product in the cache is complete."""
        home = self.home()
        return self._stamp.exists() and all((home / product).exists() for product in self._products)

    def ensure(self) -> None:
        """Make the product if it is missing. It stays in place until this process ends."""
        with self._thread_lock:
            if self._ready:
                return
            for step in self.needs:
                step.ensure()
            home = self.home()
            home.parent.mkdir(parents=True, exist_ok=True)
            # Shared for as long as it is used, exclusive for as long as it is made.
            with contextlib.ExitStack() as on_failure:
                lock = on_failure.enter_context(open(home.with_suffix(".lock"), "w", encoding="utf-8"))
                _lock(lock, fcntl.LOCK_SH, self.name)
                # From exclusive to shared there is a moment without a lock, in which another run may remove the home.
                while not self.fresh():
                    _lock(lock, fcntl.LOCK_EX, self.name)
                    if not self.fresh():
                        self._make()
                    _lock(lock, fcntl.LOCK_SH, self.name)
                os.utime(self._stamp)
                on_failure.pop_all()
            self._lock_file = lock
            self._ready = True

    def _make(self) -> None:
        say(f"{self.name}: {self.what}")
        start = time.monotonic()
        home = self.home()
        if not home.exists():
            self._start_from_another()
        home.mkdir(exist_ok=True)
        self._stamp.unlink(missing_ok=True)
        with Log(self.name, config.cache_dir() / "logs" / f"{self.name}-{home.name[:8]}.log") as log:
            self._build(log)
        # The key was read before the build read the same files.
        if self._read_inputs() != self._own_key:
            raise Failure(f"{self.name}: its inputs were changed while it was built. Run it again.")
        missing = [product for product in self._products if not (home / product).exists()]
        if missing:
            raise Failure(f"{self.name}: did not make {', '.join(missing)}; see {log.path}")
        self._stamp.write_text(self._foundation(), encoding="utf-8")
        say(f"{self.name}: done in {duration(time.monotonic() - start)}")
        self._remove_old()

    def _others(self) -> list[Path]:
        """The homes of other inputs, also those that were not finished: the last used first."""
        homes = [path for path in self.home().parent.glob("*") if path.is_dir() and path != self.home()]
        return sorted(homes, key=lambda home: files.date(home / ".done") or files.date(home), reverse=True)

    def _start_from_another(self) -> None:
        if not self._seed:
            return
        foundation = self._foundation()
        for other in self._others():
            with _try_lock(other, fcntl.LOCK_SH) as locked_now:
                if locked_now and files.text(other / ".done") == foundation:
                    files.copy_folders(other, self.home(), self._seed, self._linked)
                    return

    def _remove_old(self) -> None:
        for other in self._others()[KEPT - 1:]:
            self._forget(other)

    def _forget(self, home: Path) -> int:
        """Remove a home if nobody uses it; the bytes that this gave back, -1 if it is in use."""
        with _try_lock(home, fcntl.LOCK_EX) as locked_now:
            if not locked_now:
                return -1
            size = files.disk_usage(home)
            # Without its stamp it is nothing, should this be interrupted.
            (home / ".done").unlink(missing_ok=True)
            files.remove(home)
            return size

    def in_use(self) -> bool:
        """Whether another run uses or makes a product of this step."""
        homes = (lock.with_suffix("") for lock in self.home().parent.glob("*.lock"))
        for home in homes:
            with _try_lock(home, fcntl.LOCK_EX) as locked_now:
                if not locked_now:
                    return True
        return False

    def clean_others(self) -> None:
        """Remove the products of other inputs that are not in use, and say what that gives back."""
        others = self._others()
        freed = [self._forget(home) for home in others]
        if others:
            say(f"{self.name}: removed {sum(size >= 0 for size in freed)} of {len(others)} that are not of this checkout, "
                f"{sum(size for size in freed if size > 0) >> 20} MiB free again")

    def clean(self) -> None:
        """Remove this checkout's product, and say what that gives back."""
        home = self.home()
        if not home.exists():
            say(f"{self.name}: there is none of this checkout's inputs")
            return
        freed = self._forget(home)
        if freed < 0:
            raise Failure(f"{self.name}: {home} is used by another run. Wait for it, or end it.")
        say(f"{self.name}: removed, {freed >> 20} MiB free again")


def ensure_all(steps: Iterable[Step]) -> dict[Step, Failure]:
    """Ensure `steps` and what they need; those that can't be done, and why.

    They are made side by side, though most use all cores: one that waits for the network, or for its only compiler,
    leaves them to the others. What can't be done is said at once.
    """
    tasks: dict[Step, concurrent.futures.Future] = {}

    def work(step: Step) -> None:
        for need in step.needs:
            tasks[need].result()
        try:
            step.ensure()
        except Failure as failure:
            say(f"{failure}\n{step.name}: failed; what does not need it goes on")
            raise
        except Exception as error:
            say(traceback.format_exc())
            raise Failure(f"{step.name}: {error!r}, see above") from error

    def submit(step: Step) -> None:
        for need in step.needs:
            submit(need)
        if step not in tasks:
            tasks[step] = pool.submit(work, step)

    # A thread for each, as those wait that need others.
    with concurrent.futures.ThreadPoolExecutor(len(Step.all)) as pool:
        for step in steps:
            submit(step)
    broken: dict[Step, Failure] = {}
    for step, task in tasks.items():
        try:
            task.result()
        except Failure as failure:
            broken[step] = failure
    return broken


@contextlib.contextmanager
def _try_lock(home: Path, how: int) -> Iterator[bool]:
    """Whether the home's lock could be had; it is held in the meantime."""
    with open(home.with_suffix(".lock"), "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
