// SPDX-License-Identifier: GPL-2.0

//! What is said about bad firmware: each mutation that `emu run --mutate` knows, and what
//! tests/selftests/bad_firmware.tsv expects of each function of the machine.
//!
//! The same table is what tests/selftests/bad_firmware.c goes by, which looks at the driver as a
//! whole in an emulated host that was booted with some of the mutations.

use crate::{
    pure::topology::{bridge, gpu, Bridge, Gpu},
    tree::{TestNode, Tree},
};
use std::{collections::BTreeSet, ffi::CString, rc::Rc};

const GPUS: usize = 2;
const LINKS_PER_GPU: usize = 3;

const TREE: &str = include_str!("../../qemu/expected/2-gpus.txt");
const MUTATIONS: &str = include_str!("../../qemu/expected/2-gpus-mutations.tsv");
const EXPECTED: &str = include_str!("../../selftests/bad_firmware.tsv");

/// One line of what check_tree.py prints of mutations.py.
struct Mutation {
    name: &'static str,
    path: &'static str,
    property: &'static str,
    value: &'static str,
}

fn fields(line: &'static str) -> impl Iterator<Item = &'static str> {
    line.split('\t')
}

fn rows(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

fn mutations() -> Vec<Mutation> {
    rows(MUTATIONS)
        .map(|line| {
            let [name, path, property, value] = fields(line).collect::<Vec<_>>()[..] else {
                panic!("not four fields: {line}");
            };

            Mutation {
                name,
                path,
                property,
                value,
            }
        })
        .collect()
}

impl Mutation {
    /// Splits the name into the device, its number, and the rest.
    fn parts(&self) -> (&'static str, usize, &'static str) {
        let (device, defect) = self.name.split_once('-').unwrap();
        let kind = device.trim_end_matches(|c: char| c.is_ascii_digit());

        (kind, device[kind.len()..].parse().unwrap(), defect)
    }

    /// Returns the name without the number of the device.
    fn kind(&self) -> String {
        let (device, _, defect) = self.parts();

        format!("{device}-{defect}")
    }

    /// Returns the GPU that has the device, and which of its links it is.
    fn place(&self) -> (usize, usize) {
        let (device, number, _) = self.parts();

        match device {
            "bridge" => (number / LINKS_PER_GPU, number % LINKS_PER_GPU),
            _ => (number, 0),
        }
    }

    fn apply(&self, tree: &Rc<Tree>) {
        let node = tree.node(self.path);
        let name = CString::new(self.property).unwrap();

        match self.value {
            "/delete-property/" => node.remove(&name),
            words => node.set(&name, tree.bytes(words)),
        }
    }
}

/// A function of the machine: a GPU, or a link of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Gpu(usize),
    Bridge(usize, usize),
}

fn functions() -> impl Iterator<Item = Function> {
    (0..GPUS).flat_map(|gpu| {
        [Function::Gpu(gpu)]
            .into_iter()
            .chain((0..LINKS_PER_GPU).map(move |link| Function::Bridge(gpu, link)))
    })
}

impl Function {
    fn gpu(self) -> usize {
        match self {
            Self::Gpu(gpu) | Self::Bridge(gpu, _) => gpu,
        }
    }

    fn is_bridge(self) -> bool {
        matches!(self, Self::Bridge(..))
    }

    fn node(self, tree: &Rc<Tree>) -> TestNode {
        tree.node(&match self {
            Self::Gpu(gpu) => {
                let port = gpu + 0xa;

                format!("/pciex@600c3c0400000/pci@0/pci@0/pci@{port:x}/3d-controller@0")
            }
            Self::Bridge(gpu, 0) => format!("/pciex@6030200000000/unknown-bridge@{gpu}"),
            Self::Bridge(gpu, link) => format!("/pciex@6030200000000/unknown-bridge@{gpu},{link}"),
        })
    }

    /// Whether `who` of a row means this function, when `link` of `gpu` has the mutation. The words
    /// are explained in the table.
    fn is(self, who: &str, gpu: usize, link: usize) -> bool {
        let own = self.gpu() == gpu;
        let this_link = self == Self::Bridge(gpu, link);
        let first_link = self == Self::Bridge(0, 0);

        match who {
            "gpu" => self == Self::Gpu(gpu),
            "link" => this_link,
            "other" => own && self.is_bridge() && !this_link,
            "links" => own && self.is_bridge(),
            "above" => self.gpu() + 1 == gpu,
            "higher" => self.gpu() < gpu,
            "neighbour" => self.gpu() == gpu.checked_sub(1).unwrap_or(1),
            "every-gpu" => !self.is_bridge(),
            "every-link" => self.is_bridge(),
            "first-link" => first_link,
            "later-links" => self.is_bridge() && !first_link,
            _ => panic!("nobody is called {who}"),
        }
    }
}

/// What a row of the table expects of a function.
#[derive(Clone, Copy)]
struct Expectation {
    outcome: &'static str,
    property: &'static str,
    problem: &'static str,
}

/// Works as if nothing had happened, and nothing is said.
const UNHARMED: Expectation = Expectation {
    outcome: "unharmed",
    property: "",
    problem: "",
};

fn expectation(mutation: &Mutation, function: Function) -> Expectation {
    let (gpu, link) = mutation.place();
    let mut found = UNHARMED;

    for row in rows(EXPECTED) {
        let mut row = fields(row);
        let (kind, who) = (row.next().unwrap(), row.next().unwrap());

        if kind == mutation.kind() && function.is(who, gpu, link) {
            found = Expectation {
                outcome: row.next().unwrap(),
                property: row.next().unwrap_or_default(),
                problem: row.next().unwrap_or_default(),
            };
        }
    }
    found
}

/// What the tree says of a function.
#[derive(Debug, PartialEq)]
enum Found {
    Nothing,
    Gpu(Gpu),
    Bridge(Bridge),
}

impl Found {
    /// Returns the ATSD registers of a bridge.
    fn atsd(&self) -> Option<u64> {
        match self {
            Self::Bridge(bridge) => bridge.atsd.map(|atsd| atsd.address()),
            Self::Nothing | Self::Gpu(_) => None,
        }
    }

    /// Whether the driver has a region for it.
    fn has_region(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Gpu(_) => true,
            Self::Bridge(bridge) => bridge.atsd.is_some(),
        }
    }
}

