// SPDX-License-Identifier: GPL-2.0

//! The device trees that guests of all clients see, with the same devices and machine type.

use crate::{
    guests::Bench,
    tally::Tally,
    vm::{Client, Setup, Vm},
};
use anyhow::{ensure, Result};
use std::collections::{BTreeMap, BTreeSet};

/// A machine type that all clients have.
const MACHINE: &str = "pseries-7.2";

/// Properties whose values differ between any two starts, or between releases of QEMU without NVLink2, or that the
/// original client gets wrong; and why.
const MAY_DIFFER: [(&str, &str); 6] = [
    ("/chosen/rng-seed", "random"),
    (
        "/cpus/PowerPC,POWER9@0/ibm,pa-features",
        "later releases tell of more features",
    ),
    (
        "/cpus/PowerPC,POWER9@0/ibm,pi-features",
        "later releases tell of more features",
    ),
    (
        "/rtas/ibm,lrdr-capacity",
        "of a guest that can have no more memory, 7.2 says 0",
    ),
    (
        "/rtas/ibm,numa-distance-table",
        "7.2 leaves the nodes of GPU RAM out",
    ),
    (
        "/rtas/ibm,numa-lookup-index-table",
        "7.2 leaves the nodes of GPU RAM out",
    ),
];

/// Nodes (ending in a slash) and properties, and their values.
type Tree = BTreeMap<String, String>;

fn tree(bench: &Bench, client: Client) -> Result<Tree> {
    let mut vm = Vm::start(&Setup {
        client,
        guest: bench.guest,
        name: "tree",
        devices: &bench.gpus[0].functions(),
        options: &["-M", MACHINE],
    })?;
    let text = vm.output("dump_tree")?;
    vm.power_off()?;
    Ok(text
        .lines()
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect())
}

/// What is in one tree only, or has another value in the other.
fn differences(before: &Tree, now: &Tree) -> Vec<String> {
    let paths: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let value = |tree: &Tree, path: &str| tree.get(path).cloned().unwrap_or("missing".to_owned());
    paths
        .into_iter()
        .filter(|path| MAY_DIFFER.iter().all(|(may, _)| may != path))
        .filter(|path| before.get(*path) != now.get(*path))
        .map(|path| {
            format!(
                "{path}: {} became {}",
                value(before, path),
                value(now, path)
            )
        })
        .collect()
}

/// Guests that were made for the original client see the tree that they know.
pub fn trees(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let before = tree(bench, Client::Bookworm)?;
    let now = tree(bench, Client::Series)?;
    let found = |path: &str| before.keys().any(|key| key.contains(path));
    tally.add("trees: QEMU 7.2 describes NVLink2", {
        let wanted = [
            "/npuphb0/link@0/",
            "/memory@400000000000/",
            "/ibm,npu",
            "/ibm,nvlink",
        ];
        let missing: Vec<_> = wanted.into_iter().filter(|path| !found(path)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("without {missing:?}"))
        }
    });
    tally.add("trees: QEMU 10.0 makes the same tree", {
        let found = differences(&before, &now);
        (|| {
            ensure!(found.is_empty(), "{}", found.join("\n"));
            Ok(())
        })()
    });
    bench.clean(tally, "guests of two generations");
    Ok(())
}
