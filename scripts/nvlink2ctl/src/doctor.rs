// SPDX-License-Identifier: GPL-2.0

//! What a host needs to pass GPUs with NVLink2 through, and whether it has it.

mod drivers;
mod guests;
mod links;
mod machine;

use crate::{
    finding::{Finding, Verdict},
    host::Host,
    processor::Processor,
    source::Source,
};

/// Makes all checks, in the order in which a person would repair what they find. What depends on something
/// that is missing is skipped, so that the first failure is where to begin.
pub fn examine(source: &Source, host: &Host) -> Vec<Finding> {
    let platform = machine::platform(source);
    let powernv = platform.verdict == Verdict::Ok;
    let power9 = powernv && Processor::read(source).is_power9();
    let bridges = power9 && !host.bridges.is_empty();
    let gpus = power9 && !host.gpus.is_empty();
    let complete = gpus && bridges;

    let no_platform = "there is no POWER9 machine without hypervisor to look at";
    let no_power9 = if powernv {
        "only a POWER9 has NVLink2"
    } else {
        no_platform
    };
    let no_gpus = if power9 && gpus {
        "there is no bridge that can be used, so no GPU can be passed through"
    } else {
        "there is no GPU to look at"
    };
    let mut findings = vec![platform];
    let mut check = |name, possible: bool, why: &str, look: &dyn Fn() -> Finding| {
        findings.push(if possible {
            look()
        } else {
            Finding::skipped(name, why)
        });
    };
    check("processor", powernv, no_platform, &|| {
        machine::processor(source)
    });
    check("firmware", power9, no_power9, &|| machine::firmware(source));
    check("kernel options", power9, no_power9, &|| {
        machine::kernel_options(source)
    });
    check("page size", power9, no_power9, &|| {
        machine::page_size(source)
    });
    check("NVLink2 bridges", power9, no_power9, &|| {
        links::bridges(source, host)
    });
    check("GPUs", power9, no_power9, &|| links::gpus(host));
    check("IOMMU groups", complete, no_gpus, &|| links::groups(host));
    check("driver", power9, no_power9, &|| drivers::driver(source));
    check("KVM", power9, no_power9, &|| drivers::kvm(source));
    check("VFIO", power9, no_power9, &|| drivers::vfio(source));
    check("memory", gpus, no_gpus, &|| drivers::memory(source, host));
    check("binding", complete, no_gpus, &|| {
        drivers::binding(source, host)
    });
    check("viability", complete, no_gpus, &|| {
        drivers::viability(source, host)
    });
    check("device files", complete, no_gpus, &|| {
        drivers::device_files(source, host)
    });
    check("QEMU", power9, no_power9, &|| guests::qemu(source));
    check("libvirt", power9, no_power9, &|| guests::libvirt(source));
    check("locked memory", power9, no_power9, &|| {
        guests::locked_memory(source)
    });
    check("huge pages", power9, no_power9, &|| {
        guests::huge_pages(source)
    });
    check("debugfs", power9, no_power9, &|| drivers::debugfs(source));
    findings
}
