// SPDX-License-Identifier: GPL-2.0

//! The topology of emulated Witherspoons, and what is said about broken ones.

use crate::{
    pure::{
        aperture::Aperture,
        devicetree::{Node, Problem},
        topology::{bridge, gpu, gpu_of, is_unconnected},
        xts::HostBlocks,
    },
    tree::{TestNode, Tree},
};
use std::{ffi::CStr, rc::Rc};

const APERTURE: u64 = 0x20_0000_0000;
const NPU: &str = "/pciex@6030200000000";

fn tree() -> Rc<Tree> {
    Tree::parse(include_str!("../../qemu/expected/2-gpus.txt"))
}

/// Of each GPU of a Redbud.
const LINKS: usize = 3;

fn gpu_path(number: usize) -> String {
    let port = 0xa + number;

    format!("/pciex@600c3c0400000/pci@0/pci@0/pci@{port:x}/3d-controller@0")
}

fn path_of_bridge(npu: &str, gpu: usize, link: usize) -> String {
    match link {
        0 => format!("{npu}/unknown-bridge@{gpu}"),
        _ => format!("{npu}/unknown-bridge@{gpu},{link}"),
    }
}

fn bridge_path(link: usize) -> String {
    path_of_bridge(NPU, link / LINKS, link % LINKS)
}

fn base(number: usize) -> u64 {
    0x3e0_0000_0000 - number as u64 * APERTURE
}

#[test]
fn every_gpu_has_its_three_links() {
    for number in 0..2 {
        let found = gpu(&tree().node(&gpu_path(number))).unwrap().unwrap();

        assert_eq!(
            found.aperture,
            Aperture::new(base(number), APERTURE).unwrap()
        );
        assert_eq!(found.tgt, base(number));
        assert_eq!(
            found.links(),
            [0, 1, 2].map(|link| (number * LINKS) as u32 + link)
        );
    }
}

#[test]
fn every_bridge_has_its_gpu_and_register() {
    for link in 0..6 {
        let node = tree().node(&bridge_path(link));
        let (found, fault) = bridge(&node).unwrap().unwrap();

        assert!(fault.is_none());
        assert_eq!(gpu_of(&node).unwrap().to_string(), gpu_path(link / LINKS));
        assert_eq!(found.aperture.base(), base(link / LINKS));
        assert_eq!(found.aperture.size(), APERTURE);
        assert_eq!(found.tgt, base(link / LINKS));
        assert_eq!(found.link, link as u32);
        assert_eq!(found.speed, 8);
        assert_eq!(
            found.atsd.map(|atsd| atsd.address()),
            Some(0x6_0302_0080_0000 + 0x1_0000 * link as u64)
        );
    }
}

/// As OPAL before 6.2 has it: the registers of the first link only.
#[test]
fn a_link_without_registers_shares_those_of_its_gpu() {
    let tree = tree();
    let first = 0x6_0302_0080_0000_u64;

    tree.node(NPU)
        .set(c"ibm,mmio-atsd", first.to_be_bytes().to_vec());
    for link in 0..6 {
        let (found, fault) = bridge(&tree.node(&bridge_path(link))).unwrap().unwrap();
        let of_gpu_0 = link < LINKS;

        assert_eq!(fault.is_some(), link != 0);
        assert_eq!(
            found.atsd.map(|atsd| atsd.address()),
            of_gpu_0.then_some(first)
        );
    }
}

/// The NPU has eight register blocks and six links; old OPAL tells of the first block only.
#[test]
fn the_host_has_the_registers_of_no_link() {
    let table: [(&[u32], [u64; 2]); 4] = [
        (&[0x60302, 0x80_0000], [0x86_0000, 0x87_0000]),
        (&[], [0; 2]),
        (&[0x60302, 0x80_0001], [0; 2]),
        (&[0x60302, 0xfa_0000], [0; 2]),
    ];
    let check = |tree: &Rc<Tree>, expected: [u64; 2]| {
        let blocks = HostBlocks::of(&tree.node(NPU));

        assert_eq!(blocks.is_empty(), expected == [0; 2]);
        assert!(blocks
            .launch_registers()
            .eq(expected.into_iter().filter(|n| *n != 0)));
    };

    check(&tree(), [0x86_0000, 0x87_0000]);
    for (list, expected) in table {
        let tree = tree();

        damage(&tree.node(NPU), c"ibm,mmio-atsd", set(list));
        check(&tree, expected);
    }
    for name in [c"ibm,mmio-atsd", c"ibm,npcq", c"reg"] {
        let tree = tree();

        tree.node(NPU).remove(name);
        check(&tree, [0; 2]);
    }
}

