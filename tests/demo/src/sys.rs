// SPDX-License-Identifier: GPL-2.0

//! The system calls that need `unsafe`: ioctl and shared device mappings, behind safe functions.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use vfio_bindings::bindings::vfio::{
    vfio_device_info, vfio_group_status, vfio_iommu_spapr_tce_create, vfio_iommu_spapr_tce_info,
    vfio_iommu_spapr_tce_remove, VFIO_BASE, VFIO_TYPE,
};

/// VFIO's requests carry neither size nor direction.
const fn vfio(number: u32) -> libc::Ioctl {
    libc::_IO(VFIO_TYPE as u32, VFIO_BASE + number)
}

const KVMIO: u32 = 0xae;

/// An ioctl that takes a number, or nothing, by value.
#[derive(Clone, Copy)]
pub struct ByValue(libc::Ioctl);

/// VFIO_GET_API_VERSION, of a container.
pub const VFIO_GET_API_VERSION: ByValue = ByValue(vfio(0));
/// VFIO_SET_IOMMU: the type of IOMMU, of a container.
pub const VFIO_SET_IOMMU: ByValue = ByValue(vfio(2));
/// KVM_CREATE_VM: the type of VM.
pub const KVM_CREATE_VM: ByValue = ByValue(libc::_IO(KVMIO, 0x01));

/// A structure that is the argument of one ioctl.
///
/// # Safety
///
/// `REQUEST` is an ioctl number for which the kernel
/// - reads and writes no more than `size_of::<Self>()` bytes at its argument (where the structure says
///   its own size in `argsz`, that is checked by `ioctl`'s callers setting it to that size or less);
/// - leaves nothing in it that is not a value of the type;
/// - writes to no other memory of the process.
pub unsafe trait Argument {
    /// The number of the ioctl.
    const REQUEST: libc::Ioctl;
}

/// The container that a group goes to, for VFIO_GROUP_SET_CONTAINER.
#[repr(transparent)]
pub struct SetContainer(pub i32);

/// The PCI address of the device to open, for VFIO_GROUP_GET_DEVICE_FD.
///
/// # Invariants
///
/// Ends with a zero byte.
#[repr(transparent)]
pub struct GetDeviceFd([u8; 32]);

impl GetDeviceFd {
    /// `None` if `bdf` is too long.
    pub fn new(bdf: &str) -> Option<Self> {
        let mut name = [0; 32];
        name.get_mut(..bdf.len())
            .filter(|part| part.len() < 32)?
            .copy_from_slice(bdf.as_bytes());
        // INVARIANT: at most 31 bytes were copied over zeros.
        Some(Self(name))
    }
}

/// struct kvm_create_device
#[repr(C)]
#[derive(Default)]
pub struct KvmCreateDevice {
    /// Type of device.
    pub kind: u32,
    /// Out: its descriptor.
    pub fd: i32,
    /// Zero.
    pub flags: u32,
}

/// struct kvm_device_attr
#[repr(C)]
pub struct KvmDeviceAttr {
    /// Zero.
    pub flags: u32,
    /// Group of attributes.
    pub group: u32,
    /// Attribute in the group.
    pub attr: u64,
    /// Address of its value.
    pub addr: u64,
}

/// struct kvm_create_spapr_tce_64
#[repr(C)]
pub struct KvmCreateSpaprTce {
    /// The guest's number for the window.
    pub liobn: u64,
    /// Page size, as a shift.
    pub page_shift: u32,
    /// Zero.
    pub flags: u32,
    /// Start, in pages.
    pub offset: u64,
    /// Size, in pages.
    pub size: u64,
}

