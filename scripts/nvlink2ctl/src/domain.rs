// SPDX-License-Identifier: GPL-2.0

//! What a libvirt domain's XML says that decides how much memory QEMU may lock, and about GPUs.
//!
//! Elements are read as libvirt reads them when a domain is defined, with what it adds by itself for a
//! ppc64 guest: the default PHB, a USB controller, a memory balloon, video for graphics, a controller for
//! virtio channels. What libvirt would refuse is an error here, too, which names the element and its line.

mod memory;
mod xml;

use crate::{
    bdf::Bdf,
    memlock::{self, Generic, Limit, Mode, Pseries},
    phb::{Buses, Device, Impossible, Phb, Slot},
    units::Kib,
};
use anyhow::{Context, Result};
use memory::Memory;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use xml::Element;
pub use xml::Fault;

/// A PCI function of the host that the domain wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostFunction {
    /// Its address in the host.
    pub bdf: Bdf,
    /// Where it is in the XML.
    pub element: String,
    /// Whether libvirt binds it to a driver.
    pub managed: bool,
    /// The guest's bus that it gets, in an assessment of a pseries guest.
    pub bus: Option<usize>,
    /// Whether the XML leaves out the PCI domain, which makes it 0.
    #[serde(skip)]
    pub no_domain: bool,
}

/// A domain, as far as its memory limit depends on it.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Whether it is of type `kvm`.
    pub kvm: bool,
    /// Its architecture; ppc64 if the XML does not say.
    pub arch: String,
    /// Its machine.
    pub machine: Option<String>,
    /// Its QEMU.
    pub emulator: Option<String>,
    /// Whether its machine is pseries, which is what a ppc64 guest is if the XML does not say.
    pub pseries: bool,
    /// Memory at start, DIMMs included, as QEMU gets it.
    pub memory: Kib,
    /// `<maxMemory>`.
    pub max_memory: Option<Kib>,
    /// `<hard_limit>`.
    pub hard_limit: Option<Kib>,
    /// `<locked/>`.
    pub locked: bool,
    /// PCI functions of the host.
    pub functions: Vec<HostFunction>,
    /// Arguments for QEMU that pass functions of the host by libvirt.
    pub behind_libvirt: Vec<String>,
    /// What could not be followed and what it means.
    pub remarks: Vec<String>,
    other_vfio: u64,
    vdpa: u64,
    iommu: bool,
    controllers: Vec<(u8, bool)>,
    devices: Vec<GuestDevice>,
}

/// Whether an argument for QEMU passes a function of the host, and does not merely set a property of such devices.
fn passes_a_function(argument: &str) -> bool {
    argument.contains("vfio-pci")
        && ["host", "sysfsdev"].iter().any(|name| {
            [format!("{name}="), format!("\"{name}\"")]
                .iter()
                .any(|text| argument.contains(text))
        })
}

/// A device of the guest on PCI; host functions get their isolation group later.
#[derive(Clone, Debug)]
struct GuestDevice {
    name: String,
    slot: Option<Slot>,
    host: Option<Bdf>,
}

/// What the host knows about a function of its own.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Number of its IOMMU group, if it has one.
    pub group: Option<u32>,
    /// Whether it is an NVLink2 bridge by libvirt's rule.
    pub bridge: bool,
}

/// The domain wants a function that the host does not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the host has no PCI function {}{}. Correct the address, or point --sysfs to a recording of the host that the domain is for",
    .0.element,
    .0.bdf,
    if .0.no_domain { " (without the attribute 'domain' it is in PCI domain 0000)" } else { "" }
)]
pub struct NoFunction(HostFunction);

/// A limit and what it was computed from.
#[derive(Debug, Serialize)]
pub struct Assessment {
    /// The limit.
    pub limit: Limit,
    /// What was counted; `None` if a setting of the domain decided.
    pub inputs: Option<Inputs>,
    /// What the formula says in bytes, also where a setting of the domain decided.
    pub formula: u64,
    /// The guest's PHBs, and why each is there. None for guests that are not pseries.
    pub host_bridges: Vec<Phb>,
    /// PCI functions of the host that are passed through.
    pub functions: Vec<HostFunction>,
    /// Those of them that are NVLink2 bridges.
    pub bridges: Vec<Bdf>,
    /// What could not be followed and what it means.
    pub remarks: Vec<String>,
}

/// What the formula was given.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Inputs {
    /// A KVM guest on ppc64.
    Pseries(Pseries),
    /// Any other.
    Generic(Generic),
}

