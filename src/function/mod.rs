// SPDX-License-Identifier: GPL-2.0

//! A PCI function that the driver is bound to: what it is, and its life from probe to remove.

mod debugfs;
pub(crate) mod device;
mod ids;
mod role;
mod shared;
