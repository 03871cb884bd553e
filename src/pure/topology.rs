// SPDX-License-Identifier: GPL-2.0

//! Which GPU is behind which NVLink2 bridges, as the firmware's device tree says.
//!
//! - NPU: the POWER9 unit with six NVLink2 links ("bricks"); a PCI host bridge to Linux.
//! - bridge: the PCI function by which firmware represents one link of the NPU.
//! - aperture: where in host physical address space the memory of a GPU appears.
//! - tgt: the address under which the NPU knows the GPU; what pairs a GPU and its bridges.
//! - ATSD: the registers by which software has the GPU drop translations.
//!
//! A GPU's `ibm,npu` lists its bridges, a bridge's `ibm,gpu` names its GPU; `memory-region` and
//! `ibm,device-tgt-addr` exist per bridge and must agree between the bridges of one GPU.
//!
//! Firmware makes a bridge for each link, also for those to a socket that is empty or whose GPU
//! does not answer. Such a bridge names no GPU, and no GPU lists it: its link is not connected.

use crate::pure::{
    aperture::Aperture,
    atsd_registers::Atsd,
    cells,
    devicetree::{
        fault,
        FirmwareFault,
        Node,
        Problem, //
    },
};
use core::ffi::CStr;

const GPU: &CStr = c"ibm,gpu";
const MEMORY: &CStr = c"memory-region";
const NPU: &CStr = c"ibm,npu";
const REG: &CStr = c"reg";
const TGT: &CStr = c"ibm,device-tgt-addr";

/// Links of an NPU, and so at most of a GPU.
pub(crate) const MAX_LINKS: usize = 6;

/// A GPU on NVLink2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// The addresses of its RAM.
    pub(crate) aperture: Aperture,
    /// `ibm,device-tgt-addr`, never 0.
    pub(crate) tgt: u64,
    links: [u32; MAX_LINKS],
    count: usize,
}

impl Gpu {
    /// Returns the indices of the GPU's links in its NPU (`ibm,npu-link-index`).
    pub(crate) fn links(&self) -> &[u32] {
        self.links.get(..self.count).unwrap_or_default()
    }
}

/// One link of an NPU to a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// The aperture of the GPU at the other end.
    pub(crate) aperture: Aperture,
    /// `ibm,device-tgt-addr` of the GPU.
    pub(crate) tgt: u64,
    /// Index in the NPU (`ibm,npu-link-index`), which also selects the ATSD register.
    pub(crate) link: u32,
    /// `ibm,nvlink-speed`, a code.
    pub(crate) speed: u32,
    /// The ATSD registers of the link, or those of another link of its GPU, if firmware tells of
    /// any. All of them work for the machine that the GPU is bound to.
    pub(crate) atsd: Option<Atsd>,
}

/// What the device tree says about a link, common to both views of it.
struct Link<N> {
    aperture: Aperture,
    tgt: u64,
    index: u32,
    gpu: N,
}

/// Reads what `node` says as a GPU; `None` if it is not on NVLink2.
pub(crate) fn gpu<N: Node>(node: &N) -> Result<Option<Gpu>, FirmwareFault<N>> {
    let Some(bytes) = node.property(NPU) else {
        return Ok(None);
    };
    let Some(bridges) = cells::list(bytes).filter(|list| list.clone().count() <= MAX_LINKS) else {
        return Err(fault(node, NPU, Problem::Length));
    };
    let mut found: Option<Gpu> = None;

    for phandle in bridges {
        let bridge = listed_bridge(node, phandle)?;
        let link = link(&bridge)?;

        if link.gpu.phandle() != node.phandle() {
            return Err(fault(&bridge, GPU, Problem::Disagrees));
        }
        let gpu = found.get_or_insert(Gpu {
            aperture: link.aperture,
            tgt: link.tgt,
            links: [0; MAX_LINKS],
            count: 0,
        });

        if gpu.aperture != link.aperture {
            return Err(fault(&bridge, MEMORY, Problem::Disagrees));
        }
        if gpu.tgt != link.tgt {
            return Err(fault(&bridge, TGT, Problem::Disagrees));
        }
        if gpu.links().contains(&link.index) {
            return Err(fault(node, NPU, Problem::Disagrees));
        }
        let count = gpu.count;

        if let Some(slot) = gpu.links.get_mut(count) {
            *slot = link.index;
            gpu.count = count.saturating_add(1);
        }
    }
    Ok(found)
}

