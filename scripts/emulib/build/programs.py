# SPDX-License-Identifier: GPL-2.0
"""Programs that run in the emulated host: the selftests (C), the demo, nvlink2ctl, the fuzzer and the trial (Rust)."""

import shutil
from pathlib import Path

from . import config, enter, files, kernel, root, sources
from .step import Log, Step, digest, locked

SELFTESTS = config.TREE / "tests/selftests"
MEASURE = config.TREE / "tests/bench/measure.c"
DEMO = config.TREE / "tests/demo"
NVLINK2CTL = config.TREE / "scripts/nvlink2ctl"
TRIAL = config.TREE / "scripts/trial"
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
    "CARGO_TARGET_DIR": f"{config.ROOT_CACHE}/cargo-target",
    "CARGO_HOME": f"{config.ROOT_CACHE}/cargo",
    # All checkouts build in one folder, where the dates of their files tell nothing of which is newer.
    "CARGO_UNSTABLE_CHECKSUM_FRESHNESS": "true",
}


def cargo(package: str, *arguments: str) -> list[str]:
    """The command that runs cargo in the project's folder `package`, with the registry in reach."""
    return enter.inside(
        ["cargo", *arguments], workdir=f"{config.ROOT_TREE}/{package}", env=CARGO_ENV, network=True
    )


def selftests_dir() -> Path:
    return SELFTESTS_STEP.path()


def choice(program: str, tests: list[str]) -> list[str]:
    """Arguments of run.sh that have it run `tests` of a program, or all of it."""
    return [":".join([program, *(test.rpartition(".")[2] for test in tests)])]


def demo_binary() -> Path:
    return DEMO_STEP.path()


def nvlink2ctl_binary() -> Path:
    return NVLINK2CTL_STEP.path()


def trial_files() -> list[Path]:
    """What a host needs for nvlink2-trial, which finds the others beside itself."""
    return sorted((TRIAL_STEP.home() / BUNDLE).iterdir())


def fuzz_binary() -> Path:
    return FUZZ_STEP.path()


def _build_selftests(log: Log) -> None:
    # What is compiled on the way there does not go to the emulated host, where unpacking it takes time.
    sources.shell(log, f"""
        cd {SELFTESTS_STEP.inner}
        rm -rf objects selftests
        make -C {config.ROOT_TREE}/tests/selftests -j{config.jobs()} \\
            KSRC={kernel.HOST.source} OUT={SELFTESTS_STEP.inner}/objects
        rsync -r --exclude='*.o' --exclude='*.d' objects/ selftests
        find selftests -type f -exec sh -c 'head -c 4 "$1" | grep -q ELF' sh {{}} ';' \\
            -exec powerpc64le-linux-gnu-strip --strip-debug {{}} +
        rm -rf objects
    """)


def build_static(log: Log, package: Path, binary: str, into: Path) -> None:
    """Build the program `binary` of a package for the emulated host, and put it into the folder `into`."""
    name = str(package.relative_to(config.TREE))
    with locked(f"cargo-{package.name}"):
        log.run(
            cargo(name, "build", "--release", "--locked", "-Zbuild-std=std,panic_abort", "--target", TARGET),
            remedy="Needed: the registry of Rust crates within reach.",
        )
        shutil.copy2(config.cache_dir() / "cargo-target" / TARGET / "release" / binary, into)


def initramfs(to: str, programs: str, init: str, more: str = "") -> str:
    """A script for the root that makes the initial RAM disk `to` of a guest: busybox, a folder's programs, and what `more` adds."""
    return f"""
        mkdir /tmp/initramfs
        cd /tmp/initramfs
        mkdir bin proc sys dev tmp
        cp {config.inner(sources.busybox())} {programs}/* bin
        cp {config.ROOT_TREE}/{init} init
        {more}
        find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 > {to}
    """


# What somebody with the hardware gets: a folder, and an archive of it.
BUNDLE = "nvlink2-trial"
TRIAL_FILES = [config.TREE / "Documentation/trial.rst", config.TREE / "COPYING"]
# What the guest of its own runs.
GUEST = config.TREE / "tests/clients/guest"
GUEST_PROGRAMS = "guest_tree guest_atsd".split()


def _build_trial(log: Log) -> None:
    folder = TRIAL_STEP.home() / BUNDLE
    files.remove(folder)
    folder.mkdir(parents=True)
    build_static(log, TRIAL, BUNDLE, folder)
    shutil.copy2(nvlink2ctl_binary(), folder)
    shutil.copytree(selftests_dir(), folder / "selftests")
    for file in TRIAL_FILES:
        shutil.copy2(file, folder)
    sources.shell(log, f"""
        cd {TRIAL_STEP.inner}
        for program in {" ".join(GUEST_PROGRAMS)}; do
            make -C {config.ROOT_TREE}/tests/clients/guest KSRC={sources.LINUX_TREE} OUT={TRIAL_STEP.inner}/objects \\
                {TRIAL_STEP.inner}/objects/tests/$program
        done
        {initramfs(f"{TRIAL_STEP.inner}/{BUNDLE}/guest.cpio.gz", f"{TRIAL_STEP.inner}/objects/tests", "scripts/trial/guest/init")}
        cd {TRIAL_STEP.inner}
        rm -rf objects
        tar --create --gzip --file {BUNDLE}.tar.gz --owner 0 --group 0 --sort name {BUNDLE}
    """)


def _program(name: str, what: str, package: Path, binary: str, *inputs: Path) -> Step:
    def build(log: Log) -> None:
        build_static(log, package, binary, step.home())

    step = Step(name, what, lambda: digest(package / "src", package / "Cargo.toml", package / "Cargo.lock", *inputs),
                build, [binary], [root.STEP])
    return step


SELFTESTS_STEP = Step(
    "selftests",
    "building the selftests",
    lambda: digest(SELFTESTS, MEASURE, REGISTERS),
    _build_selftests,
    ["selftests"],
    [kernel.STEP],
)

DEMO_STEP = _program("demo", "building the demo program (1 min when cold)", DEMO, "nvlink2-demo")
NVLINK2CTL_STEP = _program("nvlink2ctl", "building nvlink2ctl for the emulated host (1 min when cold)", NVLINK2CTL,
                           "nvlink2ctl", config.TREE / "src/pure")
FUZZ_STEP = _program("fuzz", "building the fuzzer (1 min when cold)", FUZZ, "nvlink2-fuzz", SPLATS)
TRIAL_STEP = Step(
    "trial",
    "building nvlink2-trial and its bundle (1 min when cold)",
    lambda: digest(TRIAL / "src", TRIAL / "guest", TRIAL / "Cargo.toml", TRIAL / "Cargo.lock", NVLINK2CTL / "src", GUEST,
                   *TRIAL_FILES),
    _build_trial,
    [BUNDLE, f"{BUNDLE}.tar.gz"],
    [SELFTESTS_STEP, NVLINK2CTL_STEP, sources.LINUX_STEP, sources.TARGET_STEP],
)
