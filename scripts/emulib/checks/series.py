# SPDX-License-Identifier: GPL-2.0
"""That the parts of the kernel series are what scripts/kernel/order.toml says of them."""

import re
import tempfile
from pathlib import Path

from ..build import config, enter, files, initrd, kernel, module, procs, programs, qemu, series, sources
from ..build.series import Part
from ..build.step import Log, locked, say
from ..host.machines import REDBUD_HALF
from . import intree_builds, mutate, tests
from .report import Check, Result, tail

README = series.HOME / "README.md"
# What of patches a driver's user must have, at most.
NEEDED = 24

# Writes the tree that the patches "$@" make of Debian's source to the index, and says its name.
APPLY = """
git clone -q --shared --bare "$0" "$1/git"
cd "$1/git"
shift
git read-tree HEAD
git apply --cached --whitespace=nowarn "$@"
"""


def _inner(patches: list[Path]) -> list[str]:
    return [f"{config.ROOT_TREE}/{patch.relative_to(config.TREE)}" for patch in patches]


def closure(part: Part, parts: dict[str, Part]) -> list[Part]:
    """A part and all that it needs, in the order in which they apply."""
    wanted = {part.folder}
    for other in reversed(parts.values()):
        if other.folder in wanted:
            wanted.update(other.after)
    return [other for other in parts.values() if other.folder in wanted]


def misfits(parts: list[Part]) -> list[str]:
    """What in scripts/kernel does not fit its order file, cover letters and README."""
    found = []
    listed = [part.folder for part in parts]
    there = {str(path.parent.relative_to(series.HOME)) for path in series.HOME.rglob("*.patch")}
    found += [f"{folder} has patches, but no entry" for folder in sorted(there - set(listed))]
    found += [f"{folder} is listed {listed.count(folder)} times" for folder in sorted(set(listed)) if listed.count(folder) > 1]
    readme = files.text(README)
    for number, part in enumerate(parts):
        patches = part.patches()
        found += [f"{part.folder} comes before {other}, which it needs" for other in part.after if other not in listed[:number]]
        if [int(patch.name[:4]) for patch in patches] != list(range(1, len(patches) + 1)) or not patches:
            found.append(f"{part.folder}: its patches are not numbered from 1 on")
        if not re.match(r"\S.*\n\n\S", files.text(part.home / series.COVER)):
            found.append(f"{part.folder}: no {series.COVER} with a subject, an empty line and a text")
        for beginning in part.needed if isinstance(part.needed, list) else []:
            if sum(series.name(patch).startswith(beginning) for patch in patches) != 1:
                found.append(f"{part.folder}: '{beginning}' is not the beginning of one patch's name")
        found += [f"{README.name} says nothing of {part.folder}/{patch.name}" for patch in patches
                  if series.name(patch) not in readme]
    if len(series.necessary()) > NEEDED:
        found.append(f"{len(series.necessary())} patches are needed; {NEEDED} is what was meant to be the most")
    return found


def lint() -> Result:
    """The order of the kernel series is complete, and each part and the needed patches apply without the others."""
    parts = {part.folder: part for part in series.parts()}
    result = Result.one(not (found := misfits(list(parts.values()))), "\n".join(found))
    sets = {f"{folder} with what it needs": [patch for other in closure(part, parts) for patch in other.patches()]
            for folder, part in parts.items()}
    for what, patches in {**sets, "what is needed": series.necessary()}.items():
        with tempfile.TemporaryDirectory(dir=config.scratch()) as folder:
            done = procs.said(enter.inside(["bash", "-euc", APPLY, sources.LINUX_TREE, config.inner(Path(folder)), *_inner(patches)]))
        result.add(Result.one(done.returncode == 0, f"{what}: {tail(done.stdout, 5)}"))
    return result


def _tree(log: Log, home: Path, patches: list[Path]) -> None:
    """Make the copy of the kernel's source what these patches give."""
    kernel.retree(log, sources.LINUX_STEP, home / "linux", patches, sources.moved_linux())


def _over(home: Path) -> dict[str, str]:
    """The copies, at the places of their originals, so that little is built anew."""
    return {config.inner(home / "linux"): kernel.HOST.source, config.inner(home / "build"): kernel.HOST.build}


