// SPDX-License-Identifier: GPL-2.0

//! What a libvirt domain's XML says that decides how much memory QEMU may lock.
//!
//! Elements are read as libvirt 9.0 reads them, with what it adds by itself for a ppc64 guest: the
//! default PHB, a USB controller, a memory balloon, video for graphics, a controller for virtio
//! channels. What libvirt would refuse is an error here, too, which names the element and its line.

mod xml;

use crate::{
    bdf::Bdf,
    memlock::{self, Generic, Limit, Mode, Pseries},
    phb::{Buses, Device, Phb, Slot},
    units::Kib,
};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::collections::BTreeSet;
use xml::Element;

/// QEMU's granularity of memory on ppc64, which libvirt rounds up to when a guest starts.
const PPC64_BLOCK: u64 = 256 << 10;
const OTHER_BLOCK: u64 = 1 << 10;
const OTHER_DIMM: u64 = 2 << 10;

/// A PCI function of the host that the domain wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostFunction {
    /// Its address in the host.
    pub bdf: Bdf,
    /// Where it is in the XML.
    pub element: String,
}

/// A domain, as far as its memory limit depends on it.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Whether it is of type `kvm`.
    pub kvm: bool,
    /// Its architecture; ppc64 if the XML does not say.
    pub arch: String,
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
    /// What could not be followed and what it means.
    pub remarks: Vec<String>,
    other_vfio: u64,
    vdpa: u64,
    iommu: bool,
    controllers: Vec<(u8, bool)>,
    devices: Vec<GuestDevice>,
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

/// A limit and what it was computed from.
#[derive(Debug, Serialize)]
pub struct Assessment {
    /// The limit.
    pub limit: Limit,
    /// What was counted; `None` if a setting of the domain decided.
    pub inputs: Option<Inputs>,
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
        if let Some(bdf) = host {
            self.functions.push(HostFunction {
                bdf,
                element: device.path(),
            });
        }
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
            let known = host(function.bdf).ok_or_else(|| {
                anyhow!(
                    "{}: the host has no PCI function {}. Correct the address, or point --sysfs to a recording of the host that the domain is for",
                    function.element,
                    function.bdf
                )
            })?;
            groups.push((function.bdf, known.group));
            if known.bridge {
                bridges.push(function.bdf);
            }
        }
        let phbs = if self.pseries {
            self.phbs(&groups)?
        } else {
            Vec::new()
        };
        let (limit, inputs) = self.sum(u64::try_from(phbs.len())?, &bridges)?;

        Ok(Assessment {
            limit,
            inputs,
            host_bridges: phbs,
            functions: self.functions.clone(),
            bridges,
            remarks: self.remarks.clone(),
        })
    }

    fn sum(&self, phbs: u64, bridges: &[Bdf]) -> Result<(Limit, Option<Inputs>)> {
        if let Some(limit) = memlock::configured(self.hard_limit, self.locked) {
            return Ok((limit, None));
        }
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
            return Ok((guest.limit()?, Some(Inputs::Generic(guest))));
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
        Ok((guest.limit()?, Some(Inputs::Pseries(guest))))
    }

    /// The guest's PHBs, given the IOMMU groups of host functions.
    fn phbs(&self, groups: &[(Bdf, Option<u32>)]) -> Result<Vec<Phb>> {
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
        buses.place(&devices)?;
        Ok(buses.phbs()?)
    }
}

/// The memory of a guest.
struct Memory {
    total: Kib,
    max: Option<Kib>,
}