/// Reads what `node` says as a bridge; `None` if it is none, or if its link is not connected.
///
/// The second fault is that of the link's own ATSD registers: the bridge works with those of
/// another link of its GPU, or without.
#[expect(clippy::type_complexity)]
pub(crate) fn bridge<N: Node>(
    node: &N,
) -> Result<Option<(Bridge, Option<FirmwareFault<N>>)>, FirmwareFault<N>> {
    if !is_bridge(node) || is_unconnected(node) {
        return Ok(None);
    }
    let link = link(node)?;
    let speed = number(node, c"ibm,nvlink-speed", cells::cell)?;
    let disagrees = || fault(&link.gpu, NPU, Problem::Disagrees);
    let list = link
        .gpu
        .property(NPU)
        .and_then(cells::list)
        .ok_or_else(disagrees)?;

    if !list.clone().any(|phandle| phandle == node.phandle()) {
        return Err(disagrees());
    }
    // The platform takes all links of a GPU off NVLink2 when it can't find one of them.
    for phandle in list.clone() {
        listed_bridge(&link.gpu, phandle)?;
    }
    let (atsd, atsd_fault) = match node.parent().map(|npu| atsd(&npu, link.index)) {
        Some(Ok(atsd)) => (Some(atsd), None),
        Some(Err(fault)) => (atsd_of_any(&link.gpu, list), Some(fault)),
        None => (None, None),
    };
    let bridge = Bridge {
        aperture: link.aperture,
        tgt: link.tgt,
        link: link.index,
        speed,
        atsd,
    };

    Ok(Some((bridge, atsd_fault)))
}

/// Finds a bridge that a GPU lists.
fn listed_bridge<N: Node>(gpu: &N, phandle: u32) -> Result<N, FirmwareFault<N>> {
    let bridge = gpu
        .find(phandle)
        .ok_or_else(|| fault(gpu, NPU, Problem::Dangling))?;

    if !is_bridge(&bridge) {
        return Err(fault(gpu, NPU, Problem::NoBridge));
    }
    Ok(bridge)
}

/// Returns the node of the GPU behind a bridge.
pub(crate) fn gpu_of<N: Node>(bridge: &N) -> Result<N, FirmwareFault<N>> {
    referred(bridge, GPU)
}

/// Whether a node has any of the properties that make a bridge a link.
fn is_bridge<N: Node>(node: &N) -> bool {
    [GPU, TGT, MEMORY]
        .iter()
        .any(|name| node.property(name).is_some())
}

/// Whether `node` is a bridge whose link leads nowhere. A bridge that names no GPU although one
/// lists it is faulty instead.
pub(crate) fn is_unconnected<N: Node>(node: &N) -> bool {
    let phandle = node.phandle();
    let mut lists = |gpu: &N| {
        gpu.property(NPU)
            .and_then(cells::list)
            .is_some_and(|mut list| list.any(|bridge| bridge == phandle))
    };

    is_bridge(node) && node.property(GPU).is_none() && !node.any_with(NPU, &mut lists)
}

/// Reads the properties of a bridge that make it a link.
fn link<N: Node>(bridge: &N) -> Result<Link<N>, FirmwareFault<N>> {
    Ok(Link {
        gpu: referred(bridge, GPU)?,
        tgt: number(bridge, TGT, cells::wide)?,
        index: index(&referred(bridge, c"ibm,nvlink")?)?,
        aperture: aperture(&referred(bridge, MEMORY)?)?,
    })
}