/// Both chips of both boards. The NPU knows the memory of chip 8 under another address, as it drops
/// address bits.
#[test]
fn every_gpu_of_both_boards() {
    for (text, links, speed) in [
        (include_str!("../../qemu/expected/4-gpus.txt"), 3, 8),
        (include_str!("../../qemu/expected/6-gpus.txt"), 2, 9),
    ] {
        let tree = Tree::parse(text);

        for (chip, ports, switch) in [
            (0, [0xa, 0xb, 0xc], "/pciex@600c3c0400000/pci@0/pci@0"),
            (8, [0x4, 0x5, 0xd], "/pciex@620c3c0500000/pci@0/pci@0"),
        ] {
            let npu = format!("/pciex@{:x}", 0x6_0302_0000_0000_u64 + (chip << 42));

            for (number, port) in ports.iter().enumerate().take(6 / links) {
                let path = format!("{switch}/pci@{port:x}/3d-controller@0");
                let found = gpu(&tree.node(&path)).unwrap().unwrap();
                let tgt = base(number) + (chip << 40);

                assert_eq!(found.aperture.base(), base(number) + (chip << 42));
                assert_eq!(found.tgt, tgt, "{path}");
                assert_eq!(found.links().len(), links);
                for (link, index) in found.links().iter().enumerate() {
                    let node = tree.node(&path_of_bridge(&npu, number, link));
                    let (found, fault) = bridge(&node).unwrap().unwrap();

                    assert!(fault.is_none() && found.atsd.is_some());
                    assert_eq!(gpu_of(&node).unwrap().to_string(), path);
                    assert_eq!((found.tgt, found.link, found.speed), (tgt, *index, speed));
                }
            }
        }
    }
}

#[test]
fn other_functions_are_not_on_nvlink() {
    let tree = tree();

    assert!(gpu(&tree.node(NPU)).unwrap().is_none());
    assert!(bridge(&tree.node(NPU)).unwrap().is_none());
}

/// As firmware leaves the bridges of an empty socket: no GPU, and nobody who lists them.
#[test]
fn links_to_an_empty_socket_are_not_connected() {
    let tree = tree();

    tree.node(&gpu_path(1)).remove(c"ibm,npu");
    for link in 3..6 {
        let node = tree.node(&bridge_path(link));

        node.remove(c"ibm,gpu");
        assert!(is_unconnected(&node));
        assert!(bridge(&node).unwrap().is_none());
    }
    assert!(gpu(&tree.node(&gpu_path(0))).unwrap().is_some());
    for link in 0..3 {
        let node = tree.node(&bridge_path(link));

        assert!(!is_unconnected(&node));
        assert!(bridge(&node).unwrap().is_some());
    }
}

/// A bridge that names no GPU although one lists it is faulty, and no other function is a bridge.
#[test]
fn what_a_gpu_lists_is_connected() {
    let tree = tree();
    let node = tree.node(&bridge_path(2));

    node.remove(c"ibm,gpu");
    assert!(!is_unconnected(&node));
    assert_eq!(bridge(&node).unwrap_err().problem, Problem::Missing);
    assert!(!is_unconnected(&tree.node(NPU)));
}

/// A way to break a property.
enum Damage {
    Remove,
    Set(Vec<u8>),
}

fn set(cells: &[u32]) -> Damage {
    Damage::Set(cells.iter().flat_map(|cell| cell.to_be_bytes()).collect())
}

fn damage(node: &TestNode, name: &CStr, damage: Damage) {
    match damage {
        Damage::Remove => node.remove(name),
        Damage::Set(bytes) => node.set(name, bytes),
    }
}

