// SPDX-License-Identifier: GPL-2.0

//! `completions` and `man`, from the definition of the command line.

use super::{Options, output};
use crate::exit::Status;
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::{fs, path::PathBuf};

/// For which shell.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// Which pages.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Write a page for the program and for each command into this folder, instead of the program's to
    /// standard output
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints a script that completes arguments.
pub fn completions(arguments: &Completions) -> Result<Status> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Options::command(),
        "nvlink2ctl",
        &mut script,
    );
    output::print(&String::from_utf8(script)?)?;
    Ok(Status::Done)
}

/// Prints or writes manual pages.
pub fn man(arguments: &Man) -> Result<Status> {
    let command = Options::command();
    if let Some(folder) = &arguments.out {
        let name = || folder.display().to_string();
        fs::create_dir_all(folder).with_context(name)?;
        clap_mangen::generate_to(command, folder).with_context(name)?;
        return Ok(Status::Done);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    output::print(&String::from_utf8(page)?)?;
    Ok(Status::Done)
}
