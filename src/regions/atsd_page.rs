// SPDX-License-Identifier: GPL-2.0

//! The region of a bridge's address translation shootdown (ATSD) registers.
//!
//! One register block per link, of which a bridge exposes its own, or that of another link of its
//! GPU if firmware does not tell of one. It exists only for a device that was opened on behalf of a
//! virtual machine and has a share of the binding of the GPU to that machine's LPAR
//! ([`crate::binding::gpu_binding`]): the shootdowns of an unbound link would not be the user's
//! own.

use crate::{
    linux::{
        claim::{
            Claim,
            Physical, //
        },
        ioremap::Registers,
        mm::vma::{
            attach,
            Caching,
            Fault,
            Mapping,
            Outcome,
            VmaOperations,
            VmaSpan, //
        },
        trace,
        vfio::{
            core::Core,
            region::{
                vendor_type,
                Capability,
                Region,
                UserRange, //
                SUBTYPE_ATSD,
            },
        },
    },
    pure::{
        atsd_registers::{
            registers,
            Atsd, //
            ATSD_ACCESS,
            ATSD_SIZE,
        },
        range::RegionOffset,
        topology::Bridge, //
    },
    regions::gate::{
        Gate,
        Refused,
        Reopening, //
    },
};
use kernel::{
    mm::virt::VmaNew,
    pci::Vendor,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
};

/// A bridge's ATSD registers as a region.
pub(crate) struct AtsdRegion {
    bridge: Bridge,
    registers: Registers,
    /// The bridge's own.
    gate: Arc<Gate>,
}

impl AtsdRegion {
    /// Maps the registers that `claim` names. ENOMEM: there is no room for the mapping.
    pub(crate) fn new(
        bridge: Bridge,
        claim: Arc<Claim<Atsd>>,
        gate: Arc<Gate>,
    ) -> Result<Arc<Self>> {
        let registers = Registers::new(claim)?;

        Ok(Arc::new(
            Self {
                bridge,
                registers,
                gate,
            },
            GFP_KERNEL,
        )?)
    }

    /// Returns where the part of the region is that is, or is to be, mapped at `span`.
    fn physical(&self, span: VmaSpan) -> Option<Physical<'_, Atsd>> {
        let offset = RegionOffset::new(span.file_offset);

        self.registers.claim().physical(offset, span.len)
    }
}

impl Region for AtsdRegion {
    const TYPE: u32 = vendor_type(Vendor::IBM);
    const SUBTYPE: u32 = SUBTYPE_ATSD;

    fn size(&self) -> u64 {
        ATSD_SIZE
    }

    fn capabilities(&self) -> impl Iterator<Item = Capability> {
        [
            Capability::TargetAddress(self.bridge.tgt),
            Capability::LinkSpeed(self.bridge.speed),
        ]
        .into_iter()
    }

    fn read(&self, _core: &Core, offset: RegionOffset, to: UserRange) -> Result<usize> {
        let mut to = to.writer();

        each_register(offset, to.len(), |register| {
            let value = {
                let _access = self.gate.enter_always_on()?;

                self.registers.read(register)?
            };

            to.write_slice(&value)
        })
    }

    fn write(&self, _core: &Core, offset: RegionOffset, from: UserRange) -> Result<usize> {
        let mut from = from.reader();

        each_register(offset, from.len(), |register| {
            let value = from.read()?;
            let _access = self.gate.enter_always_on()?;

            self.registers.write(register, value)
        })
    }

    fn mmap(self: ArcBorrow<'_, Self>, core: &Core, vma: &VmaNew) -> Result {
        let span = VmaSpan::of(vma);
        let physical = self.physical(span).ok_or(EINVAL)?;
        let mapping = AtsdMapping {
            region: self.into(),
        };
        let result = attach(core, vma, Caching::Uncached, mapping);

        trace::bridge_mmap(core, physical.start(), span.user, span.len, &result);
        result
    }
}

/// Calls `access` for each register of the `len` bytes at `offset`.
///
/// Returns how many bytes were accessed before one failed, or why none were. EINVAL: the bytes are
/// not whole registers.
fn each_register(
    offset: RegionOffset,
    len: usize,
    mut access: impl FnMut(u64) -> Result,
) -> Result<usize> {
    let registers = registers(offset.get(), u64::try_from(len)?).ok_or(EINVAL)?;
    let width = usize::try_from(ATSD_ACCESS)?;
    let mut done = 0usize;

    for register in registers {
        match access(register) {
            Ok(()) => done = done.checked_add(width).ok_or(EOVERFLOW)?,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// A user mapping of ATSD registers.
struct AtsdMapping {
    region: Arc<AtsdRegion>,
}

impl Mapping for AtsdMapping {
    fn operations() -> &'static VmaOperations<Self> {
        static OPERATIONS: VmaOperations<AtsdMapping> = VmaOperations::new();

        &OPERATIONS
    }

    const HUGE: bool = false;

    type Obstacle = Reopening;

    fn fault(&self, _core: &Core, fault: &Fault<'_>) -> Result<Outcome, Reopening> {
        let Some(physical) = fault.page().and_then(|page| self.region.physical(page)) else {
            return Ok(Outcome::SIGBUS);
        };

        match Gate::enter_fault_always_on(&self.region.gate) {
            Ok(_entered) => Ok(fault.insert_always_on(physical)),
            Err(Refused::Closed) => Ok(Outcome::SIGBUS),
            Err(Refused::ForNow(reopening)) => Err(reopening),
        }
    }
}
