// SPDX-License-Identifier: GPL-2.0

//! Device trees: that of a booted machine (tests/qemu/expected), with properties removed, replaced and
//! pointed elsewhere. Whatever firmware says, what the driver makes of it is fit to be mapped, or is
//! refused with a message that names node and property.

#![no_main]

#[allow(dead_code, reason = "this target needs a part of it")]
#[path = "../../../../src/pure/mod.rs"]
mod pure;
#[allow(dead_code, reason = "this target needs a part of it")]
#[path = "../../../host/src/tree.rs"]
mod tree;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pure::{
    aperture::{Aperture, GRANULE},
    devicetree::{FirmwareFault, Node},
    range::MAX_REGION_SIZE,
    topology::{bridge, gpu, gpu_of, MAX_LINKS},
};
use std::{cell::OnceCell, ffi::CStr, rc::Rc};
use tree::{TestNode, Tree};

/// What is done to one property of one node.
#[derive(Arbitrary, Debug)]
enum Change {
    Remove,
    Bytes(Vec<u8>),
    Cells(Vec<u32>),
    /// Phandles of nodes, by number.
    Nodes(Vec<u16>),
    Flip(u16),
}

#[derive(Arbitrary, Debug)]
struct Edit {
    node: u16,
    property: u8,
    change: Change,
}

const NAMES: [&CStr; 10] = [
    c"reg",
    c"ibm,npu",
    c"ibm,gpu",
    c"ibm,nvlink",
    c"ibm,nvlink-speed",
    c"ibm,npu-link-index",
    c"ibm,device-tgt-addr",
    c"ibm,mmio-atsd",
    c"memory-region",
    c"device_type",
];

impl Edit {
    fn apply(&self, tree: &Rc<Tree>) {
        let nodes = tree.len();
        let node = tree.nth(usize::from(self.node) % nodes);
        let name = NAMES[usize::from(self.property) % NAMES.len()];
        let before = node.property(name).map(<[u8]>::to_vec);
        match &self.change {
            Change::Remove if before.is_some() => node.remove(name),
            Change::Remove => {}
            Change::Bytes(bytes) => node.set(name, bytes.clone()),
            Change::Cells(cells) => node.set(
                name,
                cells.iter().flat_map(|cell| cell.to_be_bytes()).collect(),
            ),
            Change::Nodes(list) => {
                let phandles = list.iter().map(|number| u32::from(*number) % nodes as u32);
                node.set(name, phandles.flat_map(u32::to_be_bytes).collect());
            }
            Change::Flip(bit) => {
                if let Some(mut bytes) = before.filter(|bytes| !bytes.is_empty()) {
                    let at = usize::from(bit / 8) % bytes.len();
                    bytes[at] ^= 1 << (bit % 8);
                    node.set(name, bytes);
                }
            }
        }
    }
}

fn check_aperture(aperture: Aperture) {
    assert!(aperture.base() != 0 && aperture.base() % GRANULE == 0);
    assert!(
        aperture.size() != 0
            && aperture.size() % GRANULE == 0
            && aperture.size() <= MAX_REGION_SIZE
    );
    assert!(aperture.base().checked_add(aperture.size()).is_some());
}

fn check_fault(fault: &FirmwareFault<TestNode>) {
    let text = fault.to_string();
    assert!(text.contains(fault.property.to_str().unwrap()), "{text}");
    assert!(text.contains(&fault.node.to_string()), "{text}");
}

fn check_gpu(node: &TestNode) {
    match gpu(node) {
        Ok(None) => assert!(node.property(c"ibm,npu").is_none()),
        Ok(Some(found)) => {
            check_aperture(found.aperture);
            assert_ne!(found.tgt, 0);
            let links = found.links();
            assert!((1..=MAX_LINKS).contains(&links.len()));
            assert!((1..links.len()).all(|i| !links[..i].contains(&links[i])));
        }
        Err(fault) => check_fault(&fault),
    }
}

fn check_bridge(node: &TestNode) {
    match bridge(node) {
        Ok(None) => {}
        Ok(Some((found, fault))) => {
            check_aperture(found.aperture);
            assert_ne!(found.tgt, 0);
            assert_ne!(found.speed, 0);
            if let Some(fault) = &fault {
                check_fault(fault);
            }
            assert!(found.atsd.is_none() || fault.is_none());
            if let Some(atsd) = found.atsd {
                assert!(atsd.address() != 0 && atsd.address() % GRANULE == 0);
            }
            // Both ends tell the same.
            let other = gpu_of(node).unwrap();
            if let Ok(Some(gpu)) = gpu(&other) {
                assert_eq!((gpu.aperture, gpu.tgt), (found.aperture, found.tgt));
                assert!(gpu.links().contains(&found.link));
            }
        }
        Err(fault) => check_fault(&fault),
    }
}

thread_local! {
    static RECORDED: OnceCell<Rc<Tree>> = const { OnceCell::new() };
}

fuzz_target!(|edits: Vec<Edit>| {
    let recorded = RECORDED.with(|tree| {
        tree.get_or_init(|| Tree::parse(include_str!("../../../qemu/expected/6-gpus.txt")))
            .clone()
    });
    let tree = recorded.copy();
    edits.iter().take(16).for_each(|edit| edit.apply(&tree));
    for index in 0..tree.len() {
        let node = tree.nth(index);
        check_gpu(&node);
        check_bridge(&node);
    }
});
