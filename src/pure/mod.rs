// SPDX-License-Identifier: GPL-2.0

//! The parts of the driver that need no kernel: decoding, arithmetic, byte layout.
//!
//! Nothing here refers to the kernel crate or allocates, so the module, KUnit and the host tests
//! (tests/host) compile the same files. Sizes and addresses are bytes in `u64` throughout.

pub(crate) mod aperture;
pub(crate) mod atsd_registers;
pub(crate) mod blocks;
pub(crate) mod causes;
pub(crate) mod cells;
pub(crate) mod devicetree;
pub(crate) mod lpid;
pub(crate) mod range;
pub(crate) mod shared_value;
pub(crate) mod topology;
pub(crate) mod xts;
