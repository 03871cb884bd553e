// SPDX-License-Identifier: GPL-2.0

//! Modules, drivers, and the files by which QEMU gets at devices.

use crate::{
    bind::{DRIVER, driver_folder},
    finding::{Finding, Verdict},
    gpu_memory, groups,
    host::{Function, Host},
    source::Source,
};
use std::collections::{BTreeMap, BTreeSet};

pub fn driver(source: &Source) -> Finding {
    const NAME: &str = "driver";
    if source.exists(&driver_folder(DRIVER)) {
        return Finding::ok(NAME, format!("{DRIVER} is loaded"));
    }
    Finding::failed(
        NAME,
        format!("{DRIVER} is not loaded"),
        format!(
            "Install the module for this kernel ('make install') and load it: 'modprobe {DRIVER}'"
        ),
    )
}

pub fn kvm(source: &Source) -> Finding {
    const NAME: &str = "KVM";
    if !source.exists("/sys/module/kvm_hv") {
        return Finding::failed(
            NAME,
            "kvm_hv is not loaded",
            "'modprobe kvm-hv': GPUs can be bound to guests of KVM HV only",
        );
    }
    access(source, NAME, "/dev/kvm", "kvm_hv is loaded")
}

pub fn vfio(source: &Source) -> Finding {
    const NAME: &str = "VFIO";
    for module in ["vfio_pci_core", "vfio_iommu_spapr_tce"] {
        // sysfs has no folder of the core if that is built in, but a driver needs it.
        let used = module == "vfio_pci_core" && source.exists(&driver_folder(DRIVER));
        if !source.exists(&format!("/sys/module/{module}")) && !used {
            return Finding::failed(
                NAME,
                format!("{module} is not loaded"),
                format!("'modprobe {module}'"),
            );
        }
    }
    access(
        source,
        NAME,
        "/dev/vfio/vfio",
        "vfio_pci_core and vfio_iommu_spapr_tce are loaded",
    )
}

/// Whether a device file is there, and, on this machine, can be opened.
fn access(source: &Source, name: &'static str, file: &str, found: &str) -> Finding {
    if !source.exists(file) {
        return Finding::failed(
            name,
            format!("there is no {file}"),
            "Have udev make the files of devices (/dev is a devtmpfs)",
        );
    }
    if source.is_machine()
        && rustix::fs::access(
            file,
            rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
        )
        .is_err()
    {
        return Finding::failed(
            name,
            format!("this user may not open {file}"),
            format!("Add the user to the group of {file}, or run QEMU as one who is in it"),
        );
    }
    Finding::ok(name, found)
}

pub fn memory(source: &Source, host: &Host) -> Finding {
    const NAME: &str = "memory";
    let online = gpu_memory::online(source, host.gpus.iter());
    if online.is_empty() {
        return Finding::ok(NAME, "no RAM of a GPU is memory of the host");
    }
    let online: Vec<_> = online.iter().map(ToString::to_string).collect();
    Finding::failed(
        NAME,
        online.join("; "),
        format!("bind refuses these GPUs. {}", gpu_memory::REMEDY),
    )
}