def _home(name: str) -> Path:
    """The folder of source and build, which begin as copies of those of the kernel with all patches."""
    home = config.scratch() / name
    if files.text(home / "of") != kernel.STEP.key():
        files.remove(home)
        files.copy_folders(kernel.STEP.home(), home, ["build"], ["linux"])
        (home / "of").write_text(kernel.STEP.key(), encoding="utf-8")
    return home


def _objects(part: Part) -> list[str]:
    """What the files are compiled into that the part changes."""
    texts = [patch.read_text(encoding="utf-8") for patch in part.patches()]
    changed = {match[1] for text in texts for match in re.finditer(r"^\+\+\+ b/(\S+\.(?:c|S|rs))$", text, re.MULTILINE)}
    return sorted({intree_builds.compiled_into(file) for file in changed})


def parts() -> Result:
    """Each part of the kernel series, with what it needs and nothing else: what it changes compiles, without a warning."""
    result = Result()
    everything = {part.folder: part for part in series.parts()}
    with locked("series-parts"), Log("series-parts", config.cache_dir() / "logs/series-parts.log") as log:
        home = _home("series-parts")
        for folder, part in everything.items():
            _tree(log, home, [patch for other in closure(part, everything) for patch in other.patches()])
            done = procs.said(enter.inside(["bash", "-euc", f"{kernel.HOST.make} {' '.join(_objects(part))}"], over=_over(home)))
            warnings = re.findall(r"^.*:\d+.*warning.*$", done.stdout, re.MULTILINE)
            one = Result.one(done.returncode == 0 and not warnings, f"{folder}: {tail(done.stdout)}")
            say(f"series-parts: {folder}: {one.line()}")
            result.add(one)
    return result


def _packed(log: Log, home: Path) -> list[str]:
    """Build kernel and module of the source in `home`; the options that boot them."""
    install, out = (config.inner(home / name) for name in ("install", "module"))
    tree = config.inner(mutate.copied(home, module.INPUTS))
    log.run(enter.inside(["bash", "-euc", f"""
        {kernel.HOST.make} vmlinux modules
        rm -rf {install}
        {kernel.HOST.make} INSTALL_MOD_PATH={install} modules_install
        cd {install}
        find lib -name '*.ko' | cpio --quiet -o -H newc -R 0:0 > {config.inner(home)}/modules.cpio
        mkdir -p {out}
        make -C {kernel.HOST.build} {kernel.HOST.flags} M={tree} MO={out} modules
    """], over=_over(home)), remedy="The driver needs more patches than scripts/kernel/order.toml says.")
    with open(home / "initrd", "wb") as whole:
        whole.write(initrd.base(kernel.HOST).read_bytes())
        # An archive starts at a multiple of four bytes.
        whole.write(bytes(-whole.tell() % 4))
        whole.write((home / "modules.cpio").read_bytes())
    return ["--kernel", str(home / "build/vmlinux"), "--initrd", str(home / "initrd")]

# Tests of selftests, with their programs, of what patches mend that the driver does not need: red without these.
OF_OTHERS: set[tuple[str, str]] = set()


def needed() -> Result:
    """A kernel with the needed patches only: the driver compiles, and its selftests of one chip find what is known."""
    with locked("series-needed"), Log("series-needed", config.cache_dir() / "logs/series-needed.log") as log:
        home = _home("series-needed")
        _tree(log, home, series.necessary())
        options = _packed(log, home)
        seen = mutate.boot_selftests(home / "module" / module.STEP.path().name, REDBUD_HALF.sockets, tests.BOARD, *options)
    complaints = [f"{program}: {name} is red" for program, name in sorted(seen.failed - OF_OTHERS)]
    complaints += [f"{program}: {name} is green: the patch is needed, or OF_OTHERS is wrong" for program, name in sorted(seen.ok & OF_OTHERS)]
    if complaints or not seen.ok:
        complaints.append(tail(seen.output))
    return Result(len(seen.ok), len(complaints), 0, "\n".join(complaints))


CHECKS = [Check("series", lint, [sources.LINUX_STEP])]
LONG_CHECKS = [Check("series-parts", parts, [kernel.STEP]),
               Check("series-needed", needed, [qemu.STEP, initrd.STEP, module.STEP, programs.SELFTESTS_STEP])]
