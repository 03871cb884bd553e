// SPDX-License-Identifier: GPL-2.0

//! Report of what nvlink2-vfio-pci exports, for a person: topology, regions with their
//! capabilities, GPU RAM written and read back through its mapping, ATSD registers reached.
//!
//! Everything is seen through the interfaces that a client such as QEMU uses, in its order.
//! The exit status is 0 only if all of it held.

mod driver;
mod model;
mod procedures;
mod region;
mod report;
mod sys;
mod topology;
mod trial;
mod vfio;

use anyhow::{Context, Result};
use std::process::ExitCode;

fn run() -> Result<bool> {
    let topology = topology::read().context("reading the device tree")?;
    for function in topology.functions() {
        driver::bind(function)
            .with_context(|| format!("binding {function} to {}", driver::NAME))?;
    }
    report::topology(&topology);

    let mut verdict = report::Verdict::default();
    for id in topology.iommu_groups() {
        let group = vfio::Group::open(id).with_context(|| format!("opening IOMMU group {id}"))?;
        let members: Vec<_> = topology.gpus.iter().filter(|gpu| gpu.group == id).collect();

        let mut devices = Vec::new();
        for gpu in &members {
            for function in gpu.functions() {
                let device = group
                    .device(function)
                    .with_context(|| format!("opening {function}"))?;
                devices.push((function, device));
            }
        }
        let regions = region::read_all(&devices)?;
        report::regions(id, &regions);
        verdict.regions(&members, &regions);

        let mut ram = Vec::new();
        let mut atsd = Vec::new();
        for gpu in &members {
            let (device, info) = region::of(&devices, &regions, &gpu.bdf)?;
            let bridges = gpu
                .bridges
                .iter()
                .map(|bridge| Ok(region::of(&devices, &regions, &bridge.bdf)?.0))
                .collect::<Result<Vec<_>>>()?;
            ram.push(trial::gpu_ram(gpu, device, &bridges, info));
            for bridge in &gpu.bridges {
                let (device, info) = region::of(&devices, &regions, &bridge.bdf)?;
                atsd.push(trial::atsd(bridge, device, info));
            }
        }
        report::gpu_ram(&ram);
        report::atsd(&atsd);
        verdict.trials(&ram, &atsd);
    }
    Ok(verdict.print())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
