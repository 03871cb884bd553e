// SPDX-License-Identifier: GPL-2.0

//! Devices: open, close, ioctls, read, write, resets, links, the engine, debugfs and binding.

use super::{
    file_offset, length, place, sized, Bytes, Device, World, BARS, CONFIG, ENGINE, KEEP_OFF,
    LINK_TRAIN, OWN,
};
use crate::{
    machine::{self, RAM},
    op::{Admin, Config, Length, Place, Pointer, Reset},
    points::Point,
    shared::{wait_until, Accessing, Shared, Untraining, COPIES},
    sys::{self, vfio, Outcome},
};
use std::{
    fs,
    os::fd::{AsRawFd, RawFd},
    sync::atomic::Ordering::SeqCst,
};

const GET_INFO: u32 = 7;
const GET_REGION_INFO: u32 = 8;
const GET_IRQ_INFO: u32 = 9;
const SET_IRQS: u32 = 10;
const RESET: u32 = 11;
const GET_PCI_HOT_RESET_INFO: u32 = 12;
const PCI_HOT_RESET: u32 = 13;
const IOEVENTFD: u32 = 16;
const FEATURE: u32 = 17;
const FEATURES_LOW_POWER: std::ops::RangeInclusive<u32> = 3..=5;
const FEATURE_SET: u32 = 1 << 17;
const FEATURE_PROBE: u32 = 1 << 18;

const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: u16 = 6;
const CAPABILITIES: u64 = 0x34;
const CAP_POWER: u8 = 1;
const CAP_EXPRESS: u8 = 0x10;
const DEVICE_CONTROL: u64 = 8;
const DEVICE_CONTROL_FLR: u16 = 1 << 15;
const POWER_CONTROL: u64 = 4;

/// At most this many bytes of a BAR in one read or write: each 4 are an access of the device.
const BAR_BYTES: u64 = 0x400;
/// At most this many administrators at a time.
const ADMINS: u32 = 2;

