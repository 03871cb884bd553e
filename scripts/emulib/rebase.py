# SPDX-License-Identifier: GPL-2.0
"""The kernel series on another tree: what applies, what is there already, and what fails. The command line of scripts/rebase."""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import cli
from .build import config, files, procs, series, sources
from .build.config import Failure
from .build.step import say

EMU = str(config.TREE / "scripts/emu")
NEWEST, SAME = "newest", "same"
# What format-patch writes: no number of other patches, no version of git, no commit that nobody has.
FORMAT = ["format-patch", "-q", "--no-numbered", "--zero-commit", "--no-signature", "--abbrev=7"]
WHO = {"GIT_COMMITTER_NAME": "rebase", "GIT_COMMITTER_EMAIL": "rebase@localhost",
       "GIT_AUTHOR_NAME": "rebase", "GIT_AUTHOR_EMAIL": "rebase@localhost"}


@dataclass
class Repository:
    """A repository with a work tree, and nobody's settings."""

    tree: Path

    def said(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run git, which may fail."""
        environment = {**os.environ, **WHO, **extra, "GIT_CONFIG_GLOBAL": os.devnull}
        return procs.said(["git", "-C", str(self.tree), *arguments], env=environment)

    def git(self, *arguments: str, **extra: str) -> str:
        """Run git; what it says."""
        done = self.said(*arguments, **extra)
        if done.returncode:
            raise Failure(f"git {' '.join(arguments[:3])} in {self.tree}: {done.stdout.strip()}")
        return done.stdout.strip()


def branch(number: int, part: series.Part) -> str:
    """The branch that ends with a part."""
    return f"part/{number:02}-{part.folder.replace('/', '-')}"


def _branches() -> list[tuple[series.Part, str]]:
    return [(part, branch(number, part)) for number, part in enumerate(series.parts(), 1)]


def write(repository: Repository, base: str, to: Path) -> None:
    """Write the patches between the branches of `repository` into the folders of the parts below `to`."""
    for part, tip in _branches():
        folder = to / part.folder
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.patch"):
            old.unlink()
        repository.git(*FORMAT, "-o", str(folder), f"{base}..{tip}")
        base = tip


def _newest(version: str) -> Path:
    """The newest Linux 7.3.N of the archives, which has to be `version` if that is one."""
    environment = {**os.environ, "NVLINK2_NEWEST": "1"}
    environment.pop("NVLINK2_LINUX", None)
    done = procs.said([sys.executable, EMU, "setup", sources.LINUX_STEP.name], env=environment)
    if done.returncode:
        raise Failure(f"the newest Linux can't be had: {done.stdout.strip()}")
    tree = Path(procs.said([sys.executable, EMU, "product", sources.LINUX_STEP.name], env=environment).stdout.strip())
    found = re.sub(r"^VERSION = (\d+)\nPATCHLEVEL = (\d+)\nSUBLEVEL = (\d+)\n.*", r"\1.\2.\3",
                   files.text(tree / "Makefile").partition("\n")[2], flags=re.DOTALL)
    if version not in (NEWEST, found):
        raise Failure(f"archives have Linux {found}, not {version}: name a source tree, or unpack one from elsewhere")
    return tree


def _target(what: str) -> Path:
    """The tree that a name stands for."""
    if Path(what).is_dir():
        return Path(what).resolve()
    if what == SAME:
        return sources.LINUX_STEP.path()
    if what == NEWEST or re.fullmatch(r"\d+\.\d+\.\d+", what):
        return _newest(what)
    raise Failure(f"{what} is neither a folder nor a version like 7.3.5, '{NEWEST}' or '{SAME}'")


def _commit_of(repository: Repository, tree: Path) -> str:
    """A commit of another tree: its HEAD, or all that is in it if it is no repository."""
    if (tree / ".git").exists():
        repository.git("fetch", "-q", "--no-tags", str(tree), "HEAD")
        return repository.git("rev-parse", "FETCH_HEAD")
    index = str(repository.tree / ".git/import")
    repository.git("--work-tree", str(tree), "add", "-A", "-f", ".", GIT_INDEX_FILE=index)
    made = repository.git("write-tree", GIT_INDEX_FILE=index)
    return repository.git("commit-tree", "-m", f"{tree.name}", made)


@dataclass
class Outcome:
    """What became of the patches."""

    applied: int = 0
    there: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def _pick(repository: Repository, commit: str, patch: str, failed: Path, outcome: Outcome) -> None:
    done = repository.said("cherry-pick", commit)
    if not done.returncode:
        outcome.applied += 1
        return
    conflicts = repository.git("diff", "--name-only", "--diff-filter=U").split()
    if not conflicts and not repository.git("status", "--porcelain", "--untracked-files=no"):
        repository.git("cherry-pick", "--skip")
        outcome.there.append(patch)
        return
    report = failed / f"{patch}.diff"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(repository.git("diff") + "\n", encoding="utf-8")
    outcome.failed.append(f"{patch}: {', '.join(conflicts) or done.stdout.strip()}")
    repository.git("cherry-pick", "--abort")


def rebase(what: str, out: Path) -> Outcome:
    """Put the series onto another tree, in the new folder `out`: linux has both, kernel the patches, failed the conflicts."""
    if out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty: two results would mix. Name another folder.")
    tree = _target(what)
    out.mkdir(parents=True, exist_ok=True)
    repository = Repository(out.resolve() / "linux")
    done = procs.said(["git", "clone", "-q", "--shared", str(sources.LINUX_STEP.path()), str(repository.tree)])
    if done.returncode:
        raise Failure(done.stdout.strip())
    # The commits on the tree that they are made for: only of these git knows what a patch was made of.
    commits: list[tuple[str, str]] = []
    repository.git("checkout", "-q", "-B", "made-for", "HEAD")
    repository.git("tag", "base")
    for part, tip in _branches():
        repository.git("am", "-q", "--empty=drop", *map(str, part.patches()))
        made = repository.git("rev-list", "--reverse", f"{commits[-1][0] if commits else 'base'}..HEAD").split()
        commits += zip(made, (f"{part.folder}/{patch.name}" for patch in part.patches()), strict=True)
        repository.git("branch", tip)
    if what == SAME:
        say(f"rebase: {repository.tree} has the {len(commits)} patches as commits, and a branch for each part")
        return Outcome(applied=len(commits))
    base = _commit_of(repository, tree)
    repository.git("tag", "-f", "base", base)
    repository.git("checkout", "-q", "-B", "rebased", base)
    outcome = Outcome()
    patches = iter(commits)
    for part, tip in _branches():
        for _ in part.patches():
            _pick(repository, *next(patches), out / "failed", outcome)
        repository.git("branch", "-f", tip)
    write(repository, "base", out / "kernel")
    return outcome


def take(out: Path) -> None:
    """Write what was edited in the folder of an earlier run back to scripts/kernel."""
    write(Repository(out / "linux"), "base", series.HOME)
    say(f"rebase: {series.HOME.relative_to(config.TREE)} has the patches of {out}; git status says which changed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rebase",
        description="Apply the parts of the kernel series to another tree, patch by patch, and list what fails. OUT/linux is a "
        "repository with both: branch made-for, branch rebased, and a branch for each part; OUT/kernel has the patches that "
        "apply, OUT/failed the conflicts of those that do not. Nothing of the project changes.",
        epilog="exit status: 0 all apply, or are there already; 1 some do not, which are listed, or it could not be tried; 2 usage",
    )
    parser.add_argument("tree", metavar="TREE", help="a source tree or repository of Linux, a version like 7.3.5, "
                        f"'{NEWEST}' for what archives have, or '{SAME}' for the one that the series is made for")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is new or empty")
    parser.add_argument("--take", action="store_true",
                        help="write the patches of OUT back to scripts/kernel instead, after 'git rebase -i --update-refs base' there; "
                        "TREE has to be what it was made with")
    return parser


def _work(options: argparse.Namespace) -> int:
    if options.take:
        take(options.out)
        return 0
    cli.ensure([sources.LINUX_STEP])
    outcome = rebase(options.tree, options.out)
    for patch in outcome.there:
        say(f"rebase: is there already: {patch}")
    for line in outcome.failed:
        say(f"rebase: FAILS: {line}")
    say(f"rebase: {outcome.applied} apply, {len(outcome.there)} are there already, {len(outcome.failed)} fail; see {options.out}")
    return 1 if outcome.failed else 0


def main() -> int:
    """Run the program; return its exit status."""
    options = _parser().parse_args()
    return cli.guarded("rebase", lambda: _work(options))
