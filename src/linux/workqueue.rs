// SPDX-License-Identifier: GPL-2.0

//! Work that is repeated, later, until it has succeeded.
//!
//! The kernel crate's delayed work cannot be cancelled, and would outlive the module.
//!
//! C header: `include/linux/workqueue.h`

use crate::linux::bindings;
use core::ops::Deref;
use kernel::{
    container_of,
    prelude::*,
    types::Opaque, //
};

/// Something that may have to be tried several times.
pub(crate) trait Retry: Send + Sync + 'static {
    /// The delay before each attempt.
    const DELAY_MS: u32;

    /// Tries; returns whether it has to be tried again.
    fn retry(&self) -> bool;
}

/// A value and the work of retrying what it could not do at once.
#[pin_data(PinnedDrop)]
pub(crate) struct Retrying<T: Retry> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    #[pin]
    value: T,
}

// SAFETY: The work queue locks its own data.
unsafe impl<T: Retry> Send for Retrying<T> {}
// SAFETY: Methods by shared reference only queue the work; `T` is `Sync` by its trait.
unsafe impl<T: Retry> Sync for Retrying<T> {}

impl<T: Retry> Retrying<T> {
    /// Wraps `value`; nothing is tried before [`Self::schedule`].
    pub(crate) fn new(value: impl PinInit<T>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is a place for a `delayed_work` that stays where it is.
            work <- Opaque::ffi_init(|slot| unsafe {
                bindings::nvlink2_init_delayed_work(slot, Some(Self::run))
            }),
            value <- value,
        })
    }

    /// Tries once more, after a while.
    pub(crate) fn schedule(&self) {
        // SAFETY: Initialised by `new`; cancelled before it goes. If it is queued already, that
        // is enough.
        unsafe { bindings::nvlink2_queue_delayed_work(self.work.get(), T::DELAY_MS) };
    }

    /// # Safety
    ///
    /// `work` must be the `work.work` of a `Self`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: The function was only put into the `work` of a `Self`, which cancels it before
        // it goes.
        let this = unsafe {
            let work = container_of!(work, bindings::delayed_work, work);

            &*container_of!(Opaque::cast_from(work), Self, work)
        };

        if this.value.retry() {
            this.schedule();
        }
    }
}

impl<T: Retry> Deref for Retrying<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: Retry> PinnedDrop for Retrying<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised by `new`. Waits for a running call, and keeps it from queueing
        // itself again.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}