impl World<'_> {
    fn share(&self, function: usize) {
        let slots = &self.shared.processes[self.me].devices[function];
        for (index, slot) in slots.iter().enumerate() {
            let fd = self.devices[function]
                .get(index)
                .map_or(0, |fd| fd.as_raw_fd() + 1);
            slot.store(fd, SeqCst);
        }
    }

    pub(super) fn open(&mut self, function: usize) -> Option<()> {
        let info = self.info(function);
        if self.devices[function].len() == COPIES {
            return None;
        }
        // A device is reset when it is opened first, and trained by whoever opens it.
        let guard = self.untraining(function);
        let name = [info.bdf.as_bytes(), b"\0"].concat();
        let group = self.inherited.groups[info.group].as_raw_fd();
        let result = sys::ioctl(group, vfio(6), self.arena.argument(&name));
        let kvm = self.shared.machines[info.group].load(SeqCst) != 0;
        let bound = || {
            let path = format!("/sys/kernel/debug/{}/{}/lpar", machine::DRIVER, info.bdf);
            fs::read_to_string(path).is_ok_and(|text| text.trim().parse::<u32>().is_ok())
        };
        let point = match (info.is_gpu, if result.is_ok() { bound() } else { kvm }) {
            (true, false) => Point::OpenGpuWithoutKvm,
            (true, true) => Point::OpenGpuWithKvm,
            (false, false) => Point::OpenBridgeWithoutKvm,
            (false, true) => Point::OpenBridgeWithKvm,
        };
        self.shared.count(point, &result);
        if let Ok(fd) = result {
            let fd = sys::adopt(fd);
            let raw = fd.as_raw_fd();
            self.devices[function].push(fd);
            self.share(function);
            if info.is_gpu {
                self.train_with(raw, &guard, 0);
            }
        }
        Some(())
    }

    pub(super) fn open_nonsense(&mut self, group: u8, name: Pointer) -> Option<()> {
        let (_, group) = self.group(group);
        let access = self.pointer_is_usable(name)?;
        self.arena.argument(b"0000:00:00.0\0");
        let result = sys::ioctl(group, vfio(6), self.pointer(name));
        drop(access);
        if let Ok(fd) = result {
            drop(sys::adopt(fd));
            self.shared
                .violation("a device opened by a name that is none");
        }
        self.shared.count(Point::OpenByName, &result);
        Some(())
    }

    pub(super) fn close(&mut self, function: usize) -> Option<()> {
        if self.devices[function].is_empty() {
            return None;
        }
        let guard = self.untraining(function);
        let fd = self.devices[function].pop();
        self.share(function);
        drop(fd);
        self.look_at_links(function, &guard);
        let point = if self.info(function).is_gpu {
            Point::CloseGpu
        } else {
            Point::CloseBridge
        };
        self.shared.count(point, &Ok::<_, i32>(()));
        Some(())
    }

    pub(super) fn steal(&mut self, process: u8, function: usize) -> Option<()> {
        if self.devices[function].len() == COPIES {
            return None;
        }
        let process =
            &self.shared.processes[usize::from(process) % self.shared.used.load(SeqCst).max(1)];
        let fd = process.devices[function]
            .iter()
            .map(|fd| fd.load(SeqCst))
            .find(|fd| *fd != 0)?;
        // It may be the last that the other closes meanwhile.
        let guard = self.untraining(function);
        if let Ok(fd) = sys::steal(process.pid.load(SeqCst), fd - 1) {
            let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            if link.is_ok_and(|link| link.to_string_lossy().contains("vfio-device")) {
                self.devices[function].push(fd);
                self.share(function);
            }
        }
        self.look_at_links(function, &guard);
        Some(())
    }

    pub(super) fn device_request(&mut self, function: usize, request: Device) -> Option<()> {
        let fd = self.device(function)?;
        let own = if self.info(function).is_gpu {
            Point::RegionInfoOfGpuRam
        } else {
            Point::RegionInfoOfAtsd
        };
        let shared = self.shared;
        let (point, result) = match request {
            Device::Info(argsz, at) => {
                let _access = self.pointer_is_usable(at)?;
                let good = self.arena.argument(&sized(argsz, 20, 16).0);
                let at = if matches!(at, Pointer::Good) {
                    good
                } else {
                    self.pointer(at)
                };
                (Point::DeviceInfo, sys::ioctl(fd, vfio(GET_INFO), at))
            }
            Device::Region { index, argsz, at } => {
                let _access = self.pointer_is_usable(at)?;
                let good = self
                    .arena
                    .argument(&sized(argsz, 32, 32).u32(0).u32(index).0);
                let at = if matches!(at, Pointer::Good) {
                    good
                } else {
                    self.pointer(at)
                };
                let result = sys::ioctl(fd, vfio(GET_REGION_INFO), at);
                if result.is_ok() && at == good {
                    self.check_chain();
                }
                (
                    if index == OWN {
                        own
                    } else {
                        Point::RegionInfoOfOthers
                    },
                    result,
                )
            }
            Device::Irq { index, argsz } => {
                let at = self
                    .arena
                    .argument(&sized(argsz, 16, 16).u32(0).u32(index).0);
                (Point::IrqInfo, sys::ioctl(fd, vfio(GET_IRQ_INFO), at))
            }
            Device::SetIrqs {
                flags,
                index,
                start,
                count,
            } => {
                let event = self.event.as_raw_fd() as u32;
                let head = Bytes::default()
                    .u32(20 + 4 * count.min(64))
                    .u32(flags)
                    .u32(index)
                    .u32(start)
                    .u32(count);
                let at = self
                    .arena
                    .argument(&(0..count.min(64)).fold(head, |bytes, _| bytes.u32(event)).0);
                (Point::SetIrqs, sys::ioctl(fd, vfio(SET_IRQS), at))
            }
            Device::HotResetInfo(argsz) => {
                let at = self.arena.argument(&sized(argsz, 12 + 64 * 8, 12).0);
                (
                    Point::HotResetInfo,
                    sys::ioctl(fd, vfio(GET_PCI_HOT_RESET_INFO), at),
                )
            }
            Device::HotReset { count, bad } => {
                let guard = self.untraining(function);
                let group = self.inherited.groups[self.info(function).group].as_raw_fd();
                let first = if bad { fd } else { group };
                let head = Bytes::default()
                    .u32(12 + 4 * u32::from(count))
                    .u32(0)
                    .u32(count.into());
                let at = self
                    .arena
                    .argument(&(0..count).fold(head, |bytes, _| bytes.u32(first as u32)).0);
                let result = sys::ioctl(fd, vfio(PCI_HOT_RESET), at);
                self.look_at_links(function, &guard);
                (Point::HotReset, result)
            }
            Device::Feature { flags, argsz } => {
                let low_power = FEATURES_LOW_POWER.contains(&(flags & 0xffff))
                    && flags & FEATURE_SET != 0
                    && flags & FEATURE_PROBE == 0;
                let at = self.arena.argument(&sized(argsz, 8 + 16, 8).u32(flags).0);
                let guard = low_power.then(|| self.untraining(function));
                let result = sys::ioctl(fd, vfio(FEATURE), at);
                if let Some(guard) = guard {
                    self.look_at_links(function, &guard);
                }
                (
                    if low_power {
                        Point::FeatureLowPower
                    } else {
                        Point::Feature
                    },
                    result,
                )
            }
            Device::IoEvent { offset, flags } => {
                let event = self.event.as_raw_fd() as u32;
                let at = self.arena.argument(
                    &Bytes::default()
                        .u32(32)
                        .u32(flags)
                        .u64(offset)
                        .u64(0)
                        .u32(event)
                        .u32(0)
                        .0,
                );
                (Point::IoEvent, sys::ioctl(fd, vfio(IOEVENTFD), at))
            }
            Device::Unknown(number) => {
                let at = self.arena.argument(&[0xff; 64]);
                (
                    Point::UnknownRequest,
                    sys::ioctl(fd, vfio(30 + u32::from(number)), at),
                )
            }
        };
        shared.count(point, &result);
        Some(())
    }

    /// The chain of capabilities of an answer stays inside of it and ends.
    fn check_chain(&self) {
        let argsz = self.arena.u32(0).min(0x1000);
        let mut at = self.arena.u32(12);
        let mut left = 16;
        while at != 0 {
            if at < 32 || !at.is_multiple_of(8) || at + 8 > argsz || left == 0 {
                return self.shared.violation(&format!(
                    "a chain of region capabilities leads to {at:#x} of {argsz:#x}"
                ));
            }
            at = self.arena.u32(at as usize + 4);
            left -= 1;
        }
    }

    pub(super) fn config_read(&self, fd: RawFd, offset: u64) -> Option<u16> {
        let at = self.arena.argument(&[0; 2]);
        (sys::pread(fd, at, 2, file_offset(CONFIG, offset)) == Ok(2))
            .then(|| u16::from_ne_bytes(self.arena.answer(0)))
    }

    fn config_write(&self, fd: RawFd, offset: u64, value: u16) -> Outcome {
        let at = self.arena.argument(&value.to_ne_bytes());
        sys::pwrite(fd, at, 2, file_offset(CONFIG, offset))
    }

    fn capability(&self, fd: RawFd, id: u8) -> Option<u64> {
        let mut at = u64::from(self.config_read(fd, CAPABILITIES)? & 0xff);
        for _ in 0..48 {
            if at == 0 {
                return None;
            }
            let [found, next] = self.config_read(fd, at)?.to_le_bytes();
            if found == id {
                return Some(at);
            }
            at = next.into();
        }
        None
    }

    fn memory_space(&self, fd: RawFd, on: bool) -> Outcome {
        let command = self.config_read(fd, COMMAND).unwrap_or(0) & !MEMORY_AND_MASTER;
        self.config_write(
            fd,
            COMMAND,
            if on {
                command | MEMORY_AND_MASTER
            } else {
                command
            },
        )
    }

    pub(super) fn reset(&mut self, function: usize, how: Reset, train: bool) -> Option<()> {
        let info = self.info(function);
        let fd = self.device(function)?;
        let express = match how {
            Reset::Config => self.capability(fd, CAP_EXPRESS)? + DEVICE_CONTROL,
            _ => 0,
        };
        let guard = match how {
            // Accesses that are under way are refused, the more of them the better.
            Reset::WithMemoryOff if info.is_gpu => self.untraining_soon(function),
            _ => self.untraining(function),
        };
        match how {
            Reset::WithMemoryOff if info.is_gpu => {
                guard.asleep();
                let off = self.memory_space(fd, false);
                if off.is_err() {
                    guard.wait();
                }
                let result = sys::ioctl(fd, vfio(RESET), 0);
                guard.wait();
                self.shared.count(Point::ResetWhileAccessed, &result);
                let _ = self.memory_space(fd, true);
            }
            Reset::Ioctl | Reset::WithMemoryOff => {
                let result = sys::ioctl(fd, vfio(RESET), 0);
                let point = if info.is_gpu {
                    Point::ResetGpu
                } else {
                    Point::ResetBridge
                };
                self.shared.count(point, &result);
            }
            Reset::Config => {
                let control = self.config_read(fd, express)?;
                let result = self.config_write(fd, express, control | DEVICE_CONTROL_FLR);
                self.shared.count(Point::ResetByConfig, &result);
            }
        }
        if train && info.is_gpu {
            self.train_with(fd, &guard, 0);
        } else {
            self.look_at_links(function, &guard);
        }
        Some(())
    }

    pub(super) fn config(&mut self, function: usize, write: Config) -> Option<()> {
        let fd = self.device(function)?;
        let info = self.info(function);
        match write {
            Config::Memory(false) => {
                // As in `Reset::WithMemoryOff`: accesses need not wait.
                let _guard = info.is_gpu.then(|| self.shared.putting_to_sleep(info.gpu));
                let result = self.memory_space(fd, false);
                self.shared.count(Point::ConfigMemory, &result);
            }
            Config::Memory(true) => {
                let guard = self.untraining(function);
                let result = self.memory_space(fd, true);
                self.shared.count(Point::ConfigMemory, &result);
                self.look_at_links(function, &guard);
            }
            Config::Power(state) => {
                let at = self.capability(fd, CAP_POWER)? + POWER_CONTROL;
                let guard = self.untraining_soon(function);
                if state & 3 == 0 {
                    guard.wait();
                } else {
                    guard.asleep();
                }
                let control = self.config_read(fd, at)? & !3;
                let result = self.config_write(fd, at, control | u16::from(state & 3));
                self.shared.count(Point::ConfigPower, &result);
                if state & 3 == 0 {
                    self.look_at_links(function, &guard);
                } else {
                    // Accesses go on, and have to be refused.
                    guard.as_before();
                }
            }
            Config::Any { offset, len, value } => {
                let guard = self.untraining(function);
                let at = self.arena.argument(&value.to_ne_bytes());
                let result = sys::pwrite(fd, at, len.into(), file_offset(CONFIG, offset.into()));
                self.shared.count(Point::ConfigWrite, &result);
                self.look_at_links(function, &guard);
            }
        }
        Some(())
    }

    /// read() if there is no value, write() otherwise.
    pub(super) fn access(
        &mut self,
        function: usize,
        region: u8,
        at: Place,
        len: Length,
        buffer: Pointer,
        value: Option<u64>,
    ) -> Option<()> {
        let info = self.info(function);
        let region = u32::from(region);
        let fd = self.device(function)?;
        let size = self.region_size(fd, region).unwrap_or(0);
        let mut offset = place(at, size);
        let mut len = length(len, size).min(0x4_0000);
        let own = region == OWN && size != 0;
        let buffer_of_device = match buffer {
            Pointer::Mapping(number) => self.own_mapping(number).map(|map| self.is_gpu_ram(map)),
            _ => None,
        };
        if buffer_of_device.is_some() {
            len = len.min(64);
        }

        // What hurts nobody but would be blamed on the driver: see `RAM`, `KEEP_OFF`.
        if own && info.is_gpu && offset < size {
            if offset >= RAM {
                offset %= RAM;
            }
            len = len.min(RAM - offset);
        }
        if BARS.contains(&region) {
            len = len.min(BAR_BYTES);
            let end = offset.saturating_add(len);
            if value.is_some() && region == 0 && offset < KEEP_OFF.end && end > KEEP_OFF.start {
                return None;
            }
        }
        let guard = (region == CONFIG && value.is_some()).then(|| self.untraining(function));
        let mut accesses = Vec::new();
        if own && info.is_gpu && offset < size {
            accesses.push(self.accessing(info.gpu)?);
        }
        if buffer_of_device.is_some() {
            accesses.push(self.buffer_is_usable(buffer)?);
        }

        let at = match (buffer, value) {
            (Pointer::Good, Some(value)) => self.arena.argument(&value.to_ne_bytes().repeat(8)),
            _ => self.pointer(buffer),
        };
        // The buffer holds less than the longest: then it is that of ordinary memory.
        let at = if matches!(buffer, Pointer::Good) && len > 64 {
            self.arena.ordinary(0)
        } else {
            at
        };
        let from = file_offset(region, offset);
        let result = match value {
            Some(_) => sys::pwrite(fd, at, len as usize, from),
            None => sys::pread(fd, at, len as usize, from),
        };
        drop(accesses);
        if let Ok(done) = result {
            if done > len {
                self.shared.violation(&format!(
                    "{done} of {len} bytes of region {region} were moved"
                ));
            }
            if own && offset >= size && done > 0 {
                self.shared.violation(&format!(
                    "{} was accessed at {offset:#x}, beyond its end",
                    info.bdf
                ));
            }
        }
        let point = match (region, info.is_gpu, value.is_some()) {
            _ if buffer_of_device == Some(true) => Point::GpuRamAsBuffer,
            (OWN, true, false) => Point::GpuRamRead,
            (OWN, true, true) => Point::GpuRamWrite,
            (OWN, false, false) => Point::AtsdRead,
            (OWN, false, true) => Point::AtsdWrite,
            (CONFIG, _, false) => Point::ConfigRead,
            (CONFIG, _, true) => Point::ConfigWrite,
            (_, _, false) => Point::BarRead,
            (_, _, true) => Point::BarWrite,
        };
        self.shared.count(point, &result);
        if let Some(guard) = guard {
            self.look_at_links(function, &guard);
        }
        Some(())
    }

    pub(super) fn shootdown(
        &mut self,
        function: usize,
        register: u16,
        words: [u64; 2],
    ) -> Option<()> {
        if self.info(function).is_gpu {
            return None;
        }
        let fd = self.device(function)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let at = self.arena.argument(&bytes);
        let result = sys::pwrite(fd, at, bytes.len(), file_offset(OWN, register.into()));
        self.shared.count(Point::AtsdWrite, &result);
        Some(())
    }

    /// Trains the links of the GPU that `guard` has as number `index`, as the vendor's driver does.
    fn train_with(&self, fd: RawFd, guard: &Untraining<'_>, index: usize) {
        let _ = self.memory_space(fd, true);
        if self.set_register(fd, LINK_TRAIN, 1).is_ok() && self.links_are_up(fd) {
            guard.trained(index);
        }
    }

    /// See [`Shared::accessing`]; trains the links if they are not and this process can.
    pub(super) fn accessing(&self, gpu: usize) -> Option<Accessing<'_>> {
        if let Some(access) = self.shared.accessing(gpu) {
            return Some(access);
        }
        let fd = self.opened(self.machine.gpus[gpu])?;
        let guard = self.shared.untraining(gpu, gpu);
        guard.wait();
        self.train_with(fd, &guard, 0);
        drop(guard);
        self.shared.accessing(gpu)
    }

    pub(super) fn train(&mut self, gpu: u8, up: bool) -> Option<()> {
        let gpu = usize::from(gpu) % self.machine.gpus.len();
        let fd = self.device(self.machine.gpus[gpu])?;
        let guard = self.shared.untraining(gpu, gpu);
        guard.wait();
        if up {
            self.train_with(fd, &guard, 0);
        } else {
            let _ = self.set_register(fd, LINK_TRAIN, 0);
        }
        Some(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "registers of the engine, one by one"
    )]
    pub(super) fn engine(
        &mut self,
        gpu: u8,
        paths: u8,
        source: u64,
        destination: u64,
        len: u32,
        pasid: u32,
        link: u8,
    ) -> Option<()> {
        let gpu = usize::from(gpu) % self.machine.gpus.len();
        let fd = self.device(self.machine.gpus[gpu])?;
        let registers = [
            (0x00, source as u32),
            (0x04, (source >> 32) as u32),
            (0x08, destination as u32),
            (0x0c, (destination >> 32) as u32),
            (0x10, len),
            (0x14, pasid),
            (0x18, paths.into()),
            (0x1c, link.into()),
            (0x20, 1),
        ];
        let copying = self.shared.copying(self.machine.gpus.len())?;
        for (register, value) in registers {
            let _ = self.set_register(fd, ENGINE + register, value);
        }
        drop(copying);
        let status = self.model_register(fd, ENGINE + 0x24);
        self.shared.count(
            Point::EngineCopy,
            &(status == Some(1)).then_some(()).ok_or(()),
        );
        Some(())
    }

    pub(super) fn debugfs(&self, function: usize, file: u8) -> Option<()> {
        const FILES: [&str; 8] = [
            "role",
            "lpar",
            "shootdowns",
            "closed",
            "mappings",
            "faults",
            "largest-page",
            "nothing",
        ];
        let name = FILES[usize::from(file) % FILES.len()];
        let path = format!(
            "/sys/kernel/debug/{}/{}/{name}",
            machine::DRIVER,
            self.info(function).bdf
        );
        self.shared.count(Point::Debugfs, &fs::read(path));
        Some(())
    }

    /// Starts an administrator, who has none of this process' devices and may have to wait until all
    /// processes have closed theirs.
    pub(super) fn admin(&mut self, function: usize, what: Admin) -> Option<()> {
        let shared = self.shared;
        if shared.admins.fetch_add(1, SeqCst) >= ADMINS {
            shared.admins.fetch_sub(1, SeqCst);
            return None;
        }
        let ready = &shared.processes[self.me].admin_ready;
        ready.store(0, SeqCst);
        let bdf = &self.info(function).bdf;
        let started = sys::spawn(|| {
            for map in &self.maps {
                let _ = sys::unmap(map.at, map.len);
            }
            sys::close_from(3);
            // This process waits until then: its child must not be the last to close a device.
            ready.store(1, SeqCst);
            administer(shared, bdf, what);
            shared.admins.fetch_sub(1, SeqCst);
            0
        });
        if started.is_err() {
            shared.admins.fetch_sub(1, SeqCst);
            return None;
        }
        wait_until(|| ready.load(SeqCst) != 0);
        Some(())
    }
}

fn administer(shared: &Shared, bdf: &str, what: Admin) {
    match what {
        Admin::Unbind => shared.count(Point::Unbind, &machine::unbind(bdf)),
        Admin::Bind => shared.count(Point::Bind, &machine::bind(bdf, machine::DRIVER)),
        Admin::BindPlain => shared.count(Point::BindToVfioPci, &machine::bind(bdf, "vfio-pci")),
        Admin::Unload => shared.count(Point::Unload, &machine::unload()),
    }
}
