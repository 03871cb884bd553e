// SPDX-License-Identifier: GPL-2.0

//! The virtual machine that a GPU is bound to, and what the GPU knows of its memory.
//!
//! A bound GPU remembers translations of the machine's addresses. The guest has it forget those
//! that it changes; the host does when the machine loses memory, be it that its process unmaps
//! pages or that the kernel moves them: until then nobody else may get these pages.

use crate::{
    linux::{
        kvm::Kvm,
        mm::mmu_notifier::{
            Watch,
            Watcher, //
        },
        npu::Npu,
        trace, //
    },
    pure::lpid::Lpid, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// Who has to know that a machine loses all its memory.
pub(crate) trait Owner: Send + Sync + Sized + 'static {
    /// The machine that a GPU has `translations` of loses all its memory. May sleep, but must not
    /// drop the [`BoundVm`], which waits for this to return.
    fn memory_goes(&self, translations: &Translations<Self>);
}

/// A machine that a GPU is bound to, or is about to be.
///
/// Not to be dropped under a lock that [`Owner::memory_goes`] takes, nor by it.
pub(crate) struct BoundVm<O: Owner> {
    // Dropped before the machine, which may be the last user of the process.
    watch: Pin<KBox<Watch<Translations<O>>>>,
    kvm: Kvm,
}

impl<O: Owner> BoundVm<O> {
    /// Watches `mm`, the memory of `kvm`, for GPU `gpu` of `npu`, and tells `owner`.
    ///
    /// EINTR: a signal came.
    pub(crate) fn new(
        kvm: Kvm,
        mm: &MmWithUser,
        npu: Npu,
        lpid: Lpid,
        gpu: CString,
        owner: Arc<O>,
    ) -> Result<Self> {
        let translations = Translations {
            npu,
            lpid,
            gpu,
            owner,
        };
        let watch = KBox::pin_init(Watch::new(mm, translations), GFP_KERNEL)?;

        Ok(Self { watch, kvm })
    }

    /// Whether the machine is that of `kvm`.
    pub(crate) fn is(&self, kvm: &Kvm) -> bool {
        self.kvm == *kvm
    }

    /// Whether these are the translations that this watches for.
    pub(crate) fn has(&self, translations: &Translations<O>) -> bool {
        core::ptr::eq(self.watch.watcher(), translations)
    }

    /// Stops watching, and never gives the machine's LPID back.
    pub(crate) fn strand(self) {
        core::mem::forget(self.kvm);
    }
}

/// What a GPU knows of the addresses of a machine.
pub(crate) struct Translations<O> {
    npu: Npu,
    lpid: Lpid,
    /// For traces.
    gpu: CString,
    owner: Arc<O>,
}

impl<O: Owner> Watcher for Translations<O> {
    fn invalidate(&self) {
        let result = self.npu.invalidate_lpar(self.lpid);

        // If it failed the kernel has told.
        trace::lpar_invalidate(&self.gpu, self.lpid, &result);
    }

    fn release(&self) {
        self.owner.memory_goes(self);
    }
}
