// SPDX-License-Identifier: GPL-2.0

//! Mappings of device memory whose pages appear as they are touched.
//!
//! C header: `include/linux/mm.h`

use crate::linux::{
    bindings,
    claim::Physical,
    published::Signals,
    vfio::{
        core::Core,
        memory_lock::MemoryGuard, //
    },
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint, //
    },
    fs::LocalFile,
    mm::{
        virt::{
            VmaNew,
            VmaRef, //
        },
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
};

/// How the CPU accesses a mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// Cached, as memory. KVM maps it for the guest in the same way.
    Cached,
    /// Uncached, as registers: every access goes to the device, in order.
    Uncached,
}

/// A mapping of device memory. The VMA of mmap(2) may be split and moved; the mapping is dropped
/// with the last of the VMAs, and its methods tell where they are.
pub(crate) trait Mapping: Send + Sync + Sized + 'static {
    /// Returns the operations of its VMAs. They have to be a `static`, whose address identifies the
    /// VMAs of this type.
    fn operations() -> &'static VmaOperations<Self>;

    /// Whether [`Mapping::fault`] is also asked for huge pages, the largest first.
    const HUGE: bool;

    /// The kind of obstacle that a fault may have to wait for.
    type Obstacle: Obstacle;

    /// Inserts the page that was touched, refuses, or returns the obstacle to wait for.
    fn fault(&self, core: &Core, fault: &Fault<'_>) -> Result<Outcome, Self::Obstacle>;

    /// Whether a VMA of `mm` may be split at address `at`. It need not be split afterwards, so
    /// nothing may be changed here.
    fn may_split(&self, _mm: &Mm, _at: u64) -> Result {
        Ok(())
    }

    /// `mm` has a new VMA at `span`: a part that was split off another one, which has the rest, or
    /// a copy at the place to which that one is moved. It cannot be refused.
    fn opened(&self, _mm: &Mm, _span: VmaSpan) {}

    /// A VMA of `mm` comes to `span`: by mmap(2), which fails with an error, or by mremap(2), which
    /// then moves it back, and otherwise calls [`Mapping::close`] for where it was.
    fn placed(&self, _mm: &MmWithUser, _span: VmaSpan) -> Result {
        Ok(())
    }

    /// The VMA of `mm` at `span` is removed, perhaps with its process.
    fn close(&self, _mm: &Mm, _span: VmaSpan) {}
}

/// An obstacle that a fault waits for, without a lock and without the mapping, which may be gone in
/// the end.
pub(crate) trait Obstacle {
    /// Waits until the fault can be tried again, or until one of `signals`.
    fn wait(self, signals: Signals);
}

/// The outcome of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(bindings::vm_fault_t);

impl Outcome {
    /// There is a page now.
    pub(crate) const NOPAGE: Self = Self(bindings::vm_fault_reason_VM_FAULT_NOPAGE);
    /// The process gets SIGBUS.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);
    /// No page of this size fits; the kernel asks for the next smaller one.
    pub(crate) const FALLBACK: Self = Self(bindings::vm_fault_reason_VM_FAULT_FALLBACK);
    /// The fault is tried again.
    pub(crate) const RETRY: Self = Self(bindings::vm_fault_reason_VM_FAULT_RETRY);

    /// Returns the `vm_fault_t`, for tracing.
    pub(crate) fn get(self) -> c_uint {
        self.0
    }
}

/// The size of a page that a mapping may be made of: 2 to the power of this many CPU pages.
///
/// # Invariants
///
/// Is one of the MMU's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order(c_uint);

impl Order {
    /// A CPU page.
    pub(crate) const BASE: Self = Self(0);

    /// Returns the largest page that the MMU has, of at most 2 to the power of `limit` CPU pages.
    pub(crate) fn largest(limit: c_uint) -> Self {
        // SAFETY: These look at what was set when the MMU was set up.
        let huge = unsafe { [bindings::nvlink2_pud_order(), bindings::nvlink2_pmd_order()] };

        // INVARIANT: They are the MMU's.
        huge.into_iter()
            .find(|order| *order <= limit)
            .map_or(Self::BASE, Self)
    }

    /// Returns the size in bytes, a power of 2.
    pub(crate) fn bytes(self) -> u64 {
        // Does not wrap, by the type invariant.
        1u64.wrapping_shl(self.0.wrapping_add(bindings::PAGE_SHIFT))
    }
}

