// SPDX-License-Identifier: GPL-2.0

//! The VFIO PCI core device, and what a driver may do with it.
//!
//! C header: `include/linux/vfio_pci_core.h`

use super::{
    bindings,
    lock::MemoryGuard,
    region::{
        Region,
        RegionVTable, //
    },
};
use crate::pure::range::region_file_offset;
use core::ptr::NonNull;
use kernel::{
    device::Device,
    error::to_result,
    prelude::*,
    sync::Arc,
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
    pub(super) unsafe fn from_raw<'a>(core: *mut bindings::vfio_pci_core_device) -> &'a Self {
        // SAFETY: The caller vouches for the pointer; `Self` is a transparent wrapper.
        unsafe { &*core.cast() }
    }

    /// Returns a pointer that is valid as long as `self`.
    pub(super) fn as_raw(&self) -> *mut bindings::vfio_pci_core_device {
        self.0.get()
    }

    /// Returns the PCI function, which is valid as long as `self`.
    pub(super) fn pci(&self) -> *mut bindings::pci_dev {
        // SAFETY: `pdev` is set when the device is initialised and never changes.
        unsafe { (*self.as_raw()).pdev }
    }

    /// Returns the PCI device, for messages.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: The core device exists between probe and remove, during which its `pci_dev` does.
        unsafe { Device::from_raw(&raw mut (*self.pci()).dev) }
    }

    /// Takes `memory_lock` for reading.
    pub(crate) fn lock_memory(&self) -> MemoryGuard<'_> {
        MemoryGuard::new(self)
    }

    /// Returns the virtual machine on behalf of which the device was opened.
    ///
    /// VFIO sets this before it calls open and clears it after close.
    pub(super) fn kvm(&self) -> Option<NonNull<bindings::kvm>> {
        // SAFETY: Stable from open to close, and only asked for in between.
        NonNull::new(unsafe { (*self.as_raw()).vdev.kvm })
    }

    /// Returns the offset of the power management capability, if there is one.
    pub(crate) fn pm_cap(&self) -> Option<u8> {
        // SAFETY: Set when the PCI device is enumerated.
        let cap = unsafe { (*self.pci()).pm_cap };

        (cap != 0).then_some(cap)
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
    pub(super) fn as_raw(&self) -> *mut bindings::address_space {
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

/// A core device between `vfio_pci_core_enable` and the end of open.
///
/// Dropped unless [`Enabled::finish`] is called, it disables the device, regions included.
///
/// # Invariants
///
/// The device is enabled, and open or close of its set are serialised by the caller.
pub(crate) struct Enabled<'a>(&'a Core);

impl<'a> Enabled<'a> {
    /// Enables the device: power, reset, BARs.
    ///
    /// # Safety
    ///
    /// Only to be called from the `open_device` operation, which VFIO serialises.
    pub(super) unsafe fn new(core: &'a Core) -> Result<Self> {
        // SAFETY: In `open_device`, where the core wants this call.
        to_result(unsafe { bindings::vfio_pci_core_enable(core.as_raw()) })?;
        // INVARIANT: It succeeded.
        Ok(Self(core))
    }

    /// Returns the device that is being opened.
    pub(crate) fn core(&self) -> &'a Core {
        self.0
    }

    /// Adds a region to the device, until it is closed.
    pub(crate) fn register<R: Region>(&self, region: Arc<R>) -> Result {
        let size = usize::try_from(region.size())?;
        let data = Arc::into_raw(region).cast_mut();

        // SAFETY: The device is enabled and not yet open, so nobody looks at its regions. `data`
        // is what the operations of `RegionVTable<R>` expect: an `Arc<R>` of their own, which they
        // give back in `release`.
        let result = to_result(unsafe {
            bindings::vfio_pci_core_register_dev_region(
                self.0.as_raw(),
                R::TYPE,
                R::SUBTYPE,
                RegionVTable::<R>::build(),
                size,
                R::FLAGS,
                data.cast(),
            )
        });

        if result.is_err() {
            // SAFETY: Not registered, so the reference is still ours.
            drop(unsafe { Arc::from_raw(data) });
        }
        result
    }

    /// Ends open successfully.
    pub(super) fn finish(self) {
        // SAFETY: Called once, after everything else, as the core demands.
        unsafe { bindings::vfio_pci_core_finish_enable(self.0.as_raw()) };
        core::mem::forget(self);
    }
}

impl Drop for Enabled<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the device is enabled; open failed, so this undoes it.
        unsafe { bindings::vfio_pci_core_disable(self.0.as_raw()) };
    }
}

/// The reference to the core device that a user mapping of it has.
///
/// # Invariants
///
/// Made for a mapping of this device's file; used only while the mapping exists, which keeps the
/// file and so the device open.
#[derive(Clone, Copy)]
pub(super) struct MappedCore(NonNull<bindings::vfio_pci_core_device>);

// SAFETY: A core device may be used from any thread.
unsafe impl Send for MappedCore {}
// SAFETY: There are no methods that change `self`; a core device locks its own state.
unsafe impl Sync for MappedCore {}

impl MappedCore {
    /// # Safety
    ///
    /// Only to be stored in a VMA of `core`'s file, and not to outlive it.
    pub(super) unsafe fn new(core: &Core) -> Self {
        // INVARIANT: The caller vouches for it.
        Self(NonNull::from(&core.0).cast())
    }

    /// Returns the device that the mapping keeps open.
    pub(super) fn get(&self) -> &Core {
        // SAFETY: By the type invariant the mapping keeps the device open.
        unsafe { Core::from_raw(self.0.as_ptr()) }
    }
}
