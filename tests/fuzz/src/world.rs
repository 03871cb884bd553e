// SPDX-License-Identifier: GPL-2.0

//! What one process has, and how operations are done with it.

use crate::{
    machine::{Function, Machine},
    op::{Argsz, Device, Length, Memory, Op, Part, Place, Pointer},
    points::Point,
    shared::{Shared, Untraining},
    sys::{self, vfio, Arena, Outcome, PAGE},
};
use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::atomic::Ordering::SeqCst,
};

mod container;
mod device;
mod kvm;
mod mapping;

/// What became of an operation.
pub enum Done {
    /// It was done, whatever the kernel said.
    Yes,
    /// There was nothing to do it with.
    Skipped,
}

/// The region behind those of vfio-pci.
const OWN: u32 = 9;
const CONFIG: u32 = 7;
const BARS: std::ops::Range<u32> = 0..6;

/// VFIO_GROUP_UNSET_CONTAINER
const UNSET_CONTAINER: u32 = 5;

/// Registers of the model in BAR0 (`tests/qemu/include/nvlink2-v100-regs.h`).
const LINK_TRAIN: u64 = 0xf0_0010;
const LINK_STATUS: u64 = 0xf0_0014;
const LINK_MASK: u64 = 0xf0_0018;
/// Commands to links: not for random writes.
const KEEP_OFF: std::ops::Range<u64> = LINK_TRAIN..LINK_TRAIN + 4;
const ENGINE: u64 = 0xf0_1000;

/// A mapping of a device.
struct Map {
    at: usize,
    len: usize,
    function: usize,
    region: u32,
    /// In the region.
    offset: u64,
}

/// A window of a container that this process made.
struct Window {
    container: usize,
    start: u64,
    size: u64,
    shift: u32,
}

/// A virtual machine.
struct Vm {
    vm: OwnedFd,
    vfio: Option<OwnedFd>,
    /// Descriptors of tables and vCPUs.
    others: Vec<OwnedFd>,
    /// Groups that were added.
    groups: Vec<usize>,
}

/// What all processes of a round begin with.
#[derive(Default)]
pub struct Inherited {
    /// The groups of the machine; only one process can open a group.
    pub groups: Vec<OwnedFd>,
    /// One container more than there are groups.
    pub containers: Vec<OwnedFd>,
}

/// See the module.
pub struct World<'a> {
    machine: &'a Machine,
    shared: &'a Shared,
    me: usize,
    arena: Arena,
    inherited: Inherited,
    devices: Vec<Vec<OwnedFd>>,
    maps: Vec<Map>,
    windows: Vec<Window>,
    vm: Option<Vm>,
    event: OwnedFd,
}

/// Bytes of a structure, in the byte order of the CPU.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
}

/// A structure that starts with `argsz`, of `size` bytes of which `least` must be there.
fn sized(argsz: Argsz, size: u32, least: u32) -> Bytes {
    Bytes::default().u32(match argsz {
        Argsz::Exact => size,
        Argsz::Room => size + 256,
        Argsz::Zero => 0,
        Argsz::Less => least - 1,
        Argsz::Max => u32::MAX,
    })
}

impl<'a> World<'a> {
    /// Of process `me`.
    pub fn new(
        machine: &'a Machine,
        shared: &'a Shared,
        me: usize,
        inherited: Inherited,
    ) -> Outcome<Self> {
        sys::survive_faults();
        Ok(Self {
            machine,
            shared,
            me,
            arena: Arena::new()?,
            inherited,
            devices: machine.functions.iter().map(|_| Vec::new()).collect(),
            maps: Vec::new(),
            windows: Vec::new(),
            vm: None,
            event: sys::eventfd()?,
        })
    }

    /// Gives up everything. What closes a device for the last time resets it.
    pub fn end(self) {
        // All GPUs at once: the order in which things are closed is the kernel's.
        let guard = self.shared.untraining(0, self.machine.gpus.len() - 1);
        guard.wait();
        for map in &self.maps {
            let _ = sys::unmap(map.at, map.len);
        }
        let me = &self.shared.processes[self.me];
        me.devices
            .iter()
            .flatten()
            .for_each(|fd| fd.store(0, SeqCst));
        drop(self.devices);
        drop(self.vm);
        // Refused while others have devices open.
        for group in &self.inherited.groups {
            let result = sys::ioctl(group.as_raw_fd(), vfio(UNSET_CONTAINER), 0);
            self.shared.count(Point::GroupUnsetContainer, &result);
        }
        drop(self.inherited);
        drop(guard);
    }

