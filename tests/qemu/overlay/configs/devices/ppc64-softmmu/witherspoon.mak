# SPDX-License-Identifier: GPL-2.0-or-later
# What the emulated Witherspoon and the pseries guest of machine.py are made of, and nothing else
# (configure --without-default-devices).

CONFIG_POWERNV=y
# What POWERNV selects needs these, without saying so: I2C the devices on its bus, ACPI the BMC.
CONFIG_I2C=y
CONFIG_ACPI=y
CONFIG_PSERIES=y

CONFIG_NVLINK2_V100=y
CONFIG_XIO3130=y
CONFIG_PCI_TESTDEV=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_SERIAL=y
