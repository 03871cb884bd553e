// SPDX-License-Identifier: GPL-2.0

//! `list` and `show`.

use super::no_function;
use crate::{
    bdf::Bdf,
    exit::Status,
    host::{self, Bridge, Function, Gpu, Host, Unconnected},
    output::{self, or_dash},
};
use anyhow::Result;
use serde::Serialize;

/// Prints GPUs, each followed by its bridges.
pub fn list(host: &Host, json: bool) -> Result<Status> {
    if json {
        output::json(host)?;
        return Ok(Status::Done);
    }
    let mut table = output::table(&[
        "FUNCTION", "ROLE", "SLOT", "GROUP", "DRIVER", "LPAR", "LINK", "SPEED", "ADDRESS",
    ]);
    for gpu in &host.gpus {
        table.add_row(vec![
            gpu.function.bdf.to_string(),
            "GPU".to_owned(),
            or_dash(gpu.slot.as_ref()),
            or_dash(gpu.function.group),
            or_dash(gpu.function.driver.as_ref()),
            or_dash(gpu.lpar.as_ref()),
            "-".to_owned(),
            "-".to_owned(),
            format!(
                "aperture {} ({}){}",
                gpu.aperture.base,
                output::size(gpu.aperture.size),
                gpu.ram
                    .map(|ram| format!(", RAM {}", output::size(ram)))
                    .unwrap_or_default()
            ),
        ]);
        for bridge in gpu.bridges.iter().filter_map(|bdf| host.bridge(*bdf)) {
            table.add_row(bridge_row(bridge));
        }
    }
    let gpu_of = |bridge: &&Bridge| bridge.gpu.and_then(|gpu| host.gpu(gpu));
    for bridge in host
        .bridges
        .iter()
        .filter(|bridge| gpu_of(bridge).is_none())
    {
        table.add_row(bridge_row(bridge));
    }
    for bridge in &host.unconnected {
        table.add_row(vec![
            bridge.function.bdf.to_string(),
            "bridge".to_owned(),
            or_dash(bridge.slot.as_ref()),
            or_dash(bridge.function.group),
            or_dash(bridge.function.driver.as_ref()),
            "-".to_owned(),
            or_dash(bridge.link),
            or_dash(bridge.speed.map(host::speed)),
            "not connected".to_owned(),
        ]);
    }
    output::print(&format!("{table}\n{}", flaws(host)))?;
    Ok(Status::Done)
}

/// What is wrong with GPUs and bridges, a line each.
pub fn flaws(host: &Host) -> String {
    let faulty = host
        .faulty
        .iter()
        .map(|faulty| format!("{}: not usable: {}\n", faulty.function.bdf, faulty.fault));
    let missing = host
        .gpus
        .iter()
        .filter(|gpu| !gpu.missing.is_empty())
        .filter_map(|gpu| host.incomplete(gpu))
        .map(|incomplete| format!("{}. {}\n", incomplete.found, incomplete.remedy));
    let alone = host
        .bridges
        .iter()
        .filter(|bridge| bridge.gpu.is_none())
        .map(|bridge| {
            format!(
                "{}: Linux has no PCI function for its GPU\n",
                bridge.function.bdf
            )
        });

    let removed = [("gpu", "GPU"), ("bridge", "bridge")]
        .into_iter()
        .flat_map(|(role, name)| {
            host.removed(role)
                .into_iter()
                .map(move |node| format!("{node}: Linux has no PCI function for this {name}\n"))
        });

    faulty.chain(missing).chain(alone).chain(removed).collect()
}

fn bridge_row(bridge: &Bridge) -> Vec<String> {
    vec![
        bridge.function.bdf.to_string(),
        "bridge".to_owned(),
        or_dash(bridge.slot.as_ref()),
        or_dash(bridge.function.group),
        or_dash(bridge.function.driver.as_ref()),
        or_dash(bridge.lpar.as_ref()),
        bridge.link.to_string(),
        host::speed(bridge.speed),
        bridge
            .atsd
            .map_or_else(|| "no ATSD".to_owned(), |atsd| format!("ATSD {atsd}")),
    ]
}

