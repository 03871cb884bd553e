// SPDX-License-Identifier: GPL-2.0

//! The machine, its firmware and its kernel.

use crate::{
    devicetree::BASE, finding::Finding, output, processor::Processor, software, source::Source,
};
use flate2::read::GzDecoder;
use std::{collections::BTreeMap, io::Read};

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

/// The options of which one says the size of pages, and that size.
const PAGE_SIZES: [(&str, &str); 4] = [
    ("CONFIG_PAGE_SIZE_64KB", "64 KiB"),
    ("CONFIG_PPC_64K_PAGES", "64 KiB"),
    ("CONFIG_PAGE_SIZE_4KB", "4 KiB"),
    ("CONFIG_PPC_4K_PAGES", "4 KiB"),
];

pub fn platform(source: &Source) -> Finding {
    const NAME: &str = "platform";
    let Some(bytes) = source.read(&format!("{BASE}/compatible")) else {
        return Finding::failed(
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
        return Finding::ok(NAME, names.join(", "));
    }
    let remedy = if names.iter().any(|name| name.contains("pseries")) {
        "This is a guest of PowerVM or KVM: GPUs can be passed through by the host only"
    } else {
        "Run this on a POWER9 host that runs without hypervisor (PowerNV)"
    };
    Finding::failed(
        NAME,
        format!("'{}' is not PowerNV", names.join(", ")),
        remedy,
    )
}

pub fn processor(source: &Source) -> Finding {
    const NAME: &str = "processor";
    let processor = Processor::read(source);
    let Processor { name, mmu } = &processor;

    if !processor.is_power9() {
        return Finding::failed(
            NAME,
            format!("'{name}' is no POWER9"),
            "Only POWER9 processors have NVLink2 (a POWER8 has NVLink1, which cannot be passed through)",
        );
    }
    if mmu != "Radix" {
        return Finding::failed(
            NAME,
            format!("{name}, MMU: {mmu}"),
            "The NPU can translate for radix guests only: boot without 'disable_radix' on the kernel's command line",
        );
    }
    Finding::ok(NAME, format!("{name}, radix MMU"))
}

pub fn firmware(source: &Source) -> Finding {
    const NAME: &str = "firmware";
    let Some(opal) = software::opal(source) else {
        return Finding::failed(
            NAME,
            "the device tree has no OPAL firmware",
            "The NPU is set up by OPAL (skiboot): boot on the bare machine",
        );
    };
    let name = format!("OPAL {}", opal.text);
    let Some(fixes) = software::missing_fixes(&opal) else {
        return Finding::note(
            NAME,
            format!("{name}, which does not tell how old it is; want 6.5.3 or later"),
        );
    };
    if fixes.is_empty() {
        return Finding::ok(NAME, name);
    }
    let lacks: Vec<_> = fixes
        .iter()
        .map(|fix| format!("before {} {}", fix.since, fix.without))
        .collect();
    let found = format!("{name} is old: {}", lacks.join("; "));
    let remedy = "Update the firmware of the machine: OPAL 6.5.3 or later has all of it";

    if fixes.iter().any(|fix| fix.needed) {
        Finding::failed(NAME, found, remedy)
    } else {
        Finding::note(NAME, found).with_remedy(remedy)
    }
}

fn is_of_interest(option: &str) -> bool {
    OPTIONS.iter().any(|(name, _)| *name == option)
        || PAGE_SIZES.iter().any(|(name, _)| *name == option)
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
                .is_some_and(|(name, _)| is_of_interest(name))
        })
        .map(|line| format!("{line}\n"))
        .collect();

    source.remember(&file, lines.as_bytes());
    Some(lines)
}

pub fn kernel_options(source: &Source) -> Finding {
    const NAME: &str = "kernel options";
    let release = output::or_dash(source.text("/proc/sys/kernel/osrelease"));
    let Some(text) = configuration(source) else {
        return Finding::note(
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
        return Finding::ok(NAME, format!("Linux {release} has all that are needed"));
    }
    let remedy = if missing
        .iter()
        .any(|option| option.starts_with("CONFIG_PPC_POWERNV_NPU2"))
    {
        "Build Linux 7.3 with the series of scripts/kernel/ (it brings CONFIG_PPC_POWERNV_NPU2) and these options"
    } else {
        "Build the kernel with these options"
    };
    Finding::failed(
        NAME,
        format!("Linux {release} lacks {}", missing.join(", ")),
        remedy,
    )
}

pub fn page_size(source: &Source) -> Finding {
    const NAME: &str = "page size";
    let text = configuration(source).unwrap_or_default();
    let size = PAGE_SIZES
        .iter()
        .find(|(option, _)| text.lines().any(|line| line == format!("{option}=y")));

    match size {
        Some((_, "64 KiB")) => Finding::ok(NAME, "64 KiB"),
        Some((_, size)) => Finding::note(
            NAME,
            format!(
                "{size}: a guest whose memory is not on huge pages cannot have DMA windows with pages of 64 KiB, and GPU RAM takes more page table entries; kernels with 64 KiB are what guests were tried on"
            ),
        )
        .with_remedy(
            "Build the kernel with CONFIG_PPC_64K_PAGES=y (Debian: the flavour 'powerpc64le-64k'), or give guests huge pages",
        ),
        None => Finding::note(NAME, "the kernel's configuration does not say it"),
    }
}
