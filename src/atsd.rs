// SPDX-License-Identifier: GPL-2.0

//! The region of a bridge's address translation shootdown (ATSD) registers.
//!
//! One register block per link, of which a bridge exposes its own. It exists only for a device
//! that was opened on behalf of a virtual machine and has a share of the binding of the GPU to that
//! machine's LPAR ([`crate::lpar`]): the shootdowns of an unbound link would not be the user's own.

use crate::{
    gate::Gate,
    linux::{
        mmio::Registers,
        region::{
            vendor_type,
            Region,
            FLAGS_ALL,
            SUBTYPE_ATSD, //
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
            registers,
            Atsd,
            ATSD_ACCESS,
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
    pci::Vendor,
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
    /// Maps the register that `atsd` names. ENOMEM: there is no room for the mapping.
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
    const TYPE: u32 = vendor_type(Vendor::IBM);
    const SUBTYPE: u32 = SUBTYPE_ATSD;
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

    fn read(&self, _core: &Core, offset: RegionOffset, mut to: UserSliceWriter) -> Result<usize> {
        each_register(offset, to.len(), |register| {
            let value = {
                let _access = self.gate.enter_always_on()?;

                self.registers.read(register)?
            };

            to.write_slice(&value)
        })
    }

    fn write(
        &self,
        _core: &Core,
        offset: RegionOffset,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        each_register(offset, from.len(), |register| {
            let value = from.read()?;
            let _access = self.gate.enter_always_on()?;

            self.registers.write(register, value)
        })
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

impl AtsdMapping {
    /// Returns the physical address of the page that was touched.
    fn physical(&self, fault: &Fault<'_>) -> Option<u64> {
        let page = fault.page()?;
        let offset = RegionOffset::new(page.file_offset);
        let range = RegionRange::new(offset, page.len, ATSD_SIZE)?;

        self.region.atsd.address().checked_add(range.start())
    }
}

impl Mapping for AtsdMapping {
    const HUGE: bool = false;

    fn fault(&self, _core: &Core, fault: &Fault<'_>) -> Outcome {
        let Some(physical) = self.physical(fault) else {
            return Outcome::SIGBUS;
        };

        self.region
            .gate
            .enter_always_on()
            .map_or(Outcome::SIGBUS, |_access| fault.insert(physical))
    }
}
