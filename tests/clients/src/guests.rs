// SPDX-License-Identifier: GPL-2.0

//! Guests in QEMU, and what they leave behind.

use crate::{
    host::{bind, Gpu},
    lines::time_factor,
    npu::{bound_to, physical_word, Pristine},
    qmp::Qmp,
    tally::Tally,
    vm::{Client, Guest, Setup, Vm, GIB},
};
use anyhow::{anyhow, bail, ensure, Result};
use serde_json::json;

/// Test programs in the guest. They may run once a boot: memory that was added stays, offline.
const TESTS: [&str; 5] = [
    "guest_tree",
    "guest_memory",
    "guest_numa",
    "guest_dma",
    "guest_ats",
];

/// The same, and that of the driver, where the guest has it.
fn tests(guest: Guest) -> Vec<&'static str> {
    let driver = (guest == Guest::Linux5_10).then_some("guest_driver");
    TESTS.into_iter().chain(driver).collect()
}

/// The emulated host that the guests run on.
pub struct Bench {
    /// What guests run in.
    pub client: Client,
    /// What they run.
    pub guest: Guest,
    /// Its own emulator.
    pub emulator: Qmp,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    pristine: Pristine,
}

impl Bench {
    /// Gives all GPUs and bridges to the driver under test: their group must be VFIO's as a whole.
    pub fn new(client: Client, guest: Guest, gpus: Vec<Gpu>) -> Result<Self> {
        bind_all(&gpus)?;
        let mut emulator = Qmp::emulator()?;
        let pristine = Pristine::record(&mut emulator, &gpus)?;
        Ok(Self {
            client,
            guest,
            emulator,
            gpus,
            pristine,
        })
    }

    /// Gives what somebody else had to the driver again.
    pub fn take_back(&self) -> Result<()> {
        bind_all(&self.gpus)
    }

    /// One test: the host is as it was before any guest.
    pub fn clean(&mut self, tally: &mut Tally, after: &str) {
        let outcome = self.pristine.still(&mut self.emulator, &self.gpus);
        tally.add(&format!("host is clean after {after}"), outcome);
    }
}

fn bind_all(gpus: &[Gpu]) -> Result<()> {
    functions(gpus)
        .iter()
        .try_for_each(|function| bind(function))
}

fn functions(gpus: &[Gpu]) -> Vec<String> {
    gpus.iter().flat_map(Gpu::functions).collect()
}

/// The environment of test programs in the guest: the host's values for guest_tree, and the time factor.
pub fn environment(gpus: &[Gpu]) -> String {
    let each = gpus
        .iter()
        .map(|g| format!("{:x}:{:x}:{:x}", g.tgt, g.bridges.len(), g.speed));
    format!(
        "NVLINK2_TIME_FACTOR={} EXPECT='{}'",
        time_factor(),
        each.collect::<Vec<_>>().join(" ")
    )
}

/// Runs test programs in the guest, whose GPUs are `gpus`.
fn run_tests(
    tally: &mut Tally,
    vm: &mut Vm,
    gpus: &[Gpu],
    when: &str,
    tests: &[&str],
) -> Result<()> {
    for test in tests {
        let (output, status) = vm.run(&format!("{} {test}", environment(gpus)))?;
        tally.add_tap(&format!("{when}: {test}"), &output, status);
    }
    Ok(())
}

/// A word as the guest's processor loads it from its first GPU's RAM.
fn load(vm: &mut Vm, offset: u64) -> Result<u64> {
    let output = vm.output(&format!("gpu_ram read {offset:#x}"))?;
    Ok(u64::from_str_radix(output.trim(), 16)?)
}

fn store(vm: &mut Vm, offset: u64, value: u64) -> Result<()> {
    vm.output(&format!("gpu_ram write {offset:#x} {value:#x}"))
        .map(drop)
}

