// SPDX-License-Identifier: GPL-2.0

//! PCI functions and the ids of VFIO drivers for them.
//!
//! C header: `include/linux/pci.h`

use super::bindings;
use core::ffi::CStr;
use kernel::{
    device::Device,
    device_id::RawDeviceId,
    str::CStrExt,
    types::Opaque, //
};

/// A PCI function that is being probed.
#[repr(transparent)]
pub(crate) struct Function(Opaque<bindings::pci_dev>);

impl Function {
    /// Returns a pointer that is valid as long as `self`.
    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        self.0.get()
    }

    /// Returns the device, for messages.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: A function that is being probed is a valid PCI device.
        unsafe { Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }

    /// Returns the vendor id, 16 bits.
    pub(crate) fn vendor(&self) -> u32 {
        // SAFETY: Set when the device is enumerated.
        u32::from(unsafe { (*self.as_raw()).vendor })
    }

    /// Returns the function's name, such as `0006:00:00.1`.
    pub(crate) fn name(&self) -> &CStr {
        // SAFETY: The name is set when the device is enumerated and lives as long.
        unsafe { CStr::from_char_ptr(bindings::nvlink2_pci_name(self.as_raw())) }
    }
}

/// An entry of a driver's id table, which matches only if the driver was chosen by name
/// (`driver_override`).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct OverrideId(bindings::pci_device_id);

impl OverrideId {
    /// Any device of a vendor.
    pub(crate) const fn vendor(vendor: u32) -> Self {
        const ANY: u32 = !0;

        Self(bindings::pci_device_id {
            vendor,
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