impl Domain {
    /// Reads the XML of a domain.
    pub fn parse(text: &str) -> Result<Self> {
        let document = xml::parse(text)?;
        let domain = Element::root(&document, "domain")?;
        let devices: Vec<Element> = domain
            .child("devices")
            .map(|devices| devices.children().collect())
            .unwrap_or_default();
        let os = domain.child("os").and_then(|os| os.child("type"));
        let arch = os
            .as_ref()
            .and_then(|os| os.attribute("arch"))
            .unwrap_or("ppc64");
        let ppc64 = matches!(arch, "ppc64" | "ppc64le");
        let machine = os.as_ref().and_then(|os| os.attribute("machine"));
        let memory = Memory::read(&domain, &devices, ppc64)?;
        let memtune = domain.child("memtune");

        let mut result = Self {
            kvm: domain.attribute("type") == Some("kvm"),
            arch: arch.to_owned(),
            machine: machine.map(str::to_owned),
            emulator: domain
                .child("devices")
                .and_then(|devices| devices.child("emulator"))
                .map(|emulator| emulator.text()),
            pseries: ppc64
                && machine.is_none_or(|name| name == "pseries" || name.starts_with("pseries-")),
            memory: memory.total,
            max_memory: memory.max,
            hard_limit: memtune
                .and_then(|memtune| memtune.child("hard_limit"))
                .map(|limit| limit.size(Kib::of_limit))
                .transpose()?
                .flatten(),
            locked: domain
                .child("memoryBacking")
                .is_some_and(|backing| backing.child("locked").is_some()),
            functions: Vec::new(),
            behind_libvirt: domain.qemu_arguments(passes_a_function),
            remarks: Vec::new(),
            other_vfio: 0,
            vdpa: 0,
            iommu: devices.iter().any(|device| device.name() == "iommu"),
            controllers: controllers(&devices)?,
            devices: Vec::new(),
        };

        for device in &devices {
            result.add(device)?;
        }
        result.add_implied(&devices);
        Ok(result)
    }

    /// Counts a device of the XML.
    fn add(&mut self, device: &Element) -> Result<()> {
        let host = host_function(device)?;
        if let Some((bdf, no_domain)) = host {
            if let Some(first) = self.functions.iter().find(|other| other.bdf == bdf) {
                return Err(device
                    .fault(&format!(
                        "has the host's PCI function {bdf}, as {} has already; libvirt refuses to define that: remove one of them",
                        first.element
                    ))
                    .into());
            }
            self.functions.push(HostFunction {
                bdf,
                element: device.path(),
                managed: device.attribute("managed") == Some("yes"),
                bus: None,
                no_domain,
            });
        }
        let host = host.map(|(bdf, _)| bdf);
        match device.name() {
            "hostdev" if device.attribute("type") == Some("mdev") => {
                self.other_vfio = self.other_vfio.saturating_add(1);
            }
            "disk" if device.attribute("type") == Some("nvme") => {
                self.other_vfio = self.other_vfio.saturating_add(1);
            }
            "interface" if device.attribute("type") == Some("vdpa") => {
                self.vdpa = self.vdpa.saturating_add(1);
            }
            "interface" if device.attribute("type") == Some("network") => self.remarks.push(format!(
                "{}: whether its network is of host devices is not known here; if so, libvirt adds a PCI host bridge and counts a VFIO device",
                device.path()
            )),
            _ => {}
        }

        let slot = match device.guest_address()? {
            xml::GuestAddress::Elsewhere => return Ok(()),
            xml::GuestAddress::At(slot) => Some(slot),
            xml::GuestAddress::Open if host.is_some() || wants_slot(device) => None,
            xml::GuestAddress::Open => return Ok(()),
        };
        self.devices.push(GuestDevice {
            name: device.path(),
            slot,
            host,
        });
        Ok(())
    }

    /// Adds the devices that the XML leaves out and libvirt adds.
    fn add_implied(&mut self, devices: &[Element]) {
        let has = |name| devices.iter().any(|device| device.name() == name);
        let controllers = |kind: &'static str| {
            devices.iter().filter(move |device| {
                device.name() == "controller" && device.attribute("type") == Some(kind)
            })
        };
        let mut implied = Vec::new();