/// Reads what the tree says of a function, and what the driver complains about.
fn read(tree: &Rc<Tree>, function: Function) -> (Found, Option<String>) {
    let node = function.node(tree);

    if function.is_bridge() {
        match bridge(&node) {
            Ok(None) => (Found::Nothing, None),
            Ok(Some((found, fault))) => (Found::Bridge(found), fault.map(|f| f.to_string())),
            Err(fault) => (Found::Nothing, Some(fault.to_string())),
        }
    } else {
        match gpu(&node) {
            Ok(None) => (Found::Nothing, None),
            Ok(Some(found)) => (Found::Gpu(found), None),
            Err(fault) => (Found::Nothing, Some(fault.to_string())),
        }
    }
}

/// Applies a mutation to the tree of a good boot and looks at every function.
fn check(mutation: &Mutation) {
    let good = Tree::parse(TREE);
    let bad = Tree::parse(TREE);

    mutation.apply(&bad);
    for function in functions() {
        let expected = expectation(mutation, function);
        let (before, nothing) = read(&good, function);
        let (found, message) = read(&bad, function);
        let what = format!("{} and {function:?}: {found:?}, {message:?}", mutation.name);

        assert!(before.has_region() && nothing.is_none(), "{what}");
        match expected.outcome {
            "unharmed" => assert_eq!(found, before, "{what}"),
            "plain" => assert!(!found.has_region(), "{what}"),
            // That of the GPU's first link that has registers, which the good tree gives to that one.
            "shared" => {
                let Function::Bridge(gpu, _) = function else {
                    panic!("{what}");
                };
                let other = (0..LINKS_PER_GPU)
                    .map(|link| Function::Bridge(gpu, link))
                    .find(|other| expectation(mutation, *other).outcome == "unharmed")
                    .expect(&what);
                let (other, _) = read(&good, other);

                assert_eq!(found.atsd(), other.atsd(), "{what}");
                assert!(
                    found.has_region() && found.atsd() != before.atsd(),
                    "{what}"
                );
            }
            // A virtual machine is refused by the platform, which has no register of its own for
            // the NPU; the driver just lacks that of a link.
            "no-lpar" => match found {
                Found::Bridge(found) => {
                    assert_eq!(found.atsd.is_none(), message.is_some(), "{what}");
                }
                found => assert_eq!(found, before, "{what}"),
            },
            outcome => panic!("{}: no outcome is called {outcome}", mutation.name),
        }
        match message {
            None => assert_eq!(expected.property, "", "{what}"),
            Some(message) => {
                assert!(!expected.property.is_empty(), "{what}");
                assert!(
                    message.starts_with(&format!("device tree: {} of /", expected.property)),
                    "{what}"
                );
                assert!(message.contains(expected.problem), "{what}");
                // The node to blame is the one that was changed, or another that it reaches into.
                assert!(
                    message.contains(&format!(" of {} ", mutation.path))
                        || expected.problem == "overlaps",
                    "{what}"
                );
            }
        }
    }
}

