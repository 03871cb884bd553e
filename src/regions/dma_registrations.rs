// SPDX-License-Identifier: GPL-2.0

//! Which ranges of which processes may be used for DMA to a GPU's RAM.
//!
//! Every user mapping of GPU RAM is registered for TCE tables of its process, and the registration
//! follows it when it is split or moved. When the mapping goes, a TCE or a container may still
//! refer to the registration: then it is retained here, and tried again until the last of them is
//! gone. As long as anything is retained another process cannot open the GPU, since DMA of the
//! previous one would reach its RAM, and the module is not unloaded. The driver may be unbound from
//! the GPU meanwhile, and bound to it again: registrations are the GPU's, not the function's.

use crate::{
    linux::{
        claim::{
            Claim,
            Physical, //
        },
        mm::{
            mm_iommu::Registration,
            vma::VmaSpan, //
        },
        module_reference::ModuleReference,
        process::Process,
        workqueue::{
            Retry,
            Retrying, //
        },
    },
    pure::aperture::Aperture,
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
    registration: Registration,
    /// How many mappings are registered by it; none while it is retained.
    mappings: usize,
    /// Whether it could not be split with the mapping that it was made for. Then it is of all parts
    /// of that, whichever are there and however they are split, until the last of them goes.
    whole: bool,
    /// Who has mapped.
    process: Process,
}

impl Entry {
    fn is_retained(&self) -> bool {
        self.mappings == 0
    }

    /// Whether it is what registers a mapping of `mm` that has the page at `user`.
    fn registers(&self, mm: &Mm, user: u64) -> bool {
        let registration = &self.registration;

        !self.is_retained()
            && registration.is_in(mm)
            && (registration.user()..registration.end()).contains(&user)
    }
}

#[derive(Default)]
struct Entries {
    list: KVec<Entry>,
    /// While anything is retained, which nobody could end without the module.
    module: Option<ModuleReference>,
}

/// The registrations of one GPU.
#[pin_data]
pub(crate) struct DmaRegistrations {
    // Taken inside of the mmap lock (mapping and unmapping); takes the kernel's registration lock.
    #[pin]
    entries: Mutex<Entries>,
}

impl DmaRegistrations {
    /// Makes those of a GPU that nobody has mapped yet.
    pub(crate) fn new() -> impl PinInit<Retrying<Self>> {
        Retrying::new(pin_init!(Self {
            entries <- new_mutex!(Entries::default()),
        }))
    }

    /// Registers a mapping of `mm` for DMA, until [`DmaRegistrations::close`], and longer if it
    /// must.
    ///
    /// EINVAL: it overlaps another registration.
    pub(crate) fn register(
        &self,
        mm: &MmWithUser,
        span: VmaSpan,
        physical: Physical<'_, Aperture>,
    ) -> Result {
        let mut entries = self.entries.lock();

        entries.retry();
        if entries.resume(mm, span, physical) {
            return Ok(());
        }
        entries.add(mm, span, physical)
    }

    /// Whether a mapping of `mm` may be split at `at`. EBUSY: its registration is needed as it is.
    pub(crate) fn may_split(&self, mm: &Mm, at: u64) -> Result {
        let entries = self.entries.lock();
        let shared = entries
            .list
            .iter()
            .any(|entry| entry.registers(mm, at) && entry.registration.is_shared());

        (!shared).then_some(()).ok_or(EBUSY)
    }

    /// There is a mapping of `mm` at `span`. If it was split off another one they have a
    /// registration each from now on, or share one if that was impossible.
    pub(crate) fn opened(&self, mm: &Mm, span: VmaSpan) {
        self.entries.lock().divide(mm, span);
    }

    /// Ends what is registered of a mapping of `mm` that goes.
    pub(crate) fn close(this: &Retrying<Self>, mm: &Mm, span: VmaSpan) {
        let left = this.entries.lock().retire(mm, span.user);

        if left != 0 {
            this.schedule();
        }
    }

    /// Returns a process for which something is retained that nobody has mapped any more.
    pub(crate) fn former_user(&self) -> Option<Process> {
        self.entries.lock().used_by(Entry::is_retained)
    }

