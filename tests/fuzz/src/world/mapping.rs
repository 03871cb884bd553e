// SPDX-License-Identifier: GPL-2.0

//! Mappings of regions, and accesses to them.

use super::{file_offset, length, part, place, Map, World, BARS, KEEP_OFF, OWN};
use crate::{
    machine::{self, RAM},
    op::{Length, Part, Place, Pointer, Toucher},
    points::Point,
    shared::Accessing,
    sys::{self, PAGE},
};
use std::fs;

/// Mappings that a process has at most.
const MAPS: usize = 12;
/// What faults or locks page by page does so for at most this many bytes.
const EACH_PAGE: usize = 256 * PAGE;

const POPULATE_READ: i32 = 22;
const POPULATE_WRITE: i32 = 23;

/// The permissions ("rw-s") of the mapping of a device at an address of this process, if there is one.
/// Where a part of a mapping was unmapped or moved away there is none: there is the arena's reservation,
/// of which much is possible.
fn permissions(at: usize) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines()
        .filter(|line| line.contains("vfio-device"))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let number = |digits| usize::from_str_radix(digits, 16).ok();
            (number(start)?..number(end)?)
                .contains(&at)
                .then(|| words.next().map(str::to_owned))?
        })
}

fn is_of_device(at: usize) -> bool {
    permissions(at).is_some()
}

