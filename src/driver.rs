// SPDX-License-Identifier: GPL-2.0

//! The module, its ids, and what its functions share.

use crate::{
    function::Function,
    gate::Gate,
    linux::{
        driver::{
            Adapter,
            Driver, //
        },
        pci::OverrideId,
    },
    lpar::Lpar,
    per_gpu::PerGpu,
};
use kernel::{
    debugfs::Dir,
    driver::Registration,
    module_device_table,
    pci::Vendor,
    prelude::*,
    sync::Arc, //
};

// The device tree tells which functions are on NVLink2, not the device id.
module_device_table!(
    "pci",
    OverrideId,
    IDS,
    @none,
    [
        OverrideId::vendor(Vendor::NVIDIA),
        OverrideId::vendor(Vendor::IBM),
    ]
);

/// What all functions of the driver share.
pub(crate) struct Shared {
    /// The driver's folder.
    pub(crate) debugfs: Dir,
    /// Of the GPUs' RAM.
    pub(crate) gates: Arc<PerGpu<Gate>>,
    /// Of the GPUs, too: which virtual machine each is bound to.
    pub(crate) lpars: Arc<PerGpu<Lpar>>,
}

impl Shared {
    /// Makes it for a driver that has no function yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            debugfs: Dir::new(Function::NAME),
            gates: Arc::pin_init(PerGpu::new(), GFP_KERNEL)?,
            lpars: Arc::pin_init(PerGpu::new(), GFP_KERNEL)?,
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.lpars.for_each(Lpar::abandon);
    }
}

/// What `vfio_pci:` aliases are made of: NVIDIA GPUs and NPU bridges, for a driver_override only.
pub(crate) const ID_TABLE: &dyn kernel::device_id::IdTable<OverrideId, ()> = &IDS;

/// The module: it exists as long as its driver is registered.
#[pin_data]
pub(crate) struct Module {
    #[pin]
    _driver: Registration<Adapter<Function>>,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _driver <- Registration::new(Function::NAME, module),
        })
    }
}
