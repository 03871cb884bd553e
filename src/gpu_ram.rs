// SPDX-License-Identifier: GPL-2.0

//! The region of a GPU's RAM.

use crate::{
    gate::Gate,
    ledger::Ledger,
    linux::{
        delayed::Retrying,
        device_memory::Window,
        memory_failure::{
            self,
            Locate, //
        },
        region::{
            vendor_type,
            Region,
            FLAGS_ALL,
            SUBTYPE_GPU_RAM, //
        },
        trace,
        vfio::{
            Core,
            FIRST_REGION, //
        },
        vma::{
            attach,
            Caching,
            Extent,
            Fault,
            Mapping,
            Order,
            Outcome, //
        },
    },
    pure::{
        aperture::Aperture,
        capability::Capability,
        range::{
            region_file_offset,
            RegionOffset,
            RegionRange, //
        },
        topology::Gpu,
    },
};
use kernel::{
    mm::{
        virt::VmaNew,
        Mm,
        MmWithUser, //
    },
    pci::Vendor,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    },
};

/// Bytes of GPU RAM that the kernel maps at once for read(2) and write(2), and the size of the
/// buffer in between.
const WINDOW: usize = 0x1_0000;

/// How many faults there were, by outcome.
pub(crate) struct FaultCounts {
    /// CPU pages inserted.
    pub(crate) small: Atomic<u64>,
    /// Huge pages inserted.
    pub(crate) huge: Atomic<u64>,
    /// Those that ended in SIGBUS.
    pub(crate) refused: Atomic<u64>,
}

/// The kernel knows who maps a GPU's RAM, as long as this exists.
pub(crate) type Reported = memory_failure::Reported<RamMapping>;

/// A GPU's RAM as a region: its whole aperture, of which the RAM is the lower part.
pub(crate) struct GpuRam {
    /// As firmware describes it.
    pub(crate) gpu: Gpu,
    /// Shared with the GPU's bridges.
    pub(crate) gate: Arc<Gate>,
    /// What is registered for DMA.
    pub(crate) ledger: Arc<Retrying<Ledger>>,
    /// Of all mappings since the function was probed.
    pub(crate) faults: FaultCounts,
    /// The largest that the RAM is mapped with. How much RAM there is in the aperture, the host
    /// cannot know; that of all GPUs with NVLink2 is a multiple of the largest page there is.
    pub(crate) largest_page: Order,
}

impl GpuRam {
    /// Makes the region of `gpu`, which is usable while `gate` lets in.
    pub(crate) fn new(gpu: Gpu, gate: Arc<Gate>) -> Result<Arc<Self>> {
        let ledger = Arc::pin_init(Ledger::new(), GFP_KERNEL)?;

        Ok(Arc::new(
            Self {
                gpu,
                gate,
                ledger,
                faults: FaultCounts {
                    small: Atomic::new(0),
                    huge: Atomic::new(0),
                    refused: Atomic::new(0),
                },
                largest_page: Order::largest(crate::module_parameters::max_order.value()),
            },
            GFP_KERNEL,
        )?)
    }

    fn aperture(&self) -> Aperture {
        self.gpu.aperture
    }

