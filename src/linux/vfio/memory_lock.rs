// SPDX-License-Identifier: GPL-2.0

//! The lock of VFIO's PCI core that a driver takes itself.
//!
//! C headers: `include/linux/rwsem.h`, `include/linux/vfio_pci_core.h`

use crate::linux::{
    bindings,
    vfio::core::Core, //
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
    pub(crate) fn new(core: &'a Core) -> Self {
        // SAFETY: The core device's semaphore was initialised when the device was allocated.
        unsafe { bindings::down_read(&raw mut (*core.as_raw()).memory_lock) };
        // INVARIANT: It was just taken.
        Self {
            core,
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the device whose lock is held.
    pub(in crate::linux) fn core(&self) -> &'a Core {
        self.core
    }

    /// Whether the device has power and decodes memory.
    ///
    /// As for a BAR that is read by a system call, the low power state that the user can ask for
    /// does not count: VFIO wakes the device for each call.
    pub(crate) fn decodes(&self) -> bool {
        // SAFETY: To be called with `memory_lock` held, which the type invariant says.
        unsafe { bindings::__vfio_pci_memory_enabled(self.core.as_raw()) }
    }
}

impl Drop for MemoryGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the semaphore.
        unsafe { bindings::up_read(&raw mut (*self.core.as_raw()).memory_lock) };
    }
}
