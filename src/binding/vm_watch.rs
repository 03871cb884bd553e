// SPDX-License-Identifier: GPL-2.0

//! What the GPUs of an NPU know of a virtual machine's memory.
//!
//! A bound GPU remembers translations of the machine's addresses. The guest has it forget those
//! that it changes; the host does when the machine loses memory, be it that its process unmaps
//! pages or that the kernel moves them: until then nobody else may get these pages. A shootdown
//! reaches all GPUs of an NPU, so one is enough for all that are bound to the machine.
//!
//! The process has other memory, too, and the GPUs know nothing of that: none of them is bothered
//! when it goes. What memory the machine has changes: as long as its number has been the same since
//! the last shootdown, what GPUs know is of memory that the machine has now.

use crate::{
    binding::translator::Translator,
    linux::{
        kvm::Kvm,
        mm::mmu_notifier::{
            Watch,
            Watcher, //
        },
        trace,
        workqueue::{
            Retry,
            Retrying, //
        },
    },
    pure::lpid::Lpid, //
};
use kernel::{
    fmt,
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex, //
    },
};

/// GPUs that an NPU can have: each takes one link at least.
const MAX_GPUS: usize = 6;

/// Who has to know what becomes of a machine's memory.
pub(crate) trait Owner: Send + Sync {
    /// The machine that a GPU has `translations` of loses all its memory. May sleep, but must not
    /// drop the [`BoundVm`], which waits for this to return.
    fn memory_goes(&self, translations: &Translations);

    /// A machine lost memory, and a GPU was not told.
    fn shootdown_is_owed(&self);
}

/// Watches the memory of a machine for the GPUs of an NPU, as long as it exists.
type VmWatch = Watch<Retrying<Translations>>;

/// All watches, each of which GPUs share.
#[pin_data]
pub(crate) struct VmWatches {
    // Taken outside of the mmap lock, and of the owners of a watch.
    #[pin]
    all: Mutex<KVec<Arc<VmWatch>>>,
}

impl VmWatches {
    /// Makes it without a watch.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            all <- new_mutex!(KVec::new()),
        })
    }
}

/// A machine that a GPU is bound to, or is about to be, and whose memory is watched for it.
///
/// Not to be dropped under a lock that an [`Owner`] takes, nor by one.
pub(crate) struct BoundVm {
    watch: Arc<VmWatch>,
    watches: Arc<VmWatches>,
    /// Which of the watch's owners the GPU has.
    slot: usize,
}

impl BoundVm {
    /// Watches `mm`, the memory of `kvm`, for a GPU of `npu` that is going to be bound to `lpid`,
    /// and tells `owner`.
    ///
    /// EINTR: a signal came.
    pub(crate) fn new(
        kvm: Kvm,
        mm: &MmWithUser,
        translator: Arc<Translator>,
        lpid: Lpid,
        watches: &Arc<VmWatches>,
        owner: Arc<dyn Owner>,
    ) -> Result<Self> {
        let kvm = Arc::new(kvm, GFP_KERNEL)?;
        let mut all = watches.all.lock();
        let known = all.iter().find(|watch| {
            let of = watch.watcher();

            Arc::ptr_eq(&of.translator, &translator) && *of.kvm == *kvm
        });
        let (watch, slot) = match known {
            Some(watch) => (watch.clone(), watch.watcher().add(owner)?),
            None => {
                // Nothing may fail once it watches: it is not to be dropped under the lock.
                all.reserve(1, GFP_KERNEL)?;
                let translations = Translations::new(kvm.clone(), translator, lpid, owner);
                let watch = Arc::pin_init(Watch::new(mm, Retrying::new(translations)), GFP_KERNEL)?;

                // There is room for it.
                let _ = all.push_within_capacity(watch.clone());
                (watch, 0)
            }
        };

        Ok(Self {
            watch,
            watches: watches.clone(),
            slot,
        })
    }

    /// Whether the machine is that of `kvm`.
    pub(crate) fn is(&self, kvm: &Kvm) -> bool {
        *self.translations().kvm == *kvm
    }

    /// Returns what the GPU knows of the machine's memory.
    pub(crate) fn translations(&self) -> &Retrying<Translations> {
        self.watch.watcher()
    }

    /// Whether these are the translations that this watches for.
    pub(crate) fn has(&self, translations: &Translations) -> bool {
        core::ptr::eq(&raw const **self.translations(), translations)
    }

