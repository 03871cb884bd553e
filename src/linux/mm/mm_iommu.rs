// SPDX-License-Identifier: GPL-2.0

//! Registration of device memory in a process for use in its TCE tables.
//!
//! C source: `arch/powerpc/mm/book3s64/iommu_api.c`

use crate::{
    linux::{
        bindings,
        claim::{
            Claim,
            Physical, //
        },
    },
    pure::aperture::Aperture, //
};
use core::{
    mem,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::to_result,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

/// A range of a process that the TCE tables of its containers may map.
///
/// It stays registered until [`Registration::release`] succeeds. One that is dropped before that
/// stays registered forever, and its claim is kept forever: a TCE may still refer to it.
///
/// # Invariants
///
/// `memory`, if any, is a registration of exactly `[user, user + entries pages)` in `mm`, of which
/// this owns one use. The pages from `physical` are within `claim`.
pub(crate) struct Registration {
    mm: ARef<Mm>,
    memory: Option<NonNull<bindings::mm_iommu_table_group_mem_t>>,
    user: usize,
    entries: usize,
    physical: usize,
    /// The claim of the addresses, kept as long as a TCE may refer to them.
    claim: Arc<Claim<Aperture>>,
}

// SAFETY: Registrations are protected by locks of their own, not by being on a certain thread.
unsafe impl Send for Registration {}
// SAFETY: Methods by shared reference change nothing.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers the device memory at `physical` that is mapped at `user`.
    ///
    /// EINVAL: it overlaps something that is registered.
    pub(crate) fn new(
        mm: &MmWithUser,
        user: u64,
        physical: Physical<'_, Aperture>,
    ) -> Result<Self> {
        let user = usize::try_from(user)?;
        let entries = usize::try_from(physical.len() >> bindings::PAGE_SHIFT)?;
        let claim = physical.claim().clone();
        let physical = usize::try_from(physical.start())?;
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
            claim,
        })
    }

    /// Returns the claim that the memory is within.
    pub(crate) fn claim(&self) -> &Arc<Claim<Aperture>> {
        &self.claim
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

    /// Shortens this to end at user address `at`, and returns a registration of the rest. TCEs that
    /// others map meanwhile find the one or the other.
    ///
    /// EBUSY: the registration is shared; EINVAL: `at` is not the address of one of its pages, or
    /// is that of the first. On failure nothing has changed.
    pub(crate) fn split(&mut self, at: u64) -> Result<Self> {
        let memory = self.memory.ok_or(EINVAL)?;
        let at = usize::try_from(at)?;
        let below = at.checked_sub(self.user).ok_or(EINVAL)?;
        let entries = below >> bindings::PAGE_SHIFT;
        let above = self.entries.checked_sub(entries).ok_or(EINVAL)?;
        let beyond = self.physical.checked_add(below).ok_or(EOVERFLOW)?;
        let (mut lower, mut upper) = (ptr::null_mut(), ptr::null_mut());

        // SAFETY: By the type invariant the registration exists, and one use of it is ours.
        let result =
            unsafe { bindings::mm_iommu_split(memory.as_ptr(), at, &mut lower, &mut upper) };

        to_result(i32::try_from(result)?)?;
        // INVARIANT: `at` is a page's address inside of the range, or that had failed. What was
        // registered is gone; of what is registered instead one use each is ours.
        self.memory = NonNull::new(lower);
        self.entries = entries;
        Ok(Self {
            mm: self.mm.clone(),
            memory: NonNull::new(upper),
            user: at,
            entries: above,
            physical: beyond,
            claim: self.claim.clone(),
        })
    }

    /// Whether others need it as it is: a TCE that maps a part of it, or a container in which user
    /// space registered the same range. The answer may be outdated at once.
    pub(crate) fn is_shared(&self) -> bool {
        // SAFETY: By the type invariant the registration exists, and one use of it is ours.
        self.memory
            .is_some_and(|memory| unsafe { bindings::mm_iommu_is_shared(memory.as_ptr()) })
    }

    /// Whether this is a registration in `mm`.
    pub(crate) fn is_in(&self, mm: &Mm) -> bool {
        ptr::eq(self.mm.as_raw(), mm.as_raw())
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

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.release() {
            mem::forget(self.claim.clone());
        }
    }
}