/// A test of `what`, unless what came before in this scenario failed so that it can't be made.
fn step<T>(tally: &mut Tally, what: &str, outcome: Result<T>) -> Result<T> {
    match outcome {
        Ok(value) => {
            tally.add(what, Ok(()));
            Ok(value)
        }
        Err(error) => {
            tally.add(what, Err(error));
            bail!("{what} failed, so what follows it was left out")
        }
    }
}

/// Runs command lines in a guest with one GPU, and shows what they print and the guest's console.
pub fn show(bench: &Bench, commands: &[String]) -> Result<()> {
    let mut vm = Vm::start(&Setup {
        client: bench.client,
        guest: bench.guest,
        name: "show",
        devices: &functions(&bench.gpus[..1]),
        options: &[],
    })?;
    for command in commands {
        let (output, status) = vm.run(command)?;
        println!("$ {command}\n{output}exit status {status}");
    }
    println!("{}", vm.console());
    vm.power_off()
}

/// One GPU and its bridges: all the guest can do with them, unplugging, reboot, power-off.
pub fn one(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let gpus = [bench.gpus[0].clone()];
    let setup = Setup {
        client: bench.client,
        guest: bench.guest,
        name: "one",
        devices: &functions(&gpus),
        options: &[],
    };
    let mut vm = step(tally, "one: starts", Vm::start(&setup))?;
    tally.add(
        "one: QEMU is of the expected version",
        match vm.qmp.version {
            Some(version) if version == bench.client.version() => Ok(()),
            other => Err(anyhow!("it is {other:?}")),
        },
    );
    tally.add(
        "one: the guest's kernel is the expected one",
        kernel(&mut vm, bench.guest),
    );
    tally.add(
        "one: bound to its LPID",
        bound_to(&mut bench.emulator, &gpus[0]).map(drop),
    );
    run_tests(tally, &mut vm, &gpus, "one", &tests(bench.guest))?;
    run_tests(
        tally,
        &mut vm,
        &gpus,
        "one",
        &["guest_reset", "guest_training"],
    )?;
    tally.add(
        "one: GPU RAM is the host's aperture",
        same_memory(bench, &mut vm, &gpus[0]),
    );
    tally.add(
        "one: hot-unplug is refused",
        unplug_is_refused(&mut vm, gpus[0].functions().len()),
    );

    run_tests(tally, &mut vm, &gpus, "one", &["guest_refused"])?;

    vm.send("reboot -f")?;
    step(
        tally,
        "one: reboots",
        vm.qmp
            .wait_for("RESET", 300)
            .and_then(|()| vm.await_agent()),
    )?;
    tally.add(
        "rebooted: bound to its LPID",
        bound_to(&mut bench.emulator, &gpus[0]).map(drop),
    );
    run_tests(tally, &mut vm, &gpus, "rebooted", &tests(bench.guest))?;
    tally.add("one: QEMU had nothing to complain of", quiet(&vm));
    tally.add("one: powers off", vm.power_off());
    bench.clean(tally, "power-off");
    Ok(())
}

/// The guest's kernel, and whether its platform code knows NVLinks.
fn kernel(vm: &mut Vm, guest: Guest) -> Result<()> {
    let release = vm.output("uname -r")?;
    ensure!(release.starts_with(guest.version()), "it is {release}");
    let (found, _) = vm.run("grep -w pnv_pci_get_npu_dev /proc/kallsyms")?;
    ensure!(
        found.is_empty() == (guest == Guest::Linux6_1),
        "{release} has: {found}"
    );
    Ok(())
}

/// What the guest stores at its address of the GPU's RAM is in physical memory at the aperture.
fn same_memory(bench: &mut Bench, vm: &mut Vm, gpu: &Gpu) -> Result<()> {
    vm.output("gpu_ram train")?;
    for (offset, value) in [
        (0x10008, 0x0123_4567_89ab_cdef),
        (0x1_8000_0000, 0xfedc_ba98_7654_3210),
    ] {
        store(vm, offset, value)?;
        let there = physical_word(&mut bench.emulator, gpu.aperture + offset)?;
        ensure!(
            there == value,
            "{there:#x} at {offset:#x}, the guest stored {value:#x}"
        );
    }
    Ok(())
}