/// Damages of properties that GPU 0 and its links need, and what is to be said about each.
fn matrix() -> Vec<(String, &'static CStr, Damage, Problem)> {
    let bridge = || bridge_path(0);
    let memory = || String::from("/memory@3e000000000");
    let link = || String::from("/xscom@603fc00000000/npu@5011000/link@0");
    let byte = || Damage::Set(vec![0]);

    vec![
        (bridge(), c"ibm,gpu", Damage::Remove, Problem::Missing),
        (bridge(), c"ibm,gpu", byte(), Problem::Length),
        (bridge(), c"ibm,gpu", set(&[0xdead]), Problem::Dangling),
        (
            bridge(),
            c"ibm,device-tgt-addr",
            Damage::Remove,
            Problem::Missing,
        ),
        (bridge(), c"ibm,device-tgt-addr", set(&[1]), Problem::Length),
        (
            bridge(),
            c"ibm,device-tgt-addr",
            set(&[0, 0]),
            Problem::Zero,
        ),
        (bridge(), c"ibm,nvlink", Damage::Remove, Problem::Missing),
        (bridge(), c"ibm,nvlink", set(&[0xdead]), Problem::Dangling),
        (bridge(), c"memory-region", Damage::Remove, Problem::Missing),
        (bridge(), c"memory-region", set(&[]), Problem::Length),
        (
            bridge(),
            c"memory-region",
            set(&[0xdead]),
            Problem::Dangling,
        ),
        (
            link(),
            c"ibm,npu-link-index",
            Damage::Remove,
            Problem::Missing,
        ),
        (link(), c"ibm,npu-link-index", byte(), Problem::Length),
        (memory(), c"reg", Damage::Remove, Problem::Missing),
        (memory(), c"reg", set(&[0x3e0, 0, 0x20]), Problem::Length),
        (memory(), c"reg", set(&[0, 0, 0x20, 0]), Problem::Zero),
        (memory(), c"reg", set(&[0x3e0, 0, 0, 0]), Problem::Zero),
        (
            memory(),
            c"reg",
            set(&[0x3e0, 0x1000, 0x20, 0]),
            Problem::Unaligned,
        ),
        (
            memory(),
            c"reg",
            set(&[!0, 0xffff_0000, 0x20, 0]),
            Problem::Wraps,
        ),
        (
            memory(),
            c"reg",
            set(&[0x3e0, 0, 0x101, 0]),
            Problem::TooLarge,
        ),
        (
            memory(),
            c"reg",
            set(&[0x3d0, 0, 0x20, 0]),
            Problem::Overlaps,
        ),
    ]
}

#[test]
fn faults_are_blamed_on_the_property() {
    for (path, name, how, problem) in matrix() {
        let tree = tree();
        let node = tree.node(&path);

        damage(&node, name, how);
        let of_gpu = gpu(&tree.node(&gpu_path(0))).unwrap_err();
        let of_bridge = bridge(&tree.node(&bridge_path(0))).unwrap_err();

        for fault in [of_gpu, of_bridge] {
            assert_eq!(
                (fault.node.to_string(), fault.property, fault.problem),
                (path.clone(), name, problem)
            );
        }
    }
}

#[test]
fn faults_of_one_gpu_leave_the_others_alone() {
    for (path, name, how, _) in matrix()
        .into_iter()
        .filter(|entry| entry.3 != Problem::Overlaps)
    {
        let tree = tree();

        damage(&tree.node(&path), name, how);
        assert!(
            gpu(&tree.node(&gpu_path(1))).unwrap().is_some(),
            "{path} {name:?}"
        );
        assert!(
            bridge(&tree.node(&bridge_path(LINKS))).unwrap().is_some(),
            "{path} {name:?}"
        );
    }
}

#[test]
fn the_list_of_bridges_must_be_right() {
    let table = [
        (set(&[]), Problem::Length),
        (Damage::Set(vec![0; 5]), Problem::Length),
        (set(&[1; 7]), Problem::Length),
        (set(&[0xdead]), Problem::Dangling),
        (
            Damage::Set(phandle(&tree(), &gpu_path(0))),
            Problem::NoBridge,
        ),
    ];

    for (how, problem) in table {
        let tree = tree();
        let node = tree.node(&gpu_path(0));

        damage(&node, c"ibm,npu", how);
        let fault = gpu(&node).unwrap_err();

        assert_eq!(
            (fault.node.to_string(), fault.problem),
            (gpu_path(0), problem)
        );
        // The bridge's GPU does not list it any more.
        assert_eq!(
            bridge(&tree.node(&bridge_path(0))).unwrap_err().problem,
            Problem::Disagrees
        );
    }
}

