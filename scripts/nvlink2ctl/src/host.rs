// SPDX-License-Identifier: GPL-2.0

//! GPUs, bridges and NPUs of a host: what sysfs, the device tree and the driver's debugfs say.
//!
//! - NPU: the POWER9 unit with six NVLink2 links; a PCI host bridge to Linux.
//! - bridge: the PCI function by which firmware represents one link of an NPU.
//! - aperture: where in host physical address space the RAM of a GPU appears.
//! - tgt: the address under which the NPU knows the GPU (`ibm,device-tgt-addr`).
//! - ATSD: the registers by which software has a GPU drop translations.
//! - LPAR: the guest for which the NPU translates a GPU's addresses.

use crate::{
    bdf::Bdf,
    devicetree::{Tree, TreeNode},
    domain::Known,
    exit::{Status, Stop},
    pure::{cells, topology},
    source::Source,
};
use anyhow::Result;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Where Linux lists PCI functions.
pub const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// The driver's folder in debugfs.
pub const DEBUGFS: &str = "/sys/kernel/debug/nvlink2-vfio-pci";

/// The properties by which libvirt tells an NVLink2 bridge; all must be there.
pub const BRIDGE_PROPERTIES: [&str; 4] =
    ["ibm,gpu", "ibm,nvlink", "ibm,nvlink-speed", "memory-region"];

/// An address, which JSON gets as a hexadecimal string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Any PCI function.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    /// Its address.
    pub bdf: Bdf,
    /// `vendor:device` in hexadecimal, as lspci has it.
    pub id: String,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// The driver that it is reserved for (`driver_override`).
    pub driver_override: Option<String>,
    /// Number of its IOMMU group.
    pub group: Option<u32>,
    /// Its NUMA node.
    pub numa_node: Option<i32>,
    /// Path of its node in the device tree.
    pub node: Option<String>,
    /// Whether it is an NVLink2 bridge by libvirt's rule.
    pub libvirt_bridge: bool,
}

/// An aperture in host physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Aperture {
    /// First address.
    pub base: Address,
    /// Size in bytes: of the aperture, not of the RAM behind it.
    pub size: u64,
}

/// What a link of a GPU leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// `gpu`, `bridge`, or `none` if the link leads nowhere.
    pub role: &'static str,
    /// The function at the other end.
    pub bdf: Option<Bdf>,
}

/// A GPU with NVLink2 to its processor.
#[derive(Clone, Debug, Serialize)]
pub struct Gpu {
    /// The function.
    #[serde(flatten)]
    pub function: Function,
    /// The slot (`ibm,loc-code`).
    pub slot: Option<String>,
    /// Path of its NPU's node in the device tree.
    pub npu: Option<String>,
    /// Where its RAM appears.
    pub aperture: Aperture,
    /// Its address to the NPU.
    pub tgt: Address,
    /// Its bridges.
    pub bridges: Vec<Bdf>,
    /// What each of its links leads to (`ibm,nvlink-peers`).
    pub peers: Vec<Peer>,
    /// The guest that it is bound to, as the driver says it: an LPID, `none`, or with `retained`.
    pub lpar: Option<String>,
}

/// An NVLink2 bridge that leads to a GPU.
#[derive(Clone, Debug, Serialize)]
pub struct Bridge {
    /// The function.
    #[serde(flatten)]
    pub function: Function,
    /// The slot of its GPU (`ibm,loc-code`).
    pub slot: Option<String>,
    /// Path of its NPU's node in the device tree.
    pub npu: Option<String>,
    /// The GPU at its other end.
    pub gpu: Option<Bdf>,
    /// Index of the link in its NPU.
    pub link: u32,
    /// `ibm,nvlink-speed`, a code.
    pub speed: u32,
    /// Its address to the NPU.
    pub tgt: Address,
    /// Its ATSD registers.
    pub atsd: Option<Address>,
    /// Why it has none.
    pub atsd_fault: Option<String>,
    /// As of its GPU.
    pub lpar: Option<String>,
}

/// An NPU.
#[derive(Clone, Debug, Serialize)]
pub struct Npu {
    /// Path of its node in the device tree.
    pub node: String,
    /// PCI domain of its bridges.
    pub domain: u32,
    /// Number of its processor chip (`ibm,chip-id`).
    pub chip: Option<u32>,
    /// Its links (`ibm,links`).
    pub links: Option<u32>,
    /// Its ATSD registers (`ibm,mmio-atsd`).
    pub atsd: Vec<Address>,
    /// Its GPUs.
    pub gpus: Vec<Bdf>,
}

