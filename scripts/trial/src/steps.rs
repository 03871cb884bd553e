// SPDX-License-Identifier: GPL-2.0

//! The steps, from harmless to less so.

use crate::{
    child,
    cli::Options,
    guest::{Guest, Parts},
    kernel_log,
    report::{Done, Fact, Finding, Report, Verdict},
    session::{Pasted, line, paste, say, there},
};
use anyhow::{Context, Result, bail};
use nvlink2ctl::{
    bdf::Bdf,
    bind, doctor,
    finding::Finding as Found,
    host::{self, Host},
    output,
    source::Source,
    users,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Steps without which those that use GPUs are not done.
pub const CONDITIONS: [&str; 3] = ["doctor", "bind", "doctor-bound"];

/// Checks of doctor that the step `bind` repairs.
const BY_BIND: [&str; 3] = ["binding", "viability", "device files"];

/// Checks of doctor that are about guests, which these steps do not start.
const FOR_GUESTS: [&str; 3] = ["QEMU", "libvirt", "locked memory"];

/// Which selftests there are, in their order, and which of them run on hardware.
const PROGRAMS: &str = include_str!("../../../tests/selftests/programs.txt");
const HARDWARE: &str = include_str!("../../../tests/selftests/hardware.tsv");

/// Where SCOM registers are.
const SCOM: &str = "/sys/kernel/debug/powerpc/scom";

/// What a step may do to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// It reads files.
    Reads,
    /// It reads registers of NPUs, by an index that OPAL uses, too.
    Registers,
    /// It takes GPUs from their drivers, or gives them back.
    Binds,
    /// It opens GPUs, which resets them.
    Uses,
    /// A person does it.
    Person,
    /// It may end the host.
    Dangerous,
}

impl Risk {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Registers => "registers",
            Self::Binds => "binds",
            Self::Uses => "uses",
            Self::Person => "person",
            Self::Dangerous => "dangerous",
        }
    }

    /// For who is asked.
    pub fn text(self) -> &'static str {
        match self {
            Self::Reads => "It only reads files",
            Self::Registers => {
                "It reads registers by an index that OPAL uses, too: nobody else may bind, open or reset a GPU meanwhile"
            }
            Self::Binds => "It takes GPUs and bridges from their drivers, or gives them back",
            Self::Uses => {
                "It opens and closes GPUs, and each time they are reset; nobody else may use them"
            }
            Self::Person => "You do it",
            Self::Dangerous => "It may end the host",
        }
    }
}

enum Work {
    Machine,
    Doctor { before: bool },
    DeviceTree,
    Resets,
    Npu,
    Bind,
    Selftest,
    Bound,
    Guest,
    Untrained,
    Person(&'static str),
    KernelLog,
    GiveBack,
}

/// A step.
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it does, in a line.
    pub about: String,
    /// What it may do to the host.
    pub risk: Risk,
    /// Whether it is done whatever came before.
    pub always: bool,
    work: Work,
    /// What it is about: a GPU, or a selftest.
    of: String,
}

/// What only the owner's guest shows.
const PERSONS: [(&str, &str, &str); 7] = [
    (
        "vendor-links",
        "a guest with the vendor's driver sees its links",
        "Start your guest with a GPU and its bridges ('nvlink2ctl qemu-args', Documentation/guest-guide.rst). In it:\n\
         nvidia-smi nvlink -s; nvidia-smi topo -m; numactl -H\n\
         As it should be: each bridge is a link with a speed, and the GPU's RAM is a NUMA node.",
    ),
    (
        "vendor-bandwidth",
        "bandwidth between the guest's memory and its GPU",
        "In the guest: bandwidthTest of the CUDA samples, host to device and back, with and without --memory=pinned.\n\
         As it should be: pinned, about as much as the same test gives on the host without a guest.",
    ),
    (
        "vendor-ats",
        "the GPU reads memory of a process by the process' own addresses",
        "In the guest: a CUDA kernel that reads and writes memory of plain malloc(), which was not registered.\n\
         As it should be: it computes what a processor computes, and no kernel log complains.",
    ),
    (
        "vendor-shootdown",
        "the GPU forgets pages that the guest or the host takes away",
        "While that CUDA kernel works in a loop: in the guest, free and allocate the memory again; on the host,\n\
         echo 1 > /proc/sys/vm/compact_memory. What does the host's kernel log say?\n\
         As it should be: the results stay right, and the host's kernel log says nothing of translations.",
    ),
    (
        "vendor-reboot",
        "the guest is rebooted, and the GPU works again",
        "Reboot the guest; nvidia-smi nvlink -s and bandwidthTest again.\n\
         As it should be: as before the reboot.",
    ),
    (
        "vendor-kill",
        "QEMU is killed while the GPU works, and the next guest has a GPU that works",
        "Have the GPU work (bandwidthTest in a loop), and kill -9 QEMU. Paste the host's kernel log since, and what\n\
         'nvlink2ctl list' says. Start the guest again, and paste bandwidthTest.\n\
         As it should be: no LPAR is left in 'nvlink2ctl list', and the next guest's GPU works.",
    ),
    (
        "vendor-second-guest",
        "two guests with a GPU of another chip each",
        "Only with GPUs on two chips: start a second guest with a GPU of the other chip, have both work, end one.\n\
         As it should be: the other goes on as if nothing had happened.",
    ),
];

