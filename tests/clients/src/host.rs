// SPDX-License-Identifier: GPL-2.0

//! The host's side: GPUs and bridges as sysfs and the device tree show them, and their drivers.

use anyhow::{anyhow, ensure, Context, Result};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The driver under test.
pub const DRIVER: &str = "nvlink2-vfio-pci";

const DEVICES: &str = "/sys/bus/pci/devices";

/// From one chip's number (`ibm,chip-id`) to the next one's.
const CHIP_STRIDE: u64 = 8;

/// A GPU with NVLinks.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// PCI address.
    pub bdf: String,
    /// `ibm,device-tgt-addr`.
    pub tgt: u64,
    /// `ibm,nvlink-speed`.
    pub speed: u32,
    /// Host physical address of its RAM.
    pub aperture: u64,
    /// Number of the chip that its links lead to, counted from 0.
    pub chip: usize,
    /// PCI addresses of its bridges, in order.
    pub bridges: Vec<String>,
}

impl Gpu {
    /// The GPU and its bridges.
    pub fn functions(&self) -> Vec<String> {
        let mut all = vec![self.bdf.clone()];
        all.extend(self.bridges.iter().cloned());
        all
    }

    /// Bus, device and function number as the NPU's tables hold them.
    pub fn bdfn(&self) -> Result<u64> {
        let number = |range| {
            self.bdf
                .get(range)
                .and_then(|s| u64::from_str_radix(s, 16).ok())
        };
        let parts = (number(5..7), number(8..10), number(11..12));
        let (Some(bus), Some(device), Some(function)) = parts else {
            return Err(anyhow!("{}: not a PCI address", self.bdf));
        };
        Ok(bus << 8 | device << 3 | function)
    }
}

fn property(device: &Path, name: &str) -> Result<Vec<u8>> {
    let path = device.join("of_node").join(name);
    fs::read(&path).with_context(|| path.display().to_string())
}

fn number(device: &Path, name: &str) -> Result<u64> {
    let bytes = property(device, name)?;
    ensure!(
        bytes.len() == 4 || bytes.len() == 8,
        "{name}: {} bytes",
        bytes.len()
    );
    Ok(big_endian(&bytes))
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn sorted_devices() -> Result<Vec<PathBuf>> {
    let mut found: Vec<_> = fs::read_dir(DEVICES)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    found.sort();
    Ok(found)
}

fn name(device: &Path) -> String {
    device
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Address of the memory node with this phandle.
fn memory(phandle: u64) -> Result<u64> {
    for node in fs::read_dir("/sys/firmware/devicetree/base")? {
        let read = |name| fs::read(node.as_ref().ok()?.path().join(name)).ok();
        let found = read("phandle").is_some_and(|bytes| big_endian(&bytes) == phandle);
        if let (true, Some(reg)) = (found, read("reg")) {
            return reg
                .get(..8)
                .map(big_endian)
                .ok_or_else(|| anyhow!("memory node {phandle:#x}: short reg"));
        }
    }
    Err(anyhow!("no memory node with phandle {phandle:#x}"))
}

/// All GPUs in order of their PCI addresses.
pub fn gpus() -> Result<Vec<Gpu>> {
    let mut by_phandle = HashMap::new();
    let mut gpus = Vec::new();
    // How many bridges each lists.
    let mut links = Vec::new();
    for device in sorted_devices()? {
        if let (Ok(listed), Ok(phandle)) =
            (property(&device, "ibm,npu"), number(&device, "phandle"))
        {
            if property(&device, "ibm,gpu").is_err() {
                by_phandle.insert(phandle, gpus.len());
                gpus.push(Gpu {
                    bdf: name(&device),
                    tgt: 0,
                    speed: 0,
                    aperture: 0,
                    chip: 0,
                    bridges: Vec::new(),
                });
                links.push(listed.len() / 4);
            }
        }
    }
    for device in sorted_devices()? {
        let Ok(phandle) = number(&device, "ibm,gpu") else {
            continue;
        };
        let Some(gpu) = by_phandle
            .get(&phandle)
            .and_then(|index| gpus.get_mut(*index))
        else {
            continue;
        };
        gpu.tgt = number(&device, "ibm,device-tgt-addr")?;
        gpu.speed = u32::try_from(number(&device, "ibm,nvlink-speed")?)?;
        gpu.aperture = memory(number(&device, "memory-region")?)?;
        gpu.chip = usize::try_from(number(&device, "../ibm,chip-id")? / CHIP_STRIDE)?;
        gpu.bridges.push(name(&device));
    }
    ensure!(!gpus.is_empty(), "no GPU with NVLinks in the device tree");
    for (gpu, links) in gpus.iter().zip(links) {
        ensure!(
            !gpu.bridges.is_empty() && gpu.bridges.len() == links,
            "{} has {} bridges and lists {links}",
            gpu.bdf,
            gpu.bridges.len()
        );
    }
    Ok(gpus)
}

/// Name of the driver that has the device, if one has.
pub fn driver_of(bdf: &str) -> Option<String> {
    let link = fs::read_link(Path::new(DEVICES).join(bdf).join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Takes the device from its driver, and lets any have it.
pub fn release(bdf: &str) -> Result<()> {
    let device = Path::new(DEVICES).join(bdf);
    let unbind = device.join("driver/unbind");
    if unbind.exists() {
        fs::write(&unbind, bdf)?;
    }
    fs::write(device.join("driver_override"), "\n")?;
    ensure!(driver_of(bdf).is_none(), "{bdf} has a driver again");
    Ok(())
}

/// Gives the device to the driver under test.
pub fn bind(bdf: &str) -> Result<()> {
    if driver_of(bdf).as_deref() == Some(DRIVER) {
        return Ok(());
    }
    let device = Path::new(DEVICES).join(bdf);
    let unbind = device.join("driver/unbind");
    if unbind.exists() {
        fs::write(&unbind, bdf)?;
    }
    fs::write(device.join("driver_override"), DRIVER)?;
    fs::write("/sys/bus/pci/drivers_probe", bdf)
        .with_context(|| format!("{bdf}: {DRIVER} does not take it"))?;
    ensure!(
        driver_of(bdf).as_deref() == Some(DRIVER),
        "{bdf} has the driver {:?}",
        driver_of(bdf)
    );
    Ok(())
}
