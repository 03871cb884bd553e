// SPDX-License-Identifier: GPL-2.0

//! For whom the NPU translates addresses of GPUs, and how GPUs are told to forget them.
//!
//! - XTS: the unit of the NPU that translates. Nothing is translated for a GPU without a valid
//!   entry in both of its maps: the BDF map says for which LPAR, and by which link it is told to
//!   forget, the PID map by which MSR bits. OPAL makes the entries; it keeps no copy of them.
//! - ATSD: address translation shootdown. The NPU has 8 blocks of registers to launch one, the nth
//!   of which belongs to the nth link, if there is one; an LPARID register says for whom. A guest
//!   has those of its GPU's links, the host those that belong to no link.
//! - NTL: the NPU's end of a link, which is fenced if anything goes wrong, and from the reset of
//!   its GPU until it is trained. Nothing passes a link that is fenced.
//!
//! No document of these registers is public. Names and places are those of skiboot's
//! `include/npu2-regs.h` and `hw/npu2.c`. What is launched, and why, the security model says
//! (`Documentation/driver/security.rst`).

use crate::pure::{
    atsd_registers::{
        Atsd,
        ATSD_SIZE, //
    },
    cells,
    devicetree::Node,
    lpid::Lpid,
    topology::MAX_LINKS, //
};

/// A register of the NPU, by its offset in those of its host bridge.
///
/// # Invariants
///
/// One of those that this file names: nobody but XTS uses them as long as a GPU is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register(u64);

impl Register {
    // INVARIANT: All uses are below.
    const fn nth(first: u64, n: u64, stride: u64) -> Self {
        Self(first.saturating_add(n.saturating_mul(stride)))
    }

    /// XTS_BDF_MAPn
    const fn bdf_map(n: u64) -> Self {
        Self::nth(0x71_4000, n, 8)
    }

    /// XTS_PID_MAPn: the first ones stand for all processes of an LPAR.
    const fn pid_map(n: u64) -> Self {
        Self::nth(0x71_8000, n, 0x20)
    }

    /// XTS_MMIO_ATSDn_LPARID. A store of eight bytes writes it at once.
    const fn lparid(n: u64) -> Self {
        Self::nth(0x71_0100, n, 8)
    }

    /// NTL_CQ_FENCE_STATUS of a link. A stack has the NTLs of two.
    const fn fence_status(link: u64) -> Self {
        Self::nth(
            Self::nth(0x49_0500, link / 2, 0x10_0000).0,
            link % 2,
            0x2_0000,
        )
    }

    /// Returns the offset.
    pub(crate) fn offset(self) -> u64 {
        self.0
    }
}

/// What the NPU, and what it asks, is reached by. Nothing sleeps.
pub(crate) trait Hardware {
    fn read(&self, register: Register) -> u64;

    /// Writes, and waits until it is done.
    fn write(&self, register: Register, value: u64);

    /// Has the nest MMU of the chip forget an LPAR.
    fn flush_nest_mmu(&self, lpid: Lpid);

    /// Waits for a microsecond.
    fn wait(&self);
}

const BDF_MAP_ENTRIES: u64 = 16;
const BDF_VALID: u64 = 1 << 63;

/// Bits 4 to 7 of an entry of the BDF map for each link: a bit for the stack, and one for the
/// second of its links.
const ROUTES: [u64; MAX_LINKS] = [
    0x8 << 56,
    0x9 << 56,
    0x4 << 56,
    0x5 << 56,
    0x2 << 56,
    0x3 << 56,
];
const ROUTE: u64 = 0xf << 56;

const PID_VALID: u64 = 0x7 << 61;
/// Translation of requests, without and with rights to write.
const PID_VALID_ATR: u64 = 0x3 << 62;
const PID_VALID_ATSD: u64 = 1 << 61;

/// Bits 0 and 1.
const FENCED: u64 = 0x3 << 62;

/// Bit 11, with 12 IS of tlbie; bit 12, all addresses; bit 13, of one PID, or process scoped.
const IS_LPAR: u64 = 1 << 52;
const ALL: u64 = 1 << 51;
const PRS: u64 = 1 << 50;