/// The steps for a host.
pub fn all(host: &Host) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |name: String, risk, work, of: &str, about: String| {
        steps.push(Step {
            name,
            about,
            risk,
            always: matches!(work, Work::KernelLog | Work::GiveBack),
            work,
            of: of.to_owned(),
        });
    };
    let fixed = |name: &str| name.to_owned();
    let gpus: Vec<_> = host
        .gpus
        .iter()
        .map(|gpu| gpu.function.bdf.to_string())
        .collect();

    add(
        fixed("machine"),
        Risk::Reads,
        Work::Machine,
        "",
        fixed("a recording of the host, OPAL's log, the kernel log"),
    );
    add(
        fixed("doctor"),
        Risk::Reads,
        Work::Doctor { before: true },
        "",
        fixed("what 'nvlink2ctl doctor' says before GPUs are bound"),
    );
    add(
        fixed("device-tree"),
        Risk::Reads,
        Work::DeviceTree,
        "",
        fixed("how OPAL describes GPUs and links, against what is expected"),
    );
    add(
        fixed("resets"),
        Risk::Reads,
        Work::Resets,
        "",
        fixed("how GPUs can be reset, and what EEH says of them"),
    );
    for gpu in &gpus {
        add(
            format!("npu-{gpu}"),
            Risk::Registers,
            Work::Npu,
            gpu,
            format!("tables of the NPU of {gpu}, by SCOM"),
        );
    }
    add(
        fixed("bind"),
        Risk::Binds,
        Work::Bind,
        "",
        fixed("gives all GPUs and bridges to nvlink2-vfio-pci"),
    );
    add(
        fixed("doctor-bound"),
        Risk::Reads,
        Work::Doctor { before: false },
        "",
        fixed("what 'nvlink2ctl doctor' says when they are bound"),
    );
    for gpu in &gpus {
        add(
            format!("bound-{gpu}"),
            Risk::Uses,
            Work::Bound,
            gpu,
            format!(
                "tables of the NPU before, while and after {gpu} and its bridges are open for a virtual machine; ATSD registers are mapped, and none launched"
            ),
        );
    }
    for gpu in &gpus {
        add(
            format!("guest-{gpu}"),
            Risk::Uses,
            Work::Guest,
            gpu,
            format!(
                "a guest of ours in QEMU has {gpu} and its bridges: its device tree, the NPU's tables meanwhile; no vendor's driver"
            ),
        );
    }
    for program in selftests() {
        add(
            format!("selftest-{program}"),
            Risk::Uses,
            Work::Selftest,
            program,
            format!("the selftest {program}, as far as it needs no model"),
        );
    }
    for (name, about, todo) in PERSONS {
        add(
            fixed(name),
            Risk::Person,
            Work::Person(todo),
            "",
            fixed(about),
        );
    }
    if let Some(gpu) = gpus.first() {
        add(
            fixed("untrained"),
            Risk::Dangerous,
            Work::Untrained,
            gpu,
            format!(
                "a load of RAM of {gpu} while its links are down, which may be a machine check"
            ),
        );
    }
    add(
        fixed("kernel-log"),
        Risk::Reads,
        Work::KernelLog,
        "",
        fixed("what the kernel has said since"),
    );
    add(
        fixed("give-back"),
        Risk::Binds,
        Work::GiveBack,
        "",
        fixed("gives the GPUs and bridges that the step bind has taken the drivers that they had"),
    );
    steps
}

