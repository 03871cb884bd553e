// SPDX-License-Identifier: GPL-2.0

//! `qemu-args` and `libvirt-xml`: what a guest's configuration needs.

use super::{
    Options, note, output,
    select::{self, Selection},
    source,
};
use crate::{
    bdf::Bdf,
    exit::{Status, Stop},
    groups,
    host::Host,
    software,
    source::Source,
};
use anyhow::{Context, Result, bail};
use quick_xml::Writer;

/// The largest index of a PCI host bridge in QEMU.
const LAST_PHB: u64 = 31;

/// What goes on QEMU's command line.
#[derive(Debug, clap::Args)]
pub struct QemuArgs {
    #[command(flatten)]
    selection: Selection,

    /// Index of the PCI host bridge for the first IOMMU group; 0 is the default one, which every guest has.
    /// Further groups get the indices that follow. Each PCI host bridge raises the limit of locked memory
    /// (see memlock). Put no other device of the host on a PCI host bridge that has a GPU
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=LAST_PHB))]
    first_index: u64,
}

/// What goes into a domain's XML.
#[derive(Debug, clap::Args)]
pub struct LibvirtXml {
    #[command(flatten)]
    selection: Selection,

    /// Whether libvirt shall bind the functions and give them back. From 10.0 on libvirt finds the driver by
    /// itself. 'no' is for functions that 'nvlink2ctl bind' has bound, and needs libvirt 9.7 or later. Releases
    /// before 9.7 need 'yes' and the hook of the administrator's guide
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = ["yes", "no"])]
    managed: String,
}

/// Prints -device options: a PCI host bridge per IOMMU group, as QEMU wants it for ATSD.
pub fn qemu_args(options: &Options, arguments: &QemuArgs) -> Result<Status> {
    let source = source(options)?;
    let host = Host::read(&source).with_nvlink2()?;
    let functions = for_guest(options, &arguments.selection, &host)?;
    name_emulator(options, &source, |path| format!("{path} knows NVLink2"));
    let mut devices = Vec::new();

    for (index, group) in (arguments.first_index..).zip(groups::of(&host, &functions)) {
        if index > LAST_PHB {
            bail!(
                "a pseries guest has no PCI host bridge {index}: use a smaller --first-index or fewer groups"
            );
        }
        if index != 0 {
            devices.push(format!("spapr-pci-host-bridge,index={index},id=phb{index}"));
        }
        let members = functions.iter().filter(|bdf| {
            host.functions
                .get(bdf)
                .is_some_and(|function| function.group == Some(group))
        });
        for (slot, bdf) in (1..).zip(members) {
            devices.push(match index {
                // QEMU finds slots between the guest's other devices.
                0 => format!("vfio-pci,host={bdf},bus=pci.0"),
                _ => format!("vfio-pci,host={bdf},bus=phb{index}.0,addr={slot:#x}"),
            });
        }
    }
    if options.json {
        let words: Vec<_> = devices
            .iter()
            .flat_map(|device| ["-device", device])
            .collect();
        output::json(&words)?;
    } else {
        let lines: Vec<_> = devices
            .iter()
            .map(|device| format!("-device {device}"))
            .collect();
        output::print(&lines.join("\n"))?;
    }
    Ok(Status::Done)
}

/// Names the QEMU to take, if it is installed.
fn name_emulator(options: &Options, source: &Source, how: impl Fn(&str) -> String) {
    if let Some(qemu) = software::packaged_qemu(source) {
        note(options, &how(&qemu.path));
    }
}

/// What is selected, if a guest can have it.
fn for_guest(options: &Options, selection: &Selection, host: &Host) -> Result<Vec<Bdf>> {
    let functions = selection.complete(host)?;
    let group = |bdf: Bdf| host.functions.get(&bdf)?.group;

    if let Some(bdf) = functions.iter().find(|bdf| group(**bdf).is_none()) {
        bail!(
            "{bdf} has no IOMMU group, so it can't be passed through: 'nvlink2ctl doctor' says why"
        );
    }
    for bridge in select::without_gpu(host, &functions) {
        let bdf = bridge.function.bdf;
        let gpu = bridge
            .gpu
            .map_or_else(|| "a GPU that is gone".to_owned(), |gpu| gpu.to_string());
        let beside = functions
            .iter()
            .filter_map(|bdf| host.gpu(*bdf))
            .find(|other| other.function.group == bridge.function.group);
        if let Some(other) = beside {
            return Err(Stop::new(
                Status::Refused,
                format!(
                    "{bdf} is a bridge of {gpu}, which is not passed with it: QEMU would end, as {} is on the same PCI host bridge. Pass {gpu}, too, or leave out its bridges",
                    other.function.bdf
                ),
            )
            .into());
        }
        note(
            options,
            &format!("{bdf} is a bridge of {gpu}: without it a guest has no use for the bridge"),
        );
    }
    Ok(functions)
}

/// Prints <hostdev> elements; libvirt gives each IOMMU group a PCI host bridge by itself.
pub fn libvirt_xml(options: &Options, arguments: &LibvirtXml) -> Result<Status> {
    let source = source(options)?;
    let host = Host::read(&source).with_nvlink2()?;
    let functions = for_guest(options, &arguments.selection, &host)?;
    name_emulator(options, &source, |path| {
        format!("<emulator>{path}</emulator> of the domain's <devices> knows NVLink2")
    });
    let elements: Vec<_> = functions
        .iter()
        .map(|bdf| hostdev(*bdf, &arguments.managed))
        .collect::<Result<_>>()?;

    if options.json {
        output::json(&elements)?;
    } else {
        output::print(&elements.join("\n"))?;
    }
    Ok(Status::Done)
}

fn hostdev(bdf: Bdf, managed: &str) -> Result<String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let address = [
        ("domain", format!("{:#06x}", bdf.domain)),
        ("bus", format!("{:#04x}", bdf.bus)),
        ("slot", format!("{:#04x}", bdf.slot)),
        ("function", format!("{:#x}", bdf.function)),
    ];
    writer
        .create_element("hostdev")
        .with_attributes([("mode", "subsystem"), ("type", "pci"), ("managed", managed)])
        .write_inner_content(|writer| {
            writer
                .create_element("driver")
                .with_attribute(("name", "vfio"))
                .write_empty()?;
            writer
                .create_element("source")
                .write_inner_content(|writer| {
                    writer
                        .create_element("address")
                        .with_attributes(
                            address.iter().map(|(name, value)| (*name, value.as_str())),
                        )
                        .write_empty()?;
                    Ok(())
                })?;
            Ok(())
        })?;
    String::from_utf8(writer.into_inner()).context("XML")
}