/// What has GPUs forget an LPAR, one after the other, each awaited: all of it if bits 11 and 12 are
/// IS of tlbie, all of it if bit 12 is "all addresses", and two flushes, of PID 0, which is no
/// process' that uses a GPU.
const LAUNCHES: [u64; 4] = [IS_LPAR | PRS, ALL, ALL | PRS, ALL | PRS];

/// A GPU answers within microseconds. This is for one that does not.
const TIMEOUT_US: u32 = 2000;

/// Links of an NPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links([bool; MAX_LINKS]);

impl Links {
    /// Takes the links with these indices, as far as an NPU has such.
    pub(crate) fn of(indices: &[u32]) -> Self {
        let mut links = [false; MAX_LINKS];

        for (link, n) in links.iter_mut().zip(0u32..) {
            *link = indices.contains(&n);
        }
        Self(links)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(self) -> bool {
        !self.0.contains(&true)
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0
            .iter()
            .zip(0u64..)
            .filter_map(|(is_one, n)| is_one.then_some(n))
    }

    /// Returns those that are not fenced.
    fn up(mut self, hardware: &impl Hardware) -> Self {
        for (link, n) in self.0.iter_mut().zip(0u64..) {
            *link = *link && hardware.read(Register::fence_status(n)) & FENCED == 0;
        }
        self
    }
}

/// A GPU as XTS knows it: bus, device and function, whatever its PHB. No two that are mapped may
/// have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bdfn(
    /// Bus in the upper byte; device and function in the lower.
    pub(crate) u16,
);

/// A block of ATSD registers of the host.
#[derive(Clone, Copy, Debug)]
struct Block {
    launch: Register,
    status: Register,
    lparid: Register,
    /// A launch did not end.
    busy: bool,
}

/// The blocks of ATSD registers that belong to no link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostBlocks([Option<Block>; Self::COUNT]);

impl HostBlocks {
    /// Of an NPU.
    const COUNT: usize = 8;

    /// Returns those that `phb`, the node of an NPU, leaves to the host. OPAL before 6.2 tells of
    /// the first block only: the others are behind it, a page each.
    pub(crate) fn of<N: Node>(phb: &N) -> Self {
        let mut found = [None; Self::COUNT];
        let links = phb
            .property(c"ibm,npcq")
            .and_then(cells::cell)
            .and_then(|phandle| phb.find(phandle));
        let (Some(links), Some((window, size)), Some(list)) = (
            links,
            phb.property(c"reg").and_then(cells::wide_pair),
            phb.property(c"ibm,mmio-atsd"),
        ) else {
            return Self(found);
        };
        let is_of_link = |n: u64| {
            links.any_child(&mut |link| {
                let index = link.property(c"ibm,npu-link-index").and_then(cells::cell);

                index.is_some_and(|index| u64::from(index) == n)
            })
        };

        for ((n, slot), number) in found.iter_mut().enumerate().zip(0u64..) {
            let behind_the_first =
                || cells::nth_wide(list, 0)?.checked_add(number.checked_mul(ATSD_SIZE)?);
            let offset = cells::nth_wide(list, n)
                .or_else(behind_the_first)
                .and_then(|address| Atsd::new(address, window, size))
                .and_then(|atsd| atsd.address().checked_sub(window));

            // INVARIANT: LAUNCH and STATUS of a block within the registers.
            *slot = offset.filter(|_| !is_of_link(number)).map(|offset| Block {
                launch: Register(offset),
                status: Register::nth(offset, 1, 0x10),
                lparid: Register::lparid(number),
                busy: false,
            });
        }
        Self(found)
    }

    /// Whether there is none: then GPUs could not be told to forget.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Returns where their LAUNCH registers are.
    #[cfg(test)]
    pub(crate) fn launch_registers(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flatten().map(|block| block.launch.0)
    }