    /// Returns another process than `mm`, if there is one for which something is registered.
    pub(crate) fn other_user(&self, mm: Option<&Mm>) -> Option<Process> {
        self.entries
            .lock()
            .used_by(|entry| !mm.is_some_and(|mm| entry.registration.is_in(mm)))
    }

    /// Returns the claim that registrations hold, if there are any.
    pub(crate) fn claim(&self) -> Option<Arc<Claim<Aperture>>> {
        let entries = self.entries.lock();

        entries
            .list
            .first()
            .map(|entry| entry.registration.claim().clone())
    }

    /// Writes one line per registration: user address, size, physical address, `mapped` or
    /// `retained`, and the process.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries.lock().list {
            let registration = &entry.registration;

            writeln!(
                f,
                "{:#x} {:#x} {:#x} {} {}",
                registration.user(),
                registration.len(),
                registration.physical(),
                if entry.is_retained() {
                    "retained"
                } else {
                    "mapped"
                },
                entry.process
            )?;
        }
        Ok(())
    }
}

impl Retry for DmaRegistrations {
    const DELAY_MS: u32 = 200;

    fn retry(&self) -> bool {
        self.entries.lock().retry() != 0
    }
}

impl Entries {
    fn add(&mut self, mm: &MmWithUser, span: VmaSpan, physical: Physical<'_, Aperture>) -> Result {
        // Nothing may fail once it is registered.
        self.list.reserve(1, GFP_KERNEL)?;
        self.push(
            Registration::new(mm, span.user, physical)?,
            Process::current(),
        );
        Ok(())
    }

    /// Adds a registration of one mapping, for which there is room.
    fn push(&mut self, registration: Registration, process: Process) {
        let _ = self.list.push_within_capacity(Entry {
            registration,
            mappings: 1,
            whole: false,
            process,
        });
    }

    /// Takes a retained registration of exactly this mapping back into use; returns whether there
    /// is one.
    fn resume(&mut self, mm: &Mm, span: VmaSpan, physical: Physical<'_, Aperture>) -> bool {
        let retained = self.list.iter_mut().find(|entry| {
            let registration = &entry.registration;

            entry.is_retained()
                && registration.is_in(mm)
                && registration.user() == span.user
                && registration.len() == physical.len()
                && registration.physical() == physical.start()
        });
        let Some(entry) = retained else {
            return false;
        };

        entry.mappings = 1;
        entry.whole = false;
        true
    }

    /// See [`DmaRegistrations::opened`].
    fn divide(&mut self, mm: &Mm, part: VmaSpan) {
        let room = self.list.reserve(1, GFP_KERNEL).is_ok();
        let registers = |entry: &&mut Entry| entry.registers(mm, part.user);
        // A mapping that moves comes to where nothing is registered yet.
        let Some(entry) = self.list.iter_mut().find(registers) else {
            return;
        };
        let at = if part.user == entry.registration.user() {
            part.end()
        } else {
            part.user
        };
        // Fails if somebody has begun to need it since it was asked for, or if memory is short.
        let upper = (room && !entry.whole)
            .then(|| entry.registration.split(at).ok())
            .flatten();
        let Some(registration) = upper else {
            entry.whole = true;
            entry.mappings = entry.mappings.saturating_add(1);
            return;
        };
        let process = entry.process.clone();

        self.push(registration, process);
    }

    /// Takes a mapping of `mm` that has the page at `user` from its entry, and tries to end all
    /// that have none.
    fn retire(&mut self, mm: &Mm, user: u64) -> usize {
        for entry in &mut self.list {
            if entry.registers(mm, user) {
                entry.mappings = entry.mappings.saturating_sub(1);
            }
        }
        self.retry()
    }

    /// Tries to end what is retained; returns how many have to stay.
    fn retry(&mut self) -> usize {
        self.list
            .retain(|entry| !(entry.is_retained() && entry.registration.release()));
        let left = self.list.iter().filter(|entry| entry.is_retained()).count();

        if left == 0 {
            self.module = None;
        } else if self.module.is_none() {
            self.module = ModuleReference::new();
        }
        left
    }

    /// Returns whose the first entry is that `which` chooses, once those are gone that can.
    fn used_by(&mut self, which: impl Fn(&Entry) -> bool) -> Option<Process> {
        self.retry();
        self.list
            .iter()
            .find(|entry| which(entry))
            .map(|entry| entry.process.clone())
    }
}
