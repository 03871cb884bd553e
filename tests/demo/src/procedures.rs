// SPDX-License-Identifier: GPL-2.0

//! Firmware's procedures for training links (skiboot, `hw/npu2-hw-procedures.c`), which each bridge
//! offers in its vendor specific capability: a number goes to the control register, and the status
//! register is read until the procedure is complete.

use crate::vfio::Device;
use anyhow::{bail, ensure, Context, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

const PCI_CAPABILITY_LIST: u64 = 0x34;
const PCI_CAP_ID_VNDR: u8 = 0x9;

const STATUS: u64 = 0x4;
const CONTROL: u64 = 0x8;
const COMPLETE: u32 = 1 << 30;
const RESULT: u32 = 0xf;

const RESET_NTL: u32 = 10;
/// PHY reset, impedance and DC calibration, the pattern for the GPU to train with, training, the end
/// of the pattern, and what opens the link.
const TRAINING: [u32; 7] = [4, 5, 6, 7, 9, 8, 13];

/// Firmware gives up after a second.
const LIMIT: Duration = Duration::from_secs(10);

/// Where a bridge's vendor specific capability is.
fn capability(bridge: &Device) -> Result<u64> {
    let mut header = [0; 2];
    bridge.read_config(PCI_CAPABILITY_LIST, &mut header[1..])?;
    // As many as configuration space has room for.
    for _ in 0..48 {
        let at = u64::from(header[1]);
        ensure!(at != 0, "no vendor specific capability");
        bridge.read_config(at, &mut header)?;
        if header[0] == PCI_CAP_ID_VNDR {
            return Ok(at);
        }
    }
    bail!("the list of capabilities has no end");
}

fn run(bridge: &Device, number: u32) -> Result<()> {
    let at = capability(bridge)?;
    let start = Instant::now();
    bridge.write_config(at + CONTROL, &number.to_le_bytes())?;
    loop {
        let mut status = [0; 4];
        bridge.read_config(at + STATUS, &mut status)?;
        let status = u32::from_le_bytes(status);
        if status & COMPLETE != 0 {
            let result = status & RESULT;
            ensure!(result == 0, "it ended with {result}");
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "it does not end");
        thread::sleep(Duration::from_millis(1));
    }
}

fn run_on_all(bridges: &[&Device], number: u32) -> Result<()> {
    for bridge in bridges {
        run(bridge, number).with_context(|| format!("procedure {number} of firmware"))?;
    }
    Ok(())
}

/// Takes the NPU's ends of the links down.
pub fn reset(bridges: &[&Device]) -> Result<()> {
    run_on_all(bridges, RESET_NTL)
}

/// Trains the NPU's ends of links that are in reset, once the GPU's are up, and opens the links.
pub fn train(bridges: &[&Device]) -> Result<()> {
    TRAINING
        .iter()
        .try_for_each(|number| run_on_all(bridges, *number))
}
