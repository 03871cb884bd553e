// SPDX-License-Identifier: GPL-2.0

//! VFIO PCI drivers in Rust: what `rust/kernel/vfio/` would be.
//!
//! A driver implements [`driver::Driver`]; [`adapter`] registers it with the PCI core, and `ops` is
//! what VFIO calls.

pub(crate) mod adapter;
pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod enabled;
pub(crate) mod memory_lock;
mod ops;
pub(crate) mod region;
