// SPDX-License-Identifier: GPL-2.0

//! What the host's NPUs, its kernel and the driver say, past QEMU and the guest.

use crate::{
    host::{Gpu, DRIVER},
    lines::within,
    qmp::Qmp,
};
use anyhow::{anyhow, ensure, Context, Result};
use serde_json::json;
use std::{
    fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

/// A value that the tables of an NPU have in its lowest 12 bits.
const LPID: u64 = 0xfff;
/// Entries of the BDF map that are in use.
const BDF_VALID: u64 = 1 << 63;
/// Bus, device and function of an entry of the BDF map.
const BDF_SHIFT: u32 = 32;
/// Entries of the PID map that are in use, for translation or shootdowns.
const PID_VALID: u64 = 7 << 61;

/// Seconds after which nothing may be left of a dead QEMU's mappings.
const RETAINED: u64 = 30;

/// The tables in which a guest leaves something while it has a GPU.
#[derive(Debug, PartialEq, Eq)]
struct Tables {
    tvt: Vec<u64>,
    bdf2pe: Vec<u64>,
}

/// The host before any guest, to compare with.
pub struct Pristine {
    tables: Vec<Tables>,
}

fn npu(chip: usize) -> String {
    format!("/machine/chip[{chip}]/npu")
}

impl Tables {
    fn read(emulator: &mut Qmp, chip: usize) -> Result<Self> {
        Ok(Self {
            tvt: emulator.numbers(&npu(chip), "tvt")?,
            bdf2pe: emulator.numbers(&npu(chip), "bdf2pe")?,
        })
    }
}

impl Pristine {
    /// Records the NPUs of all chips, and empties the kernel's log.
    pub fn record(emulator: &mut Qmp, gpus: &[Gpu]) -> Result<Self> {
        kernel_log(true)?;
        let last = gpus.iter().map(|gpu| gpu.chip).max().unwrap_or_default();
        let tables = (0..=last)
            .map(|chip| Tables::read(emulator, chip))
            .collect::<Result<_>>()?;
        Ok(Self { tables })
    }

    /// All is as it was: nothing mapped for anybody, no access of a processor lost, nobody complained.
    ///
    /// Fences are not looked at: the reset of a bridge at close fences, until the GPU trains.
    pub fn still(&self, emulator: &mut Qmp, gpus: &[Gpu]) -> Result<()> {
        for (chip, before) in self.tables.iter().enumerate() {
            let now = Tables::read(emulator, chip)?;
            ensure!(now == *before, "NPU {chip} was {before:x?} and is {now:x?}");
            let mut all = |name, mask| -> Result<()> {
                let values = emulator.numbers(&npu(chip), name)?;
                ensure!(
                    values.iter().all(|value| value & mask == 0),
                    "NPU {chip} {name}: {values:x?}"
                );
                Ok(())
            };
            all("xts-bdf-map", BDF_VALID | LPID)?;
            all("xts-pid-map", PID_VALID)?;
            all("atsd-lparid", u64::MAX)?;
            all("trained", u64::MAX)?;
            all("unanswered", u64::MAX)?;
        }
        for gpu in gpus {
            for function in gpu.functions() {
                let lpar = debugfs(&function, "lpar")?;
                ensure!(lpar == "none", "{function}: lpar: {lpar}");
            }
            nothing_mapped(gpu)?;
        }
        no_splat()
    }
}

/// Nobody has the GPU's RAM registered for DMA.
///
/// When QEMU dies, its mappings go before its container does, which still refers to them: the driver
/// looks again after a while.
fn nothing_mapped(gpu: &Gpu) -> Result<()> {
    let deadline = within(RETAINED);
    loop {
        let mappings = debugfs(&gpu.bdf, "mappings")?;
        if mappings.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{}: mappings: {mappings}",
            gpu.bdf
        );
        sleep(Duration::from_millis(100));
    }
}

/// A file of the driver's in debugfs, without its last line end.
pub fn debugfs(bdf: &str, file: &str) -> Result<String> {
    let path = Path::new("/sys/kernel/debug")
        .join(DRIVER)
        .join(bdf)
        .join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim_end().to_owned())
}

fn kernel_log(clear: bool) -> Result<String> {
    let done = Command::new("/files/busybox")
        .arg("dmesg")
        .args(clear.then_some("-c"))
        .output()?;
    ensure!(
        done.status.success(),
        "dmesg: {}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The kernel's log has no sign of a broken kernel.
pub fn no_splat() -> Result<()> {
    let log = kernel_log(false)?;
    let signs = include_str!("../../selftests/splats.txt");
    let bad: Vec<_> = log
        .lines()
        .filter(|line| signs.lines().any(|s| line.contains(s)))
        .collect();
    ensure!(bad.is_empty(), "kernel log: {}", bad.join("\n"));
    Ok(())
}

/// The NPU translates for one machine what the GPU and its bridges ask; its LPID.
///
/// The NPU's tables and the driver's debugfs say the same.
pub fn bound_to(emulator: &mut Qmp, gpu: &Gpu) -> Result<u64> {
    let text = debugfs(&gpu.bdf, "lpar")?;
    let lpid = text
        .strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    let lpid = lpid.with_context(|| format!("{}: lpar: {text}", gpu.bdf))?;
    ensure!(lpid != 0, "{}: bound to the host", gpu.bdf);
    for bridge in &gpu.bridges {
        ensure!(
            debugfs(bridge, "lpar")? == text,
            "{bridge}: not bound to {text}"
        );
    }
    let map = emulator.numbers(&npu(gpu.chip), "xts-bdf-map")?;
    let bdfn = gpu.bdfn()?;
    let entry = map
        .iter()
        .find(|e| *e & BDF_VALID != 0 && *e >> BDF_SHIFT & 0xffff == bdfn);
    let entry = entry.ok_or_else(|| anyhow!("{}: not in the BDF map: {map:x?}", gpu.bdf))?;
    ensure!(
        entry & LPID == lpid,
        "{}: BDF map entry {entry:x} is not of LPID {lpid}",
        gpu.bdf
    );
    let registers = emulator.numbers(&npu(gpu.chip), "atsd-lparid")?;
    let with_lpid = registers
        .iter()
        .filter(|value| *value & LPID == lpid)
        .count();
    ensure!(
        with_lpid >= gpu.bridges.len(),
        "ATSD registers of LPID {lpid}: {registers:x?}"
    );
    Ok(lpid)
}

/// A word of physical memory, as the emulator has it.
pub fn physical_word(emulator: &mut Qmp, address: u64) -> Result<u64> {
    let command = format!("xp /8xb {address:#x}");
    let answer = emulator.execute("human-monitor-command", json!({"command-line": command}))?;
    let text = answer.as_str().unwrap_or_default();
    let (_, bytes) = text
        .split_once(':')
        .ok_or_else(|| anyhow!("{command}: {text}"))?;
    let bytes = bytes
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16))
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = <[u8; 8]>::try_from(bytes).map_err(|b| anyhow!("{command}: {b:?}"))?;
    Ok(u64::from_le_bytes(bytes))
}