    /// Does an operation.
    pub fn run(&mut self, op: &Op) -> Done {
        let done = match *op {
            Op::Open { function } => self.open(self.function(function)),
            Op::OpenNonsense { group, name } => self.open_nonsense(group, name),
            Op::Close { function } => self.close(self.function(function)),
            Op::Steal { process, function } => self.steal(process, self.function(function)),
            Op::Device { function, request } => {
                self.device_request(self.function(function), request)
            }
            Op::Reset {
                function,
                how,
                train,
            } => self.reset(self.function(function), how, train),
            Op::Config { function, write } => self.config(self.function(function), write),
            Op::Read {
                function,
                region,
                place,
                len,
                to,
            } => self.access(self.function(function), region, place, len, to, None),
            Op::Write {
                function,
                region,
                place,
                len,
                from,
                value,
            } => self.access(
                self.function(function),
                region,
                place,
                len,
                from,
                Some(value),
            ),
            Op::Shootdown {
                function,
                register,
                words,
            } => self.shootdown(self.function(function), register, words),
            Op::Map {
                function,
                region,
                place,
                len,
                prot,
                private,
                aligned,
            } => self.map(
                self.function(function),
                region,
                place,
                len,
                prot,
                private,
                aligned,
            ),
            Op::Touch {
                mapping,
                place,
                write,
                size,
                by,
            } => self.touch(mapping, place, write, size, by),
            Op::Unmap { mapping, part } => self.unmap(mapping, part),
            Op::Remap {
                mapping,
                part,
                grow,
                aligned,
            } => self.remap(mapping, part, grow, aligned),
            Op::Protect {
                mapping,
                part,
                prot,
            } => self.protect(mapping, part, prot),
            Op::Advise {
                mapping,
                part,
                advice,
            } => self.advise(mapping, part, advice),
            Op::Lock { mapping, part } => self.lock(mapping, part),
            Op::GroupStatus { group, argsz } => self.group_status(group, argsz),
            Op::SetContainer { group, container } => self.set_container(group, container),
            Op::UnsetContainer { group } => self.unset_container(group),
            Op::OpenGroup { group } => self.open_group(group),
            Op::Container { container, request } => self.container(container, request),
            Op::SetUp { group, kvm } => self.set_up(group, kvm),
            Op::Kvm(what) => self.kvm(what),
            Op::Train { gpu } => self.train(gpu, true),
            Op::Untrain { gpu } => self.train(gpu, false),
            Op::Engine {
                gpu,
                paths,
                source,
                destination,
                len,
                pasid,
                link,
            } => self.engine(gpu, paths, source, destination, len, pasid, link),
            Op::Debugfs { function, file } => self.debugfs(self.function(function), file),
            Op::Admin { function, what } => self.admin(self.function(function), what),
        };
        match done {
            Some(()) => Done::Yes,
            None => Done::Skipped,
        }
    }

    /// The function that a number means: as often a GPU as a bridge, of which there are more.
    fn function(&self, number: u8) -> usize {
        let number = usize::from(number);
        if number < 128 {
            self.machine.gpus[number % self.machine.gpus.len()]
        } else {
            number % self.machine.functions.len()
        }
    }

