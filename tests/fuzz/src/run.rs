// SPDX-License-Identifier: GPL-2.0

//! Rounds: their processes, and what is looked at when they are done.

use crate::{
    kernel::{self, Log, Monitor, Usage},
    machine::{self, Machine},
    op::Op,
    points::Point,
    shared::{Shared, PROCESSES},
    sys,
    world::{Done, Inherited, World},
};
use anyhow::{bail, Context, Result};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::Duration,
};
use strum::IntoEnumIterator;

/// The operations of each process.
pub type Sequences = Vec<Vec<Op>>;

/// How much to do.
pub struct Limits {
    /// Number of the first round.
    pub first_round: u64,
    /// Rounds.
    pub rounds: u64,
    /// Time after which no round is begun.
    pub seconds: Option<u64>,
    /// Not all entry points have to be reached.
    pub partial: bool,
}

/// An operation that takes longer hangs. Under emulation a reset of all bridges takes seconds.
const OPERATION_SECONDS: u64 = 240;
/// An operation that takes longer is named.
const SLOW_SECONDS: u64 = 20;
/// An administrator that takes longer to get what all have let go hangs.
const ADMIN_SECONDS: u64 = 120;
/// How often the same operations are done again in the end, and how many of each process, to see what
/// the module loses by them. What grows each time is lost: one object each time is enough.
const REPEATS: usize = 5;
const REPEATED_OPS: usize = 60;
/// Rounds after which the kernel's memory is looked at first: caches have filled by then.
const WARM_UP: u64 = 3;
/// Tenths of a second until the driver has noticed for certain that the last TCE is gone.
const RETAINED: u32 = 20;
/// Every so many rounds the module is unloaded in between.
const UNLOAD: u64 = 4;

/// Reads what `generate` writes.
pub fn read(path: &Path) -> Result<Sequences> {
    let mut sequences = Sequences::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        if line.starts_with("//") || line.is_empty() {
            continue;
        }
        let (process, op): (usize, Op) = serde_json::from_str(&line)?;
        if process >= PROCESSES {
            bail!("process {process} of {PROCESSES}");
        }
        sequences.resize(sequences.len().max(process + 1), Vec::new());
        sequences[process].push(op);
    }
    Ok(sequences)
}

/// What is wrong, and in which round that was found.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, round: u64, what: impl IntoIterator<Item = String>) {
        for what in what {
            println!("round {round}: {what}");
            self.0.push(what);
        }
    }
}

