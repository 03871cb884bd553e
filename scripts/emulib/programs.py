# SPDX-License-Identifier: GPL-2.0
"""Programs that run in the emulated host: the selftests (C), the demo, nvlink2ctl and the fuzzer (Rust)."""

from pathlib import Path

from . import config, kernel, root, sources
from .step import Log, Step, digest

SELFTESTS = config.TREE / "tests/selftests"
MEASURE = config.TREE / "tests/bench/measure.c"
DEMO = config.TREE / "tests/demo"
NVLINK2CTL = config.TREE / "scripts/nvlink2ctl"
FUZZ = config.TREE / "tests/fuzz"
# Strings of the kernel's log that say it is broken, one to a line.
SPLATS = SELFTESTS / "splats.txt"
REGISTERS = config.TREE / "tests/qemu/include/nvlink2-v100-regs.h"
TARGET = "powerpc64le-unknown-linux-gnu"

# Static programs for the emulated host. The standard library is built from the
# compiler's own sources, so that no foreign package has to match it.
CARGO_ENV = {
    "RUSTC_BOOTSTRAP": "1",
    "CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER": "powerpc64le-linux-gnu-gcc",
    "CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUSTFLAGS": "-Ctarget-feature=+crt-static",
    "CARGO_TARGET_DIR": f"{config.ROOT_CACHE}/demo",
    "CARGO_HOME": f"{config.ROOT_CACHE}/cargo",
}


def cargo(package: str, *arguments: str) -> list[str]:
    """The command that runs cargo in the project's folder `package`, with the registry in reach."""
    return root.inside(
        ["cargo", *arguments], workdir=f"{config.ROOT_TREE}/{package}", env=CARGO_ENV, network=True
    )


def selftests_dir() -> Path:
    return config.cache_dir() / "selftests"


def binary(name: str) -> Path:
    """A program that cargo() built for the emulated host."""
    return config.cache_dir() / f"demo/{TARGET}/release/{name}"


def demo_binary() -> Path:
    return binary("nvlink2-demo")


def nvlink2ctl_binary() -> Path:
    return binary("nvlink2ctl")


def fuzz_binary() -> Path:
    return config.cache_dir() / f"demo/{TARGET}/release/nvlink2-fuzz"


def _build_selftests(log: Log) -> None:
    sources.shell(log, f"""
        make -C {config.ROOT_TREE}/tests/selftests -j{config.jobs()} \\
            KSRC={sources.LINUX_TREE} OUT={config.ROOT_CACHE}/selftests
    """)


def build_static(log: Log, package: Path) -> None:
    log.run(
        cargo(str(package.relative_to(config.TREE)), "build", "--release", "--locked",
              "-Zbuild-std=std,panic_abort", "--target", TARGET),
        remedy="Needed: the crates.io registry within reach.",
    )


SELFTESTS_STEP = Step(
    "selftests",
    "building the selftests",
    lambda: digest(SELFTESTS, MEASURE, REGISTERS),
    _build_selftests,
    [selftests_dir()],
    [kernel.STEP],
)

DEMO_STEP = Step(
    "demo",
    "building the demo program (1 min when cold)",
    lambda: digest(DEMO, repr(CARGO_ENV)),
    lambda log: build_static(log, DEMO),
    [demo_binary()],
    [root.STEP],
)

NVLINK2CTL_STEP = Step(
    "nvlink2ctl",
    "building nvlink2ctl for the emulated host (1 min when cold)",
    lambda: digest(NVLINK2CTL / "src", NVLINK2CTL / "Cargo.toml", NVLINK2CTL / "Cargo.lock",
                   config.TREE / "src/pure", repr(CARGO_ENV)),
    lambda log: build_static(log, NVLINK2CTL),
    [nvlink2ctl_binary()],
    [root.STEP],
)

FUZZ_STEP = Step(
    "fuzz",
    "building the fuzzer (1 min when cold)",
    lambda: digest(FUZZ / "src", FUZZ / "Cargo.toml", FUZZ / "Cargo.lock", SPLATS, repr(CARGO_ENV)),
    lambda log: build_static(log, FUZZ),
    [fuzz_binary()],
    [root.STEP],
)