/// The selftests that have a test that runs on hardware, in the order of programs.txt.
fn selftests() -> impl Iterator<Item = &'static str> {
    let mut run = BTreeSet::new();
    for row in HARDWARE.lines().filter(|row| !row.starts_with('#')) {
        if let [program, _, "runs"] = row.split('\t').collect::<Vec<_>>().as_slice() {
            run.insert(*program);
        }
    }
    PROGRAMS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .filter(move |program| run.contains(program))
}

impl Step {
    /// Does it.
    pub fn run(&self, source: &Source, report: &mut Report, options: &Options) -> Result<Done> {
        match &self.work {
            Work::Machine => machine(source, report),
            Work::Doctor { before } => Ok(doctor(source, *before)),
            Work::DeviceTree => Ok(device_tree(&Host::read(source))),
            Work::Resets => Ok(resets(source, &Host::read(source))),
            Work::Npu => npu(&self.of),
            Work::Bind => {
                report.remember_drivers(&Host::read(source))?;
                tool(&["bind", "--all"], "bound")
            }
            Work::Selftest => selftest(&self.of),
            Work::Bound => bound(&self.of),
            Work::Guest => guest(&self.of, source, options),
            Work::Untrained => untrained(&self.of),
            Work::Person(todo) => person(todo),
            Work::KernelLog => kernel_log(source),
            Work::GiveBack => give_back(source, report),
        }
    }
}

fn machine(source: &Source, report: &mut Report) -> Result<Done> {
    let mut done = Done::new(Verdict::Passed, "recorded");
    // A recording has been recorded by somebody else.
    let recorder = if source.is_machine() {
        Source::machine().logged()
    } else {
        return Ok(Done::new(Verdict::Skipped, "this is a recording"));
    };
    doctor::examine(&recorder, &Host::read(&recorder));
    report.recording = serde_json::from_str(&recorder.into_log().text()?)?;
    for (name, path) in [
        ("command line", "/proc/cmdline"),
        ("kernel", "/proc/version"),
        ("OPAL log", "/sys/firmware/opal/msglog"),
    ] {
        if let Some(bytes) = source.peek(path) {
            done = done.with_text(name, String::from_utf8_lossy(&bytes).replace('\0', ""));
        }
    }
    let dmesg = child::run("dmesg", &[])?;
    Ok(if dmesg.success() {
        done.with_text("kernel log", dmesg.out)
    } else {
        done.with_text("kernel log", dmesg.text())
    })
}

fn doctor(source: &Source, before: bool) -> Done {
    let findings: Vec<Finding> = doctor::examine(source, &Host::read(source))
        .iter()
        .map(Finding::from)
        .map(|finding| {
            let check = finding.check.as_str();
            let remedy = if !finding.failed() {
                return finding;
            } else if before && BY_BIND.contains(&check) {
                Some("The step bind does that".to_owned())
            } else if FOR_GUESTS.contains(&check) {
                finding.remedy.clone()
            } else {
                return finding;
            };
            Finding {
                verdict: "note".to_owned(),
                remedy,
                ..finding
            }
        })
        .collect();
    Done::of_findings(findings, "nothing to repair")
}

/// What is expected of a V100 on a Witherspoon.
const APERTURE: u64 = 128 << 30;
const LINKS: usize = 6;
const OWN_ATSD: &str = "firmware tells of no ATSD register of its own for the link: update OPAL";

