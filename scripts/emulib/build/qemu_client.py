# SPDX-License-Identifier: GPL-2.0
"""QEMU 10.0 with its NVLink2 client back, for hosts: Debian's source with the series of scripts/qemu, for ppc64el.

Built with the headers and libraries of an older release, so that it runs on that and on later ones.
"""

from pathlib import Path

from . import config, kernel, sources, sysroot
from .step import Log, Step, digest

SERIES = config.TREE / "scripts/qemu"
# What it is made for. Folders with names of releases have what is of that release alone.
RELEASE = "10.0"
# What of pseries machines and devices there is, at its place in QEMU's tree.
DEVICES = SERIES / "devices"

# What it is called beside the distribution's own.
NAME = "qemu-system-ppc64-nvlink2"

_FEATURES = "--without-default-features --without-default-devices --target-list=ppc64-softmmu --enable-fdt=system " \
    "--disable-docs --disable-install-blobs --disable-debug-info"
# Firmware is that of the distribution's qemu-system-data.
CONFIGURE = f"{_FEATURES} --prefix=/usr --with-devices-ppc64=nvlink2 --enable-kvm --disable-tcg --enable-pixman " \
    "--enable-seccomp --enable-vhost-kernel --enable-vhost-net --enable-vnc"
# For this machine, with what stands in for the hardware.
CONFIGURE_NATIVE = f"{_FEATURES} --with-devices-ppc64=nvlink2-test --enable-tcg"
QTESTS = ["tests/qtest/spapr-nvlink2-test", "tests/qtest/numa-test"]


def _number(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]


def releases() -> list[str]:
    """The releases for which there is a series, the oldest first."""
    return sorted((folder.name for folder in SERIES.glob("[0-9]*.[0-9]*") if folder.is_dir()), key=_number)


def patches(release: str = RELEASE) -> list[Path]:
    """The series for a release, in order and without its cover letter: where it has none, that for the one before it."""
    last = [name for name in releases() if _number(name) <= _number(release)][-1]
    common = [patch for patch in sorted(SERIES.glob("*.patch")) if "cover-letter" not in patch.name]
    return [*common, *sorted((SERIES / last).glob("*.patch"))]


def emulator() -> Path:
    """The program, without symbols."""
    return STEP.path()


def _retree(log: Log, step: Step) -> None:
    """Make `source` in the home of a step Debian's QEMU with the series."""
    kernel.retree(log, sources.QEMU_STEP, step.home() / "source", [*patches(), DEVICES], sources.moved_qemu())


def _make(log: Log, inner: str, configure: str, targets: str) -> None:
    """Build `targets` of the folder `source` below `inner`, in `build` beside it."""
    sources.shell(log, f"""
        mkdir -p {inner}/build && cd {inner}/build
        export PKG_CONFIG=pkg-config
        cat > configure-wanted <<'END'
        {configure}
END
        if ! cmp -s configure-wanted configured; then
            # What another configuration built may stay where this one builds nothing.
            find . -mindepth 1 ! -name configure-wanted -delete
            {configure}
            mv configure-wanted configured
        fi
        ninja -j{config.jobs()} {targets}
    """)


def _build(log: Log) -> None:
    _retree(log, STEP)
    # GCC would look for libraries in its own folders first.
    _make(log, STEP.inner, f"""
        {sysroot.PKG_CONFIG}
        ../source/configure {CONFIGURE} --host-cc=gcc --cross-prefix=powerpc64le-linux-gnu- \\
            --cc="clang-19 --target=powerpc64le-linux-gnu --sysroot={sysroot.TREE}"
    """, "qemu-system-ppc64")
    sources.shell(log, f"""
        cd {STEP.inner}
        powerpc64le-linux-gnu-strip -o qemu-system-ppc64.new build/qemu-system-ppc64
        mv qemu-system-ppc64.new qemu-system-ppc64
    """)


def make_native(log: Log, inner: str) -> None:
    """Build QEMU and the tests for this machine of the folder `source` below `inner`, in `build` beside it."""
    _make(log, inner, f"../source/configure {CONFIGURE_NATIVE}", f"qemu-system-ppc64 {' '.join(QTESTS)}")
    # Debian's source has no firmware, and QEMU starts no guest without: not even one that never runs.
    sources.shell(log, f"""
        cd {inner}/build/qemu-bundle/usr/local/share
        mkdir -p qemu
        cp {sources.QEMU_STEP.inner}/firmware/usr/share/qemu/{{slof,vof}}.bin qemu
    """)


def _build_native(log: Log) -> None:
    _retree(log, NATIVE_STEP)
    make_native(log, NATIVE_STEP.inner)


STEP = Step(
    "qemu-client",
    "building QEMU with its NVLink2 client for ppc64el (5 min on 2 cores when cold)",
    lambda: digest(*patches(), DEVICES, kernel.RETREE),
    _build,
    ["qemu-system-ppc64"],
    [sources.QEMU_STEP, sysroot.STEP],
    seed=["build"], linked=["source"],
)

NATIVE_STEP = Step(
    "qemu-native",
    "building QEMU with its NVLink2 client for this machine (5 min on 2 cores when cold)",
    lambda: digest(*patches(), DEVICES, kernel.RETREE),
    _build_native,
    ["build/qemu-system-ppc64"],
    [sources.QEMU_STEP],
    seed=["build"], linked=["source"],
)
