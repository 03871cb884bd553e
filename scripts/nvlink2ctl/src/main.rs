// SPDX-License-Identifier: GPL-2.0

//! The program: see README.md and `nvlink2ctl help`.

use clap::Parser;
use nvlink2ctl::{cli, exit};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = cli::Options::parse();
    match cli::run(&options) {
        Ok(status) => status.into(),
        Err(error) => {
            let status = exit::status_of(&error);
            cli::complain(&options, &error, status);
            status.into()
        }
    }
}
