// SPDX-License-Identifier: GPL-2.0

//! Tries nvlink2-vfio-pci on a host with the hardware: see Documentation/trial.rst.

mod assumptions;
mod child;
mod cli;
mod guest;
mod kernel_log;
mod plan;
mod report;
mod session;
mod steps;

use clap::Parser;
use std::{
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let options = cli::Options::parse();
    match session::run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Where nobody listens, there is nobody to complain to.
            let _ = writeln!(io::stderr(), "nvlink2-trial: {error:#}");
            ExitCode::from(cli::ERROR)
        }
    }
}