pub fn binding(source: &Source, host: &Host) -> Finding {
    const NAME: &str = "binding";
    let ours = |function: &Function| function.driver.as_deref() == Some(DRIVER);
    let name = |function: &Function| match &function.driver {
        Some(driver) => format!("{} (has {driver})", function.bdf),
        None => function.bdf.to_string(),
    };
    let (bound, others): (Vec<_>, Vec<_>) = host.gpus.iter().partition(|gpu| ours(&gpu.function));
    let others: Vec<_> = others.iter().map(|gpu| name(&gpu.function)).collect();
    // A bridge may wait for its GPU, but a GPU without all of its bridges is of no use to a guest.
    let torn: Vec<_> = bound
        .iter()
        .filter(|gpu| {
            let mut bridges = gpu.bridges.iter().filter_map(|bdf| host.bridge(*bdf));
            bridges.any(|bridge| !ours(&bridge.function))
        })
        .map(|gpu| gpu.function.bdf.to_string())
        .collect();

    if bound.is_empty() {
        return Finding::failed(
            NAME,
            format!("no GPU belongs to {DRIVER}"),
            "'nvlink2ctl bind --all', or the GPUs that guests shall have",
        );
    }
    if !torn.is_empty() {
        return Finding::failed(
            NAME,
            format!("not all bridges of {} belong to {DRIVER}", torn.join(", ")),
            format!(
                "'nvlink2ctl bind {}' binds each with its bridges",
                torn.join(" ")
            ),
        );
    }
    // The host's driver for GPUs drives bridges, too.
    let taken: Vec<_> = host
        .gpus
        .iter()
        .filter(|gpu| {
            gpu.function
                .driver
                .as_deref()
                .is_some_and(|driver| !groups::is_for_vfio(source, driver))
        })
        .flat_map(|gpu| &gpu.bridges)
        .filter(|bdf| {
            host.bridge(**bdf)
                .is_some_and(|bridge| ours(&bridge.function))
        })
        .map(ToString::to_string)
        .collect();
    if !taken.is_empty() {
        return Finding::note(
            NAME,
            format!(
                "{} belong to {DRIVER}, and their GPU to a driver of the host, which has no NVLink without them",
                taken.join(", ")
            ),
        )
        .with_remedy(format!("'nvlink2ctl unbind {}' gives them back", taken.join(" ")));
    }
    if !others.is_empty() {
        return Finding::note(
            NAME,
            format!("not bound to {DRIVER}: {}", others.join(", ")),
        );
    }
    Finding::ok(NAME, format!("all GPUs and bridges belong to {DRIVER}"))
}

pub fn viability(source: &Source, host: &Host) -> Finding {
    const NAME: &str = "viability";
    let groups: BTreeSet<_> = host
        .gpus
        .iter()
        .filter_map(|gpu| gpu.function.group)
        .collect();
    let obstacles: Vec<_> = groups
        .iter()
        .flat_map(|group| groups::obstacles(source, host, *group, &BTreeMap::new()))
        .map(|obstacle| obstacle.to_string())
        .collect();

    if obstacles.is_empty() {
        return Finding::ok(
            NAME,
            "no driver of the host uses any function of the groups",
        );
    }
    Finding::failed(
        NAME,
        obstacles.join("; "),
        "'nvlink2ctl bind --group NUMBER' takes the GPUs and bridges of a group from their drivers",
    )
}

pub fn device_files(source: &Source, host: &Host) -> Finding {
    const NAME: &str = "device files";
    // VFIO makes the file of a group when the first of its functions is bound.
    let groups: BTreeSet<_> = host
        .gpus
        .iter()
        .filter(|gpu| gpu.function.driver.as_deref() == Some(DRIVER))
        .filter_map(|gpu| gpu.function.group)
        .collect();
    if groups.is_empty() {
        return Finding::skipped(NAME, "no GPU is bound");
    }
    for group in &groups {
        let finding = access(source, NAME, &format!("/dev/vfio/{group}"), "");
        if finding.verdict != Verdict::Ok {
            return finding;
        }
    }
    let files: Vec<_> = groups
        .iter()
        .map(|group| format!("/dev/vfio/{group}"))
        .collect();
    Finding::ok(NAME, files.join(", "))
}

pub fn debugfs(source: &Source) -> Finding {
    const NAME: &str = "debugfs";
    if source.exists(crate::host::DEBUGFS) {
        return Finding::ok(NAME, "the driver's files are there");
    }
    Finding::note(
        NAME,
        format!(
            "{} is not there, so 'list' can't tell guests: debugfs is not mounted, or only root may look",
            crate::host::DEBUGFS
        ),
    )
}
