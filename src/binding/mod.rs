// SPDX-License-Identifier: GPL-2.0

//! For which guest a GPU translates addresses, and what becomes of that when the guest loses
//! memory.

pub(crate) mod gpu_binding;
pub(crate) mod lpar_mapping;
pub(crate) mod translator;
pub(crate) mod vm_watch;