fn device_tree(host: &Host) -> Done {
    const NAME: &str = "device tree";
    let mut findings: Vec<Found> = host
        .faulty
        .iter()
        .map(|faulty| {
            Found::failed(
                NAME,
                format!("{}: {}", faulty.function.bdf, faulty.fault),
                "Update or repair the firmware, which makes the device tree",
            )
        })
        .collect();
    if host.gpus.is_empty() && findings.is_empty() {
        findings.push(Found::failed(
            NAME,
            "it has no GPU with NVLink2",
            "'nvlink2ctl doctor' looks closer",
        ));
    }
    for gpu in &host.gpus {
        let bdf = gpu.function.bdf;
        let mut odd = Vec::new();
        if gpu.aperture.size != APERTURE {
            odd.push(format!(
                "its aperture has {}",
                output::size(gpu.aperture.size)
            ));
        }
        if gpu.aperture.base.0.checked_rem(APERTURE) != Some(0) {
            odd.push(format!("its aperture begins at {}", gpu.aperture.base));
        }
        if gpu.ram.is_none() {
            odd.push(format!(
                "its id {} is not that of a V100 SXM2",
                gpu.function.id
            ));
        }
        if !matches!(gpu.bridges.len(), 2 | 3) {
            odd.push(format!("it has {} bridges", gpu.bridges.len()));
        }
        if gpu.peers.len() != LINKS {
            odd.push(format!("firmware tells of {} links", gpu.peers.len()));
        }
        findings.push(if odd.is_empty() {
            Found::ok(NAME, format!("{bdf}: {} at {}, {} bridges", output::size(gpu.aperture.size), gpu.aperture.base, gpu.bridges.len()))
        } else {
            Found::note(NAME, format!("{bdf}: {}", odd.join(", ")))
                .with_remedy("That is not what a V100 SXM2 of an AC922 is described as: say so when you send the report")
        });
    }
    let mut owners: BTreeMap<u64, Bdf> = BTreeMap::new();
    for bridge in &host.bridges {
        let bdf = bridge.function.bdf;
        findings.push(match (bridge.atsd, &bridge.atsd_fault) {
            (Some(atsd), None) => match owners.insert(atsd.0, bdf) {
                None => Found::ok(
                    NAME,
                    format!(
                        "{bdf}: link {}, {}, ATSD {atsd}",
                        bridge.link,
                        host::speed(bridge.speed)
                    ),
                ),
                Some(other) => Found::failed(
                    NAME,
                    format!("{bdf} and {other} have the same ATSD registers, {atsd}"),
                    "Update OPAL",
                ),
            },
            (_, Some(fault)) => Found::failed(NAME, format!("{bdf}: {fault}"), OWN_ATSD),
            (None, None) => Found::failed(NAME, format!("{bdf} has no ATSD registers"), OWN_ATSD),
        });
    }
    for npu in &host.npus {
        let links = npu
            .links
            .map_or(0, |links| usize::try_from(links).unwrap_or(usize::MAX));
        let found = format!(
            "{}: chip {}, {links} links, {} ATSD registers, {} GPUs",
            npu.node,
            output::or_dash(npu.chip),
            npu.atsd.len(),
            npu.gpus.len()
        );
        findings.push(if links == LINKS {
            Found::ok(NAME, found)
        } else {
            Found::note(NAME, found).with_remedy("An NPU has six links")
        });
    }
    let findings: Vec<Finding> = findings.iter().map(Finding::from).collect();
    Done::of_findings(findings, "as expected")
}

fn resets(source: &Source, host: &Host) -> Done {
    let mut done = Done::new(Verdict::Passed, "read");
    for (role, function) in host.gpus.iter().map(|gpu| ("GPU", &gpu.function)).chain(
        host.bridges
            .iter()
            .map(|bridge| ("bridge", &bridge.function)),
    ) {
        for name in [
            "reset_method",
            "eeh_pe_state",
            "eeh_mode",
            "current_link_speed",
            "power_state",
        ] {
            if let Some(value) = source.text(&format!("{}/{name}", function.bdf.folder())) {
                done.facts.push(Fact {
                    phase: "host".to_owned(),
                    of: function.bdf.to_string(),
                    what: format!("{name} of {role}"),
                    value,
                });
            }
        }
    }
    done
}

/// Runs a command of nvlink2ctl that changes something.
fn tool(arguments: &[&str], well: &str) -> Result<Done> {
    let output = child::run("nvlink2ctl", arguments)?;
    let done = if output.success() {
        Done::new(Verdict::Passed, well)
    } else {
        let said = output.err.trim();
        let mut done = Done::new(Verdict::Failed, said);
        done.wrong = vec![said.to_owned()];
        done
    };
    Ok(done.with_text("nvlink2ctl", output.text()))
}

