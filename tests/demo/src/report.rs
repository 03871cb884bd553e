// SPDX-License-Identifier: GPL-2.0

//! The report, for a person.

use crate::{
    region::{Capability, Info},
    topology::{Gpu, Topology},
    trial::{Atsd, Ram},
};
use anyhow::Result;
use comfy_table::{presets, Table};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(header);
    table
}

/// A size in the largest unit that divides it.
fn bytes(size: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .iter()
        .find(|(shift, _)| size != 0 && size.trailing_zeros() >= *shift);
    match unit {
        Some((shift, name)) => format!("{} {name}", size >> shift),
        None => format!("{size} bytes"),
    }
}

fn speed(code: u32) -> String {
    match code {
        3 => "3 (20 Gb/s)".to_owned(),
        8 => "8 (25.78125 Gb/s)".to_owned(),
        9 => "9 (25 Gb/s)".to_owned(),
        _ => code.to_string(),
    }
}

fn capability(capability: &Capability) -> String {
    match *capability {
        Capability::Type { kind, subtype } => format!("type {{{kind:#x}, {subtype}}}"),
        Capability::Ssatgt(tgt) => format!("tgt {tgt:#x}"),
        Capability::LinkSpeed(code) => format!("speed {}", speed(code)),
        Capability::Other { id } => format!("unknown {id}"),
    }
}

/// GPUs and their links, from the device tree.
pub fn topology(topology: &Topology) {
    println!("Topology of {}\n", topology.model);
    let mut table = table(&[
        "GPU",
        "slot",
        "group",
        "aperture",
        "size",
        "tgt",
        "bridge",
        "link",
        "speed",
        "ATSD register",
    ]);
    for gpu in &topology.gpus {
        for (i, bridge) in gpu.bridges.iter().enumerate() {
            let of_gpu = [
                gpu.bdf.clone(),
                gpu.slot.clone(),
                gpu.group.to_string(),
                format!("{:#x}", gpu.aperture.0),
                bytes(gpu.aperture.1),
                format!("{:#x}", gpu.tgt),
            ];
            let of_gpu = of_gpu
                .into_iter()
                .map(|cell| if i == 0 { cell } else { String::new() });
            let of_bridge = [
                bridge.bdf.clone(),
                bridge.link.to_string(),
                speed(bridge.speed),
                format!("{:#x}", bridge.atsd),
            ];
            table.add_row(of_gpu.chain(of_bridge));
        }
    }
    println!("{table}\n");
}

/// What the functions of a group say about their regions.
pub fn regions(group: u32, regions: &[Info]) {
    println!("Regions of IOMMU group {group}, as VFIO reports them to a user with a VM\n");
    let mut table = table(&[
        "function",
        "index",
        "region",
        "offset",
        "size",
        "flags",
        "capabilities",
    ]);
    for info in regions {
        table.add_row([
            info.bdf.clone(),
            info.index.to_string(),
            info.name().to_owned(),
            format!("{:#x}", info.offset),
            bytes(info.size),
            info.flag_names(),
            info.capabilities
                .iter()
                .map(capability)
                .collect::<Vec<_>>()
                .join("; "),
        ]);
    }
    println!("{table}\n");
}

/// What became of the GPUs' RAM.
pub fn gpu_ram(trials: &[(String, Result<Ram>)]) {
    println!("GPU RAM, written and read back by the CPU through one mapping of the whole region\n");
    let mut table = table(&[
        "GPU",
        "RAM",
        "links",
        "pages of 64 KiB",
        "page faults",
        "writing took",
        "GPU's own view",
    ]);
    for (bdf, trial) in trials {
        match trial {
            Ok(ram) => table.add_row([
                ram.bdf.clone(),
                bytes(ram.size),
                if ram.trained {
                    "trained now"
                } else {
                    "were trained"
                }
                .to_owned(),
                ram.pages.to_string(),
                ram.faults.to_string(),
                format!("{} ms", ram.time.as_millis()),
                format!("the same in {} pages", ram.seen_by_gpu),
            ]),
            Err(error) => table.add_row([bdf.clone(), format!("FAILED: {error:#}")]),
        };
    }
    println!("{table}\n");
}

/// What became of the ATSD registers.
pub fn atsd(trials: &[(String, Result<Atsd>)]) {
    println!("ATSD registers, through the mapping\n");
    let mut table = table(&["bridge", "AVA written and read back", "STATUS"]);
    for (bdf, trial) in trials {
        match trial {
            Ok(atsd) => table.add_row([
                atsd.bdf.clone(),
                format!("{:#x}", atsd.ava),
                format!("{:#x} (done)", atsd.status),
            ]),
            Err(error) => table.add_row([bdf.clone(), format!("FAILED: {error:#}")]),
        };
    }
    println!("{table}\n");
}

/// Collects what did not hold.
#[derive(Default)]
pub struct Verdict {
    groups: usize,
    gpus: usize,
    bridges: usize,
    faults: u64,
    failures: Vec<String>,
}

impl Verdict {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(otherwise());
        }
    }

    /// Regions against the device tree.
    pub fn regions(&mut self, gpus: &[&Gpu], regions: &[Info]) {
        self.groups += 1;
        for gpu in gpus {
            self.gpus += 1;
            let ram = regions
                .iter()
                .find(|info| info.bdf == gpu.bdf && info.is_gpu_ram());
            let tgt = Capability::Ssatgt(gpu.tgt);
            self.expect(
                ram.is_some_and(|info| {
                    info.size == gpu.aperture.1 && info.capabilities[1..] == [tgt]
                }),
                || {
                    format!(
                        "{}: the GPU RAM region is not what the device tree says",
                        gpu.bdf
                    )
                },
            );
            for bridge in &gpu.bridges {
                self.bridges += 1;
                let speed = Capability::LinkSpeed(bridge.speed);
                let atsd = regions
                    .iter()
                    .find(|info| info.bdf == bridge.bdf && info.is_atsd());
                self.expect(
                    atsd.is_some_and(|info| {
                        info.size == 0x1_0000 && info.capabilities[1..] == [tgt, speed]
                    }),
                    || {
                        format!(
                            "{}: the ATSD region is not what the device tree says",
                            bridge.bdf
                        )
                    },
                );
            }
        }
    }

    /// What became of trying them.
    pub fn trials(&mut self, ram: &[(String, Result<Ram>)], atsd: &[(String, Result<Atsd>)]) {
        for (bdf, trial) in ram {
            match trial {
                Ok(ram) => self.faults += ram.faults,
                Err(error) => self.failures.push(format!("{bdf}: {error:#}")),
            }
        }
        for (bdf, trial) in atsd {
            if let Err(error) = trial {
                self.failures.push(format!("{bdf}: {error:#}"));
            }
        }
    }

    /// Prints the last line of the report; `true` if all held.
    pub fn print(self) -> bool {
        if self.failures.is_empty() {
            println!(
                "VERDICT: good. {} GPUs and {} bridges in {} IOMMU group(s) export what the device \
                 tree says; GPU RAM was written and read back ({} page faults) and every ATSD \
                 register reached.",
                self.gpus, self.bridges, self.groups, self.faults
            );
            return true;
        }
        for failure in &self.failures {
            println!("FAILED: {failure}");
        }
        println!("VERDICT: bad. {} things did not hold.", self.failures.len());
        false
    }
}
