// SPDX-License-Identifier: GPL-2.0

//! Notification of the pages that an address space loses.
//!
//! The callback is `arch_invalidate_secondary_tlbs`: it is called after KVM has removed the pages
//! from its tables, and before they are freed. `invalidate_range_start` would be too early: the
//! notifier that was registered last is called first, and that is not KVM's.
//!
//! C header: `include/linux/mmu_notifier.h`

use crate::linux::bindings;
use kernel::{
    container_of,
    error::to_result,
    mm::MmWithUser,
    prelude::*,
    types::Opaque, //
};

/// A user of an address space that has translations of its own.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// Pages from `start` to `end` have left the address space, and are freed when this returns.
    /// Must not sleep: called with locks of page tables held.
    fn invalidate(&self, start: usize, end: usize);

    /// The address space ends, and all its pages are freed when this returns; or watching ends.
    /// May sleep, but must not drop the [`Watch`], which waits for this to return.
    fn release(&self);
}

/// Calls a watcher as long as this exists.
///
/// # Invariants
///
/// `notifier` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Watch<T: Watcher> {
    // Initialised first: the other may be called at once.
    #[pin]
    watcher: T,
    #[pin]
    notifier: Opaque<bindings::mmu_notifier>,
}

// SAFETY: A notifier may be unregistered on any thread.
unsafe impl<T: Watcher> Send for Watch<T> {}
// SAFETY: `T` is `Sync` by its trait, and nothing else is given out.
unsafe impl<T: Watcher> Sync for Watch<T> {}

impl<T: Watcher> Watch<T> {
    /// Watches `mm`. EINTR: a signal came.
    pub(crate) fn new<'a, I: PinInit<T>>(
        mm: &'a MmWithUser,
        watcher: I,
    ) -> impl PinInit<Self, Error> + use<'a, T, I> {
        // INVARIANT: Initialising the notifier registers it.
        try_pin_init!(Self {
            watcher <- watcher,
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_notifier| {
                // SAFETY: `slot` is a place for a notifier that stays where it is, in a `Self`
                // whose watcher is there. `mm` has users, and no lock of it is held.
                to_result(unsafe {
                    slot.write(bindings::mmu_notifier {
                        ops: Self::build(),
                        ..pin_init::zeroed()
                    });
                    bindings::mmu_notifier_register(slot, mm.as_raw())
                })
            }),
        }? Error)
    }

    /// Returns the watcher.
    pub(crate) fn watcher(&self) -> &T {
        &self.watcher
    }

    /// # Safety
    ///
    /// `notifier` must be that of a `Self`, and registered or being unregistered.
    unsafe fn of<'a>(notifier: *mut bindings::mmu_notifier) -> &'a T {
        // SAFETY: By this function's contract; unregistering waits for callbacks, and the watcher
        // exists longer than the registration.
        unsafe { &(*container_of!(Opaque::cast_from(notifier), Self, notifier)).watcher }
    }

    /// # Safety
    ///
    /// See [`Watch::of`].
    unsafe extern "C" fn invalidate(
        notifier: *mut bindings::mmu_notifier,
        _mm: *mut bindings::mm_struct,
        start: usize,
        end: usize,
    ) {
        // SAFETY: The kernel calls this with the notifier whose operation it is.
        unsafe { Self::of(notifier) }.invalidate(start, end);
    }

    /// # Safety
    ///
    /// See [`Watch::of`].
    unsafe extern "C" fn release(
        notifier: *mut bindings::mmu_notifier,
        _mm: *mut bindings::mm_struct,
    ) {
        // SAFETY: The kernel calls this with the notifier whose operation it is.
        unsafe { Self::of(notifier) }.release();
    }

    const OPS: bindings::mmu_notifier_ops = bindings::mmu_notifier_ops {
        arch_invalidate_secondary_tlbs: Some(Self::invalidate),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    const fn build() -> &'static bindings::mmu_notifier_ops {
        &Self::OPS
    }
}

#[pinned_drop]
impl<T: Watcher> PinnedDrop for Watch<T> {
    fn drop(self: Pin<&mut Self>) {
        let notifier = self.notifier.get();

        // SAFETY: Registered, by the type invariant, with the `mm` that registering stored, of
        // which the registration has a reference. Returns when no callback runs any more.
        unsafe { bindings::mmu_notifier_unregister(notifier, (*notifier).mm) };
    }
}