impl Memory {
    fn read(domain: &Element, devices: &[Element], ppc64: bool) -> Result<Self> {
        let (block, dimm_block) = if ppc64 {
            (PPC64_BLOCK, PPC64_BLOCK)
        } else {
            (OTHER_BLOCK, OTHER_DIMM)
        };
        let round = |element: &Element, Kib(size): Kib, block| {
            size.checked_next_multiple_of(block)
                .ok_or_else(|| element.fault("is too large to be rounded up"))
        };
        let add = |element: &Element, sum: u64, more| {
            sum.checked_add(more)
                .ok_or_else(|| element.fault("makes the memory too large"))
        };

        let (mut hotplug, mut aligned_hotplug) = (0, 0);
        for dimm in devices.iter().filter(|device| device.name() == "memory") {
            let target = dimm.required("target")?;
            let size = target.required("size")?.required_size(Kib::of_memory)?;
            let aligned = if ppc64 && dimm.attribute("model") == Some("nvdimm") {
                nvdimm(&target, size)?
            } else {
                round(dimm, size, dimm_block)?
            };
            hotplug = add(dimm, hotplug, size.0)?;
            aligned_hotplug = add(dimm, aligned_hotplug, aligned)?;
        }

        let cells: Vec<Element> = domain
            .child("cpu")
            .and_then(|cpu| cpu.child("numa"))
            .map(|numa| {
                numa.children()
                    .filter(|cell| cell.name() == "cell")
                    .collect()
            })
            .unwrap_or_default();
        let (mut numa, mut aligned_numa) = (0, 0);
        for cell in &cells {
            let size = cell.size_attribute("memory")?;
            numa = add(cell, numa, size.0)?;
            aligned_numa = add(cell, aligned_numa, round(cell, size, block)?)?;
        }

        let element = domain.child("memory");
        let stated = element
            .as_ref()
            .map(|memory| memory.size(Kib::of_memory))
            .transpose()?
            .flatten()
            .unwrap_or_default();
        // The cells of NUMA nodes overrule <memory> when a domain is defined.
        let (total, initial) = if numa != 0 {
            (add(domain, numa, hotplug)?, aligned_numa)
        } else {
            let blame = element.as_ref().unwrap_or(domain);
            let initial = stated.0.checked_sub(hotplug).ok_or_else(|| {
                blame.fault("is less than the sum of the memory devices, which it includes")
            })?;
            if initial == 0 {
                return Err(blame
                    .fault(
                        "leaves no memory at start: give it, or <cell> elements of <numa>, a size",
                    )
                    .into());
            }
            (stated.0, round(blame, Kib(initial), block)?)
        };

        let max = domain.child("maxMemory");
        let max_size = max
            .as_ref()
            .map(|max| max.size(Kib::of_memory))
            .transpose()?
            .flatten();
        if let (Some(max), Some(size)) = (&max, max_size) {
            if max.number::<u32>("slots", 10)?.unwrap_or_default() == 0 {
                return Err(max.fault("needs an attribute 'slots' of at least 1").into());
            }
            if size.0 < total {
                return Err(max.fault("is less than the memory of the guest").into());
            }
        }
        let aligned_max = match (&max, max_size) {
            (Some(max), Some(size)) => Some(Kib(round(max, size, block)?)),
            _ => None,
        };
        Ok(Self {
            total: Kib(add(domain, initial, aligned_hotplug)?),
            max: aligned_max,
        })
    }
}

/// The size that an NVDIMM has on ppc64: its content rounded down, and its label.
fn nvdimm(target: &Element, Kib(size): Kib) -> Result<u64> {
    let label = target
        .child("label")
        .and_then(|label| label.child("size"))
        .map(|size| size.required_size(Kib::of_memory))
        .transpose()?
        .unwrap_or_default();
    let blocks = size
        .checked_sub(label.0)
        .and_then(|content| content.checked_div(PPC64_BLOCK))
        .filter(|blocks| *blocks != 0)
        .ok_or_else(|| target.fault("needs a size of at least 256 MiB plus the label's"))?;

    Ok(blocks
        .checked_mul(PPC64_BLOCK)
        .and_then(|content| content.checked_add(label.0))
        .ok_or_else(|| target.fault("is too large"))?)
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

/// The host's PCI function that a device is, if it is one.
fn host_function(device: &Element) -> Result<Option<Bdf>> {
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
        .map(Some)
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
