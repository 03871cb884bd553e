// SPDX-License-Identifier: GPL-2.0

//! Virtual machines that devices are given to.
//!
//! VFIO sets `vfio_device.kvm` before it opens a device and drops its reference after the device
//! was closed. A machine that is added to the group in between is never seen.
//!
//! C header: `include/linux/kvm_host.h`

use crate::{
    linux::{
        bindings,
        vfio::enabled::Enabled, //
    },
    pure::lpid::Guest, //
};
use core::ptr::NonNull;
use kernel::{
    mm::{
        Mm,
        MmWithUser,
        MmWithUserAsync, //
    },
    prelude::*,
    sync::aref::ARef, //
};

/// A reference to a `struct kvm`. As long as it exists nobody else gets the machine's LPID, and the
/// machine keeps its kind of MMU.
///
/// # Invariants
///
/// Points to a `struct kvm` of which this owns one reference, and one pin of its MMU if it is run
/// by HV KVM.
pub(crate) struct Kvm(NonNull<bindings::kvm>);

// SAFETY: References of a machine may be given back on any thread.
unsafe impl Send for Kvm {}
// SAFETY: Methods by shared reference read what is set when the machine is made, and a byte.
unsafe impl Sync for Kvm {}

impl Kvm {
    /// Returns a reference of its own to the machine that a device is opened for, if there is one.
    ///
    /// ENODEV: KVM is being unloaded.
    pub(crate) fn of(enabled: &Enabled<'_>) -> Result<Option<Self>> {
        let Some(kvm) = enabled.kvm() else {
            return Ok(None);
        };

        // SAFETY: VFIO has a reference from before open until after close, and this is in between.
        if !unsafe { bindings::nvlink2_kvm_get(kvm.as_ptr()) } {
            return Err(ENODEV);
        }
        // Others cannot change their MMU, and do not have the lock for that.
        //
        // SAFETY: The reference was just taken.
        unsafe {
            if bindings::nvlink2_kvm_is_hv(kvm.as_ptr()) {
                bindings::nvlink2_kvm_pin_mmu(kvm.as_ptr());
            }
        }
        // INVARIANT: Both were just taken.
        Ok(Some(Self(kvm)))
    }

    /// Returns what an NPU has to know of the machine.
    pub(crate) fn guest(&self) -> Guest {
        let kvm = self.0.as_ptr();

        // SAFETY: By the type invariant it is valid.
        unsafe {
            Guest {
                hv: bindings::nvlink2_kvm_is_hv(kvm),
                radix: bindings::nvlink2_kvm_is_radix(kvm),
                lpid: bindings::nvlink2_kvm_lpid(kvm),
            }
        }
    }

    /// Returns the address space that the machine's memory is in, [`None`] if that is gone.
    pub(crate) fn mm(&self) -> Option<ARef<MmWithUserAsync>> {
        // SAFETY: By the type invariant the machine is valid, which has a reference of its `mm`.
        let mm = unsafe { bindings::nvlink2_kvm_mm(self.0.as_ptr()) };

        if mm.is_null() {
            return None;
        }
        // SAFETY: See above; `self` keeps the machine.
        let mm = unsafe { Mm::from_raw(mm) };

        mm.mmget_not_zero().map(MmWithUser::into_mmput_async)
    }

    /// Returns whether the machine has memory anywhere from `start` to `end` in its process, and a
    /// number that changes before and after each change of what memory it has. Does not sleep.
    pub(crate) fn has_memory_at(&self, start: usize, end: usize) -> (bool, u64) {
        let mut generation = 0;
        // SAFETY: By the type invariant the machine is valid.
        let found = unsafe {
            bindings::nvlink2_kvm_has_memory_at(self.0.as_ptr(), start, end, &mut generation)
        };

        (found, generation)
    }
}

impl PartialEq for Kvm {
    /// Whether it is the same machine: while both exist, different machines have different
    /// addresses.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for Kvm {
    fn drop(&mut self) {
        // SAFETY: Gives up the pin and the reference that the type invariant says we own, taken in
        // `of`. It is run by HV KVM from its beginning to its end, or never.
        unsafe {
            if bindings::nvlink2_kvm_is_hv(self.0.as_ptr()) {
                bindings::nvlink2_kvm_unpin_mmu(self.0.as_ptr());
            }
            bindings::nvlink2_kvm_put(self.0.as_ptr());
        }
    }
}
