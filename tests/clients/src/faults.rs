// SPDX-License-Identifier: GPL-2.0

//! Page faults in GPU RAM on the host, as the driver's tracepoint has them.

use anyhow::{ensure, Context, Result};
use std::{fs, path::Path};

const INSTANCE: &str = "/sys/kernel/tracing/instances/clients";
const EVENT: &str = "vfio_pci_nvgpu_mmap_fault: ";

/// Faults from the value's making on.
pub struct Faults(());

/// A fault that brought a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Physical address of the page.
    pub physical: u64,
    /// User address of the page.
    pub user: u64,
}

impl Faults {
    /// Begins to count.
    pub fn start() -> Result<Self> {
        let instance = Path::new(INSTANCE);
        let _ = fs::remove_dir(instance);
        fs::create_dir(instance).context(INSTANCE)?;
        let faults = Self(());
        fs::write(instance.join("events/nvlink2_vfio/enable"), "1")?;
        Ok(faults)
    }

    /// Those until now.
    pub fn seen(&self) -> Result<Vec<Fault>> {
        let text = fs::read_to_string(Path::new(INSTANCE).join("trace"))?;
        ensure!(!text.contains("LOST"), "the kernel lost events");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(EVENT))
            .map(|(_, fault)| parse(fault).with_context(|| fault.to_owned()))
            .collect()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = fs::remove_dir(INSTANCE);
    }
}

/// "0004:04:00.0: 3e000000000 -> 7fff40000000 ret=256".
fn parse(fault: &str) -> Result<Fault> {
    let words: Vec<_> = fault.split_whitespace().collect();
    let [_, physical, "->", user, _] = words[..] else {
        anyhow::bail!("not a fault");
    };
    Ok(Fault {
        physical: u64::from_str_radix(physical, 16)?,
        user: u64::from_str_radix(user, 16)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_parsed() {
        assert_eq!(
            parse("0004:04:00.0: 3e000000000 -> 7fff40000000 ret=256").unwrap(),
            Fault {
                physical: 0x3e0_0000_0000,
                user: 0x7fff_4000_0000
            }
        );
        for text in ["", "0004:04:00.0: 3e0 -> x ret=0", "0004:04:00.0: 3e0 -> 1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