        if !controllers("usb").any(|usb| matches!(usb.attribute("index"), None | Some("0"))) {
            implied.push("the USB controller that libvirt adds".to_owned());
        }
        if !has("memballoon") {
            implied.push("the memory balloon that libvirt adds".to_owned());
        }
        if has("graphics") && !has("video") {
            implied.push("the video device that libvirt adds".to_owned());
        }
        let present: BTreeSet<_> = controllers("virtio-serial")
            .map(|controller| controller.attribute("index").unwrap_or("0"))
            .collect();
        let wanted: BTreeSet<_> = devices
            .iter()
            .filter(|device| matches!(device.name(), "channel" | "console"))
            .filter(|device| {
                device
                    .child("target")
                    .is_some_and(|target| target.attribute("type") == Some("virtio"))
            })
            .map(|device| {
                device
                    .child("address")
                    .and_then(|address| address.attribute("controller"))
                    .unwrap_or("0")
            })
            .collect();
        for index in wanted.difference(&present) {
            implied.push(format!(
                "the virtio-serial controller {index} that libvirt adds"
            ));
        }
        self.devices
            .extend(implied.into_iter().map(|name| GuestDevice {
                name,
                slot: None,
                host: None,
            }));
    }

    /// Computes the limit on a host about whose functions `host` knows; `None`: it has no such function.
    pub fn limit(&self, host: impl Fn(Bdf) -> Option<Known>) -> Result<Assessment> {
        let mut bridges = Vec::new();
        let mut groups = Vec::new();
        for function in &self.functions {
            let known = host(function.bdf).ok_or_else(|| NoFunction(function.clone()))?;
            groups.push((function.bdf, known.group));
            if known.bridge {
                bridges.push(function.bdf);
            }
        }
        let (phbs, buses) = if self.pseries {
            self.phbs(&groups)?
        } else {
            (Vec::new(), BTreeMap::new())
        };
        let (formula, inputs) = self.formula(u64::try_from(phbs.len())?, &bridges)?;
        let functions = self.functions.iter().map(|function| HostFunction {
            bus: buses.get(&function.bdf).copied(),
            ..function.clone()
        });
        let needed = formula.bytes;
        let (limit, inputs) = match memlock::configured(self.hard_limit, self.locked) {
            Some(limit) => (limit, None),
            None => (formula, Some(inputs)),
        };

        Ok(Assessment {
            limit,
            inputs,
            formula: needed,
            host_bridges: phbs,
            functions: functions.collect(),
            bridges,
            remarks: self.remarks.clone(),
        })
    }

    fn formula(&self, phbs: u64, bridges: &[Bdf]) -> Result<(Limit, Inputs)> {
        let vfio = u64::try_from(self.functions.len())?
            .checked_add(self.other_vfio)
            .context("too many devices")?;
        if !self.kvm || !matches!(self.arch.as_str(), "ppc64" | "ppc64le") {
            let guest = Generic {
                memory: self.memory,
                vfio,
                vdpa: self.vdpa,
                iommu: self.iommu,
            };
            return Ok((guest.limit()?, Inputs::Generic(guest)));
        }
        let guest = Pseries {
            memory: self.memory,
            max_memory: self.max_memory.unwrap_or(self.memory),
            phbs,
            mode: match (bridges, vfio, self.vdpa) {
                ([_, ..], _, _) => Mode::Nvlink2,
                ([], 0, 0) => Mode::None,
                ([], _, _) => Mode::Vfio,
            },
        };
        Ok((guest.limit()?, Inputs::Pseries(guest)))
    }

    /// The guest's PHBs, and the buses of host functions, given the IOMMU groups of these.
    fn phbs(
        &self,
        groups: &[(Bdf, Option<u32>)],
    ) -> Result<(Vec<Phb>, BTreeMap<Bdf, usize>), Impossible> {
        let group_of = |bdf| {
            let group = groups.iter().find(|(other, _)| *other == bdf)?.1?;
            // 0 is for emulated devices.
            u64::from(group).checked_add(1)
        };
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|device| Device {
                name: device.name.clone(),
                slot: device.slot,
                group: device.host.and_then(group_of).unwrap_or_default(),
            })
            .collect();
        let mut buses = Buses::new(&self.controllers);
        let places = buses.place(&devices)?;
        let functions = self
            .devices
            .iter()
            .zip(places)
            .filter_map(|(device, bus)| Some((device.host?, bus)))
            .collect();
        Ok((buses.phbs()?, functions))
    }
}