/// A page fault in a VMA that was set up by [`attach`].
///
/// # Invariants
///
/// Points to the `vm_fault` of a call of the `fault` or `huge_fault` operation that has not
/// returned.
#[derive(Clone, Copy)]
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
    #[inline(always)]
    pub(crate) fn page(&self) -> Option<VmaSpan> {
        // SAFETY: By the type invariant; a VMA does not change during a fault in it.
        let (user, pgoff, vma) = unsafe {
            let vmf = &(*self.vmf).__bindgen_anon_1;

            (vmf.address, vmf.pgoff, VmaRef::from_raw(vmf.vma))
        };
        // CAST: `unsigned long` has 64 bits on every machine with this driver.
        let (user, start, end) = (user as u64, vma.start() as u64, vma.end() as u64);
        let len = self.order.bytes();
        let inside = user.checked_rem(len)?;
        let user = user.checked_sub(inside)?;

        // A VMA begins and ends with a CPU page.
        if self.order > Order::BASE {
            (start <= user && len <= end.checked_sub(user)?).then_some(())?;
        }
        Some(VmaSpan {
            user,
            len,
            file_offset: file_offset(pgoff).checked_sub(inside)?,
        })
    }

    /// Whether a page of the size that is asked for begins at `physical`.
    #[inline(always)]
    pub(crate) fn fits<T>(&self, physical: Physical<'_, T>) -> bool {
        let len = self.order.bytes();

        physical.start().checked_rem(len) == Some(0) && len <= physical.len()
    }

    /// Inserts the page at `physical`, as VFIO does with a BAR's: SIGBUS if the device has no power
    /// or does not decode memory.
    ///
    /// FALLBACK: there is none of this size at this address.
    #[inline(always)]
    pub(crate) fn insert<T>(&self, memory: &MemoryGuard<'_>, physical: Physical<'_, T>) -> Outcome {
        // Who has asked before has it asked once: compilers know that the answer is the same.
        if !self.fits(physical) {
            return Outcome::FALLBACK;
        }
        // CAST: As in `page`.
        // SAFETY: By the type invariant the fault is under way, so its VMA stays and the kernel has
        // prepared it for an entry of this order. `attach` made the VMA VM_PFNMAP, and VFIO's
        // demand for shared mappings keeps it from being copy-on-write. The guard says that
        // `memory_lock` is held.
        Outcome(unsafe {
            bindings::vfio_pci_vmf_insert_pfn(
                memory.core().as_raw(),
                self.vmf,
                (physical.start() >> bindings::PAGE_SHIFT) as usize,
                self.order.0,
            )
        })
    }

    /// Inserts the CPU page at `physical`, which does not need the device's power or decoding.
    pub(crate) fn insert_always_on<T>(&self, physical: Physical<'_, T>) -> Outcome {
        // CAST: As in `page`.
        // SAFETY: As in `insert`; the page is the one of which this address is.
        Outcome(unsafe {
            let vmf = &(*self.vmf).__bindgen_anon_1;

            bindings::vmf_insert_pfn(
                vmf.vma,
                vmf.address,
                (physical.start() >> bindings::PAGE_SHIFT) as usize,
            )
        })
    }
}

/// Converts a page index of a file, which mmap(2) takes no larger than that this loses nothing.
pub(in crate::linux) fn file_offset(pgoff: usize) -> u64 {
    // CAST: `unsigned long` has 64 bits on every machine with this driver.
    (pgoff as u64) << bindings::PAGE_SHIFT
}

/// A VMA's place in its process and its file, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct VmaSpan {
    /// Address in the process.
    pub(crate) user: u64,
    /// Never 0.
    pub(crate) len: u64,
    /// Offset in the device's file, which includes the index of the region.
    pub(crate) file_offset: u64,
}

impl VmaSpan {
    /// Reads it from the VMA.
    pub(crate) fn of(vma: &VmaRef) -> Self {
        // SAFETY: A `VmaRef` is to a valid VMA that is locked.
        let pgoff = unsafe { (*vma.as_ptr()).vm_pgoff };

        Self {
            // CAST: As in `file_offset`.
            user: vma.start() as u64,
            // Does not saturate: a VMA ends behind its start.
            len: vma.end().saturating_sub(vma.start()) as u64,
            file_offset: file_offset(pgoff),
        }
    }

    /// Returns the user address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.user.saturating_add(self.len)
    }
}

/// The data of a VMA, of which it owns a reference. A part that is split off, and a copy at the
/// place to which it is moved, own others.
///
/// # Invariants
///
/// `core` is the device whose file the VMA maps, and so keeps open.
struct VmaData<M> {
    core: NonNull<Core>,
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
    // INVARIANT: `mmap` operations are the only source of a `VmaNew`, and get the core that belongs
    // to the file.
    let attached = Arc::new(
        VmaData {
            core: NonNull::from(core),
            mapping,
        },
        GFP_KERNEL,
    )?;
    let raw = vma.as_ptr();

