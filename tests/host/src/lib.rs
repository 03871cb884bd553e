// SPDX-License-Identifier: GPL-2.0

//! The module's `src/pure`, compiled as it is, with the tests that are in it; and tests of its
//! device tree reader on the tree that OPAL makes (tests/qemu/expected) and on mutations of it; and
//! rules about how the files of `src` refer to one another.

#![cfg(test)]

#[path = "../../../src/pure/mod.rs"]
mod pure;

mod bad_firmware;
mod house;
mod topology;
mod tree;
