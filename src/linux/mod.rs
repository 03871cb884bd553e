// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers for the kernel interfaces that the kernel crate lacks.
//!
//! This is the only part of the driver with `unsafe` and raw bindings. Lock order, outermost
//! first: mmap lock, `memory_lock` of a VFIO device ([`vfio::memory_lock::MemoryGuard`]), our own
//! locks (but that of a GPU's binding is outside of all of these), page tables.

mod bindings;

pub(crate) mod claim;
pub(crate) mod ioremap;
pub(crate) mod kvm;
pub(crate) mod mm;
pub(crate) mod module_reference;
pub(crate) mod npu;
pub(crate) mod of;
pub(crate) mod pci;
pub(crate) mod platform;
pub(crate) mod process;
pub(crate) mod published;
pub(crate) mod trace;
pub(crate) mod vfio;
pub(crate) mod workqueue;
