// SPDX-License-Identifier: GPL-2.0

//! Trying the regions: RAM written and read back, registers reached.

use crate::{
    model::{Model, BAR1_SIZE},
    region::Info,
    sys::Mapping,
    topology::{Bridge, Gpu},
    vfio::Device,
};
use anyhow::{bail, ensure, Context, Result};
use std::{
    fs,
    time::{Duration, Instant},
};

/// A page of the host's kernel.
const PAGE: usize = 64 << 10;

/// How much of a GPU's RAM is written, from its start; and its last page.
const EXTENT: usize = 64 << 20;

/// What became of a GPU's RAM.
pub struct Ram {
    /// PCI address of the GPU.
    pub bdf: String,
    /// Bytes of RAM behind the aperture.
    pub size: u64,
    /// Whether the links had to be trained.
    pub trained: bool,
    /// Pages that were written and read back.
    pub pages: u64,
    /// Faults that writing took, by the kernel's count for this process.
    pub faults: u64,
    /// Pages of them that the GPU's own view was compared with.
    pub seen_by_gpu: u64,
    /// Writing all of them.
    pub time: Duration,
}

/// What became of a link's ATSD register.
pub struct Atsd {
    /// PCI address of the bridge.
    pub bdf: String,
    /// AVA as written and read back.
    pub ava: u64,
    /// STATUS; 0 means done.
    pub status: u64,
}

/// A value that says where it belongs.
fn pattern(aperture: u64, offset: usize) -> u64 {
    (aperture + offset as u64) ^ 0xa5a5_0000_0000_5a5a
}

/// Writes and reads GPU RAM through one mapping of the whole region, as QEMU makes it.
pub fn gpu_ram(
    gpu: &Gpu,
    device: &Device,
    bridges: &[&Device],
    info: &Info,
) -> (String, Result<Ram>) {
    (gpu.bdf.clone(), try_gpu_ram(gpu, device, bridges, info))
}

fn try_gpu_ram(gpu: &Gpu, device: &Device, bridges: &[&Device], info: &Info) -> Result<Ram> {
    let Some(model) = Model::of(device)? else {
        bail!(
            "not the emulated GPU: its RAM answers only once the vendor's driver trained the links"
        );
    };
    let trained = model.train(bridges).context("training the links")?;
    let size = model.ram_size()?;
    let last = usize::try_from(size)?.checked_sub(PAGE).context("no RAM")?;
    ensure!(last >= EXTENT, "only {size:#x} bytes of RAM");

    let ram = Mapping::new(device.file(), info.offset, info.size.try_into()?).context("mmap")?;
    let offsets = || (0..EXTENT).step_by(PAGE).chain([last]);
    let before = faults()?;
    let start = Instant::now();
    for offset in offsets() {
        ram.write(offset, pattern(gpu.aperture.0, offset));
    }
    let time = start.elapsed();
    let faults = faults()? - before;
    let mut seen_by_gpu = 0;
    for offset in offsets() {
        let expected = pattern(gpu.aperture.0, offset);
        let found = ram.read(offset);
        ensure!(
            found == expected,
            "at {offset:#x} was {found:#x}, not {expected:#x}"
        );
        if (offset as u64) < BAR1_SIZE {
            let found = model.ram(offset as u64)?;
            ensure!(
                found == expected,
                "the GPU sees {found:#x} at {offset:#x}, not {expected:#x}"
            );
            seen_by_gpu += 1;
        }
    }
    ensure!(
        faults > 0,
        "no page fault: the mapping was not made by the fault handler"
    );
    let pages = offsets().count() as u64;
    Ok(Ram {
        bdf: gpu.bdf.clone(),
        size,
        trained,
        pages,
        faults,
        seen_by_gpu,
        time,
    })
}

/// Writes and reads an address register of the ATSD block; reads its status. Launches nothing.
pub fn atsd(bridge: &Bridge, device: &Device, info: &Info) -> (String, Result<Atsd>) {
    (bridge.bdf.clone(), try_atsd(bridge, device, info))
}

fn try_atsd(bridge: &Bridge, device: &Device, info: &Info) -> Result<Atsd> {
    const AVA: usize = 0x8;
    const STATUS: usize = 0x10;
    let registers =
        Mapping::new(device.file(), info.offset, info.size.try_into()?).context("mmap")?;
    // The NPU's registers are big endian.
    let ava = 0x0000_7f00_0000_0000 | u64::from(bridge.link) << 16;
    registers.write(AVA, ava.to_be());
    let found = u64::from_be(registers.read(AVA));
    ensure!(found == ava, "AVA is {found:#x}, not {ava:#x}");
    let status = u64::from_be(registers.read(STATUS));
    ensure!(status == 0, "STATUS is {status:#x}, not 0 (done)");
    Ok(Atsd {
        bdf: bridge.bdf.clone(),
        ava,
        status,
    })
}

/// Page faults of this process that needed no disk.
fn faults() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // Behind the name, which may have blanks, and ends with a parenthesis: the state is the first.
    let fields = stat.rsplit(')').next().unwrap_or_default();

    fields
        .split_whitespace()
        .nth(7)
        .and_then(|count| count.parse().ok())
        .context("/proc/self/stat has no count of faults")
}