fn unplug_is_refused(vm: &mut Vm, devices: usize) -> Result<()> {
    ensure!(devices > 0, "there is no device to unplug");
    for number in 0..devices {
        let Err(error) = vm
            .qmp
            .execute("device_del", json!({"id": format!("vfio{number}")}))
        else {
            bail!("vfio{number} may be unplugged")
        };
        let text = error.to_string();
        ensure!(
            text.contains("NVLink2"),
            "vfio{number}: refused for another reason: {text}"
        );
    }
    Ok(())
}

/// QEMU printed neither errors nor warnings.
fn quiet(vm: &Vm) -> Result<()> {
    let log = vm.log()?;
    ensure!(log.trim().is_empty(), "{log}");
    Ok(())
}

/// QEMU is killed while its guest uses the GPU.
pub fn killed(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let gpus = [bench.gpus[0].clone()];
    let setup = Setup {
        client: bench.client,
        guest: bench.guest,
        name: "killed",
        devices: &functions(&gpus),
        options: &[],
    };
    let mut vm = step(tally, "killed: starts", Vm::start(&setup))?;
    run_tests(tally, &mut vm, &gpus, "killed", &["guest_ats"])?;
    vm.output("gpu_ram train")?;
    store(&mut vm, SECRET_AT[0], SECRET)?;
    let begun = vm.begin("while :; do gpu_ram read 0 || break; done");
    let word = begun.and_then(|word| Ok(u64::from_str_radix(word.trim(), 16)?));
    step(tally, "killed: the guest is reading GPU RAM", word)?;
    tally.add("killed: kill -9 of QEMU", vm.kill());
    bench.clean(tally, "kill -9 of QEMU");
    Ok(())
}

const SECRET: u64 = 0x5ec3_e75e_c3e7_5ec3;
/// In the window of BAR1, and far behind it.
const SECRET_AT: [u64; 2] = [0x40_0000, 0x3_0000_0000];

/// What the next guest reads of an earlier one's GPU RAM: everything, since nobody clears it.
///
/// The RAM keeps its content over function resets, VFIO's included, on the hardware as documented and in
/// the model. The vendor's driver scrubs what it hands out; the host's driver can't, as the links are down
/// while the host has the GPU.
pub fn leftovers(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let first = [bench.gpus[0].clone()];
    let mut vm = step(
        tally,
        "first guest: starts",
        Vm::start(&Setup {
            client: bench.client,
            guest: bench.guest,
            name: "first",
            devices: &functions(&first),
            options: &[],
        }),
    )?;
    vm.output("gpu_ram train")?;
    for offset in SECRET_AT {
        store(&mut vm, offset, SECRET)?;
    }
    tally.add("first guest: powers off", vm.power_off());
    bench.clean(tally, "the first guest");

    let mut vm = step(
        tally,
        "second guest: starts",
        Vm::start(&Setup {
            client: bench.client,
            guest: bench.guest,
            name: "second",
            devices: &functions(&first),
            options: &[],
        }),
    )?;
    vm.output("gpu_ram train")?;
    for offset in SECRET_AT {
        let found = load(&mut vm, offset)?;
        tally.add(
            &format!("second guest: reads what the first left at {offset:#x} of the same GPU"),
            if found == SECRET {
                Ok(())
            } else {
                Err(anyhow!("it reads {found:#x}"))
            },
        );
        store(&mut vm, offset, 0)?;
    }
    tally.add("second guest: powers off", vm.power_off());
    bench.clean(tally, "the second guest");
    Ok(())
}

/// QEMU has mapped the RAM of so many GPUs where the host can use its largest pages.
fn aligned(vm: &Vm, gpus: usize) -> Result<()> {
    let found = vm.gpu_ram()?;
    ensure!(
        found.len() == gpus && found.iter().all(|address| address % GIB == 0),
        "{found:#x?}"
    );
    Ok(())
}

