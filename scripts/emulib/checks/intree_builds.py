# SPDX-License-Identifier: GPL-2.0
"""Builds of the kernel with the driver inside: built in, as a module, and left out."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..build import config, desk, enter, intree, kernel, procs, series, step
from ..build.config import Failure
from . import tests
from .report import Check, Result, tail

HOME = config.inner(config.scratch() / "intree")
X86 = f"{HOME}/x86"
DRIVER = f"{intree.DRIVER}/"
# What x86-64 does not compile of the files that the series changes outside of arch/powerpc, and why.
NOT_FOR_X86 = {
    "drivers/vfio/vfio_iommu_spapr_tce.c": "PowerPC's IOMMU",
    "virt/kvm/vfio.c": "takes all of KVM, and what is changed is for PowerPC's IOMMU",
}

# A copy of the kernel's source made of hard links, so that it costs neither room nor, as all
# dates stay, a whole build. Both copies are used at the places of their originals.
COPY = f"""
mkdir -p {HOME}
cd {HOME}
[ "$(cat of 2>/dev/null)" = {{key}} ] || rm -rf linux kernel
echo {{key}} > of
rsync -a --delete --link-dest={kernel.HOST.source} --exclude=/.git --exclude=/{intree.DRIVER} \\
    --exclude=/{intree.TESTS} {kernel.HOST.source}/ linux/
[ -e kernel/vmlinux ] || rsync -a {kernel.HOST.build}/ kernel/
cp {kernel.HOST.build}/.config host.config
"""
OVER = {f"{HOME}/linux": kernel.HOST.source, f"{HOME}/kernel": kernel.HOST.build}


def _folder() -> Path:
    return config.scratch() / "intree"


def _run(script: str, over: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return procs.said(enter.inside(["bash", "-euxo", "pipefail", "-c", script], over=over, tree=desk.path()))


def _configured(settings: str, goals: str) -> subprocess.CompletedProcess[str]:
    """Build `goals` of a powerpc kernel with `settings` (options of scripts/config) changed."""
    return _run(f"""
        cd {kernel.HOST.source}
        cp {HOME}/host.config {kernel.HOST.build}/.config
        scripts/config --file {kernel.HOST.build}/.config {settings}
        {kernel.HOST.make} olddefconfig
        {goals}
    """, OVER)


def _judge(done: subprocess.CompletedProcess[str], made: str, wanted: bool = True) -> Result:
    """The build succeeded without a warning about our files, and did, or did not, make `made`."""
    complaints = [line for line in done.stdout.splitlines()
                  if re.search(r"(?:nvlink2|npu2)\S*:\d+.*(?:warning|error)|--> \S*nvlink2/", line)]
    result = Result.one(done.returncode == 0 and not complaints, "\n".join(complaints) or tail(done.stdout))
    seen = re.search(rf"^  (?:CC|RUSTC|LD|AR)\b.* {re.escape(made)}", done.stdout, re.M) is not None
    exists = (_folder() / "kernel" / made).exists()
    result.add(Result.one(exists if wanted else not seen, f"{made}: {'missing' if wanted else 'was made'}"))
    return result


def built_in() -> Result:
    """A kernel with VFIO and the driver built in links, binds a GPU and runs its KUnit tests."""
    added = " ".join(sorted(map(compiled_into, series_files(added=True))))
    done = _configured("-e VFIO -e VFIO_IOMMU_SPAPR_TCE -e VFIO_PCI -e VFIO_PCI_NVLINK2 "
                       "-e VFIO_PCI_NVLINK2_KUNIT_TEST", f"{kernel.HOST.make} W=1 {DRIVER} {added}\n{kernel.HOST.make} vmlinux")
    result = _judge(done, f"{DRIVER}src/nvlink2.o")
    if result.failed:
        return result
    run = tests.Emulated(
        "intree", ["--no-module", "--kernel", str(_folder() / "kernel/vmlinux")], "sh", "-c", """
            echo 1..1
            cat /sys/kernel/debug/kunit/nvlink2_*/results
            echo nvlink2-vfio-pci > /sys/bus/pci/devices/0004:04:00.0/driver_override
            echo 0004:04:00.0 > /sys/bus/pci/drivers_probe
            [ -e /sys/bus/pci/drivers/nvlink2-vfio-pci/0004:04:00.0 ] && [ ! -e /sys/module/nvlink2_vfio_pci/initstate ] &&
                echo "ok 1 bound"
        """)
    result.add(run.with_console(Result.tap(run.status, run.output)))
    return result


def modular() -> Result:
    """The driver as a module in the tree."""
    made = f"{DRIVER}nvlink2-vfio-pci.ko"
    (_folder() / "kernel" / made).unlink(missing_ok=True)
    # The driver's option follows that of vfio-pci by itself.
    done = _configured("-m VFIO -m VFIO_IOMMU_SPAPR_TCE -m VFIO_PCI "
                       "-d VFIO_PCI_NVLINK2_KUNIT_TEST", f"{kernel.HOST.make} W=1 {DRIVER}\n{kernel.HOST.make} vmlinux modules")
    result = _judge(done, made)
    if result.failed:
        return result
    # That nothing of the series is left to a configuration that nobody builds.
    missing = sorted(series_files() - _compiled(_folder() / "kernel", series_files()))
    result.add(Result.one(not missing, f"changed by the series, but compiled by no kernel: {missing}"))
    return result


def left_out() -> Result:
    """The same tree without the driver, and without the platform's support for it."""
    done = _configured("-d VFIO_PCI_NVLINK2 -d PPC_POWERNV_NPU2", f"{kernel.HOST.make} vmlinux modules")
    return _judge(done, "nvlink2", wanted=False)