/// Has the selftests' program `observe` look at a GPU.
fn observe(what: &str, gpu: &str) -> Result<Done> {
    if !there(SCOM) {
        return Ok(Done::new(
            Verdict::Skipped,
            format!(
                "{SCOM} is not there: mount debugfs, or build the kernel with CONFIG_SCOM_DEBUGFS"
            ),
        ));
    }
    let output = child::run("selftests/observe", &[what, gpu])?;
    let mut done = if output.success() {
        Done::new(Verdict::Passed, "observed")
    } else {
        Done::new(Verdict::Failed, output.err.trim())
    };
    for line in output.out.lines() {
        if let [phase, what, value] = line.splitn(3, '\t').collect::<Vec<_>>().as_slice() {
            done.facts.push(Fact {
                phase: (*phase).to_owned(),
                of: gpu.to_owned(),
                what: (*what).to_owned(),
                value: (*value).to_owned(),
            });
        }
    }
    Ok(done)
}

fn npu(gpu: &str) -> Result<Done> {
    let mut done = observe("npu", gpu)?;
    done.wrong.extend(errors(&done.facts));
    Ok(fail_if_wrong(done))
}

/// What could not be observed.
fn errors(facts: &[Fact]) -> Vec<String> {
    facts
        .iter()
        .filter(|fact| fact.value.starts_with("error: "))
        .map(|fact| format!("{}, {}: {}: {}", fact.of, fact.phase, fact.what, fact.value))
        .collect()
}

fn fail_if_wrong(mut done: Done) -> Done {
    if let Some(first) = done.wrong.first() {
        done.verdict = Verdict::Failed;
        done.summary.clone_from(first);
    }
    done
}

/// What a step saw of something at a phase.
fn seen<'d>(done: &'d Done, phase: &str, what: &str) -> Option<&'d str> {
    done.facts
        .iter()
        .find(|fact| fact.phase == phase && fact.what == what)
        .map(|fact| fact.value.as_str())
}

/// What is wrong with the binding of a GPU at `phase`, and before and after; and the LPID.
fn binding(done: &Done, gpu: &str, phase: &str) -> (Vec<String>, String) {
    const IN_USE: &str = "XTS BDF map, entries in use";
    let mut wrong = errors(&done.facts);
    let lpid = seen(done, phase, "LPAR by the driver").unwrap_or("not known");
    if lpid.parse::<u32>().is_err() {
        wrong.push(format!("{gpu} is bound to no virtual machine: {lpid}"));
    }
    if seen(done, phase, IN_USE) == seen(done, "before", IN_USE) {
        wrong.push(format!("the NPU has no entry for {gpu} while it is bound"));
    }
    if seen(done, "after", IN_USE) != seen(done, "before", IN_USE) {
        wrong.push(format!(
            "the NPU has another number of entries after a binding of {gpu} than before"
        ));
    }
    (wrong, lpid.to_owned())
}

fn bound(gpu: &str) -> Result<Done> {
    let mut done = observe("bound", gpu)?;
    if done.verdict == Verdict::Skipped {
        return Ok(done);
    }
    let value = |what: &str| seen(&done, "bound", what);
    let (mut wrong, lpid) = binding(&done, gpu, "bound");
    if let Some(state) = value("EEH state").filter(|state| *state != "0") {
        wrong.push(format!("EEH says that {gpu} is not well: state {state}"));
    }
    for fact in &done.facts {
        if fact.value.contains("NOT its own") || fact.value == "MAPPED" {
            wrong.push(format!("{}: {}", fact.what, fact.value));
        }
    }
    let times: Vec<_> = done
        .facts
        .iter()
        .filter(|fact| fact.what == format!("{gpu} open") || fact.what == format!("{gpu} close"))
        .map(|fact| {
            format!(
                "{} {}",
                fact.what.rsplit(' ').next().unwrap_or_default(),
                fact.value
            )
        })
        .collect();
    if done.verdict == Verdict::Passed {
        done.summary = format!("LPID {lpid}; {}", times.join(", "));
    } else if wrong.is_empty() {
        wrong.push(done.summary.clone());
    }
    done.wrong = wrong;
    Ok(fail_if_wrong(done))
}

/// What the NPU has at a phase, beside what a step does.
fn npu_at(done: &mut Done, phase: &str, gpu: &str) -> Result<()> {
    let mut now = observe("npu", gpu)?;
    for fact in &mut now.facts {
        phase.clone_into(&mut fact.phase);
    }
    done.facts.append(&mut now.facts);
    Ok(())
}

