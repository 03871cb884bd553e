// SPDX-License-Identifier: GPL-2.0

//! GPUs, their links, and how the kernel groups them.

use crate::{finding::Finding, host::Host, output, source::Source};
use std::collections::BTreeSet;

const RESCAN: &str = "It was removed, or has failed ('dmesg'): rescan ('echo 1 > /sys/bus/pci/rescan'); if it does not come back, reboot the host";

/// What firmware has found and Linux has no function for.
fn removed(name: &'static str, host: &Host, role: &str) -> Option<Finding> {
    let nodes = host.removed(role);
    (!nodes.is_empty()).then(|| {
        Finding::failed(
            name,
            format!("Linux has no PCI function for {}", nodes.join(", ")),
            RESCAN,
        )
    })
}

pub fn bridges(source: &Source, host: &Host) -> Finding {
    const NAME: &str = "NVLink2 bridges";
    const FIRMWARE: &str = "Update or repair the firmware (OPAL makes the device tree)";

    let faults: Vec<_> = host
        .faulty
        .iter()
        .filter(|faulty| faulty.is_bridge)
        .map(|faulty| format!("{}: {}", faulty.function.bdf, faulty.fault))
        .collect();
    if !faults.is_empty() {
        return Finding::failed(
            NAME,
            faults.join("; "),
            format!("The driver does not use these functions for NVLink2. {FIRMWARE}"),
        );
    }
    if host.lacks_npu_support() {
        let links: usize = host.gpus.iter().map(|gpu| gpu.missing.len()).sum();
        return Finding::failed(
            NAME,
            format!(
                "firmware describes {links} links of {} GPUs, and Linux {} shows no PCI function of an NPU: the kernel has no support for NPUs",
                host.gpus.len(),
                output::or_dash(source.text("/proc/sys/kernel/osrelease"))
            ),
            "Boot a Linux 7.3 with the series of scripts/kernel/ and CONFIG_PPC_POWERNV_NPU2=y; if that is running, 'dmesg | grep -i npu' says why it left the NPU alone",
        );
    }
    if let Some(finding) = removed(NAME, host, "bridge") {
        return finding;
    }
    if host.bridges.is_empty() && host.unconnected.is_empty() {
        return Finding::failed(
            NAME,
            "Linux shows no PCI function of an NPU that leads to a GPU",
            "Boot a Linux 7.3 with the series of scripts/kernel/ ('NPU' in dmesg); if that is running, firmware has found no GPU: see /sys/firmware/opal/msglog",
        );
    }
    if let Some(incomplete) = host.gpus.iter().find_map(|gpu| host.incomplete(gpu)) {
        return Finding::failed(NAME, incomplete.found, incomplete.remedy);
    }
    let without_gpu: Vec<_> = host
        .bridges
        .iter()
        .filter(|bridge| bridge.gpu.is_none())
        .map(|bridge| bridge.function.bdf.to_string())
        .collect();
    if !without_gpu.is_empty() {
        return Finding::failed(
            NAME,
            format!(
                "Linux has no PCI function for the GPU of {}",
                without_gpu.join(", ")
            ),
            RESCAN,
        );
    }
    let without_atsd: Vec<_> = host
        .bridges
        .iter()
        .filter_map(|bridge| {
            Some(format!(
                "{}: {}",
                bridge.function.bdf,
                bridge.atsd_fault.as_ref()?
            ))
        })
        .collect();
    if !without_atsd.is_empty() {
        return Finding::failed(
            NAME,
            without_atsd.join("; "),
            format!(
                "A link without ATSD registers of its own shares those of another one of its GPU; where there are none a guest does not see it. {FIRMWARE}"
            ),
        );
    }
    let mut found = format!("{} on {} NPUs", host.bridges.len(), host.npus.len());
    if !host.unconnected.is_empty() {
        let names: Vec<_> = host
            .unconnected
            .iter()
            .map(|bridge| bridge.function.bdf.to_string())
            .collect();
        found += &format!(
            "; not connected, as links to an empty socket are: {}",
            names.join(", ")
        );
    }
    Finding::ok(NAME, found)
}

pub fn gpus(host: &Host) -> Finding {
    const NAME: &str = "GPUs";
    let faults: Vec<_> = host
        .faulty
        .iter()
        .filter(|faulty| !faulty.is_bridge)
        .map(|faulty| format!("{}: {}", faulty.function.bdf, faulty.fault))
        .collect();
    if !faults.is_empty() {
        return Finding::failed(
            NAME,
            faults.join("; "),
            "The driver does not use these functions for NVLink2: update or repair the firmware (OPAL makes the device tree)",
        );
    }
    if let Some(finding) = removed(NAME, host, "gpu") {
        return finding;
    }
    if host.gpus.is_empty() {
        return Finding::failed(
            NAME,
            "no PCI function has the property ibm,npu",
            "Firmware has found no V100 SXM2 on NVLink2: see /sys/firmware/opal/msglog",
        );
    }
    Finding::ok(NAME, format!("{} with NVLink2", host.gpus.len()))
}

/// Whether the GPUs and bridges of each NPU are in one group, and in none with those of another NPU.
pub fn groups(host: &Host) -> Finding {
    const NAME: &str = "IOMMU groups";
    const REMEDY: &str = "The kernel has to put all GPUs and bridges of an NPU into one group: use Linux 7.3 with the series of scripts/kernel/";
    let mut used = BTreeSet::new();

    for npu in &host.npus {
        let members = host
            .gpus
            .iter()
            .filter(|gpu| gpu.npu.as_deref() == Some(&npu.node))
            .map(|gpu| &gpu.function)
            .chain(
                host.bridges
                    .iter()
                    .filter(|bridge| bridge.npu.as_deref() == Some(&npu.node))
                    .map(|bridge| &bridge.function),
            );
        let mut first = None;
        for function in members {
            let bdf = function.bdf;
            let Some(group) = function.group else {
                return Finding::failed(NAME, format!("{bdf} has none"), REMEDY);
            };
            let (other, wanted) = *first.get_or_insert((bdf, group));
            if group != wanted {
                return Finding::failed(
                    NAME,
                    format!(
                        "{other} is in group {wanted}, {bdf} of the same NPU ({}) in {group}",
                        npu.node
                    ),
                    REMEDY,
                );
            }
        }
        if let Some((_, group)) = first.filter(|(_, group)| !used.insert(*group)) {
            return Finding::failed(
                NAME,
                format!("group {group} has functions of two NPUs"),
                REMEDY,
            );
        }
    }
    let numbers: Vec<_> = used.iter().map(ToString::to_string).collect();
    Finding::ok(
        NAME,
        format!(
            "all GPUs and bridges of an NPU are in one: {}",
            numbers.join(", ")
        ),
    )
}
