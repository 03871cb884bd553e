// SPDX-License-Identifier: GPL-2.0

//! Groups and containers: windows, registered memory, TCEs, EEH.

use super::{sized, Bytes, Window, World, UNSET_CONTAINER};
use crate::{
    op::{Argsz, Container, Kvm, Memory, Pointer, Table},
    points::Point,
    sys::{self, vfio, Outcome, PAGE},
};
use std::{
    fs::File,
    os::fd::{AsRawFd, RawFd},
};

const GET_API_VERSION: u32 = 0;
const CHECK_EXTENSION: u32 = 1;
const SET_IOMMU: u32 = 2;
const GROUP_GET_STATUS: u32 = 3;
const GROUP_SET_CONTAINER: u32 = 4;
const TCE_GET_INFO: u32 = 12;
const MAP_DMA: u32 = 13;
const UNMAP_DMA: u32 = 14;
const ENABLE: u32 = 15;
const DISABLE: u32 = 16;
const REGISTER_MEMORY: u32 = 17;
const UNREGISTER_MEMORY: u32 = 18;
const TCE_CREATE: u32 = 19;
const TCE_REMOVE: u32 = 20;
const EEH_PE_OP: u32 = 21;
const EEH_RESETS: std::ops::RangeInclusive<u32> = 5..=7;

const TCE_V2: usize = 7;

