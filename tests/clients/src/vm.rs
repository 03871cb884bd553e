// SPDX-License-Identifier: GPL-2.0

//! A guest in QEMU: its start and end, its monitor, and the agent in it that obeys command lines.

use crate::{agent::Agent, lines::within, qmp::Qmp};
use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;
use serde_json::json;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

/// Bytes. The largest page that the host's kernel can have for memory of a device.
pub const GIB: u64 = 1 << 30;

/// A QEMU with NVLink2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Debian bookworm's QEMU 7.2, with the original client.
    Bookworm,
    /// QEMU 10.0 with the series of scripts/qemu.
    Series,
}

impl Client {
    /// Major and minor version.
    pub const fn version(self) -> (u64, u64) {
        match self {
            Self::Bookworm => (7, 2),
            Self::Series => (10, 0),
        }
    }

    fn command(self) -> Command {
        match self {
            Self::Bookworm => {
                let mut command = Command::new("/usr/bin/qemu-system-ppc64");
                // It would use memory that it has freed: see guest/keep_region_info.c.
                command.env("LD_PRELOAD", "/files/keep_region_info.so");
                command
            }
            Self::Series => {
                let mut command = Command::new("/files/qemu-system-ppc64-nvlink2");
                // It looks beside itself for firmware.
                command.args(["-L", "/usr/share/qemu"]);
                command
            }
        }
    }
}

/// What runs in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Guest {
    /// Debian bookworm's kernel.
    #[value(name = "6.1")]
    Linux6_1,
    /// Linux 5.10, whose platform code knows NVLinks, and a driver that asks it for them.
    #[value(name = "5.10")]
    Linux5_10,
}

impl Guest {
    /// How its version begins.
    pub const fn version(self) -> &'static str {
        match self {
            Self::Linux6_1 => "6.1.",
            Self::Linux5_10 => "5.10.",
        }
    }

    /// Where its kernel and initial RAM disk are.
    const fn folder(self) -> &'static str {
        match self {
            Self::Linux6_1 => "/files",
            Self::Linux5_10 => "/files/guest-5.10",
        }
    }
}

/// The pseries machine without firmware, and without mitigations that the emulated processor lacks.
pub const MACHINE: &str =
    "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off";

/// What to start.
pub struct Setup<'a> {
    /// Which QEMU.
    pub client: Client,
    /// Which kernel.
    pub guest: Guest,
    /// Name of the guest, of its files below /run.
    pub name: &'a str,
    /// PCI addresses of host devices, in the order of their -device options.
    pub devices: &'a [String],
    /// More options for QEMU.
    pub options: &'a [&'a str],
}

/// A running QEMU.
pub struct Vm {
    child: Child,
    /// Its monitor.
    pub qmp: Qmp,
    agent: Agent,
    dir: PathBuf,
}

impl Vm {
    /// Starts QEMU and waits for the guest's agent.
    pub fn start(setup: &Setup) -> Result<Self> {
        let mut vm = Self::launch(setup)?;
        vm.await_agent()?;
        Ok(vm)
    }

