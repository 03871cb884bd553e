// SPDX-License-Identifier: GPL-2.0

//! `completions` and `man`, from the definition of the command line.

use super::{Options, output};
use crate::exit::Status;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::roff::{Roff, bold, roman};
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
    let mut command = Options::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &arguments.out else {
        output::print(&page(&command)?)?;
        return Ok(Status::Done);
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        let file = folder.join(clap_mangen::Man::new(command.clone()).get_filename());
        fs::write(&file, page(command)?).with_context(|| file.display().to_string())?;
    }
    Ok(Status::Done)
}

/// The manual page of the program or of one of its commands, with the sections that such pages have.
fn page(command: &Command) -> Result<String> {
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.as_deref().unwrap_or(super::EXIT_STATUS);
    let (before, status) = help
        .split_once("Exit status:\n")
        .context("a help text does not end with the exit status")?;
    let mut own = Roff::new();
    if !before.is_empty() {
        own.control("SH", ["OUTPUT"])
            .text([roman(before.trim_end())]);
    }
    own.control("SH", ["EXIT STATUS"]);
    verbatim(&mut own, status);
    own.control("SH", ["EXAMPLES"]);
    for (of, example, about) in EXAMPLES {
        if of == command.get_name() {
            own.control("PP", []).text([roman(about)]);
            own.control("RS", ["4"]);
            verbatim(&mut own, example);
            own.control("RE", []);
        }
    }
    own.control("SH", ["SEE ALSO"]);
    let mut other = Vec::new();
    for (name, section) in SEE_ALSO {
        if command.get_display_name().unwrap_or("nvlink2ctl") != name {
            other.extend([bold(name), roman(format!("({section}), "))]);
        }
    }
    other.extend([roman("and the administrator's guide of nvlink2-vfio")]);
    own.text(other);
    own.to_writer(&mut page)?;
    Ok(String::from_utf8(page)?)
}

/// Lines as they are.
fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

/// What else a reader may look for.
const SEE_ALSO: [(&str, u8); 5] = [
    ("nvlink2ctl", 1),
    ("nvlink2-vfio-pci", 4),
    ("virsh", 1),
    ("driverctl", 8),
    ("lspci", 8),
];

/// Examples: the command's name, what to type, and what that does.
const EXAMPLES: [(&str, &str, &str); 22] = [
    (
        "nvlink2ctl",
        "nvlink2ctl doctor",
        "Look for what keeps this host from passing its GPUs to guests, the first thing to repair first:",
    ),
    (
        "nvlink2ctl",
        "nvlink2ctl bind 0004:04:00.0",
        "Give a GPU and its bridges to the driver:",
    ),
    (
        "nvlink2ctl",
        "nvlink2ctl --sysfs host.json list",
        "Look at another host, which 'nvlink2ctl record' has recorded there:",
    ),
    (
        "list",
        "nvlink2ctl list",
        "List GPUs, each followed by its bridges:",
    ),
    ("list", "nvlink2ctl --json list", "The same for a program:"),
    (
        "show",
        "nvlink2ctl show 0004:04:00.0",
        "Show which bridges a GPU has, where its RAM is, and which guest has it:",
    ),
    (
        "topology",
        "nvlink2ctl topology --dot | dot -Tsvg >host.svg",
        "Draw the host's links:",
    ),
    (
        "is-bridge",
        "nvlink2ctl is-bridge 0006:00:00.0",
        "Succeed if libvirt takes the function for an NVLink2 bridge:",
    ),
    (
        "memlock",
        "nvlink2ctl memlock --domain guest.xml --explain",
        "Show the limit that libvirt sets for a domain, and its terms:",
    ),
    (
        "memlock",
        "nvlink2ctl memlock --memory 64GiB --phbs 2",
        "Compute the limit for a guest that is not started by libvirt:",
    ),
    (
        "check-domain",
        "virsh dumpxml --inactive guest | nvlink2ctl check-domain -",
        "Check a domain that libvirt knows:",
    ),
    (
        "bind",
        "nvlink2ctl bind 0004:04:00.0",
        "Give a GPU and its bridges to the driver:",
    ),
    (
        "bind",
        "nvlink2ctl bind --all --dry-run",
        "Say what would become of all GPUs and bridges:",
    ),
    (
        "unbind",
        "nvlink2ctl unbind 0004:04:00.0",
        "Give a GPU and its bridges back to the host's drivers:",
    ),
    (
        "qemu-args",
        "nvlink2ctl qemu-args 0004:04:00.0",
        "Print the options for a GPU and its bridges:",
    ),
    (
        "qemu-args",
        "nvlink2ctl qemu-args --all --first-index 1",
        "Print those for all GPUs, and leave the default PCI host bridge to other devices:",
    ),
    (
        "libvirt-xml",
        "nvlink2ctl libvirt-xml 0004:04:00.0",
        "Print the elements for a GPU and its bridges:",
    ),
    (
        "doctor",
        "nvlink2ctl doctor",
        "Look for what keeps this host from passing its GPUs to guests:",
    ),
    (
        "record",
        "nvlink2ctl record --output host.json",
        "Record this host for somebody who shall look at it elsewhere:",
    ),
    (
        "record",
        "nvlink2ctl --sysfs host.json doctor",
        "Look at such a recording:",
    ),
    (
        "completions",
        "nvlink2ctl completions bash >/etc/bash_completion.d/nvlink2ctl",
        "Have bash complete arguments:",
    ),
    (
        "man",
        "nvlink2ctl man --out /usr/local/share/man/man1",
        "Write all pages where man(1) finds them:",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn examples_are_of_commands_and_can_be_typed() {
        let mut command = Options::command();
        command.build();
        for (of, example, _) in EXAMPLES {
            assert!(of == "nvlink2ctl" || command.find_subcommand(of).is_some());
            let words: Vec<_> = example
                .split(['|', '>'])
                .find(|part| part.trim_start().starts_with("nvlink2ctl"))
                .unwrap()
                .split_whitespace()
                .collect();
            Options::try_parse_from(words).unwrap();
        }
    }

    #[test]
    fn every_page_has_the_usual_sections() {
        let mut command = Options::command().disable_help_subcommand(true);
        command.build();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            let page = page(command).unwrap();
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "\"EXIT STATUS\"",
                "EXAMPLES",
                "\"SEE ALSO\"",
            ] {
                let (_, behind) = page
                    .split_once(&format!(".SH {section}\n"))
                    .unwrap_or_else(|| panic!("{} has no {section}", command.get_name()));
                assert!(!behind.starts_with(".SH"), "{section}");
            }
        }
    }
}