#[test]
fn one_bad_entry_takes_the_other_links_along() {
    let unknown = 0xdead_u32.to_be_bytes().to_vec();
    let gpu_itself = phandle(&tree(), &gpu_path(0));

    for (entry, problem) in [
        (unknown, Problem::Dangling),
        (gpu_itself, Problem::NoBridge),
    ] {
        let tree = tree();
        let other = phandle(&tree, &bridge_path(1));

        tree.node(&gpu_path(0))
            .set(c"ibm,npu", [entry, other].concat());
        let fault = bridge(&tree.node(&bridge_path(1))).unwrap_err();

        assert_eq!(
            (fault.node.to_string(), fault.property, fault.problem),
            (gpu_path(0), c"ibm,npu", problem)
        );
    }
}

#[test]
fn defect_21_links_of_one_gpu_must_agree() {
    let table = [
        (c"ibm,device-tgt-addr", set(&[0x3c0, 0])),
        (
            c"memory-region",
            Damage::Set(phandle(&tree(), "/memory@3c000000000")),
        ),
        (c"ibm,gpu", Damage::Set(phandle(&tree(), &gpu_path(1)))),
    ];

    for (name, how) in table {
        let tree = tree();

        damage(&tree.node(&bridge_path(1)), name, how);
        let fault = gpu(&tree.node(&gpu_path(0))).unwrap_err();

        assert_eq!(
            (fault.node.to_string(), fault.property),
            (bridge_path(1), name)
        );
        assert_eq!(fault.problem, Problem::Disagrees);
    }
}

#[test]
fn a_link_must_not_be_listed_twice() {
    let tree = tree();
    let node = tree.node(&gpu_path(0));
    let phandle = phandle(&tree, &bridge_path(0));

    node.set(c"ibm,npu", [phandle.clone(), phandle].concat());
    assert_eq!(gpu(&node).unwrap_err().problem, Problem::Disagrees);
}

#[test]
fn a_bridge_needs_a_speed() {
    for (how, problem) in [
        (Damage::Remove, Problem::Missing),
        (set(&[0, 9]), Problem::Length),
        (set(&[0]), Problem::Zero),
    ] {
        let tree = tree();
        let node = tree.node(&bridge_path(0));

        damage(&node, c"ibm,nvlink-speed", how);
        let fault = bridge(&node).unwrap_err();

        assert_eq!(
            (fault.property, fault.problem),
            (c"ibm,nvlink-speed", problem)
        );
        assert!(gpu(&tree.node(&gpu_path(0))).unwrap().is_some());
    }
}

#[test]
fn a_bridge_works_without_atsd() {
    let table = [
        (c"ibm,mmio-atsd", Damage::Remove, Problem::Missing),
        (
            c"ibm,mmio-atsd",
            set(&[0x60302, 0x80_0000, 0x60302]),
            Problem::Length,
        ),
        (c"ibm,mmio-atsd", set(&[]), Problem::NoEntry),
        (
            c"ibm,mmio-atsd",
            set(&[0x60302, 0x80_0001]),
            Problem::Outside,
        ),
        (
            c"ibm,mmio-atsd",
            set(&[0x60302, 0x100_0000]),
            Problem::Outside,
        ),
        (c"ibm,mmio-atsd", set(&[0, 0]), Problem::Outside),
        (c"reg", Damage::Remove, Problem::Missing),
    ];

    for (name, how, problem) in table {
        let tree = tree();

        damage(&tree.node(NPU), name, how);
        let (found, fault) = bridge(&tree.node(&bridge_path(0))).unwrap().unwrap();
        let fault = fault.unwrap();

        assert!(found.atsd.is_none());
        assert_eq!(
            (fault.node.to_string(), fault.property, fault.problem),
            (NPU.to_string(), name, problem)
        );
    }
}

#[test]
fn memory_of_the_system_counts_as_overlap() {
    let text = include_str!("../../qemu/expected/2-gpus.txt");
    let ram = "/memory@0\n  device_type \"memory\"\n  reg 0 0 3e0 10000\n";
    let tree = Tree::parse(&format!("{text}{ram}"));

    assert_eq!(
        gpu(&tree.node(&gpu_path(0))).unwrap_err().problem,
        Problem::Overlaps
    );
}

#[test]
fn messages_name_node_and_property() {
    let tree = tree();

    tree.node(&bridge_path(0)).remove(c"ibm,gpu");
    assert_eq!(
        gpu(&tree.node(&gpu_path(0))).unwrap_err().to_string(),
        format!("device tree: ibm,gpu of {NPU}/unknown-bridge@0 is missing")
    );
}

fn phandle(tree: &Rc<Tree>, path: &str) -> Vec<u8> {
    tree.node(path).phandle().to_be_bytes().to_vec()
}
