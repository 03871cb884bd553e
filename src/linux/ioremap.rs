// SPDX-License-Identifier: GPL-2.0

//! Registers of 64 bits outside of any PCI BAR.
//!
//! C header: `include/linux/io.h` (`ioremap`)

use crate::{
    linux::{
        bindings,
        claim::Claim, //
    },
    pure::atsd_registers::Atsd, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    io::{
        Io,
        Mmio,
        MmioRaw,
        Region, //
    },
    prelude::*,
    sync::Arc, //
};

/// A mapped block of registers.
///
/// # Invariants
///
/// `mapped` is what `ioremap` mapped of `claim`, uncached.
pub(crate) struct Registers {
    mapped: MmioRaw<Region>,
    // Dropped after the mapping.
    claim: Arc<Claim<Atsd>>,
}

impl Registers {
    /// Maps the registers, which start with a page, as apertures and ATSD blocks do.
    pub(crate) fn new(claim: Arc<Claim<Atsd>>) -> Result<Self> {
        let len = usize::try_from(claim.size())?;
        // SAFETY: Registers that are the driver's alone. Mapping accesses nothing.
        let address =
            NonNull::new(unsafe { bindings::ioremap(claim.base(), len) }).ok_or(ENOMEM)?;
        let raw =
            MmioRaw::new_region(address.as_ptr().expose_provenance(), len).inspect_err(|_| {
                // SAFETY: Just mapped, and unknown to anybody.
                unsafe { bindings::iounmap(address.as_ptr()) }
            })?;

        // INVARIANT: `ioremap` mapped it.
        Ok(Self { mapped: raw, claim })
    }

    /// Returns where they are.
    pub(crate) fn claim(&self) -> &Arc<Claim<Atsd>> {
        &self.claim
    }

    fn io(&self) -> Mmio<'_, Region> {
        // SAFETY: By the type invariant it is mapped as long as `self` exists, from a page's start.
        unsafe { Mmio::from_raw(self.mapped) }
    }

    /// Reads the register at `offset` as it is in memory, whatever its byte order. EINVAL: there
    /// is none.
    pub(crate) fn read(&self, offset: u64) -> Result<[u8; 8]> {
        let value = self.io().try_read64(usize::try_from(offset)?)?;

        Ok(value.to_le_bytes())
    }

    /// Writes the register at `offset` as it is in memory, whatever its byte order. EINVAL: there
    /// is none.
    pub(crate) fn write(&self, offset: u64, value: [u8; 8]) -> Result {
        let value = u64::from_le_bytes(value);

        self.io().try_write64(value, usize::try_from(offset)?)
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        let address = ptr::with_exposed_provenance_mut(self.mapped.addr());

        // SAFETY: By the type invariant it is mapped, and nothing refers to it any more.
        unsafe { bindings::iounmap(address) };
    }
}
