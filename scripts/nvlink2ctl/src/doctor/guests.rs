// SPDX-License-Identifier: GPL-2.0

//! What guests need: QEMU, libvirt, memory.

use crate::{
    finding::Finding,
    memlock::{Mode, Pseries},
    software,
    source::Source,
    units::Kib,
};

pub fn qemu(source: &Source) -> Finding {
    const NAME: &str = "QEMU";
    const RELEASES: &str = "releases 4.1 to 8.1 have the NVLink2 client";
    let qemus = software::qemus(source);
    let names: Vec<_> = qemus
        .iter()
        .map(|qemu| format!("{} is {}", qemu.path, qemu.release.text))
        .collect();
    let best = qemus
        .iter()
        .find(|qemu| qemu.client && !qemu.frees_too_early());
    let Some(qemu) = best.or_else(|| qemus.iter().find(|qemu| qemu.client)) else {
        if names.is_empty() {
            return Finding::note(
                NAME,
                format!(
                    "none for ppc64 was found where packages put it: qemu-system-ppc-nvlink2 and {RELEASES}"
                ),
            );
        }
        return Finding::failed(
            NAME,
            format!("{}, which has no NVLink2 client", names.join("; ")),
            format!(
                "Guests would see ordinary GPUs. Install qemu-system-ppc-nvlink2, or another QEMU with the client: {RELEASES}, and a later one if it was patched"
            ),
        );
    };
    let found = format!(
        "{} is {}, with the NVLink2 client",
        qemu.path, qemu.release.text
    );
    if qemu.frees_too_early() {
        return Finding::note(
            NAME,
            format!(
                "{found}; releases 7.1 to 8.1 free what it reads later, so that guests see no links, unless the distribution has mended that"
            ),
        )
        .with_remedy(
            "Install qemu-system-ppc-nvlink2, use a release from 4.1 to 7.0, or preload the library that the administrator's guide names",
        );
    }
    Finding::ok(NAME, found)
}

pub fn libvirt(source: &Source) -> Finding {
    const NAME: &str = "libvirt";
    let Some(libvirt) = software::libvirt(source) else {
        return Finding::note(NAME, "none was found; QEMU alone will do");
    };
    let text = &libvirt.text;
    let old_qemu = software::qemus(source)
        .into_iter()
        .find(|qemu| qemu.client && qemu.release.is_at_least(6, 2, 0) == Some(false));
    if let Some(qemu) = old_qemu.filter(|_| libvirt.is_at_least(11, 3, 0) == Some(true)) {
        return Finding::failed(
            NAME,
            format!(
                "{text} takes no QEMU before 6.2, and {} is {}",
                qemu.path, qemu.release.text
            ),
            "Use a QEMU from 6.2 on, or a libvirt before 11.3",
        );
    }
    match (libvirt.is_at_least(9, 7, 0), libvirt.is_at_least(10, 0, 0)) {
        (_, Some(true)) => Finding::ok(
            NAME,
            format!("{text} finds the driver by itself (managed='yes')"),
        ),
        (Some(true), _) => Finding::note(
            NAME,
            format!("{text} takes no driver but vfio-pci with managed='yes'"),
        )
        .with_remedy(
            "Bind with 'nvlink2ctl bind' and use managed='no' ('nvlink2ctl libvirt-xml --managed no'), or libvirt 10.0 or later",
        ),
        (Some(false), _) => Finding::note(
            NAME,
            format!("{text} takes no driver but vfio-pci, whether managed or not"),
        )
        .with_remedy(
            "Use managed='yes' with the hook that the administrator's guide names, or libvirt 10.0 or later",
        ),
        (None, _) => Finding::note(
            NAME,
            format!("{text} does not tell how old it is; from 10.0 on it finds the driver by itself"),
        ),
    }
}

/// The capability to lock memory without limit (CAP_IPC_LOCK).
const IPC_LOCK: u32 = 14;

pub fn locked_memory(source: &Source) -> Finding {
    const NAME: &str = "locked memory";
    // The least that makes sense: 1 GiB, and one group, which 'qemu-args' puts on the default PCI host bridge.
    let smallest = Pseries {
        memory: Kib(1 << 20),
        max_memory: Kib(1 << 20),
        phbs: 1,
        mode: Mode::Nvlink2,
    };
    let Ok(need) = smallest.limit() else {
        return Finding::skipped(NAME, "the limit can't be computed");
    };
    let need = need.bytes;
    let status = source.text("/proc/self/status").unwrap_or_default();
    let capable = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .and_then(|mask| mask.checked_shr(IPC_LOCK))
        .is_some_and(|mask| mask & 1 == 1);
    if capable {
        return Finding::ok(NAME, "this user may lock any amount (CAP_IPC_LOCK)");
    }
    let limits = source.text("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| {
        line.strip_prefix("Max locked memory")?
            .split_whitespace()
            .next()
    });
    match soft {
        Some("unlimited") => Finding::ok(NAME, "this user may lock any amount"),
        Some(bytes) if bytes.parse().is_ok_and(|bytes: u64| bytes >= need) => {
            Finding::ok(NAME, format!("this user may lock {bytes} bytes"))
        }
        soft => Finding::failed(
            NAME,
            format!(
                "this user may lock {} bytes, the smallest guest needs {need}",
                soft.unwrap_or("no")
            ),
            "libvirt sets the limit by itself. For QEMU alone: a 'memlock' line in /etc/security/limits.conf, or LimitMEMLOCK= of its service; 'nvlink2ctl memlock' computes the amount",
        ),
    }
}

pub fn huge_pages(source: &Source) -> Finding {
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
        return Finding::note(
            NAME,
            "none are reserved; guests work without, but their memory on huge pages makes translation faster",
        );
    }
    Finding::ok(NAME, reserved.join(", "))
}
