// SPDX-License-Identifier: GPL-2.0

//! `record`.

use super::{Options, output, source};
use crate::{doctor, exit::Status, host::Host};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf};

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes a recording of everything that the other commands read of a host.
pub fn run(options: &Options, arguments: &Arguments) -> Result<Status> {
    let source = source(options)?.logged();
    doctor::examine(&source, &Host::read(&source));
    let text = source.into_log().text()?;

    match &arguments.output {
        Some(file) => fs::write(file, text).with_context(|| file.display().to_string())?,
        None => output::print(&text)?,
    }
    Ok(Status::Done)
}
