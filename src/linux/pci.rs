// SPDX-License-Identifier: GPL-2.0

//! PCI functions and the ids of VFIO drivers for them.
//!
//! C header: `include/linux/pci.h`

use super::bindings;
use core::ffi::CStr;
use kernel::{
    device::Device,
    device_id::RawDeviceId,
    pci::{
        self,
        Vendor, //
    },
};

/// A PCI function that is being probed.
#[repr(transparent)]
pub(crate) struct Function(pci::Device);

impl Function {
    /// Returns a pointer that is valid as long as `self`.
    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        // A `pci::Device` is a transparent wrapper that may change behind a shared reference.
        core::ptr::from_ref(&self.0).cast_mut().cast()
    }

    /// Returns the device, for messages.
    pub(crate) fn device(&self) -> &Device {
        self.0.as_ref()
    }

    /// Returns the vendor.
    pub(crate) fn vendor(&self) -> Vendor {
        self.0.vendor_id()
    }

    /// Returns the function's name, such as `0006:00:00.1`.
    pub(crate) fn name(&self) -> &CStr {
        self.device().name()
    }
}

/// An entry of a driver's id table, which matches only if the driver was chosen by name
/// (`driver_override`).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct OverrideId(bindings::pci_device_id);

impl OverrideId {
    /// Any device of a vendor.
    pub(crate) const fn vendor(vendor: Vendor) -> Self {
        const ANY: u32 = !0;

        Self(bindings::pci_device_id {
            // CAST: Widens.
            vendor: vendor.as_raw() as u32,
            device: ANY,
            subvendor: ANY,
            subdevice: ANY,
            class: 0,
            class_mask: 0,
            driver_data: 0,
            override_only: bindings::PCI_ID_F_VFIO_DRIVER_OVERRIDE,
        })
    }
}

// SAFETY: A transparent wrapper.
unsafe impl RawDeviceId for OverrideId {
    type RawType = bindings::pci_device_id;
}