// SAFETY: the kernel copies struct vfio_group_status in and out, integers all of it.
unsafe impl Argument for vfio_group_status {
    const REQUEST: libc::Ioctl = vfio(3);
}
// SAFETY: the kernel reads an int.
unsafe impl Argument for SetContainer {
    const REQUEST: libc::Ioctl = vfio(4);
}
// SAFETY: the kernel reads a string, which by the invariant ends inside the array.
unsafe impl Argument for GetDeviceFd {
    const REQUEST: libc::Ioctl = vfio(6);
}
// SAFETY: the kernel copies struct vfio_device_info in and at most argsz bytes out, integers all of it.
unsafe impl Argument for vfio_device_info {
    const REQUEST: libc::Ioctl = vfio(7);
}
// SAFETY: as for vfio_device_info.
unsafe impl Argument for vfio_iommu_spapr_tce_info {
    const REQUEST: libc::Ioctl = vfio(12);
}
// SAFETY: as for vfio_device_info.
unsafe impl Argument for vfio_iommu_spapr_tce_create {
    const REQUEST: libc::Ioctl = vfio(19);
}
// SAFETY: the kernel reads the structure.
unsafe impl Argument for vfio_iommu_spapr_tce_remove {
    const REQUEST: libc::Ioctl = vfio(20);
}
// SAFETY: the kernel copies the structure in and out; the request's number carries its size.
unsafe impl Argument for KvmCreateDevice {
    const REQUEST: libc::Ioctl = libc::_IOWR::<Self>(KVMIO, 0xe0);
}
// SAFETY: the kernel reads the structure, and from `addr`, which it checks; SET writes nothing.
unsafe impl Argument for KvmDeviceAttr {
    const REQUEST: libc::Ioctl = libc::_IOW::<Self>(KVMIO, 0xe1);
}
// SAFETY: the kernel reads the structure.
unsafe impl Argument for KvmCreateSpaprTce {
    const REQUEST: libc::Ioctl = libc::_IOW::<Self>(KVMIO, 0xa8);
}

fn result(ret: i32) -> io::Result<i32> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret)
}

/// Returns what the kernel returned, which is not negative.
pub fn ioctl_value(file: &File, request: ByValue, value: u32) -> io::Result<i32> {
    // SAFETY: the requests there are of this type take a number, not an address.
    result(unsafe { libc::ioctl(file.as_raw_fd(), request.0, value as libc::c_ulong) })
}

/// Returns what the kernel returned, which is not negative.
pub fn ioctl<T: Argument>(file: &File, argument: &mut T) -> io::Result<i32> {
    // SAFETY: `argument` is valid for reads and writes; by `Argument` the kernel keeps to it.
    result(unsafe { libc::ioctl(file.as_raw_fd(), T::REQUEST, std::ptr::from_mut(argument)) })
}

/// VFIO_DEVICE_GET_REGION_INFO into `words`, in bytes as large as the first 32 bits (argsz) are set to.
pub fn region_info(device: &File, words: &mut [u64]) -> io::Result<()> {
    let argsz = u32::try_from(size_of_val(words)).map_err(|_| io::ErrorKind::InvalidInput)?;
    let first = words.first_mut().ok_or(io::ErrorKind::InvalidInput)?;
    *first = *first >> 32 << 32 | u64::from(argsz);
    // SAFETY: `words` is valid for reads and writes of `argsz` bytes, which is all that the kernel
    // touches, and any result is an array of u64.
    result(unsafe { libc::ioctl(device.as_raw_fd(), vfio(8), words.as_mut_ptr()) })?;
    Ok(())
}

/// Takes over a descriptor that an ioctl returned.
pub fn adopt(fd: i32) -> File {
    // SAFETY: callers pass what an ioctl that creates a descriptor has just returned; nobody else
    // owns it.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A shared mapping of device memory, accessed in naturally aligned units of 8 bytes.
///
/// # Invariants
///
/// `base` is the start of a mapping of `len` bytes that this value owns.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of `file` at `offset`, readable and writable.
    pub fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: without MAP_FIXED a new mapping replaces nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // INVARIANT: mmap() made it, with this length, and only this value knows it.
        Ok(Self { base, len })
    }

    fn cell(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.len && self.len - offset >= 8);
        // SAFETY:
        // - by the invariant and the check, 8 aligned bytes are mapped there while `self` lives;
        // - others (the device) change them, which an atomic allows; a relaxed 64-bit atomic access
        //   is one load or store instruction, as device registers want it.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Loads the 8 bytes at `offset` as they lie in memory.
    pub fn read(&self, offset: usize) -> u64 {
        self.cell(offset).load(Ordering::Relaxed)
    }

    /// Stores 8 bytes at `offset`.
    pub fn write(&self, offset: usize, value: u64) {
        self.cell(offset).store(value, Ordering::Relaxed);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the invariant the mapping is ours; nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