/// A function whose device tree properties are wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Faulty {
    /// The function.
    #[serde(flatten)]
    pub function: Function,
    /// Which property of which node is wrong.
    pub fault: String,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// What it calls itself.
    pub model: String,
    /// Its NPUs, by PCI domain.
    pub npus: Vec<Npu>,
    /// Its GPUs, by address.
    pub gpus: Vec<Gpu>,
    /// Its bridges, by address.
    pub bridges: Vec<Bridge>,
    /// GPUs and bridges that firmware describes wrongly.
    pub faulty: Vec<Faulty>,
    /// All of its PCI functions.
    #[serde(skip)]
    pub functions: BTreeMap<Bdf, Function>,
}

/// A code of `ibm,nvlink-speed` as people read it.
pub fn speed(code: u32) -> String {
    match code {
        9 => "25 Gb/s".to_owned(),
        code => format!("code {code}"),
    }
}

impl Host {
    /// Reads all of a host.
    pub fn read(source: &Source) -> Self {
        let tree = Tree::read(source);
        let functions: BTreeMap<Bdf, Function> = source
            .peek_folder(PCI_DEVICES)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, _)| name.parse().ok())
            .map(|bdf| (bdf, function(source, tree.as_ref(), bdf)))
            .collect();
        let mut host = Self {
            model: tree.as_ref().map(model).unwrap_or_default(),
            npus: Vec::new(),
            gpus: Vec::new(),
            bridges: Vec::new(),
            faulty: Vec::new(),
            functions,
        };

        if let Some(tree) = &tree {
            host.look_at_functions(source, tree);
        }
        host
    }

    fn look_at_functions(&mut self, source: &Source, tree: &Tree) {
        let by_node: BTreeMap<&str, Bdf> = self
            .functions
            .values()
            .filter_map(|function| Some((function.node.as_deref()?, function.bdf)))
            .collect();
        let at = |node: TreeNode| by_node.get(node.path()).copied();
        let mut npus: BTreeMap<Bdf, Npu> = BTreeMap::new();

        for function in self.functions.values() {
            let Some(node) = node_of(tree, function) else {
                continue;
            };
            let (gpu, bridge) = (topology::gpu(&node), topology::bridge(&node));
            match (gpu, bridge) {
                (Ok(Some(gpu)), _) => self.gpus.push(Gpu {
                    slot: node.text("ibm,loc-code"),
                    npu: listed(node, "ibm,npu")
                        .next()
                        .and_then(TreeNode::above)
                        .map(|npu| npu.path().to_owned()),
                    aperture: Aperture {
                        base: Address(gpu.aperture.base()),
                        size: gpu.aperture.size(),
                    },
                    tgt: Address(gpu.tgt),
                    bridges: listed(node, "ibm,npu").filter_map(at).collect(),
                    peers: Vec::new(),
                    lpar: lpar(source, function.bdf),
                    function: function.clone(),
                }),
                (Ok(None), Ok(Some((bridge, atsd_fault)))) => {
                    let gpu = topology::gpu_of(&node).ok().and_then(at);
                    if let Some(above) = node.above() {
                        npus.entry(Bdf {
                            bus: 0,
                            slot: 0,
                            function: 0,
                            ..function.bdf
                        })
                        .or_insert_with(|| npu(above, function.bdf.domain));
                    }
                    self.bridges.push(Bridge {
                        slot: node.text("ibm,loc-code"),
                        npu: node.above().map(|npu| npu.path().to_owned()),
                        gpu,
                        link: bridge.link,
                        speed: bridge.speed,
                        tgt: Address(bridge.tgt),
                        atsd: bridge.atsd.map(|atsd| Address(atsd.address())),
                        atsd_fault: atsd_fault.map(|fault| fault.to_string()),
                        lpar: lpar(source, function.bdf),
                        function: function.clone(),
                    });
                }
                (Err(fault), _) | (_, Err(fault)) => self.faulty.push(Faulty {
                    fault: fault.to_string(),
                    function: function.clone(),
                }),
                (Ok(None), Ok(None)) => {}
            }
        }

        let gpus: BTreeSet<Bdf> = self.gpus.iter().map(|gpu| gpu.function.bdf).collect();
        let bridges: BTreeSet<Bdf> = self.bridges.iter().map(|b| b.function.bdf).collect();
        for gpu in &mut self.gpus {
            let Some(node) = node_of(tree, &gpu.function) else {
                continue;
            };
            let cells = node.bytes("ibm,nvlink-peers").and_then(cells::list);
            gpu.peers = cells
                .into_iter()
                .flatten()
                .map(|phandle| {
                    let bdf = node.by_phandle(phandle).and_then(at);
                    let role = match bdf {
                        Some(bdf) if gpus.contains(&bdf) => "gpu",
                        Some(bdf) if bridges.contains(&bdf) => "bridge",
                        _ => "none",
                    };
                    Peer { role, bdf }
                })
                .collect();
        }
        self.npus = npus.into_values().collect();
        for npu in &mut self.npus {
            npu.gpus = self
                .gpus
                .iter()
                .filter(|gpu| gpu.npu.as_deref() == Some(&npu.node))
                .map(|gpu| gpu.function.bdf)
                .collect();
        }
    }

    /// The host, if it has a GPU on NVLink2, or one that firmware describes wrongly.
    pub fn with_nvlink2(self) -> Result<Self> {
        if self.gpus.is_empty() && self.faulty.is_empty() {
            let name = if self.model.is_empty() {
                "this host".to_owned()
            } else {
                format!("this host ({})", self.model)
            };
            return Err(Stop::new(
                Status::NoNvlink2,
                format!(
                    "{name} has no GPU with NVLink2: no PCI function has the device tree property ibm,npu. \
                     Only POWER9 hosts with V100 SXM2 GPUs (IBM AC922) have them; 'nvlink2ctl doctor' looks closer, \
                     --sysfs FILE reads the recording of another host"
                ),
            )
            .into());
        }
        Ok(self)
    }

    /// The GPU at an address.
    pub fn gpu(&self, bdf: Bdf) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.function.bdf == bdf)
    }

    /// The bridge at an address.
    pub fn bridge(&self, bdf: Bdf) -> Option<&Bridge> {
        self.bridges
            .iter()
            .find(|bridge| bridge.function.bdf == bdf)
    }

    /// The functions of an IOMMU group.
    pub fn group(&self, number: u32) -> impl Iterator<Item = &Function> {
        self.functions
            .values()
            .filter(move |function| function.group == Some(number))
    }

    /// What libvirt would find out about a function.
    pub fn known(&self, bdf: Bdf) -> Option<Known> {
        self.functions.get(&bdf).map(|function| Known {
            group: function.group,
            bridge: function.libvirt_bridge,
        })
    }
}

