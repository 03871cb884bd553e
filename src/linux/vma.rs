// SPDX-License-Identifier: GPL-2.0

//! Mappings of device memory whose pages appear as they are touched.
//!
//! C header: `include/linux/mm.h`

use super::{
    bindings,
    vfio::{
        Core,
        MappedCore, //
    },
};
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint, //
    },
    mm::{
        virt::VmaNew,
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::Arc, //
};

/// How the CPU accesses a mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// As memory. KVM hands this on to the guest.
    Cached,
    /// As registers: every access goes to the device, in order.
    Uncached,
}

/// A mapping of device memory, dropped with the last VMA that the one of mmap(2) became. What is
/// bound to user addresses follows them by the methods.
pub(crate) trait Mapping: Send + Sync + 'static {
    /// Whether [`Mapping::fault`] is also asked for huge pages, the largest first.
    const HUGE: bool;

    /// Makes the page that was touched accessible, or refuses.
    fn fault(&self, core: &Core, fault: &Fault<'_>) -> Outcome;

    /// A VMA of `mm` at `whole` is about to be split at address `at`, which may fail later. An
    /// error keeps it whole.
    fn split(&self, _mm: &MmWithUser, _whole: Extent, _at: u64) -> Result {
        Ok(())
    }

    /// A VMA of `mm` was moved to `to`. An error moves it back; otherwise [`Mapping::close`] is
    /// called for where it was.
    fn moved(&self, _mm: &MmWithUser, _to: Extent) -> Result {
        Ok(())
    }

    /// The VMA of `mm` at `extent` goes, perhaps with its process.
    fn close(&self, _mm: &Mm, _extent: Extent) {}
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(bindings::vm_fault_t);

impl Outcome {
    /// The process gets SIGBUS.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);
    /// No page of this size fits; the kernel asks for the next smaller one.
    pub(crate) const FALLBACK: Self = Self(bindings::vm_fault_reason_VM_FAULT_FALLBACK);

    /// Returns the `vm_fault_t`, for tracing.
    pub(crate) fn get(self) -> c_uint {
        self.0
    }

    /// Whether the page is accessible now.
    pub(crate) fn is_inserted(self) -> bool {
        self.0 & bindings::vm_fault_reason_VM_FAULT_NOPAGE != 0
    }
}

/// The size of a page that a mapping may be made of: 2 to the power of this many CPU pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order(c_uint);

impl Order {
    /// A CPU page.
    pub(crate) const BASE: Self = Self(0);

    /// Returns the largest page that the MMU has, of at most 2 to the power of `limit` CPU pages.
    pub(crate) fn largest(limit: c_uint) -> Self {
        // SAFETY: These look at what was set when the MMU was set up.
        let huge = unsafe { [bindings::nvlink2_pud_order(), bindings::nvlink2_pmd_order()] };

        huge.into_iter()
            .find(|order| *order <= limit)
            .map_or(Self::BASE, Self)
    }

    /// Returns the size in bytes; `None` if no 64-bit number holds it.
    pub(crate) fn bytes(self) -> Option<u64> {
        1u64.checked_shl(self.0.checked_add(bindings::PAGE_SHIFT)?)
    }
}

/// A page fault in a VMA that was set up by [`attach`].
///
/// # Invariants
///
/// Points to the `vm_fault` of a call of the `fault` or `huge_fault` operation that has not
/// returned.
pub(crate) struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    order: Order,
    _call: PhantomData<&'a bindings::vm_fault>,
}

impl Fault<'_> {
    /// Returns the size of the page that is asked for.
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Returns the page that is asked for. `None`: the VMA has only a part of it.
    pub(crate) fn page(&self) -> Option<Extent> {
        // SAFETY: By the type invariant; a VMA does not change during a fault in it.
        let (user, pgoff, vma) = unsafe {
            let vmf = &(*self.vmf).__bindgen_anon_1;

            (vmf.address, vmf.pgoff, Range::of(vmf.vma))
        };
        // CAST: `unsigned long` has 64 bits on every machine with this driver.
        let (user, pgoff) = (user as u64, pgoff as u64);
        let len = self.order.bytes()?;
        let inside = user.checked_rem(len)?;
        let user = user.checked_sub(inside)?;

        (vma.start <= user && user.checked_add(len)? <= vma.end).then_some(())?;
        Some(Extent {
            user,
            len,
            file_offset: file_offset(pgoff)?.checked_sub(inside)?,
        })
    }

    /// Inserts the page at `physical`. That the device is enabled is for the caller to know.
    ///
    /// FALLBACK: there is none of this size at this address.
    pub(crate) fn insert(&self, physical: u64) -> Outcome {
        if self.order.bytes().and_then(|len| physical.checked_rem(len)) != Some(0) {
            return Outcome::FALLBACK;
        }
        // CAST: As in `page`.
        // SAFETY: By the type invariant the fault is under way, so its VMA stays and the kernel has
        // prepared it for an entry of this order. `attach` made the VMA VM_PFNMAP, and VFIO's
        // demand for shared mappings keeps it from being copy-on-write.
        Outcome(unsafe {
            bindings::nvlink2_vmf_insert_pfn(
                self.vmf,
                (physical >> bindings::PAGE_SHIFT) as usize,
                self.order.0,
            )
        })
    }
}