    // Nothing may fail behind it.
    attached.mapping.placed(vma.mm(), VmaSpan::of(vma))?;

    // As io_remap_pfn_range() would, and not for children.
    vma.set_io();
    vma.set_dontexpand();
    vma.set_dontdump();
    vma.set_dontcopy();
    // SAFETY: The VMA is being set up, so nobody else looks at it, and its flags may be set:
    // nobody makes it VM_MIXEDMAP. The operations expect an `Arc<VmaData<M>>` in
    // `vm_private_data`.
    unsafe {
        bindings::nvlink2_vma_set_pfnmap(raw);
        if caching == Caching::Uncached {
            bindings::nvlink2_vma_set_uncached(raw);
        }
        (*raw).vm_private_data = Arc::into_raw(attached).cast_mut().cast();
        (*raw).vm_ops = &M::operations().table;
    }
    Ok(())
}

/// The operations of VMAs whose `vm_private_data` is a reference to an `Arc<VmaData<M>>`.
pub(crate) struct VmaOperations<M> {
    table: bindings::vm_operations_struct,
    _mapping: PhantomData<fn(M)>,
}

// SAFETY: Nobody changes the table, neither here nor in the kernel, and its pointers are to
// functions or null.
unsafe impl<M> Sync for VmaOperations<M> {}

impl<M: Mapping> VmaOperations<M> {
    /// Makes the operations, for [`Mapping::operations`].
    pub(crate) const fn new() -> Self {
        Self {
            table: bindings::vm_operations_struct {
                open: Some(Self::open),
                close: Some(Self::close),
                may_split: Some(Self::may_split),
                mremap: Some(Self::mremap),
                fault: Some(Self::fault),
                map_pages: Some(Self::map_pages),
                huge_fault: if M::HUGE {
                    Some(Self::huge_fault)
                } else {
                    None
                },
                ..pin_init::zeroed()
            },
            _mapping: PhantomData,
        }
    }

    /// Returns the data that a VMA was made with, [`None`] if it is not that of an `M`.
    ///
    /// # Safety
    ///
    /// `vma` must be valid, and locked against going away for `'a`.
    pub(in crate::linux) unsafe fn mapping<'a>(
        vma: *mut bindings::vm_area_struct,
    ) -> Option<&'a M> {
        // SAFETY: By this function's contract. Only `attach` has a VMA have these operations, which
        // owns a reference of a `VmaData<M>` then.
        unsafe {
            core::ptr::eq((*vma).vm_ops, &M::operations().table)
                .then(|| &(*(*vma).vm_private_data.cast_const().cast::<VmaData<M>>()).mapping)
        }
    }

    /// Returns what a VMA was made with, its address space, and where it is.
    ///
    /// # Safety
    ///
    /// `vma` must have these operations, or be a copy of one that does, and be locked for `'a`.
    unsafe fn parts<'a>(
        vma: *mut bindings::vm_area_struct,
    ) -> (ArcBorrow<'a, VmaData<M>>, &'a Mm, VmaSpan) {
        // SAFETY: By this function's contract. Such a VMA owns a reference, or the one does that it
        // was copied from and that is there still, and it keeps its address space.
        unsafe {
            (
                ArcBorrow::from_raw((*vma).vm_private_data.cast_const().cast()),
                Mm::from_raw((*vma).vm_mm),
                VmaSpan::of(VmaRef::from_raw(vma)),
            )
        }
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be a copy of one that has a reference.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: By this function's contract; the kernel keeps both VMAs during the call.
        let (attached, mm, span) = unsafe { Self::parts(vma) };

        attached.mapping.opened(mm, span);
        // This VMA's, until `close`.
        core::mem::forget(Arc::from(attached));
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be about to go.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The kernel keeps the VMA during the call.
        let (attached, mm, span) = unsafe { Self::parts(vma) };

        attached.mapping.close(mm, span);
        // SAFETY: Gives up this VMA's reference, which nobody uses any more; the kernel calls this
        // once per VMA.
        drop(unsafe { Arc::from_raw((*vma).vm_private_data.cast::<VmaData<M>>()) });
    }

    /// # Safety
    ///
    /// `vma` must have these operations.
    unsafe extern "C" fn may_split(vma: *mut bindings::vm_area_struct, addr: usize) -> c_int {
        // SAFETY: Whoever asks has the mmap lock.
        let (attached, mm, _) = unsafe { Self::parts(vma) };

        // CAST: As in `Fault::page`.
        from_result(|| attached.mapping.may_split(mm, addr as u64).map(|()| 0))
    }

    /// # Safety
    ///
    /// `vma` must have these operations and be the place to which another was moved.
    unsafe extern "C" fn mremap(vma: *mut bindings::vm_area_struct) -> c_int {
        // SAFETY: mremap(2) has the mmap lock, of an address space in use.
        let (attached, mm, to) = unsafe {
            let (attached, mm, to) = Self::parts(vma);

            (attached, MmWithUser::from_raw(mm.as_raw()), to)
        };

        from_result(|| attached.mapping.placed(mm, to).map(|()| 0))
    }

    /// # Safety
    ///
    /// `vmf` must be a fault in a VMA with these operations.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller vouches for the fault.
        unsafe { Self::handle(vmf, Order::BASE) }
    }

    /// # Safety
    ///
    /// `vmf` must be a fault in a VMA with these operations, for a page of this order.
    unsafe extern "C" fn huge_fault(
        vmf: *mut bindings::vm_fault,
        order: c_uint,
    ) -> bindings::vm_fault_t {
        // SAFETY: By this function's contract.
        // INVARIANT: The kernel asks for those that the MMU has.
        unsafe { Self::handle(vmf, Order(order)) }
    }

    /// Inserts no page beside the one that was touched. The kernel calls [`Self::fault`] without
    /// the mmap lock, which that does not need, if there is this operation.
    ///
    /// # Safety
    ///
    /// None.
    unsafe extern "C" fn map_pages(
        _vmf: *mut bindings::vm_fault,
        _start: usize,
        _end: usize,
    ) -> bindings::vm_fault_t {
        0
    }

    /// # Safety
    ///
    /// As for [`Self::huge_fault`].
    #[inline(always)]
    unsafe fn handle(vmf: *mut bindings::vm_fault, order: Order) -> bindings::vm_fault_t {
        // SAFETY: The VMA is locked against going away during a fault, and owns a reference. It
        // keeps the device open.
        let (core, mapping) = unsafe {
            let vma = (*vmf).__bindgen_anon_1.vma;
            let attached = &*(*vma).vm_private_data.cast::<VmaData<M>>();

            (attached.core.as_ref(), &attached.mapping)
        };

        // INVARIANT: This is the call in question.
        let fault = Fault {
            vmf,
            order,
            _call: PhantomData,
        };

        match mapping.fault(core, &fault) {
            Ok(outcome) => outcome.0,
            // SAFETY: The caller vouches for the fault, and nothing refers to it or to what the
            // VMA owns any more.
            Err(obstacle) => unsafe { wait(vmf, obstacle) }.0,
        }
    }
}