fn node_of<'t>(tree: &'t Tree<'t>, function: &Function) -> Option<TreeNode<'t>> {
    tree.node(&format!(
        "{}{}",
        crate::devicetree::BASE,
        function.node.as_deref()?
    ))
}

fn function(source: &Source, tree: Option<&Tree>, bdf: Bdf) -> Function {
    let folder = bdf.folder();
    let hex = |name| {
        let text = source.text(&format!("{folder}/{name}")).unwrap_or_default();
        text.strip_prefix("0x").unwrap_or(&text).to_owned()
    };
    let node = source
        .link(&format!("{folder}/of_node"))
        .and_then(|path| Some(path.strip_prefix(crate::devicetree::BASE)?.to_owned()));
    let properties = || {
        let node = tree?.node(&format!("{}{}", crate::devicetree::BASE, node.as_deref()?))?;
        Some(
            BRIDGE_PROPERTIES
                .iter()
                .all(|name| node.bytes(name).is_some()),
        )
    };

    Function {
        bdf,
        id: format!("{}:{}", hex("vendor"), hex("device")),
        driver: source.link_name(&format!("{folder}/driver")),
        driver_override: source
            .text(&format!("{folder}/driver_override"))
            .filter(|name| name != "(null)" && !name.is_empty()),
        group: source
            .link_name(&format!("{folder}/iommu_group"))
            .and_then(|number| number.parse().ok()),
        numa_node: source
            .text(&format!("{folder}/numa_node"))
            .and_then(|number| number.parse().ok())
            .filter(|node| *node >= 0),
        libvirt_bridge: properties().unwrap_or(false),
        node,
    }
}

fn npu(node: TreeNode, domain: u32) -> Npu {
    let atsd = node.bytes("ibm,mmio-atsd").unwrap_or_default();
    Npu {
        node: node.path().to_owned(),
        domain,
        chip: node.cell("ibm,chip-id"),
        links: node.cell("ibm,links"),
        atsd: atsd
            .chunks_exact(8)
            .filter_map(cells::wide)
            .map(Address)
            .collect(),
        gpus: Vec::new(),
    }
}

/// The nodes that a property lists.
fn listed<'t>(node: TreeNode<'t>, property: &str) -> impl Iterator<Item = TreeNode<'t>> {
    let cells = node.bytes(property).and_then(cells::list);
    cells
        .into_iter()
        .flatten()
        .filter_map(move |phandle| node.by_phandle(phandle))
}

fn model(tree: &Tree) -> String {
    let text = |name| {
        let bytes = tree.root()?.bytes(name)?;
        let text = String::from_utf8_lossy(bytes);
        Some(text.trim_end_matches('\0').replace('\0', ", "))
    };
    [text("model"), text("compatible")]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

fn lpar(source: &Source, bdf: Bdf) -> Option<String> {
    source.text(&format!("{DEBUGFS}/{bdf}/lpar"))
}