fn guest(gpu: &str, source: &Source, options: &Options) -> Result<Done> {
    let found = Parts::find(
        source,
        options.guest_kernel.as_deref(),
        &options.guest_machine,
    );
    let parts = match found {
        Ok(_) if !there(SCOM) => return observe("npu", gpu),
        Ok(parts) => parts,
        Err(reason) => return Ok(Done::new(Verdict::Skipped, reason)),
    };
    let host = Host::read(source);
    let of = host
        .gpus
        .iter()
        .find(|of| of.function.bdf.to_string() == gpu)
        .with_context(|| format!("the host has no GPU {gpu} any more"))?;
    let mut done = Done::new(Verdict::Passed, "");
    npu_at(&mut done, "before", gpu)?;
    let mut guest = Guest::start(&parts, &host, of)?;
    let ended = guest
        .await_findings()
        .and_then(|()| npu_at(&mut done, "guest", gpu))
        .and_then(|()| guest.end());
    let said = std::mem::take(&mut guest.said);
    drop(guest);
    npu_at(&mut done, "after", gpu)?;

    let (mut wrong, lpid) = binding(&done, gpu, "guest");
    if let Err(error) = ended {
        // The rest follows from that.
        wrong.insert(0, format!("{error:#}"));
    }
    wrong.extend(
        said.lines()
            .filter(|line| line.starts_with("not ok"))
            .map(|line| format!("in the guest: {line}")),
    );
    wrong.extend(unreached(&done.facts, &said, of.bridges.len()));
    let tests = said.lines().filter(|line| line.starts_with("ok ")).count();
    done.summary = format!(
        "LPID {lpid}; the guest's device tree is right by {tests} tests; {}",
        parts.qemu()
    );
    done.wrong = wrong;
    Ok(fail_if_wrong(done).with_text("QEMU and the guest", said))
}

/// ATSD registers of a guest that are not those of its links: it has written another number to each.
fn unreached(facts: &[Fact], said: &str, links: usize) -> Vec<String> {
    let numbers: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("atsd\t")?.split_once('\t'))
        .collect();
    let mut wrong = Vec::new();
    if numbers.len() != links {
        wrong.push(format!(
            "the guest has {} ATSD registers for {links} links",
            numbers.len()
        ));
    }
    for (register, number) in numbers {
        let there = facts.iter().any(|fact| {
            fact.phase == "guest" && fact.what.starts_with("ATSD AVA") && fact.value == number
        });
        if !there {
            wrong.push(format!(
                "what the guest wrote to ATSD register {register} is in that of none of its links"
            ));
        }
    }
    wrong
}

fn untrained(gpu: &str) -> Result<Done> {
    let mut done = observe("untrained", gpu)?;
    if let Some(load) = done.facts.iter().rev().find(|fact| fact.what == "load") {
        done.summary = format!("the load {}", outcome(&load.value));
    }
    Ok(done)
}

/// What became of a load that no link carries.
pub fn outcome(value: &str) -> String {
    match value {
        "signal BUS" => "was a machine check, which ended it in SIGBUS".to_owned(),
        "0xffffffffffffffff" => "gave ones, and no machine check".to_owned(),
        "begins" => "did not end".to_owned(),
        _ => format!("gave {value}"),
    }
}

fn selftest(program: &str) -> Result<Done> {
    if child::beside("selftests/run.sh").is_none() {
        return Ok(Done::new(
            Verdict::Skipped,
            "the selftests are not beside this program",
        ));
    }
    let output = child::run("selftests/run.sh", &[program])?;
    let tally = output
        .out
        .lines()
        .last()
        .unwrap_or("it printed nothing")
        .to_owned();
    let mut done = if output.success() {
        Done::new(Verdict::Passed, tally)
    } else {
        let mut done = Done::new(Verdict::Failed, tally);
        done.wrong = output
            .out
            .lines()
            .filter(|line| line.starts_with("not ok"))
            .map(str::to_owned)
            .collect();
        done
    };
    done = done.with_text("output", output.text());
    Ok(done)
}