def files_of(patches: Iterable[str], added: bool = False) -> set[str]:
    """C and Rust files of the kernel that the patches change, or only those that they add."""
    before = r"/dev/null" if added else r"\S+"
    return {match[1] for patch in patches
            for match in re.finditer(rf"^--- {before}\n\+\+\+ b/(\S+\.(?:c|rs))$", patch, re.MULTILINE)}


def series_files(added: bool = False) -> set[str]:
    """Those of the series."""
    return files_of((patch.read_text(encoding="utf-8") for patch in series.patches()), added)


def compiled_into(file: str) -> str:
    """What a file of the kernel is compiled into; of Rust, a whole crate."""
    return "rust/kernel.o" if file.startswith("rust/kernel/") else f"{file.rpartition('.')[0]}.o"


def _compiled(build: Path, files: set[str]) -> set[str]:
    """Those of `files` that were compiled in the build folder, as a module's or the kernel's."""
    return {file for file in files if (build / compiled_into(file)).exists()}


def x86() -> Result:
    """What the series changes outside of arch/powerpc compiles for x86-64, too.

    kbuild is asked for folders: what its Makefiles do with a file, and for which options, is theirs to know, and a file
    that is asked for beside its folder it does not make. One that nothing compiled then is one that this configuration
    or NOT_FOR_X86 has to learn of.
    """
    make = f"make ARCH=x86_64 LLVM=-19 O={X86} -j{config.jobs()}"
    wanted = {file for file in series_files() if not file.startswith("arch/powerpc/")}
    common = wanted - set(NOT_FOR_X86)
    folders = sorted({f"{Path(file).parent}/" for file in common if not file.startswith("rust/")} | {"drivers/vfio/"})
    done = _run(f"""
        cd {kernel.HOST.source}
        mkdir -p {X86}
        printf 'CONFIG_%s=y\\n' 64BIT PCI MODULES RUST BUG PRINTK IOMMU_SUPPORT VFIO VFIO_PCI VFIO_GROUP KUNIT \\
            TRANSPARENT_HUGEPAGE > {X86}/wanted
        KCONFIG_ALLCONFIG={X86}/wanted {make} allnoconfig
        grep -qx CONFIG_RUST=y {X86}/.config
        grep -qx CONFIG_VFIO_PCI=y {X86}/.config
        # What an earlier run or configuration left says nothing of this one.
        cd {X86} && rm -f {" ".join(map(compiled_into, sorted(wanted)))} && cd -
        # With the same W as below: with another one all of Rust's crates would be compiled a second time.
        {make} W=1 prepare
        {make} W=1 {" ".join(folders)}
    """, OVER)
    result = _judge(done, "nvlink2", wanted=False)
    if result.failed:
        return result
    complaints = not_as_listed(wanted, _compiled(_folder() / "x86", wanted))
    complaints += [line for line in done.stdout.splitlines() if re.search(r":\d+.*warning", line) and any(file in line for file in wanted)]
    result.add(Result.one(not complaints, "\n".join(complaints)))
    return result