/// Runs rounds; whether all was well.
pub fn run(limits: &Limits, sequences: impl Fn(u64) -> Sequences) -> Result<bool> {
    let machine = Machine::read()?;
    let shared: &Shared = sys::shared().map_err(std::io::Error::from_raw_os_error)?;
    let mut log = Log::open()?;
    let mut monitor = Monitor::open()?;
    let _ = sys::adopt_orphans();
    kernel::quiet_console();
    machine.bind_all()?;

    let begin = sys::milliseconds();
    let taint = kernel::taint();
    let mut lost = monitor.untrained_accesses(&machine)?;
    let lost_before = lost;
    let mut baseline = None;
    let counted = kernel::own_objects().is_some();
    if !counted && !kernel::has_kmemleak() {
        bail!("nothing would tell of lost memory: have slab_debug=U on the kernel's command line");
    }
    let mut findings = Findings::default();
    let mut splats = 0;
    let mut round = limits.first_round;
    let end = limits.first_round + limits.rounds;

    while round < end && findings.0.is_empty() {
        if limits
            .seconds
            .is_some_and(|seconds| sys::milliseconds() - begin > seconds * 1000)
        {
            break;
        }
        if round - limits.first_round == WARM_UP {
            baseline = Some((Usage::read()?, round));
        }
        if round % UNLOAD == UNLOAD - 1 {
            let mut result = machine::unload();
            // For registrations of a GPU that is not bound, which nothing shows, it stays a while.
            for _ in 0..RETAINED {
                if result.is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
                result = machine::unload();
            }
            shared.count(Point::Unload, &result);
            if let Err(errno) = result {
                findings.add(
                    round,
                    [format!(
                        "the module can't be unloaded when nobody uses it: errno {errno}"
                    )],
                );
            }
        }
        if let Err(error) = machine.bind_all() {
            findings.add(round, [format!("binding: {error:#}")]);
            break;
        }
        println!(
            "round {round} of {end}: begins {} s after the first",
            (sys::milliseconds() - begin) / 1000
        );
        if let Err(error) = one_round(&machine, shared, &sequences(round), &mut log) {
            findings.add(round, [format!("{error:#}")]);
        }
        if shared.violations.swap(0, SeqCst) != 0 {
            findings.add(
                round,
                ["something was possible that must not be, see above".to_owned()],
            );
        }
        let left = || kernel::left_behind(&machine);
        if findings.0.is_empty() && kernel::settle(ADMIN_SECONDS, "", || left().is_empty()).is_err()
        {
            findings.add(
                round,
                left()
                    .into_iter()
                    .map(|what| format!("left behind: {what}")),
            );
        }
        let now = monitor.untrained_accesses(&machine)?;
        if now != lost {
            findings.add(
                round,
                [format!(
                    "{} accesses of GPU RAM were lost",
                    now.wrapping_sub(lost)
                )],
            );
            lost = now;
        }
        let (lines, found) = log.read();
        splats += found.len();
        if !found.is_empty() || kernel::taint() != taint {
            findings.add(
                round,
                found.into_iter().map(|line| format!("splat: {line}")),
            );
            findings.add(
                round,
                [format!(
                    "taint {:#x}, was {taint:#x}; the kernel log of this round:",
                    kernel::taint()
                )],
            );
            lines.iter().for_each(|line| println!("    {line}"));
        }
        round += 1;
    }

    let mut leaks = Vec::new();
    if findings.0.is_empty() {
        if let Some((before, first)) = &baseline {
            leaks.extend(Usage::read()?.growth(before, round - first));
        } else {
            println!(
                "memory of the whole kernel was not compared: {WARM_UP} rounds come before that"
            );
        }
        leaks.extend(kernel::memory_leaks());
        if counted {
            leaks.extend(lost_objects(
                &machine,
                shared,
                sequences(round.saturating_sub(1)),
                &mut log,
            )?);
        }
    }
    findings.add(round, leaks.iter().map(|leak| format!("leak: {leak}")));
    let unreached = print_points(shared);
    let longest = shared.times().into_iter().take(8);
    let longest: Vec<_> = longest
        .map(|(name, time, count)| format!("{name} {time} s ({count})"))
        .collect();
    println!("time of all processes: {}", longest.join(", "));
    println!(
        "{} operations in {round} rounds and {} s ({} more had nothing to work on), {} of {} entry points reached, \
         {splats} splats, {} untrained accesses, {} leaks",
        shared.executed.load(SeqCst),
        (sys::milliseconds() - begin) / 1000,
        shared.skipped.load(SeqCst),
        Point::iter().count() - unreached.len(),
        Point::iter().count(),
        lost - lost_before,
        leaks.len(),
    );
    if shared.executed.load(SeqCst) == 0 {
        findings.add(round, ["no operation was done".to_owned()]);
    }
    if !limits.partial && !unreached.is_empty() {
        findings.add(round, [format!("not reached: {}", unreached.join(", "))]);
    }
    if let Some(first) = findings.0.first() {
        println!("FAILED in round {}: {first}", round.saturating_sub(1));
    }
    Ok(findings.0.is_empty())
}

/// The module's objects of which there are more each time that the first operations of a round are done
/// again, and all functions are unbound and bound.
fn lost_objects(
    machine: &Machine,
    shared: &'static Shared,
    mut sequences: Sequences,
    log: &mut Log,
) -> Result<Vec<String>> {
    let mut counts = Vec::new();

    for sequence in &mut sequences {
        sequence.truncate(REPEATED_OPS);
    }
    for _ in 0..REPEATS {
        one_round(machine, shared, &sequences, log)?;
        for function in &machine.functions {
            machine::unbind(&function.bdf)?;
        }
        machine.bind_all()?;
        // Some of it is freed after a grace period.
        thread::sleep(kernel::SETTLING);
        counts.push(kernel::own_objects().unwrap_or_default());
    }
    Ok(kernel::growing(&counts))
}