    /// Returns a block whose last launch has ended.
    fn idle(&mut self, hardware: &impl Hardware) -> Option<&mut Block> {
        for block in self.0.iter_mut().flatten().filter(|block| block.busy) {
            if hardware.read(block.status) == 0 {
                hardware.write(block.lparid, 0);
                block.busy = false;
            }
        }
        self.0.iter_mut().flatten().find(|block| !block.busy)
    }
}

impl Block {
    /// Launches all that has GPUs forget `lpid`, and returns how many that were; [`None`]: one has
    /// not ended.
    fn launch(&mut self, hardware: &impl Hardware, lpid: Lpid) -> Option<u32> {
        let mut launches = 0u32;

        hardware.write(self.lparid, lpid.get().into());
        for launch in LAUNCHES {
            let mut left = TIMEOUT_US;

            hardware.write(self.launch, launch);
            while hardware.read(self.status) != 0 {
                left = left.checked_sub(1).or_else(|| {
                    self.busy = true;
                    None
                })?;
                hardware.wait();
            }
            launches = launches.saturating_add(1);
        }
        hardware.write(self.lparid, 0);
        Some(launches)
    }
}

/// What becomes of a GPU that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It asks for translations, and gets them.
    Works,
    /// It gets nothing before it was told to forget.
    Owed,
    /// It did not answer, and gets nothing more.
    Dead,
}

/// A GPU that is mapped to an LPAR.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    bdfn: Bdfn,
    links: Links,
    lpid: Lpid,
    state: State,
    /// It is being reset, or was not yet since it is mapped: nothing is translated for it, and
    /// nothing launched to it.
    quiet: bool,
    /// Valid bits of its entry in the PID map, to be set when it works again.
    valid: u64,
}

impl Mapped {
    /// Whether it may have translations of an LPAR, and be told.
    fn is_of(&self, lpid: Lpid) -> bool {
        self.lpid == lpid && self.state != State::Dead
    }

    /// Its entry in the BDF map.
    fn bdf_entry(&self, hardware: &impl Hardware) -> Option<(Register, u64)> {
        (0..BDF_MAP_ENTRIES)
            .map(|n| (Register::bdf_map(n), hardware.read(Register::bdf_map(n))))
            .find(|(_, entry)| {
                entry & BDF_VALID != 0 && entry >> 32 & 0xffff == u64::from(self.bdfn.0)
            })
    }

    /// Clears and sets valid bits, for which OPAL has no call. Returns those that were set.
    fn set_valid(&self, hardware: &impl Hardware, clear: u64, set: u64) -> u64 {
        let Some((_, entry)) = self.bdf_entry(hardware) else {
            return 0;
        };
        let pid_map = Register::pid_map(entry >> 12 & 0xf);
        let entry = hardware.read(pid_map);

        hardware.write(pid_map, entry & !clear | set);
        entry & PID_VALID
    }

    /// Has shootdowns go by one of the links that are `up`. OPAL takes the GPU's first one.
    fn route(&self, hardware: &impl Hardware, up: Links) {
        let Some((register, entry)) = self.bdf_entry(hardware) else {
            return;
        };
        let mut routes = ROUTES
            .iter()
            .zip(up.0)
            .filter_map(|(route, up)| up.then_some(*route))
            .peekable();

        if let Some(first) = routes.peek().copied() {
            if !routes.any(|route| entry & ROUTE == route) {
                hardware.write(register, entry & !ROUTE | first);
            }
        }
    }

    /// Nothing is translated for it any more, nor does it get shootdowns.
    fn pause(&mut self, hardware: &impl Hardware) {
        let valid = self.set_valid(hardware, PID_VALID, 0);

        if self.valid == 0 {
            self.valid = valid;
        }
    }

    fn resume(&mut self, hardware: &impl Hardware) {
        if self.valid != 0 {
            self.set_valid(hardware, 0, self.valid);
        }
        self.valid = 0;
        self.state = State::Works;
    }

    /// Whether it was told all that it had to be.
    fn untold(&self) -> Result<(), Untold> {
        match self.state {
            State::Dead => Err(Untold::Dead),
            State::Owed if !self.quiet => Err(Untold::Owed),
            State::Owed | State::Works => Ok(()),
        }
    }

