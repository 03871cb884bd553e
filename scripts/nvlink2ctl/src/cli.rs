// SPDX-License-Identifier: GPL-2.0

//! The command line.

mod bind;
mod check_domain;
mod doctor;
mod generate;
mod guest;
mod memlock;
mod record;
mod select;
mod show;
mod topology;

use crate::{bdf::Bdf, exit::Status, host::Host, output, source::Source};
use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use serde::Serialize;
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

const EXIT_STATUS: &str = "\
Exit status:
  0  done; the answer is yes; every check passed
  1  the answer is no; a check of doctor or check-domain failed
  2  wrong usage, unreadable input, any other error
  3  the host has no GPU with NVLink2
  4  refused, nothing was changed: a device is in use, RAM of a GPU is memory of the host, the IOMMU
     group would not be viable, a GPU lacks one of its bridges, or there is no such driver (load its
     module)
  5  a device could not be given to its driver; everything is as it was before
  6  as 5, but not everything could be put back";

const FINDINGS: &str = "\
Each line is a check: 'ok', 'FAILED' (with what to do about it), 'note' or 'skipped'.
With --json: an array of objects with 'check', 'verdict' (ok, failed, note, skipped), 'found'
and 'remedy' (or null).

Exit status:
  0  no check failed
  1  a check failed
  2  wrong usage, unreadable input, any other error";

/// Shows, checks and binds the NVLink2 GPUs of POWER9 hosts for passthrough with nvlink2-vfio-pci.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS, max_term_width = 100)]
pub struct Options {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,

    /// Look at a recording (see 'record'), or at another root folder, instead of this machine
    #[arg(long, global = true, value_name = "ROOT")]
    pub sysfs: Option<PathBuf>,

    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List GPUs and bridges
    List,
    /// Show all that is known about one GPU or bridge
    Show {
        /// PCI address, such as 0004:04:00.0
        bdf: Bdf,
    },
    /// Show how GPUs and processors are linked
    Topology(topology::Arguments),
    /// Tell whether a PCI function is an NVLink2 bridge by libvirt's rule: exit status 0 if it is, 1 if not
    IsBridge {
        /// PCI address, such as 0006:00:00.0
        bdf: Bdf,
    },
    /// Compute how much memory libvirt lets QEMU lock (RLIMIT_MEMLOCK)
    Memlock(memlock::Arguments),
    /// Check a domain before it is started, and say everything that is wrong with it
    #[command(after_help = FINDINGS)]
    CheckDomain(check_domain::Arguments),
    /// Give GPUs and their bridges to the driver; if one cannot be given, change nothing
    Bind(bind::Bind),
    /// Take GPUs and their bridges back; if one cannot be taken, change nothing
    Unbind(bind::Unbind),
    /// Print QEMU's options for GPUs and their bridges
    QemuArgs(guest::QemuArgs),
    /// Print the elements of a libvirt domain for GPUs and their bridges
    LibvirtXml(guest::LibvirtXml),
    /// Check step by step whether the host can pass its GPUs to guests, and say what to do
    #[command(after_help = FINDINGS)]
    Doctor,
    /// Record all that this program reads of a host, to look at it elsewhere with --sysfs
    Record(record::Arguments),
    /// Print a script that completes arguments in a shell
    Completions(generate::Completions),
    /// Print or write manual pages
    Man(generate::Man),
}

/// Reads the host that the options name.
fn host(options: &Options) -> Result<Host> {
    Ok(Host::read(&source(options)?))
}

fn source(options: &Options) -> Result<Source> {
    match &options.sysfs {
        Some(root) => Source::open(root),
        None => Ok(Source::machine()),
    }
}

/// Reads a text file, or standard input where the name is "-".
fn read(file: &Path) -> Result<String> {
    let name = || file.display().to_string();
    if file.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("standard input")?;
        return Ok(text);
    }
    let bytes = fs::read(file).with_context(name)?;
    String::from_utf8(bytes)
        .context("is not UTF-8")
        .with_context(name)
}

/// Does what the options say.
pub fn run(options: &Options) -> Result<Status> {
    match &options.command {
        Command::List => show::list(&host(options)?.with_nvlink2()?, options.json),
        Command::Show { bdf } => show::show(&host(options)?, *bdf, options.json),
        Command::IsBridge { bdf } => is_bridge(options, *bdf),
        Command::Memlock(arguments) => memlock::run(options, arguments),
        Command::CheckDomain(arguments) => check_domain::run(options, arguments),
        Command::Topology(arguments) => topology::run(options, arguments),
        Command::Bind(arguments) => bind::bind(options, arguments),
        Command::Unbind(arguments) => bind::unbind(options, arguments),
        Command::QemuArgs(arguments) => guest::qemu_args(options, arguments),
        Command::LibvirtXml(arguments) => guest::libvirt_xml(options, arguments),
        Command::Doctor => doctor::run(options),
        Command::Record(arguments) => record::run(options, arguments),
        Command::Completions(arguments) => generate::completions(arguments),
        Command::Man(arguments) => generate::man(arguments),
    }
}

/// Says what went wrong, on standard error.
pub fn complain(options: &Options, error: &anyhow::Error, status: Status) {
    #[derive(Serialize)]
    struct Complaint {
        error: String,
        status: u8,
    }
    let complaint = Complaint {
        error: format!("{error:#}"),
        status: status.number(),
    };
    let text = match serde_json::to_string_pretty(&complaint) {
        Ok(json) if options.json => json,
        _ => format!("nvlink2ctl: {}", complaint.error),
    };
    // Where nobody listens, there is nobody to complain to.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says on standard error what is no error, but good to know.
fn note(options: &Options, text: &str) {
    let text = if options.json {
        serde_json::json!({ "note": text }).to_string()
    } else {
        format!("nvlink2ctl: note: {text}")
    };
    // As above.
    let _ = writeln!(io::stderr(), "{text}");
}

fn is_bridge(options: &Options, bdf: Bdf) -> Result<Status> {
    let host = host(options)?;
    let function = host.functions.get(&bdf).ok_or_else(|| no_function(bdf))?;

    if options.json {
        output::json(&serde_json::json!({ "bdf": bdf, "bridge": function.libvirt_bridge }))?;
    }
    Ok(if function.libvirt_bridge {
        Status::Done
    } else {
        Status::No
    })
}

fn no_function(bdf: Bdf) -> anyhow::Error {
    anyhow!(
        "the host has no PCI function {bdf}; 'nvlink2ctl list' names GPUs and bridges, 'lspci -D' all functions"
    )
}
