// SPDX-License-Identifier: GPL-2.0

//! GPUs, their bridges and apertures as the device tree states them.

use anyhow::{bail, Context, Result};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

const PCI_DEVICES: &str = "/sys/bus/pci/devices";
const DEVICE_TREE: &str = "/sys/firmware/devicetree/base";

/// One NVLink2 link of a GPU: a function of the NPU.
pub struct Bridge {
    /// PCI address.
    pub bdf: String,
    /// `ibm,npu-link-index`.
    pub link: u32,
    /// `ibm,nvlink-speed`, NVIDIA's code.
    pub speed: u32,
    /// Host physical address of the link's ATSD register block.
    pub atsd: u64,
}

/// A GPU with NVLink2 links to the processor.
pub struct Gpu {
    /// PCI address.
    pub bdf: String,
    /// Number of its IOMMU group.
    pub group: u32,
    /// `ibm,loc-code`: the slot.
    pub slot: String,
    /// Host physical address and size of its aperture.
    pub aperture: (u64, u64),
    /// `ibm,device-tgt-addr`: the aperture's address as the GPU names it.
    pub tgt: u64,
    /// Its links in the device tree's order.
    pub bridges: Vec<Bridge>,
}

impl Gpu {
    /// PCI addresses of the GPU and its bridges.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.bdf.as_str()).chain(self.bridges.iter().map(|b| b.bdf.as_str()))
    }
}

/// All of a machine.
pub struct Topology {
    /// What the machine calls itself.
    pub model: String,
    /// GPUs in order of their PCI addresses.
    pub gpus: Vec<Gpu>,
}

impl Topology {
    /// PCI addresses of all GPUs and bridges.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.gpus.iter().flat_map(Gpu::functions)
    }

    /// The IOMMU groups of all GPUs.
    pub fn iommu_groups(&self) -> BTreeSet<u32> {
        self.gpus.iter().map(|gpu| gpu.group).collect()
    }
}

/// A node of the device tree.
struct Node(PathBuf);

impl Node {
    fn of_function(bdf: &str) -> Option<Self> {
        fs::canonicalize(format!("{PCI_DEVICES}/{bdf}/of_node"))
            .ok()
            .map(Self)
    }

    fn bytes(&self, property: &str) -> Result<Vec<u8>> {
        fs::read(self.0.join(property)).with_context(|| format!("{}: {property}", self.0.display()))
    }

    fn has(&self, property: &str) -> bool {
        self.0.join(property).exists()
    }

    fn text(&self, property: &str) -> String {
        let bytes = self.bytes(property).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .trim_end_matches('\0')
            .to_owned()
    }

    fn cells(&self, property: &str) -> Result<Vec<u32>> {
        let bytes = self.bytes(property)?;
        if bytes.len() % 4 != 0 {
            bail!(
                "{}: {property} is {} bytes long",
                self.0.display(),
                bytes.len()
            );
        }
        Ok(bytes
            .chunks_exact(4)
            .map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]))
            .collect())
    }

    fn cell(&self, property: &str) -> Result<u32> {
        let cells = self.cells(property)?;
        cells
            .first()
            .copied()
            .with_context(|| format!("{}: {property} is empty", self.0.display()))
    }

    fn pairs(&self, property: &str) -> Result<Vec<u64>> {
        let cells = self.cells(property)?;
        Ok(cells
            .chunks_exact(2)
            .map(|c| u64::from(c[0]) << 32 | u64::from(c[1]))
            .collect())
    }

    fn pair(&self, property: &str, index: usize) -> Result<u64> {
        let pairs = self.pairs(property)?;
        pairs
            .get(index)
            .copied()
            .with_context(|| format!("{}: {property} has no entry {index}", self.0.display()))
    }

    fn parent(&self) -> Result<Self> {
        let parent = self.0.parent().context("the root node has no parent")?;
        Ok(Self(parent.to_owned()))
    }
}

/// All nodes by phandle.
fn phandles(folder: &Path, found: &mut HashMap<u32, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            phandles(&entry.path(), found)?;
        } else if entry.file_name() == "phandle" {
            found.insert(Node(folder.to_owned()).cell("phandle")?, folder.to_owned());
        }
    }
    Ok(())
}

fn bridge(bdf: &str, node: &Node, nodes: &HashMap<u32, PathBuf>) -> Result<Bridge> {
    let link = nodes
        .get(&node.cell("ibm,nvlink")?)
        .context("ibm,nvlink names no node")?;
    let link = Node(link.clone()).cell("ibm,npu-link-index")?;
    Ok(Bridge {
        bdf: bdf.to_owned(),
        link,
        speed: node.cell("ibm,nvlink-speed")?,
        atsd: node.parent()?.pair("ibm,mmio-atsd", link as usize)?,
    })
}

fn gpu(
    bdf: &str,
    node: &Node,
    nodes: &HashMap<u32, PathBuf>,
    functions: &HashMap<PathBuf, String>,
) -> Result<Gpu> {
    let group =
        fs::read_link(format!("{PCI_DEVICES}/{bdf}/iommu_group")).context("no IOMMU group")?;
    let group = group
        .file_name()
        .and_then(|name| name.to_str())
        .context("odd IOMMU group")?
        .parse()?;

    let mut bridges = Vec::new();
    let mut memory = None;
    for phandle in node.cells("ibm,npu")? {
        let path = nodes
            .get(&phandle)
            .with_context(|| format!("ibm,npu names no node {phandle:#x}"))?;
        let bdf = functions
            .get(path)
            .with_context(|| format!("{} is no PCI function", path.display()))?;
        let npu = Node(path.clone());
        memory.get_or_insert((
            npu.cell("memory-region")?,
            npu.pair("ibm,device-tgt-addr", 0)?,
        ));
        bridges.push(bridge(bdf, &npu, nodes)?);
    }
    let (memory, tgt) = memory.context("ibm,npu is empty")?;
    let memory = Node(
        nodes
            .get(&memory)
            .context("memory-region names no node")?
            .clone(),
    );
    Ok(Gpu {
        bdf: bdf.to_owned(),
        group,
        slot: node.text("ibm,loc-code"),
        aperture: (memory.pair("reg", 0)?, memory.pair("reg", 1)?),
        tgt,
        bridges,
    })
}

/// Reads the machine's topology. A machine without NVLink2 GPUs is an error.
pub fn read() -> Result<Topology> {
    let mut nodes = HashMap::new();
    phandles(Path::new(DEVICE_TREE), &mut nodes).context(DEVICE_TREE)?;

    let mut names = Vec::new();
    for entry in fs::read_dir(PCI_DEVICES).context(PCI_DEVICES)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let functions: HashMap<PathBuf, String> = names
        .iter()
        .filter_map(|bdf| Some((Node::of_function(bdf)?.0, bdf.clone())))
        .collect();

    let mut gpus = Vec::new();
    for bdf in &names {
        if let Some(node) = Node::of_function(bdf).filter(|node| node.has("ibm,npu")) {
            gpus.push(gpu(bdf, &node, &nodes, &functions).with_context(|| bdf.clone())?);
        }
    }
    if gpus.is_empty() {
        bail!("no PCI function has ibm,npu: no GPU with NVLink2 to this processor");
    }
    let root = Node(PathBuf::from(DEVICE_TREE));
    let model = [
        root.text("model"),
        root.text("compatible").replace('\0', ", "),
    ];
    Ok(Topology {
        model: model
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        gpus,
    })
}