/// A test for each kind of bad firmware, done to each device that can have it.
macro_rules! kinds {
    ($($test:ident = $kind:literal,)*) => {
        const KINDS: &[&str] = &[$($kind),*];

        $(
            #[test]
            fn $test() {
                for mutation in mutations().iter().filter(|mutation| mutation.kind() == $kind) {
                    check(mutation);
                }
            }
        )*
    };
}

kinds! {
    gpu_npu_missing = "gpu-npu-missing",
    gpu_npu_empty = "gpu-npu-empty",
    gpu_npu_truncated = "gpu-npu-truncated",
    gpu_npu_dangling = "gpu-npu-dangling",
    gpu_npu_self = "gpu-npu-self",
    bridge_gpu_missing = "bridge-gpu-missing",
    bridge_gpu_empty = "bridge-gpu-empty",
    bridge_gpu_truncated = "bridge-gpu-truncated",
    bridge_gpu_dangling = "bridge-gpu-dangling",
    bridge_nvlink_missing = "bridge-nvlink-missing",
    bridge_nvlink_empty = "bridge-nvlink-empty",
    bridge_nvlink_truncated = "bridge-nvlink-truncated",
    bridge_nvlink_dangling = "bridge-nvlink-dangling",
    bridge_memory_missing = "bridge-memory-missing",
    bridge_memory_empty = "bridge-memory-empty",
    bridge_memory_truncated = "bridge-memory-truncated",
    bridge_memory_dangling = "bridge-memory-dangling",
    bridge_tgt_missing = "bridge-tgt-missing",
    bridge_tgt_empty = "bridge-tgt-empty",
    bridge_tgt_truncated = "bridge-tgt-truncated",
    bridge_tgt_half = "bridge-tgt-half",
    bridge_tgt_zero = "bridge-tgt-zero",
    bridge_speed_missing = "bridge-speed-missing",
    bridge_speed_empty = "bridge-speed-empty",
    bridge_speed_truncated = "bridge-speed-truncated",
    bridge_speed_zero = "bridge-speed-zero",
    mem_reg_missing = "mem-reg-missing",
    mem_reg_empty = "mem-reg-empty",
    mem_reg_truncated = "mem-reg-truncated",
    mem_reg_short = "mem-reg-short",
    mem_reg_zero = "mem-reg-zero",
    mem_reg_nosize = "mem-reg-nosize",
    mem_reg_noaddress = "mem-reg-noaddress",
    mem_reg_unaligned = "mem-reg-unaligned",
    mem_reg_oddsize = "mem-reg-oddsize",
    mem_reg_overlap = "mem-reg-overlap",
    mem_reg_beyond = "mem-reg-beyond",
    mem_reg_wraps = "mem-reg-wraps",
    npu_atsd_missing = "npu-atsd-missing",
    npu_atsd_empty = "npu-atsd-empty",
    npu_atsd_truncated = "npu-atsd-truncated",
    npu_atsd_short = "npu-atsd-short",
    npu_atsd_zero = "npu-atsd-zero",
    npu_atsd_unaligned = "npu-atsd-unaligned",
}

#[test]
fn each_kind_has_a_test_and_an_expectation() {
    let tested = KINDS.iter().map(|kind| kind.to_string()).collect();
    let made: BTreeSet<_> = mutations().iter().map(Mutation::kind).collect();
    let expected: BTreeSet<_> = rows(EXPECTED)
        .map(|row| fields(row).next().unwrap().to_string())
        .collect();

    assert_eq!(made, tested);
    assert_eq!(expected, tested);
}

#[test]
fn each_device_has_its_mutations() {
    let devices: BTreeSet<_> = mutations()
        .iter()
        .map(|mutation| mutation.name.split('-').next().unwrap())
        .collect();
    let bridges = GPUS * LINKS_PER_GPU;

    // GPUs, apertures, bridges and the NPU.
    assert_eq!(devices.len(), GPUS + GPUS + bridges + 1);
}
