// SPDX-License-Identifier: GPL-2.0

//! The driver's name, and the functions that it may be bound to.

use crate::linux::pci::OverrideId;
use core::ffi::CStr;
use kernel::{
    module_device_table,
    pci::Vendor, //
};

/// The name of the driver, for a driver_override and in `/proc/iomem`.
pub(crate) const NAME: &CStr = c"nvlink2-vfio-pci";

// libvirt and others choose this driver for these functions, and do not try vfio-pci if it fails. A
// driver_override needs no id. The device tree says which functions are on NVLink2.
module_device_table!(
    "pci",
    OverrideId,
    IDS,
    @none,
    [
        // V100 SXM2 with 16 GB and with 32 GB.
        OverrideId::new(Vendor::NVIDIA, 0x1db1),
        OverrideId::new(Vendor::NVIDIA, 0x1db5),
        // The bridge by which OPAL represents a link.
        OverrideId::new(Vendor::IBM, 0x04ea),
    ]
);

/// The ids that `vfio_pci:` aliases are made of; they match for a driver_override only.
pub(crate) const ID_TABLE: &dyn kernel::device_id::IdTable<OverrideId, ()> = &IDS;
