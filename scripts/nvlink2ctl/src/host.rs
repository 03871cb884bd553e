// SPDX-License-Identifier: GPL-2.0

//! GPUs, bridges and NPUs of a host: what sysfs, the device tree and the driver's debugfs say.
//!
//! - NPU: the POWER9 unit with six NVLink2 links; a PCI host bridge to Linux.
//! - bridge: the PCI function by which firmware represents one link of an NPU.
//! - aperture: where in host physical address space the RAM of a GPU appears.
//! - tgt: the address under which the NPU knows the GPU (`ibm,device-tgt-addr`).
//! - ATSD: the registers by which software has a GPU drop translations.
//! - LPAR: the guest for which the NPU translates a GPU's addresses.
//!
//! Firmware makes a bridge for each link of an NPU. That to an empty socket, or to a GPU that does not
//! answer, is not connected: it names no GPU, and no GPU lists it.

use crate::{
    bdf::Bdf,
    devicetree::{Tree, TreeNode},
    domain::Known,
    exit::{Status, Stop},
    processor::Processor,
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
    /// Size of its RAM in bytes, where its PCI id tells; the aperture is larger.
    pub ram: Option<u64>,
    /// Its address to the NPU.
    pub tgt: Address,
    /// Its bridges (`ibm,npu`).
    pub bridges: Vec<Bdf>,
    /// Nodes of those of its bridges for which Linux has no PCI function.
    pub missing: Vec<String>,
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
    /// The GPU at its other end; `None` if Linux has no PCI function for it.
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

/// A bridge whose link leads nowhere: its socket is empty, or its GPU does not answer.
#[derive(Clone, Debug, Serialize)]
pub struct Unconnected {
    /// The function.
    #[serde(flatten)]
    pub function: Function,
    /// The slot (`ibm,loc-code`).
    pub slot: Option<String>,
    /// Path of its NPU's node in the device tree.
    pub npu: Option<String>,
    /// Index of the link in its NPU.
    pub link: Option<u32>,
    /// `ibm,nvlink-speed`, a code.
    pub speed: Option<u32>,
}

/// An NPU.
#[derive(Clone, Debug, Serialize)]
pub struct Npu {
    /// Path of its node in the device tree.
    pub node: String,
    /// PCI domain of its bridges; `None` if Linux shows none.
    pub domain: Option<u32>,
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
    /// Whether it is a bridge.
    #[serde(skip)]
    pub is_bridge: bool,
    /// Which property of which node is wrong.
    pub fault: String,
}

/// A GPU or bridge that firmware has found, and for which Linux has no PCI function.
#[derive(Clone, Debug, Serialize)]
pub struct Removed {
    /// `gpu` or `bridge`.
    pub role: &'static str,
    /// Path of its node in the device tree.
    pub node: String,
    /// The slot (`ibm,loc-code`).
    pub slot: Option<String>,
}

/// A host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    /// What it calls itself.
    pub model: String,
    /// Its NPUs, by PCI domain.
    pub npus: Vec<Npu>,
    /// Its GPUs, by address.
    pub gpus: Vec<Gpu>,
    /// Its bridges that lead to a GPU, by address.
    pub bridges: Vec<Bridge>,
    /// Its bridges that lead nowhere, by address.
    pub unconnected: Vec<Unconnected>,
    /// GPUs and bridges that firmware describes wrongly.
    pub faulty: Vec<Faulty>,
    /// GPUs, and bridges that no GPU with a function lists, for which Linux has no function.
    pub removed: Vec<Removed>,
    /// All of its PCI functions.
    #[serde(skip)]
    pub functions: BTreeMap<Bdf, Function>,
    /// Whether its links are those of POWER8, NVLink1, which have no bridge with RAM behind it.
    #[serde(skip)]
    pub nvlink1: bool,
}

/// A code of `ibm,nvlink-speed` as people read it: the rate of a lane.
pub fn speed(code: u32) -> String {
    match code {
        3 => "20 Gb/s".to_owned(),
        8 => "25.78125 Gb/s".to_owned(),
        9 => "25 Gb/s".to_owned(),
        code => format!("code {code}"),
    }
}

