// SPDX-License-Identifier: GPL-2.0

//! What is wrong with a domain, before it is started.
//!
//! A failure is what libvirt or QEMU refuse, or what leaves the guest without the NVLink2 that its bridges
//! are for. What merely is no use of NVLink2 is a note.

use crate::{
    bdf::Bdf,
    bind::DRIVER,
    domain::{Assessment, Domain, HostFunction},
    finding::Finding,
    groups,
    host::{Gpu, Host},
    software::{self, PACKAGED, Release},
    source::Source,
    users,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A domain on a host.
struct Case<'a> {
    domain: &'a Domain,
    assessment: &'a Assessment,
    host: &'a Host,
}

/// What the domain alone, and its devices, tell: what QEMU makes of them. Only what is not as it should be.
pub fn composition(domain: &Domain, assessment: &Assessment, host: &Host) -> Vec<Finding> {
    let case = Case {
        domain,
        assessment,
        host,
    };
    [
        case.gpus(),
        case.bridges(),
        case.other_functions(),
        case.host_bridges(),
        case.machine(),
        case.locked_memory(),
        case.behind_libvirt(),
    ]
    .concat()
}

/// All that can be told of a domain on a host.
pub fn examine(
    domain: &Domain,
    assessment: &Assessment,
    host: &Host,
    source: &Source,
) -> Vec<Finding> {
    let case = Case {
        domain,
        assessment,
        host,
    };
    let mut findings = vec![case.summary()];
    findings.extend(composition(domain, assessment, host));
    findings.extend(
        [
            case.drivers(source),
            case.viability(source),
            case.users(source),
            case.emulator(source),
        ]
        .concat(),
    );
    findings
}