/// Converts a page index to bytes.
pub(super) fn file_offset(pgoff: u64) -> Option<u64> {
    pgoff.checked_mul(1 << bindings::PAGE_SHIFT)
}

/// A VMA's place in its process and its file, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Address in the process.
    pub(crate) user: u64,
    /// Never 0.
    pub(crate) len: u64,
    /// Offset in the device's file, which includes the index of the region.
    pub(crate) file_offset: u64,
}

/// The user addresses of a VMA.
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// # Safety
    ///
    /// `vma` must be valid, and not change during the call.
    unsafe fn of(vma: *const bindings::vm_area_struct) -> Self {
        // SAFETY: By this function's contract.
        let bounds = unsafe { &(*vma).__bindgen_anon_1.__bindgen_anon_1 };

        // CAST: As in `Fault::page`.
        Self {
            start: bounds.vm_start as u64,
            end: bounds.vm_end as u64,
        }
    }
}

impl Extent {
    /// Reads it from the VMA. EINVAL: it is none that mmap() makes.
    pub(crate) fn of(vma: &VmaNew) -> Result<Self> {
        // SAFETY: The VMA is valid and not shared with anybody yet.
        unsafe { Self::of_raw(vma.as_ptr()) }
    }

    /// # Safety
    ///
    /// `vma` must be valid, and not change during the call.
    pub(super) unsafe fn of_raw(vma: *const bindings::vm_area_struct) -> Result<Self> {
        // SAFETY: By this function's contract.
        let (range, pgoff) = unsafe { (Range::of(vma), (*vma).vm_pgoff) };

        Ok(Self {
            user: range.start,
            len: range.end.checked_sub(range.start).ok_or(EINVAL)?,
            file_offset: file_offset(u64::try_from(pgoff)?).ok_or(EOVERFLOW)?,
        })
    }

    /// Returns the user address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.user.saturating_add(self.len)
    }
}

/// What a VMA owns a reference of; a part that is split off, and a copy at the place to which it is
/// moved, have others.
struct Attached<M> {
    core: MappedCore,
    mapping: M,
}

/// Makes `vma` a mapping whose pages `mapping` inserts.
///
/// It is neither inherited by children nor dumped, and cannot be expanded. It can be moved and
/// split, of which `mapping` is told.
pub(crate) fn attach<M: Mapping>(
    core: &Core,
    vma: &VmaNew,
    caching: Caching,
    mapping: M,
) -> Result {
    let attached = Arc::new(
        Attached {
            // SAFETY: Stored in a VMA of the device's file: `mmap` operations are the only source
            // of a `VmaNew`, and get the core that belongs to the file.
            core: unsafe { MappedCore::new(core) },
            mapping,
        },
        GFP_KERNEL,
    )?;
    let raw = vma.as_ptr();

    // As io_remap_pfn_range() would, and not for children.
    vma.set_io();
    vma.set_dontexpand();
    vma.set_dontdump();
    vma.set_dontcopy();
    // SAFETY: The VMA is being set up, so nobody else looks at it, and its flags may be set:
    // nobody makes it VM_MIXEDMAP. The operations expect an `Arc<Attached<M>>` in
    // `vm_private_data`.
    unsafe {
        bindings::nvlink2_vma_set_pfnmap(raw);
        if caching == Caching::Uncached {
            bindings::nvlink2_vma_set_uncached(raw);
        }
        (*raw).vm_private_data = Arc::into_raw(attached).cast_mut().cast();
        (*raw).vm_ops = VmaVTable::<M>::build();
    }
    Ok(())
}