    /// Has the kernel know who maps the RAM while `core` is open, so that it can tell them when a
    /// page fails. [`None`]: it is built without handling that.
    pub(crate) fn report(&self, core: &Core) -> Result<Option<Pin<KBox<Reported>>>> {
        let aperture = self.aperture();
        let reported = Reported::new(core, aperture.base(), aperture.size())?;

        match KBox::pin_init(reported, GFP_KERNEL) {
            Ok(reported) => Ok(Some(reported)),
            Err(EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves the range in pieces of at most [`WINDOW`] bytes. The buffer is between the device and
    /// the user, since user memory must not be touched while the region is kept usable.
    ///
    /// Returns how many bytes were moved before `piece` failed, or why none were.
    fn transfer(
        &self,
        offset: RegionOffset,
        len: usize,
        mut piece: impl FnMut(RegionRange, &mut [u8]) -> Result,
    ) -> Result<usize> {
        let range = RegionRange::clipped(offset, u64::try_from(len)?, self.size()).ok_or(EINVAL)?;
        let window = u64::try_from(WINDOW)?;
        let room = usize::try_from(range.len().min(window))?;
        let mut buffer = KVVec::from_elem(0u8, room, GFP_KERNEL)?;
        let mut done = 0usize;

        for window in range.windows(window) {
            let len = usize::try_from(window.len())?;
            let result = piece(window, buffer.get_mut(..len).ok_or(EINVAL)?);

            match result {
                Ok(()) => done = done.checked_add(len).ok_or(EOVERFLOW)?,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn window(&self, range: RegionRange) -> Result<Window> {
        let physical = self.aperture().physical(range).ok_or(EINVAL)?;

        Window::new(physical, usize::try_from(range.len())?)
    }
}

impl Region for GpuRam {
    const TYPE: u32 = vendor_type(Vendor::NVIDIA);
    const SUBTYPE: u32 = SUBTYPE_GPU_RAM;
    const FLAGS: u32 = FLAGS_ALL;

    fn size(&self) -> u64 {
        self.aperture().size()
    }

    fn capabilities(&self) -> impl Iterator<Item = Capability> {
        [Capability::TargetAddress(self.gpu.tgt)].into_iter()
    }

    fn read(&self, core: &Core, offset: RegionOffset, mut to: UserSliceWriter) -> Result<usize> {
        self.transfer(offset, to.len(), |range, buffer| {
            {
                let _access = self.gate.enter(core)?;

                self.window(range)?.read(buffer)?;
            }
            to.write_slice(buffer)
        })
    }

    fn write(&self, core: &Core, offset: RegionOffset, mut from: UserSliceReader) -> Result<usize> {
        self.transfer(offset, from.len(), |range, buffer| {
            from.read_slice(buffer)?;

            let _access = self.gate.enter(core)?;

            self.window(range)?.write(buffer)
        })
    }

    fn mmap(self: ArcBorrow<'_, Self>, core: &Core, vma: &VmaNew) -> Result {
        let extent = Extent::of(vma)?;
        let offset = RegionOffset::new(extent.file_offset);
        let range = RegionRange::new(offset, extent.len, self.size()).ok_or(EINVAL)?;
        let physical = self.aperture().physical(range).ok_or(EINVAL)?;
        let result =
            Ledger::register(&self.ledger, vma.mm(), extent, physical).and_then(|registered| {
                attach(core, vma, Caching::Cached, RamMapping { ram: self.into() })?;
                registered.keep();
                Ok(())
            });

        trace::gpu_mmap(core, physical, extent.user, extent.len, &result);
        result
    }
}

/// A user mapping of GPU RAM.
pub(crate) struct RamMapping {
    ram: Arc<GpuRam>,
}

impl RamMapping {
    /// Returns the physical address of the page that a fault asks for.
    fn physical(&self, page: Extent) -> Option<u64> {
        let offset = RegionOffset::new(page.file_offset);
        let range = RegionRange::new(offset, page.len, self.ram.size())?;

        self.ram.aperture().physical(range)
    }
}

impl Locate for RamMapping {
    fn file_offset_of(&self, physical: u64) -> Option<u64> {
        let aperture = self.ram.aperture();
        let offset = physical.checked_sub(aperture.base())?;

        (offset < aperture.size()).then_some(())?;
        region_file_offset(FIRST_REGION).checked_add(offset)
    }
}

impl Mapping for RamMapping {
    const HUGE: bool = true;

    // The path of every fault; it has one caller.
    #[inline(always)]
    fn fault(&self, core: &Core, fault: &Fault<'_>) -> Outcome {
        let order = fault.order();
        let place = fault
            .page()
            .and_then(|page| Some((page.user, self.physical(page)?)));
        let (user, physical) = match place {
            Some(place) if order <= self.ram.largest_page => place,
            _ if order > Order::BASE => return Outcome::FALLBACK,
            _ => return Outcome::SIGBUS,
        };
        let outcome = self
            .ram
            .gate
            .enter(core)
            .map_or(Outcome::SIGBUS, |_access| fault.insert(physical));
        let counts = &self.ram.faults;

        if outcome == Outcome::FALLBACK {
            return outcome;
        }
        let count = match (outcome.is_inserted(), order) {
            (false, _) => &counts.refused,
            (true, Order::BASE) => &counts.small,
            (true, _) => &counts.huge,
        };

        count.add(1, Relaxed);
        trace::gpu_fault(core, physical, user, outcome);
        outcome
    }

    fn split(&self, mm: &MmWithUser, whole: Extent, at: u64) -> Result {
        self.ram.ledger.split(mm, whole, at)
    }

    fn moved(&self, mm: &MmWithUser, to: Extent) -> Result {
        let physical = self.physical(to).ok_or(EINVAL)?;

        Ledger::register(&self.ram.ledger, mm, to, physical)?.keep();
        Ok(())
    }

    fn close(&self, mm: &Mm, extent: Extent) {
        Ledger::close(&self.ram.ledger, mm, extent);
    }
}
