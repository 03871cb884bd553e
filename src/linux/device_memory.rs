// SPDX-License-Identifier: GPL-2.0

//! Cached access of the kernel to memory that is not system RAM.
//!
//! C header: `include/linux/io.h` (`memremap`)

use super::bindings;
use core::ptr::NonNull;
use kernel::{
    ffi::c_void,
    prelude::*, //
};

/// A short-lived mapping of device memory. It must not be turned into a slice: the device changes
/// it, and loads may end in machine checks.
///
/// # Invariants
///
/// `len` bytes are mapped at `address`.
pub(crate) struct Window {
    address: NonNull<c_void>,
    len: usize,
}

impl Window {
    /// Maps `len` bytes at `physical`.
    pub(crate) fn new(physical: u64, len: usize) -> Result<Self> {
        // SAFETY: Mapping harms nobody, whatever is there; `memremap` refuses system RAM that it
        // cannot map like this.
        // CAST: The flag is a small constant.
        let address = unsafe { bindings::memremap(physical, len, bindings::MEMREMAP_WB as usize) };

        // INVARIANT: `memremap` mapped them, or returned NULL.
        Ok(Self {
            address: NonNull::new(address).ok_or(ENOMEM)?,
            len,
        })
    }

    /// Copies from the start of the window. EIO: the device did not answer.
    pub(crate) fn read(&self, to: &mut [u8]) -> Result {
        if to.len() > self.len {
            return Err(EINVAL);
        }
        // SAFETY: Both sides have as many bytes, and `to` is ours alone. The helper survives
        // machine checks and returns what it could not copy.
        let left = unsafe {
            bindings::nvlink2_copy_from_device(
                to.as_mut_ptr().cast(),
                self.address.as_ptr(),
                to.len(),
            )
        };

        if left == 0 {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Copies to the start of the window.
    pub(crate) fn write(&self, from: &[u8]) -> Result {
        if from.len() > self.len {
            return Err(EINVAL);
        }
        // SAFETY: Both sides have as many bytes; what is written is the device's own memory.
        unsafe {
            bindings::nvlink2_copy_to_device(
                self.address.as_ptr(),
                from.as_ptr().cast(),
                from.len(),
            )
        };
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is mapped, and nothing refers to it any more.
        unsafe { bindings::memunmap(self.address.as_ptr()) };
    }
}
