# SPDX-License-Identifier: GPL-2.0
"""What must be clean: format, compilers' and checkers' warnings, house rules."""

import re
import subprocess
from pathlib import Path

from ..build import config, docs, enter, intree, kernel, module, procs, programs, qemu, root, series, sources
from ..build.step import locked
from . import mutate
from .report import Check, Result, tail

TREE = config.TREE
SRC = config.ROOT_TREE


def tracked(*patterns: str) -> list[Path]:
    """The project's own files whose name fits one of the patterns, as paths in the tree."""
    skip = {".git", "target", "__pycache__"}
    return sorted(
        path.relative_to(TREE)
        for pattern in patterns
        for path in TREE.rglob(pattern)
        if path.is_file() and not skip.intersection(path.relative_to(TREE).parts)
    )


def _script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a bash script in the root, from the project's tree."""
    return procs.said(enter.inside(["bash", "-euo", "pipefail", "-c", script, "lint", *arguments], workdir=SRC))


def _clean(script: str, *files: str) -> Result:
    """A lint that is clean when its script succeeds with these files, of which there has to be one."""
    if not files:
        return Result.one(False, "there is no file to look at")
    done = _script(script, *files)
    return Result.one(done.returncode == 0, tail(done.stdout, 80))


def _strings(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]


def rustfmt() -> Result:
    """The module's Rust, by the kernel's configuration."""
    roots = [path for path in tracked("*.rs") if path.parts[0] == "src"]
    return _clean(
        f'rustfmt --check --edition 2021 --config-path {sources.LINUX_TREE}/.rustfmt.toml "$@"', *_strings(roots)
    )


def clippy() -> Result:
    """The module under the kernel's clippy settings; warnings of the kernel's own flags are not ours."""
    with locked("clippy"):
        done = _script(module.make("CLIPPY=1 modules", into="clippy"))
    ours = [
        block for block in re.split(r"\n(?=warning|error)", done.stdout)
        if re.match(r"warning|error", block) and re.search(r"--> .*module/tree/|--> src/", block)
    ]
    return Result.one(done.returncode == 0 and not ours, "\n".join(ours) or tail(done.stdout))


def _checkpatch(tree: str, options: str, files: list[str]) -> Result:
    """A source tree's own checkpatch on files, which it names relative to that tree."""
    return _clean(f'cd {tree} && scripts/checkpatch.pl {options} "$@"', *files)


def checkpatch_series() -> Result:
    """checkpatch --strict of the kernel's patches."""
    # Debian's source has no history in which checkpatch could look up a commit; whoever sends a patch signs it. What
    # makes a call of OPAL is assembly, so that its export follows no function, in Linux, too.
    return _checkpatch(
        sources.LINUX_TREE, "--strict --terse --no-tree --ignore UNKNOWN_COMMIT_ID,MISSING_SIGN_OFF,EXPORT_SYMBOL",
        [f"{SRC}/{patch.relative_to(TREE)}" for patch in series.patches()],
    )


def checkpatch_driver() -> Result:
    """The driver as patches for the kernel, as `make series` writes them."""
    written = intree.STEP.path().glob("*-driver/*.patch")
    # Only the first of several patches that add files names them in MAINTAINERS.
    return _checkpatch(
        sources.LINUX_TREE, "--strict --terse --no-tree --ignore FILE_PATH_CHANGES,MISSING_SIGN_OFF",
        [f"{intree.STEP.inner}/patches/{patch.relative_to(intree.STEP.path())}" for patch in sorted(written)
         if not patch.name.startswith("0000-")],
    )


def checkpatch_c() -> Result:
    """Kernel-style C: the module's helpers and headers, the selftests, the guest's tests, what measures."""
    files = [p for p in tracked("*.c", "*.h")
             if p.parts[0] in ("src", "include") or p.parts[:2] in (("tests", "selftests"), ("tests", "clients"),
                                                                       ("tests", "bench"))]
    return _checkpatch(sources.LINUX_TREE, "--strict --terse --no-tree --file", [f"{SRC}/{p}" for p in files])


def checkpatch_qemu() -> Result:
    """The device models, at their places in QEMU's tree, as its rules differ by folder."""
    overlay = qemu.OVERLAY.relative_to(TREE)
    files = [p for p in tracked("*.c", "*.h") if p.is_relative_to(overlay)]
    return _checkpatch(f"{qemu.STEP.inner}/source", "--terse --file", _strings([p.relative_to(overlay) for p in files]))