/// The RAM of the V100 SXM2, of which the PCI id tells two sizes.
fn ram(id: &str) -> Option<u64> {
    match id {
        "10de:1db1" => Some(16 << 30),
        "10de:1db5" => Some(32 << 30),
        _ => None,
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
            unconnected: Vec::new(),
            faulty: Vec::new(),
            removed: Vec::new(),
            functions,
            nvlink1: tree.as_ref().is_some_and(|tree| is_nvlink1(source, tree)),
        };

        if let Some(tree) = tree.as_ref().filter(|_| !host.nvlink1) {
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
        let mut npus: BTreeMap<String, Npu> = BTreeMap::new();
        let mut add_npu = |node: Option<TreeNode<'_>>, domain: Option<u32>| {
            let node = node?;
            let path = node.path().to_owned();
            let known = npus.entry(path.clone()).or_insert_with(|| npu(node));
            known.domain = known.domain.or(domain);
            Some(path)
        };

        for function in self.functions.values() {
            let Some(node) = node_of(tree, function) else {
                continue;
            };
            let domain = Some(function.bdf.domain);
            let is_gpu = node.bytes("ibm,npu").is_some();
            match (topology::gpu(&node), topology::bridge(&node)) {
                (Ok(Some(gpu)), _) => self.gpus.push(Gpu {
                    slot: node.text("ibm,loc-code"),
                    npu: add_npu(
                        listed(node, "ibm,npu").next().and_then(TreeNode::above),
                        None,
                    ),
                    aperture: Aperture {
                        base: Address(gpu.aperture.base()),
                        size: gpu.aperture.size(),
                    },
                    ram: ram(&function.id),
                    tgt: Address(gpu.tgt),
                    bridges: listed(node, "ibm,npu").filter_map(at).collect(),
                    missing: listed(node, "ibm,npu")
                        .filter(|bridge| at(*bridge).is_none())
                        .map(|bridge| bridge.path().to_owned())
                        .collect(),
                    peers: Vec::new(),
                    lpar: lpar(source, function.bdf),
                    function: function.clone(),
                }),
                (Ok(None), Ok(Some((bridge, atsd_fault)))) => self.bridges.push(Bridge {
                    slot: node.text("ibm,loc-code"),
                    npu: add_npu(node.above(), domain),
                    gpu: topology::gpu_of(&node).ok().and_then(at),
                    link: bridge.link,
                    speed: bridge.speed,
                    tgt: Address(bridge.tgt),
                    atsd: bridge.atsd.map(|atsd| Address(atsd.address())),
                    atsd_fault: atsd_fault.map(|fault| fault.to_string()),
                    lpar: lpar(source, function.bdf),
                    function: function.clone(),
                }),
                (Err(fault), _) | (_, Err(fault)) => {
                    if !is_gpu {
                        add_npu(node.above(), domain);
                    }
                    self.faulty.push(Faulty {
                        is_bridge: !is_gpu,
                        fault: fault.to_string(),
                        function: function.clone(),
                    });
                }
                (Ok(None), Ok(None)) if topology::is_unconnected(&node) => {
                    self.unconnected.push(Unconnected {
                        slot: node.text("ibm,loc-code"),
                        npu: add_npu(node.above(), domain),
                        link: listed(node, "ibm,nvlink")
                            .next()
                            .and_then(|link| link.cell("ibm,npu-link-index")),
                        speed: node.cell("ibm,nvlink-speed"),
                        function: function.clone(),
                    });
                }
                (Ok(None), Ok(None)) => {}
            }
        }

        let missing: BTreeSet<&str> = self
            .gpus
            .iter()
            .flat_map(|gpu| &gpu.missing)
            .map(String::as_str)
            .collect();
        self.removed = [("gpu", "ibm,npu"), ("bridge", "ibm,gpu")]
            .into_iter()
            .flat_map(|(role, property)| {
                tree.with_property(property)
                    .filter(|node| at(*node).is_none() && !missing.contains(node.path()))
                    .map(move |node| Removed {
                        role,
                        node: node.path().to_owned(),
                        slot: node.text("ibm,loc-code"),
                    })
            })
            .collect();

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
        self.npus.sort_by_key(|npu| npu.domain);
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
            let reason = if !self.removed.is_empty() {
                "Linux has no PCI function for those that firmware has found"
            } else if self.nvlink1 {
                "its links are NVLink1, that of POWER8: they have no RAM behind them (memory-region)"
            } else {
                "no PCI function has the device tree property ibm,npu"
            };
            return Err(Stop::new(
                Status::NoNvlink2,
                format!(
                    "{name} has no GPU with NVLink2: {reason}. \
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

    /// The bridge at an address, if its link is not connected.
    pub fn unconnected(&self, bdf: Bdf) -> Option<&Unconnected> {
        self.unconnected
            .iter()
            .find(|bridge| bridge.function.bdf == bdf)
    }

    /// The GPU or bridge at an address, if firmware describes it wrongly.
    pub fn faulty(&self, bdf: Bdf) -> Option<&Faulty> {
        self.faulty.iter().find(|faulty| faulty.function.bdf == bdf)
    }

    /// Whether firmware describes links and Linux has no function for any of them: the kernel lacks
    /// support for NPUs.
    pub fn lacks_npu_support(&self) -> bool {
        let seen = self.bridges.is_empty()
            && self.unconnected.is_empty()
            && !self.faulty.iter().any(|faulty| faulty.is_bridge);
        seen && self.gpus.iter().any(|gpu| !gpu.missing.is_empty())
    }

    /// What of the removed ones is a `gpu` or a `bridge`, as people read it.
    pub fn removed(&self, role: &str) -> Vec<String> {
        self.removed
            .iter()
            .filter(|removed| removed.role == role)
            .map(|removed| match &removed.slot {
                Some(slot) => format!("{} ({slot})", removed.node),
                None => removed.node.clone(),
            })
            .collect()
    }

    /// Why a GPU can't be passed through with all of its bridges.
    pub fn incomplete(&self, gpu: &Gpu) -> Option<Incomplete> {
        let bdf = gpu.function.bdf;
        if self.lacks_npu_support() {
            return Some(Incomplete {
                found: format!(
                    "{bdf}: Linux shows none of its {} bridges",
                    gpu.missing.len()
                ),
                remedy: "The running kernel has no support for NPUs (CONFIG_PPC_POWERNV_NPU2): boot Linux 7.3 with the series of scripts/kernel/",
            });
        }
        if !gpu.missing.is_empty() {
            return Some(Incomplete {
                found: format!(
                    "{bdf}: Linux has no PCI function for its bridge {}",
                    gpu.missing.join(" and ")
                ),
                remedy: "The function was removed, or its link failed ('dmesg'): rescan ('echo 1 > /sys/bus/pci/rescan'); if it does not come back, reboot the host",
            });
        }
        let faulty: Vec<_> = gpu
            .bridges
            .iter()
            .filter_map(|bridge| self.faulty(*bridge))
            .map(|faulty| format!("its bridge {}: {}", faulty.function.bdf, faulty.fault))
            .collect();
        (!faulty.is_empty()).then(|| Incomplete {
            found: format!("{bdf}: {}", faulty.join("; ")),
            remedy: "Update or repair the firmware (OPAL makes the device tree)",
        })
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

/// Why a GPU lacks one of its bridges, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// What is missing.
    pub found: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Whether links are there, and none of their bridges has what NVLink2 adds: a region of memory and an
/// address for the NPU. On a POWER9 that would be a fault of firmware.
fn is_nvlink1(source: &Source, tree: &Tree) -> bool {
    let (mut links, mut nvlink2) = (false, false);
    for gpu in tree.with_property("ibm,npu") {
        for bridge in listed(gpu, "ibm,npu") {
            links = true;
            nvlink2 |= ["memory-region", "ibm,device-tgt-addr"]
                .iter()
                .any(|name| bridge.bytes(name).is_some());
        }
    }
    links && !nvlink2 && !Processor::read(source).is_power9()
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

fn npu(node: TreeNode) -> Npu {
    let atsd = node.bytes("ibm,mmio-atsd").unwrap_or_default();
    Npu {
        node: node.path().to_owned(),
        domain: None,
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
