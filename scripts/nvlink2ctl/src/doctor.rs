// SPDX-License-Identifier: GPL-2.0

//! What a host needs to pass GPUs with NVLink2 through, and whether it has it.

use crate::{
    bind::{DRIVER, driver_folder},
    devicetree::BASE,
    groups,
    host::{Function, Host},
    memlock::{Mode, Pseries},
    output,
    source::Source,
    units::Kib,
};
use flate2::read::GzDecoder;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::Read,
};

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it has to be.
    Ok,
    /// Not as it has to be.
    Failed,
    /// Neither is wrong, but it is good to know.
    Note,
    /// Not looked at, because something else is missing.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Note => "note",
            Self::Skipped => "skipped",
        })
    }
}

/// One check of a host.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// What came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Verdict::Ok,
        found: found.into(),
        remedy: None,
    }
}

fn note(check: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Note,
        ..ok(check, found)
    }
}

fn skipped(check: &'static str, why: &str) -> Finding {
    Finding {
        verdict: Verdict::Skipped,
        ..ok(check, why)
    }
}

fn failed(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Failed,
        remedy: Some(remedy.into()),
        ..ok(check, found)
    }
}

/// The kernel's options that passthrough needs, and whether a module will do.
const OPTIONS: [(&str, bool); 7] = [
    ("CONFIG_PPC_POWERNV_NPU2", false),
    ("CONFIG_SPAPR_TCE_IOMMU", false),
    ("CONFIG_EEH", false),
    ("CONFIG_VFIO", true),
    ("CONFIG_VFIO_PCI", true),
    ("CONFIG_VFIO_GROUP", false),
    ("CONFIG_KVM_BOOK3S_64_HV", true),
];

/// Makes all checks, in the order in which a person would repair what they find.
pub fn examine(source: &Source, host: &Host) -> Vec<Finding> {
    let platform = platform(source);
    let here = platform.verdict == Verdict::Ok;
    let there_are_gpus = !host.gpus.is_empty();
    let mut findings = vec![platform];

    let no_platform = "there is no POWER9 machine without hypervisor to look at";
    let no_gpus = "there is no GPU to look at";
    let mut check = |name, possible: bool, why: &str, look: &dyn Fn() -> Finding| {
        findings.push(if possible { look() } else { skipped(name, why) });
    };
    check("processor", here, no_platform, &|| processor(source));
    check("firmware", here, no_platform, &|| firmware(source));
    check("kernel options", here, no_platform, &|| kernel(source));
    check("NVLink2 bridges", here, no_platform, &|| bridges(host));
    check("GPUs", here, no_platform, &|| gpus(host));
    check("IOMMU groups", there_are_gpus, no_gpus, &|| {
        compound_groups(host)
    });
    check("driver", here, no_platform, &|| driver(source));
    check("KVM", here, no_platform, &|| kvm(source));
    check("VFIO", here, no_platform, &|| vfio(source));
    check("binding", there_are_gpus, no_gpus, &|| binding(host));
    check("viability", there_are_gpus, no_gpus, &|| {
        viability(source, host)
    });
    check("device files", there_are_gpus, no_gpus, &|| {
        device_files(source, host)
    });
    check("locked memory", here, no_platform, &|| {
        locked_memory(source)
    });
    check("huge pages", here, no_platform, &|| huge_pages(source));
    check("debugfs", here, no_platform, &|| debugfs(source));
    findings
}

fn platform(source: &Source) -> Finding {
    const NAME: &str = "platform";
    let Some(bytes) = source.read(&format!("{BASE}/compatible")) else {
        return failed(
            NAME,
            "this machine has no device tree, so it is no POWER9 host (an x86 machine, for instance)",
            "Run this on an IBM AC922 or another POWER9 host with V100 SXM2 GPUs; '--sysfs FILE' looks at the recording of one",
        );
    };
    let compatible = String::from_utf8_lossy(&bytes);
    let names: Vec<_> = compatible
        .split('\0')
        .filter(|name| !name.is_empty())
        .collect();

    if names.contains(&"ibm,powernv") {
        return ok(NAME, names.join(", "));
    }
    let remedy = if names.iter().any(|name| name.contains("pseries")) {
        "This is a guest of PowerVM or KVM: GPUs can be passed through by the host only"
    } else {
        "Run this on a POWER9 host that runs without hypervisor (PowerNV)"
    };
    failed(
        NAME,
        format!("'{}' is not PowerNV", names.join(", ")),
        remedy,
    )
}

