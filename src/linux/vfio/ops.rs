// SPDX-License-Identifier: GPL-2.0

//! A driver's VFIO device, and the operations by which VFIO and PCI call the driver.
//!
//! C headers: `include/linux/vfio.h` (`struct vfio_device_ops`), `include/linux/pci.h`
//! (`struct pci_error_handlers`)

use crate::{
    linux::{
        bindings,
        mm::vma::file_offset,
        vfio::{
            core::Core,
            driver::Driver,
            enabled::Enabled, //
        },
    },
    pure::range::region_index, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        from_result, //
    },
    ffi::{
        c_int,
        c_uint, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::as_char_ptr_in_const_context,
    sync::Arc,
    types::Opaque, //
};

// `_vfio_alloc_device` wants the `vfio_device` at the start.
kernel::static_assert!(offset_of!(bindings::vfio_pci_core_device, vdev) == 0);

/// The core device and the driver's data, in one allocation as VFIO wants it.
///
/// # Invariants
///
/// `core` is initialised. `data` is null or owns a reference of an `Arc<T>`; the latter from before
/// the device is registered until it is released.
#[repr(C)]
pub(super) struct Device<T: Driver> {
    core: Opaque<bindings::vfio_pci_core_device>,
    data: *const T,
}

impl<T: Driver> Device<T> {
    /// Allocates a device for `dev`.
    pub(super) fn new(dev: *mut bindings::device, data: Arc<T>) -> Result<NonNull<Self>> {
        // SAFETY: `dev` is being probed, so it is valid. The size is that of a structure that
        // starts with a `vfio_device`. The operations live as long as the module.
        let vdev = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(size_of::<Self>(), dev, &Self::OPS)
        })?;
        let this = NonNull::new(vdev.cast::<Self>()).ok_or(ENOMEM)?;

        // SAFETY: Nobody else knows the device yet.
        // INVARIANT: Owns the reference that is given up here.
        unsafe { (*this.as_ptr()).data = Arc::into_raw(data) };
        Ok(this)
    }

    /// # Safety
    ///
    /// `vdev` must be of a `Self` that [`Device::new`] returned and that is not released for `'a`.
    pub(super) unsafe fn parts<'a>(vdev: *mut bindings::vfio_device) -> (&'a Core, &'a T) {
        let this = vdev.cast::<Self>();

        // SAFETY: The `vfio_device` is at the start of `Self`, whose parts are there from `new` on.
        unsafe { (Core::from_raw(this.cast()), &*(*this).data) }
    }

    /// # Safety
    ///
    /// `pdev` must be bound to a driver whose driver data are a registered `Self`.
    pub(super) unsafe fn data_of_pci<'a>(pdev: *mut bindings::pci_dev) -> &'a T {
        // SAFETY: The driver data are a pointer to the core device, at whose start the
        // `vfio_device` is.
        unsafe { Self::parts(bindings::dev_get_drvdata(&raw const (*pdev).dev).cast()).1 }
    }

    /// # Safety
    ///
    /// `vdev` must be of a zeroed `Self`.
    unsafe extern "C" fn init(vdev: *mut bindings::vfio_device) -> c_int {
        // SAFETY: VFIO passes what it has just allocated.
        // INVARIANT: Zero bytes are a null pointer.
        unsafe { bindings::vfio_pci_core_init_dev(vdev) }
    }

    /// # Safety
    ///
    /// `vdev` must be of a `Self` that nobody uses any more.
    unsafe extern "C" fn release(vdev: *mut bindings::vfio_device) {
        // SAFETY: VFIO calls this last and once. The data may refer to the core device and so go
        // first; a non-null pointer owns a reference.
        unsafe {
            let data = (*vdev.cast::<Self>()).data;

            if !data.is_null() {
                drop(Arc::from_raw(data));
            }
            bindings::vfio_pci_core_release_dev(vdev);
        }
    }

    /// # Safety
    ///
    /// `vdev` must be of a registered `Self`; calls for its device set must be serialised.
    unsafe extern "C" fn open_device(vdev: *mut bindings::vfio_device) -> c_int {
        // SAFETY: VFIO calls its operations with registered devices of the driver that they are of.
        let (core, data) = unsafe { Self::parts(vdev) };

        from_result(|| {
            data.before_open(core)?;

            // Until after the device is disabled again, if it cannot be opened.
            let _reset = WithinReset::begin(data);
            // SAFETY: This is `open_device`.
            let enabled = unsafe { Enabled::new(core) }?;

            data.open(&enabled)?;
            enabled.finish();
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `vdev` must be of an open `Self`.
    unsafe extern "C" fn close_device(vdev: *mut bindings::vfio_device) {
        // SAFETY: VFIO calls its operations with registered devices of the driver that they are of.
        let (_, data) = unsafe { Self::parts(vdev) };
        // Dropped in this order, last comes first.
        let _closing = data.close();
        let _reset = WithinReset::begin(data);

        // SAFETY: `vdev` is at the start of an open core device.
        unsafe { bindings::vfio_pci_core_close_device(vdev) };
    }

    /// # Safety
    ///
    /// `vdev` must be of an open `Self`.
    unsafe extern "C" fn mmap_page_size(vdev: *mut bindings::vfio_device, pgoff: usize) -> usize {
        // SAFETY: VFIO calls its operations with registered devices of the driver that they are of.
        let (_, data) = unsafe { Self::parts(vdev) };

        data.largest_page(region_index(file_offset(pgoff)))
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(PAGE_SIZE)
    }

    /// # Safety
    ///
    /// `vdev` must be of a `Self` that is being unregistered.
    unsafe extern "C" fn request(vdev: *mut bindings::vfio_device, count: c_uint) {
        // SAFETY: The device and its data are there until it is released, which its driver waits
        // for.
        let (core, data) = unsafe { Self::parts(vdev) };

        if count == 0 {
            data.requested(core.device());
        }
        // SAFETY: `vdev` is at the start of a core device; the rest is passed on unchanged.
        unsafe { bindings::vfio_pci_core_request(vdev, count) }
    }

    /// # Safety
    ///
    /// `pdev` must be bound to this driver.
    unsafe extern "C" fn reset_prepare(pdev: *mut bindings::pci_dev) {
        // SAFETY: The device stays bound: the PCI core holds its lock, and EEH calls this while it
        // is open, whose end `remove` waits for.
        unsafe { Self::data_of_pci(pdev) }.reset_prepare();
    }

    /// # Safety
    ///
    /// `pdev` must be bound to this driver.
    unsafe extern "C" fn reset_done(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `reset_prepare`.
        unsafe { Self::data_of_pci(pdev) }.reset_done();
    }

    const OPS: bindings::vfio_device_ops = bindings::vfio_device_ops {
        name: as_char_ptr_in_const_context(T::NAME).cast_mut(),
        init: Some(Self::init),
        release: Some(Self::release),
        open_device: Some(Self::open_device),
        close_device: Some(Self::close_device),
        ioctl: Some(bindings::vfio_pci_core_ioctl),
        get_region_info_caps: Some(bindings::vfio_pci_ioctl_get_region_info),
        device_feature: Some(bindings::vfio_pci_core_ioctl_feature),
        read: Some(bindings::vfio_pci_core_read),
        write: Some(bindings::vfio_pci_core_write),
        mmap: Some(bindings::vfio_pci_core_mmap),
        mmap_page_size: Some(Self::mmap_page_size),
        request: Some(Self::request),
        match_: Some(bindings::vfio_pci_core_match),
        match_token_uuid: Some(bindings::vfio_pci_core_match_token_uuid),
        // VFIO registers no device without these where iommufd is built. It has no page tables of
        // TCEs, so that nobody can attach.
        #[cfg(CONFIG_IOMMUFD)]
        bind_iommufd: Some(bindings::vfio_iommufd_physical_bind),
        #[cfg(CONFIG_IOMMUFD)]
        unbind_iommufd: Some(bindings::vfio_iommufd_physical_unbind),
        #[cfg(CONFIG_IOMMUFD)]
        attach_ioas: Some(bindings::vfio_iommufd_physical_attach_ioas),
        #[cfg(CONFIG_IOMMUFD)]
        detach_ioas: Some(bindings::vfio_iommufd_physical_detach_ioas),
        ..pin_init::zeroed()
    };

    const ERROR_HANDLERS: bindings::pci_error_handlers = bindings::pci_error_handlers {
        error_detected: Some(bindings::vfio_pci_core_aer_err_detected),
        reset_prepare: Some(Self::reset_prepare),
        reset_done: Some(Self::reset_done),
        ..pin_init::zeroed()
    };

    /// Returns the table of calls for PCI's error recovery and resets.
    pub(super) const fn error_handlers() -> &'static bindings::pci_error_handlers {
        &Self::ERROR_HANDLERS
    }
}

/// A time in which VFIO may reset a device that it enables or disables.
///
/// It does the latter by `__pci_reset_function_locked`, of which no driver is told, and others may
/// have in use what is behind the device.
struct WithinReset<'a, T: Driver>(&'a T);

impl<'a, T: Driver> WithinReset<'a, T> {
    fn begin(data: &'a T) -> Self {
        data.reset_prepare();
        Self(data)
    }
}

impl<T: Driver> Drop for WithinReset<'_, T> {
    fn drop(&mut self) {
        self.0.reset_done();
    }
}
