// SPDX-License-Identifier: GPL-2.0

//! Virtual machines, and groups of theirs.

use super::{Bytes, Vm, World};
use crate::{
    op::{Kvm, Table},
    points::Point,
    sys::{self, kvm, kvm_read_write, kvm_write, Outcome},
};
use std::{
    fs::File,
    os::fd::{AsRawFd, RawFd},
    sync::atomic::Ordering::SeqCst,
};

const CREATE_VM: u32 = 0x01;
const CREATE_VCPU: u32 = 0x41;
const SET_USER_MEMORY_REGION: u32 = 0x46;
const CREATE_SPAPR_TCE_64: u32 = 0xa8;
const CREATE_DEVICE: u32 = 0xe0;
const SET_DEVICE_ATTR: u32 = 0xe1;
/// KVM_DEV_TYPE_VFIO
const TYPE_VFIO: u32 = 4;
/// KVM_DEV_VFIO_GROUP and its attributes.
const GROUP: u32 = 1;
const GROUP_ADD: u64 = 1;
const GROUP_DEL: u64 = 2;
const GROUP_SET_SPAPR_TCE: u64 = 3;

/// Where the value of an attribute is in the page for arguments.
const VALUE: usize = 0x1000;

impl World<'_> {
    /// KVM_SET_DEVICE_ATTR with a value of two numbers.
    fn attribute(&self, fd: RawFd, attribute: u64, value: [u32; 2]) -> Outcome {
        let at = self.arena.scratch() + VALUE;
        let head = Bytes::default()
            .u32(0)
            .u32(GROUP)
            .u64(attribute)
            .u64(at as u64);
        let mut bytes = head.0;
        bytes.resize(VALUE, 0);
        value
            .iter()
            .for_each(|number| bytes.extend(number.to_ne_bytes()));
        sys::ioctl(
            fd,
            kvm_write::<24>(SET_DEVICE_ATTR),
            self.arena.argument(&bytes),
        )
    }

    fn create(&self, kind: u8) -> Outcome<Vm> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map_err(|_| libc::ENODEV)?;
        let vm = sys::adopt(sys::ioctl(file.as_raw_fd(), kvm(CREATE_VM), kind.into())?);
        let at = self
            .arena
            .argument(&Bytes::default().u32(TYPE_VFIO).u32(0).u32(0).0);
        let device = sys::ioctl(vm.as_raw_fd(), kvm_read_write::<12>(CREATE_DEVICE), at);
        let vfio = device.ok().map(|_| sys::adopt(self.arena.u32(4).into()));
        Ok(Vm {
            vm,
            vfio,
            others: Vec::new(),
            groups: Vec::new(),
        })
    }

    fn forget_machine(&mut self) {
        for group in self.vm.take().into_iter().flat_map(|vm| vm.groups) {
            self.shared.machines[group].fetch_sub(1, SeqCst);
        }
    }

    /// Adds a group, and sets its table if it is to have one.
    fn add(&mut self, group: u8, which: Table) -> Option<()> {
        let index = usize::from(group);
        let vfio = self.vm.as_ref()?.vfio.as_ref()?.as_raw_fd();
        let vm = self.vm.as_ref()?.vm.as_raw_fd();
        let fd = self
            .inherited
            .groups
            .get(index)
            .map_or(-1, |fd| fd.as_raw_fd());
        let result = self.attribute(vfio, GROUP_ADD, [fd as u32, 0]);
        self.shared.count(Point::KvmAddGroup, &result);
        if result.is_err() {
            return Some(());
        }
        self.vm.as_mut()?.groups.push(index);
        self.shared.machines[index].fetch_add(1, SeqCst);
        if which == Table::None {
            return Some(());
        }
        let window = self.windows.iter().find(|window| window.container == index);
        let (start, shift) = window.map_or((0, 16), |window| (window.start, window.shift));
        let liobn = 0x8000_0000 + u64::from(group);
        let bytes = Bytes::default()
            .u64(liobn)
            .u32(shift)
            .u32(0)
            .u64(start >> shift)
            .u64((1 << 30) >> shift);
        let at = self.arena.argument(&bytes.0);
        let table = sys::ioctl(vm, kvm_write::<32>(CREATE_SPAPR_TCE_64), at).map(sys::adopt);
        let number = match &table {
            Ok(table) if which == Table::Good => table.as_raw_fd(),
            _ => -1,
        };
        let result = self.attribute(vfio, GROUP_SET_SPAPR_TCE, [fd as u32, number as u32]);
        self.shared.count(Point::KvmSetTable, &result);
        self.vm.as_mut()?.others.extend(table);
        Some(())
    }

    pub(super) fn kvm(&mut self, what: Kvm) -> Option<()> {
        match what {
            Kvm::Create { kind } => {
                let vm = self.create(kind);
                self.shared.count(Point::KvmCreate, &vm);
                if let Ok(vm) = vm {
                    self.forget_machine();
                    self.vm = Some(vm);
                }
            }
            Kvm::Close => {
                self.vm.as_ref()?;
                self.forget_machine();
            }
            Kvm::Add { group, table } => self.add(group, table)?,
            Kvm::Remove { group } => {
                let index = usize::from(group);
                let vfio = self.vm.as_ref()?.vfio.as_ref()?.as_raw_fd();
                let fd = self
                    .inherited
                    .groups
                    .get(index)
                    .map_or(-1, |fd| fd.as_raw_fd());
                let result = self.attribute(vfio, GROUP_DEL, [fd as u32, 0]);
                self.shared.count(Point::KvmRemoveGroup, &result);
                if result.is_ok() {
                    self.vm.as_mut()?.groups.retain(|other| *other != index);
                    self.shared.machines[index].fetch_sub(1, SeqCst);
                }
            }
            Kvm::Slot { slot, mapping } => {
                let map = self
                    .maps
                    .get(usize::from(mapping) % self.maps.len().max(1))?;
                let len = map.len.min(1 << 32) as u64;
                let guest = u64::from(slot) << 40;
                let bytes = Bytes::default()
                    .u32(slot.into())
                    .u32(0)
                    .u64(guest)
                    .u64(len)
                    .u64(map.at as u64);
                let vm = self.vm.as_ref()?.vm.as_raw_fd();
                let at = self.arena.argument(&bytes.0);
                let result = sys::ioctl(vm, kvm_write::<32>(SET_USER_MEMORY_REGION), at);
                self.shared.count(Point::GpuRamAsGuestMemory, &result);
            }
            Kvm::Vcpu { id } => {
                let vm = self.vm.as_mut()?;
                if let Ok(fd) = sys::ioctl(vm.vm.as_raw_fd(), kvm(CREATE_VCPU), id.into()) {
                    vm.others.push(sys::adopt(fd));
                }
            }
        }
        Some(())
    }
}
