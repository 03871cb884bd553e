// SPDX-License-Identifier: GPL-2.0

//! Entry points of the driver, and of the kernel's code on its paths, that a run has to reach.

use strum::{EnumCount, EnumIter, IntoStaticStr};

/// What is counted. A name says where user space comes in, and what the driver has there.
#[derive(Clone, Copy, Debug, EnumCount, EnumIter, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Point {
    OpenGpuWithoutKvm,
    OpenGpuWithKvm,
    OpenBridgeWithoutKvm,
    OpenBridgeWithKvm,
    OpenByName,
    CloseGpu,
    CloseBridge,
    DeviceInfo,
    RegionInfoOfGpuRam,
    RegionInfoOfAtsd,
    RegionInfoOfOthers,
    IrqInfo,
    SetIrqs,
    ResetGpu,
    ResetBridge,
    ResetByConfig,
    ResetWhileAccessed,
    HotResetInfo,
    HotReset,
    Feature,
    FeatureLowPower,
    IoEvent,
    UnknownRequest,
    ConfigRead,
    ConfigWrite,
    ConfigMemory,
    ConfigPower,
    BarRead,
    BarWrite,
    GpuRamRead,
    GpuRamWrite,
    GpuRamMap,
    GpuRamFault,
    GpuRamFaultBySystemCall,
    GpuRamAsBuffer,
    GpuRamUnmap,
    GpuRamUnmapOfPart,
    GpuRamRemap,
    GpuRamProtect,
    GpuRamProtectOfPart,
    GpuRamAdvise,
    GpuRamLock,
    GpuRamInChild,
    GpuRamToTce,
    GpuRamRegister,
    GpuRamUnregister,
    GpuRamRetained,
    GpuRamAsGuestMemory,
    AtsdRead,
    AtsdWrite,
    AtsdMap,
    AtsdFault,
    AtsdUnmap,
    AtsdRemap,
    AtsdInChild,
    BarMap,
    BarFault,
    GroupStatus,
    GroupOpen,
    GroupSetContainer,
    GroupUnsetContainer,
    ContainerExtension,
    ContainerSetIommu,
    TceInfo,
    TceCreate,
    TceRemove,
    MemoryRegister,
    MemoryUnregister,
    DmaMap,
    DmaUnmap,
    Eeh,
    EehReset,
    KvmCreate,
    KvmAddGroup,
    KvmRemoveGroup,
    KvmSetTable,
    EngineCopy,
    Debugfs,
    Bind,
    BindToVfioPci,
    Unbind,
    Unload,
}

impl Point {
    /// Whether success has to be seen, and whether a refusal.
    pub fn needs(self) -> (bool, bool) {
        use Point::{
            AtsdInChild, AtsdUnmap, Bind, BindToVfioPci, CloseBridge, CloseGpu, ConfigMemory,
            ConfigPower, ContainerExtension, GpuRamAdvise, GpuRamAsBuffer, GpuRamAsGuestMemory,
            GpuRamInChild, GpuRamLock, GpuRamProtect, GpuRamProtectOfPart, GpuRamRetained,
            GpuRamUnmap, GpuRamUnmapOfPart, GroupOpen, IoEvent, KvmCreate, OpenByName, ResetBridge,
            ResetByConfig, ResetGpu, ResetWhileAccessed, Unbind, UnknownRequest,
        };
        match self {
            // Never to succeed.
            AtsdInChild | GpuRamInChild | GroupOpen | IoEvent | OpenByName | UnknownRequest => {
                (false, true)
            }
            // Nothing that user space does makes them fail, or nothing that can be relied on.
            AtsdUnmap | Bind | BindToVfioPci | CloseBridge | CloseGpu | ConfigMemory
            | ConfigPower | ContainerExtension | GpuRamAdvise | GpuRamAsBuffer
            | GpuRamAsGuestMemory | GpuRamLock | GpuRamProtect | GpuRamProtectOfPart
            | GpuRamRetained | GpuRamUnmap | GpuRamUnmapOfPart | KvmCreate | ResetBridge
            | ResetByConfig | ResetGpu | ResetWhileAccessed | Unbind => (true, false),
            _ => (true, true),
        }
    }
}
