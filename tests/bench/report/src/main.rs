// SPDX-License-Identifier: GPL-2.0

//! Tables and plots of what `tests/bench/measure.c` prints, and whether it is as it has to be.

mod criteria;
mod measurement;
mod plot;
mod report;

use anyhow::{Context, Result};
use clap::Parser;
use measurement::Measurements;
use std::{fs, path::PathBuf, process::ExitCode};

/// Writes `bench.md`, `bench.json` and `populate.svg`. Status 1: something is not as it has to be.
#[derive(Parser)]
struct Options {
    /// What the program printed on this driver.
    #[arg(long, value_name = "FILE")]
    ours: PathBuf,
    /// What it printed on the original driver.
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
    /// Size of the module's code in bytes.
    #[arg(long, value_name = "BYTES")]
    text: u64,
    /// The folder to write to.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

fn read(path: &PathBuf) -> Result<Measurements> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;

    Measurements::parse(&text).with_context(|| path.display().to_string())
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let ours = read(&options.ours)?;
    let peer = options.peer.as_ref().map(read).transpose()?;
    let report = report::Report::new(&ours, peer.as_ref(), options.text);
    let markdown = report.markdown();

    fs::create_dir_all(&options.out)?;
    fs::write(options.out.join("bench.md"), &markdown)?;
    fs::write(
        options.out.join("bench.json"),
        serde_json::to_string_pretty(&report)?,
    )?;
    plot::populate(&options.out.join("populate.svg"), &ours, peer.as_ref())?;
    print!("{markdown}");
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