fn cpuinfo(source: &Source, key: &str) -> Option<String> {
    const FILE: &str = "/proc/cpuinfo";
    let bytes = source.peek(FILE)?;
    let text = String::from_utf8_lossy(&bytes);
    // Of dozens of threads, a recording needs only one.
    let lines: Vec<_> = ["cpu", "platform", "MMU"]
        .iter()
        .filter_map(|name| text.lines().find(|line| key_of(line) == Some(*name)))
        .collect();

    source.remember(FILE, lines.join("\n").as_bytes());
    let line = lines.iter().find(|line| key_of(line) == Some(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn key_of(line: &str) -> Option<&str> {
    Some(line.split_once(':')?.0.trim())
}

fn processor(source: &Source) -> Finding {
    const NAME: &str = "processor";
    let cpu = cpuinfo(source, "cpu").unwrap_or_default();
    let mmu = cpuinfo(source, "MMU").unwrap_or_default();

    if !cpu.starts_with("POWER9") {
        return failed(
            NAME,
            format!("'{cpu}' is no POWER9"),
            "Only POWER9 processors have NVLink2",
        );
    }
    if mmu != "Radix" {
        return failed(
            NAME,
            format!("{cpu}, MMU: {mmu}"),
            "The NPU can translate for radix guests only: boot without 'disable_radix' on the kernel's command line",
        );
    }
    ok(NAME, format!("{cpu}, radix MMU"))
}

fn firmware(source: &Source) -> Finding {
    const NAME: &str = "firmware";
    let version = source
        .text(&format!("{BASE}/ibm,opal/firmware/version"))
        .map(|text| text.trim_end_matches('\0').to_owned());

    match version {
        Some(version) => ok(NAME, format!("OPAL {version}")),
        None => failed(
            NAME,
            "the device tree has no OPAL firmware",
            "The NPU is set up by OPAL (skiboot): boot on the bare machine",
        ),
    }
}

/// The lines of the kernel's configuration that matter here.
fn configuration(source: &Source) -> Option<String> {
    let release = source.text("/proc/sys/kernel/osrelease")?;
    let file = format!("/boot/config-{release}");
    let whole = match source.peek("/proc/config.gz") {
        Some(packed) => {
            let mut text = String::new();
            // No configuration is larger than a few hundred KiB.
            GzDecoder::new(packed.as_slice())
                .take(16 << 20)
                .read_to_string(&mut text)
                .ok()?;
            text
        }
        None => String::from_utf8_lossy(&source.peek(&file)?).into_owned(),
    };
    let lines: String = whole
        .lines()
        .filter(|line| {
            line.split_once('=')
                .is_some_and(|(name, _)| OPTIONS.iter().any(|(option, _)| name == *option))
        })
        .map(|line| format!("{line}\n"))
        .collect();

    source.remember(&file, lines.as_bytes());
    Some(lines)
}

fn kernel(source: &Source) -> Finding {
    const NAME: &str = "kernel options";
    let release = output::or_dash(source.text("/proc/sys/kernel/osrelease"));
    let Some(text) = configuration(source) else {
        return note(
            NAME,
            format!(
                "Linux {release} does not say how it was configured (neither /proc/config.gz nor /boot/config-{release})"
            ),
        );
    };
    let set: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let missing: Vec<_> = OPTIONS
        .iter()
        .filter(|(option, module)| match set.get(option) {
            Some(&"y") => false,
            Some(&"m") => !module,
            _ => true,
        })
        .map(|(option, module)| format!("{option}={}", if *module { "m" } else { "y" }))
        .collect();

    if missing.is_empty() {
        return ok(NAME, format!("Linux {release} has all that are needed"));
    }
    let remedy = if missing
        .iter()
        .any(|option| option.starts_with("CONFIG_PPC_POWERNV_NPU2"))
    {
        "Build Linux 7.3 with the series of scripts/kernel/ (it brings CONFIG_PPC_POWERNV_NPU2) and these options"
    } else {
        "Build the kernel with these options"
    };
    failed(
        NAME,
        format!("Linux {release} lacks {}", missing.join(", ")),
        remedy,
    )
}

fn bridges(host: &Host) -> Finding {
    const NAME: &str = "NVLink2 bridges";
    let links: usize = host.bridges.len();

    if links == 0 {
        return failed(
            NAME,
            "Linux shows no PCI function of an NPU that leads to a GPU",
            "Boot a Linux 7.3 with the series of scripts/kernel/ ('NPU' in dmesg); if that is running, firmware has found no GPU: see /sys/firmware/opal/msglog",
        );
    }
    let without: Vec<_> = host
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
    if !without.is_empty() {
        return failed(
            NAME,
            without.join("; "),
            "Without ATSD registers a guest can't shoot down translations: repair the firmware",
        );
    }
    ok(NAME, format!("{links} on {} NPUs", host.npus.len()))
}

fn gpus(host: &Host) -> Finding {
    const NAME: &str = "GPUs";
    if !host.faulty.is_empty() {
        let faults: Vec<_> = host
            .faulty
            .iter()
            .map(|faulty| format!("{}: {}", faulty.function.bdf, faulty.fault))
            .collect();
        return failed(
            NAME,
            faults.join("; "),
            "The driver does not use these functions: repair the firmware (OPAL makes the device tree)",
        );
    }
    if host.gpus.is_empty() {
        return failed(
            NAME,
            "no PCI function has the property ibm,npu",
            "Firmware has found no V100 SXM2 on NVLink2: see /sys/firmware/opal/msglog",
        );
    }
    ok(NAME, format!("{} with NVLink2", host.gpus.len()))
}

fn compound_groups(host: &Host) -> Finding {
    const NAME: &str = "IOMMU groups";
    const REMEDY: &str = "The kernel has to put all GPUs and bridges of an NPU into one group: use Linux 7.3 with the series of scripts/kernel/";
    for gpu in &host.gpus {
        let bdf = gpu.function.bdf;
        let Some(group) = gpu.function.group else {
            return failed(NAME, format!("{bdf} has none"), REMEDY);
        };
        let stranger = gpu
            .bridges
            .iter()
            .filter_map(|bridge| host.bridge(*bridge))
            .find(|bridge| bridge.function.group != Some(group));
        if let Some(bridge) = stranger {
            return failed(
                NAME,
                format!(
                    "{bdf} is in group {group}, its bridge {} in {}",
                    bridge.function.bdf,
                    output::or_dash(bridge.function.group)
                ),
                REMEDY,
            );
        }
    }
    let groups: BTreeSet<_> = host
        .gpus
        .iter()
        .filter_map(|gpu| gpu.function.group)
        .collect();
    let numbers: Vec<_> = groups.iter().map(ToString::to_string).collect();
    ok(
        NAME,
        format!("GPUs are in one with their bridges: {}", numbers.join(", ")),
    )
}

fn driver(source: &Source) -> Finding {
    const NAME: &str = "driver";
    if source.exists(&driver_folder(DRIVER)) {
        return ok(NAME, format!("{DRIVER} is loaded"));
    }
    failed(
        NAME,
        format!("{DRIVER} is not loaded"),
        format!(
            "Install the module for this kernel ('make install') and load it: 'modprobe {DRIVER}'"
        ),
    )
}

fn kvm(source: &Source) -> Finding {
    const NAME: &str = "KVM";
    if !source.exists("/sys/module/kvm_hv") {
        return failed(
            NAME,
            "kvm_hv is not loaded",
            "'modprobe kvm-hv': GPUs can be bound to guests of KVM HV only",
        );
    }
    access(source, NAME, "/dev/kvm", "kvm_hv is loaded")
}

fn vfio(source: &Source) -> Finding {
    const NAME: &str = "VFIO";
    for module in ["vfio_pci_core", "vfio_iommu_spapr_tce"] {
        // sysfs has no folder of the core if that is built in, but a driver needs it.
        let used = module == "vfio_pci_core" && source.exists(&driver_folder(DRIVER));
        if !source.exists(&format!("/sys/module/{module}")) && !used {
            return failed(
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
        return failed(
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
        return failed(
            name,
            format!("this user may not open {file}"),
            format!("Add the user to the group of {file}, or run QEMU as one who is in it"),
        );
    }
    ok(name, found)
}

fn binding(host: &Host) -> Finding {
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
        return failed(
            NAME,
            format!("no GPU belongs to {DRIVER}"),
            "'nvlink2ctl bind --all', or the GPUs that guests shall have",
        );
    }
    if !torn.is_empty() {
        return failed(
            NAME,
            format!("not all bridges of {} belong to {DRIVER}", torn.join(", ")),
            format!(
                "'nvlink2ctl bind {}' binds each with its bridges",
                torn.join(" ")
            ),
        );
    }
    if !others.is_empty() {
        return note(
            NAME,
            format!("not bound to {DRIVER}: {}", others.join(", ")),
        );
    }
    ok(NAME, format!("all GPUs and bridges belong to {DRIVER}"))
}

fn viability(source: &Source, host: &Host) -> Finding {
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
        return ok(
            NAME,
            "no driver of the host uses any function of the groups",
        );
    }
    failed(
        NAME,
        obstacles.join("; "),
        "'nvlink2ctl bind --group NUMBER' takes the GPUs and bridges of a group from their drivers",
    )
}

fn device_files(source: &Source, host: &Host) -> Finding {
    const NAME: &str = "device files";
    // VFIO makes the file of a group when the first of its functions is bound.
    let groups: BTreeSet<_> = host
        .gpus
        .iter()
        .filter(|gpu| gpu.function.driver.as_deref() == Some(DRIVER))
        .filter_map(|gpu| gpu.function.group)
        .collect();
    if groups.is_empty() {
        return skipped(NAME, "no GPU is bound");
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
    ok(NAME, files.join(", "))
}

/// The capability to lock memory without limit (CAP_IPC_LOCK).
const IPC_LOCK: u32 = 14;

fn locked_memory(source: &Source) -> Finding {
    const NAME: &str = "locked memory";
    // The least that makes sense: 1 GiB, and one group on a PCI host bridge of its own.
    let smallest = Pseries {
        memory: Kib(1 << 20),
        max_memory: Kib(1 << 20),
        phbs: 2,
        mode: Mode::Nvlink2,
    };
    let Ok(need) = smallest.limit() else {
        return skipped(NAME, "the limit can't be computed");
    };
    let need = need.bytes;
    let status = source.text("/proc/self/status").unwrap_or_default();
    let capable = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .and_then(|mask| mask.checked_shr(IPC_LOCK))
        .is_some_and(|mask| mask & 1 == 1);
    if capable {
        return ok(NAME, "this user may lock any amount (CAP_IPC_LOCK)");
    }
    let limits = source.text("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| {
        line.strip_prefix("Max locked memory")?
            .split_whitespace()
            .next()
    });
    match soft {
        Some("unlimited") => ok(NAME, "this user may lock any amount"),
        Some(bytes) if bytes.parse().is_ok_and(|bytes: u64| bytes >= need) => {
            ok(NAME, format!("this user may lock {bytes} bytes"))
        }
        soft => failed(
            NAME,
            format!(
                "this user may lock {} bytes, the smallest guest needs {need}",
                soft.unwrap_or("no")
            ),
            "libvirt sets the limit by itself. For QEMU alone: a 'memlock' line in /etc/security/limits.conf, or LimitMEMLOCK= of its service; 'nvlink2ctl memlock' computes the amount",
        ),
    }
}

fn huge_pages(source: &Source) -> Finding {
    const NAME: &str = "huge pages";
    const FOLDER: &str = "/sys/kernel/mm/hugepages";
    let reserved: Vec<_> = source
        .folder(FOLDER)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| {
            let count: u64 = source
                .text(&format!("{FOLDER}/{name}/nr_hugepages"))?
                .parse()
                .ok()?;
            let size = name.strip_prefix("hugepages-")?.to_owned();
            (count != 0).then(|| format!("{count} of {size}"))
        })
        .collect();

    if reserved.is_empty() {
        return note(
            NAME,
            "none are reserved; guests work without, but their memory on huge pages makes translation faster",
        );
    }
    ok(NAME, reserved.join(", "))
}

fn debugfs(source: &Source) -> Finding {
    const NAME: &str = "debugfs";
    if source.exists(crate::host::DEBUGFS) {
        return ok(NAME, "the driver's files are there");
    }
    note(
        NAME,
        format!(
            "{} is not there, so 'list' can't tell guests: debugfs is not mounted, or only root may look",
            crate::host::DEBUGFS
        ),
    )
}