impl Case<'_> {
    fn functions(&self) -> &[HostFunction] {
        &self.assessment.functions
    }

    fn find(&self, bdf: Bdf) -> Option<&HostFunction> {
        self.functions().iter().find(|other| other.bdf == bdf)
    }

    /// The domain's GPUs on NVLink2.
    fn own_gpus(&self) -> impl Iterator<Item = (&HostFunction, &Gpu)> {
        self.functions()
            .iter()
            .filter_map(|function| Some((function, self.host.gpu(function.bdf)?)))
    }

    fn has_bridges(&self) -> bool {
        !self.assessment.bridges.is_empty()
    }

    fn summary(&self) -> Finding {
        const NAME: &str = "devices";
        let gpus = self.own_gpus().count();
        let bridges = self.assessment.bridges.len();
        let text = format!(
            "{} of the host, among them {gpus} GPUs on NVLink2 and {bridges} NVLink2 bridges; {} PCI host bridges; {} bytes of locked memory",
            self.functions().len(),
            self.assessment.host_bridges.len(),
            self.assessment.limit.bytes
        );
        if gpus == 0 && bridges == 0 {
            Finding::note(NAME, text)
        } else {
            Finding::ok(NAME, text)
        }
    }

    /// GPUs without all of their bridges.
    fn gpus(&self) -> Vec<Finding> {
        const NAME: &str = "GPUs";
        let check = |(function, gpu): (&HostFunction, &Gpu)| {
            if let Some(incomplete) = self.host.incomplete(gpu) {
                return Some(Finding::failed(NAME, incomplete.found, incomplete.remedy));
            }
            let left_out: Vec<_> = gpu
                .bridges
                .iter()
                .filter(|bridge| self.find(**bridge).is_none())
                .map(ToString::to_string)
                .collect();
            (!left_out.is_empty()).then(|| {
                Finding::note(
                    NAME,
                    format!(
                        "{} ({}) comes without its {} {}: the guest cannot use these links",
                        function.bdf,
                        function.element,
                        if left_out.len() == 1 {
                            "bridge"
                        } else {
                            "bridges"
                        },
                        left_out.join(", ")
                    ),
                )
                .with_remedy(format!(
                    "'nvlink2ctl libvirt-xml {}' prints the GPU with its bridges",
                    function.bdf
                ))
            })
        };
        self.own_gpus().filter_map(check).collect()
    }

    /// Bridges that are not beside their GPU.
    fn bridges(&self) -> Vec<Finding> {
        const NAME: &str = "bridges";
        let beside = |function: &HostFunction| {
            self.own_gpus()
                .map(|(gpu, _)| gpu)
                .find(|gpu| gpu.bus == function.bus)
        };
        let check = |function: &HostFunction| {
            let bridge = self.host.bridge(function.bdf)?;
            let (bdf, element) = (function.bdf, &function.element);
            let gpu = bridge
                .gpu
                .map_or_else(|| "a GPU that is gone".to_owned(), |gpu| gpu.to_string());
            let own = bridge.gpu.and_then(|gpu| self.find(gpu));

            match (own, beside(function)) {
                (Some(own), _) if own.bus == function.bus => None,
                (None, None) => Some(
                    Finding::note(
                        NAME,
                        format!(
                            "{bdf} ({element}) comes without its GPU {gpu}: the guest has no use for it"
                        ),
                    )
                    .with_remedy(format!("Pass {gpu}, too, or leave out its bridges")),
                ),
                (None, Some(other)) => Some(Finding::failed(
                    NAME,
                    format!(
                        "{bdf} ({element}) is a bridge of {gpu}, which the domain does not have: QEMU ends, as {} is on the same PCI host bridge",
                        other.bdf
                    ),
                    format!("Pass {gpu}, too, or leave out its bridges"),
                )),
                (Some(own), _) => Some(Finding::failed(
                    NAME,
                    format!(
                        "{bdf} ({element}) is on another PCI host bridge of the guest than its GPU {gpu} ({}): QEMU ends, or the guest does not see the link",
                        own.element
                    ),
                    "Give them addresses on one bus, or none: libvirt puts an IOMMU group on a PCI host bridge of its own",
                )),
            }
        };
        self.functions().iter().filter_map(check).collect()
    }

    /// Functions that firmware describes wrongly, and bridges that lead nowhere.
    fn other_functions(&self) -> Vec<Finding> {
        let check = |function: &HostFunction| {
            let (bdf, element) = (function.bdf, &function.element);
            if let Some(faulty) = self.host.faulty(bdf) {
                return Some(Finding::failed(
                    "firmware",
                    format!(
                        "{bdf} ({element}) is an ordinary device without NVLink2: {}",
                        faulty.fault
                    ),
                    "Update or repair the firmware (OPAL makes the device tree)",
                ));
            }
            self.host.unconnected(bdf).map(|_| {
                Finding::note(
                    "bridges",
                    format!(
                        "{bdf} ({element}) is not connected, as its socket is empty: the guest has no use for it"
                    ),
                )
                .with_remedy("Leave it out")
            })
        };
        self.functions().iter().filter_map(check).collect()
    }

    /// A PCI host bridge with a GPU must not have devices of another IOMMU group.
    fn host_bridges(&self) -> Vec<Finding> {
        let group = |bdf: Bdf| self.host.functions.get(&bdf)?.group;
        let buses: BTreeSet<_> = self
            .own_gpus()
            .filter(|(_, gpu)| {
                gpu.bridges
                    .iter()
                    .any(|bridge| self.find(*bridge).is_some())
            })
            .filter_map(|(function, _)| function.bus)
            .collect();
        let check = |bus: usize| {
            let members = self
                .functions()
                .iter()
                .filter(|function| function.bus == Some(bus));
            let mut by_group: BTreeMap<_, Vec<String>> = BTreeMap::new();
            for function in members {
                if let Some(group) = group(function.bdf) {
                    let names = by_group.entry(group).or_default();
                    names.push(function.bdf.to_string());
                }
            }
            let groups: Vec<_> = by_group
                .iter()
                .map(|(group, members)| format!("group {group}: {}", members.join(", ")))
                .collect();
            (groups.len() > 1).then(|| {
                Finding::failed(
                    "PCI host bridges",
                    format!(
                        "PCI host bridge {bus} of the guest has devices of {} IOMMU groups ({}): QEMU says 'ATSD requires separate vPHB per GPU IOMMU group' and gives the guest no ATSD",
                        groups.len(),
                        groups.join("; ")
                    ),
                    "Put each group on a PCI host bridge of its own: libvirt does if the devices have no addresses",
                )
            })
        };
        buses.into_iter().filter_map(check).collect()
    }

    /// A machine that cannot have NVLink2.
    fn machine(&self) -> Vec<Finding> {
        const NAME: &str = "machine";
        const REMEDY: &str = "Make it a KVM guest with a machine from pseries-4.1 on";
        let domain = self.domain;
        if !self.has_bridges() {
            return Vec::new();
        }
        if !domain.kvm || !domain.pseries {
            let found = "NVLink2 is for KVM guests of the machine pseries, which this is not";
            return vec![Finding::failed(NAME, found, REMEDY)];
        }
        let version = domain
            .machine
            .as_deref()
            .and_then(|machine| machine.strip_prefix("pseries-"))
            .map(Release::new);
        let at_least = |major, minor| version.as_ref()?.is_at_least(major, minor, 0);
        let name = domain.machine.as_deref().unwrap_or_default();
        match (at_least(4, 1), at_least(8, 2)) {
            (Some(false), _) => vec![Finding::failed(
                NAME,
                format!("{name} is older than NVLink2 in QEMU: the guest sees no links"),
                REMEDY,
            )],
            (_, Some(true)) if domain.emulator.as_deref() != Some(PACKAGED) => vec![
                Finding::note(
                    NAME,
                    format!(
                        "{name} needs a QEMU later than 8.1, the last release with the NVLink2 client"
                    ),
                )
                .with_remedy(format!(
                    "Name a later QEMU that was patched in <emulator> (the package qemu-system-ppc-nvlink2 has {}), or use a machine up to pseries-8.1",
                    PACKAGED
                )),
            ],
            _ => Vec::new(),
        }
    }

    /// A limit below what the formula says.
    fn locked_memory(&self) -> Vec<Finding> {
        let Assessment { limit, formula, .. } = self.assessment;
        // 0 leaves the limit alone, which is libvirt's business.
        if self.functions().is_empty() || limit.bytes == 0 || limit.bytes >= *formula {
            return Vec::new();
        }
        vec![Finding::failed(
            "locked memory",
            format!(
                "<hard_limit> is {} bytes, less than the {formula} that libvirt's formula says: QEMU ends with 'VFIO_MAP_DMA failed' or 'RAM memory listener initialization failed'",
                limit.bytes
            ),
            format!(
                "Leave out <hard_limit>, or set it to {} KiB; 'nvlink2ctl memlock --explain' says what for",
                formula.div_ceil(1024)
            ),
        )]
    }

    /// Devices that QEMU gets and libvirt does not know of.
    fn behind_libvirt(&self) -> Vec<Finding> {
        const REMEDY: &str =
            "Use <hostdev> ('nvlink2ctl libvirt-xml'), or set <hard_limit> by hand";
        let check = |argument: &String| {
            let found = format!(
                "{argument}: libvirt does not count this device for the limit of locked memory, nor binds it or lets QEMU open it"
            );
            // Who sets a limit knows what is passed.
            if self.assessment.inputs.is_none() {
                Finding::note("QEMU's arguments", found)
            } else {
                Finding::failed("QEMU's arguments", found, REMEDY)
            }
        };
        self.domain.behind_libvirt.iter().map(check).collect()
    }

    /// Functions that libvirt does not bind, and that QEMU could not use as they are; and what libvirt
    /// makes of the driver.
    fn drivers(&self, source: &Source) -> Vec<Finding> {
        const NAME: &str = "drivers";
        let libvirt = software::libvirt(source);
        let is_at_least = |major, minor| libvirt.as_ref()?.is_at_least(major, minor, 0);
        let version = libvirt.as_ref().map_or("", |release| release.text.as_str());
        let on_nvlink2 = |bdf| self.host.gpu(bdf).is_some() || self.host.bridge(bdf).is_some();

        let mut findings = Vec::new();
        for function in self.functions().iter().filter(|function| !function.managed) {
            let (bdf, element) = (function.bdf, &function.element);
            let driver = self
                .host
                .functions
                .get(&bdf)
                .and_then(|function| function.driver.as_deref());
            let has = driver.map_or_else(
                || "no driver".to_owned(),
                |name| format!("the driver {name}"),
            );
            let remedy = if on_nvlink2(bdf) {
                format!("'nvlink2ctl bind {bdf}', or managed='yes'")
            } else {
                "Bind it to vfio-pci, or use managed='yes'".to_owned()
            };
            if !driver.is_some_and(|driver| groups::is_for_vfio(source, driver)) {
                findings.push(Finding::failed(
                    NAME,
                    format!("{bdf} ({element}) has {has} and managed='no': libvirt refuses it"),
                    remedy,
                ));
            } else if on_nvlink2(bdf) && driver != Some(DRIVER) {
                findings.push(Finding::failed(
                    NAME,
                    format!("{bdf} ({element}) has {has}, which knows no NVLink2"),
                    remedy,
                ));
            } else if driver == Some(DRIVER) && is_at_least(9, 7) == Some(false) {
                findings.push(Finding::failed(
                    NAME,
                    format!(
                        "{bdf} ({element}) has managed='no': libvirt {version} refuses drivers other than vfio-pci"
                    ),
                    "Use managed='yes' and the hook that the administrator's guide names, or libvirt 9.7 or later",
                ));
            }
        }
        let managed: Vec<_> = self
            .functions()
            .iter()
            .filter(|function| function.managed && on_nvlink2(function.bdf))
            .map(|function| function.bdf.to_string())
            .collect();
        if !managed.is_empty() && is_at_least(10, 0) == Some(false) {
            let remedy = if is_at_least(9, 7) == Some(true) {
                "Bind with 'nvlink2ctl bind' and use managed='no', or libvirt 10.0 or later"
            } else {
                "Install the hook that the administrator's guide names, or libvirt 10.0 or later"
            };
            findings.push(
                Finding::note(
                    NAME,
                    format!(
                        "libvirt {version} gives {} with managed='yes' to vfio-pci, which knows no NVLink2",
                        managed.join(", ")
                    ),
                )
                .with_remedy(remedy),
            );
        }
        findings
    }

    /// Functions of the same IOMMU groups that a driver of the host keeps.
    fn viability(&self, source: &Source) -> Vec<Finding> {
        let functions: Vec<_> = self
            .functions()
            .iter()
            .map(|function| function.bdf)
            .collect();
        let bound: BTreeMap<_, _> = self
            .functions()
            .iter()
            .filter(|function| function.managed)
            .map(|function| (function.bdf, DRIVER))
            .collect();
        groups::of(self.host, &functions)
            .into_iter()
            .flat_map(|group| groups::obstacles(source, self.host, group, &bound))
            .filter(|obstacle| !functions.contains(&obstacle.bdf))
            .map(|obstacle| {
                let gpus = &self.host.gpus;
                let remedy = match gpus
                    .iter()
                    .any(|gpu| gpu.function.group == Some(obstacle.group))
                {
                    true => format!(
                        "'nvlink2ctl bind --group {}' takes the GPUs and bridges of the group",
                        obstacle.group
                    ),
                    false => "Pass it, too, or take it from its driver".to_owned(),
                };
                Finding::failed(
                    "viability",
                    format!("{obstacle}, a driver of the host: QEMU cannot open the group"),
                    remedy,
                )
            })
            .collect()
    }

    /// Processes that have what the domain wants.
    fn users(&self, source: &Source) -> Vec<Finding> {
        if !source.is_machine() {
            return Vec::new();
        }
        let functions: Vec<_> = self
            .functions()
            .iter()
            .map(|function| function.bdf)
            .collect();
        users::find(Path::new("/proc"), self.host, &functions)
            .iter()
            .map(|user| {
                Finding::failed(
                    "use",
                    user.to_string(),
                    "Shut down that guest or end the process: one process can have an IOMMU group, and all GPUs of an NPU are in one",
                )
            })
            .collect()
    }

    /// Whether the domain's QEMU has the NVLink2 client, if it is one that packages install.
    fn emulator(&self, source: &Source) -> Vec<Finding> {
        let qemus = software::qemus(source);
        let wanted = |path: &str| {
            self.domain
                .emulator
                .as_deref()
                .is_none_or(|name| name == path)
        };
        let found = qemus.iter().find(|qemu| wanted(&qemu.path));
        match found.filter(|qemu| self.has_bridges() && !qemu.client) {
            Some(qemu) => vec![Finding::failed(
                "QEMU",
                format!(
                    "{} is {}, which has no NVLink2 client: the guest sees no links",
                    qemu.path, qemu.release.text
                ),
                "Name a QEMU with the client in <emulator>: that of the package qemu-system-ppc-nvlink2, releases 4.1 to 8.1, or a later one if it was patched",
            )],
            None => Vec::new(),
        }
    }
}