/// A function with its role, for JSON.
#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Shown<'h> {
    Gpu(&'h Gpu),
    Bridge(&'h Bridge),
    Unconnected(&'h Unconnected),
    Faulty(&'h host::Faulty),
    Other(&'h Function),
}

/// Prints what is known about a function.
pub fn show(host: &Host, bdf: Bdf, json: bool) -> Result<Status> {
    let function = host.functions.get(&bdf).ok_or_else(|| no_function(bdf))?;
    let shown = host
        .gpu(bdf)
        .map(Shown::Gpu)
        .or_else(|| host.bridge(bdf).map(Shown::Bridge))
        .or_else(|| host.unconnected(bdf).map(Shown::Unconnected))
        .or_else(|| host.faulty(bdf).map(Shown::Faulty))
        .unwrap_or(Shown::Other(function));
    if json {
        output::json(&shown)?;
        return Ok(Status::Done);
    }

    let mut rows = vec![("function", bdf.to_string())];
    rows.extend(match shown {
        Shown::Gpu(gpu) => gpu_rows(host, gpu),
        Shown::Bridge(bridge) => bridge_rows(bridge),
        Shown::Unconnected(bridge) => unconnected_rows(bridge),
        Shown::Faulty(faulty) => vec![
            ("role", "GPU or bridge that is not usable".to_owned()),
            ("fault", faulty.fault.clone()),
        ],
        Shown::Other(_) => vec![("role", "not on NVLink2".to_owned())],
    });
    rows.extend([
        ("PCI id", function.id.clone()),
        ("driver", or_dash(function.driver.as_ref())),
        ("reserved for", or_dash(function.driver_override.as_ref())),
        ("IOMMU group", or_dash(function.group)),
        ("NUMA node", or_dash(function.numa_node)),
        ("device tree", or_dash(function.node.as_ref())),
    ]);
    let mut table = output::untitled();
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    output::print(&table.to_string())?;
    Ok(Status::Done)
}

fn gpu_rows(host: &Host, gpu: &Gpu) -> Vec<(&'static str, String)> {
    let bridges: Vec<_> = gpu
        .bridges
        .iter()
        .filter_map(|bdf| host.bridge(*bdf))
        .map(|bridge| {
            format!(
                "{} (link {}, {})",
                bridge.function.bdf,
                bridge.link,
                host::speed(bridge.speed)
            )
        })
        .collect();
    let missing = host.incomplete(gpu).map(|incomplete| incomplete.found);
    let peers: Vec<_> = gpu
        .peers
        .iter()
        .map(|peer| match peer.bdf {
            Some(bdf) => format!("{} {bdf}", peer.role),
            None => "none".to_owned(),
        })
        .collect();

    vec![
        ("role", "GPU on NVLink2".to_owned()),
        ("slot", or_dash(gpu.slot.as_ref())),
        (
            "aperture",
            format!("{}, {}", gpu.aperture.base, output::size(gpu.aperture.size)),
        ),
        ("RAM", or_dash(gpu.ram.map(output::size))),
        ("tgt", gpu.tgt.to_string()),
        ("bridges", bridges.join(", ")),
        ("missing", or_dash(missing)),
        ("links lead to", peers.join(", ")),
        ("LPAR", or_dash(gpu.lpar.as_ref())),
        ("NPU", or_dash(gpu.npu.as_ref())),
    ]
}

fn unconnected_rows(bridge: &Unconnected) -> Vec<(&'static str, String)> {
    vec![
        (
            "role",
            "NVLink2 bridge that is not connected: its socket is empty, or its GPU does not answer"
                .to_owned(),
        ),
        ("slot", or_dash(bridge.slot.as_ref())),
        ("link", or_dash(bridge.link)),
        ("speed", or_dash(bridge.speed.map(host::speed))),
        ("NPU", or_dash(bridge.npu.as_ref())),
    ]
}

fn bridge_rows(bridge: &Bridge) -> Vec<(&'static str, String)> {
    let atsd = match (bridge.atsd, &bridge.atsd_fault) {
        (Some(atsd), None) => atsd.to_string(),
        (Some(atsd), Some(fault)) => format!("{atsd}, of another link of its GPU: {fault}"),
        (None, Some(fault)) => format!("none: {fault}"),
        (None, None) => "none".to_owned(),
    };

    vec![
        ("role", "NVLink2 bridge".to_owned()),
        ("slot", or_dash(bridge.slot.as_ref())),
        ("GPU", or_dash(bridge.gpu)),
        ("link", bridge.link.to_string()),
        ("speed", host::speed(bridge.speed)),
        ("tgt", bridge.tgt.to_string()),
        ("ATSD registers", atsd),
        ("LPAR", or_dash(bridge.lpar.as_ref())),
        ("NPU", or_dash(bridge.npu.as_ref())),
    ]
}
