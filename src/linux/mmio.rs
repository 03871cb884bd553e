// SPDX-License-Identifier: GPL-2.0

//! Registers of 64 bits outside of any PCI BAR.
//!
//! C header: `include/linux/io.h` (`ioremap`)

use super::bindings;
use core::ptr::NonNull;
use kernel::{
    ffi::c_void,
    prelude::*, //
};

/// A mapped block of registers.
///
/// # Invariants
///
/// `len` bytes are mapped, uncached, at `address`, which is page-aligned.
pub(crate) struct Registers {
    address: NonNull<c_void>,
    len: u64,
}

// SAFETY: A mapping belongs to the kernel, not to a thread.
unsafe impl Send for Registers {}
// SAFETY: Accesses are single loads and stores; the hardware orders them.
unsafe impl Sync for Registers {}

impl Registers {
    /// Maps `len` bytes of registers at `physical`, which must be page-aligned.
    pub(crate) fn new(physical: u64, len: u64) -> Result<Self> {
        if physical % (1 << bindings::PAGE_SHIFT) != 0 {
            return Err(EINVAL);
        }
        // SAFETY: Mapping alone accesses nothing.
        let address = unsafe { bindings::ioremap(physical, usize::try_from(len)?) };

        // INVARIANT: `ioremap` mapped them, or returned NULL.
        Ok(Self {
            address: NonNull::new(address).ok_or(ENOMEM)?,
            len,
        })
    }

    /// Returns the address of the register at `offset`.
    fn register(&self, offset: u64) -> Result<*mut c_void> {
        let end = offset.checked_add(8).ok_or(EINVAL)?;

        if offset % 8 != 0 || end > self.len {
            return Err(EINVAL);
        }
        Ok(self
            .address
            .as_ptr()
            .wrapping_byte_add(usize::try_from(offset)?))
    }

    /// Reads a register as it is in memory, whatever its byte order.
    pub(crate) fn read(&self, offset: u64) -> Result<[u8; 8]> {
        let register = self.register(offset)?;

        // SAFETY: `register` checked that it is a register of the block, which is mapped.
        Ok(unsafe { bindings::nvlink2_raw_readq(register) }.to_ne_bytes())
    }

    /// Writes a register as it is in memory, whatever its byte order.
    pub(crate) fn write(&self, offset: u64, value: [u8; 8]) -> Result {
        let register = self.register(offset)?;

        // SAFETY: `register` checked that it is a register of the block, which is mapped.
        unsafe { bindings::nvlink2_raw_writeq(u64::from_ne_bytes(value), register) };
        Ok(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is mapped, and nothing refers to it any more.
        unsafe { bindings::iounmap(self.address.as_ptr()) };
    }
}
