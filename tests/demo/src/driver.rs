// SPDX-License-Identifier: GPL-2.0

//! Who drives a PCI function, and what the driver says about it in debugfs.

use anyhow::{bail, Context, Result};
use std::{fs, path::Path};

/// The driver under demonstration.
pub const NAME: &str = "nvlink2-vfio-pci";

fn device(bdf: &str, file: &str) -> String {
    format!("/sys/bus/pci/devices/{bdf}/{file}")
}

fn current(bdf: &str) -> Option<String> {
    let link = fs::read_link(device(bdf, "driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Gives `bdf` to the driver, as an administrator does with driver_override.
pub fn bind(bdf: &str) -> Result<()> {
    if current(bdf).as_deref() == Some(NAME) {
        return Ok(());
    }
    if !Path::new("/sys/bus/pci/drivers").join(NAME).exists() {
        bail!("the module is not loaded: modprobe {NAME}");
    }
    if current(bdf).is_some() {
        fs::write(device(bdf, "driver/unbind"), bdf).context("unbind")?;
    }
    fs::write(device(bdf, "driver_override"), NAME).context("driver_override")?;
    fs::write("/sys/bus/pci/drivers_probe", bdf).context("drivers_probe")?;
    match current(bdf) {
        Some(driver) if driver == NAME => Ok(()),
        Some(driver) => bail!("{driver} took it"),
        None => bail!("the driver refused it, see the kernel log"),
    }
}
