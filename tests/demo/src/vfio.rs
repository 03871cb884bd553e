// SPDX-License-Identifier: GPL-2.0

//! A VFIO user in QEMU's order: container, group, DMA window, KVM, devices.

use crate::sys::{
    self, GetDeviceFd, KvmCreateDevice, KvmCreateSpaprTce, KvmDeviceAttr, SetContainer,
};
use anyhow::{ensure, Context, Result};
use std::{
    fs::{File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::FileExt},
};
use vfio_bindings::bindings::vfio::{
    vfio_device_info, vfio_group_status, vfio_iommu_spapr_tce_create, vfio_iommu_spapr_tce_info,
    vfio_iommu_spapr_tce_remove, VFIO_SPAPR_TCE_v2_IOMMU, VFIO_API_VERSION,
    VFIO_GROUP_FLAGS_VIABLE, VFIO_PCI_CONFIG_REGION_INDEX,
};

const KVM_VM_PPC_HV: u32 = 1;
const KVM_DEV_TYPE_VFIO: u32 = 4;
const KVM_DEV_VFIO_GROUP: u32 = 1;
const KVM_DEV_VFIO_GROUP_ADD: u64 = 1;
const KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE: u64 = 3;

/// Pages of the DMA window, as a shift, and its size.
const WINDOW_PAGE_SHIFT: u32 = 16;
const WINDOW_SIZE: u64 = 1 << 30;

/// struct kvm_vfio_spapr_tce
#[repr(C)]
struct SpaprTce {
    group: i32,
    table: i32,
}

/// An IOMMU group in a container of its own, with a DMA window, added to a VM.
pub struct Group {
    // Dropped in this order: the VM's hold on the group first.
    _table: File,
    _kvm_vfio: File,
    _vm: File,
    group: File,
    _container: File,
}

fn open(path: &str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| path.to_owned())
}

fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

/// Replaces the default window by one of 64 KiB pages; returns its start.
fn window(container: &File) -> Result<u64> {
    let mut info = vfio_iommu_spapr_tce_info {
        argsz: argsz::<vfio_iommu_spapr_tce_info>(),
        ..Default::default()
    };
    sys::ioctl(container, &mut info).context("VFIO_IOMMU_SPAPR_TCE_GET_INFO")?;
    let mut remove = vfio_iommu_spapr_tce_remove {
        argsz: argsz::<vfio_iommu_spapr_tce_remove>(),
        start_addr: info.dma32_window_start.into(),
        ..Default::default()
    };
    sys::ioctl(container, &mut remove).context("VFIO_IOMMU_SPAPR_TCE_REMOVE")?;
    let mut create = vfio_iommu_spapr_tce_create {
        argsz: argsz::<vfio_iommu_spapr_tce_create>(),
        page_shift: WINDOW_PAGE_SHIFT,
        window_size: WINDOW_SIZE,
        levels: 1,
        ..Default::default()
    };
    sys::ioctl(container, &mut create).context("VFIO_IOMMU_SPAPR_TCE_CREATE")?;
    Ok(create.start_addr)
}

fn set_group_attribute<T>(kvm_vfio: &File, attr: u64, value: &T) -> Result<()> {
    let mut attribute = KvmDeviceAttr {
        flags: 0,
        group: KVM_DEV_VFIO_GROUP,
        attr,
        addr: std::ptr::from_ref(value).expose_provenance() as u64,
    };
    sys::ioctl(kvm_vfio, &mut attribute)?;
    Ok(())
}

