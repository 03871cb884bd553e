// SPDX-License-Identifier: GPL-2.0

//! Raw bindings: the kernel crate's, and ours for what it lacks.
//!
//! Generated types refer to the kernel crate's through the glob import, so a `pci_dev` here is a
//! `kernel::bindings::pci_dev`, and a type that neither has is a compile error.

// Thousands of items, and their documentation is C's.
#![doc(hidden)]
#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    unnecessary_transmutes,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub(super) use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

include!(env!("NVLINK2_BINDINGS"));