    /// Starts QEMU.
    pub fn launch(setup: &Setup) -> Result<Self> {
        let dir = Path::new("/run").join(setup.name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        let at = |name: &str| dir.join(name).display().to_string();
        let log = File::create(dir.join("qemu.log"))?;
        let mut command = setup.client.command();
        command
            .args(["-nodefaults", "-display", "none", "-M", MACHINE])
            .args(["-accel", "kvm", "-m", "512M"])
            .args([
                "-kernel",
                &format!("{}/vmlinux", setup.guest.folder()),
                "-initrd",
                &format!("{}/guest.cpio.gz", setup.guest.folder()),
            ])
            // The emulated processor does not speculate, and what is done against it takes long.
            .args(["-append", "console=hvc0 panic=-1 mitigations=off"])
            .args([
                "-chardev",
                &format!("file,id=console,path={}", at("console")),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-chardev",
                &format!("socket,id=agent,path={},server=on,wait=off", at("agent")),
            ])
            .args(["-serial", "chardev:agent"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", at("qmp"))])
            .args([
                "-device",
                "virtio-rng-pci,disable-legacy=on,iommu_platform=on",
            ])
            .args(setup.options)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (number, device) in setup.devices.iter().enumerate() {
            command.args([
                "-device",
                &format!("vfio-pci,id=vfio{number},host={device}"),
            ]);
        }
        let mut child = command.spawn().context("qemu-system-ppc64")?;
        let deadline = within(120);
        let connected = loop {
            // QEMU listens on the agent's socket first.
            match Qmp::connect(&dir.join("qmp")) {
                Ok(qmp) => break Ok(qmp),
                Err(_) if Instant::now() < deadline && child.try_wait()?.is_none() => {
                    sleep(Duration::from_millis(100));
                }
                Err(error) => break Err(error),
            }
        };
        match connected.and_then(|qmp| Ok((qmp, Agent::connect(&dir.join("agent"))?))) {
            Ok((qmp, agent)) => Ok(Self {
                child,
                qmp,
                agent,
                dir,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
                Err(error.context(format!("QEMU did not start: {said}")))
            }
        }
    }

    /// Waits for the guest's agent after a start or reboot.
    pub fn await_agent(&mut self) -> Result<()> {
        let Self { agent, qmp, .. } = self;
        let booted = agent.await_ready(&mut || running(qmp));
        booted.with_context(|| self.story())
    }

    /// Runs a command line in the guest; what it printed, and its exit status.
    pub fn run(&mut self, line: &str) -> Result<(String, u32)> {
        let Self { agent, qmp, .. } = self;
        let done = agent.run(line, &mut || running(qmp));
        done.with_context(|| self.story())
    }

    /// Like `run`, for commands that must succeed.
    pub fn output(&mut self, line: &str) -> Result<String> {
        let (output, status) = self.run(line)?;
        ensure!(status == 0, "{line}: exit status {status}\n{output}");
        Ok(output)
    }

    /// Begins a command line that does not end by itself; what it printed first.
    pub fn begin(&mut self, line: &str) -> Result<String> {
        let Self { agent, qmp, .. } = self;
        let begun = agent.begin(line, &mut || running(qmp));
        begun.with_context(|| self.story())
    }

    /// Sends a command line that the agent does not survive.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.agent.send(line)
    }

    /// Powers the guest off; QEMU must end by itself, and well.
    pub fn power_off(mut self) -> Result<()> {
        self.send("poweroff -f")?;
        let status = self.await_end(120)?;
        ensure!(
            status.success(),
            "QEMU ended with {status}\n{}",
            self.story()
        );
        Ok(())
    }

    /// Kills QEMU as nothing can refuse.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn await_end(&mut self, seconds: u64) -> Result<ExitStatus> {
        let deadline = within(seconds);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(50));
        }
        bail!("QEMU does not end\n{}", self.story())
    }

    /// Where QEMU has mapped the RAM of GPUs: no other mapping of a device is that large.
    pub fn gpu_ram(&self) -> Result<Vec<u64>> {
        let path = format!("/proc/{}/maps", self.child.id());
        let maps = fs::read_to_string(&path).context(path)?;
        maps.lines()
            .filter(|line| line.contains("[vfio-device]"))
            .filter_map(|line| line.split_whitespace().next()?.split_once('-'))
            .map(|(start, end)| {
                let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16));
                Ok((start?, end?))
            })
            .filter(|range| !matches!(range, Ok((start, end)) if end - start < GIB))
            .map(|range| range.map(|(start, _)| start))
            .collect()
    }

    /// The guest's console.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.dir.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What QEMU said.
    pub fn log(&self) -> Result<String> {
        let path = self.dir.join("qemu.log");
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// What QEMU and the guest said last.
    fn story(&self) -> String {
        let console = self.console();
        let lines: Vec<_> = console.lines().collect();
        let last = lines.len().saturating_sub(30);
        format!(
            "QEMU: {}\nconsole of the guest: {}",
            self.log().unwrap_or_else(|error| format!("{error:#}")),
            lines[last..].join("\n")
        )
    }
}

/// QEMU has not stopped the guest, as it does after an error of KVM.
fn running(qmp: &mut Qmp) -> Result<()> {
    let status = qmp.execute("query-status", json!({}))?["status"].take();
    ensure!(status == "running", "the machine is {status}");
    Ok(())
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