impl World<'_> {
    /// The container that a number means. A container takes requests of one process only, which is
    /// that with the number of the group: it gets most of them, others a few.
    fn container_fd(&self, number: u8) -> Option<(usize, RawFd)> {
        let index = match number {
            0..200 => Some(self.me).filter(|me| *me < self.inherited.groups.len())?,
            _ => usize::from(number) % self.inherited.containers.len(),
        };
        Some((index, self.inherited.containers[index].as_raw_fd()))
    }

    fn ioctl(&self, fd: RawFd, request: u32, bytes: Bytes) -> Outcome {
        sys::ioctl(fd, vfio(request), self.arena.argument(&bytes.0))
    }

    pub(super) fn group_status(&self, group: u8, argsz: Argsz) -> Option<()> {
        let result = self.ioctl(self.group(group).1, GROUP_GET_STATUS, sized(argsz, 8, 8));
        self.shared.count(Point::GroupStatus, &result);
        Some(())
    }

    pub(super) fn set_container(&self, group: u8, container: u8) -> Option<()> {
        let bytes = Bytes::default().u32(self.container_fd(container)?.1 as u32);
        let result = self.ioctl(self.group(group).1, GROUP_SET_CONTAINER, bytes);
        self.shared.count(Point::GroupSetContainer, &result);
        Some(())
    }

    pub(super) fn unset_container(&self, group: u8) -> Option<()> {
        let result = sys::ioctl(self.group(group).1, vfio(UNSET_CONTAINER), 0);
        self.shared.count(Point::GroupUnsetContainer, &result);
        Some(())
    }

    pub(super) fn open_group(&self, group: u8) -> Option<()> {
        let (index, _) = self.group(group);
        let result = File::options()
            .read(true)
            .write(true)
            .open(format!("/dev/vfio/{}", self.machine.groups[index]));
        if result.is_ok() {
            self.shared.violation("a group could be opened twice");
        }
        self.shared.count(Point::GroupOpen, &result);
        Some(())
    }

    /// Start and page size of a window, by number; of one that does not exist beyond those.
    fn window(&self, container: usize, number: u8) -> (u64, u32) {
        let mut own = self
            .windows
            .iter()
            .filter(|window| window.container == container);
        match own.nth(number.into()) {
            Some(window) => (window.start, window.shift),
            None if number == 0 => (0, 16),
            None => (u64::from(number) << 59, 16),
        }
    }

    fn create_window(
        &mut self,
        container: usize,
        head: Bytes,
        shift: u32,
        size: u64,
        levels: u32,
    ) -> Outcome {
        let fd = self.inherited.containers[container].as_raw_fd();
        let bytes = head.u32(shift).u32(0).u64(size).u32(levels).u32(0).u64(0);
        let result = self.ioctl(fd, TCE_CREATE, bytes);
        self.shared.count(Point::TceCreate, &result);
        if result.is_ok() {
            let start = self.arena.u64(32);
            self.windows.push(Window {
                container,
                start,
                size,
                shift,
            });
        }
        result
    }

    fn remove_window(&mut self, container: usize, start: u64, flags: u32) {
        let fd = self.inherited.containers[container].as_raw_fd();
        let bytes = Bytes::default().u32(24).u32(flags).u64(start).u64(0);
        let result = self.ioctl(fd, TCE_REMOVE, bytes);
        self.shared.count(Point::TceRemove, &result);
        if result.is_ok() {
            self.windows
                .retain(|window| window.container != container || window.start != start);
        }
    }

    fn register(&self, fd: RawFd, request: u32, memory: Memory, argsz: Argsz) -> Option<()> {
        let (start, len) = self.memory(memory)?;
        let result = self.ioctl(fd, request, sized(argsz, 24, 24).u32(0).u64(start).u64(len));
        let point = match (memory, request == REGISTER_MEMORY) {
            (Memory::Mapping(_) | Memory::PartOfMapping { .. }, true) => Point::GpuRamRegister,
            (Memory::Mapping(_) | Memory::PartOfMapping { .. }, false) => Point::GpuRamUnregister,
            (_, true) => Point::MemoryRegister,
            (_, false) => Point::MemoryUnregister,
        };
        self.shared.count(point, &result);
        Some(())
    }

    pub(super) fn container(&mut self, container: u8, request: Container) -> Option<()> {
        let (index, fd) = self.container_fd(container)?;
        let shared = self.shared;
        match request {
            Container::Version => {
                if sys::ioctl(fd, vfio(GET_API_VERSION), 0) != Ok(0) {
                    shared.violation("VFIO's version is not 0");
                }
            }
            Container::Extension(number) => {
                let result = sys::ioctl(fd, vfio(CHECK_EXTENSION), number as usize);
                shared.count(Point::ContainerExtension, &result);
            }
            Container::SetIommu(kind) => {
                let result = sys::ioctl(fd, vfio(SET_IOMMU), kind as usize);
                shared.count(Point::ContainerSetIommu, &result);
            }
            Container::Info(argsz, at) => {
                let _access = self.pointer_is_usable(at)?;
                let good = self.arena.argument(&sized(argsz, 32, 16).0);
                let at = if matches!(at, Pointer::Good) {
                    good
                } else {
                    self.pointer(at)
                };
                shared.count(Point::TceInfo, &sys::ioctl(fd, vfio(TCE_GET_INFO), at));
            }
            Container::CreateWindow {
                shift,
                size,
                levels,
                flags,
                argsz,
            } => {
                // Tables of a size that takes neither all of the memory nor minutes to clear.
                let largest = u32::from(shift.min(28)) + 15;
                let size = if size == 63 {
                    u64::MAX
                } else {
                    1u64 << u32::from(size).min(largest)
                };
                let head = sized(argsz, 40, 40).u32(flags);
                let _ = self.create_window(index, head, shift.into(), size, levels.into());
            }
            Container::RemoveWindow { window, flags } => {
                let (start, _) = self.window(index, window);
                self.remove_window(index, start, flags);
            }
            Container::Register(memory, argsz) => {
                self.register(fd, REGISTER_MEMORY, memory, argsz)?
            }
            Container::Unregister(memory) => {
                self.register(fd, UNREGISTER_MEMORY, memory, Argsz::Exact)?
            }
            Container::Map {
                memory,
                window,
                page,
                flags,
                argsz,
            } => {
                let (start, len) = self.memory(memory)?;
                let (at, _) = self.window(index, window);
                let at = at.wrapping_add(u64::from(page) * PAGE as u64);
                let bytes = sized(argsz, 32, 32).u32(flags).u64(start).u64(at).u64(len);
                let of_device = matches!(memory, Memory::Mapping(_) | Memory::PartOfMapping { .. });
                if of_device {
                    shared.mapping_for_dma();
                }
                let result = self.ioctl(fd, MAP_DMA, bytes);
                if of_device && result.is_err() {
                    shared.not_mapped();
                }
                // The youngest of those that this process made at that address.
                let window = self.windows.iter().rev().find(|window| {
                    window.container == index
                        && (window.start..window.start.saturating_add(window.size)).contains(&at)
                });
                if let (Ok(_), Some(window)) = (result, window) {
                    if at - window.start > window.size.saturating_sub(len) {
                        shared.violation(&format!(
                            "{len:#x} bytes were mapped at {at:#x}, beyond a window"
                        ));
                    }
                }
                shared.count(
                    if of_device {
                        Point::GpuRamToTce
                    } else {
                        Point::DmaMap
                    },
                    &result,
                );
            }
            Container::Unmap {
                window,
                page,
                pages,
                flags,
            } => {
                let (start, _) = self.window(index, window);
                let at = start.wrapping_add(u64::from(page) * PAGE as u64);
                let bytes = Bytes::default()
                    .u32(24)
                    .u32(flags)
                    .u64(at)
                    .u64(u64::from(pages) * PAGE as u64);
                shared.count(Point::DmaUnmap, &self.ioctl(fd, UNMAP_DMA, bytes));
            }
            Container::Eeh { op, flags, argsz } => {
                // The container may be of any group.
                let guard = shared.untraining(0, self.machine.gpus.len() - 1);
                guard.wait();
                let bytes = sized(argsz, 8 + 32, 12)
                    .u32(flags)
                    .u32(op)
                    .u32(0)
                    .u64(0)
                    .u64(0)
                    .u64(0);
                let result = self.ioctl(fd, EEH_PE_OP, bytes);
                let reset = EEH_RESETS.contains(&op);
                shared.count(if reset { Point::EehReset } else { Point::Eeh }, &result);
                if reset {
                    // A PE that is left in reset answers nobody.
                    for op in [*EEH_RESETS.start(), 8] {
                        let _ = self.ioctl(
                            fd,
                            EEH_PE_OP,
                            Bytes::default().u32(40).u32(0).u32(op).u32(0).u64(0),
                        );
                    }
                }
                for gpu in 0..self.machine.gpus.len() {
                    self.look_at_link(gpu, gpu, &guard);
                }
            }
            Container::Enable => drop(sys::ioctl(fd, vfio(ENABLE), 0)),
            Container::Disable => drop(sys::ioctl(fd, vfio(DISABLE), 0)),
            Container::Unknown(number) => {
                let at = self.arena.argument(&[0xff; 64]);
                shared.count(
                    Point::UnknownRequest,
                    &sys::ioctl(fd, vfio(30 + u32::from(number)), at),
                );
            }
        }
        Some(())
    }

    pub(super) fn set_up(&mut self, group: u8, kvm: bool) -> Option<()> {
        let (index, group_fd) = self.group(group);
        let fd = self.inherited.containers[index].as_raw_fd();
        let result = self.ioctl(
            group_fd,
            GROUP_SET_CONTAINER,
            Bytes::default().u32(fd as u32),
        );
        self.shared.count(Point::GroupSetContainer, &result);
        let result = sys::ioctl(fd, vfio(SET_IOMMU), TCE_V2);
        self.shared.count(Point::ContainerSetIommu, &result);
        let result = self.ioctl(fd, TCE_GET_INFO, Bytes::default().u32(32));
        self.shared.count(Point::TceInfo, &result);
        self.remove_window(index, 0, 0);
        let _ = self.create_window(index, Bytes::default().u32(40).u32(0), 16, 1 << 30, 1);
        self.register(
            fd,
            REGISTER_MEMORY,
            Memory::Ordinary { page: 0, pages: 8 },
            Argsz::Exact,
        );
        if kvm {
            self.kvm(Kvm::Create { kind: 1 });
            self.kvm(Kvm::Add {
                group: index as u8,
                table: Table::Good,
            });
        }
        Some(())
    }
}
