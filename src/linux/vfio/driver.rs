// SPDX-License-Identifier: GPL-2.0

//! What a VFIO PCI driver implements.
//!
//! `kernel::pci::Driver` does not fit: VFIO wants its core device as the driver data, DMA managed
//! by user space, error handlers, and ids that only an override of the driver's name matches.

use crate::linux::{
    pci::{
        Function,
        OverrideId, //
    },
    vfio::{
        core::Core,
        enabled::Enabled, //
    },
};
use core::ffi::CStr;
use kernel::{
    device::Device,
    device_id::IdTable,
    prelude::*,
    sync::Arc, //
};

/// A VFIO PCI driver.
///
/// An implementor is the state of one function, from probe until the VFIO device is released.
pub(crate) trait Driver: Send + Sync + Sized + 'static {
    /// The driver's name.
    const NAME: &'static CStr;

    /// The functions that the driver may be bound to.
    const IDS: &'static dyn IdTable<OverrideId, ()>;

    /// State that all functions share, from before the first probe until after the last remove.
    type Shared: Send + Sync + 'static;

    /// What ends after the device was closed.
    type Closing;

    /// Makes the shared state.
    fn shared() -> Result<Self::Shared>;

    /// Finds out what a function is.
    fn probe(function: &Function, shared: &Self::Shared) -> Result<Arc<Self>>;

    /// Called when the function is unbound, after its last user has closed it.
    fn remove(&self, device: &Device);

    /// The machine goes down, or another kernel is started: what the function does to memory ends.
    /// Its users may still be there.
    fn shutdown(&self);

    /// Called when the function is to be unbound and that has to wait for a user to close it.
    fn requested(&self, device: &Device);

    /// The first user wants to open the device, which was not touched yet: VFIO resets it next.
    fn before_open(&self, core: &Core) -> Result;

    /// The first user opens the device. What is not undone by dropping it has to be undone here
    /// when it fails.
    fn open(&self, enabled: &Enabled<'_>) -> Result;

    /// The last user closes the device. What is returned is dropped when the device was reset and
    /// has lost its regions.
    fn close(&self) -> Self::Closing;

    /// Returns the size in bytes of the largest page that region `index` is mapped with, by CPU or
    /// IOMMU, if it is a region of the driver's own that may have pages larger than the CPU's.
    fn largest_page(&self, index: u64) -> Option<u64>;

    /// The function is about to be reset, whoever wants it. May be called with `memory_lock` held
    /// for writing, and within another reset.
    fn reset_prepare(&self);

    /// The reset is over.
    fn reset_done(&self);
}
