// SPDX-License-Identifier: GPL-2.0

//! `memlock`.

use super::{Options, host, read};
use crate::{
    check,
    domain::{Assessment, Domain, Inputs},
    exit::Status,
    finding::Finding,
    memlock::{Mode, Pseries},
    output,
    units::{Kib, UNLIMITED},
};
use anyhow::{Context, Result, bail};
use quick_xml::{
    Writer,
    events::{BytesText, Event},
};
use serde::Serialize;
use std::path::PathBuf;

/// From a domain's XML, or from numbers.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// XML of a libvirt domain ('virsh dumpxml --inactive'); '-' is standard input. Its host devices are
    /// looked up in sysfs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["memory", "max_memory", "phbs", "mode"])]
    domain: Option<PathBuf>,

    /// Memory of the guest, DIMMs included: a number and one of libvirt's units (KiB if there is none). It is
    /// rounded up to 256 MiB, as libvirt does for a pseries guest
    #[arg(long, value_name = "SIZE", required_unless_present = "domain")]
    memory: Option<Kib>,

    /// Largest size that the memory can grow to (<maxMemory>), rounded up as well [default: the memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Kib>,

    /// Number of the guest's PCI host bridges, including the default one
    #[arg(long, value_name = "N", default_value_t = 1)]
    phbs: u64,

    /// The devices that are passed through
    #[arg(long, value_enum, default_value_t = Mode::Nvlink2)]
    mode: Mode,

    /// Show each term of the sum, and the devices and bridges that were counted
    #[arg(long)]
    explain: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    bytes: u64,
    /// `None`: not a whole number of KiB, or no limit at all.
    kib: Option<u64>,
    memtune: Option<&'a str>,
    #[serde(flatten)]
    assessment: &'a Assessment,
}

/// Computes and prints the limit.
pub fn run(options: &Options, arguments: &Arguments) -> Result<Status> {
    let assessment = match (&arguments.domain, arguments.memory) {
        (Some(file), _) => {
            let name = file.display().to_string();
            let domain = Domain::parse(&read(file)?).with_context(|| name.clone())?;
            // Most domains have no host device, and then the host does not matter.
            let host = if domain.functions.is_empty() {
                None
            } else {
                Some(host(options)?)
            };
            let mut assessment = domain
                .limit(|bdf| host.as_ref()?.known(bdf))
                .context(name)?;
            let host = host.unwrap_or_default();
            let findings = check::composition(&domain, &assessment, &host);
            assessment.remarks.extend(findings.iter().map(remark));
            assessment
        }
        (None, memory) => of_numbers(arguments, memory.context("--memory is missing")?)?,
    };
    let limit = &assessment.limit;
    let kib = (limit.bytes % 1024 == 0).then_some(limit.bytes / 1024);
    let memtune = kib
        .filter(|kib| *kib != 0 && *kib < UNLIMITED)
        .map(memtune)
        .transpose()?;

    if options.json {
        output::json(&Report {
            bytes: limit.bytes,
            kib,
            memtune: memtune.as_deref(),
            assessment: &assessment,
        })?;
        return Ok(Status::Done);
    }
    let mut text = match (limit.unlimited, kib) {
        (true, _) => format!("{} bytes (libvirt's number for no limit)\n", limit.bytes),
        (_, Some(0)) => "0 bytes (libvirt leaves the limit alone)\n".to_owned(),
        (_, Some(kib)) => format!("{} bytes\n{kib} KiB\n", limit.bytes),
        (_, None) => format!("{} bytes\n", limit.bytes),
    };
    if let Some(memtune) = memtune {
        text += &memtune;
        text.push('\n');
    }
    if arguments.explain {
        text += &explanation(&assessment);
    }
    for remark in &assessment.remarks {
        text += &format!("note: {remark}\n");
    }
    output::print(&text)?;
    Ok(Status::Done)
}

/// What QEMU makes of the domain is no concern of the limit, but good to know.
fn remark(finding: &Finding) -> String {
    match &finding.remedy {
        Some(remedy) => format!("{}. {remedy}", finding.found),
        None => finding.found.clone(),
    }
}

fn of_numbers(arguments: &Arguments, memory: Kib) -> Result<Assessment> {
    if arguments.max_memory.is_some_and(|max| max < memory) {
        bail!(
            "--max-memory is less than --memory: give what the guest can grow to, or leave it out"
        );
    }
    if arguments.phbs == 0 {
        bail!("--phbs 0: every pseries guest has at least the default PCI host bridge");
    }
    let round = |size: Kib| {
        size.rounded_up()
            .with_context(|| format!("{size} is too large to be rounded up"))
    };
    let guest = Pseries {
        memory: round(memory)?,
        max_memory: round(arguments.max_memory.unwrap_or(memory))?,
        phbs: arguments.phbs,
        mode: arguments.mode,
    };
    let limit = guest.limit()?;
    Ok(Assessment {
        formula: limit.bytes,
        limit,
        inputs: Some(Inputs::Pseries(guest)),
        host_bridges: Vec::new(),
        functions: Vec::new(),
        bridges: Vec::new(),
        remarks: Vec::new(),
    })
}

/// The element that sets the same limit in a domain.
fn memtune(kib: u64) -> Result<String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer
        .create_element("memtune")
        .write_inner_content(|writer| {
            writer
                .create_element("hard_limit")
                .with_attribute(("unit", "KiB"))
                .write_text_content(BytesText::new(&kib.to_string()))?;
            Ok(())
        })?;
    writer.write_event(Event::Eof)?;
    Ok(String::from_utf8(writer.into_inner())?)
}

fn explanation(assessment: &Assessment) -> String {
    let mut text = format!("rule: {}\n", assessment.limit.rule);
    if !assessment.limit.terms.is_empty() {
        let mut table = output::table(&["TERM", "KIB", "COMPUTED", "FOR"]);
        for term in &assessment.limit.terms {
            table.add_row([
                term.name,
                &term.kib.0.to_string(),
                &term.formula,
                term.purpose,
            ]);
        }
        text += &format!("{table}\n");
    }
    for phb in &assessment.host_bridges {
        text += &format!("PCI host bridge {}: {}\n", phb.index, phb.reason);
    }
    for function in &assessment.functions {
        let role = if assessment.bridges.contains(&function.bdf) {
            "an NVLink2 bridge"
        } else {
            "no NVLink2 bridge"
        };
        text += &format!("{} ({}): {role}\n", function.bdf, function.element);
    }
    text
}
