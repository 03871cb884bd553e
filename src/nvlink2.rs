// SPDX-License-Identifier: GPL-2.0

//! VFIO access to NVIDIA GPUs that POWER9 attaches over NVLink2.
//!
//! Data flow: device tree -> [`pure::topology`] (parsed once, validated) -> [`function`] (the life
//! of one PCI function) -> [`regions`] -> vfio-pci-core. [`binding`] binds a GPU to the virtual
//! machine that it and its bridges are open for.

mod binding;
mod function;
mod linux;
mod module;
mod pure;
mod regions;

kernel::prelude::module! {
    type: module::Module,
    name: "nvlink2_vfio_pci",
    authors: ["The nvlink2-vfio authors"],
    description: "VFIO PCI driver for NVIDIA GPUs with NVLink2 on POWER9",
    license: "GPL",
    params: {
        max_order: u32 {
            default: 18,
            description: "Largest page of GPU RAM, log2 of CPU pages (64K: 5 is 2M, 14 is 1G)",
        },
    },
}