impl World<'_> {
    fn mapping(&self, number: u8) -> Option<usize> {
        (!self.maps.is_empty()).then(|| usize::from(number) % self.maps.len())
    }

    /// A mapping that may be the buffer of any system call: BARs of bridges take links down, and those
    /// of GPUs have the model's registers.
    pub(super) fn own_mapping(&self, number: u8) -> Option<&Map> {
        let count = self.maps.iter().filter(|map| map.region == OWN).count();
        self.maps
            .iter()
            .filter(|map| map.region == OWN)
            .nth(usize::from(number) % count.max(1))
    }

    pub(super) fn is_gpu_ram(&self, map: &Map) -> bool {
        map.region == OWN && self.info(map.function).is_gpu
    }

    /// One of three points, by what is mapped; `None` counts nothing.
    fn of<T>(&self, map: &Map, ram: T, atsd: T, bar: T) -> T {
        match (map.region == OWN, self.info(map.function).is_gpu) {
            (true, true) => ram,
            (true, false) => atsd,
            _ => bar,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "those of mmap()")]
    pub(super) fn map(
        &mut self,
        function: usize,
        region: u8,
        at: Place,
        len: Length,
        prot: u8,
        private: bool,
        aligned: bool,
    ) -> Option<()> {
        if self.maps.len() == MAPS {
            return None;
        }
        let region = u32::from(region);
        let fd = self.device(function)?;
        let size = self.region_size(fd, region).unwrap_or(0);
        let offset = place(at, size);
        let len = length(len, size) as usize;
        let user = self.arena.place(len, aligned)?;
        let flags = if private {
            libc::MAP_PRIVATE
        } else {
            libc::MAP_SHARED
        };
        let result = sys::map(
            user,
            len,
            i32::from(prot),
            flags,
            fd,
            file_offset(region, offset),
        );
        let map = Map {
            at: user,
            len: len.next_multiple_of(PAGE),
            function,
            region,
            offset: offset & !(PAGE as u64 - 1),
        };
        let point = self.of(&map, Point::GpuRamMap, Point::AtsdMap, Point::BarMap);
        self.shared.count(point, &result);
        if result.is_ok() {
            if private
                || region == OWN
                    && map
                        .offset
                        .checked_add(map.len as u64)
                        .is_none_or(|end| end > size)
            {
                let name = &self.info(function).bdf;
                self.shared.violation(&format!(
                    "{name} mapped at {offset:#x}, {len:#x} of {size:#x} bytes, private: {private}"
                ));
            }
            // What else is said of mappings relies on it.
            if !is_of_device(user) {
                self.shared
                    .violation("a mapping of a device is not in /proc/self/maps");
            }
            self.maps.push(map);
        }
        Some(())
    }

    /// Makes sure that memory behind a pointer may be accessed, whatever it points to.
    pub(super) fn pointer_is_usable(&self, pointer: Pointer) -> Option<Option<Accessing<'_>>> {
        match pointer {
            Pointer::Mapping(number) if self.own_mapping(number).is_some() => {
                self.buffer_is_usable(pointer).map(Some)
            }
            _ => Some(None),
        }
    }

    /// Makes sure that memory behind a pointer to a mapping may be accessed.
    pub(super) fn buffer_is_usable(&self, pointer: Pointer) -> Option<Accessing<'_>> {
        let Pointer::Mapping(number) = pointer else {
            return None;
        };
        let map = self.own_mapping(number)?;
        if self.is_gpu_ram(map) && map.offset >= RAM {
            return None;
        }
        // Not to be trained for this: the caller may have an access under way.
        self.shared.accessing(self.info(map.function).gpu)
    }

    pub(super) fn touch(
        &mut self,
        number: u8,
        at: Place,
        write: bool,
        size: u8,
        by: Toucher,
    ) -> Option<()> {
        let map = &self.maps[self.mapping(number)?];
        let info = self.info(map.function);
        let ram = self.is_gpu_ram(map);
        let within = if ram {
            map.len.min(RAM.saturating_sub(map.offset) as usize)
        } else {
            map.len
        };
        if within == 0 {
            return None;
        }
        let offset = (place(at, within as u64) as usize % within) & !7;
        let user = map.at + offset;
        let in_region = map.offset + offset as u64;
        let bar = BARS.contains(&map.region);
        // See the top of main.rs.
        if bar && (!info.is_gpu || map.region == 0 && KEEP_OFF.contains(&(in_region & !15))) {
            return None;
        }
        let access = if ram {
            Some(self.accessing(info.gpu)?)
        } else {
            None
        };
        // Registers know no bytes of a system call's copy.
        let by = if bar { Toucher::Instruction } else { by };
        match by {
            Toucher::Instruction => {
                let result = sys::touch(user, size, write);
                let read_only = || permissions(user).is_some_and(|all| !all.contains('w'));
                if result.is_ok() && write && read_only() {
                    self.shared.violation(&format!(
                        "{} was written through a read-only mapping",
                        info.bdf
                    ));
                }
                let point = self.of(map, Point::GpuRamFault, Point::AtsdFault, Point::BarFault);
                self.shared.count(point, &result);
            }
            Toucher::SystemCall => {
                let result = sys::through_pipe(user, write);
                if ram {
                    self.shared.count(Point::GpuRamFaultBySystemCall, &result);
                }
            }
            Toucher::Child => {
                let status = sys::in_child(|| u8::from(sys::touch(user, size, false).is_err()));
                let result = if status == Ok(0) { Ok(()) } else { Err(()) };
                if map.region == OWN {
                    if result.is_ok() && is_of_device(user) {
                        self.shared
                            .violation(&format!("a child has the mapping of {}", info.bdf));
                    }
                    let point = if ram {
                        Point::GpuRamInChild
                    } else {
                        Point::AtsdInChild
                    };
                    self.shared.count(point, &result);
                }
            }
        }
        drop(access);
        Some(())
    }

    /// Whether a registration of a GPU is waiting for its last TCE to go.
    fn has_retained(&self, function: usize) -> bool {
        let path = format!(
            "/sys/kernel/debug/{}/{}/mappings",
            machine::DRIVER,
            self.info(function).bdf
        );
        fs::read_to_string(path).is_ok_and(|text| text.contains("retained"))
    }

    pub(super) fn unmap(&mut self, number: u8, what: Part) -> Option<()> {
        let index = self.mapping(number)?;
        let function = self.maps[index].function;
        // It may hold the last reference to the device.
        let guard = self.untraining(function);
        let map = &self.maps[index];
        let (offset, len) = part(what, map.len);
        let whole = (offset, len) == (0, map.len);
        let result = sys::unmap(map.at + offset, len);
        if result.is_ok() {
            // Nobody else is to come here.
            let _ = sys::reserve(map.at + offset, len);
        }
        let point = if whole {
            self.of(map, Some(Point::GpuRamUnmap), Some(Point::AtsdUnmap), None)
        } else {
            self.of(map, Some(Point::GpuRamUnmapOfPart), None, None)
        };
        if let Some(point) = point {
            self.shared.count(point, &result);
        }
        if whole && result.is_ok() {
            let map = self.maps.swap_remove(index);
            if self.is_gpu_ram(&map) && self.has_retained(function) {
                self.shared.count(Point::GpuRamRetained, &Ok::<_, ()>(()));
            }
        }
        self.look_at_links(function, &guard);
        Some(())
    }

    pub(super) fn remap(
        &mut self,
        number: u8,
        what: Part,
        grow: bool,
        to_aligned: bool,
    ) -> Option<()> {
        let index = self.mapping(number)?;
        let function = self.maps[index].function;
        let room = self.maps[index].len.checked_mul(2)?;
        let target = self.arena.place(room, to_aligned)?;
        let guard = self.untraining(function);
        let map = &self.maps[index];
        let (offset, len) = part(what, map.len);
        let new = if grow { len + PAGE } else { len };
        let result = sys::remap(map.at + offset, len, new, target);
        let point = self.of(map, Some(Point::GpuRamRemap), Some(Point::AtsdRemap), None);
        if let Some(point) = point {
            self.shared.count(point, &result);
            if result.is_ok() && grow && is_of_device(target) {
                self.shared.violation(&format!(
                    "a mapping of {} was expanded",
                    self.info(function).bdf
                ));
            }
        }
        if result.is_err() {
            let _ = sys::reserve(target, new);
        } else {
            let _ = sys::reserve(map.at + offset, len);
            if (len, new) == (map.len, map.len) {
                self.maps[index].at = target;
            } else {
                let _ = sys::unmap(target, new);
                let _ = sys::reserve(target, new);
            }
        }
        self.look_at_links(function, &guard);
        Some(())
    }

    pub(super) fn protect(&mut self, number: u8, what: Part, prot: u8) -> Option<()> {
        let map = &self.maps[self.mapping(number)?];
        let (offset, len) = part(what, map.len);
        let result = sys::protect(map.at + offset, len, i32::from(prot & 7));
        if self.is_gpu_ram(map) {
            let point = if len == map.len {
                Point::GpuRamProtect
            } else {
                Point::GpuRamProtectOfPart
            };
            self.shared.count(point, &result);
        }
        Some(())
    }

    pub(super) fn advise(&mut self, number: u8, what: Part, advice: u8) -> Option<()> {
        let map = &self.maps[self.mapping(number)?];
        let advice = i32::from(advice);
        let (offset, mut len) = part(what, map.len);
        if matches!(advice, POPULATE_READ | POPULATE_WRITE) {
            len = len.min(EACH_PAGE);
        }
        let result = sys::advise(map.at + offset, len, advice);
        if self.is_gpu_ram(map) {
            self.shared.count(Point::GpuRamAdvise, &result);
        }
        Some(())
    }

    pub(super) fn lock(&mut self, number: u8, what: Part) -> Option<()> {
        let map = &self.maps[self.mapping(number)?];
        let (offset, len) = part(what, map.len);
        let result = sys::lock(map.at + offset, len.min(EACH_PAGE));
        if self.is_gpu_ram(map) {
            self.shared.count(Point::GpuRamLock, &result);
        }
        Some(())
    }
}