/// The operations of VMAs whose `vm_private_data` is a reference to an `Arc<Attached<M>>`.
pub(super) struct VmaVTable<M: Mapping>(PhantomData<M>);

impl<M: Mapping> VmaVTable<M> {
    /// Returns what a VMA was made with, [`None`] if that is not an `M`.
    ///
    /// # Safety
    ///
    /// `vma` must be valid, and locked against going away for `'a`.
    pub(super) unsafe fn mapping<'a>(vma: *mut bindings::vm_area_struct) -> Option<&'a M> {
        // SAFETY: By this function's contract. A VMA with these operations, which no others equal,
        // owns a reference of an `Attached<M>`.
        unsafe {
            core::ptr::eq((*vma).vm_ops, Self::build())
                .then(|| &(*(*vma).vm_private_data.cast_const().cast::<Attached<M>>()).mapping)
        }
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be a copy of one that has a reference.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The VMA that this one was copied from owns a reference, so another may be taken.
        unsafe {
            let attached = (*vma).vm_private_data.cast_const().cast::<Attached<M>>();
            let original = core::mem::ManuallyDrop::new(Arc::from_raw(attached));

            core::mem::forget(Arc::clone(&original));
        }
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be about to go.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: Gives up this VMA's reference; the kernel calls this once per VMA, and keeps VMA
        // and `mm` during the call.
        let (attached, mm, extent) = unsafe {
            (
                Arc::from_raw((*vma).vm_private_data.cast::<Attached<M>>()),
                Mm::from_raw((*vma).vm_mm),
                Extent::of_raw(vma),
            )
        };

        if let Ok(extent) = extent {
            attached.mapping.close(mm, extent);
        }
    }

    /// Calls `f` with what a VMA has, where it is, and its address space.
    ///
    /// # Safety
    ///
    /// `vma` must have these operations and be locked, in an address space that has users.
    unsafe fn tell(
        vma: *mut bindings::vm_area_struct,
        f: impl FnOnce(&M, &MmWithUser, Extent) -> Result,
    ) -> c_int {
        // SAFETY: By this function's contract; a VMA with these operations owns a reference.
        let (attached, mm, extent) = unsafe {
            (
                &*(*vma).vm_private_data.cast_const().cast::<Attached<M>>(),
                MmWithUser::from_raw((*vma).vm_mm),
                Extent::of_raw(vma),
            )
        };

        from_result(|| f(&attached.mapping, mm, extent?).map(|()| 0))
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be about to be split at `addr`.
    unsafe extern "C" fn may_split(vma: *mut bindings::vm_area_struct, addr: usize) -> c_int {
        // SAFETY: Whoever splits a VMA has the mmap lock, and the address space in use.
        // CAST: As in `Fault::page`.
        unsafe {
            Self::tell(vma, |mapping, mm, whole| {
                mapping.split(mm, whole, addr as u64)
            })
        }
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be the place to which another was moved.
    unsafe extern "C" fn mremap(vma: *mut bindings::vm_area_struct) -> c_int {
        // SAFETY: mremap(2) has the mmap lock, of an address space in use.
        unsafe { Self::tell(vma, |mapping, mm, to| mapping.moved(mm, to)) }
    }

    /// # Safety
    ///
    /// `vmf` must be a fault in a VMA with these operations.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller vouches for the fault.
        unsafe { Self::huge_fault(vmf, 0) }
    }

    /// # Safety
    ///
    /// `vmf` must be a fault in a VMA with these operations, for a page of this order.
    #[inline(never)]
    unsafe extern "C" fn huge_fault(
        vmf: *mut bindings::vm_fault,
        order: c_uint,
    ) -> bindings::vm_fault_t {
        // SAFETY: The VMA is locked against going away during a fault, and owns a reference.
        let attached = unsafe {
            let vma = (*vmf).__bindgen_anon_1.vma;

            &*(*vma).vm_private_data.cast::<Attached<M>>()
        };

        // INVARIANT: This is the call in question.
        let fault = Fault {
            vmf,
            order: Order(order),
            _call: PhantomData,
        };

        attached.mapping.fault(attached.core.get(), &fault).0
    }

    const VTABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        open: Some(Self::open),
        close: Some(Self::close),
        may_split: Some(Self::may_split),
        mremap: Some(Self::mremap),
        fault: Some(Self::fault),
        huge_fault: if M::HUGE {
            Some(Self::huge_fault)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    const fn build() -> &'static bindings::vm_operations_struct {
        &Self::VTABLE
    }
}