/// All GPUs of a chip and their six bridges in one guest.
pub fn chip(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let gpus: Vec<_> = bench
        .gpus
        .iter()
        .filter(|gpu| gpu.chip == 0)
        .cloned()
        .collect();
    ensure!(
        functions(&gpus).len() == gpus.len() + 6,
        "a chip has six links"
    );
    let setup = Setup {
        client: bench.client,
        guest: bench.guest,
        name: "chip",
        devices: &functions(&gpus),
        options: &[],
    };
    let mut vm = step(tally, "chip: starts", Vm::start(&setup))?;
    let mut lpids = Vec::new();
    for gpu in &gpus {
        lpids.push(bound_to(&mut bench.emulator, gpu)?);
    }
    tally.add("chip: all GPUs are bound to one LPID", {
        lpids.dedup();
        if lpids.len() == 1 {
            Ok(())
        } else {
            Err(anyhow!("{lpids:?}"))
        }
    });
    if bench.client == Client::Series {
        tally.add(
            "chip: GPU RAM is mapped at multiples of 1 GiB",
            aligned(&vm, gpus.len()),
        );
    }
    run_tests(tally, &mut vm, &gpus, "chip", &tests(bench.guest))?;
    run_tests(
        tally,
        &mut vm,
        &gpus,
        "chip",
        &["guest_reset", "guest_training", "guest_memory"],
    )?;
    tally.add(
        "chip: hot-unplug is refused",
        unplug_is_refused(&mut vm, functions(&gpus).len()),
    );
    tally.add("chip: QEMU had nothing to complain of", quiet(&vm));
    tally.add("chip: powers off", vm.power_off());
    bench.clean(tally, "all GPUs of a chip in a guest");
    Ok(())
}

/// Two guests at once, each with a GPU of another chip.
pub fn two(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let of = |chip| bench.gpus.iter().find(|gpu| gpu.chip == chip).cloned();
    let (Some(left), Some(right)) = (of(0), of(1)) else {
        bail!("two guests need GPUs on two chips: --chips 2");
    };
    let (left, right) = ([left], [right]);
    let mut vms = Vec::new();
    for (name, gpus) in [("left", &left), ("right", &right)] {
        let setup = Setup {
            client: bench.client,
            guest: bench.guest,
            name,
            devices: &functions(gpus),
            options: &[],
        };
        vms.push(step(tally, &format!("{name}: starts"), Vm::start(&setup))?);
    }
    let lpids = (
        bound_to(&mut bench.emulator, &left[0])?,
        bound_to(&mut bench.emulator, &right[0])?,
    );
    tally.add(
        "two guests have two LPIDs",
        if lpids.0 != lpids.1 {
            Ok(())
        } else {
            Err(anyhow!("{lpids:?}"))
        },
    );
    for (vm, (name, gpus)) in vms.iter_mut().zip([("left", &left), ("right", &right)]) {
        run_tests(tally, vm, gpus, name, &tests(bench.guest))?;
    }
    for (vm, value) in vms.iter_mut().zip([1, 2]) {
        vm.output("gpu_ram train")?;
        store(vm, 0x20000, value)?;
    }
    for (vm, (name, value)) in vms.iter_mut().zip([("left", 1), ("right", 2)]) {
        let found = load(vm, 0x20000)?;
        tally.add(
            &format!("{name}: has GPU RAM of its own"),
            if found == value {
                Ok(())
            } else {
                Err(anyhow!("it reads {found:#x}"))
            },
        );
    }
    let mut vms = vms.into_iter();
    if let Some(vm) = vms.next() {
        tally.add("left: kill -9 of QEMU", vm.kill());
    }
    for mut vm in vms {
        run_tests(
            tally,
            &mut vm,
            &right,
            "right goes on",
            &["guest_memory", "guest_ats"],
        )?;
        tally.add("right: powers off", vm.power_off());
    }
    bench.clean(tally, "two guests on two chips");
    Ok(())
}