# 7.3 uses a keyword that Debian's sparse does not know, and then skips it with a mere warning.
SPARSE = 'CHECK="sparse -D__typeof_unqual__=__typeof__"'


def _sparse(make: str, where: str) -> Result:
    """sparse has looked at something, and found nothing in files whose path fits `where`."""
    with locked("sparse"):
        done = _script(make)
    checked = re.search(r"^  CHECK ", done.stdout, re.MULTILINE)
    ours = [line for line in done.stdout.splitlines() if re.search(where + r".*(?:warning|error):", line)]
    return Result.one(
        done.returncode == 0 and bool(checked) and not ours, "\n".join(ours) or tail(done.stdout)
    )


def sparse_module() -> Result:
    """The module's C under sparse."""
    return _sparse(module.make(f"{SPARSE} C=2 modules", into="sparse"), "module/tree/")


def sparse_series() -> Result:
    """The C files that only the series has; of others, it only changes a few lines."""
    added = [
        match[1].removesuffix(".c") + ".o"
        for patch in series.patches()
        for match in re.finditer(r"^--- /dev/null\n\+\+\+ b/(\S+\.c)$", patch.read_text(encoding="utf-8"), re.M)
    ]
    script = f"{kernel.HOST.make} {SPARSE} C=2 {' '.join(added)}"
    return _sparse(script, "powernv/npu2")


def shellcheck() -> Result:
    """All shell scripts."""
    files = [
        path for path in tracked("*")
        if re.match(rb"#!\S*(?:/| )(?:ba|da)?sh\b|#!\S*busybox sh", (TREE / path).read_bytes()[:64])
    ]
    return _clean('shellcheck -s sh "$@"', *_strings(files))


def python() -> Result:
    """pyflakes and mypy of the scripts."""
    files = tracked("*.py") + [Path("scripts/emu"), Path("scripts/check"), Path("scripts/dist"), Path("scripts/record")]
    return _clean("""
        pyflakes3 "$@"
        cd scripts && MYPY_CACHE_DIR=/cache/mypy mypy --no-error-summary --ignore-missing-imports -p emulib
    """, *_strings(files))


def _cargo(package: str) -> Result:
    """rustfmt and clippy of a user-space package."""
    for arguments in (["fmt", "--check"], ["clippy", "--locked", "--all-targets", "--", "-D", "warnings"]):
        with locked(f"cargo-{Path(package).name}"):
            done = procs.said(programs.cargo(package, *arguments))
        if done.returncode:
            return Result.one(False, tail(done.stdout, 80))
    return Result.one(True)


def rustdoc() -> Result:
    """The documentation of the module's code and of nvlink2ctl's."""
    with locked("cargo-nvlink2ctl"):
        done = procs.said(programs.cargo("scripts/nvlink2ctl", "rustdoc", "--locked", "--lib", "--", "-Dwarnings"))
    return Result.one(done.returncode == 0, tail(done.stdout, 80))


def house_rules() -> Result:
    """Rules of this project that a search can check."""
    complaints = []

    def search(rule: str, pattern: str, paths: list[Path], excuse: str = r"^\s*//") -> None:
        for path in paths:
            text = (TREE / path).read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if re.search(pattern, line) and not re.search(excuse, line):
                    complaints.append(f"{path}:{number}: {rule}: {line.strip()}")

    driver = [path for path in tracked("*.rs") if path.parts[0] == "src"]
    if not driver:
        complaints.append("there is no file to look at")
    outside = [path for path in driver if path.parts[:2] != ("src", "linux")]
    search("unsafe or bindings:: outside src/linux/", r"\bunsafe\b|\bbindings::", outside)
    panics = r"\.unwrap\(\)|\.expect\(|\b(?:todo|unimplemented|panic|unreachable)!|(?<![_\w])assert(?:_eq|_ne)?!"
    for path in driver:
        lines = (TREE / path).read_text(encoding="utf-8").splitlines()
        # Tests come last in a file and may assert.
        end = next((i for i, l in enumerate(lines) if "kunit_tests" in l or "cfg(test)" in l), len(lines))
        for number, line in enumerate(lines[:end], 1):
            if re.search(panics, line) and not re.match(r"\s*//", line):
                complaints.append(f"{path}:{number}: can panic in the kernel: {line.strip()}")
            if re.search(r"\bunsafe\s*(?:\{|impl)", line) and not re.match(r"\s*//", line):
                if "SAFETY" not in "\n".join(lines[max(0, number - 12):number]):
                    complaints.append(f"{path}:{number}: unsafe without a SAFETY comment")
    everything = [path for path in tracked("*") if path.suffix not in (".patch", ".lock", ".dtb") and path.name != "COPYING"]
    mine = Path("scripts/emulib/checks/lints.py")
    words = "TO" + "DO|FIX" + "ME|X" + "XX|HA" + "CK"
    search("left to do", rf"\b(?:{words})\b", [path for path in everything if path != mine], r"$^")
    search("a mirror's address", r"https?://[A-Za-z0-9.-]+/debian", [p for p in everything if p != mine], r"$^")
    for path in everything:
        head = (TREE / path).read_text(encoding="utf-8", errors="replace")[:3000]
        if path.suffix in (".rs", ".c", ".h", ".py", ".sh") and "SPDX-License-Identifier" not in head:
            complaints.append(f"{path}: no SPDX-License-Identifier on top")
    return Result.one(not complaints, "\n".join(complaints))


