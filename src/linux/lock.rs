// SPDX-License-Identifier: GPL-2.0

//! Reader/writer semaphores.
//!
//! C header: `include/linux/rwsem.h`

use super::{
    bindings,
    vfio::Core, //
};
use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    },
};
use kernel::{
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

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
    pub(super) fn new(core: &'a Core) -> Self {
        // SAFETY: The core device's semaphore was initialised when the device was allocated.
        unsafe { bindings::down_read(&raw mut (*core.as_raw()).memory_lock) };
        // INVARIANT: It was just taken.
        Self {
            core,
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the device whose lock it is.
    pub(super) fn core(&self) -> &'a Core {
        self.core
    }

    /// Whether the device is powered and decodes memory, as far as VFIO's user has a say in it.
    pub(crate) fn enabled(&self) -> bool {
        let core = self.core.as_raw();

        // SAFETY: Both are to be read with `memory_lock` held, which the type invariant says.
        unsafe { !(*core).pm_runtime_engaged && bindings::__vfio_pci_memory_enabled(core) }
    }
}

impl Drop for MemoryGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the semaphore.
        unsafe { bindings::up_read(&raw mut (*self.core.as_raw()).memory_lock) };
    }
}

/// A value that many may read, sleeping, or one may write.
#[pin_data]
pub(crate) struct RwLock<T> {
    #[pin]
    sem: Opaque<bindings::rw_semaphore>,
    value: UnsafeCell<T>,
}

// SAFETY: Moving the lock to another thread moves the value.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: Readers on several threads share the value, a writer has it alone.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// Makes an unlocked lock around `value`.
    pub(crate) fn new(value: T) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is a place for a semaphore that stays where it is.
            sem <- Opaque::ffi_init(|slot| unsafe { bindings::nvlink2_init_rwsem(slot) }),
            value: UnsafeCell::new(value),
        })
    }

    /// Shares the value with other readers; sleeps.
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: Initialised by `new`, the only constructor.
        unsafe { bindings::down_read(self.sem.get()) };
        // INVARIANT: It was just taken.
        ReadGuard {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Has the value alone; sleeps.
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: Initialised by `new`, the only constructor.
        unsafe { bindings::down_write(self.sem.get()) };
        // INVARIANT: It was just taken.
        WriteGuard {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }
}

/// Shared access to what an [`RwLock`] protects.
///
/// # Invariants
///
/// The calling task holds the semaphore for reading.
pub(crate) struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    _not_send: NotThreadSafe,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Held for reading, so no writer has a reference.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the semaphore for reading.
        unsafe { bindings::up_read(self.lock.sem.get()) };
    }
}

/// Exclusive access to what an [`RwLock`] protects.
///
/// # Invariants
///
/// The calling task holds the semaphore for writing.
pub(crate) struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    _not_send: NotThreadSafe,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Held for writing, so nobody else has a reference.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: Held for writing, so nobody else has a reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the semaphore for writing.
        unsafe { bindings::up_write(self.lock.sem.get()) };
    }
}
