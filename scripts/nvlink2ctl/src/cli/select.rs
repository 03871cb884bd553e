// SPDX-License-Identifier: GPL-2.0

//! Which GPUs and bridges a command is about.

use super::no_function;
use crate::{bdf::Bdf, host::Host};
use anyhow::{Result, bail};
use std::collections::BTreeSet;

/// GPUs with their bridges.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Selection {
    /// GPUs (each with its bridges) or single bridges, by PCI address
    #[arg(value_name = "BDF", conflicts_with_all = ["group", "all"])]
    functions: Vec<Bdf>,

    /// All GPUs and bridges of this IOMMU group; may be repeated
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    group: Vec<u32>,

    /// All GPUs and bridges of the host
    #[arg(long)]
    all: bool,
}

impl Selection {
    /// GPUs and bridges, each GPU followed by its bridges.
    pub fn functions(&self, host: &Host) -> Result<Vec<Bdf>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut add = |bdf| {
            if seen.insert(bdf) {
                found.push(bdf);
            }
        };

        for bdf in &self.functions {
            if let Some(gpu) = host.gpu(*bdf) {
                std::iter::once(*bdf)
                    .chain(gpu.bridges.iter().copied())
                    .for_each(&mut add);
            } else if host.bridge(*bdf).is_some() {
                add(*bdf);
            } else {
                return Err(not_usable(host, *bdf));
            }
        }
        for number in &self.group {
            if !host
                .gpus
                .iter()
                .any(|gpu| gpu.function.group == Some(*number))
            {
                bail!(
                    "IOMMU group {number} has no GPU on NVLink2; 'nvlink2ctl list' names the groups"
                );
            }
        }
        let chosen = |group: Option<u32>| {
            self.all || group.is_some_and(|number| self.group.contains(&number))
        };
        for gpu in host.gpus.iter().filter(|gpu| chosen(gpu.function.group)) {
            std::iter::once(gpu.function.bdf)
                .chain(gpu.bridges.iter().copied())
                .for_each(&mut add);
        }
        for bridge in host
            .bridges
            .iter()
            .filter(|bridge| chosen(bridge.function.group))
        {
            add(bridge.function.bdf);
        }
        Ok(found)
    }
}

fn not_usable(host: &Host, bdf: Bdf) -> anyhow::Error {
    if let Some(faulty) = host.faulty.iter().find(|faulty| faulty.function.bdf == bdf) {
        return anyhow::anyhow!(
            "{bdf} can't be used: {}; the firmware has to be repaired",
            faulty.fault
        );
    }
    if host.functions.contains_key(&bdf) {
        return anyhow::anyhow!(
            "{bdf} is neither a GPU on NVLink2 nor an NVLink2 bridge; 'nvlink2ctl list' names them"
        );
    }
    no_function(bdf)
}
