#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the emulated host, which has booted the kernel of the packages beside this file, on Debian's user space:
# installs them as the administrator's guide says, and uses the driver in them. TAP.

set -u
here=$(cd "$(dirname "$0")" && pwd)
gpu=0004:04:00.0
bridges='0006:00:00.0 0006:00:00.1 0006:00:00.2'
# shellcheck disable=SC2034 # tap.sh uses it
planned=10
# shellcheck source=/dev/null
. "$here/tap.sh"

# What the maintainer scripts of Debian's own packages would have made.
mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /boot
: >/var/lib/dpkg/status
printf 'root:x:0:0:root:/root:/bin/sh\n' >/etc/passwd
printf 'root:x:0:\n' >/etc/group
printf 'passwd: files\ngroup: files\n' >/etc/nsswitch.conf
ldconfig
cd "$here" || exit

release=$(dpkg-deb -f linux-image-*.deb Package)
release=${release#linux-image-}

# Nothing of Debian was installed by dpkg here, so it knows of no dependency.
is "image and headers can be installed" dpkg -i --force-depends linux-image-*.deb linux-headers-*.deb
is "the kernel that runs has the package's release" test "$(uname -r)" = "$release"
is "the kernel that runs is the package's" grep -qaF "$(cat /proc/version)" "/boot/vmlinux-$release"
is "the configuration is there" grep -x CONFIG_VFIO_PCI_NVLINK2=m "/boot/config-$release"
is "the module folder names the headers" test -f "/lib/modules/$release/build/Module.symvers"
is "the tool can be installed" dpkg -i --force-depends nvlink2-vfio_*.deb nvlink2ctl_*.deb
is "the driver is loaded" modprobe nvlink2-vfio-pci
for name in kvm-hv vfio_iommu_spapr_tce vfio-pci; do
	modprobe "$name"
done
is "nvlink2ctl binds the GPU and its bridges" nvlink2ctl bind "$gpu"
is "they are bound" bound "$gpu $bridges" nvlink2-vfio-pci
is "the demo" ./nvlink2-demo
finish
