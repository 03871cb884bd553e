// SPDX-License-Identifier: GPL-2.0

//! PCI functions and the ids of VFIO drivers for them.
//!
//! C header: `include/linux/pci.h`

use crate::linux::bindings;
use core::ffi::CStr;
use kernel::{
    device::Device,
    device_id::RawDeviceId,
    pci::{
        self,
        Vendor, //
    },
    sync::aref::ARef, //
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

/// A function that is awake does not fall asleep, as long as this exists.
///
/// # Invariants
///
/// Owns one use of the device, which its runtime power management counts.
pub(crate) struct Awake(ARef<Device>);

impl Awake {
    /// Has a function that is being probed, and so is awake, stay that.
    pub(crate) fn new(function: &Function) -> Self {
        // SAFETY: The device is valid as long as `function`.
        unsafe { bindings::nvlink2_pm_get(&raw mut (*function.as_raw()).dev) };
        // INVARIANT: Its use was just counted.
        Self(function.device().into())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let device: *const Device = &*self.0;

        // SAFETY: The reference keeps the device, of which `Device` is a transparent wrapper. Gives
        // up the use that the type invariant says we own.
        unsafe { bindings::nvlink2_pm_put(device.cast_mut().cast()) };
    }
}

/// An entry of a driver's id table, which matches only if the driver was chosen by name
/// (`driver_override`). A driver that was chosen so is probed for functions without an entry, too.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct OverrideId(bindings::pci_device_id);

impl OverrideId {
    /// A device of a vendor, whatever subsystem and class it has.
    pub(crate) const fn new(vendor: Vendor, device: u16) -> Self {
        const ANY: u32 = !0;

        Self(bindings::pci_device_id {
            // CAST: Both widen.
            vendor: vendor.as_raw() as u32,
            device: device as u32,
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
