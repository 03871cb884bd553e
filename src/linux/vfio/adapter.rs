// SPDX-License-Identifier: GPL-2.0

//! Registering a VFIO PCI driver with the PCI core.
//!
//! C header: `include/linux/pci.h` (`struct pci_driver`)

use crate::linux::{
    bindings,
    pci::Function,
    vfio::{
        driver::Driver,
        ops::Device, //
    },
};
use core::{
    ffi::CStr,
    marker::PhantomData,
    mem::offset_of,
    ptr, //
};
use kernel::{
    container_of,
    driver,
    error::{
        from_result,
        to_result, //
    },
    ffi::c_int,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// A `struct pci_driver` and what its functions share.
#[repr(C)]
pub(crate) struct PciDriver<S> {
    driver: bindings::pci_driver,
    shared: Option<S>,
}

impl<S> Default for PciDriver<S> {
    fn default() -> Self {
        Self {
            driver: bindings::pci_driver::default(),
            shared: None,
        }
    }
}

/// Registers `T` with the PCI core.
pub(crate) struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY: `PciDriver` is `repr(C)` and embeds a `struct device_driver` at this offset. The driver
// data are never owned by the driver core: they are the VFIO core device, and NULL when the driver
// core looks for data to free.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = PciDriver<T::Shared>;
    type DriverData<'bound> = ();
    const DEVICE_DRIVER_OFFSET: usize =
        offset_of!(PciDriver<T::Shared>, driver) + offset_of!(bindings::pci_driver, driver);
}

// SAFETY: `unregister` undoes what a successful `register` did.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let this = reg.get();
        let shared = T::shared()?;

        // SAFETY: `reg` is initialised and not registered, so it is ours to write.
        unsafe {
            (*this).shared = Some(shared);

            let driver = &mut (*this).driver;

            driver.name = name.as_char_ptr();
            driver.id_table = T::IDS.as_ptr();
            driver.probe = Some(Self::probe);
            driver.remove = Some(Self::remove);
            driver.shutdown = Some(Self::shutdown);
            driver.err_handler = Device::<T>::error_handlers();
            driver.driver_managed_dma = true;
        }
        // SAFETY: `reg` stays where it is until `unregister`, by this function's contract.
        let result = to_result(unsafe {
            bindings::__pci_register_driver(
                &raw mut (*this).driver,
                module.as_ptr(),
                name.as_char_ptr(),
            )
        });

        if result.is_err() {
            // SAFETY: Not registered; nobody else knows the driver. `Opaque` drops nothing.
            unsafe { (*this).shared = None };
        }
        result
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: Registered, by this function's contract. Afterwards no function is bound and
        // nobody else uses the shared state, which `Opaque` would not drop.
        unsafe {
            bindings::pci_unregister_driver(&raw mut (*reg.get()).driver);
            (*reg.get()).shared = None;
        }
    }
}

impl<T: Driver> Adapter<T> {
    /// # Safety
    ///
    /// `pdev` must be a device that is being bound to this driver.
    unsafe extern "C" fn probe(
        pdev: *mut bindings::pci_dev,
        _id: *const bindings::pci_device_id,
    ) -> c_int {
        // SAFETY: The PCI core sets `driver` before it calls probe, to the one of the `PciDriver`
        // that it was registered with, and keeps both while it does.
        let (function, shared) = unsafe {
            let driver = container_of!((*pdev).driver, PciDriver<T::Shared>, driver);

            (&*pdev.cast::<Function>(), &(*driver).shared)
        };

        from_result(|| {
            let data = T::probe(function, shared.as_ref().ok_or(EINVAL)?)?;

            Self::register_device(pdev, data).map(|()| 0)
        })
    }

    /// Makes a VFIO device of a function.
    fn register_device(pdev: *mut bindings::pci_dev, data: Arc<T>) -> Result {
        // SAFETY: The function is being probed.
        let dev = unsafe { &raw mut (*pdev).dev };
        let core = Device::new(dev, data)?
            .as_ptr()
            .cast::<bindings::vfio_pci_core_device>();

        // SAFETY: The core wants itself as driver data before it is registered.
        let result = to_result(unsafe {
            bindings::dev_set_drvdata(dev, core.cast());
            bindings::vfio_pci_core_register_device(core)
        });

        if result.is_err() {
            // SAFETY: Undoes the above; the driver core must not take the pointer for its own.
            unsafe { Self::put(dev, core) };
        }
        result
    }

    /// # Safety
    ///
    /// `pdev` must be a device that is being unbound from this driver.
    unsafe extern "C" fn remove(pdev: *mut bindings::pci_dev) {
        // SAFETY: The driver data are what `register_device` set.
        let (dev, core) = unsafe {
            let dev = &raw mut (*pdev).dev;

            (
                dev,
                bindings::dev_get_drvdata(dev).cast::<bindings::vfio_pci_core_device>(),
            )
        };

        // SAFETY: Registered in probe. Returns when no user has it open any more. The data are
        // still there: the device is released in `put` at the earliest.
        unsafe {
            bindings::vfio_pci_core_unregister_device(core);

            let (this, data) = Device::<T>::parts(core.cast());

            data.remove(this.device());
            Self::put(dev, core);
        }
    }

    /// # Safety
    ///
    /// `pdev` must be a device that is bound to this driver, and stays so meanwhile.
    unsafe extern "C" fn shutdown(pdev: *mut bindings::pci_dev) {
        // SAFETY: The driver data are what `register_device` set. The device is locked, so that
        // nobody unbinds it.
        unsafe { Device::<T>::data_of_pci(pdev) }.shutdown();
    }

    /// # Safety
    ///
    /// `core` must be the unregistered core device of `dev`, and is not to be used afterwards.
    unsafe fn put(dev: *mut bindings::device, core: *mut bindings::vfio_pci_core_device) {
        // SAFETY: The caller gives up the core device and with it the reference that allocating it
        // took; `dev` is bound or being bound, so its driver data may be written.
        unsafe {
            bindings::dev_set_drvdata(dev, ptr::null_mut());
            bindings::put_device(&raw mut (*core).vdev.device);
        }
    }
}
