// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers for the kernel interfaces that the kernel crate lacks.
//!
//! This is the only part of the driver with `unsafe` and raw bindings. Lock order, outermost
//! first: mmap lock, `memory_lock` of a VFIO device ([`lock::MemoryGuard`]), our own locks (but
//! that of an LPAR is outside of all of these), page tables.

mod bindings;
mod vtable;

pub(crate) mod delayed;
pub(crate) mod device_memory;
pub(crate) mod driver;
pub(crate) mod kvm;
pub(crate) mod lock;
pub(crate) mod memory_failure;
pub(crate) mod mm_iommu;
pub(crate) mod mmio;
pub(crate) mod mmu_notifier;
pub(crate) mod npu;
pub(crate) mod of;
pub(crate) mod pci;
pub(crate) mod region;
pub(crate) mod trace;
pub(crate) mod vfio;
pub(crate) mod vma;
