// SPDX-License-Identifier: GPL-2.0

//! What the NPUs translate for GPUs, and how GPUs are told to forget it.

use crate::{
    linux::npu::{
        GpuFunction,
        Npu, //
    },
    pure::{
        lpid::Lpid,
        xts::{
            Bdfn,
            Links,
            Untold,
            Xts, //
        },
    },
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    },
};

/// What one NPU translates.
#[pin_data]
pub(crate) struct Translator {
    npu: Npu,
    /// Taken for calls of firmware, which are one at a time.
    #[pin]
    calls: Mutex<()>,
    // Taken inside of all others, and with locks of page tables held: nothing sleeps.
    #[pin]
    xts: SpinLock<Xts>,
}

impl Translator {
    fn new(npu: Npu) -> impl PinInit<Self> {
        let blocks = npu.blocks;

        pin_init!(Self {
            npu,
            calls <- new_mutex!(()),
            xts <- new_spinlock!(Xts::new(blocks)),
        })
    }

    /// Lets a GPU translate addresses of guest `lpid`, and the ATSD registers of its `links` launch
    /// for it. On failure nothing is mapped. The GPU must have no translations, and gets none until
    /// [`Translator::set_quiet`] says that it may.
    ///
    /// EBUSY: it is mapped, or one on another PHB with its BDF is. ENOSPC: the table of the NPU is
    /// full. ENODEV: it has no links. Others: see [`Npu::map_lpar`].
    pub(crate) fn map(&self, gpu: &GpuFunction, links: Links, lpid: Lpid) -> Result {
        let _calls = self.calls.lock();
        let bdfn = gpu.bdfn();

        // Without a link it could not be told to forget, nor seen to be up.
        if links.is_empty() {
            return Err(ENODEV);
        }
        if self.xts.lock().has(bdfn) {
            return Err(EBUSY);
        }
        let mut mapped = self.npu.map_lpar(gpu, lpid);

        if mapped.is_ok() && !self.xts.lock().add(&self.npu, bdfn, links, lpid) {
            // What it says changes nothing.
            let _ = self.npu.unmap_lpar(bdfn);

            mapped = Err(ENOSPC);
        }
        // OPAL sets the register of one link only, and clears none.
        Xts::set_lparids(&self.npu, links, mapped.map_or(0, |()| lpid.get()));
        mapped
    }

    /// Undoes [`Translator::map`], and returns whether the GPU has forgotten what it knew: if its
    /// links are down it could not be told. Whatever firmware answers, the NPU was told all of it.
    ///
    /// ENOENT: it is not mapped; others: firmware failed at a part of it.
    pub(crate) fn unmap(
        &self,
        gpu: Option<&GpuFunction>,
        bdfn: Bdfn,
        links: Links,
        lpid: Lpid,
    ) -> Result<bool> {
        let _calls = self.calls.lock();
        let told = {
            let mut xts = self.xts.lock();

            if !xts.has(bdfn) {
                return Err(ENOENT);
            }
            // Without a context neither translations nor shootdowns get through.
            xts.forget(&self.npu, bdfn)
        };
        let answer = self.npu.unmap_lpar(bdfn);

        Xts::set_lparids(&self.npu, links, 0);
        self.xts.lock().remove(bdfn);
        answer.map(|()| told).map_err(|answer| {
            gpu.and_then(|gpu| answer.check(gpu, "unmap_lpar", lpid).err())
                .unwrap_or_else(|| answer.to_error())
        })
    }

    /// Has GPUs that are mapped to `lpid` forget all translations, and returns how many launches
    /// that took. Does not sleep.
    ///
    /// EAGAIN: a GPU cannot be told now, and gets no translations before it was. ETIMEDOUT: one
    /// does not answer, and gets none any more.
    pub(crate) fn invalidate(&self, lpid: Lpid) -> Result<u32> {
        self.xts
            .lock()
            .invalidate(&self.npu, lpid)
            .map_err(Error::from)
    }

    /// Tells whether a GPU is being reset: it forgets what it knows while it can be told, asks for
    /// no translations then, and has none thereafter. To be followed by [`Translator::pay`]. Does
    /// nothing while it is not mapped, and does not sleep.
    pub(crate) fn set_quiet(&self, bdfn: Bdfn, quiet: bool) {
        self.xts.lock().set_quiet(&self.npu, bdfn, quiet);
    }

    /// Has a GPU told what it is owed, if that can be done now. Does not sleep. Errors are those of
    /// [`Translator::invalidate`].
    pub(crate) fn pay(&self, bdfn: Bdfn) -> Result {
        self.xts.lock().pay(&self.npu, bdfn).map_err(Error::from)
    }
}

impl From<Untold> for Error {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::Owed => EAGAIN,
            Untold::Dead => ETIMEDOUT,
        }
    }
}

/// All NPUs that translate, or did.
#[pin_data]
pub(crate) struct Translators {
    #[pin]
    all: Mutex<KVec<Arc<Translator>>>,
}

impl Translators {
    /// Makes it without an NPU.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            all <- new_mutex!(KVec::new()),
        })
    }

    /// Returns what belongs to the NPU of a GPU. Errors are those of [`GpuFunction::npu`].
    pub(crate) fn of(&self, gpu: &GpuFunction) -> Result<Arc<Translator>> {
        let npu = gpu.npu()?;
        let mut all = self.all.lock();

        if let Some(known) = all.iter().find(|known| known.npu == npu) {
            return Ok(known.clone());
        }
        let new = Arc::pin_init(Translator::new(npu), GFP_KERNEL)?;

        all.push(new.clone(), GFP_KERNEL)?;
        Ok(new)
    }
}
