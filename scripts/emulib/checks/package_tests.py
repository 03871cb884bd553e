# SPDX-License-Identifier: GPL-2.0
"""Tests of the Debian packages: what lintian says, a build by DKMS, and their use in the emulated host."""

import shutil
from pathlib import Path

from ..build import archive, config, desk, enter, files, kernel, kernel_packages, packages, procs, programs
from ..build.config import Unavailable
from ..host.machines import REDBUD_HALF
from . import tests
from .report import Check, Result, tail

TESTS = config.TREE / "tests/packages"
DEBS = f"{packages.STEP.inner}/debs"


def lintian() -> Result:
    """Debian's own checks of packages find nothing."""
    done = tests.in_root(["sh", "-c", f"lintian --allow-root -I --fail-on info,warning,error {DEBS}/*.changes"], tree=desk.path())
    complaints = [line for line in done.stdout.splitlines() if line[1:2] == ":"]
    return Result.one(done.returncode == 0 and not complaints, tail(done.stdout))


# Installs the packages in a root of their own, with what they depend on, and has DKMS build
# the module for the emulated host's kernel.
INSTALL = f"apt-get -q -y install --no-install-recommends {DEBS}/nvlink2-vfio_*.deb {DEBS}/nvlink2-vfio-dkms_*.deb"
# The index is that of the root's making where the archive gives none. What cannot be resolved has status 1 and is ours.
FETCH = f"""
{archive.update()}
{INSTALL} --simulate
{INSTALL} --download-only || exit {config.UNAVAILABLE}
"""
DKMS = f"""
{INSTALL}
dkms status
version=$(dpkg-query -W -f '${{Version}}' nvlink2-vfio-dkms)
release=$(cat {kernel.HOST.build}/include/config/kernel.release)
dkms build "nvlink2-vfio/$version" -k "$release" -a ppc64le --kernelsourcedir {kernel.HOST.build} ||
    {{ cat "/var/lib/dkms/nvlink2-vfio/$version/build/make.log"; exit 1; }}
module=$(find "/var/lib/dkms/nvlink2-vfio/$version/$release" -name 'nvlink2-vfio-pci.ko*')
modinfo -F vermagic "$module" | grep -F "$release "
modinfo -F alias "$module" | grep vfio_pci:v000010DEd00001DB1sv
# A kernel without the series is not tried.
sed '/CONFIG_PPC_POWERNV_NPU2/d' {kernel.HOST.build}/.config > /tmp/config
if dkms build "nvlink2-vfio/$version" -k 7.3.99 -a ppc64le --kernelsourcedir {kernel.HOST.build} \\
    --config /tmp/config
then
    exit 1
fi
apt-get -q -y purge nvlink2-vfio-dkms
[ ! -e /usr/src/nvlink2-vfio-"$version" ]
"""


def dkms() -> Result:
    """DKMS builds the module for a kernel with the series, and for no other."""
    copy = config.scratch() / "packages-root"
    files.remove(copy)
    # By hard links: the package manager replaces files and does not write into them.
    procs.run(["cp", "-al", str(desk.path()), str(copy)], check=True)
    done = procs.said(
        enter.inside(["bash", "-euxo", "pipefail", "-c", FETCH + DKMS], env={"DEBIAN_FRONTEND": "noninteractive", "ARCH": "powerpc"},
                    network=True, all_users=True, tree=copy),
    )
    files.remove(copy)
    if done.returncode == config.UNAVAILABLE:
        raise Unavailable(f"the archive has not what DKMS depends on:\n{tail(done.stdout)}")
    return Result.one(done.returncode == 0, tail(done.stdout, 80))


def _folder(name: str, script: str, *more: Path) -> Path:
    """A new folder for the emulated host, with a script of tests/packages."""
    folder = config.scratch() / name
    files.remove(folder)
    folder.mkdir()
    for path in (TESTS / script, TESTS / "tap.sh", *more):
        shutil.copy2(path, folder)
    return folder


def used() -> Result:
    """tests/packages/run.sh, on Debian's user space in the emulated host."""
    # The one that is built where it is used has its own test.
    folder = _folder("packages", "run.sh", *(deb for deb in packages.debs().glob("*.deb") if "-dkms_" not in deb.name))
    run = tests.Emulated("packages", ["--initrd", str(packages.host_initrd()), "--file", str(folder)],
                         "sh", f"/files/{folder.name}/run.sh")
    return run.with_console(Result.tap(run.status, run.output))


def kernel_installed() -> Result:
    """tests/packages/kernel.sh: an emulated host with the kernel of `make kernel-deb` installs it, and uses its driver."""
    wanted = ("nvlink2-vfio_", "nvlink2ctl_")
    debs = [*kernel_packages.debs().glob("*.deb"), *(deb for deb in packages.debs().glob("*.deb") if deb.name.startswith(wanted))]
    folder = _folder("kernel-deb", "kernel.sh", *debs, programs.demo_binary())
    (image,) = kernel_packages.debs().glob("linux-image-*.deb")
    vmlinux = config.scratch() / "vmlinux"
    done = tests.in_root(["sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards "./boot/vmlinux-*" > "$2"', "sh",
                          config.inner(image), config.inner(vmlinux)])
    if done.returncode:
        return Result.one(False, tail(done.stdout))
    run = tests.Emulated("kernel-deb", [*REDBUD_HALF.options(), "--kernel", str(vmlinux), "--initrd", str(packages.host_initrd()),
                                        "--file", str(folder)],
                         "sh", f"/files/{folder.name}/kernel.sh")
    return run.with_console(Result.tap(run.status, run.output))


# One by one: where an archive lacks what one of them needs, the others judge all the same.
PARTS = [
    Check("packages-used", used, [packages.STEP, packages.HOST_STEP, *tests.BOOT]),
    Check("packages-dkms", dkms, [packages.STEP]),
    Check("packages-lintian", lintian, [packages.STEP]),
]
LONG_CHECKS = [*PARTS, Check("packages-kernel", kernel_installed,
                            [packages.STEP, packages.HOST_STEP, kernel_packages.STEP, programs.DEMO_STEP, *tests.BOOT])]
# Checks that are the sum of others.
SUMS = {"packages": PARTS}