def not_as_listed(wanted: set[str], found: set[str]) -> list[str]:
    """What is wrong with NOT_FOR_X86, where the series changes `wanted` and x86-64 compiled `found` of it."""
    common = wanted - set(NOT_FOR_X86)
    return [*(f"{file}: not compiled for x86-64: an option that is missing here, or PowerPC's alone (NOT_FOR_X86)?"
              for file in sorted(common - found)),
            *(f"{file}: in NOT_FOR_X86, but compiled" for file in sorted(found - common)),
            *(f"{file}: in NOT_FOR_X86, but the series does not change it" for file in sorted(set(NOT_FOR_X86) - wanted))]


def selftests() -> Result:
    """The selftests where the kernel has them."""
    names = intree.test_names()
    done = _run(f"""
        cd {kernel.HOST.source}/tools/testing/selftests/powerpc
        # Options that nobody knows would just not be set.
        while IFS== read -r option _; do
            grep -rqE --include='Kconfig*' "^[[:space:]]*(menu)?config ${{option#CONFIG_}}$" {kernel.HOST.source} ||
                {{ echo "nvlink2/config: there is no $option"; exit 1; }}
        done < nvlink2/config
        rm -rf {HOME}/selftests
        make -j{config.jobs()} ARCH=powerpc CROSS_COMPILE=powerpc64le-linux-gnu- SUB_DIRS=nvlink2 \\
            OUTPUT={HOME}/selftests
    """, OVER)
    missing = [name for name in names if not (_folder() / "selftests/nvlink2" / name).exists()]
    return Result.one(done.returncode == 0 and not missing, f"missing: {missing}\n{tail(done.stdout)}")


def htmldocs() -> Result:
    """The driver's documents as a part of the kernel's."""
    index = "Documentation/output/driver-api/vfio-nvlink2/index.html"
    (_folder() / "kernel" / index).unlink(missing_ok=True)
    done = _run(f"""
        cd {kernel.HOST.source}
        {kernel.HOST.make} SPHINXDIRS=driver-api/vfio-nvlink2 SPHINXOPTS=-W htmldocs
    """, OVER)
    made = (_folder() / "kernel" / index).exists()
    return Result.one(done.returncode == 0 and made, tail(done.stdout))


# In this order: they share a source tree and a build folder.
BUILDS = [("built-in", built_in), ("modular", modular), ("left-out", left_out), ("x86-64", x86),
          ("selftests", selftests), ("htmldocs", htmldocs)]


def _all() -> Result:
    done = _run(COPY.format(key=kernel.STEP.key()))
    if done.returncode:
        raise Failure(f"no copy of the kernel: {tail(done.stdout)}")
    intree.put(_folder() / "linux")
    total = Result()
    for name, build in BUILDS:
        result = build()
        step.say(f"intree: {name}: {result.line()}")
        result.text = f"{name}: {result.text}" if result.failed else ""
        total.add(result)
    return total


CHECKS = [Check("intree", _all, [*tests.BOOT, desk.STEP], "Builds of the kernel with the driver in its tree.")]