# A call that logs an error or a warning, and its text: of the driver, and as a line that the series adds.
LOGGED = (r'dev_(?:err|warn)!\([^"]*"((?:[^"\\]|\\.|\\\n)*)"',
          r'^\+.*(?:pci|pe|pr|dev)_(?:err|warn)\w*\([^"]*"((?:[^"\\]|\\.)*)"')


def messages() -> Result:
    """The administrator's guide explains each error that the driver or the series can log."""
    def words(text: str) -> list[str]:
        return re.findall(r"[\w'/-]+", text)

    guide = " ".join(words((TREE / "Documentation/admin-guide.rst").read_text(encoding="utf-8")))
    complaints = []
    seen = set()
    for path in [*(path for path in tracked("*.rs") if path.parts[0] == "src"),
                 *(path.relative_to(TREE) for path in series.patches())]:
        text = (TREE / path).read_text(encoding="utf-8")
        for said in re.findall(LOGGED[path.suffix == ".patch"], text, re.MULTILINE):
            seen.add(path.suffix)
            said = re.sub(r"\\\n\s*", "", said).removesuffix("\\n")
            # What stands between values, if it is more than a word; its beginning is enough to find it.
            parts = [part for part in map(words, re.split(r"\{[^}]*\}|%[#\w]+", said)) if len(part) > 1]
            if not any(" ".join(part[:5]) in guide for part in parts):
                complaints.append(f"{path}: not in Documentation/admin-guide.rst: {said}")
    complaints += [f"no message was found in any {suffix}" for suffix in (".rs", ".patch") if suffix not in seen]
    return Result.one(not complaints, "\n".join(complaints))


def mutants() -> Result:
    """Each mutant still changes something, and is in tests/README.md. Running them is `make mutate`."""
    complaints = mutate.complaints()
    return Result.one(not complaints, "\n".join(complaints))


ROOT, LINUX = [root.STEP], [sources.LINUX_STEP]
PACKAGES = ["tests/clients", "tests/demo", "tests/bench/report", "tests/host", "tests/fuzz", "tests/fuzz/pure",
            "scripts/nvlink2ctl", "scripts/nvlink2ctl/fuzz", "scripts/trial"]


def _cargo_check(package: str) -> Check:
    """The check of a user-space package, named by the package's folder."""
    name = "-".join(part for part in Path(package).parts if part not in ("tests", "scripts"))
    return Check(f"cargo-{name}", lambda: _cargo(package), ROOT, f"rustfmt and clippy of {package}.")


CHECKS = [
    Check("clippy", clippy, [kernel.STEP]),
    Check("sparse-module", sparse_module, [kernel.STEP]),
    Check("sparse-series", sparse_series, [kernel.STEP]),
    *map(_cargo_check, PACKAGES),
    Check("mutants", mutants, [kernel.STEP]),
    Check("messages", messages),
    Check("checkpatch-series", checkpatch_series, LINUX),
    Check("checkpatch-driver", checkpatch_driver, [intree.STEP]),
    Check("checkpatch-c", checkpatch_c, LINUX),
    Check("checkpatch-qemu", checkpatch_qemu, [qemu.STEP]),
    Check("python", python, ROOT),
    Check("rustdoc", rustdoc, [docs.RUST_STEP]),
    Check("docs", lambda: Result.one(True), [docs.STEP], "The documents can be built, without a warning."),
    Check("rustfmt", rustfmt, LINUX),
    Check("shellcheck", shellcheck, ROOT),
    Check("house-rules", house_rules),
]