impl Group {
    /// Opens group `id` and adds it to a new VM.
    pub fn open(id: u32) -> Result<Self> {
        let container = open("/dev/vfio/vfio")?;
        let version = sys::ioctl_value(&container, sys::VFIO_GET_API_VERSION, 0)?;
        ensure!(
            version == VFIO_API_VERSION as i32,
            "VFIO's API has version {version}"
        );

        let group = open(&format!("/dev/vfio/{id}"))?;
        let mut status = vfio_group_status {
            argsz: argsz::<vfio_group_status>(),
            ..Default::default()
        };
        sys::ioctl(&group, &mut status).context("VFIO_GROUP_GET_STATUS")?;
        ensure!(
            status.flags & VFIO_GROUP_FLAGS_VIABLE != 0,
            "the group is not viable: some device of it is bound to a host driver"
        );
        sys::ioctl(&group, &mut SetContainer(container.as_raw_fd()))
            .context("VFIO_GROUP_SET_CONTAINER")?;
        sys::ioctl_value(&container, sys::VFIO_SET_IOMMU, VFIO_SPAPR_TCE_v2_IOMMU)
            .context("VFIO_SET_IOMMU: SPAPR TCE v2")?;
        let start = window(&container)?;

        let kvm = open("/dev/kvm")?;
        let vm = sys::ioctl_value(&kvm, sys::KVM_CREATE_VM, KVM_VM_PPC_HV)
            .map(sys::adopt)
            .context("KVM_CREATE_VM: HV")?;
        let mut device = KvmCreateDevice {
            kind: KVM_DEV_TYPE_VFIO,
            ..Default::default()
        };
        sys::ioctl(&vm, &mut device).context("KVM_CREATE_DEVICE: VFIO")?;
        let kvm_vfio = sys::adopt(device.fd);
        set_group_attribute(&kvm_vfio, KVM_DEV_VFIO_GROUP_ADD, &group.as_raw_fd())
            .context("KVM_DEV_VFIO_GROUP_ADD")?;
        let mut table = KvmCreateSpaprTce {
            liobn: 0x8000_0000,
            page_shift: WINDOW_PAGE_SHIFT,
            flags: 0,
            offset: start >> WINDOW_PAGE_SHIFT,
            size: WINDOW_SIZE >> WINDOW_PAGE_SHIFT,
        };
        let table = sys::ioctl(&vm, &mut table)
            .map(sys::adopt)
            .context("KVM_CREATE_SPAPR_TCE_64")?;
        let pair = SpaprTce {
            group: group.as_raw_fd(),
            table: table.as_raw_fd(),
        };
        set_group_attribute(&kvm_vfio, KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE, &pair)
            .context("KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE")?;
        Ok(Self {
            _table: table,
            _kvm_vfio: kvm_vfio,
            _vm: vm,
            group,
            _container: container,
        })
    }

    /// Opens a device of the group and switches its memory space on.
    pub fn device(&self, bdf: &str) -> Result<Device> {
        let mut name = GetDeviceFd::new(bdf).context("no PCI address")?;
        let file = sys::ioctl(&self.group, &mut name)
            .map(sys::adopt)
            .context("VFIO_GROUP_GET_DEVICE_FD")?;
        let device = Device { file };
        device
            .enable_memory()
            .context("switching memory space on")?;
        Ok(device)
    }
}

/// An open VFIO device.
pub struct Device {
    file: File,
}

/// Where region `index` starts in a device's file. VFIO promises no such rule for regions beyond
/// the BARs; those are asked for.
const fn fixed_offset(index: u32) -> u64 {
    (index as u64) << 40
}

impl Device {
    /// The file, for mappings.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn enable_memory(&self) -> Result<()> {
        const PCI_COMMAND: u64 = 0x4;
        const PCI_COMMAND_MEMORY: u16 = 0x2;
        let mut command = [0; 2];
        self.read_config(PCI_COMMAND, &mut command)?;
        let command = u16::from_le_bytes(command) | PCI_COMMAND_MEMORY;
        self.write_config(PCI_COMMAND, &command.to_le_bytes())
    }

    /// Reads bytes of configuration space.
    pub fn read_config(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.read_bar(VFIO_PCI_CONFIG_REGION_INDEX, offset, bytes)
    }

    /// Writes bytes of configuration space.
    pub fn write_config(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_bar(VFIO_PCI_CONFIG_REGION_INDEX, offset, bytes)
    }

    /// How many regions there are.
    pub fn num_regions(&self) -> Result<u32> {
        let mut info = vfio_device_info {
            argsz: argsz::<vfio_device_info>(),
            ..Default::default()
        };
        sys::ioctl(&self.file, &mut info).context("VFIO_DEVICE_GET_INFO")?;
        Ok(info.num_regions)
    }

    /// Reads bytes of BAR `bar`.
    pub fn read_bar(&self, bar: u32, offset: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.file.read_exact_at(bytes, fixed_offset(bar) + offset)?)
    }

    /// Writes bytes of BAR `bar`.
    pub fn write_bar(&self, bar: u32, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_all_at(bytes, fixed_offset(bar) + offset)?)
    }
}
