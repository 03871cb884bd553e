// SPDX-License-Identifier: GPL-2.0

//! What functions share: a GPU with its bridges, and all with one another.

use crate::{
    binding::{
        gpu_binding::GpuBinding,
        translator::Translators,
        vm_watch::VmWatches, //
    },
    linux::{
        claim::Claim,
        of::OfNode,
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

/// What several functions share that have an address in common.
#[pin_data]
pub(crate) struct ByAddress<T> {
    #[pin]
    all: Mutex<KVec<(u64, T)>>,
}

impl<T: Clone> ByAddress<T> {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            all <- new_mutex!(KVec::new()),
        })
    }

    /// Returns what belongs to `address`, which `make` makes for whoever comes first.
    ///
    /// It stays until the module goes; the machine has few.
    pub(crate) fn or_made(&self, address: u64, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut all = self.all.lock();

        if let Some((_, this)) = all.iter().find(|(of, _)| *of == address) {
            return Ok(this.clone());
        }
        // Nothing may fail once it is made.
        all.reserve(1, GFP_KERNEL)?;
        let this = make()?;

        all.push_within_capacity((address, this.clone()))
            .map_err(|_| ENOMEM)?;
        Ok(this)
    }
}

/// What exists once per GPU and is shared by the GPU and its bridges.
#[derive(Clone)]
pub(crate) struct SharedByGpu {
    /// Of its RAM.
    pub(crate) gate: Arc<Gate>,
    /// Of its RAM, too: what is registered for DMA.
    pub(crate) registrations: Arc<Retrying<DmaRegistrations>>,
    /// Which virtual machine it is bound to.
    pub(crate) binding: Arc<GpuBinding>,
}

/// What all functions of the driver share.
pub(crate) struct SharedState {
    /// The driver's folder.
    pub(crate) debugfs: Dir,
    /// By where the GPU's aperture starts.
    gpus: Pin<KBox<ByAddress<SharedByGpu>>>,
    /// Of the NPUs.
    translators: Arc<Translators>,
    /// Of the virtual machines' memory.
    watches: Arc<VmWatches>,
    /// Of the links, claimed when the first bridge is opened that has them: another link of the GPU
    /// may have the same.
    pub(crate) atsds: Arc<ByAddress<Arc<Claim<Atsd>>>>,
}

impl SharedState {
    /// Makes it for a driver that has no function yet; its folder in debugfs is `name`.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        Ok(Self {
            debugfs: Dir::new(name),
            gpus: KBox::pin_init(ByAddress::new(), GFP_KERNEL)?,
            translators: Arc::pin_init(Translators::new(), GFP_KERNEL)?,
            watches: Arc::pin_init(VmWatches::new(), GFP_KERNEL)?,
            atsds: Arc::pin_init(ByAddress::new(), GFP_KERNEL)?,
        })
    }

    /// Returns what is shared of the GPU at `node`, whose aperture starts at `base`.
    pub(crate) fn of_gpu(&self, base: u64, node: OfNode) -> Result<SharedByGpu> {
        self.gpus.or_made(base, || {
            let binding = GpuBinding::of(node, self.watches.clone(), self.translators.clone());

            Ok(SharedByGpu {
                gate: Arc::pin_init(Gate::new(), GFP_KERNEL)?,
                registrations: Arc::pin_init(DmaRegistrations::new(), GFP_KERNEL)?,
                binding: Arc::pin_init(binding, GFP_KERNEL)?,
            })
        })
    }
}

impl Drop for SharedState {
    fn drop(&mut self) {
        for (_, gpu) in &*self.gpus.all.lock() {
            gpu.binding.abandon();
        }
    }
}
