// SPDX-License-Identifier: GPL-2.0

//! What user space gets of a function beyond plain vfio-pci: a GPU's RAM and a bridge's ATSD
//! registers, as regions of the VFIO device, and what decides whether they may be accessed.

pub(crate) mod atsd_page;
pub(crate) mod dma_registrations;
pub(crate) mod gate;
pub(crate) mod gpu_ram;