    fn give_up(&mut self, hardware: &impl Hardware) {
        self.set_valid(hardware, PID_VALID, 0);
        self.valid = 0;
        self.state = State::Dead;
    }
}

/// What came of telling a GPU to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It did.
    Forgot,
    LinksDown,
    NoAnswer,
}

/// That a GPU was not told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untold {
    /// It cannot be told yet, and nothing is translated for it before it was.
    Owed,
    /// It does not answer, and nothing is translated for it before it is mapped again.
    Dead,
}

/// What an NPU translates, and for whom.
#[derive(Debug)]
pub(crate) struct Xts {
    blocks: HostBlocks,
    gpus: [Option<Mapped>; MAX_LINKS],
}

impl Xts {
    /// Of an NPU that translates nothing.
    pub(crate) fn new(blocks: HostBlocks) -> Self {
        Self {
            blocks,
            gpus: [None; MAX_LINKS],
        }
    }

    fn gpu(&mut self, bdfn: Bdfn) -> Option<&mut Mapped> {
        self.gpus.iter_mut().flatten().find(|gpu| gpu.bdfn == bdfn)
    }

    /// Whether a GPU is mapped.
    pub(crate) fn has(&mut self, bdfn: Bdfn) -> bool {
        self.gpu(bdfn).is_some()
    }

    /// A GPU was mapped by firmware. Returns whether there is room for it. Nothing is translated
    /// for it before [`Xts::set_quiet`] says that it was reset.
    pub(crate) fn add(
        &mut self,
        hardware: &impl Hardware,
        bdfn: Bdfn,
        links: Links,
        lpid: Lpid,
    ) -> bool {
        let Some(slot) = self.gpus.iter_mut().find(|slot| slot.is_none()) else {
            return false;
        };

        slot.insert(Mapped {
            bdfn,
            links,
            lpid,
            state: State::Works,
            quiet: true,
            valid: 0,
        })
        .pause(hardware);
        true
    }

    /// A GPU is not mapped any more.
    pub(crate) fn remove(&mut self, bdfn: Bdfn) {
        for slot in &mut self.gpus {
            slot.take_if(|gpu| gpu.bdfn == bdfn);
        }
    }

    /// Has the NPU launch for `lpid` what guests launch by the registers of `links`; 0 is nobody.
    pub(crate) fn set_lparids(hardware: &impl Hardware, links: Links, lpid: u32) {
        for link in links.iter() {
            hardware.write(Register::lparid(link), lpid.into());
        }
    }

    /// Has all GPUs that are mapped to `lpid` forget it, the nest MMU first, which they ask.
    /// Nothing is launched to one whose links are down: that might never end, and it may have
    /// translations that it goes on to use when they are up again. It is owed the launch. Returns
    /// how many launches there were, or to which GPUs one of them did not end; if all blocks wait
    /// for GPUs that did not answer, that is so for those that would be told.
    fn shoot_down(
        &mut self,
        hardware: &impl Hardware,
        lpid: Lpid,
    ) -> Result<u32, [bool; MAX_LINKS]> {
        let block = self.blocks.idle(hardware);
        let mut told = [false; MAX_LINKS];

        hardware.flush_nest_mmu(lpid);
        for (gpu, told) in self.gpus.iter_mut().zip(&mut told) {
            let Some(gpu) = gpu.as_mut().filter(|gpu| gpu.is_of(lpid)) else {
                continue;
            };
            let up = gpu.links.up(hardware);

            if up.is_empty() || gpu.quiet {
                gpu.pause(hardware);
                gpu.state = State::Owed;
            } else {
                gpu.route(hardware, up);
                gpu.set_valid(hardware, 0, PID_VALID_ATSD);
                *told = true;
            }
        }
        if !told.contains(&true) {
            return Ok(0);
        }
        let launches = (block.and_then(|block| block.launch(hardware, lpid))).ok_or(told)?;

        for (gpu, _) in self.gpus.iter_mut().zip(told).filter(|(_, told)| *told) {
            if let Some(gpu) = gpu {
                gpu.resume(hardware);
            }
        }
        Ok(launches)
    }