fn person(todo: &str) -> Result<Done> {
    say(&format!("    {}", todo.replace('\n', "\n    ")));
    say(
        "    Then paste what you saw, and a line that has only a dot; the dot alone leaves this step out.",
    );
    let seen = match paste(&mut std::io::stdin().lock())? {
        Pasted::Nothing => return Ok(Done::new(Verdict::Declined, "nobody did it")),
        Pasted::Text(seen) => seen,
    };
    let done = loop {
        say("    Was that as it should be? [y]es, [n]o, [d]on't know");
        match line()?.as_deref() {
            Some("y" | "yes") => {
                break Done::new(Verdict::Passed, "as it should be, says a person");
            }
            Some("n" | "no") => {
                break Done::new(Verdict::Failed, "not as it should be, says a person");
            }
            Some("d" | "don't know") | None => {
                break Done::new(Verdict::Passed, "a person says what was seen");
            }
            Some(_) => {}
        }
    };
    Ok(done.with_text("seen", seen))
}

fn kernel_log(source: &Source) -> Result<Done> {
    if !source.is_machine() {
        return Ok(Done::new(Verdict::Skipped, "this is a recording"));
    }
    Ok(kernel_log::judge(&child::run("dmesg", &[])?))
}

/// Gives back what the step bind has taken, however that ended.
fn give_back(source: &Source, report: &mut Report) -> Result<Done> {
    let Some(before) = report.drivers_before() else {
        return Ok(Done::new(
            Verdict::Skipped,
            "the step bind has taken nothing since the host was started",
        ));
    };
    let functions: Vec<Bdf> = before.iter().map(|before| before.bdf).collect();
    let users: Vec<_> = users::find(Path::new("/proc"), &Host::read(source), &functions)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !users.is_empty() {
        bail!(
            "in use: {}. End it, and give the functions back by '--only give-back'",
            users.join("; ")
        );
    }
    let changes = bind::undo(&mut bind::Sysfs, before, bind::PATIENCE)?;
    report.forget_drivers();
    let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
    let text: String = changes
        .iter()
        .map(|change| {
            format!(
                "{}: {} -> {}\n",
                change.bdf,
                name(&change.from),
                name(&change.to)
            )
        })
        .collect();
    Ok(Done::new(
        Verdict::Passed,
        format!("{} functions have what they had before", changes.len()),
    )
    .with_text("changes", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(phase: &str, what: &str, value: &str) -> Fact {
        Fact {
            phase: phase.to_owned(),
            of: "GPU".to_owned(),
            what: what.to_owned(),
            value: value.to_owned(),
        }
    }

    /// What is seen of a guest as it has to be.
    fn good() -> Vec<Fact> {
        const IN_USE: &str = "XTS BDF map, entries in use";
        vec![
            fact("before", IN_USE, "0 of 16"),
            fact("guest", IN_USE, "1 of 16"),
            fact("guest", "LPAR by the driver", "3"),
            fact("guest", "ATSD AVA of link 0", "0xc0ffee00010000"),
            fact("guest", "ATSD AVA of link 1", "0xc0ffee00020000"),
            fact("after", IN_USE, "0 of 16"),
        ]
    }

    #[test]
    fn a_binding_is_judged_by_the_tables() {
        let wrong = |change: &dyn Fn(&mut Vec<Fact>)| {
            let mut done = Done::new(Verdict::Passed, "");
            done.facts = good();
            change(&mut done.facts);
            binding(&done, "GPU", "guest").0
        };
        assert_eq!(wrong(&|_| {}), Vec::<String>::new());
        for (place, value, words) in [
            (1, "0 of 16", "no entry for GPU"),
            (2, "none", "bound to no virtual machine: none"),
            (5, "1 of 16", "another number of entries"),
            (3, "error: Input/output error", "Input/output error"),
        ] {
            let found = wrong(&|facts| facts[place].value = value.to_owned());
            assert!(found.join(";").contains(words), "{found:?}");
        }
    }

    #[test]
    fn a_register_that_is_no_link_s_is_found() {
        let said = "ok 1\natsd\t0\t0xc0ffee00010000\natsd\t1\t0xc0ffee00020000\n";
        assert_eq!(unreached(&good(), said, 2), Vec::<String>::new());
        assert!(unreached(&good(), said, 3)[0].contains("2 ATSD registers for 3 links"));
        let other = said.replace("00020000", "00030000");
        assert!(unreached(&good(), &other, 2)[0].contains("ATSD register 1"));
    }

    #[test]
    fn the_outcomes_of_a_load_differ() {
        assert!(outcome("signal BUS").contains("machine check"));
        assert!(outcome("0xffffffffffffffff").contains("ones"));
        assert!(outcome("0x1234").contains("0x1234"));
    }
}
