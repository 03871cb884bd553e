// SPDX-License-Identifier: GPL-2.0

//! Which ranges of which processes may be used for DMA to a GPU's RAM.
//!
//! Every user mapping of GPU RAM is registered for TCE tables of its process, and the registration
//! follows it when it is split or moved. When the mapping goes, a TCE or a container may still
//! refer to the registration: then it is retained here, and tried again until the last of them is
//! gone. As long as anything is retained the GPU is not given to another process, since DMA of the
//! previous one would reach its RAM.

use crate::{
    linux::{
        delayed::{
            Retry,
            Retrying, //
        },
        mm_iommu::Registration,
        vma::Extent, //
    },
    pure::alignment::first_incongruent_shift,
};
use kernel::{
    fmt,
    mm::{
        Mm,
        MmWithUser, //
    },
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

struct Entry {
    /// Tells entries apart, which are otherwise known by their range only.
    id: u64,
    registration: Registration,
    /// Its mapping is gone.
    retained: bool,
}

#[derive(Default)]
struct Entries {
    list: KVec<Entry>,
    last_id: u64,
}

/// The registrations of one GPU.
#[pin_data]
pub(crate) struct Ledger {
    // Taken inside of the mmap lock (mapping and unmapping); takes the kernel's registration lock.
    #[pin]
    entries: Mutex<Entries>,
}

/// A new registration, which ends when this is dropped.
pub(crate) struct Registered {
    ledger: Arc<Retrying<Ledger>>,
    id: u64,
    kept: bool,
}

impl Ledger {
    /// Makes an empty ledger.
    pub(crate) fn new() -> impl PinInit<Retrying<Self>> {
        Retrying::new(pin_init!(Self {
            entries <- new_mutex!(Entries::default()),
        }))
    }

    /// Registers a mapping of `mm` for DMA.
    ///
    /// EINVAL: it overlaps another registration, or the kernel would translate it with IOMMU pages
    /// that its alignment does not allow.
    pub(crate) fn register(
        this: &Arc<Retrying<Self>>,
        mm: &MmWithUser,
        extent: Extent,
        physical: u64,
    ) -> Result<Registered> {
        let mut entries = this.entries.lock();

        entries.retry();
        let id = match entries.resume(mm, extent, physical) {
            Some(id) => id,
            None => entries.add(mm, extent, physical)?,
        };
        let registered = Registered {
            ledger: this.clone(),
            id,
            kept: false,
        };
        let usable = entries.is_translatable(id);

        // `registered` takes the lock when it is dropped.
        drop(entries);
        usable.then_some(registered).ok_or(EINVAL)
    }

    /// Registers the parts of what is mapped at `whole` in `mm` that are below and above `at` each
    /// on its own. That may be so already.
    ///
    /// EBUSY: it is in use. On failure nothing has changed, unless memory for what there was
    /// before is missing, too: then nothing is registered.
    pub(crate) fn split(&self, mm: &MmWithUser, whole: Extent, at: u64) -> Result {
        self.entries.lock().split(mm, whole, at)
    }

    /// Ends what is registered of a mapping of `mm` that goes.
    pub(crate) fn close(this: &Arc<Retrying<Self>>, mm: &Mm, extent: Extent) {
        let left = this.entries.lock().retire(|entry| {
            let user = entry.registration.user();

            entry.registration.is_in(mm) && (extent.user..extent.end()).contains(&user)
        });

        if left != 0 {
            this.schedule();
        }
    }

    /// Tries to end what is retained; returns how many have to stay.
    pub(crate) fn settle(&self) -> usize {
        self.entries.lock().retry()
    }

    /// Whether anything is retained that belongs to another process than `mm`.
    pub(crate) fn is_held_by_other(&self, mm: Option<&Mm>) -> bool {
        let mut entries = self.entries.lock();

        entries.retry();
        entries
            .list
            .iter()
            .any(|entry| !mm.is_some_and(|mm| entry.registration.is_in(mm)))
    }

    /// Writes one line per registration: user address, size, physical address, `mapped` or
    /// `retained`.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries.lock().list {
            let registration = &entry.registration;

            writeln!(
                f,
                "{:#x} {:#x} {:#x} {}",
                registration.user(),
                registration.len(),
                registration.physical(),
                if entry.retained { "retained" } else { "mapped" }
            )?;
        }
        Ok(())
    }
}

impl Retry for Ledger {
    fn retry(&self) -> bool {
        self.settle() != 0
    }
}

impl Entries {
    fn add(&mut self, mm: &MmWithUser, extent: Extent, physical: u64) -> Result<u64> {
        let id = self.last_id.wrapping_add(1);

        // Nothing may fail once it is registered.
        self.list.reserve(1, GFP_KERNEL)?;
        let registration = Registration::new(mm, extent.user, extent.len, physical)?;

        let entry = Entry {
            id,
            registration,
            retained: false,
        };

        self.last_id = id;
        // There is room for it.
        self.list.push_within_capacity(entry).map_err(|_| ENOMEM)?;
        Ok(id)
    }

    /// Takes a retained registration of exactly this mapping back into use.
    fn resume(&mut self, mm: &MmWithUser, extent: Extent, physical: u64) -> Option<u64> {
        let entry = self.list.iter_mut().find(|entry| {
            let registration = &entry.registration;

            entry.retained
                && registration.is_in(mm)
                && registration.user() == extent.user
                && registration.len() == extent.len
                && registration.physical() == physical
        })?;

        entry.retained = false;
        Some(entry.id)
    }

    /// Whether the kernel translates an entry only with pages that suit its alignment.
    fn is_translatable(&self, id: u64) -> bool {
        let entry = self.list.iter().find(|entry| entry.id == id);

        entry.is_some_and(|entry| {
            let registration = &entry.registration;

            !first_incongruent_shift(registration.user(), registration.physical())
                .is_some_and(|shift| registration.translates(shift))
        })
    }

    /// See [`Ledger::split`].
    fn split(&mut self, mm: &MmWithUser, whole: Extent, at: u64) -> Result {
        // Nothing may fail for want of it when there are two.
        self.list.reserve(1, GFP_KERNEL)?;
        let Some(position) = self.list.iter().position(|entry| {
            let registration = &entry.registration;

            !entry.retained
                && registration.is_in(mm)
                && (whole.user..whole.end()).contains(&registration.user())
                && registration.user() < at
                && at < registration.end()
        }) else {
            return Ok(());
        };
        let entry = self.list.get_mut(position).ok_or(EINVAL)?;
        let id = self.last_id.wrapping_add(1);
        let upper = Entry {
            id,
            registration: entry.registration.split(mm, at)?,
            retained: false,
        };

        self.last_id = id;

        // There is room for it.
        self.list.push_within_capacity(upper).map_err(|_| ENOMEM)
    }

    /// Marks entries as retained and tries to end all that are.
    fn retire(&mut self, which: impl Fn(&Entry) -> bool) -> usize {
        for entry in self.list.iter_mut().filter(|entry| which(entry)) {
            entry.retained = true;
        }
        self.retry()
    }

    /// Tries to end what is retained; returns how many have to stay.
    fn retry(&mut self) -> usize {
        self.list
            .retain(|entry| !(entry.retained && entry.registration.release()));
        self.list.iter().filter(|entry| entry.retained).count()
    }
}

impl Registered {
    /// The mapping is there: it lasts until [`Ledger::close`], and longer if it must.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let left = self
            .ledger
            .entries
            .lock()
            .retire(|entry| entry.id == self.id);

        if left != 0 {
            self.ledger.schedule();
        }
    }
}
