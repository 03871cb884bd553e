// SPDX-License-Identifier: GPL-2.0

//! The lock of VFIO's PCI core that a driver takes itself.
//!
//! C headers: `include/linux/rwsem.h`, `include/linux/vfio_pci_core.h`

use super::{
    bindings,
    vfio::Core, //
};
use kernel::types::NotThreadSafe;

/// Proof that `memory_lock` of a VFIO device is held for reading.
///
/// While it exists, VFIO neither resets the device nor takes its memory or power away on behalf of
/// its user. Not to be held over an access to user memory: that may fault into the same device,
/// and a writer may be waiting in between.
///
/// # Invariants
///
/// The calling task holds `core`'s `memory_lock` for reading.
pub(crate) struct MemoryGuard<'a> {
    core: &'a Core,
    _not_send: NotThreadSafe,
}

impl<'a> MemoryGuard<'a> {
    /// Takes memory_lock for reading; sleeps.
    #[inline]
    pub(super) fn new(core: &'a Core) -> Self {
        // SAFETY: The core device's semaphore was initialised when the device was allocated.
        unsafe { bindings::down_read(&raw mut (*core.as_raw()).memory_lock) };
        // INVARIANT: It was just taken.
        Self {
            core,
            _not_send: NotThreadSafe,
        }
    }

    /// Whether the device is powered and decodes memory, as far as VFIO's user has a say in it.
    pub(crate) fn enabled(&self) -> bool {
        let core = self.core.as_raw();

        // SAFETY: Both are to be read with `memory_lock` held, which the type invariant says.
        unsafe { !(*core).pm_runtime_engaged && bindings::__vfio_pci_memory_enabled(core) }
    }
}

impl Drop for MemoryGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the semaphore.
        unsafe { bindings::up_read(&raw mut (*self.core.as_raw()).memory_lock) };
    }
}
