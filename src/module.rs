// SPDX-License-Identifier: GPL-2.0

//! The module.

use crate::{
    function::device::Nvlink2Device,
    linux::vfio::{
        adapter::Adapter,
        driver::Driver, //
    },
};
use kernel::{
    driver::Registration,
    prelude::*, //
};

/// The module: it exists as long as its driver is registered.
#[pin_data]
pub(crate) struct Module {
    #[pin]
    _driver: Registration<Adapter<Nvlink2Device>>,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _driver <- Registration::new(Nvlink2Device::NAME, module),
        })
    }
}