    /// The same for the sake of one GPU: others that are told, too, have lost nothing.
    fn shoot_down_for(&mut self, hardware: &impl Hardware, bdfn: Bdfn) -> Told {
        let Some((slot, gpu)) = (self.gpus.iter().enumerate())
            .find_map(|(n, gpu)| Some((n, gpu.filter(|gpu| gpu.bdfn == bdfn)?)))
        else {
            return Told::Forgot;
        };

        if gpu.links.up(hardware).is_empty() {
            return Told::LinksDown;
        }
        match self.shoot_down(hardware, gpu.lpid) {
            Err(told) if told.get(slot) == Some(&true) => Told::NoAnswer,
            _ => match self.gpu(bdfn) {
                // They went down meanwhile.
                Some(gpu) if gpu.state == State::Owed => Told::LinksDown,
                _ => Told::Forgot,
            },
        }
    }

    /// The LPAR has lost memory: no GPU that is mapped to it uses a translation that it had.
    /// Returns how many launches that took.
    pub(crate) fn invalidate(
        &mut self,
        hardware: &impl Hardware,
        lpid: Lpid,
    ) -> Result<u32, Untold> {
        let launches = self.shoot_down(hardware, lpid).or_else(|told| {
            for (gpu, _) in self.gpus.iter_mut().zip(told).filter(|(_, told)| *told) {
                if let Some(gpu) = gpu {
                    gpu.give_up(hardware);
                }
            }
            Ok(0)
        })?;
        let of_lpar = || self.gpus.iter().flatten().filter(|gpu| gpu.lpid == lpid);

        for untold in [Untold::Dead, Untold::Owed] {
            if of_lpar().any(|gpu| gpu.untold() == Err(untold)) {
                return Err(untold);
            }
        }
        Ok(launches)
    }

    /// Has a GPU forget what it knows, and get nothing more, while it can be told: translation
    /// ends, then it is told, for which its links have to be up and shootdowns to get through, and
    /// then these end, too. What is left is a GPU that may be reset, or whose LPAR may go. Returns
    /// whether it has nothing any more.
    pub(crate) fn forget(&mut self, hardware: &impl Hardware, bdfn: Bdfn) -> bool {
        let Some(gpu) = self.gpu(bdfn) else {
            return true;
        };

        // It was told when it became quiet, or has not been anybody's.
        if gpu.quiet || gpu.state == State::Dead {
            return gpu.state == State::Works;
        }
        let valid = match gpu.valid {
            0 => gpu.set_valid(hardware, PID_VALID_ATR, 0),
            valid => valid,
        };

        // Nothing is to be set again when it has forgotten.
        gpu.valid = 0;
        let told = self.shoot_down_for(hardware, bdfn);

        if let Some(gpu) = self.gpu(bdfn) {
            if told == Told::NoAnswer {
                gpu.state = State::Owed;
            }
            gpu.pause(hardware);
            gpu.valid = valid;
        }
        told == Told::Forgot
    }

    /// A GPU is about to be reset, or that is over. If it may not have been it has to forget first
    /// what was lost meanwhile: [`Xts::pay`].
    pub(crate) fn set_quiet(&mut self, hardware: &impl Hardware, bdfn: Bdfn, quiet: bool) {
        if quiet {
            self.forget(hardware, bdfn);
        }
        let Some(gpu) = self.gpu(bdfn) else {
            return;
        };
        let was = core::mem::replace(&mut gpu.quiet, quiet);

        if quiet || !was || gpu.state == State::Dead {
            return;
        }
        // A link that stayed up was not reset, so was the GPU?
        if !gpu.links.up(hardware).is_empty() {
            gpu.state = State::Owed;
        }
        // Nor need it have been if its user took the links down.
        if gpu.state == State::Works {
            gpu.resume(hardware);
        }
    }

