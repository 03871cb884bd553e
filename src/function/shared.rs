// SPDX-License-Identifier: GPL-2.0

//! State that functions share: a GPU with its bridges, and all functions with one another.

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

/// Values that several functions share, found by an address that these have in common.
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

    /// Returns the value of `address`, which `make` makes on the first call.
    ///
    /// It stays until the module is unloaded, as a machine has few of them.
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

/// State that exists once per GPU, and that the GPU and its bridges share.
#[derive(Clone)]
pub(crate) struct SharedByGpu {
    /// The gate of the GPU's RAM.
    pub(crate) gate: Arc<Gate>,
    /// The registrations of the GPU's RAM for DMA.
    pub(crate) registrations: Arc<Retrying<DmaRegistrations>>,
    /// The virtual machine that the GPU is bound to.
    pub(crate) binding: Arc<GpuBinding>,
}

/// State that all functions of the driver share.
pub(crate) struct SharedState {
    /// The driver's folder in debugfs.
    pub(crate) debugfs: Dir,
    /// The GPUs, by the first address of the aperture.
    gpus: Pin<KBox<ByAddress<SharedByGpu>>>,
    /// Of the NPUs.
    translators: Arc<Translators>,
    /// The watches of the virtual machines' memory.
    watches: Arc<VmWatches>,
    /// The ATSD registers of the links. They are claimed when the first bridge that has them is
    /// opened, as another link of the GPU may have the same.
    pub(crate) atsds: Arc<ByAddress<Arc<Claim<Atsd>>>>,
}

impl SharedState {
    /// Makes the state for a driver without functions; `name` is its folder in debugfs.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        Ok(Self {
            debugfs: Dir::new(name),
            gpus: KBox::pin_init(ByAddress::new(), GFP_KERNEL)?,
            translators: Arc::pin_init(Translators::new(), GFP_KERNEL)?,
            watches: Arc::pin_init(VmWatches::new(), GFP_KERNEL)?,
            atsds: Arc::pin_init(ByAddress::new(), GFP_KERNEL)?,
        })
    }

    /// Returns the shared state of the GPU at `node`, whose aperture starts at `base`.
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
