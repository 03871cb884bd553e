// SPDX-License-Identifier: GPL-2.0

//! Runs QEMU and libvirt as users of nvlink2-vfio-pci in an emulated Witherspoon.
//!
//! Prints TAP lines and ends with "N passed, N failed, N skipped".

mod agent;
mod faults;
mod guests;
mod host;
mod libvirt;
mod lines;
mod npu;
mod qmp;
mod tally;
mod trees;
mod vm;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use guests::Bench;
use std::process::ExitCode;
use tally::Tally;
use vm::{Client, Guest};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// One GPU and its bridges in a guest.
    One,
    /// QEMU is killed.
    Killed,
    /// What a second guest reads of the first one's GPU RAM.
    Leftovers,
    /// All GPUs and the six bridges of a chip in a guest.
    Chip,
    /// Two guests on two chips (emu run --chips 2).
    Two,
    /// The device trees that all clients make of one GPU are compared.
    Trees,
    /// libvirt's limits of locked memory, and a guest it starts.
    Libvirt,
}

/// Runs QEMU and libvirt as users of nvlink2-vfio-pci.
#[derive(Parser)]
struct Arguments {
    /// What to try, one after the other.
    #[arg(required_unless_present = "command")]
    scenario: Vec<Scenario>,
    /// The QEMU that guests run in, and with it the libvirt that the disk image has to have.
    #[arg(long, default_value = "series")]
    client: Client,
    /// The kernel of guests (libvirt's have 6.1).
    #[arg(long, default_value = "6.1")]
    guest: Guest,
    /// Instead: boot a guest with one GPU, run this in it and show what it prints. May be repeated.
    #[arg(long, value_name = "COMMAND", conflicts_with = "scenario")]
    command: Vec<String>,
}

fn run(
    client: Client,
    guest: Guest,
    scenarios: &[Scenario],
    commands: &[String],
    tally: &mut Tally,
) -> Result<()> {
    let mut bench = Bench::new(client, guest, host::gpus()?)?;
    if !commands.is_empty() {
        guests::show(&bench, commands)?;
    }
    for scenario in scenarios {
        let outcome = match scenario {
            Scenario::One => guests::one(&mut bench, tally),
            Scenario::Killed => guests::killed(&mut bench, tally),
            Scenario::Leftovers => guests::leftovers(&mut bench, tally),
            Scenario::Chip => guests::chip(&mut bench, tally),
            Scenario::Two => guests::two(&mut bench, tally),
            Scenario::Trees => trees::trees(&mut bench, tally),
            Scenario::Libvirt => libvirt::libvirt(&mut bench, tally),
        };
        if let Err(error) = outcome {
            tally.add(&format!("{scenario:?} reached its end"), Err(error));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut tally = Tally::default();
    if let Err(error) = run(
        arguments.client,
        arguments.guest,
        &arguments.scenario,
        &arguments.command,
        &mut tally,
    ) {
        tally.add("the emulated host is fit for these tests", Err(error));
    }
    println!("{}", tally.summary());
    if tally.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
