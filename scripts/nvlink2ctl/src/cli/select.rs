// SPDX-License-Identifier: GPL-2.0

//! Which GPUs and bridges a command is about.

use super::no_function;
use crate::{
    bdf::Bdf,
    exit::{Status, Stop},
    host::{Bridge, Host, Unconnected},
};
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
            } else if host.bridge(*bdf).is_some() || host.unconnected(*bdf).is_some() {
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
        for gpu in host
            .gpus
            .iter()
            .filter(|gpu| self.has_group(gpu.function.group))
        {
            std::iter::once(gpu.function.bdf)
                .chain(gpu.bridges.iter().copied())
                .for_each(&mut add);
        }
        for bridge in host
            .bridges
            .iter()
            .filter(|bridge| self.has_group(bridge.function.group))
        {
            add(bridge.function.bdf);
        }
        Ok(found)
    }

    /// The same for a guest: all bridges of a GPU, or none. A GPU of which one is missing is refused.
    pub fn complete(&self, host: &Host) -> Result<Vec<Bdf>> {
        let functions = self.functions(host)?;
        let lacking = functions
            .iter()
            .filter_map(|bdf| host.gpu(*bdf))
            .find_map(|gpu| host.incomplete(gpu));
        if let Some(lacking) = lacking {
            return Err(Stop::new(
                Status::Refused,
                format!(
                    "{}, and a GPU is given away with all of its bridges or not at all. {}",
                    lacking.found, lacking.remedy
                ),
            )
            .into());
        }
        if let Some(bridge) = functions.iter().find_map(|bdf| host.unconnected(*bdf)) {
            return Err(Stop::new(
                Status::Refused,
                format!(
                    "{} is not connected: its socket is empty, or its GPU does not answer. No guest has a use for it: leave it out",
                    bridge.function.bdf
                ),
            )
            .into());
        }
        Ok(functions)
    }

    /// Bridges of the groups that are not connected. They are no part of what guests get, but a driver that
    /// keeps one of them keeps the whole group.
    pub fn unconnected<'h>(&self, host: &'h Host) -> impl Iterator<Item = &'h Unconnected> {
        host.unconnected
            .iter()
            .filter(|bridge| self.has_group(bridge.function.group))
    }

    /// Whether functions are named one by one.
    pub fn is_by_name(&self) -> bool {
        !self.functions.is_empty()
    }

    fn has_group(&self, group: Option<u32>) -> bool {
        self.all || group.is_some_and(|number| self.group.contains(&number))
    }
}

/// Bridges among `functions` whose GPU is not among them.
pub fn without_gpu<'h>(host: &'h Host, functions: &[Bdf]) -> Vec<&'h Bridge> {
    functions
        .iter()
        .filter_map(|bdf| host.bridge(*bdf))
        .filter(|bridge| bridge.gpu.is_none_or(|gpu| !functions.contains(&gpu)))
        .collect()
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
