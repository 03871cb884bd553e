// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// All steps are done, and none failed.
pub const DONE: u8 = 0;
/// A step failed.
pub const FAILED: u8 = 1;
/// Wrong usage, or anything else that kept the program from its work.
pub const ERROR: u8 = 2;
/// Stopped before the last step: the same command goes on.
pub const STOPPED: u8 = 3;

const EXIT_STATUS: &str = "\
Steps go from harmless to less so. Those of risk 'reads' only read files, and are done each time; each other is
asked for. What was done stays done: after an interruption, or a restart of the host, the same command goes on
where it was. A step that was interrupted may have ended the host: it is not done again without --again.

Exit status:
  0  all steps are done (or were declined), and none failed
  1  a step failed; the report begins with what is wrong
  2  wrong usage, or any other error
  3  stopped before the last step: the same command goes on";

/// Tries nvlink2-vfio-pci on this host, step by step, and writes a report.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS, max_term_width = 100)]
pub struct Options {
    /// Where the report goes: NAME.json, which goes on when the program does, and NAME.txt, made of it
    #[arg(
        long,
        short,
        value_name = "NAME",
        default_value = "nvlink2-trial-report"
    )]
    pub output: PathBuf,

    /// Ask nothing: do all steps but those that need a person, and those that may end the host and are not named
    #[arg(long)]
    pub yes: bool,

    /// Do a step that may end the host (see --list); may be repeated. Nothing else does it, and once it was
    /// begun it takes --again, too
    #[arg(long, value_name = "STEP")]
    pub dangerous: Vec<String>,

    /// Do only this step; may be repeated
    #[arg(long, value_name = "STEP", conflicts_with = "skip")]
    pub only: Vec<String>,

    /// Leave this step out; may be repeated
    #[arg(long, value_name = "STEP")]
    pub skip: Vec<String>,

    /// Do this step again if it passed, or was interrupted; may be repeated
    #[arg(long, value_name = "STEP")]
    pub again: Vec<String>,

    /// Begin a new report where there is one already
    #[arg(long)]
    pub fresh: bool,

    /// List the steps, and do nothing
    #[arg(long)]
    pub list: bool,

    /// Print a report that somebody sent (a file NAME.json) as text, and do nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "fresh", "yes"])]
    pub show: Option<PathBuf>,

    /// Print the report as JSON at the end, instead of as text
    #[arg(long)]
    pub json: bool,

    /// Leave logs, and what programs printed, out of what is printed at the end
    #[arg(long)]
    pub brief: bool,

    /// The kernel for the guests of ours [default: this host's own, /boot/vmlinux-RELEASE or vmlinuz-RELEASE]
    #[arg(long, value_name = "FILE")]
    pub guest_kernel: Option<PathBuf>,

    /// QEMU's machine for the guests of ours, with its properties
    #[arg(long, value_name = "MACHINE", default_value = "pseries")]
    pub guest_machine: String,

    /// Look at a recording of 'nvlink2ctl record' instead of this machine: steps that only read
    #[arg(long, value_name = "FILE")]
    pub sysfs: Option<PathBuf>,
}