    fn info(&self, function: usize) -> &'a Function {
        &self.machine.functions[function]
    }

    /// The descriptor of a group that a number means.
    fn group(&self, number: u8) -> (usize, RawFd) {
        let index = usize::from(number) % self.inherited.groups.len();
        (index, self.inherited.groups[index].as_raw_fd())
    }

    /// A descriptor of a device, opened if there is none.
    fn device(&mut self, function: usize) -> Option<RawFd> {
        if self.devices[function].is_empty() {
            self.open(function);
        }
        self.opened(function)
    }

    fn opened(&self, function: usize) -> Option<RawFd> {
        self.devices[function].last().map(|fd| fd.as_raw_fd())
    }

    /// Whatever is done while the result exists may take links of the function's GPU down, or, by way
    /// of a bridge, of all GPUs of the NPU.
    fn untraining(&self, function: usize) -> Untraining<'a> {
        let guard = self.untraining_soon(function);
        guard.wait();
        guard
    }

    /// The same, without waiting for the accesses that are under way.
    fn untraining_soon(&self, function: usize) -> Untraining<'a> {
        let function = self.info(function);
        if function.is_gpu {
            return self.shared.untraining(function.gpu, function.gpu);
        }
        let (first, last) = self.machine.gpus_of(function.group);
        self.shared.untraining(first, last)
    }

    /// Tells others which GPUs are trained, as far as this process can see.
    fn look_at_links(&self, function: usize, guard: &Untraining<'_>) {
        let function = self.info(function);
        let (first, last) = if function.is_gpu {
            (function.gpu, function.gpu)
        } else {
            self.machine.gpus_of(function.group)
        };
        for gpu in first..=last {
            self.look_at_link(gpu, gpu - first, guard);
        }
    }

    /// The same of one GPU, which `guard` has as number `index`.
    fn look_at_link(&self, gpu: usize, index: usize, guard: &Untraining<'_>) {
        let Some(fd) = self.opened(self.machine.gpus[gpu]) else {
            return;
        };
        if self.links_are_up(fd) {
            guard.trained(index);
        }
    }

    /// Whether all links of a GPU are trained. One whose memory space is off says all ones.
    fn links_are_up(&self, fd: RawFd) -> bool {
        let mask = self.model_register(fd, LINK_MASK);
        mask.is_some_and(|mask| mask != 0 && mask != u32::MAX)
            && mask == self.model_register(fd, LINK_STATUS)
    }

    /// A register of the model. The last page of the scratch is for this.
    fn model_register(&self, fd: RawFd, offset: u64) -> Option<u32> {
        let at = PAGE / 2;
        let read = sys::pread(fd, self.arena.scratch() + at, 4, offset).ok()?;
        (read == 4).then(|| self.arena.u32(at))
    }

    fn set_register(&self, fd: RawFd, offset: u64, value: u32) -> Outcome {
        let at = self.arena.argument(&value.to_ne_bytes());
        sys::pwrite(fd, at, 4, offset)
    }

    fn pointer(&self, pointer: Pointer) -> usize {
        match pointer {
            Pointer::Good => self.arena.scratch(),
            Pointer::Null => 0,
            Pointer::Unmapped => self.arena.unmapped(),
            Pointer::Kernel => 0xc000_0000_0000_0000,
            Pointer::ReadOnly => self.arena.read_only(),
            Pointer::Straddling => self.arena.unmapped() - 8,
            Pointer::Mapping(number) => self
                .own_mapping(number)
                .map_or(self.arena.unmapped(), |map| map.at),
        }
    }

    /// Address and length of memory.
    fn memory(&self, memory: Memory) -> Option<(u64, u64)> {
        let page = PAGE as u64;
        // GPU RAM mostly: nothing else can be registered.
        let mapping = |number: u8| {
            let ram = self.maps.iter().filter(|map| self.is_gpu_ram(map));
            match number {
                0..200 => ram.clone().nth(usize::from(number) % ram.count().max(1)),
                _ => self.maps.get(usize::from(number) % self.maps.len().max(1)),
            }
        };
        Some(match memory {
            Memory::Ordinary { page: first, pages } => {
                let first = usize::from(first) % Arena::ORDINARY;
                (self.arena.ordinary(first) as u64, u64::from(pages) * page)
            }
            Memory::Mapping(number) => {
                mapping(number).map(|map| (map.at as u64, map.len as u64))?
            }
            Memory::PartOfMapping {
                mapping: number,
                pages,
            } => mapping(number).map(|map| (map.at as u64 + page, u64::from(pages) * page))?,
            Memory::Nonsense(value) => (value, value.rotate_left(7)),
        })
    }

    /// Size of a region, from VFIO_DEVICE_GET_REGION_INFO.
    fn region_size(&self, fd: RawFd, region: u32) -> Option<u64> {
        let at = self
            .arena
            .argument(&Bytes::default().u32(32).u32(0).u32(region).u32(0).0);
        sys::ioctl(fd, vfio(8), at).ok()?;
        Some(self.arena.u64(16))
    }
}

/// Where in the device's file a region is.
fn file_offset(region: u32, offset: u64) -> u64 {
    (u64::from(region) << 40) + (offset & ((1 << 40) - 1))
}

fn place(place: Place, size: u64) -> u64 {
    match place {
        Place::Byte(byte) => byte.into(),
        Place::Page(page) => u64::from(page) * PAGE as u64,
        Place::TwoMegabytes(number) => u64::from(number) << 21,
        Place::End(delta) => size.wrapping_add_signed(delta.into()),
        Place::Anywhere(value) => value & ((1 << 40) - 1),
    }
}

fn length(length: Length, size: u64) -> u64 {
    match length {
        Length::Bytes(bytes) => bytes.into(),
        Length::Pages(pages) => u64::from(pages) * PAGE as u64,
        Length::Region => size,
        Length::Beyond => size.saturating_add(PAGE as u64),
    }
}

/// Offset and length of a part of `len` bytes, in whole CPU pages.
fn part(part: Part, len: usize) -> (usize, usize) {
    let half = (len / 2).next_multiple_of(PAGE).min(len);
    match part {
        Part::Whole => (0, len),
        Part::Head => (0, half),
        Part::Tail => (
            half.min(len.saturating_sub(PAGE)),
            len - half.min(len.saturating_sub(PAGE)),
        ),
        Part::Middle => (half.saturating_sub(PAGE), PAGE.min(len)),
    }
}
