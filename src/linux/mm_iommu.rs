// SPDX-License-Identifier: GPL-2.0

//! Registration of device memory in a process for use in its TCE tables.
//!
//! C source: `arch/powerpc/mm/book3s64/iommu_api.c`

use super::bindings;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::to_result,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::aref::ARef, //
};

/// A range of a process that the TCE tables of its containers may map.
///
/// It stays registered until [`Registration::release`] succeeds; dropping it does not help.
///
/// # Invariants
///
/// `memory`, if any, is a registration of exactly `[user, user + entries pages)` in `mm`, of which
/// this owns one use.
pub(crate) struct Registration {
    mm: ARef<Mm>,
    memory: Option<NonNull<bindings::mm_iommu_table_group_mem_t>>,
    user: usize,
    entries: usize,
    physical: usize,
}

// SAFETY: Registrations are protected by locks of their own, not by being on a certain thread.
unsafe impl Send for Registration {}
// SAFETY: Methods by shared reference change nothing.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers `len` bytes of device memory at `physical` that are mapped at `user`.
    ///
    /// EINVAL: it overlaps something that is registered.
    pub(crate) fn new(mm: &MmWithUser, user: u64, len: u64, physical: u64) -> Result<Self> {
        let user = usize::try_from(user)?;
        let entries = usize::try_from(len >> bindings::PAGE_SHIFT)?;
        let physical = usize::try_from(physical)?;
        let mut memory = ptr::null_mut();

        // SAFETY: `mm` is valid and has users. Device memory is not pinned: the addresses are only
        // stored.
        let result =
            unsafe { bindings::mm_iommu_newdev(mm.as_raw(), user, entries, physical, &mut memory) };

        to_result(i32::try_from(result)?)?;
        // INVARIANT: Registered with one use, which is ours.
        Ok(Self {
            mm: ARef::from(&**mm),
            memory: NonNull::new(memory),
            user,
            entries,
            physical,
        })
    }

    /// Returns the user address at which the range starts.
    pub(crate) fn user(&self) -> u64 {
        // CAST: `usize` has 64 bits on every machine with this driver.
        self.user as u64
    }

    /// Returns the physical address at which the range starts.
    pub(crate) fn physical(&self) -> u64 {
        // CAST: As above.
        self.physical as u64
    }

    /// Returns the size in bytes.
    pub(crate) fn len(&self) -> u64 {
        // CAST: As above.
        (self.entries as u64) << bindings::PAGE_SHIFT
    }

    /// Returns the user address behind the range.
    pub(crate) fn end(&self) -> u64 {
        self.user().saturating_add(self.len())
    }

    /// Has this end at user address `at` and returns what is registered of the rest.
    ///
    /// EBUSY: a TCE or a container needs it as it is. On failure it is as it was; if there is no
    /// memory for that either, nothing is registered.
    pub(crate) fn split(&mut self, mm: &MmWithUser, at: u64) -> Result<Self> {
        let (user, len, physical) = (self.user(), self.len(), self.physical());
        let below = at.checked_sub(user).ok_or(EINVAL)?;
        let above = len.checked_sub(below).ok_or(EINVAL)?;
        let beyond = physical.checked_add(below).ok_or(EOVERFLOW)?;

        if !self.release() {
            return Err(EBUSY);
        }
        let halves = Self::new(mm, user, below, physical).and_then(|mut lower| {
            match Self::new(mm, at, above, beyond) {
                Ok(upper) => Ok((lower, upper)),
                Err(error) => {
                    lower.release();
                    Err(error)
                }
            }
        });

        match halves {
            Ok((lower, upper)) => {
                *self = lower;
                Ok(upper)
            }
            Err(error) => {
                *self = Self::new(mm, user, len, physical)?;
                Err(error)
            }
        }
    }

    /// Whether this is a registration in `mm`.
    pub(crate) fn is_in(&self, mm: &Mm) -> bool {
        ptr::eq(self.mm.as_raw(), mm.as_raw())
    }

    /// Whether TCE tables with pages of `1 << shift` bytes may map this.
    pub(crate) fn translates(&self, shift: u32) -> bool {
        let mut physical = 0;
        let Some(memory) = self.memory else {
            return false;
        };
        // SAFETY: By the type invariant the registration exists, and `user` is in it.
        let result = unsafe {
            bindings::mm_iommu_ua_to_hpa(memory.as_ptr(), self.user, shift, &mut physical)
        };

        result == 0
    }

    /// Ends the registration; returns whether it did.
    ///
    /// It does not while anybody needs it: a TCE that maps a part of it, or a container in which
    /// user space registered the same range.
    pub(crate) fn release(&mut self) -> bool {
        let Some(memory) = self.memory else {
            return true;
        };
        // SAFETY: By the type invariant one use is ours.
        let result = unsafe { bindings::mm_iommu_put_last(self.mm.as_raw(), memory.as_ptr()) };

        if result == 0 {
            // INVARIANT: Nothing is ours any more.
            self.memory = None;
        }
        result == 0
    }
}
