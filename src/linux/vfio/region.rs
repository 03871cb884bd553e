// SPDX-License-Identifier: GPL-2.0

//! Regions that a driver adds to a VFIO PCI device.
//!
//! C header: `include/linux/vfio_pci_core.h` (`struct vfio_pci_regops`)

use crate::{
    linux::{
        bindings,
        vfio::core::{
            Core,
            FIRST_REGION, //
        },
    },
    pure::range::{
        region_index,
        RegionOffset, //
        MAX_REGION_SIZE,
    },
};
use core::marker::PhantomData;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
    mm::virt::VmaNew,
    pci::Vendor,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    },
};

/// Flags of a region that can be read, written and mapped, and has capabilities.
pub(super) const FLAGS_ALL: u32 = bindings::VFIO_REGION_INFO_FLAG_READ
    | bindings::VFIO_REGION_INFO_FLAG_WRITE
    | bindings::VFIO_REGION_INFO_FLAG_MMAP
    | bindings::VFIO_REGION_INFO_FLAG_CAPS;

// Pure code knows this number of VFIO's interface, and does not see the headers.
kernel::static_assert!(MAX_REGION_SIZE == 1 << bindings::VFIO_PCI_OFFSET_SHIFT);

/// Subtype of NVIDIA's region of a GPU's RAM.
pub(crate) const SUBTYPE_GPU_RAM: u32 = bindings::VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM;

/// Subtype of IBM's region of ATSD registers.
pub(crate) const SUBTYPE_ATSD: u32 = bindings::VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD;

/// Returns the region type of a PCI vendor (`VFIO_REGION_TYPE_PCI_VENDOR_TYPE`).
pub(crate) const fn vendor_type(vendor: Vendor) -> u32 {
    // CAST: Widens.
    bindings::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | vendor.as_raw() as u32
}

/// An NVLink2 capability of a region.
pub(crate) enum Capability {
    /// The address by which the NPU knows the GPU (`ibm,device-tgt-addr`). It pairs a GPU with its
    /// bridges.
    TargetAddress(u64),
    /// The link's speed code (`ibm,nvlink-speed`; 9 is 25 Gb/s per lane).
    LinkSpeed(u32),
}

impl Capability {
    /// # Safety
    ///
    /// `caps` must be a chain under construction.
    unsafe fn add_to(self, caps: *mut bindings::vfio_info_cap) -> Result {
        // CAST: A small constant.
        let header = |id: u32| bindings::vfio_info_cap_header {
            id: id as u16,
            version: 1,
            next: 0,
        };

        match self {
            Self::TargetAddress(tgt) => {
                let capability = bindings::vfio_region_info_cap_nvlink2_ssatgt {
                    header: header(bindings::VFIO_REGION_INFO_CAP_NVLINK2_SSATGT),
                    tgt,
                };

                // SAFETY: By this function's contract.
                unsafe { add_capability(caps, capability) }
            }
            Self::LinkSpeed(link_speed) => {
                let capability = bindings::vfio_region_info_cap_nvlink2_lnkspd {
                    header: header(bindings::VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD),
                    link_speed,
                    __pad: 0,
                };

                // SAFETY: By this function's contract.
                unsafe { add_capability(caps, capability) }
            }
        }
    }
}

/// # Safety
///
/// `caps` must be a chain under construction, and `capability` begin with a header.
unsafe fn add_capability<T>(caps: *mut bindings::vfio_info_cap, mut capability: T) -> Result {
    // SAFETY: By this function's contract; the core copies as many bytes as there are.
    to_result(unsafe {
        bindings::vfio_info_add_capability(caps, (&raw mut capability).cast(), size_of::<T>())
    })
}

/// Memory of the calling process that a region is read to or written from.
#[derive(Clone, Copy)]
pub(crate) struct UserRange {
    start: UserPtr,
    len: usize,
}

impl UserRange {
    /// Returns the length in bytes.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Returns at most `len` bytes behind the first `skip`; none, if there are no more than these.
    pub(crate) fn part(self, skip: usize, len: usize) -> Self {
        let skip = skip.min(self.len);

        Self {
            start: self.start.wrapping_byte_add(skip),
            // Does not saturate.
            len: self.len.saturating_sub(skip).min(len),
        }
    }

    /// Returns what reads it.
    pub(crate) fn reader(self) -> UserSliceReader {
        UserSlice::new(self.start, self.len).reader()
    }

    /// Returns what writes to it.
    pub(crate) fn writer(self) -> UserSliceWriter {
        UserSlice::new(self.start, self.len).writer()
    }

    /// Returns the user's address.
    pub(in crate::linux) fn as_ptr(self) -> *mut c_void {
        self.start.as_mut_ptr()
    }
}

