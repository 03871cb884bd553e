// SPDX-License-Identifier: GPL-2.0

//! The region of a GPU's RAM.

use crate::{
    linux::{
        claim::{
            Claim,
            Physical, //
        },
        mm::{
            memremap::Window,
            pfn_address_space::{
                Locate,
                PfnSpaceRegistration, //
            },
            vma::{
                attach,
                Caching,
                Fault,
                Mapping,
                Order,
                Outcome,
                VmaOperations,
                VmaSpan, //
            },
        },
        of::Described,
        trace,
        vfio::{
            core::{
                Core,
                FIRST_REGION, //
            },
            region::{
                vendor_type,
                Capability,
                Region,
                UserRange, //
                SUBTYPE_GPU_RAM,
            },
        },
        workqueue::Retrying, //
    },
    pure::{
        aperture::Aperture,
        range::{
            region_file_offset,
            RegionOffset,
            RegionRange, //
        },
        topology::Gpu, //
    },
    regions::{
        dma_registrations::DmaRegistrations,
        gate::{
            Gate,
            Refused,
            Reopening, //
        },
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
        ArcBorrow,
        SetOnce, //
    },
};

/// The largest page of a TCE, which a CPU page may be smaller than.
const TCE_PAGE: u64 = 0x1_0000;

/// Bytes of GPU RAM that are moved in one access of read(2) and write(2).
const PIECE: u64 = 0x1_0000;

/// How many faults brought no page at once, by what became of them. To count those that did would
/// make each of them dearer.
pub(crate) struct FaultCounts {
    /// Those that ended in SIGBUS.
    pub(crate) refused: Atomic<u64>,
    /// Those that waited for a reset to end.
    pub(crate) waited: Atomic<u64>,
}

/// A GPU's RAM as a region: its whole aperture, of which the RAM is the lower part.
pub(crate) struct GpuRam {
    /// As firmware describes it.
    pub(crate) gpu: Described<Gpu>,
    /// From the first time on that it could be had, until the GPU is unbound.
    claim: SetOnce<Arc<Claim<Aperture>>>,
    /// Shared with the GPU's bridges.
    pub(crate) gate: Arc<Gate>,
    /// What is registered for DMA.
    pub(crate) registrations: Arc<Retrying<DmaRegistrations>>,
    /// Of all mappings since the function was probed.
    pub(crate) faults: FaultCounts,
    /// The largest that the RAM is mapped with. How much RAM there is in the aperture, the host
    /// cannot know; that of all GPUs with NVLink2 is a multiple of the largest page there is.
    pub(crate) largest_page: Order,
}

