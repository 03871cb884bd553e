// SPDX-License-Identifier: GPL-2.0

//! The virtual machine that a GPU is bound to.

use crate::{
    binding::vm_watch::{
        Owner,
        Translations,
        VmWatch,
        VmWatches, //
    },
    linux::{
        kvm::Kvm,
        npu::Npu,
        workqueue::Retrying, //
    },
    pure::lpid::Lpid, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc, //
};

/// A machine that a GPU is bound to, or is about to be, and whose memory is watched for it.
///
/// Not to be dropped under a lock that an [`Owner`] takes, nor by one.
pub(crate) struct BoundVm<O: Owner> {
    // Dropped before the machine, which may be the last user of the process.
    watched: Watched<O>,
    kvm: Arc<Kvm>,
}

/// A GPU's share of a watch.
struct Watched<O: Owner> {
    watch: Arc<VmWatch<O>>,
    watches: Arc<VmWatches<O>>,
    owner: Arc<O>,
}

impl<O: Owner> Drop for Watched<O> {
    fn drop(&mut self) {
        self.watches.leave(&self.watch, &self.owner);
    }
}

impl<O: Owner> BoundVm<O> {
    /// Watches `mm`, the memory of `kvm`, for a GPU of `npu`, and tells `owner`.
    ///
    /// EINTR: a signal came.
    pub(crate) fn new(
        kvm: Kvm,
        mm: &MmWithUser,
        npu: Npu,
        lpid: Lpid,
        watches: &Arc<VmWatches<O>>,
        owner: Arc<O>,
    ) -> Result<Self> {
        let kvm = Arc::new(kvm, GFP_KERNEL)?;
        let watch = watches.join(&kvm, mm, npu, lpid, owner.clone())?;

        Ok(Self {
            watched: Watched {
                watch,
                watches: watches.clone(),
                owner,
            },
            kvm,
        })
    }

    /// Whether the machine is that of `kvm`.
    pub(crate) fn is(&self, kvm: &Kvm) -> bool {
        *self.kvm == *kvm
    }

    /// Returns what the GPU knows of the machine's memory.
    pub(crate) fn translations(&self) -> &Retrying<Translations<O>> {
        self.watched.watch.watcher()
    }

    /// Whether these are the translations that this watches for.
    pub(crate) fn has(&self, translations: &Translations<O>) -> bool {
        core::ptr::eq(&raw const **self.translations(), translations)
    }

    /// Stops watching, and never gives the machine's LPID back.
    pub(crate) fn strand(self) {
        core::mem::forget(self.kvm);
    }
}
