# SPDX-License-Identifier: GPL-2.0
"""The patches for QEMU as others take them, and their own tests."""

import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

from ..build import archive, config, enter, files, procs, qemu_client, root, sources
from ..build.archive import Archive
from ..build.config import Failure
from ..build.step import Log, locked, say
from .report import Check, Result, tail

# Applies the patches "$@" to Debian's source as a maintainer would, and has QEMU's own checkpatch look at each.
REVIEW = """
git clone -q --shared "$0" /tmp/review
cd /tmp/review
git config user.name review
git config user.email review@localhost
git am -q "$@"
scripts/checkpatch.pl --strict --branch origin/HEAD..
"""


def review() -> Result:
    """The patches for QEMU apply with git am, and QEMU's checkpatch is content with each."""
    inner = [f"{config.ROOT_TREE}/{patch.relative_to(config.TREE)}" for patch in qemu_client.patches()]
    done = procs.said(enter.inside(["bash", "-euc", REVIEW, sources.QEMU_TREE, *inner]))
    return Result.one(done.returncode == 0, tail(done.stdout, 80))


def write_series(out: Path) -> None:
    """Copy the patches and their cover letter to the folder `out`, which must be new or empty, if they apply.

    Those for other releases than 10.0 go to folders in it.
    """
    if out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty: series of two versions would mix. Name another folder.")
    if (result := review()).failed:
        raise Failure(f"{result.text}\n{sources.moved_qemu()}")
    for release in qemu_client.releases():
        folder = out if release == qemu_client.RELEASE else out / release
        folder.mkdir(parents=True, exist_ok=True)
        for patch in [*qemu_client.SERIES.glob("*cover-letter.patch"), *qemu_client.patches(release)]:
            shutil.copy(patch, folder)
        say(f"qemu-series: {len(list(folder.glob('*.patch')))} files in {folder}, for QEMU {release}")


def _qtests(build: str) -> Result:
    """What of QEMU's own tests is about the series, on the QEMU that was built in the folder `build` of the root."""
    run = "\n".join(f"QTEST_QEMU_BINARY=./qemu-system-ppc64 {test} --tap -k || status=1" for test in qemu_client.QTESTS)
    done = procs.said(enter.inside(["sh", "-c", f"status=0\n{run}\nexit $status"], workdir=build))
    return Result.tap(done.returncode, done.stdout)


def native() -> Result:
    """The series' own test of the pseries machine, and QEMU's of NUMA nodes, on this machine."""
    return _qtests(f"{qemu_client.NATIVE_STEP.inner}/build")


# Where the newest QEMU is, in order. Of those that a suite lists, old ones can be had when new ones can't.
NEWEST_SUITES = ["testing", "sid"]
HUNK = re.compile(r"^Hunk #\d+ (?:(FAILED|ignored) at \d+|succeeded at \d+(?: (with fuzz \d+))?(?: (\(offset -?\d+ lines?\)))?)", re.MULTILINE)


def hunks(patch: str, said: str) -> Counter[str]:
    """How many hunks of a patch are in place, moved, fuzzy or refused, by what `patch --verbose` said."""
    counted = Counter("refused" if failed else "fuzzy" if fuzz else "moved" if offset else "in place"
                      for failed, fuzz, offset in HUNK.findall(said))
    # Of a file that is not there it says nothing of each.
    counted["refused"] += len(re.findall(r"^@@ ", patch, re.MULTILINE)) - counted.total()
    return counted


def _count(counted: Counter[str]) -> str:
    return ", ".join(f"{counted[kind]} {kind}" for kind in ("in place", "moved", "fuzzy", "refused"))


def newest() -> Result:
    """How many hunks of the patches for QEMU move on the newest QEMU of Debian testing, and whether their own test passes there."""
    with locked("qemu-newest"), Log("qemu-newest", config.cache_dir() / "logs/qemu-newest.log") as log:
        folder = config.scratch() / "qemu-newest"
        try:
            return _newest(log, folder)
        finally:
            files.remove(folder)


def _fetch_newest(log: Log, folder: Path) -> str:
    """Unpack the newest QEMU as `source` in a folder, and say which it is."""
    def go(suite: str, place: Archive) -> str:
        files.remove(folder)
        folder.mkdir(parents=True)
        sources.shell(log, f"""
            {archive.apt([place.line(suite, "deb-src")])}
            mkdir -p /tmp/newest {config.inner(folder)}/source && cd /tmp/newest
            listed=$(apt-cache showsrc --only-source qemu 2>/dev/null | sed -n 's/^Version: //p' | sort -ruV)
            [ "$listed" ] || {{ echo "E: qemu is not there"; exit 1; }}
            got=
            for version in $listed; do
                if apt-get -q source --download-only "qemu=$version"; then got=$version; break; fi
            done
            [ "$got" ]
            tar -xf qemu_*.orig.tar.xz --strip-components=1 -C {config.inner(folder)}/source
            echo "$got" > {config.inner(folder)}/version
        """, network=True)
        return f"QEMU {files.text(folder / 'version').strip()} of {suite}"

    return archive.take(log, [way for suite in NEWEST_SUITES for way in archive.ways(
        f"the newest QEMU, {suite}", archive.archives(suite), partial(go, suite))], archive.VARIABLES)


def _newest(log: Log, folder: Path) -> Result:
    got = _fetch_newest(log, folder)
    release = re.search(r"(\d+\.\d+)\.", got)
    if not release:
        raise Failure(f"qemu-newest: {got} has a version of another form than 10.2.2")
    inner = config.inner(folder)
    total: Counter[str] = Counter()
    lines = []
    for patch in qemu_client.patches(release[1]):
        done = procs.said(enter.inside(
            ["sh", "-c", 'LC_ALL=C patch --verbose -p1 -N -r - --no-backup-if-mismatch < "$0"',
             f"{config.ROOT_TREE}/{patch.relative_to(config.TREE)}"], workdir=f"{inner}/source"))
        counted = hunks(files.text(patch), done.stdout)
        total += counted
        lines.append(f"{patch.relative_to(qemu_client.SERIES)}: {_count(counted)}")
    found = "\n".join([f"on {got}: {_count(total)}", *lines])
    say(f"qemu-newest: {found}")
    result = Result.one(0 < total["in place"] and not total["refused"],
                        f"{found}\nWhat is refused has to be ported: scripts/qemu/RELEASE has what is of one release only.")
    if not result.failed:
        # An overlay, as for 10.0: what of devices there is.
        shutil.copytree(qemu_client.DEVICES, folder / "source", dirs_exist_ok=True)
        qemu_client.make_native(log, inner)
        result.add(_qtests(f"{inner}/build"))
    return result


CHECKS = [Check("qemu-series", review, [sources.QEMU_STEP])]
LONG_CHECKS = [Check("qemu-native", native, [qemu_client.NATIVE_STEP]), Check("qemu-newest", newest, [root.STEP, sources.QEMU_STEP])]
