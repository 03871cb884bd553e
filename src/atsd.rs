// SPDX-License-Identifier: GPL-2.0

//! The region of a bridge's address translation shootdown (ATSD) registers.
//!
//! One register block per link, of which a bridge exposes its own. It exists only for a device
//! that was opened on behalf of a virtual machine: without one no LPAR is bound to the link, and
//! shootdowns would not be the user's own.

use crate::{
    driver::VENDOR_IBM,
    gate::Gate,
    linux::{
        mmio::Registers,
        region::{
            vendor_type,
            Region,
            FLAGS_ALL, //
        },
        trace,
        vfio::Core,
        vma::{
            attach,
            Caching,
            Extent,
            Fault,
            Mapping,
            Outcome, //
        },
    },
    pure::{
        atsd::{
            is_register_access,
            Atsd,
            ATSD_SIZE, //
        },
        capability::Capability,
        range::{
            RegionOffset,
            RegionRange, //
        },
        topology::Bridge,
    },
};
use kernel::{
    mm::virt::VmaNew,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    },
};

/// A bridge's ATSD registers as a region.
pub(crate) struct AtsdRegion {
    bridge: Bridge,
    atsd: Atsd,
    registers: Registers,
    /// The bridge's own.
    gate: Arc<Gate>,
}

impl AtsdRegion {
    pub(crate) fn new(bridge: Bridge, atsd: Atsd, gate: Arc<Gate>) -> Result<Arc<Self>> {
        let registers = Registers::new(atsd.address(), ATSD_SIZE)?;

        Ok(Arc::new(
            Self {
                bridge,
                atsd,
                registers,
                gate,
            },
            GFP_KERNEL,
        )?)
    }
}

impl Region for AtsdRegion {
    const TYPE: u32 = vendor_type(VENDOR_IBM);
    // VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD
    const SUBTYPE: u32 = 1;
    const FLAGS: u32 = FLAGS_ALL;

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

    fn read(&self, core: &Core, offset: RegionOffset, mut to: UserSliceWriter) -> Result<usize> {
        let len = register(offset, to.len())?;
        let value = {
            let _access = self.gate.enter(core)?;

            self.registers.read(offset.get())?
        };

        to.write_slice(&value)?;
        Ok(len)
    }

    fn write(&self, core: &Core, offset: RegionOffset, mut from: UserSliceReader) -> Result<usize> {
        let len = register(offset, from.len())?;
        let value = from.read()?;
        let _access = self.gate.enter(core)?;

        self.registers.write(offset.get(), value)?;
        Ok(len)
    }

    fn mmap(self: ArcBorrow<'_, Self>, core: &Core, vma: &VmaNew) -> Result {
        let extent = Extent::of(vma)?;
        let offset = RegionOffset::new(extent.file_offset);

        RegionRange::new(offset, extent.len, ATSD_SIZE).ok_or(EINVAL)?;

        let mapping = AtsdMapping {
            region: self.into(),
        };
        let result = attach(core, vma, Caching::Uncached, mapping);

        trace::bridge_mmap(core, self.atsd.address(), extent.user, extent.len, &result);
        result
    }
}

/// Refuses accesses that are not of one whole register; returns the length of those that are.
fn register(offset: RegionOffset, len: usize) -> Result<usize> {
    is_register_access(offset.get(), u64::try_from(len)?)
        .then_some(len)
        .ok_or(EINVAL)
}

/// A user mapping of ATSD registers.
struct AtsdMapping {
    region: Arc<AtsdRegion>,
}

impl AtsdMapping {
    /// Returns the physical address of the page that was touched.
    fn physical(&self, fault: &Fault<'_>) -> Option<u64> {
        let offset = RegionOffset::new(fault.file_offset()?);
        let page = u64::try_from(PAGE_SIZE).ok()?;
        let range = RegionRange::new(offset, page, ATSD_SIZE)?;

        self.region.atsd.address().checked_add(range.start())
    }
}

impl Mapping for AtsdMapping {
    fn fault(&self, core: &Core, fault: &Fault<'_>) -> Outcome {
        let Some(physical) = self.physical(fault) else {
            return Outcome::SIGBUS;
        };

        self.region
            .gate
            .enter(core)
            .map_or(Outcome::SIGBUS, |access| {
                fault.insert(&access.memory, physical)
            })
    }
}
