// SPDX-License-Identifier: GPL-2.0

//! What the processes of a round share: counters, who does what, and which links are trained.
//!
//! A GPU's RAM answers only while its links are trained, and nobody but the GPU's user can know. An
//! access that comes too early is lost and fences the links, on this machine as on a real one, and no
//! driver can prevent it. So that lost accesses can be blamed on the driver, the processes here don't
//! make such: who may untrain links says so and waits for the accesses under way
//! ([`Shared::untraining`]); who accesses RAM looks first ([`Shared::accessing`]). Where memory space
//! is off, or the GPU in D3, accesses are lost as well, but the driver has to refuse them: then nobody
//! waits. A GPU whose DMA is mapped to the RAM of another can make such accesses, too, which no driver
//! refuses ([`Shared::copying`]).

use crate::{op::Op, points::Point};
use std::{
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use strum::{EnumCount, VariantNames};

/// Processes at most.
pub const PROCESSES: usize = 16;
/// GPUs at most.
pub const GPUS: usize = 8;
/// Groups at most.
pub const GROUPS: usize = 4;
/// Functions at most.
pub const FUNCTIONS: usize = 64;
/// Descriptors of one function that a process may have.
pub const COPIES: usize = 2;

/// A process, as others see it.
pub struct Process {
    /// Its id.
    pub pid: AtomicI32,
    /// Number of the operation it is at, from 1.
    pub operation: AtomicU64,
    /// When that began: milliseconds since the clock's start, 0 if none is under way.
    pub since: AtomicU64,
    /// Descriptors of devices, plus one; 0 is none.
    pub devices: [[AtomicI32; COPIES]; FUNCTIONS],
    /// Its administrator has closed all devices.
    pub admin_ready: AtomicU32,
}

/// A GPU's links.
pub struct Links {
    owner: AtomicI32,
    trained: AtomicU32,
    /// Memory space may be off, or the GPU in D3.
    asleep: AtomicU32,
    accesses: AtomicU32,
}

/// How often an entry point was reached.
pub struct Count {
    /// With success.
    pub done: AtomicU64,
    /// With an error or a signal.
    pub refused: AtomicU64,
}

/// See the module.
pub struct Shared {
    /// By number.
    pub processes: [Process; PROCESSES],
    links: [Links; GPUS],
    points: [Count; Point::COUNT],
    /// Milliseconds spent on each kind of operation, and how many of each there were.
    times: [(AtomicU64, AtomicU64); Op::VARIANTS.len()],
    /// How many processes there are.
    pub used: AtomicUsize,
    /// Virtual machines that each group was added to.
    pub machines: [AtomicU32; GROUPS],
    /// Operations that were done.
    pub executed: AtomicU64,
    /// Operations for which there was no descriptor or mapping.
    pub skipped: AtomicU64,
    /// What is not as it has to be.
    pub violations: AtomicU64,
    /// Administrators under way.
    pub admins: AtomicU32,
    /// TCEs to GPU RAM that this round had, or tries to get.
    ram_tces: AtomicU32,
    /// Copies of GPUs under way.
    copies: AtomicU32,
}

/// Looks at a condition until it holds.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        thread::sleep(Duration::from_micros(if start.elapsed().as_millis() < 5 {
            50
        } else {
            500
        }));
    }
}

impl Shared {
    /// Counts a call.
    pub fn count<T, E>(&self, point: Point, result: &Result<T, E>) {
        let count = &self.points[point as usize];
        let which = if result.is_ok() {
            &count.done
        } else {
            &count.refused
        };
        which.fetch_add(1, SeqCst);
    }

    /// How often `point` was reached: with success, and with a refusal.
    pub fn reached(&self, point: Point) -> (u64, u64) {
        let count = &self.points[point as usize];
        (count.done.load(SeqCst), count.refused.load(SeqCst))
    }

    /// Counts an operation and its time.
    pub fn spent(&self, op: &Op, milliseconds: u64) {
        let name: &str = op.into();
        if let Some(index) = Op::VARIANTS.iter().position(|other| *other == name) {
            self.times[index].0.fetch_add(milliseconds, SeqCst);
            self.times[index].1.fetch_add(1, SeqCst);
        }
    }

    /// Name, seconds and number of each kind of operation, the longest first.
    pub fn times(&self) -> Vec<(&'static str, u64, u64)> {
        let one = |(name, (time, count)): (&&'static str, &(AtomicU64, AtomicU64))| {
            (*name, time.load(SeqCst) / 1000, count.load(SeqCst))
        };
        let mut times: Vec<_> = Op::VARIANTS.iter().zip(&self.times).map(one).collect();
        times.sort_by_key(|(_, seconds, _)| std::cmp::Reverse(*seconds));
        times
    }

    /// Says what is not as it has to be.
    pub fn violation(&self, what: &str) {
        self.violations.fetch_add(1, SeqCst);
        println!("VIOLATION: {what}");
    }

