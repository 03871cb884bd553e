#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the emulated host, on Debian's user space: installs the packages beside this file as an administrator would,
# binds GPU 0 and its bridges with each tool that the administrator's guide names, and gives them back. TAP.

set -u
here=$(cd "$(dirname "$0")" && pwd)
gpu=0004:04:00.0
bridges='0006:00:00.0 0006:00:00.1 0006:00:00.2'
# shellcheck disable=SC2034 # tap.sh uses it
planned=28
# shellcheck source=/dev/null
. "$here/tap.sh"

name() {
	echo "pci_$1" | tr :. __
}

# What the maintainer scripts of Debian's own packages, and the installation of a kernel, would have made.
mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /run/lock /run/udev /run/libvirt /var/log /boot
rm -rf /var/run
ln -s /run /var/run
sed 's/\t.*//' /proc/kallsyms >"/boot/System.map-$(uname -r)"
: >/var/lib/dpkg/status
printf 'root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:36::/:/bin/false\n' >/etc/passwd
printf 'root:x:0:\nkvm:x:36:\nlibvirt-qemu:x:64055:\n' >/etc/group
printf 'passwd: files\ngroup: files\n' >/etc/nsswitch.conf
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
ldconfig

is "no bridge has a driver before" bound "$bridges" ''
# Nothing of Debian was installed by dpkg here, so it knows of no dependency.
is "the packages can be installed" dpkg -i --force-depends "$here"/*.deb
is "the driver has an alias for the GPU" sh -c 'modinfo -F alias nvlink2-vfio-pci | grep vfio_pci:v000010DEd00001DB1sv'
is "the driver has none for all of NVIDIA's or IBM's functions" sh -c '! modinfo -F alias nvlink2-vfio-pci | grep "d\*sv"'

is "the hook for libvirt is where the guide says" test -x /usr/share/doc/nvlink2-vfio/examples/libvirt-hook

/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=pci
udevadm settle
is "udev leaves functions alone that nobody named" bound "$gpu $bridges" ''
mkdir -p /etc/udev/rules.d
echo 'SUBSYSTEM=="pci", KERNEL=="0006:00:00.[0-2]", ENV{NVLINK2_VFIO}="1"' >/etc/udev/rules.d/50-nvlink2-vfio.rules
udevadm control --reload
udevadm trigger --action=add --subsystem-match=pci
udevadm settle
is "udev binds the bridges that a rule names" bound "$bridges" nvlink2-vfio-pci
is "udev leaves the others alone" bound "$gpu 0006:00:01.0" ''

is "nvlink2ctl finds the GPU's bridges" sh -c "nvlink2ctl show $gpu | grep ${bridges%% *}"
is "the packaged QEMU runs here, and knows NVLink2" \
	sh -c 'qemu-system-ppc64-nvlink2 -device spapr-pci-host-bridge,help | grep atsd='
is "nvlink2ctl names it" sh -c "nvlink2ctl libvirt-xml $gpu 2>&1 >/dev/null | grep '<emulator>/usr/bin/qemu-system-ppc64-nvlink2<'"
is "driverctl sets the GPU's driver" driverctl set-override "$gpu" nvlink2-vfio-pci
is "the GPU is bound" bound "$gpu" nvlink2-vfio-pci
is "the IOMMU group can be opened" test -c "/dev/vfio/$(basename "$(readlink -f "/sys/bus/pci/devices/$gpu/iommu_group")")"
driverctl unset-override "$gpu"
is "driverctl gives the GPU back" bound "$gpu" ''

mkdir -p /etc/libvirt
cat >/etc/libvirt/libvirtd.conf <<-EOF
	auth_unix_ro = "none"
	auth_unix_rw = "none"
	host_uuid = "00112233-4455-6677-8899-aabbccddeeff"
EOF
cat >/etc/libvirt/qemu.conf <<-EOF
	user = "root"
	group = "root"
	remember_owner = 0
	security_driver = "none"
	namespaces = []
	stdio_handler = "file"
EOF
ip link set lo up
libvirtd --daemon >/tmp/libvirtd.log 2>&1
virsh() {
	LC_ALL=C command virsh -c qemu:///system "$@"
}
is "libvirt knows the GPU" virsh nodedev-dumpxml "$(name "$gpu")"
is "libvirt detaches the GPU" virsh nodedev-detach "$(name "$gpu")"
is "libvirt chose nvlink2-vfio-pci for the GPU" bound "$gpu" nvlink2-vfio-pci
for bridge in $bridges; do
	is "libvirt detaches the bridge $bridge" virsh nodedev-detach "$(name "$bridge")"
	is "libvirt chose nvlink2-vfio-pci for the bridge $bridge" bound "$bridge" nvlink2-vfio-pci
done
is "libvirt gives the GPU back" virsh nodedev-reattach "$(name "$gpu")"
is "the GPU has no driver" bound "$gpu" ''

is "the packages can be removed" sh -c "dpkg-query -W -f '\${Package}\n' '*nvlink2*' | xargs dpkg --purge"
is "the module is not found any more" sh -c '! modinfo nvlink2-vfio-pci'
finish
