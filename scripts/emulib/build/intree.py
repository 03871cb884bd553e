# SPDX-License-Identifier: GPL-2.0
"""The driver as a part of the kernel: where each file goes, and the series that puts it there."""

import email
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import config, enter, files, kernel, procs, sources
from .config import Failure
from .step import Log, Step, digest, say

TREE = config.TREE
ASSETS = TREE / "scripts/intree"
SELFTESTS = TREE / "tests/selftests"

# Folder or file of the project -> where it is in a kernel tree.
PLACES = {
    "Kbuild": "drivers/vfio/pci/nvlink2",
    "Kconfig": "drivers/vfio/pci/nvlink2",
    "src": "drivers/vfio/pci/nvlink2/src",
    "include": "drivers/vfio/pci/nvlink2/include",
    "Documentation/driver": "Documentation/driver-api/vfio-nvlink2",
    "tests/selftests": "tools/testing/selftests/powerpc/nvlink2",
    "tests/qemu/include": "tools/testing/selftests/powerpc/nvlink2",
}
# What works in this project only: its own Makefile, runner and list of programs, the comparison with Linux 5.10, and
# the way to another kernel.
OURS = {"tests/selftests/Makefile", "tests/selftests/run.sh", "tests/selftests/programs.txt",
        "tests/selftests/left_behind.c", "tests/selftests/kexec.c", "tests/selftests/observe.c"}
KINDS = (".rs", ".c", ".h", ".rst", ".dot", ".tsv", ".txt")
# A file that only a tree with the series has.
SERIES_MARK = "arch/powerpc/include/asm/pnv-npu2.h"
DRIVER = "drivers/vfio/pci/nvlink2"
TESTS = PLACES["tests/selftests"]


@dataclass(frozen=True)
class Edit:
    """Lines that a file of the kernel gets, before the line that is `before`, in the named patch."""

    path: str
    before: str
    text: str
    patch: str


def _maintainers() -> str:
    sender = re.search(r"^From: (.*(?:\n .*)?)$", kernel.patches()[0].read_text(encoding="utf-8"), re.M)
    if not sender:
        raise Failure(f"{kernel.patches()[0].name} has no sender")
    return " ".join(sender[1].split())


def _edits() -> list[Edit]:
    return [
        Edit("MAINTAINERS", "VFIO PCI DEVICE SPECIFIC DRIVERS", "\n".join([
            "VFIO NVLINK2 PCI DRIVER",
            f"M:\t{_maintainers()}",
            "L:\tkvm@vger.kernel.org",
            "L:\tlinuxppc-dev@lists.ozlabs.org",
            "S:\tMaintained",
            f"F:\t{DRIVER}/",
            "\n",
        ]), "1-pure"),
        Edit("MAINTAINERS", f"F:\t{DRIVER}/", f"F:\t{PLACES['Documentation/driver']}/\n", "7-documentation"),
        Edit("MAINTAINERS", "\nVFIO PCI DEVICE SPECIFIC DRIVERS", f"F:\t{TESTS}/\n", "8-selftests"),
        Edit("drivers/vfio/pci/Kconfig", 'source "drivers/vfio/pci/qat/Kconfig"',
             f'source "{DRIVER}/Kconfig"\n\n', "6-driver"),
        Edit("drivers/vfio/pci/Makefile", "obj-$(CONFIG_QAT_VFIO_PCI) += qat/",
             "obj-$(CONFIG_VFIO_PCI_NVLINK2) += nvlink2/\n\n", "6-driver"),
        Edit("Documentation/driver-api/index.rst", "   vfio-pci-device-specific-driver-acceptance",
             "   vfio-nvlink2/index\n", "7-documentation"),
        Edit("tools/testing/selftests/powerpc/Makefile", "\t   nx-gzip\t\t\\",
             "\t   nvlink2\t\t\\\n", "8-selftests"),
    ]


def _list(what: str) -> list[str]:
    done = procs.run(["make", "-s", "-C", str(SELFTESTS), what], capture_output=True, text=True)
    if done.returncode or not done.stdout.split():
        raise Failure(f"tests/selftests/Makefile does not say its {what}: {done.stderr}")
    return done.stdout.split()


def test_names() -> list[str]:
    """The programs of tests/selftests."""
    return _list("list")


