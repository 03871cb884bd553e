# SPDX-License-Identifier: GPL-2.0
"""Where packages come from: Debian archives, and the ways to get one thing, which are tried in order."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from . import config, enter, procs
from .config import Failure, Unavailable
from .log import Log, say

# Releases whose packages may have moved to an archive of old releases.
OLD_SUITES = ("bullseye", "bookworm")

# The remedy where no archive has it.
VARIABLES = ("Other archives can be named: NVLINK2_DEBIAN_MIRROR, NVLINK2_OLD_MIRROR (of old releases), "
             "NVLINK2_SNAPSHOT (as of a date). One that is being synchronised may have it in an hour.")


@dataclass(frozen=True)
class Archive:
    """A Debian archive: what it is called, and its address.

    The address is that of a line in sources.list: options in brackets may stand before it. Of a `dated` one
    the Release files may expire; apt refuses them from then on.
    """

    name: str
    address: str
    dated: bool = True

    def line(self, suite: str, kind: str = "deb", architecture: str = "") -> str:
        """The line of sources.list for a suite."""
        options, address = re.fullmatch(r"(?:\[([^]]*)\]\s*)?(.*)", self.address.strip()).groups()  # type: ignore[union-attr]
        words = (options or "").split()
        if architecture:
            words.append(f"arch={architecture}")
        if not self.dated:
            words.append("check-valid-until=no")
        return " ".join([kind, *([f"[{' '.join(words)}]"] if words else []), address, suite, "main"])


KNOWN = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages"]


def mirror() -> Archive | None:
    """The archive of current releases: NVLINK2_DEBIAN_MIRROR, what this machine's apt uses, what the root is from."""
    if address := config.mirror_override():
        return Archive("the Debian archive", address)
    for command in (KNOWN, enter.inside(KNOWN)):
        for line in procs.run(command, capture_output=True, text=True).stdout.splitlines():
            uri, *origin = line.split()
            # Before the first `apt-get update` apt knows no origin, only the address.
            if origin == ["Debian", "Debian"] or uri.rstrip("/").endswith("/debian"):
                return Archive("the Debian archive", uri)
    return None


def snapshots() -> list[Archive]:
    """The archive as of a date, if the user named one. What it holds expired long ago, so its date means nothing."""
    address = config.snapshot_override()
    return [Archive("the archive of NVLINK2_SNAPSHOT", address, dated=False)] if address else []


def archives(suite: str) -> list[Archive]:
    """Where to look for a suite, in order."""
    address = config.old_mirror_override()
    old = [Archive("the archive of NVLINK2_OLD_MIRROR", address)] if address else []
    current = [place] if (place := mirror()) else []
    found = [*(old + current if suite in OLD_SUITES else current + old), *snapshots()]
    if not found:
        raise Failure("this machine's apt configuration names no Debian archive. Set NVLINK2_DEBIAN_MIRROR to the address "
                      "of one (the value of a 'URIs:' line).")
    return found


@dataclass(frozen=True)
class Way:
    """A way to get something. `what` says what is tried; `go` does it and returns what it got, in words."""

    what: str
    go: Callable[[], str]
    # The same without a look at the date, for a Release file that expired.
    undated: Callable[[], str] | None = None


def ways(what: str, places: Iterable[Archive], go: Callable[[Archive], str]) -> Iterator[Way]:
    """The same in each of several archives."""
    for place in places:
        later = partial(go, replace(place, dated=False)) if place.dated else None
        yield Way(f"{what} of {place.name}", partial(go, place), later)


EXPIRED = re.compile(r"is expired|not valid (?:yet|anymore)|Valid-Until")
# What a mirror says while it is being synchronised, or the network while it is away. It may pass.
PASSING = re.compile(r"Hash Sum mismatch|unexpected size|[Ss]ync in progress|\b404\b|Could not (?:connect|resolve)|"
                     r"Temporary failure|[Tt]imed out|Connection")
# What archives say of what they do not have, or not in a version that is known to work.
LACKING = re.compile(r"Unable to locate|was not found|not among|not there|no installation candidate|known to work|"
                     r"does not have a Release file|not signed|unmet dependencies")
ROUNDS = 3
PAUSE = 30


