// SPDX-License-Identifier: GPL-2.0

//! RAM of GPUs that is memory of the host.
//!
//! The vendor's driver can add a GPU's RAM to the host's memory. Who takes the GPU from that driver then takes
//! the links down under memory that the kernel uses, and any access of it may end the host. That no process has
//! a file of the driver open does not tell: memory stays online when `nvidia-persistenced` is killed.

use crate::{
    bdf::Bdf,
    host::{Gpu, Host},
    source::Source,
};
use std::fmt;

/// Where Linux lists blocks of memory.
const MEMORY: &str = "/sys/devices/system/memory";

/// A GPU of whose RAM blocks are online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Online {
    /// The GPU.
    pub gpu: Bdf,
    /// Numbers of the first and of the last of the blocks.
    pub blocks: (u64, u64),
}

impl fmt::Display for Online {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.blocks;
        write!(
            f,
            "RAM of {} is memory of the host: memory{first} to memory{last} are online",
            self.gpu
        )
    }
}

/// What to do about it.
pub const REMEDY: &str = "Stop nvidia-persistenced, or take the blocks of /sys/devices/system/memory offline ('echo offline > .../memoryN/state')";

/// Those of these GPUs of whose RAM anything is online.
pub fn online<'h>(source: &Source, gpus: impl Iterator<Item = &'h Gpu>) -> Vec<Online> {
    gpus.filter_map(|gpu| {
        let blocks = blocks(source, gpu)?;
        Some(Online {
            gpu: gpu.function.bdf,
            blocks,
        })
    })
    .collect()
}

/// GPUs that functions are, or are bridges of.
pub fn gpus_of<'h>(host: &'h Host, functions: &'h [Bdf]) -> impl Iterator<Item = &'h Gpu> {
    host.gpus.iter().filter(|gpu| {
        functions.contains(&gpu.function.bdf)
            || gpu.bridges.iter().any(|bridge| functions.contains(bridge))
    })
}

fn blocks(source: &Source, gpu: &Gpu) -> Option<(u64, u64)> {
    let file = format!("{MEMORY}/block_size_bytes");
    let text = source.peek(&file)?;
    let size = u64::from_str_radix(String::from_utf8_lossy(&text).trim(), 16).ok()?;
    let begin = gpu.aperture.base.0;
    let last = begin.checked_add(gpu.aperture.size.checked_sub(1)?)?;
    let wanted = begin.checked_div(size)?..=last.checked_div(size)?;
    let online = source
        .peek_folder(MEMORY)?
        .into_iter()
        .filter_map(|(name, _)| name.strip_prefix("memory")?.parse::<u64>().ok())
        .filter(|number| wanted.contains(number))
        // A recording has what is of interest: other blocks are the host's own.
        .inspect(|_| {
            source.read(&file);
        })
        .filter(|number| {
            source
                .text(&format!("{MEMORY}/memory{number}/state"))
                .is_none_or(|state| state != "offline")
        });
    online.fold(None, |range, number| match range {
        None => Some((number, number)),
        Some((first, last)) => Some((number.min(first), number.max(last))),
    })
}
