// SPDX-License-Identifier: GPL-2.0

//! A VFIO device in the phase in which it is opened.
//!
//! C header: `include/linux/vfio_pci_core.h`

use crate::linux::{
    bindings,
    vfio::{
        core::Core,
        region::{
            Region,
            RegionVTable,
            FLAGS_ALL, //
        },
    },
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc, //
};

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
    pub(in crate::linux) unsafe fn new(core: &'a Core) -> Result<Self> {
        // SAFETY: In `open_device`, where the core wants this call.
        to_result(unsafe { bindings::vfio_pci_core_enable(core.as_raw()) })?;
        // INVARIANT: It succeeded.
        Ok(Self(core))
    }

    /// Returns the device that is being opened.
    pub(crate) fn core(&self) -> &'a Core {
        self.0
    }

    /// Returns the virtual machine on behalf of which the device is opened.
    pub(in crate::linux) fn kvm(&self) -> Option<NonNull<bindings::kvm>> {
        // SAFETY: VFIO sets it before it opens the device, and does not change it until after
        // close. By the type invariant this is in between.
        NonNull::new(unsafe { (*self.0.as_raw()).vdev.kvm })
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
                FLAGS_ALL,
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
    pub(in crate::linux) fn finish(self) {
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