    /// Forgets what the processes of an earlier round left.
    pub fn begin_round(&self) {
        for process in &self.processes {
            process.since.store(0, SeqCst);
            process.operation.store(0, SeqCst);
            process
                .devices
                .iter()
                .flatten()
                .for_each(|fd| fd.store(0, SeqCst));
        }
        self.machines
            .iter()
            .for_each(|count| count.store(0, SeqCst));
        for links in &self.links {
            links.owner.store(0, SeqCst);
            links.trained.store(0, SeqCst);
            links.asleep.store(0, SeqCst);
            links.accesses.store(0, SeqCst);
        }
        self.ram_tces.store(0, SeqCst);
        self.copies.store(0, SeqCst);
    }

    /// GPU RAM will be mapped for DMA, unless [`Shared::not_mapped`] says that it was not.
    pub fn mapping_for_dma(&self) {
        self.ram_tces.fetch_add(1, SeqCst);
        wait_until(|| self.copies.load(SeqCst) == 0);
    }

    /// See [`Shared::mapping_for_dma`].
    pub fn not_mapped(&self) {
        self.ram_tces.fetch_sub(1, SeqCst);
    }

    /// Whether GPUs may copy from and to any address as long as the result exists: no TCE leads to
    /// GPU RAM, or the links of all `gpus` are trained and none is asleep.
    pub fn copying(&self, gpus: usize) -> Option<Copying<'_>> {
        self.copies.fetch_add(1, SeqCst);
        let mut copying = Copying {
            shared: self,
            _accesses: Vec::new(),
        };
        if self.ram_tces.load(SeqCst) != 0 {
            for gpu in 0..gpus {
                copying._accesses.push(self.accessing(gpu)?);
                if self.links[gpu].asleep.load(SeqCst) != 0 {
                    return None;
                }
            }
        }
        Some(copying)
    }

    /// Whether the links of `gpu` are trained, and an access may be made as long as the result exists.
    pub fn accessing(&self, gpu: usize) -> Option<Accessing<'_>> {
        let links = &self.links[gpu];
        links.accesses.fetch_add(1, SeqCst);
        let access = Accessing(links);
        (links.trained.load(SeqCst) != 0).then_some(access)
    }

    /// The links of GPUs `first..=last` may be untrained as long as the result exists.
    pub fn untraining(&self, first: usize, last: usize) -> Untraining<'_> {
        let mut guard = self.own(first, last);
        guard.before = guard
            .links
            .iter()
            .map(|one| one.trained.swap(0, SeqCst))
            .collect();
        guard
    }

    /// GPU `gpu` may be put to sleep as long as the result exists, while accesses go on.
    pub fn putting_to_sleep(&self, gpu: usize) -> Untraining<'_> {
        let guard = self.own(gpu, gpu);
        guard.asleep();
        guard
    }

    fn own(&self, first: usize, last: usize) -> Untraining<'_> {
        let links = &self.links[first..=last];
        for one in links {
            wait_until(|| one.owner.compare_exchange(0, 1, SeqCst, SeqCst).is_ok());
        }
        Untraining {
            links,
            before: Vec::new(),
            copies: &self.copies,
        }
    }
}

/// See [`Shared::accessing`].
pub struct Accessing<'a>(&'a Links);

impl Drop for Accessing<'_> {
    fn drop(&mut self) {
        self.0.accesses.fetch_sub(1, SeqCst);
    }
}

/// See [`Shared::copying`].
pub struct Copying<'a> {
    shared: &'a Shared,
    _accesses: Vec<Accessing<'a>>,
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.shared.copies.fetch_sub(1, SeqCst);
    }
}

/// See [`Shared::untraining`].
pub struct Untraining<'a> {
    links: &'a [Links],
    before: Vec<u32>,
    copies: &'a AtomicU32,
}

impl Untraining<'_> {
    /// Waits for accesses that began before. None begins before a GPU is said to be trained.
    pub fn wait(&self) {
        for links in self.links {
            wait_until(|| links.accesses.load(SeqCst) == 0);
        }
    }

    /// Memory space will be switched off, or the GPUs put to D3: waits for copies that began before.
    pub fn asleep(&self) {
        for links in self.links {
            links.asleep.store(1, SeqCst);
        }
        wait_until(|| self.copies.load(SeqCst) == 0);
    }

    /// The links of the GPU that is number `index` of those are trained, which only one that is awake
    /// says.
    pub fn trained(&self, index: usize) {
        if let Some(links) = self.links.get(index) {
            links.asleep.store(0, SeqCst);
            links.trained.store(1, SeqCst);
        }
    }

    /// Nothing has happened to the links.
    pub fn as_before(&self) {
        for (links, before) in self.links.iter().zip(&self.before) {
            links.trained.store(*before, SeqCst);
        }
    }
}

impl Drop for Untraining<'_> {
    fn drop(&mut self) {
        self.links
            .iter()
            .for_each(|links| links.owner.store(0, SeqCst));
    }
}
