# SPDX-License-Identifier: GPL-2.0
"""Fuzzing: of all that user space reaches in the emulated host, and of the kernel-free parts here."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ..build import config, enter, procs, programs
from ..build.step import say
from . import boot

REPRODUCERS = programs.FUZZ / "reproducers"
# Packages, and for each of their targets the folder of inputs to start from, if there is one.
PURE: dict[str, dict[str, str]] = {
    "tests/fuzz/pure": {"device_tree": "", "arithmetic": "", "lpar": ""},
    "scripts/nvlink2ctl/fuzz": {
        "domain_xml": "seeds/domain_xml", "recorded_tree": "", "recording": "../tests/recordings",
    },
}
PURE_HOME = f"{config.ROOT_CACHE}/fuzz-pure"

# What `cargo fuzz` passes, without a sanitizer: this is safe code, it can panic and no worse.
COVERAGE = " ".join([
    "--cfg", "fuzzing", "-Cpasses=sancov-module", "-Ccodegen-units=1",
    *(f"-Cllvm-args=-sanitizer-coverage-{what}"
      for what in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")),
])

# Has the kernel remember who allocated what, so that the fuzzer can tell what the module lost from what comes and goes.
COUNTED = "slab_debug=U,kmalloc-*"
# A boot, the replay, and what a hang takes until it is called one.
REPLAY_SECONDS = 300
ROUND = re.compile(r"^round (\d+) of \d+: begins", re.MULTILINE)
SEED = re.compile(r"^seed (\d+),", re.MULTILINE)


class _Tee(io.RawIOBase):
    """What is written is shown and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.text = b""

    def write(self, data) -> int:  # type: ignore[override]
        self.text += bytes(data)
        sys.stdout.buffer.write(data)
        return len(data)

    def flush(self) -> None:
        sys.stdout.buffer.flush()


def _host(host: boot.Host, *files: Path) -> boot.Host:
    host.files = [*host.files, programs.fuzz_binary(), *files]
    host.append = f"{host.append} {COUNTED}"
    return host


def _program() -> list[str]:
    """The fuzzer as a command, which has limits of time of its own."""
    return ["env", f"NVLINK2_TIME_FACTOR={config.time_factor()}", "/files/nvlink2-fuzz"]


def run(make: Callable[[], boot.Host], arguments: list[str], minimise: bool) -> int:
    """Fuzz in a host of `make`'s. If that fails and `minimise` is set, look for the operations that matter."""
    tee = _Tee()
    status = boot.run(_host(make()), [*_program(), "run", *arguments], tee)  # type: ignore[arg-type]
    said = tee.text.decode(errors="replace")
    rounds, seed = ROUND.findall(said), SEED.search(said)
    if status == 0 or not minimise or not rounds or not seed:
        return status
    shape = ["--seed", seed[1], "--round", rounds[-1]]
    for option in ("--processes", "--round-ops"):
        if option in arguments:
            shape += [option, arguments[arguments.index(option) + 1]]
    kept = io.BytesIO()
    boot.run(_host(make()), [*_program(), "generate", *shape], kept)  # type: ignore[arg-type]
    lines = kept.getvalue().decode().splitlines()
    folder = config.scratch() / "fuzz"
    folder.mkdir(exist_ok=True)
    best = folder / f"seed-{seed[1]}-round-{rounds[-1]}.jsonl"
    if not _fails(make, folder, lines):
        say(f"fuzz: round {rounds[-1]} of seed {seed[1]} does not fail by itself; it is kept as {best}")
        best.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return status
    _reduce(lines, lambda some: _fails(make, folder, some), best)
    say(f"fuzz: the least that fails is {best}; when it is fixed keep it in {REPRODUCERS.relative_to(config.TREE)}/")
    return status


def _fails(make: Callable[[], boot.Host], folder: Path, lines: list[str]) -> bool:
    """Whether a host fails that replays these operations."""
    sequence = folder / "sequence.jsonl"
    sequence.write_text("\n".join(lines) + "\n", encoding="utf-8")
    host = _host(make(), sequence)
    host.timeout = REPLAY_SECONDS * config.time_factor()
    status = boot.run(host, [*_program(), "replay", f"/files/{sequence.name}"], io.BytesIO())  # type: ignore[arg-type]
    say(f"fuzz: {len(lines)} operations: {'fails' if status else 'all is well'}")
    return status != 0


def _reduce(lines: list[str], fails: Callable[[list[str]], bool], best: Path) -> None:
    """Leave out ever smaller parts as long as it fails; the least is always in `best`."""
    best.write_text("\n".join(lines) + "\n", encoding="utf-8")
    size = len(lines) // 2
    while size:
        start = 0
        while start < len(lines):
            rest = lines[:start] + lines[start + size:]
            if rest and fails(rest):
                lines = rest
                best.write_text("\n".join(lines) + "\n", encoding="utf-8")
            else:
                start += size
        size //= 2


def pure(seconds: int) -> int:
    """Fuzz the kernel-free parts, and what nvlink2ctl reads, on this machine; the corpus is kept in the cache."""
    each = max(1, seconds // sum(len(targets) for targets in PURE.values()))
    statuses = [_pure(package, targets, each) for package, targets in PURE.items()]
    if any(statuses):
        say(f"fuzz: an input that fails is in {config.cache_dir()}/fuzz-pure/crashes")
    return 1 if any(statuses) else 0


def _pure(package: str, targets: dict[str, str], seconds: int) -> int:
    words = [word for pair in targets.items() for word in pair]
    return procs.run(
        enter.inside(["sh", "-euc", """
            target=$(rustc -vV | sed -n 's/^host: //p')
            cargo build --release --locked --target "$target"
            while [ $# -gt 0 ]; do
                name=$1
                mkdir -p "$HOME_OF_FUZZ/corpus/$name" "$HOME_OF_FUZZ/crashes"
                "$CARGO_TARGET_DIR/$target/release/$name" -max_total_time="$SECONDS_EACH" -print_final_stats=1 \\
                    -timeout=10 -rss_limit_mb=4096 -verbosity=0 \\
                    -artifact_prefix="$HOME_OF_FUZZ/crashes/$name-" "$HOME_OF_FUZZ/corpus/$name" ${2:+-max_len=65536 "$2"}
                echo "$name: all is well after $SECONDS_EACH s, $(ls "$HOME_OF_FUZZ/corpus/$name" | wc -l) inputs kept"
                shift 2
            done
        """, "fuzz-pure", *words], workdir=f"{config.ROOT_TREE}/{package}", env={
            **programs.CARGO_ENV, "RUSTFLAGS": COVERAGE, "CARGO_TARGET_DIR": f"{PURE_HOME}/target",
            "HOME_OF_FUZZ": PURE_HOME, "SECONDS_EACH": str(seconds),
        }, network=True),
    ).returncode


def reproducers() -> list[Path]:
    """The operations that once broke something."""
    return sorted(REPRODUCERS.glob("*.jsonl"))