/// Prints how often each entry point was reached; returns those that were not as they have to be.
fn print_points(shared: &Shared) -> Vec<&'static str> {
    let mut unreached = Vec::new();
    println!("{:<28} {:>8} {:>8}", "entry point", "success", "refused");
    for point in Point::iter() {
        let name: &str = point.into();
        let (done, refused) = shared.reached(point);
        let (needs_done, needs_refused) = point.needs();
        let reached = (!needs_done || done != 0) && (!needs_refused || refused != 0);
        println!(
            "{name:<28} {done:>8} {refused:>8}{}",
            if reached { "" } else { "  NOT REACHED" }
        );
        if !reached {
            unreached.push(name);
        }
    }
    unreached
}

fn inherit(machine: &Machine) -> Result<Inherited> {
    let open = |path: String| -> Result<OwnedFd> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .context(path)?;
        Ok(file.into())
    };
    Ok(Inherited {
        groups: machine
            .groups
            .iter()
            .map(|id| open(format!("/dev/vfio/{id}")))
            .collect::<Result<_>>()?,
        containers: (0..=machine.groups.len())
            .map(|_| open("/dev/vfio/vfio".to_owned()))
            .collect::<Result<_>>()?,
    })
}

fn one_round(
    machine: &Machine,
    shared: &'static Shared,
    sequences: &Sequences,
    log: &mut Log,
) -> Result<()> {
    shared.begin_round();
    shared.used.store(sequences.len(), SeqCst);
    let mut inherited = Some(inherit(machine)?);
    let mut pids = Vec::new();
    for (me, sequence) in sequences.iter().enumerate() {
        let pid = sys::spawn(|| {
            inherited.take().map_or(1, |inherited| {
                work(machine, shared, me, inherited, sequence)
            })
        })
        .map_err(std::io::Error::from_raw_os_error)?;
        shared.processes[me].pid.store(pid, SeqCst);
        pids.push(Some(pid));
    }
    drop(inherited);
    let result = watch(shared, &mut pids, log);
    if result.is_err() {
        pids.iter().flatten().for_each(|pid| sys::kill(*pid));
    }
    result?;
    // What they started may have waited for them.
    kernel::settle(ADMIN_SECONDS, "an administrator is not done", || {
        while sys::reap().is_some() {}
        shared.admins.load(SeqCst) == 0
    })
}

/// The life of one process.
fn work(
    machine: &Machine,
    shared: &Shared,
    me: usize,
    inherited: Inherited,
    sequence: &[Op],
) -> u8 {
    let Ok(mut world) = World::new(machine, shared, me, inherited) else {
        return 2;
    };
    let process = &shared.processes[me];
    for (index, op) in sequence.iter().enumerate() {
        process.operation.store(index as u64 + 1, SeqCst);
        let begin = sys::milliseconds();
        process.since.store(begin, SeqCst);
        match world.run(op) {
            Done::Yes => &shared.executed,
            Done::Skipped => &shared.skipped,
        }
        .fetch_add(1, SeqCst);
        let spent = sys::milliseconds() - begin;
        shared.spent(op, spent);
        if spent > SLOW_SECONDS * 1000 {
            println!("process {me} needed {spent} ms for {op:?}");
        }
    }
    process.since.store(sys::milliseconds(), SeqCst);
    world.end();
    process.since.store(0, SeqCst);
    0
}

/// Waits for all processes; an error if one dies or hangs.
fn watch(shared: &Shared, pids: &mut [Option<i32>], log: &mut Log) -> Result<()> {
    let limit = kernel::limit(OPERATION_SECONDS);
    while pids.iter().any(Option::is_some) {
        log.poll();
        while let Some((pid, status)) = sys::reap() {
            if let Some(index) = pids.iter().position(|other| *other == Some(pid)) {
                pids[index] = None;
                if status != 0 {
                    let operation = shared.processes[index].operation.load(SeqCst);
                    bail!("process {index} ended with status {status} at operation {operation}");
                }
            }
        }
        for (index, process) in shared.processes.iter().enumerate() {
            let since = process.since.load(SeqCst);
            if since != 0 && sys::milliseconds().saturating_sub(since) > limit * 1000 {
                let stacks: String = pids
                    .iter()
                    .flatten()
                    .map(|pid| format!("{pid}:\n{}", kernel::stack(*pid)))
                    .collect();
                let operation = process.operation.load(SeqCst);
                bail!("process {index} hangs in operation {operation} for {limit} s\n{stacks}");
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