    /// Has a GPU told what it is owed, if that can be done now.
    pub(crate) fn pay(&mut self, hardware: &impl Hardware, bdfn: Bdfn) -> Result<(), Untold> {
        if self.gpu(bdfn).map_or(Ok(()), |gpu| gpu.untold()) == Err(Untold::Owed)
            && self.shoot_down_for(hardware, bdfn) == Told::NoAnswer
        {
            if let Some(gpu) = self.gpu(bdfn) {
                gpu.give_up(hardware);
            }
        }
        self.gpu(bdfn).map_or(Ok(()), |gpu| gpu.untold())
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_xts))]
mod tests {
    use super::*;
    use crate::pure::lpid::Guest;
    use core::cell::Cell;

    const GPU: Bdfn = Bdfn(0x0400);
    const OTHER: Bdfn = Bdfn(0x0500);
    /// Entries of the BDF map that OPAL makes for them, by their first links, and of the PID map.
    const BDF: [u64; 2] = [0xc800_0400_0180_0001, 0xc500_0500_0180_1001];
    const PID: u64 = 0xe000_0048_0000_0000;
    const STATUS: u64 = 0x10;

    /// Registers that keep what is written, and of which launches end unless `stuck`.
    struct Fake {
        registers: [Cell<(u64, u64)>; 32],
        launched: Cell<u32>,
        flushed: Cell<u32>,
        waited: Cell<u32>,
        stuck: Cell<bool>,
    }

    impl Fake {
        fn new() -> Self {
            let this = Self {
                registers: [const { Cell::new((u64::MAX, 0)) }; 32],
                launched: Cell::new(0),
                flushed: Cell::new(0),
                waited: Cell::new(0),
                stuck: Cell::new(false),
            };

            for (entry, n) in BDF.into_iter().zip(0u64..) {
                this.set(Register::bdf_map(n), entry);
                this.set(Register::pid_map(n), PID);
            }
            this
        }

        fn cell(&self, register: Register) -> &Cell<(u64, u64)> {
            let is = |offset| move |cell: &&Cell<(u64, u64)>| cell.get().0 == offset;
            let cell = (self.registers.iter().find(is(register.0)))
                .or_else(|| self.registers.iter().find(is(u64::MAX)))
                .unwrap_or(&self.registers[0]);

            cell.set((register.0, cell.get().1));
            cell
        }

        fn set(&self, register: Register, value: u64) {
            self.cell(register).set((register.0, value));
        }

        fn fence(&self, links: &[u64], fenced: bool) {
            for link in links {
                self.set(
                    Register::fence_status(*link),
                    if fenced { FENCED } else { 0 },
                );
            }
        }

        fn valid(&self, n: u64) -> u64 {
            self.read(Register::pid_map(n)) & PID_VALID
        }

        fn launched(&self) -> u32 {
            self.launched.replace(0)
        }
    }

    impl Hardware for Fake {
        fn read(&self, register: Register) -> u64 {
            self.cell(register).get().1
        }

        fn write(&self, register: Register, value: u64) {
            self.set(register, value);
            // LAUNCH of a block, of which there are two.
            if register.0 & 0xffff == 0 && register.0 < 0x10_0000 {
                self.launched.set(self.launched.get().saturating_add(1));
                self.set(Register(register.0 | STATUS), self.stuck.get().into());
            }
        }

        fn flush_nest_mmu(&self, _lpid: Lpid) {
            self.flushed.set(self.flushed.get().saturating_add(1));
        }

        fn wait(&self) {
            self.waited.set(self.waited.get().saturating_add(1));
        }
    }

    fn block(n: u64) -> Option<Block> {
        Some(Block {
            launch: Register::nth(0, n, 0x1_0000),
            status: Register::nth(STATUS, n, 0x1_0000),
            lparid: Register::lparid(n),
            busy: false,
        })
    }

    fn lpid(lpid: u64) -> Option<Lpid> {
        Lpid::of(Guest {
            hv: true,
            radix: true,
            lpid,
        })
        .ok()
    }