/// Waits for `obstacle` to go, if the fault can be tried again; SIGBUS otherwise.
///
/// Any signal ends a fault of the user, who repeats it when the signal has been handled. A fault of
/// the kernel on the user's behalf, KVM's for example, cannot be ended like that.
///
/// # Safety
///
/// `vmf` must be a fault under way in a VMA of a device's file. Neither it nor what the VMA owns is
/// to be used afterwards.
#[cold]
#[inline(never)]
unsafe fn wait(vmf: *mut bindings::vm_fault, obstacle: impl Obstacle) -> Outcome {
    const RETRY: c_uint = bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY;
    const NOWAIT: c_uint = bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT;
    const SIGNALS: c_uint =
        bindings::fault_flag_FAULT_FLAG_USER | bindings::fault_flag_FAULT_FLAG_INTERRUPTIBLE;

    // SAFETY: By this function's contract; the calling task is one.
    let (flags, task) = unsafe { ((*vmf).flags, (*bindings::get_current()).flags) };

    // A file that a kernel thread puts goes by a work item, which might be the end of this module
    // while the thread is still in it.
    if flags & RETRY == 0 || task & bindings::PF_KTHREAD != 0 {
        return Outcome::SIGBUS;
    }
    if flags & NOWAIT != 0 {
        return Outcome::RETRY;
    }
    // SAFETY: By this function's contract. The reference to the file keeps the device open and this
    // module loaded while the fault has no lock, until it is dropped. As the mapping has one of its
    // own, fdget_pos() takes the lock of the file's position. Who lets the kernel try again has to
    // expect that it gives up the lock of the VMA.
    //
    // A task puts a file for good when it returns to user space, which is when it has left this
    // module.
    let _file: ARef<LocalFile> = unsafe {
        let file = LocalFile::from_raw_file((*(*vmf).__bindgen_anon_1.vma).vm_file).into();

        bindings::nvlink2_release_fault_lock(vmf);
        file
    };

    obstacle.wait(if flags & SIGNALS == SIGNALS {
        Signals::All
    } else {
        Signals::Fatal
    });
    Outcome::RETRY
}
