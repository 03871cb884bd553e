# SPDX-License-Identifier: GPL-2.0
"""The emulated host's root: busybox and kernel modules, and what one run adds.

Linux unpacks archives that follow one another in the initrd on top of each
other, so that a run only makes the small last one.
"""

import shlex
import shutil
from pathlib import Path

from . import config, enter, files, kernel, module, sources
from .config import Failure
from .kernel import Kernel
from .step import Log, Step

INIT = config.TREE / "scripts/initramfs/init"

# Loaded in this order before the command; the last one unless --no-module.
MODULES = ["kvm-hv", "vfio_iommu_spapr_tce", "vfio-pci"]
OUR_MODULE = "nvlink2-vfio-pci"


def base(of: Kernel) -> Path:
    """The archive that every run with this kernel starts from."""
    return step(of).path()


def _pack(log: Log, staging: Path, archive: Path) -> None:
    """Archive the staging folder, everything owned by root."""
    sources.shell(log, f"""
        cd {shlex.quote(config.inner(staging))}
        find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 > {shlex.quote(config.inner(archive))}
    """)


def _build(log: Log, of: Kernel) -> None:
    staging = base(of).with_name("staging")
    files.remove(staging)
    (staging / ".emu").mkdir(parents=True)
    shutil.copy2(sources.busybox(), staging / ".emu/busybox")
    shutil.copytree(
        of.modules() / "lib", staging / "lib", symlinks=True,
        ignore=shutil.ignore_patterns("build", "source"),
    )
    (release,) = (staging / "lib/modules").iterdir()
    extra = release / "updates"
    extra.mkdir()
    shutil.copy2(module.step(of).path(), extra)
    log.run(enter.inside(["depmod", "-b", config.inner(staging), release.name]))
    for folder in ("root", "tmp", "run", "proc", "sys", "dev", "files"):
        (staging / folder).mkdir()
    _pack(log, staging, base(of))
    files.remove(staging)


def overlay(log: Log, run: Path, command: list[str] | None, given: list[Path],
            modules: list[str]) -> Path:
    """The archive that a run adds: init, the command (None: a shell), the files."""
    staging = run / "staging"
    emu = staging / ".emu"
    emu.mkdir(parents=True)
    shutil.copy2(sources.busybox(), emu / "busybox")
    shutil.copy2(INIT, emu / "init")
    (emu / "modules").write_text("".join(f"{name}\n" for name in modules), encoding="utf-8")
    if command is None:
        (emu / "shell").touch()
    else:
        (emu / "command").write_text(shlex.join(command) + "\n", encoding="utf-8")
    (staging / "files").mkdir()
    for file in given:
        if not file.exists():
            raise Failure(f"--file {file}: no such file")
        if (staging / "files" / file.name).exists():
            raise Failure(f"--file {file}: another file of this name is already given")
        if file.is_dir():
            shutil.copytree(file, staging / "files" / file.name, symlinks=True)
        else:
            shutil.copy2(file, staging / "files" / file.name)
    archive = run / "overlay.cpio"
    _pack(log, staging, archive)
    return archive


def _step(name: str, what: str, of: Kernel) -> Step:
    return Step(name, what, lambda: "", lambda log: _build(log, of),
                ["root.cpio"], [of.step, module.step(of), sources.TARGET_STEP])


STEP = _step("initrd", "packing the emulated host's root", kernel.HOST)
DEBUG_STEP = _step("initrd-debug", "packing the root of the debug kernel", kernel.DEBUG)
STEPS = {kernel.HOST: STEP, kernel.DEBUG: DEBUG_STEP,
         **{of: _step(f"initrd-{name}", f"packing the root of the kernel '{name}'", of) for name, of in kernel.VARIANTS.items()}}


def step(of: Kernel) -> Step:
    """What packs the root of one of the kernels."""
    return STEPS[of]