impl GpuRam {
    /// Makes the region of `gpu`, which is usable while `gate` lets in. `registrations` is the
    /// GPU's, and may have registrations that an earlier user left.
    pub(crate) fn new(
        gpu: Described<Gpu>,
        gate: Arc<Gate>,
        registrations: Arc<Retrying<DmaRegistrations>>,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                gpu,
                claim: SetOnce::new(),
                gate,
                registrations,
                faults: FaultCounts {
                    refused: Atomic::new(0),
                    waited: Atomic::new(0),
                },
                largest_page: Order::largest(crate::module_parameters::max_order.value()),
            },
            GFP_KERNEL,
        )?)
    }

    /// Returns the size of the largest page that CPU or TCEs map the RAM with.
    pub(crate) fn largest_page_or_tce(&self) -> u64 {
        self.largest_page.bytes().max(TCE_PAGE)
    }

    fn aperture(&self) -> Aperture {
        self.gpu.aperture
    }

    /// Has `make` claim the RAM if it is not claimed yet. What an earlier user has left registered
    /// holds the claim of the function that it had, which is then this one's, too.
    pub(crate) fn claim(
        &self,
        make: impl FnOnce() -> Result<Arc<Claim<Aperture>>>,
    ) -> Result<&Arc<Claim<Aperture>>> {
        if self.claim.as_ref().is_none() {
            let left = self.registrations.claim();

            self.claim.populate(left.map_or_else(make, Ok)?);
        }
        self.claimed()
    }

    /// EBUSY: it could not be claimed, and so not be opened.
    fn claimed(&self) -> Result<&Arc<Claim<Aperture>>> {
        self.claim.as_ref().ok_or(EBUSY)
    }

    /// Has the kernel know who maps the RAM while `core` is open, so that it can tell them when a
    /// page fails. [`None`]: it is built without handling that.
    pub(crate) fn report(
        &self,
        core: &Core,
    ) -> Result<Option<Pin<KBox<PfnSpaceRegistration<RamMapping>>>>> {
        let reported = PfnSpaceRegistration::new(core, self.claimed()?)?;

        match KBox::pin_init(reported, GFP_KERNEL) {
            Ok(reported) => Ok(Some(reported)),
            Err(EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves what is in the region of as many bytes as `user` has, in pieces of at most [`PIECE`]
    /// bytes.
    ///
    /// Returns how many bytes were moved before a piece failed, or why none were.
    fn transfer(
        &self,
        offset: RegionOffset,
        user: UserRange,
        mut piece: impl FnMut(RegionRange, UserRange) -> Result,
    ) -> Result<usize> {
        let len = u64::try_from(user.len())?;
        let range = RegionRange::clipped(offset, len, self.size()).ok_or(EINVAL)?;
        let mut done = 0usize;

        for range in range.windows(PIECE) {
            let len = usize::try_from(range.len())?;

            match piece(range, user.part(done, len)) {
                Ok(()) => done = done.checked_add(len).ok_or(EOVERFLOW)?,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Calls `f` with the kernel's mapping of the RAM, while the RAM is usable. The memory of a
    /// user must not be touched in it, but without page faults: those may need what is locked here.
    fn access<R>(&self, core: &Core, f: impl FnOnce(&Window) -> Result<R>) -> Result<R> {
        self.gate
            .enter(core)?
            .through_window(|| Window::new(self.claimed()?.clone()), f)
    }
}

/// Returns `len` bytes of `buffer`.
fn room(buffer: &mut KVVec<u8>, len: u64) -> Result<&mut [u8]> {
    let len = usize::try_from(len)?;

    if buffer.len() < len {
        buffer.resize(len, 0, GFP_KERNEL)?;
    }
    buffer.get_mut(..len).ok_or(EINVAL)
}

impl Region for GpuRam {
    const TYPE: u32 = vendor_type(Vendor::NVIDIA);
    const SUBTYPE: u32 = SUBTYPE_GPU_RAM;

    fn size(&self) -> u64 {
        self.aperture().size()
    }

    fn capabilities(&self) -> impl Iterator<Item = Capability> {
        [Capability::TargetAddress(self.gpu.tgt)].into_iter()
    }

    fn read(&self, core: &Core, offset: RegionOffset, to: UserRange) -> Result<usize> {
        let mut buffer = KVVec::new();

        self.transfer(offset, to, |range, to| {
            if self.access(core, |window| window.read_to(range, to))? {
                return Ok(());
            }
            // A page of the user's is not there, or the GPU does not answer.
            let buffer = room(&mut buffer, range.len())?;

            self.access(core, |window| window.read(range, buffer))?;
            to.writer().write_slice(buffer)
        })
    }

    fn write(&self, core: &Core, offset: RegionOffset, from: UserRange) -> Result<usize> {
        let mut buffer = KVVec::new();

        self.transfer(offset, from, |range, from| {
            if self.access(core, |window| window.write_from(range, from))? {
                return Ok(());
            }
            // A page of the user's is not there.
            let buffer = room(&mut buffer, range.len())?;

            from.reader().read_slice(buffer)?;
            self.access(core, |window| window.write(range, buffer))
        })
    }

    fn mmap(self: ArcBorrow<'_, Self>, core: &Core, vma: &VmaNew) -> Result {
        let span = VmaSpan::of(vma);
        let claim = self.claimed()?;
        let physical = physical(claim, span).ok_or(EINVAL)?;
        let mapping = RamMapping {
            ram: self.into(),
            claim: claim.clone(),
        };
        let result = attach(core, vma, Caching::Cached, mapping);

        trace::gpu_mmap(core, physical.start(), span.user, span.len, &result);
        result
    }
}

/// A user mapping of GPU RAM.
pub(crate) struct RamMapping {
    ram: Arc<GpuRam>,
    claim: Arc<Claim<Aperture>>,
}

/// Returns where the part of the RAM is that is, or is to be, mapped at `span`.
#[inline]
fn physical(claim: &Arc<Claim<Aperture>>, span: VmaSpan) -> Option<Physical<'_, Aperture>> {
    claim.physical(RegionOffset::new(span.file_offset), span.len)
}

impl RamMapping {
    /// Returns which page a fault asks for, by its user address, and where it is. [`None`]: none of
    /// that size may be at that address.
    #[inline(always)]
    fn page<'a>(&'a self, fault: &Fault<'_>) -> Option<(u64, Physical<'a, Aperture>)> {
        let page = fault.page()?;
        let physical = physical(&self.claim, page)?;

        (fault.order() <= self.ram.largest_page && fault.fits(physical))
            .then_some((page.user, physical))
    }

    /// Counts and traces what became of a fault. It finds out again which page that was for: to
    /// keep that at hand makes each fault dearer.
    #[cold]
    #[inline(never)]
    fn tell(&self, core: &Core, fault: Fault<'_>, outcome: Outcome) {
        if outcome == Outcome::SIGBUS {
            self.ram.faults.refused.add(1, Relaxed);
        }
        match self.page(&fault) {
            Some((user, physical)) if outcome != Outcome::FALLBACK => {
                trace::gpu_fault(core, physical.start(), user, outcome);
            }
            _ => {}
        }
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
    fn operations() -> &'static VmaOperations<Self> {
        static OPERATIONS: VmaOperations<RamMapping> = VmaOperations::new();

        &OPERATIONS
    }

    const HUGE: bool = true;

    type Obstacle = Reopening;

    // The path of every fault.
    #[inline(always)]
    fn fault(&self, core: &Core, fault: &Fault<'_>) -> Result<Outcome, Reopening> {
        let Some((_, physical)) = self.page(fault) else {
            return Ok(if fault.order() > Order::BASE {
                Outcome::FALLBACK
            } else {
                Outcome::SIGBUS
            });
        };
        let outcome = match Gate::enter_fault(&self.ram.gate, core) {
            Ok(access) => fault.insert(access.memory(), physical),
            Err(Refused::Closed) => Outcome::SIGBUS,
            Err(Refused::ForNow(reopening)) => {
                self.ram.faults.waited.add(1, Relaxed);
                return Err(reopening);
            }
        };

        if outcome != Outcome::NOPAGE || trace::gpu_fault_is_on() {
            self.tell(core, *fault, outcome);
        }
        Ok(outcome)
    }

    fn may_split(&self, mm: &Mm, at: u64) -> Result {
        self.ram.registrations.may_split(mm, at)
    }

    fn opened(&self, mm: &Mm, span: VmaSpan) {
        self.ram.registrations.opened(mm, span);
    }

    fn placed(&self, mm: &MmWithUser, span: VmaSpan) -> Result {
        let physical = physical(&self.claim, span).ok_or(EINVAL)?;

        self.ram.registrations.register(mm, span, physical)
    }

    fn close(&self, mm: &Mm, span: VmaSpan) {
        DmaRegistrations::close(&self.ram.registrations, mm, span);
    }
}