    /// Two GPUs of LPID 1, with three links each, that were reset and trained.
    fn bed() -> Option<(Fake, Xts, Lpid)> {
        let hardware = Fake::new();
        let lpid = lpid(1)?;
        let mut xts = Xts::new(HostBlocks([
            None,
            None,
            None,
            None,
            None,
            None,
            block(6),
            block(7),
        ]));

        hardware.fence(&[0, 1, 2, 3, 4, 5], true);
        for (bdfn, links) in [(GPU, [0, 1, 2]), (OTHER, [3, 4, 5])] {
            xts.add(&hardware, bdfn, Links::of(&links), lpid)
                .then_some(())?;
            xts.set_quiet(&hardware, bdfn, false);
        }
        hardware.fence(&[0, 1, 2, 3, 4, 5], false);
        Some((hardware, xts, lpid))
    }

    #[test]
    fn nothing_before_it_was_reset() {
        let hardware = Fake::new();
        let mut xts = Xts::new(HostBlocks([block(6); 8]));

        let lpid = lpid(1).unwrap();

        assert!(xts.add(&hardware, GPU, Links::of(&[0]), lpid));
        assert!(xts.has(GPU) && !xts.has(OTHER));
        assert_eq!(hardware.valid(0), 0);
        assert_eq!(hardware.valid(1), PID_VALID);
        hardware.fence(&[0], true);
        xts.set_quiet(&hardware, GPU, false);
        assert_eq!(hardware.valid(0), PID_VALID);
        assert_eq!(hardware.launched(), 0);
    }

    #[test]
    fn all_gpus_are_told_of_a_loss() {
        let (hardware, mut xts, lpid) = bed().unwrap();

        assert_eq!(xts.invalidate(&hardware, lpid), Ok(4));
        assert_eq!((hardware.launched(), hardware.flushed.get()), (4, 1));
        assert_eq!(hardware.read(Register::lparid(6)), 0);
        assert_eq!(
            (hardware.valid(0), hardware.valid(1)),
            (PID_VALID, PID_VALID)
        );
    }

    #[test]
    fn others_are_not() {
        let (hardware, mut xts, _) = bed().unwrap();

        let other = lpid(2).unwrap();

        assert_eq!(xts.invalidate(&hardware, other), Ok(0));
        assert_eq!(hardware.launched(), 0);
    }

    #[test]
    fn another_link_is_taken_if_the_first_is_down() {
        let (hardware, mut xts, lpid) = bed().unwrap();

        hardware.fence(&[0], true);
        assert_eq!(xts.invalidate(&hardware, lpid), Ok(4));
        assert_eq!(hardware.read(Register::bdf_map(0)), BDF[0] ^ 1 << 56);
        assert_eq!(hardware.read(Register::bdf_map(1)), BDF[1]);
    }

    #[test]
    fn links_that_are_down_put_it_off() {
        let (hardware, mut xts, lpid) = bed().unwrap();

        hardware.fence(&[0, 1, 2], true);
        assert_eq!(xts.invalidate(&hardware, lpid), Err(Untold::Owed));
        assert_eq!((hardware.valid(0), hardware.valid(1)), (0, PID_VALID));
        assert_eq!(xts.pay(&hardware, GPU), Err(Untold::Owed));
        assert_eq!(hardware.launched(), 4);
        hardware.fence(&[2], false);
        assert_eq!(xts.pay(&hardware, GPU), Ok(()));
        assert_eq!((hardware.launched(), hardware.valid(0)), (4, PID_VALID));
    }

    #[test]
    fn who_does_not_answer_is_given_up() {
        let (hardware, mut xts, lpid) = bed().unwrap();

        hardware.stuck.set(true);
        assert_eq!(xts.invalidate(&hardware, lpid), Err(Untold::Dead));
        assert_eq!(hardware.waited.get(), TIMEOUT_US);
        assert_eq!((hardware.valid(0), hardware.valid(1)), (0, 0));
        hardware.stuck.set(false);
        assert_eq!(xts.pay(&hardware, GPU), Err(Untold::Dead));
        assert!(!xts.forget(&hardware, GPU));
        // By the other block.
        xts.remove(GPU);
        assert!(xts.add(&hardware, GPU, Links::of(&[0]), lpid));
        assert_eq!(hardware.read(Register::lparid(6)), 1);
    }

