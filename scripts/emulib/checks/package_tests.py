# SPDX-License-Identifier: GPL-2.0
"""Tests of the Debian packages: what lintian says, a build by DKMS, and their use in the emulated host."""

import shutil

from ..build import archive, config, desk, enter, files, kernel, packages, procs
from ..build.config import Unavailable
from . import tests
from .report import Check, Result, tail

SCRIPT = config.TREE / "tests/packages/run.sh"
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


def used() -> Result:
    """tests/packages/run.sh, on Debian's user space in the emulated host."""
    folder = config.scratch() / "packages"
    files.remove(folder)
    folder.mkdir()
    shutil.copy2(SCRIPT, folder)
    for deb in packages.debs().glob("*.deb"):
        # The one that is built where it is used has its own test.
        if "-dkms_" not in deb.name:
            shutil.copy2(deb, folder)
    run = tests.Emulated("packages", ["--initrd", str(packages.host_initrd()), "--file", str(folder)],
                         "sh", f"/files/packages/{SCRIPT.name}")
    return run.with_console(Result.tap(run.status, run.output))


# One by one: where an archive lacks what one of them needs, the others judge all the same.
PARTS = [
    Check("packages-used", used, [packages.STEP, packages.HOST_STEP, *tests.BOOT]),
    Check("packages-dkms", dkms, [packages.STEP]),
    Check("packages-lintian", lintian, [packages.STEP]),
]
# Checks that are the sum of others.
SUMS = {"packages": PARTS}
