// SPDX-License-Identifier: GPL-2.0

//! What functions share: a GPU with its bridges, and all with one another.

use crate::{
    binding::{
        gpu_binding::GpuBinding,
        vm_watch::VmWatches, //
    },
    linux::{
        claim::Claim,
        workqueue::Retrying, //
    },
    pure::atsd_registers::Atsd,
    regions::{
        dma_registrations::DmaRegistrations,
        gate::Gate, //
    },
};
use core::ffi::CStr;
use kernel::{
    debugfs::Dir,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Something that exists once per GPU and is shared by the GPU and its bridges.
#[pin_data]
pub(crate) struct PerGpu<T> {
    /// By the base of the GPU's aperture, or of the ATSD registers that its links share.
    #[pin]
    by_base: Mutex<KVec<(u64, Arc<T>)>>,
}

impl<T> PerGpu<T> {
    /// Makes an empty collection.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            by_base <- new_mutex!(KVec::new()),
        })
    }

    /// Returns what belongs to the GPU whose aperture starts at `base`, made from `init` by whoever
    /// comes first.
    ///
    /// It stays until the module goes; there is one per GPU of the machine.
    pub(crate) fn of(&self, base: u64, init: impl PinInit<T>) -> Result<Arc<T>> {
        self.or_made(base, || Arc::pin_init(init, GFP_KERNEL))
    }

    /// The same, made by `make`, which may fail.
    pub(crate) fn or_made(
        &self,
        base: u64,
        make: impl FnOnce() -> Result<Arc<T>>,
    ) -> Result<Arc<T>> {
        let mut all = self.by_base.lock();

        if let Some((_, this)) = all.iter().find(|(of, _)| *of == base) {
            return Ok(this.clone());
        }
        // Nothing may fail once it is made.
        all.reserve(1, GFP_KERNEL)?;
        let this = make()?;

        all.push_within_capacity((base, this.clone()))
            .map_err(|_| ENOMEM)?;
        Ok(this)
    }

    /// Calls `f` for what belongs to each GPU.
    pub(crate) fn for_each(&self, f: impl Fn(&T)) {
        for (_, this) in &*self.by_base.lock() {
            f(this);
        }
    }
}

/// What all functions of the driver share.
pub(crate) struct SharedState {
    /// The driver's folder.
    pub(crate) debugfs: Dir,
    /// Of the GPUs' RAM.
    pub(crate) gates: Arc<PerGpu<Gate>>,
    /// Of the GPUs' RAM, too: what is registered for DMA.
    pub(crate) registrations: Arc<PerGpu<Retrying<DmaRegistrations>>>,
    /// Of the GPUs, too: which virtual machine each is bound to.
    pub(crate) bindings: Arc<PerGpu<GpuBinding>>,
    /// Of the virtual machines' memory.
    pub(crate) watches: Arc<VmWatches>,
    /// Of the links, claimed when the first bridge is opened that has them: another link of the GPU
    /// may have the same.
    pub(crate) atsds: Arc<PerGpu<Claim<Atsd>>>,
}

impl SharedState {
    /// Makes it for a driver that has no function yet; its folder in debugfs is `name`.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        Ok(Self {
            debugfs: Dir::new(name),
            gates: Arc::pin_init(PerGpu::new(), GFP_KERNEL)?,
            registrations: Arc::pin_init(PerGpu::new(), GFP_KERNEL)?,
            bindings: Arc::pin_init(PerGpu::new(), GFP_KERNEL)?,
            watches: Arc::pin_init(VmWatches::new(), GFP_KERNEL)?,
            atsds: Arc::pin_init(PerGpu::new(), GFP_KERNEL)?,
        })
    }
}

impl Drop for SharedState {
    fn drop(&mut self) {
        self.bindings.for_each(GpuBinding::abandon);
    }
}