def _made() -> dict[str, bytes]:
    """Files that only the kernel has."""
    programs = [name for name in test_names() if name != "bad_firmware"]
    text = (ASSETS / "selftests.Makefile").read_text(encoding="utf-8")
    for mark, words in (("@TESTS@", programs), ("@LIB@", [f"lib/{Path(o).stem}.c" for o in _list("list-lib")])):
        text = text.replace(mark, " \\\n\t".join(words))
    return {
        f"{TESTS}/Makefile": text.encode(),
        f"{TESTS}/.gitignore": "".join(
            ["# SPDX-License-Identifier: GPL-2.0-only\n", *(f"/{name}\n" for name in sorted([*programs, "bad_firmware"]))]
        ).encode(),
        **{f"{TESTS}/{name}": (ASSETS / f"selftests.{name}").read_bytes() for name in ("config", "settings")},
    }


def new_files() -> dict[str, bytes]:
    """Path in the kernel -> content, of all files that it doesn't have yet."""
    result = _made()
    for ours, theirs in PLACES.items():
        for file in files.below(TREE / ours):
            if (name := str(file.relative_to(TREE))) in OURS or name == "src/bindings_generated.rs":
                continue
            if file.suffix in KINDS or not file.suffix:
                below = file.relative_to(TREE / ours) if (TREE / ours).is_dir() else Path(file.name)
                result[str(PurePosixPath(theirs) / below)] = file.read_bytes()
    return dict(sorted(result.items()))


def edited(path: str, text: str, edits: list[Edit]) -> str:
    """`text`, the kernel's file `path`, with the edits of it that it lacks."""
    for edit in edits:
        if edit.path != path or edit.text.splitlines()[0] in text.splitlines():
            continue
        if text.count(f"\n{edit.before}\n") != 1:
            raise Failure(f"{path} has no line {edit.before.strip()!r} of its own to put ours before: not Linux 7.3?")
        text = text.replace(f"\n{edit.before}\n", f"\n{edit.text}{edit.before}\n")
    return text


def _write(path: Path, content: bytes) -> None:
    """Replace the file rather than its content: in a copy made of hard links, others have it too."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def put(tree: Path) -> None:
    """Put the driver and, if it is not there, the series into a Linux 7.3 source tree."""
    if not (tree / "drivers/vfio/pci/Kconfig").is_file():
        raise Failure(f"{tree} is no kernel source tree: it has no drivers/vfio/pci/Kconfig")
    if "VERSION = 7\nPATCHLEVEL = 3\n" not in (tree / "Makefile").read_text(encoding="utf-8"):
        raise Failure(f"{tree} is not Linux 7.3, which the series is for")
    if not (tree / SERIES_MARK).exists():
        for patch in kernel.patches():
            done = procs.run(["git", "apply", "--whitespace=nowarn", str(patch)], cwd=tree,
                             env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)},
                             capture_output=True, text=True)
            if done.returncode:
                raise Failure(f"{patch.name} does not apply to {tree}: {done.stderr}")
        say(f"intree: applied the {len(kernel.patches())} patches of scripts/kernel")
    new = new_files()
    for folder in dict.fromkeys(PLACES.values()):
        for old in files.below(tree / folder) if (tree / folder).is_dir() else []:
            if old.suffix in KINDS and str(old.relative_to(tree)) not in new:
                old.unlink()
    for path, content in new.items():
        _write(tree / path, content)
    edits = _edits()
    for path in dict.fromkeys(edit.path for edit in edits):
        _write(tree / path, edited(path, (tree / path).read_text(encoding="utf-8"), edits).encode())
    say(f"intree: {len(new)} files; configure CONFIG_VFIO_PCI_NVLINK2")


@dataclass(frozen=True)
class Patch:
    """A patch of the driver: its message, and the shell patterns of the files it adds."""

    name: str
    message: str
    files: list[str]


def _patches() -> list[Patch]:
    result = []
    for file in sorted(ASSETS.glob("patches/*")):
        text = email.message_from_string(file.read_text(encoding="utf-8"))
        body = str(text.get_payload()).strip()
        message = f"{text['Subject']}\n\n{body}\n\nSigned-off-by: {_maintainers()}\n"
        result.append(Patch(file.name, message, text["Files"].split()))
    return result


def _split(files: dict[str, bytes], patches: list[Patch]) -> dict[str, dict[str, bytes]]:
    """The files of each patch. A file belongs to the first patch with a pattern that fits."""
    result: dict[str, dict[str, bytes]] = {patch.name: {} for patch in patches}
    for path, content in files.items():
        owner = next((p.name for p in patches if any(PurePosixPath(path).match(f) for f in p.files)), None)
        if owner is None:
            raise Failure(f"no patch of scripts/intree/patches has a pattern for {path}")
        result[owner][path] = content
    return result


# Commits each mail, then each folder with a message and files, on top of Debian's source, in a repository of its own
# without a work tree.
COMMIT = """
rm -rf git
git clone -q --shared --bare "$base" git
cd git
git read-tree HEAD
tip=$(git rev-parse HEAD)
commit() {
    tip=$(git commit-tree -p "$tip" -F "$1" "$(git write-tree)")
}
for mail in "$@"; do
    git mailinfo "$staging/message" "$staging/patch" < "$mail" > "$staging/info"
    field() { sed -n "s/^$1: //p" "$staging/info"; }
    { field Subject; echo; cat "$staging/message"; } > "$staging/text"
    GIT_AUTHOR_NAME=$(field Author) GIT_AUTHOR_EMAIL=$(field Email) GIT_AUTHOR_DATE=$(field Date)
    GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE
    export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
    git apply --cached --whitespace=nowarn "$staging/patch"
    commit "$staging/text"
