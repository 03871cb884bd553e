// SPDX-License-Identifier: GPL-2.0

//! What a GPU and its bridges have in common.

use kernel::{
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
    /// By the base of the GPU's aperture.
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
        let mut all = self.by_base.lock();

        if let Some((_, this)) = all.iter().find(|(of, _)| *of == base) {
            return Ok(this.clone());
        }
        let this = Arc::pin_init(init, GFP_KERNEL)?;

        all.push((base, this.clone()), GFP_KERNEL)?;
        Ok(this)
    }

    /// Calls `f` for what belongs to each GPU.
    pub(crate) fn for_each(&self, f: impl Fn(&T)) {
        for (_, this) in &*self.by_base.lock() {
            f(this);
        }
    }
}