    /// Stops watching, and never gives the machine's LPID back.
    pub(crate) fn strand(self) {
        core::mem::forget(self.translations().kvm.clone());
    }
}

impl Drop for BoundVm {
    fn drop(&mut self) {
        let mut all = self.watches.all.lock();

        if self.translations().remove(self.slot) {
            // It is dropped with `self`, and not under the lock.
            all.retain(|other| !Arc::ptr_eq(other, &self.watch));
        }
    }
}

/// What GPUs of an NPU know of the addresses of a machine.
#[pin_data]
pub(crate) struct Translations {
    // As long as the machine exists it has its memory slots, and nobody else its LPID.
    kvm: Arc<Kvm>,
    translator: Arc<Translator>,
    lpid: Lpid,
    /// The number of what memory the machine had, before the last shootdown.
    generation: Atomic<u64>,
    #[pin]
    owners: Mutex<[Option<Arc<dyn Owner>>; MAX_GPUS]>,
    shootdowns: Atomic<u64>,
    launches: Atomic<u64>,
    failed: Atomic<u64>,
    spared: Atomic<u64>,
}

impl Translations {
    fn new(
        kvm: Arc<Kvm>,
        translator: Arc<Translator>,
        lpid: Lpid,
        owner: Arc<dyn Owner>,
    ) -> impl PinInit<Self> {
        // No GPU is bound yet, so none knows anything.
        let (_, generation) = kvm.has_memory_at(0, 1);
        let mut owners = [const { None }; MAX_GPUS];

        owners[0] = Some(owner);
        pin_init!(Self {
            kvm,
            translator,
            lpid,
            generation: Atomic::new(generation),
            owners <- new_mutex!(owners),
            shootdowns: Atomic::new(0),
            launches: Atomic::new(0),
            failed: Atomic::new(0),
            spared: Atomic::new(0),
        })
    }

    /// Returns the slot that the owner gets.
    fn add(&self, owner: Arc<dyn Owner>) -> Result<usize> {
        let mut owners = self.owners.lock();
        let (slot, free) = owners
            .iter_mut()
            .enumerate()
            .find(|(_, owner)| owner.is_none())
            .ok_or(ENOSPC)?;

        *free = Some(owner);
        Ok(slot)
    }

    /// Returns whether there is no other.
    fn remove(&self, slot: usize) -> bool {
        let mut owners = self.owners.lock();

        if let Some(owner) = owners.get_mut(slot) {
            *owner = None;
        }
        owners.iter().all(Option::is_none)
    }

    /// Not under the lock: owners take others, outside of which that may be taken.
    fn tell(&self, tell: impl Fn(&dyn Owner)) {
        let owners = self.owners.lock().clone();

        owners.iter().flatten().for_each(|owner| tell(&**owner));
    }

    /// The machine's process lost what was from `start` to `end`.
    fn forget(&self, start: usize, end: usize) -> Result {
        let (of_machine, generation) = self.kvm.has_memory_at(start, end);

        if !of_machine && generation == self.generation.load(Acquire) {
            self.spared.fetch_add(1, Relaxed);
            return Ok(());
        }
        let result = self.translator.invalidate(self.lpid);

        trace::lpar_invalidate(self.lpid, start, end, &result);
        self.shootdowns.fetch_add(1, Relaxed);
        match result {
            Ok(launches) => {
                self.launches.fetch_add(launches.into(), Relaxed);
                self.generation.store(generation, Release);
                Ok(())
            }
            // What such a GPU knows is of no use to it before it was told.
            Err(EAGAIN) => {
                self.generation.store(generation, Release);
                Err(EAGAIN)
            }
            // The owners tell.
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// Writes how often GPUs were to forget the machine's memory, and what that took.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "shootdowns {}\nlaunches {}\nfailed {}\nspared {}",
            self.shootdowns.load(Relaxed),
            self.launches.load(Relaxed),
            self.failed.load(Relaxed),
            self.spared.load(Relaxed)
        )
    }
}

impl Watcher for Retrying<Translations> {
    fn invalidate(&self, start: usize, end: usize) {
        if self.forget(start, end).is_err() {
            // Owners sleep.
            self.schedule();
        }
    }

    fn release(&self) {
        self.tell(|owner| owner.memory_goes(self));
    }
}

impl Retry for Translations {
    const DELAY_MS: u32 = 1;

    fn retry(&self) -> bool {
        self.tell(|owner| owner.shootdown_is_owed());
        false
    }
}
