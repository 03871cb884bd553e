// SPDX-License-Identifier: GPL-2.0

//! Cached access of the kernel to a GPU's RAM.
//!
//! C headers: `include/linux/io.h` (`memremap`), `include/linux/uaccess.h`

use crate::{
    linux::{
        bindings,
        claim::Claim,
        vfio::region::UserRange, //
    },
    pure::{
        aperture::Aperture,
        range::RegionRange, //
    },
};
use core::ptr::NonNull;
use kernel::{
    ffi::c_void,
    prelude::*,
    sync::Arc, //
};

/// A mapping of all of a GPU's aperture. No reference or slice is made of it: the GPU changes its
/// RAM, and loads may end in machine checks.
///
/// It has to be dropped before the RAM may not be accessed any more: a processor may load by
/// speculation what is mapped cached.
///
/// # Invariants
///
/// All of `claim` is mapped at `address`.
pub(crate) struct Window {
    address: NonNull<c_void>,
    // Dropped after the mapping.
    claim: Arc<Claim<Aperture>>,
}

// SAFETY: The kernel's mappings are the same on all processors.
unsafe impl Send for Window {}
// SAFETY: Memory that the GPU changes anyway; what methods do with it C does, without references.
unsafe impl Sync for Window {}

impl Window {
    /// Maps all of the claim.
    pub(crate) fn new(claim: Arc<Claim<Aperture>>) -> Result<Self> {
        // SAFETY: The addresses are the driver's alone, and so not the system's memory, of which
        // `memremap` would return the kernel's own mapping.
        // CAST: The flag is a small constant.
        let address = unsafe {
            bindings::memremap(
                claim.base(),
                usize::try_from(claim.size())?,
                bindings::MEMREMAP_WB as usize,
            )
        };

        // INVARIANT: `memremap` mapped it, or returned NULL.
        Ok(Self {
            address: NonNull::new(address).ok_or(ENOMEM)?,
            claim,
        })
    }

    /// Returns where the first `len` bytes of a range are mapped, at most its own length.
    fn at(&self, range: RegionRange, len: usize) -> Result<*mut c_void> {
        if range.end() > self.claim.size() || u64::try_from(len)? > range.len() {
            return Err(EINVAL);
        }
        let start = usize::try_from(range.start())?;

        // By the type invariant as much is mapped, so this does not wrap.
        Ok(self.address.as_ptr().wrapping_byte_add(start))
    }

    /// Copies a range. EIO: the GPU does not answer.
    pub(crate) fn read(&self, range: RegionRange, to: &mut [u8]) -> Result {
        let from = self.at(range, to.len())?;
        // SAFETY: Both sides have as many bytes, and `to` is ours alone. The helper survives
        // machine checks and returns what it could not copy.
        let left =
            unsafe { bindings::nvlink2_copy_from_device(to.as_mut_ptr().cast(), from, to.len()) };

        if left == 0 {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Copies to a range. EIO: the GPU does not answer.
    pub(crate) fn write(&self, range: RegionRange, from: &[u8]) -> Result {
        let to = self.at(range, from.len())?;

        self.probe(range)?;
        // SAFETY: Both sides have as many bytes; what is written is the GPU's own memory.
        unsafe { bindings::nvlink2_copy_to_device(to, from.as_ptr().cast(), from.len()) };
        Ok(())
    }

    /// Copies a range to the user, if it is possible without a page fault or a machine check;
    /// returns whether it was.
    pub(crate) fn read_to(&self, range: RegionRange, to: UserRange) -> Result<bool> {
        let from = self.at(range, to.len())?;
        // SAFETY: As many bytes are mapped. Whether the user may have `to` the helper finds out; it
        // survives machine checks and returns what it could not copy.
        let left = unsafe { bindings::nvlink2_copy_device_to_user(to.as_ptr(), from, to.len()) };

        Ok(left == 0)
    }

    /// Copies to a range from the user, if it is possible without a page fault; returns whether it
    /// was. If not, some may have been copied. EIO: the GPU does not answer.
    pub(crate) fn write_from(&self, range: RegionRange, from: UserRange) -> Result<bool> {
        let to = self.at(range, from.len())?;

        self.probe(range)?;
        // SAFETY: As many bytes are mapped, of the GPU's own memory. Whether the user has `from`
        // the helper finds out; it returns what it could not copy.
        let left = unsafe { bindings::nvlink2_copy_user_to_device(to, from.as_ptr(), from.len()) };

        Ok(left == 0)
    }

    /// Finds out whether the GPU answers before something is stored: the kernel survives the
    /// machine check of a load, but not that of a store, which is asynchronous.
    fn probe(&self, range: RegionRange) -> Result {
        self.read(range, &mut [0])
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is mapped, and nothing refers to it any more.
        unsafe { bindings::nvlink2_unmap_device(self.address.as_ptr()) };
    }
}