/// A region of a VFIO PCI device.
pub(crate) trait Region: Send + Sync + Sized + 'static {
    /// Content of the region's type capability.
    const TYPE: u32;
    /// See [`Region::TYPE`].
    const SUBTYPE: u32;

    /// Returns the region's size in bytes.
    fn size(&self) -> u64;

    /// Returns the region's capabilities behind its type, in order.
    fn capabilities(&self) -> impl Iterator<Item = Capability>;

    /// Reads from `offset` what fits into `to`; returns the number of bytes, at least 1.
    fn read(&self, core: &Core, offset: RegionOffset, to: UserRange) -> Result<usize>;

    /// Writes what `from` has to `offset`; returns the number of bytes, at least 1.
    fn write(&self, core: &Core, offset: RegionOffset, from: UserRange) -> Result<usize>;

    /// Sets up a shared mapping of the region.
    fn mmap(self: ArcBorrow<'_, Self>, core: &Core, vma: &VmaNew) -> Result;
}

/// The operations of an `R` as VFIO calls them.
///
/// `data` of a region with these operations is a reference to an `Arc<R>`, put there by
/// `Enabled::register` and taken back by `release`.
pub(in crate::linux) struct RegionVTable<R: Region>(PhantomData<R>);

impl<R: Region> RegionVTable<R> {
    /// # Safety
    ///
    /// `core` must be open, and have a region with these operations at the file offset `*ppos`.
    unsafe extern "C" fn rw(
        core: *mut bindings::vfio_pci_core_device,
        buf: *mut c_char,
        count: usize,
        ppos: *mut bindings::loff_t,
        is_write: bool,
    ) -> isize {
        // SAFETY: VFIO passes an open device and the position of this call.
        let (core, position) = unsafe { (Core::from_raw(core), &mut *ppos) };
        let mut transfer = || {
            let file_offset = u64::try_from(*position)?;
            let index = region_index(file_offset)
                .checked_sub(FIRST_REGION.into())
                .ok_or(EINVAL)?;
            let index = usize::try_from(index)?;
            // SAFETY: VFIO found these operations in the region at this offset before it called
            // them, and regions neither move nor go while the device is open. See the type for
            // what `data` is.
            let region = unsafe {
                let region = (*core.as_raw()).region.add(index);

                &*(*region).data.cast::<R>()
            };
            let offset = RegionOffset::new(file_offset);
            let user = UserRange {
                start: UserPtr::from_ptr(buf.cast()),
                len: count,
            };
            let done = if is_write {
                region.write(core, offset, user)
            } else {
                region.read(core, offset, user)
            }?;

            *position = position
                .checked_add(i64::try_from(done)?)
                .ok_or(EOVERFLOW)?;
            Ok::<_, Error>(isize::try_from(done)?)
        };

        match transfer() {
            Ok(done) => done,
            // CAST: An errno fits into every integer type.
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `region` must have these operations and not be used any more.
    unsafe extern "C" fn release(
        _core: *mut bindings::vfio_pci_core_device,
        region: *mut bindings::vfio_pci_region,
    ) {
        // SAFETY: The reference that `Enabled::register` put there; VFIO calls this once.
        drop(unsafe { Arc::from_raw((*region).data.cast::<R>()) });
    }

    /// # Safety
    ///
    /// `region` of the open device `core` must have these operations; `vma` must be new.
    unsafe extern "C" fn mmap(
        core: *mut bindings::vfio_pci_core_device,
        region: *mut bindings::vfio_pci_region,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: VFIO calls this from the `mmap` file operation of an open device. `data` is a
        // reference to an `Arc`, which the region owns until the device is closed.
        let (core, region, vma) = unsafe {
            (
                Core::from_raw(core),
                ArcBorrow::from_raw((*region).data.cast::<R>().cast_const()),
                VmaNew::from_raw(vma),
            )
        };

        from_result(|| region.mmap(core, vma).map(|()| 0))
    }

    /// # Safety
    ///
    /// `region` must have these operations, `caps` must be a chain under construction.
    unsafe extern "C" fn add_capability(
        _core: *mut bindings::vfio_pci_core_device,
        region: *mut bindings::vfio_pci_region,
        caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: See the type for what `data` is.
        let region = unsafe { &*(*region).data.cast::<R>() };

        from_result(|| {
            for capability in region.capabilities() {
                // SAFETY: By this function's contract.
                unsafe { capability.add_to(caps) }?;
            }
            Ok(0)
        })
    }

    const VTABLE: bindings::vfio_pci_regops = bindings::vfio_pci_regops {
        rw: Some(Self::rw),
        release: Some(Self::release),
        mmap: Some(Self::mmap),
        add_capability: Some(Self::add_capability),
    };

    /// Returns the table of calls for regions of this type.
    pub(in crate::linux) const fn build() -> &'static bindings::vfio_pci_regops {
        &Self::VTABLE
    }
}
