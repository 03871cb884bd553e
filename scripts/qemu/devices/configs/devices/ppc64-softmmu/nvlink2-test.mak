# SPDX-License-Identifier: GPL-2.0-or-later
# What tests of the pseries machine need, on a machine without the hardware.

CONFIG_PSERIES=y
CONFIG_PCI_TESTDEV=y
CONFIG_NVLINK2_TESTDEV=y
CONFIG_VFIO_PCI=y
CONFIG_VFIO_NVLINK2=y
