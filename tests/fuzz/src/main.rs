// SPDX-License-Identifier: GPL-2.0

//! Structured fuzzer of all that user space can reach of nvlink2-vfio-pci, to be run as root in the
//! emulated host.
//!
//! A run consists of rounds. In each, some processes share the groups and containers of the machine
//! and do random operations ([`op`]) on them and on devices, each by its own seed. When they are done
//! nothing may be left, and the next round begins. The exit status is 0 only if the kernel log has no
//! splat, nothing hung, leaked or was reached that must not be, no access of a GPU's RAM was lost, and
//! every entry point ([`points`]) was reached.
//!
//! What is left out, since it would hurt the machine or hide what the driver does:
//! - accesses of GPU RAM while the links are not trained or beyond the RAM's end ([`shared`]), by a
//!   processor or by the DMA of a GPU to which a TCE leads there;
//! - the register of the model that trains links (BAR0 0xf00010), but for its proper use: accesses are
//!   lost while they are not trained;
//! - VFIO_EEH_PE_INJECT_ERR, and madvise() with MADV_HWPOISON: they break hardware and memory of the
//!   host by design;
//! - VFIO_EEH_PE_RESET_HOT and _FUNDAMENTAL (the end of a reset, _DEACTIVATE, is not): all wait for each
//!   of them for several seconds; the selftest `eeh` does them.
//!
//! GPUs copy ([`op::Op::Engine`]) from and to any address: the IOMMU and the NPU have to confine them.

mod kernel;
mod machine;
mod op;
mod points;
mod run;
mod shared;
mod sys;
mod world;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

/// Does to nvlink2-vfio-pci what a hostile user could, in any order.
#[derive(Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run random operations.
    Run {
        #[command(flatten)]
        shape: Shape,
        /// Operations in all, of all processes; rounds are never cut.
        #[arg(long, default_value_t = 20_000)]
        ops: u64,
        /// End after so many seconds, whatever --ops says.
        #[arg(long)]
        seconds: Option<u64>,
        /// The first round; the others before are left out.
        #[arg(long, default_value_t = 0)]
        first_round: u64,
        /// Don't fail for an entry point that was not reached.
        #[arg(long)]
        partial: bool,
    },
    /// Write the operations of a round as lines of JSON.
    Generate {
        #[command(flatten)]
        shape: Shape,
        /// Of the run with this seed.
        #[arg(long, default_value_t = 0)]
        round: u64,
        /// Where to.
        #[arg(long, default_value = "/dev/stdout")]
        output: PathBuf,
    },
    /// Run the operations of a file as `generate` writes it.
    Replay {
        /// The files.
        #[arg(required = true)]
        file: Vec<PathBuf>,
        /// So many times: what depends on timing may not show at once.
        #[arg(long, default_value_t = 3)]
        repeat: u64,
    },
}

/// What, with the number of a round, says which operations it has.
#[derive(Args, Clone)]
pub struct Shape {
    /// Seed of the operations (0: by the clock).
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Processes side by side.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=shared::PROCESSES as u64))]
    processes: u64,
    /// Operations of each process in a round.
    #[arg(long, default_value_t = 1000)]
    round_ops: u64,
}

impl Shape {
    fn round(&self, round: u64) -> run::Sequences {
        (0..self.processes)
            .map(|process| {
                // As a monitor of virtual machines begins: the rest would seldom get there.
                let first = op::Op::SetUp {
                    group: process as u8,
                    kvm: !(self.seed ^ round).is_multiple_of(4),
                };
                let rest = op::Generator::new(self.seed, round, process);
                [first]
                    .into_iter()
                    .chain(rest)
                    .take(self.round_ops as usize)
                    .collect()
            })
            .collect()
    }
}

fn main() -> ExitCode {
    match dispatch(Options::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<bool> {
    match verb {
        Verb::Run {
            mut shape,
            ops,
            seconds,
            first_round,
            partial,
        } => {
            if shape.seed == 0 {
                let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
                shape.seed = clock.as_nanos() as u64 & 0xffff_ffff;
            }
            println!(
                "seed {}, {} processes, {} operations each in a round",
                shape.seed, shape.processes, shape.round_ops
            );
            let rounds = ops.div_ceil((shape.processes * shape.round_ops).max(1));
            let limits = run::Limits {
                first_round,
                rounds,
                seconds,
                partial,
            };
            run::run(&limits, |round| shape.round(round))
        }
        Verb::Generate {
            shape,
            round,
            output,
        } => {
            let file = File::create(&output).with_context(|| output.display().to_string())?;
            let mut file = BufWriter::new(file);
            for (process, sequence) in shape.round(round).iter().enumerate() {
                for op in sequence {
                    serde_json::to_writer(&mut file, &(process, op))?;
                    writeln!(file)?;
                }
            }
            file.flush()?;
            Ok(true)
        }
        Verb::Replay { file, repeat } => {
            for path in file {
                println!("replaying {}", path.display());
                let sequences = run::read(&path).with_context(|| path.display().to_string())?;
                let limits = run::Limits {
                    first_round: 0,
                    rounds: repeat,
                    seconds: None,
                    partial: true,
                };
                if !run::run(&limits, |_| sequences.clone())? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}
