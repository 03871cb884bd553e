// SPDX-License-Identifier: GPL-2.0

//! `topology`.

use super::{Options, host, output, show};
use crate::{
    bdf::Bdf,
    exit::Status,
    host::{self, Gpu, Host, Npu},
    output::or_dash,
};
use anyhow::{Result, bail};
use petgraph::{
    dot::{Config, Dot},
    graph::{NodeIndex, UnGraph},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// How to print it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print a graph for Graphviz ('| dot -Tsvg')
    #[arg(long)]
    dot: bool,
}

/// One link, seen from a GPU.
#[derive(Debug, Serialize)]
struct Link {
    gpu: Bdf,
    /// `npu` or `gpu`.
    to: &'static str,
    /// The bridge, or the GPU at the other end.
    bdf: Bdf,
    /// Index of the link in the NPU.
    link: Option<u32>,
    /// Firmware's code.
    speed: Option<u32>,
}

#[derive(Serialize)]
struct Report<'h> {
    model: &'h str,
    npus: &'h [Npu],
    links: Vec<Link>,
}

/// All links of all GPUs; one between GPUs is in it once.
fn links(host: &Host) -> Vec<Link> {
    let to_npu = |gpu: &Gpu| {
        let bdf = gpu.function.bdf;
        gpu.bridges
            .iter()
            .filter_map(|bridge| host.bridge(*bridge))
            .map(move |bridge| Link {
                gpu: bdf,
                to: "npu",
                bdf: bridge.function.bdf,
                link: Some(bridge.link),
                speed: Some(bridge.speed),
            })
            .collect::<Vec<_>>()
    };
    let to_gpus = |gpu: &Gpu| {
        let bdf = gpu.function.bdf;
        gpu.peers
            .iter()
            .filter(|peer| peer.role == "gpu")
            .filter_map(|peer| peer.bdf)
            .filter(move |peer| bdf < *peer)
            .map(move |peer| Link {
                gpu: bdf,
                to: "gpu",
                bdf: peer,
                link: None,
                speed: None,
            })
            .collect::<Vec<_>>()
    };
    host.gpus
        .iter()
        .flat_map(|gpu| to_npu(gpu).into_iter().chain(to_gpus(gpu)))
        .collect()
}

/// Prints how GPUs and processors are linked.
pub fn run(options: &Options, arguments: &Arguments) -> Result<Status> {
    if options.json && arguments.dot {
        bail!("--json and --dot: want one of them");
    }
    let host = host(options)?.with_nvlink2()?;
    if options.json {
        output::json(&Report {
            model: &host.model,
            npus: &host.npus,
            links: links(&host),
        })?;
    } else if arguments.dot {
        output::print(&dot(&host))?;
    } else {
        output::print(&text(&host))?;
    }
    Ok(Status::Done)
}

fn name(npu: &Npu) -> String {
    format!("NPU of chip {}", or_dash(npu.chip))
}

fn text(host: &Host) -> String {
    let links = links(host);
    let mut text = String::new();

    for npu in &host.npus {
        let domain = match npu.domain {
            Some(domain) => format!("PCI domain {domain:04x}"),
            None => "not shown by Linux".to_owned(),
        };
        text += &format!(
            "{} ({}): {domain}, {} links, {} ATSD registers\n",
            name(npu),
            npu.node,
            or_dash(npu.links),
            npu.atsd.len()
        );
        let mut table =
            output::table(&["GPU", "SLOT", "GROUP", "LINKS TO THE NPU", "LINKS TO GPUS"]);
        for gpu in npu.gpus.iter().filter_map(|bdf| host.gpu(*bdf)) {
            let bdf = gpu.function.bdf;
            let to_npu: Vec<_> = links
                .iter()
                .filter(|link| link.to == "npu" && link.gpu == bdf)
                .map(|link| {
                    let speed = link.speed.map(host::speed);
                    format!("{} ({})", link.bdf, or_dash(speed))
                })
                .chain(
                    (!gpu.missing.is_empty())
                        .then(|| format!("{} not shown by Linux", gpu.missing.len())),
                )
                .collect();
            let mut peers: BTreeMap<Bdf, usize> = BTreeMap::new();
            for peer in gpu.peers.iter().filter(|peer| peer.role == "gpu") {
                if let Some(bdf) = peer.bdf {
                    let count = peers.entry(bdf).or_default();
                    *count = count.saturating_add(1);
                }
            }
            let to_gpus: Vec<_> = peers
                .iter()
                .map(|(bdf, count)| format!("{count} x {bdf}"))
                .collect();
            table.add_row([
                bdf.to_string(),
                or_dash(gpu.slot.as_ref()),
                or_dash(gpu.function.group),
                to_npu.join(", "),
                to_gpus.join(", "),
            ]);
        }
        text += &format!("{table}\n");
        let unconnected: Vec<_> = host
            .unconnected
            .iter()
            .filter(|bridge| bridge.npu.as_deref() == Some(&npu.node))
            .map(|bridge| bridge.function.bdf.to_string())
            .collect();
        if !unconnected.is_empty() {
            text += &format!("not connected: {}\n", unconnected.join(", "));
        }
    }
    text += &show::flaws(host);
    text
}

fn dot(host: &Host) -> String {
    let mut graph: UnGraph<String, String> = UnGraph::default();
    let npus: Vec<(&Npu, NodeIndex)> = host
        .npus
        .iter()
        .map(|npu| (npu, graph.add_node(format!("{}\n{}", name(npu), npu.node))))
        .collect();
    let gpus: BTreeMap<Bdf, NodeIndex> = host
        .gpus
        .iter()
        .map(|gpu| {
            let slot = gpu.slot.as_deref().unwrap_or("GPU");
            let bdf = gpu.function.bdf;
            (
                bdf,
                graph.add_node(format!("{slot}\n{bdf}\naperture {}", gpu.aperture.base)),
            )
        })
        .collect();

    for link in links(host) {
        let Some(gpu) = gpus.get(&link.gpu).copied() else {
            continue;
        };
        let (other, label) = match host.bridge(link.bdf) {
            Some(bridge) => (
                npus.iter()
                    .find(|(npu, _)| bridge.npu.as_deref() == Some(&npu.node))
                    .map(|(_, index)| *index),
                format!("{}\n{}", link.bdf, host::speed(bridge.speed)),
            ),
            None => (gpus.get(&link.bdf).copied(), String::new()),
        };
        if let Some(other) = other {
            graph.add_edge(gpu, other, label);
        }
    }
    let label = |text: &str| format!("label = {text:?}");
    Dot::with_attr_getters(
        &graph,
        &[Config::NodeNoLabel, Config::EdgeNoLabel],
        &|_, edge| label(edge.weight()),
        &|_, (_, node)| format!("{}, shape = box", label(node)),
    )
    .to_string()
}