/// Indices of the PCI controllers, and whether each is a PHB.
fn controllers(devices: &[Element]) -> Result<Vec<(u8, bool)>> {
    let mut found: Vec<(u8, bool)> = Vec::new();
    let pci = |device: &&Element| {
        device.name() == "controller" && device.attribute("type") == Some("pci")
    };
    let (numbered, others): (Vec<&Element>, Vec<&Element>) = devices
        .iter()
        .filter(pci)
        .partition(|controller| controller.attribute("index").is_some());

    for controller in numbered.into_iter().chain(others) {
        let phb = match controller.attribute("model") {
            None | Some("pci-root") => true,
            Some("pci-bridge") => false,
            Some(model) => {
                return Err(controller
                    .fault(&format!(
                        "has model '{model}': want pci-root or pci-bridge in a pseries guest"
                    ))
                    .into());
            }
        };
        let index = match controller.number::<u8>("index", 10)? {
            Some(index) => index,
            None => (0..=u8::MAX)
                .find(|index| !found.iter().any(|(other, _)| other == index))
                .ok_or_else(|| controller.fault("is one PCI controller too many"))?,
        };
        if found.iter().any(|(other, _)| *other == index) {
            return Err(controller
                .fault(&format!("has the index {index} of another PCI controller"))
                .into());
        }
        if index == 0 && !phb {
            return Err(controller
                .fault("has index 0, so its model must be pci-root")
                .into());
        }
        found.push((index, phb));
    }
    Ok(found)
}

/// The host's PCI function that a device is, if it is one, and whether its address leaves out the domain.
fn host_function(device: &Element) -> Result<Option<(Bdf, bool)>> {
    let pci = match device.name() {
        "hostdev" => {
            device.attribute("type") == Some("pci")
                && matches!(device.attribute("mode"), None | Some("subsystem"))
        }
        "interface" => device.attribute("type") == Some("hostdev"),
        _ => false,
    };
    if !pci {
        return Ok(None);
    }
    if let Some(driver) = device.child("driver") {
        if let Some(name) = driver.attribute("name").filter(|name| *name != "vfio") {
            return Err(driver
                .fault(&format!(
                    "has name='{name}': want 'vfio', the only backend that QEMU has"
                ))
                .into());
        }
    }
    let address = device.required("source")?.required("address")?;
    if device.name() == "interface" && address.attribute("type") == Some("usb") {
        return Ok(None);
    }
    let part = |name| -> Result<u32> { Ok(address.number(name, 0)?.unwrap_or_default()) };
    let (domain, bus, slot, function) = (
        part("domain")?,
        part("bus")?,
        part("slot")?,
        part("function")?,
    );

    Bdf::new(domain, bus, slot, function)
        .filter(|bdf| (bdf.domain, bdf.bus, bdf.slot) != (0, 0, 0))
        .map(|bdf| Some((bdf, address.attribute("domain").is_none())))
        .ok_or_else(|| {
            address
                .fault("is no PCI address: want bus up to 0xff, slot up to 0x1f, function up to 7, and not all of them 0")
                .into()
        })
}

/// Whether an emulated device of a pseries guest that has no address gets a slot on PCI.
fn wants_slot(device: &Element) -> bool {
    let model = device.attribute("model");
    let inner = |name: &str, attribute: &str| {
        device
            .child(name)
            .and_then(|child| child.attribute(attribute))
            .map(str::to_owned)
    };

    match device.name() {
        "controller" => match (device.attribute("type"), model) {
            (Some("pci"), model) => model == Some("pci-bridge"),
            (Some("usb"), Some("none")) => false,
            // The companions of an EHCI controller share its slot.
            (Some("usb"), Some(model)) => !model.starts_with("ich9-uhci"),
            (Some("scsi"), None | Some("auto" | "ibmvscsi" | "ncr53c90")) => false,
            (Some("ide"), _) => !matches!(device.attribute("index"), None | Some("0")),
            (Some("usb" | "scsi" | "sata" | "virtio-serial"), _) => true,
            _ => false,
        },
        "disk" => match inner("target", "bus") {
            Some(bus) => bus == "virtio",
            None => inner("target", "dev").is_some_and(|dev| dev.starts_with("vd")),
        },
        "interface" => !matches!(
            inner("model", "type").as_deref(),
            Some("spapr-vlan" | "usb-net")
        ),
        "hostdev" => {
            matches!(device.attribute("type"), Some("scsi_host"))
                || (device.attribute("type") == Some("mdev") && model == Some("vfio-pci"))
        }
        "sound" => !matches!(model, Some("sb16" | "pcspk" | "usb" | "ich7")),
        "memballoon" => model != Some("none"),
        "watchdog" => model == Some("i6300esb"),
        "video" => !matches!(inner("model", "type").as_deref(), Some("none" | "ramfb")),
        "input" => device.attribute("bus") == Some("virtio"),
        "serial" => inner("target", "type").as_deref() == Some("pci-serial"),
        "iommu" => model == Some("virtio"),
        "memory" => matches!(model, Some("virtio-pmem" | "virtio-mem")),
        "filesystem" | "rng" | "shmem" | "vsock" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
