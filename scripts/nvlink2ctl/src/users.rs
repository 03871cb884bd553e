// SPDX-License-Identifier: GPL-2.0

//! Which processes use devices.

use crate::{
    bdf::Bdf,
    host::{Function, Host},
};
use serde::Serialize;
use std::{collections::BTreeSet, fs, path::Path};

/// A process that has something open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct User {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// What it has open.
    pub file: String,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (process {}) has {} open",
            self.command, self.pid, self.file
        )
    }
}

/// What an open file means for a device, if anything.
struct Wanted {
    groups: BTreeSet<String>,
    functions: BTreeSet<Bdf>,
    nvidia: bool,
}

impl Wanted {
    fn new(functions: &[&Function]) -> Self {
        Self {
            groups: functions
                .iter()
                .filter_map(|function| function.group)
                .map(|group| format!("/dev/vfio/{group}"))
                .collect(),
            functions: functions.iter().map(|function| function.bdf).collect(),
            nvidia: functions
                .iter()
                .any(|function| function.driver.as_deref() == Some("nvidia")),
        }
    }

    /// `target`: where the link of a descriptor leads to; `info`: its fdinfo.
    fn is_in(&self, target: &str, info: impl Fn() -> String) -> bool {
        if self.groups.contains(target) {
            return true;
        }
        // Which of the vendor's files is which GPU is the vendor's secret: any of them counts.
        if self.nvidia && target.starts_with("/dev/nvidia") {
            return true;
        }
        // A device that was opened through VFIO has no name, but tells the path in sysfs.
        target == "anon_inode:[vfio-device]"
            && info()
                .lines()
                .filter_map(|line| line.strip_prefix("vfio-device-syspath:"))
                .filter_map(|path| path.rsplit('/').next()?.trim().parse().ok())
                .any(|bdf| self.functions.contains(&bdf))
    }
}

/// Processes, other than this one, that use any of these functions or have their IOMMU groups open.
/// `proc` is where the processes are listed (`/proc`).
pub fn find(proc: &Path, host: &Host, functions: &[Bdf]) -> Vec<User> {
    let functions: Vec<_> = functions
        .iter()
        .filter_map(|bdf| host.functions.get(bdf))
        .collect();
    let wanted = Wanted::new(&functions);
    let mut users = BTreeSet::new();

    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let folder = process.path();
        for file in fs::read_dir(folder.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(target) = fs::read_link(file.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let info = || {
                fs::read_to_string(folder.join("fdinfo").join(file.file_name())).unwrap_or_default()
            };
            if wanted.is_in(&target, info) {
                let command = fs::read_to_string(folder.join("comm")).unwrap_or_default();
                users.insert(User {
                    pid,
                    command: command.trim().to_owned(),
                    file: target,
                });
            }
        }
    }
    users.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(driver: &str) -> Function {
        Function {
            bdf: "0000:03:00.0".parse().unwrap(),
            id: String::new(),
            driver: Some(driver.to_owned()),
            driver_override: None,
            group: Some(3),
            numa_node: None,
            node: None,
            libvirt_bridge: false,
        }
    }

    #[test]
    fn open_files_that_count() {
        let vfio = "vfio-device-syspath: /sys/devices/pci0000:00/0000:00:00.0/0000:03:00.0\n";
        let other = "vfio-device-syspath: /sys/devices/pci0000:00/0000:03:00.0/0000:04:00.0\n";
        let anonymous = "anon_inode:[vfio-device]";

        for (driver, target, info, wanted) in [
            ("vfio-pci", "/dev/vfio/3", "", true),
            ("vfio-pci", "/dev/vfio/33", "", false),
            ("vfio-pci", "/dev/vfio/vfio", "", false),
            ("vfio-pci", anonymous, vfio, true),
            ("vfio-pci", anonymous, other, false),
            ("vfio-pci", anonymous, "", false),
            ("vfio-pci", "/tmp/vfio", vfio, false),
            ("vfio-pci", "/dev/nvidia0", "", false),
            ("nvidia", "/dev/nvidia0", "", true),
            ("nvidia", "/dev/nvidiactl", "", true),
            ("nvidia", "/dev/null", "", false),
        ] {
            let function = function(driver);
            let found = Wanted::new(&[&function]).is_in(target, || info.to_owned());
            assert_eq!(found, wanted, "{driver} {target} {info}");
        }
    }
}
