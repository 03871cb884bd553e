# SPDX-License-Identifier: GPL-2.0
"""Debian packages: the module for the emulated host's kernel, its source for DKMS, configuration, nvlink2ctl, QEMU."""

import shutil
from pathlib import Path

from . import config, desk, docs, files, kernel, module, procs, programs, qemu_client, root, sources
from .config import Failure
from .step import Log, Step, digest, locked

DEBIAN = config.TREE / "scripts/debian"
# What goes into the source package besides debian/.
INPUTS = [*module.INPUTS, "README.md", "tests/clients/libvirt-hook"]
APPARMOR = qemu_client.SERIES / "apparmor"


def debs() -> Path:
    """The folder of the packages."""
    return STEP.path()


def _stage() -> None:
    """Make the Debian source tree."""
    tree = STEP.home() / "tree"
    for old in (tree, debs()):
        files.remove(old)
    tree.mkdir(parents=True)
    for name in INPUTS:
        for file in files.below(config.TREE / name):
            into = tree / file.relative_to(config.TREE)
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into)
    shutil.copytree(DEBIAN, tree / "debian")
    shutil.copytree(docs.man(), tree / "man")
    control = (DEBIAN / "control.in").read_text(encoding="utf-8")
    (tree / "debian/control").write_text(control.replace("@KERNEL@", kernel.HOST.release()), encoding="utf-8")
    (tree / "debian/control.in").unlink()


def _stage_nvlink2ctl(log: Log) -> None:
    """Add the tool, and what it says about itself when it runs on this machine."""
    tree = STEP.home() / "tree/nvlink2ctl"
    (tree / "bash-completion").mkdir(parents=True)
    shutil.copy2(programs.nvlink2ctl_binary(), tree)
    inner = f"{STEP.inner}/tree/nvlink2ctl"
    package = str(programs.NVLINK2CTL.relative_to(config.TREE))
    with locked("cargo-nvlink2ctl"):
        log.run(programs.cargo(package, "run", "-q", "--locked", "--", "man", "--out", f"{inner}/man"))
        script = procs.run(programs.cargo(package, "run", "-q", "--locked", "--", "completions", "bash"),
                           capture_output=True, text=True)
    if script.returncode:
        raise Failure(f"packages: nvlink2ctl completions bash: {script.stderr}")
    (tree / "bash-completion/nvlink2ctl").write_text(script.stdout, encoding="utf-8")


def _stage_qemu() -> None:
    """Add QEMU, and what makes AppArmor let libvirt's guests run it."""
    tree = STEP.home() / "tree/qemu"
    shutil.copytree(APPARMOR, tree / "apparmor")
    shutil.copy2(qemu_client.emulator(), tree / qemu_client.NAME)


def _build(log: Log) -> None:
    _stage()
    _stage_nvlink2ctl(log)
    _stage_qemu()
    # A kernel that clang-19 built is to be told so by the names that are clang's own.
    sources.shell(log, f"""
        cd {STEP.inner}/tree
        export PATH=/usr/lib/llvm-19/bin:$PATH KDIR={kernel.HOST.build}
        export DEB_BUILD_OPTIONS=noautodbgsym
        dpkg-buildpackage -a ppc64el -b -d -us -uc -j{config.jobs()}
        mkdir ../debs
        mv ../*.deb ../*.changes ../*.buildinfo ../debs
    """, tree=desk.path())
    if not any(debs().glob("*.changes")):
        raise Failure(f"packages: dpkg-buildpackage made no .changes file; see {log.path}")


STEP = Step(
    "packages",
    "building the Debian packages",
    lambda: digest(DEBIAN, APPARMOR, *(config.TREE / name for name in INPUTS)),
    _build,
    ["debs"],
    [docs.STEP, kernel.STEP, programs.NVLINK2CTL_STEP, qemu_client.STEP, desk.STEP],
)

# Debian's user space for a host that the packages are installed in.
HOST_PACKAGES = """
    base-files base-passwd bash dash coreutils findutils grep sed mawk diffutils tar libc-bin
    dpkg kmod udev driverctl iproute2 libvirt-daemon libvirt-daemon-driver-qemu
    libvirt-daemon-driver-nodedev libvirt-clients
    libfdt1 libpixman-1-0 libseccomp2
""".split()
# A mirror that is being synchronised was seen to lack one's packages for days, while it had the other's.
HOST_SUITES = [root.SUITE, "testing"]
LEFT_OUT = """
    usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/bash-completion usr/share/perl5
    usr/share/qemu usr/share/zoneinfo usr/lib/systemd/system var/cache
""".split()


def host_initrd() -> Path:
    return HOST_STEP.path()


def _build_host(log: Log) -> None:
    fresh = host_initrd().with_name("root")
    root.unpack(log, fresh, HOST_PACKAGES, HOST_SUITES)
    for path in LEFT_OUT:
        files.remove(fresh / path)
    shutil.copytree(kernel.HOST.modules() / "lib/modules", fresh / "usr/lib/modules", symlinks=True,
                    ignore=shutil.ignore_patterns("build", "source"))
    sources.shell(log, f"""
        cd {HOST_STEP.inner}/root
        mkdir -p proc sys dev run tmp root files
        depmod -b . {kernel.HOST.release()}
        find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | zstd -q -6 -T0 > ../host.cpio.zst
        cd .. && rm -rf root
    """)


HOST_STEP = Step(
    "package-host",
    f"unpacking libvirt and driverctl of Debian {root.SUITE} for the emulated host (1 min)",
    lambda: "",
    _build_host,
    ["host.cpio.zst"],
    [kernel.STEP],
)