def take(log: Log, choices: Iterable[Way], remedy: str) -> str:
    """Go the first way that gets somewhere; what it got, in words. `remedy` is for the user when there is none."""
    choices = list(choices)
    for attempt in range(1, ROUNDS + 1):
        reasons: list[str] = []
        got = _round(log, choices, reasons)
        if got:
            return got
        if attempt < ROUNDS and any(PASSING.search(reason) for reason in reasons):
            say(f"{log.name}: this may pass; all ways again in {PAUSE} s, round {attempt + 1} of {ROUNDS}")
            procs.sleep(PAUSE)
        else:
            break
    # What no archive is known to say may be our own fault, which nobody may take for an archive's.
    theirs = all(any(pattern.search(reason) for pattern in (EXPIRED, PASSING, LACKING)) for reason in reasons)
    kind = Unavailable if theirs else Failure
    raise kind(f"{log.name}: there is no way left to get it.\n" + "\n".join(reasons)
               + f"\nThe whole log is {log.path}. {remedy}")


def _round(log: Log, choices: list[Way], reasons: list[str]) -> str:
    """Go each way once, until one gets somewhere. `reasons` receives why the others did not."""
    left = list(choices)
    number = 0
    while left:
        way = left.pop(0)
        number += 1
        here = f"way {number} of {number + len(left)}"
        before = log.path.stat().st_size
        try:
            got = way.go()
        except Failure as failure:
            if config.NO_ROOM in str(failure):
                raise
            why = reason(str(failure))
            reasons.append(f"  {number}. {way.what}: {why}")
            say(f"{log.name}: {here}, {way.what}, failed: {why}")
            if way.undated and EXPIRED.search(why):
                left.append(Way(f"{way.what}, whose date is not checked", way.undated))
            continue
        say_warnings(log, before)
        say(f"{log.name}: using {got}, {here}: {way.what}")
        return got
    return ""


# What says less than the errors that it stands beside.
LESS = re.compile(r"E: (?:Some (?:index )?files|Unable to fetch|Failed to fetch some|Unable to find a source|"
                  r"Couldn't find any package by|apt|mmdebstrap)|The whole log is")
STALE = "W: no new package index: "


def reason(text: str) -> str:
    """Why a step failed, in a line or two, from the text of its failure."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not LESS.match(line)]
    index = [line for line in lines if line.startswith(STALE)]
    errors = [line for line in lines if line.startswith("E: ")] or ([] if index else lines)
    return "; ".join(line.removeprefix("E: ").removeprefix("W: ") for line in dict.fromkeys([*index[-1:], *errors[-2:]]))


def say_warnings(log: Log, start: int = 0) -> None:
    """Say what update() warned of in the log, from its byte `start` on."""
    for line in log.path.read_bytes()[start:].decode(errors="replace").splitlines():
        if line.startswith(STALE):
            say(f"{log.name}: using the package index of the last good update, as there is {line.removeprefix('W: ')}")


def update(stale: bool = True) -> str:
    """A script for the root that has apt fetch its indexes.

    apt keeps the last good one when a mirror answers with a half-synchronised one; that is used if it may be `stale`.
    """
    folder = f"{config.ROOT_CACHE}/apt"
    # Two steps may do this at the same time.
    return f"""
mkdir -p {folder}
if ! said=$(flock {folder}/lock apt-get -q update -o APT::Update::Error-Mode=any 2>&1); then
    printf '%s\\n' "$said"
    echo "{STALE if stale else 'E: '}$(printf '%s\\n' "$said" | sed -n '/^E: Some/d; s/^E: //p' | head -n 2 | paste -s -d ' ')"
    {'' if stale else 'exit 1'}
fi
"""


# Indexes are kept in the cache, under names that are made of address and suite.
LISTS = f"{config.ROOT_CACHE}/apt/lists"
APT_CONF = f"""\
Dir::Etc::SourceList "/tmp/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "{LISTS}";
Dir::Cache "/tmp/apt/cache";
Acquire::Languages "none";
APT::Get::List-Cleanup "false";
"""


def apt(lines: Iterable[str]) -> str:
    """The beginning of a script for the root, after which apt knows the sources `lines` and nothing else.

    The root's own sources are those of its making, and one bad index of them would spoil it for all.
    """
    return f"""
mkdir -p /tmp/apt {LISTS}
printf '%s\\n' {shlex.join(lines)} > /tmp/apt/sources.list
printf %s {shlex.quote(APT_CONF)} > /tmp/apt/apt.conf
# What was fetched for the root need not be fetched again.
cp -r --update=none /var/lib/apt/lists/. {LISTS} 2>/dev/null || true
mkdir -p {LISTS}/partial
export APT_CONFIG=/tmp/apt/apt.conf
{update(stale=not config.newest())}
"""
