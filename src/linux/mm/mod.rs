// SPDX-License-Identifier: GPL-2.0

//! Memory management: mappings whose pages a driver inserts, and memory without a `struct page`.

pub(crate) mod memremap;
pub(crate) mod mm_iommu;
pub(crate) mod mmu_notifier;
pub(crate) mod pfn_address_space;
pub(crate) mod vma;