done
for folder in "$staging"/parts/*/; do
    (cd "$folder/files" && find . -type f) | while read -r file; do
        blob=$(git hash-object -w --no-filters "$folder/files/$file")
        git update-index --add --cacheinfo "100644,$blob,${file#./}"
    done
    commit "$folder/message"
done
git update-ref refs/nvlink2/series "$tip"
"""


def _commit(log: Log, parts: dict[str, tuple[str, dict[str, bytes]]]) -> None:
    """Make refs/nvlink2/series: the kernel's patches, and one commit for each of `parts`."""
    staging = STEP.home() / "staging"
    files.remove(staging)
    (staging / "parts").mkdir(parents=True)
    for name, (message, added) in parts.items():
        (staging / "parts" / name / "files").mkdir(parents=True)
        (staging / "parts" / name / "message").write_text(message, encoding="utf-8")
        for path, content in added.items():
            file = staging / "parts" / name / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    mails = [f"{config.ROOT_TREE}/{patch.relative_to(TREE)}" for patch in kernel.patches()]
    script = f"shopt -s nullglob\nstaging={STEP.inner}/staging base={sources.LINUX_TREE}\n{COMMIT}"
    log.run(enter.inside(["bash", "-euo", "pipefail", "-c", script, "series", *mails], workdir=STEP.inner),
            remedy="A patch that does not apply means that Debian's source moved on.")


def _at_tip(path: str) -> str:
    done = procs.run(enter.inside(["git", "show", f"refs/nvlink2/series:{path}"], workdir=f"{STEP.inner}/git"),
                     capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"series: no {path} in the kernel: {done.stderr}")
    return done.stdout


def _make_series(log: Log) -> None:
    files.remove(STEP.path())
    _commit(log, {})
    edits, patches = _edits(), _patches()
    split = _split(new_files(), patches)
    texts = {edit.path: _at_tip(edit.path) for edit in edits}
    for patch in patches:
        for path in dict.fromkeys(edit.path for edit in edits if edit.patch == patch.name):
            texts[path] = edited(path, texts[path], [edit for edit in edits if edit.patch == patch.name])
            split[patch.name][path] = texts[path].encode()
    _commit(log, {patch.name: (patch.message, split[patch.name]) for patch in patches})
    name, address = _maintainers().rstrip(">").split(" <")
    # No version of git, no commit of a repository that nobody has.
    sources.shell(log, f"""
        cd {STEP.inner}/git
        git -c user.name={shlex.quote(name)} -c user.email={shlex.quote(address)} format-patch -q --cover-letter --zero-commit --no-signature \
            --cover-from-description=subject --description-file={config.ROOT_TREE}/scripts/intree/cover-letter.txt \
            -o {STEP.inner}/patches HEAD..refs/nvlink2/series
    """)


STEP = Step(
    "series",
    "writing the whole series: kernel patches, driver, documents, tests",
    lambda: digest(ASSETS, kernel.SERIES, *(TREE / place for place in PLACES)),
    _make_series,
    ["patches"],
    [sources.LINUX_STEP],
)


def write_series(out: Path) -> None:
    """Copy the series to the folder `out`, which must be new or empty."""
    STEP.ensure()
    if out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty: series of two versions would mix. Name another folder.")
    shutil.copytree(STEP.path(), out, dirs_exist_ok=True)
    say(f"series: {len(list(out.glob('*.patch')))} files in {out}")
