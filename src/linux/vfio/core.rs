// SPDX-License-Identifier: GPL-2.0

//! The VFIO PCI core device, and what a driver may do with it.
//!
//! C header: `include/linux/vfio_pci_core.h`

use crate::{
    linux::bindings,
    pure::range::region_file_offset, //
};
use kernel::{
    device::Device,
    types::Opaque, //
};

/// Index of the first region that a driver adds, behind BARs, ROM, configuration space and VGA.
pub(crate) const FIRST_REGION: u32 = bindings::VFIO_PCI_NUM_REGIONS;

/// A `struct vfio_pci_core_device` that is registered with VFIO.
#[repr(transparent)]
pub(crate) struct Core(Opaque<bindings::vfio_pci_core_device>);

impl Core {
    /// # Safety
    ///
    /// `core` must be initialised and stay so for `'a`.
    pub(in crate::linux) unsafe fn from_raw<'a>(
        core: *mut bindings::vfio_pci_core_device,
    ) -> &'a Self {
        // SAFETY: The caller vouches for the pointer; `Self` is a transparent wrapper.
        unsafe { &*core.cast() }
    }

    /// Returns a pointer that is valid as long as `self`.
    pub(in crate::linux) fn as_raw(&self) -> *mut bindings::vfio_pci_core_device {
        self.0.get()
    }

    /// Returns the PCI function, which is valid as long as `self`.
    pub(in crate::linux) fn pci(&self) -> *mut bindings::pci_dev {
        // SAFETY: `pdev` is set when the device is initialised and never changes.
        unsafe { (*self.as_raw()).pdev }
    }

    /// Returns the PCI device, for messages.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: The core device exists between probe and remove, during which its `pci_dev` does.
        unsafe { Device::from_raw(&raw mut (*self.pci()).dev) }
    }

    /// Whether VFIO could reset the device when it was opened. Only to be asked until it is closed.
    pub(crate) fn was_reset(&self) -> bool {
        // SAFETY: Set when the device is enabled, and not changed from then on.
        unsafe { (*self.as_raw()).reset_works() }
    }

    /// Returns a handle on the device's user mappings.
    pub(crate) fn mappings(&self) -> UserMappings {
        // SAFETY: The inode exists as long as the VFIO device; taking a reference keeps it longer.
        let inode = unsafe {
            let inode = (*self.as_raw()).vdev.inode;

            bindings::ihold(inode);
            inode
        };

        // INVARIANT: `ihold` took the reference. VFIO allocates the inode with the device.
        UserMappings(inode)
    }
}

/// The mappings that user space has of a device, through whichever file and process.
///
/// # Invariants
///
/// Points to an inode of which this owns a reference.
pub(crate) struct UserMappings(*mut bindings::inode);

// SAFETY: An inode's reference count and mapping may be used from any thread.
unsafe impl Send for UserMappings {}
// SAFETY: There are no methods that change `self`.
unsafe impl Sync for UserMappings {}

impl UserMappings {
    /// Returns the mapping of the inode, which is valid as long as `self`.
    pub(in crate::linux) fn as_raw(&self) -> *mut bindings::address_space {
        // SAFETY: By the type invariant the inode is valid; its mapping never changes.
        unsafe { (*self.0).i_mapping }
    }

    /// Removes what user space has mapped of region `index`. Accesses fault again afterwards.
    ///
    /// The caller holds a lock that the fault handler takes, or pages come back at once.
    pub(crate) fn zap(&self, index: u32) {
        let (Ok(start), Ok(len)) = (
            i64::try_from(region_file_offset(index)),
            i64::try_from(crate::pure::range::MAX_REGION_SIZE),
        ) else {
            return;
        };

        // SAFETY: By the type invariant the inode is valid, and with it its mapping. Removing
        // translations of any range is allowed: they come back through the fault handler.
        unsafe { bindings::unmap_mapping_range((*self.0).i_mapping, start, len, 1) };
    }
}

impl Drop for UserMappings {
    fn drop(&mut self) {
        // SAFETY: Gives up the reference that the type invariant says we own.
        unsafe { bindings::iput(self.0) };
    }
}
