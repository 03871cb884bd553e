// SPDX-License-Identifier: GPL-2.0

//! What `nvlink2ctl` does, as a library for its tests and fuzz targets.
//!
//! Everything that is read from a host goes through [`source::Source`], so that it can be recorded and
//! replayed anywhere; everything that is changed goes through [`bind`].

pub mod bdf;
pub mod bind;
pub mod check;
pub mod cli;
pub mod devicetree;
pub mod doctor;
pub mod domain;
pub mod exit;
pub mod finding;
pub mod gpu_memory;
pub mod groups;
pub mod host;
pub mod memlock;
pub mod output;
pub mod phb;
pub mod processor;
pub mod recording;
pub mod software;
pub mod source;
pub mod units;
pub mod users;

// The kernel module's device tree reader, as it is; rustfmt there has the kernel's configuration.
#[allow(dead_code, reason = "the module needs more of it than this program")]
#[allow(clippy::all, reason = "checked with the kernel's own configuration")]
#[rustfmt::skip]
#[path = "../../../src/pure/mod.rs"]
mod pure;