    #[test]
    fn whom_no_block_is_left_for_is_given_up() {
        let (hardware, mut xts, lpid) = bed().unwrap();

        hardware.stuck.set(true);
        // One for each block.
        xts.set_quiet(&hardware, OTHER, true);
        hardware.fence(&[3, 4, 5], true);
        xts.set_quiet(&hardware, GPU, true);
        xts.set_quiet(&hardware, GPU, false);
        assert_eq!(hardware.launched(), 2);
        assert_eq!(hardware.waited.get(), 2 * TIMEOUT_US);
        assert_eq!(xts.pay(&hardware, GPU), Err(Untold::Dead));
        assert_eq!(xts.invalidate(&hardware, lpid), Err(Untold::Dead));
        assert_eq!((hardware.launched(), hardware.valid(0)), (0, 0));
        assert_eq!(hardware.waited.get(), 2 * TIMEOUT_US);
    }

    #[test]
    fn it_forgets_before_a_reset() {
        let (hardware, mut xts, lpid) = bed().unwrap();

        xts.set_quiet(&hardware, GPU, true);
        assert_eq!((hardware.launched(), hardware.valid(0)), (4, 0));
        assert_eq!(hardware.valid(1), PID_VALID);
        assert_eq!(xts.invalidate(&hardware, lpid), Ok(4));
        assert_eq!((hardware.launched(), hardware.valid(0)), (4, 0));
        hardware.fence(&[0, 1, 2], true);
        // What was lost meanwhile.
        xts.set_quiet(&hardware, GPU, false);
        assert_eq!(
            (hardware.valid(0), xts.pay(&hardware, GPU)),
            (0, Err(Untold::Owed))
        );
    }

    #[test]
    fn a_reset_costs_others_nothing() {
        let (hardware, mut xts, _) = bed().unwrap();

        hardware.stuck.set(true);
        xts.set_quiet(&hardware, GPU, true);
        assert_eq!((hardware.valid(0), hardware.valid(1)), (0, PID_VALID));
        hardware.stuck.set(false);
        hardware.fence(&[0, 1, 2], true);
        xts.set_quiet(&hardware, GPU, false);
        assert_eq!(xts.pay(&hardware, GPU), Err(Untold::Owed));
        hardware.fence(&[0, 1, 2], false);
        assert_eq!(xts.pay(&hardware, GPU), Ok(()));
        assert_eq!(hardware.valid(0), PID_VALID);
    }

    #[test]
    fn links_that_stayed_up_were_not_reset() {
        let (hardware, mut xts, _) = bed().unwrap();

        xts.set_quiet(&hardware, GPU, true);
        assert_eq!(hardware.launched(), 4);
        xts.set_quiet(&hardware, GPU, false);
        assert_eq!((hardware.launched(), hardware.valid(0)), (0, 0));
        assert_eq!(xts.pay(&hardware, GPU), Ok(()));
        assert_eq!((hardware.launched(), hardware.valid(0)), (4, PID_VALID));
    }

    #[test]
    fn guests_launch_for_themselves() {
        let hardware = Fake::new();

        Xts::set_lparids(&hardware, Links::of(&[0, 2]), 7);
        assert_eq!(
            [0, 1, 2].map(|n| hardware.read(Register::lparid(n))),
            [7, 0, 7]
        );
        assert_eq!(Register::lparid(2).offset(), 0x71_0110);
    }

    #[test]
    fn what_cannot_be_told_is_not_forgotten() {
        let (hardware, mut xts, _) = bed().unwrap();

        hardware.fence(&[0, 1, 2], true);
        assert!(!xts.forget(&hardware, GPU));
        assert_eq!((hardware.launched(), hardware.valid(0)), (0, 0));
        assert!(xts.forget(&hardware, OTHER));
        assert_eq!((hardware.launched(), hardware.valid(1)), (4, 0));
    }
}