/// Reads and decodes a property.
fn read<N: Node, T>(
    node: &N,
    name: &'static CStr,
    decode: fn(&[u8]) -> Option<T>,
) -> Result<T, FirmwareFault<N>> {
    let bytes = node
        .property(name)
        .ok_or_else(|| fault(node, name, Problem::Missing))?;

    decode(bytes).ok_or_else(|| fault(node, name, Problem::Length))
}

/// Reads a number that must not be 0.
fn number<N: Node, T: Default + PartialEq>(
    node: &N,
    name: &'static CStr,
    decode: fn(&[u8]) -> Option<T>,
) -> Result<T, FirmwareFault<N>> {
    let value = read(node, name, decode)?;

    if value == T::default() {
        return Err(fault(node, name, Problem::Zero));
    }
    Ok(value)
}

/// Follows a phandle.
fn referred<N: Node>(node: &N, name: &'static CStr) -> Result<N, FirmwareFault<N>> {
    let phandle = read(node, name, cells::cell)?;

    node.find(phandle)
        .ok_or_else(|| fault(node, name, Problem::Dangling))
}

/// Reads a link's index, which may be 0.
fn index<N: Node>(nvlink: &N) -> Result<u32, FirmwareFault<N>> {
    read(nvlink, c"ibm,npu-link-index", cells::cell)
}

/// Reads and validates the `reg` of a memory node. Only addresses that pass here may be mapped to
/// user space.
fn aperture<N: Node>(memory: &N) -> Result<Aperture, FirmwareFault<N>> {
    let (base, size) = read(memory, REG, cells::wide_pair)?;
    let aperture = Aperture::new(base, size).map_err(|problem| fault(memory, REG, problem))?;

    if overlaps_other_memory(memory, aperture) {
        return Err(fault(memory, REG, Problem::Overlaps));
    }
    Ok(aperture)
}

/// Whether another memory node, of the system or of another GPU, has addresses in the aperture.
fn overlaps_other_memory<N: Node>(memory: &N, aperture: Aperture) -> bool {
    let mut overlaps = |node: &N| {
        node.phandle() != memory.phandle()
            && node.property(c"device_type") == Some(b"memory\0")
            && node.property(REG).is_some_and(|reg| {
                reg.chunks_exact(16)
                    .filter_map(cells::wide_pair)
                    .any(|(base, size)| aperture.overlaps(base, size))
            })
    };

    memory
        .parent()
        .is_some_and(|root| root.any_child(&mut overlaps))
}

/// Returns the first ATSD register block that one of the bridges that `gpu` lists has, as its NPU
/// says.
fn atsd_of_any<N: Node>(gpu: &N, mut bridges: impl Iterator<Item = u32>) -> Option<Atsd> {
    bridges.find_map(|phandle| {
        let bridge = gpu.find(phandle)?;
        let link = link(&bridge).ok()?;

        (link.gpu.phandle() == gpu.phandle()).then_some(())?;
        atsd(&bridge.parent()?, link.index).ok()
    })
}

/// Reads the address of a link's ATSD register block from the NPU's node.
fn atsd<N: Node>(npu: &N, link: u32) -> Result<Atsd, FirmwareFault<N>> {
    const ATSD: &CStr = c"ibm,mmio-atsd";

    let (window, size) = read(npu, REG, cells::wide_pair)?;
    let list = npu
        .property(ATSD)
        .ok_or_else(|| fault(npu, ATSD, Problem::Missing))?;

    if list.len() % 8 != 0 {
        return Err(fault(npu, ATSD, Problem::Length));
    }
    let address = usize::try_from(link)
        .ok()
        .and_then(|link| cells::nth_wide(list, link))
        .ok_or_else(|| fault(npu, ATSD, Problem::NoEntry))?;

    Atsd::new(address, window, size).ok_or_else(|| fault(npu, ATSD, Problem::Outside))
}
