// SPDX-License-Identifier: GPL-2.0

//! The kernel's knowledge of who maps device memory, which it needs when that memory fails.
//!
//! Device memory has no `struct page`, so the kernel finds the processes that map a page of it by
//! the VMAs of a file, and sends them SIGBUS.
//!
//! C header: `include/linux/memory-failure.h`

use crate::{
    linux::{
        bindings,
        claim::Claim,
        mm::vma::{
            Mapping,
            VmaOperations,
            VmaSpan, //
        },
        vfio::core::{
            Core,
            UserMappings, //
        },
    },
    pure::aperture::Aperture, //
};
use core::marker::PhantomData;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_ulong, //
    },
    mm::virt::VmaRef,
    prelude::*,
    types::Opaque, //
};

/// A mapping that knows where in the device's file a physical address is.
pub(crate) trait Locate: Mapping {
    /// Returns the offset in the device's file of a page, [`None`] if the page is not in the
    /// region.
    fn file_offset_of(&self, physical: u64) -> Option<u64>;
}

/// Lets the kernel find who maps a range of device memory, as long as this exists.
///
/// # Invariants
///
/// `space` is registered, with the mapping of an inode that `_mappings` keeps.
#[pin_data(PinnedDrop)]
pub(crate) struct PfnSpaceRegistration<M: Locate> {
    #[pin]
    space: Opaque<bindings::pfn_address_space>,
    // Dropped after the registration has ended.
    _mappings: UserMappings,
    _mapping: PhantomData<fn(M)>,
}

// SAFETY: A registration belongs to no thread.
unsafe impl<M: Locate> Send for PfnSpaceRegistration<M> {}
// SAFETY: There is nothing to share but its existence.
unsafe impl<M: Locate> Sync for PfnSpaceRegistration<M> {}

impl<M: Locate> PfnSpaceRegistration<M> {
    /// Reports who has made an `M` of the claimed memory with `core`.
    ///
    /// EOPNOTSUPP: the kernel is built without memory failure handling. EBUSY: some of it is
    /// reported already.
    pub(crate) fn new(
        core: &Core,
        claim: &Claim<Aperture>,
    ) -> Result<impl PinInit<Self, Error> + use<M>> {
        let end = claim.base().checked_add(claim.size()).ok_or(EOVERFLOW)?;
        let start = usize::try_from(claim.base() >> bindings::PAGE_SHIFT)?;
        let last = usize::try_from(end >> bindings::PAGE_SHIFT)?
            .checked_sub(1)
            .ok_or(EINVAL)?;
        let mappings = core.mappings();
        let mapping = mappings.as_raw();

        // INVARIANT: Initialising the space registers it.
        Ok(try_pin_init!(Self {
            space <- Opaque::try_ffi_init(move |slot: *mut bindings::pfn_address_space| {
                // SAFETY: `slot` is a place for the structure that stays where it is. The inode
                // that the mapping is of is kept by `_mappings`.
                to_result(unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).node.start = start;
                    (*slot).node.last = last;
                    (*slot).mapping = mapping;
                    (*slot).pfn_to_vma_pgoff = Some(Self::pfn_to_vma_pgoff);
                    bindings::nvlink2_register_pfn_address_space(slot)
                })
            }),
            _mappings: mappings,
            _mapping: PhantomData,
        }? Error))
    }

    /// # Safety
    ///
    /// `vma` must be one of the registered inode, locked against going away; `pgoff` must be valid.
    unsafe extern "C" fn pfn_to_vma_pgoff(
        vma: *mut bindings::vm_area_struct,
        pfn: c_ulong,
        pgoff: *mut c_ulong,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By this function's contract; the inode's lock keeps the VMA from changing,
            // too.
            let (span, mapping) = unsafe {
                (
                    VmaSpan::of(VmaRef::from_raw(vma)),
                    VmaOperations::<M>::mapping(vma).ok_or(ENOENT)?,
                )
            };
            // CAST: `unsigned long` has 64 bits on every machine with this driver.
            let physical = (pfn as u64)
                .checked_mul(1 << bindings::PAGE_SHIFT)
                .ok_or(EOVERFLOW)?;
            let offset = mapping.file_offset_of(physical).ok_or(ENOENT)?;
            let inside = offset.checked_sub(span.file_offset).ok_or(ENOENT)?;

            if inside >= span.len {
                return Err(ENOENT);
            }
            // SAFETY: By this function's contract.
            unsafe { *pgoff = usize::try_from(offset >> bindings::PAGE_SHIFT)? };
            Ok(0)
        })
    }
}

#[pinned_drop]
impl<M: Locate> PinnedDrop for PfnSpaceRegistration<M> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered, by the type invariant. Waits for the kernel to be done with it.
        unsafe { bindings::nvlink2_unregister_pfn_address_space(self.space.get()) };
    }
}
