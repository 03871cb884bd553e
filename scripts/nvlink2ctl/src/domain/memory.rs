// SPDX-License-Identifier: GPL-2.0

//! How much memory a domain has.

use super::xml::Element;
use crate::units::{Kib, PPC64_BLOCK};
use anyhow::Result;

const OTHER_BLOCK: u64 = 1 << 10;
const OTHER_DIMM: u64 = 2 << 10;

/// The memory of a guest.
pub struct Memory {
    /// At start, DIMMs included.
    pub total: Kib,
    /// `<maxMemory>`.
    pub max: Option<Kib>,
}

impl Memory {
    /// Reads it as `virsh define` does: on ppc64 sizes of DIMMs are rounded before anything else.
    pub fn read(domain: &Element, devices: &[Element], ppc64: bool) -> Result<Self> {
        let (block, dimm_block) = if ppc64 {
            (PPC64_BLOCK, PPC64_BLOCK)
        } else {
            (OTHER_BLOCK, OTHER_DIMM)
        };
        let round = |element: &Element, Kib(size): Kib, block| {
            size.checked_next_multiple_of(block)
                .ok_or_else(|| element.fault("is too large to be rounded up"))
        };
        let add = |element: &Element, sum: u64, more| {
            sum.checked_add(more)
                .ok_or_else(|| element.fault("makes the memory too large"))
        };

        // What <memory> includes, and what the guest gets.
        let (mut hotplug, mut aligned_hotplug) = (0, 0);
        for dimm in devices.iter().filter(|device| device.name() == "memory") {
            let target = dimm.required("target")?;
            let size = target.required("size")?.required_size(Kib::of_memory)?;
            let aligned = if ppc64 && dimm.attribute("model") == Some("nvdimm") {
                nvdimm(&target, size)?
            } else {
                round(dimm, size, dimm_block)?
            };
            hotplug = add(dimm, hotplug, if ppc64 { aligned } else { size.0 })?;
            aligned_hotplug = add(dimm, aligned_hotplug, aligned)?;
        }

        let cells: Vec<Element> = domain
            .child("cpu")
            .and_then(|cpu| cpu.child("numa"))
            .map(|numa| {
                numa.children()
                    .filter(|cell| cell.name() == "cell")
                    .collect()
            })
            .unwrap_or_default();
        let (mut numa, mut aligned_numa) = (0, 0);
        for cell in &cells {
            let size = cell.size_attribute("memory")?;
            numa = add(cell, numa, size.0)?;
            aligned_numa = add(cell, aligned_numa, round(cell, size, block)?)?;
        }

        let element = domain.child("memory");
        let stated = element
            .as_ref()
            .map(|memory| memory.size(Kib::of_memory))
            .transpose()?
            .flatten()
            .unwrap_or_default();
        // The cells of NUMA nodes overrule <memory> when a domain is defined.
        let (total, initial) = if numa != 0 {
            (add(domain, numa, hotplug)?, aligned_numa)
        } else {
            let blame = element.as_ref().unwrap_or(domain);
            let initial = stated.0.checked_sub(hotplug).ok_or_else(|| {
                blame.fault("is less than the sum of the memory devices, which it includes")
            })?;
            if initial == 0 {
                return Err(blame
                    .fault(
                        "leaves no memory at start: give it, or <cell> elements of <numa>, a size",
                    )
                    .into());
            }
            (stated.0, round(blame, Kib(initial), block)?)
        };

        let max = domain.child("maxMemory");
        let max_size = max
            .as_ref()
            .map(|max| max.size(Kib::of_memory))
            .transpose()?
            .flatten();
        if let (Some(max), Some(size)) = (&max, max_size) {
            if max.number::<u32>("slots", 10)?.unwrap_or_default() == 0 {
                return Err(max.fault("needs an attribute 'slots' of at least 1").into());
            }
            if size.0 < total {
                return Err(max.fault("is less than the memory of the guest").into());
            }
        }
        let aligned_max = match (&max, max_size) {
            (Some(max), Some(size)) => Some(Kib(round(max, size, block)?)),
            _ => None,
        };
        Ok(Self {
            total: Kib(add(domain, initial, aligned_hotplug)?),
            max: aligned_max,
        })
    }
}

/// The size that an NVDIMM has on ppc64: its content rounded down, and its label.
fn nvdimm(target: &Element, Kib(size): Kib) -> Result<u64> {
    let label = target
        .child("label")
        .and_then(|label| label.child("size"))
        .map(|size| size.required_size(Kib::of_memory))
        .transpose()?
        .unwrap_or_default();
    let blocks = size
        .checked_sub(label.0)
        .and_then(|content| content.checked_div(PPC64_BLOCK))
        .filter(|blocks| *blocks != 0)
        .ok_or_else(|| target.fault("needs a size of at least 256 MiB plus the label's"))?;

    Ok(blocks
        .checked_mul(PPC64_BLOCK)
        .and_then(|content| content.checked_add(label.0))
        .ok_or_else(|| target.fault("is too large"))?)
}
