// SPDX-License-Identifier: GPL-2.0

//! libvirt 9.0: it sees the bridges, starts guests, and limits QEMU's locked memory as nvlink2ctl says.

use crate::{
    agent::Agent,
    guests::{environment, Bench},
    host::{driver_of, DRIVER},
    lines::within,
    npu::bound_to,
    tally::Tally,
};
use anyhow::{anyhow, bail, ensure, Context, Result};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Where the domains are, and libvirtd's own words.
const DOMAINS: &str = "/files/domains";
const LOG: &str = "/run/libvirtd.log";

/// What libvirt calls no limit, in bytes.
const UNLIMITED: u64 = 9_007_199_254_740_991;

/// Domains and QEMU's limit of locked memory in bytes: the values of libvirt's own tests, and for NVLink2,
/// which those leave out, values worked out by hand from its source. 0: libvirt sets none.
const LIMITS: [(&str, u64); 17] = [
    ("kvm", 20_971_520),
    ("kvm-two-phbs", 25_165_824),
    ("tcg", 0),
    ("gpu", 4_320_133_120),
    ("gpu-one-phb", 2_168_455_168),
    ("gpu-max-memory", 2_193_620_992),
    ("gpu-bridges", 550_863_110_144),
    ("gpu-bridges-one-phb", 275_981_008_896),
    ("gpu-bridges-three-phbs", 825_745_211_392),
    ("gpu-bridges-max-memory", 279_227_400_192),
    ("gpu-bridges-2gib", 551_945_240_576),
    ("bridge-one-phb", 275_981_008_896),
    ("hard-limit", 2_147_483_648),
    ("hard-limit-gpu", 2_147_483_648),
    ("hard-limit-locked", 2_147_483_648),
    ("locked", UNLIMITED),
    ("locked-gpu", UNLIMITED),
];

/// A libvirtd of ours.
struct Libvirt(Child);

impl Libvirt {
    /// Starts it with the settings that a host without systemd, dbus and udev needs.
    fn start() -> Result<Self> {
        // POWER has no DMI that would tell a UUID.
        let daemon = "auth_unix_ro = \"none\"\n\
                      auth_unix_rw = \"none\"\n\
                      host_uuid = \"4c2a3f0e-6d1b-4c55-9a53-0d7f0a6e1b2c\"\n";
        let qemu = "remember_owner = 0\n\
                    security_driver = \"none\"\n\
                    namespaces = []\n\
                    seccomp_sandbox = 0\n\
                    cgroup_controllers = []\n\
                    stdio_handler = \"file\"\n";
        let log = format!("log_outputs = \"3:file:{LOG}\"\n");
        fs::write("/etc/libvirt/libvirtd.conf", format!("{daemon}{log}"))?;
        fs::write("/etc/libvirt/qemu.conf", qemu)?;
        // They want services that this host has not, and no guest here needs them.
        for driver in [
            "interface",
            "network",
            "nodedev",
            "nwfilter",
            "secret",
            "storage",
        ] {
            let folder = Path::new("/usr/lib/powerpc64le-linux-gnu/libvirt/connection-driver");
            let _ = fs::remove_file(folder.join(format!("libvirt_driver_{driver}.so")));
        }
        let daemon = Command::new("/usr/sbin/libvirtd")
            .stdin(Stdio::null())
            .spawn()
            .context("libvirtd")?;
        let libvirt = Self(daemon);
        let deadline = within(300);
        while let Err(error) = virsh(&["version"]) {
            ensure!(
                Instant::now() < deadline,
                "libvirtd does not answer: {error}\n{}",
                libvirt.log().unwrap_or_default()
            );
            sleep(Duration::from_millis(500));
        }
        Ok(libvirt)
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(LOG).context(LOG)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs virsh; what it printed.
fn virsh(arguments: &[&str]) -> Result<String> {
    let done = Command::new("/usr/bin/virsh")
        .args(["-q", "-c", "qemu:///system"])
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "virsh {}: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A running domain, which is destroyed at the end.
struct Domain<'a>(&'a str);

impl<'a> Domain<'a> {
    /// Starts it; its processors only run if not `paused`.
    fn start(name: &'a str, paused: bool) -> Result<Self> {
        let file = file(name);
        let started = if paused {
            virsh(&["create", "--paused", &file])
        } else {
            virsh(&["create", &file])
        };
        started.with_context(|| {
            fs::read_to_string(format!("/var/log/libvirt/qemu/{name}.log")).unwrap_or_default()
        })?;
        Ok(Self(name))
    }

    /// QEMU's RLIMIT_MEMLOCK, soft and hard, in bytes.
    fn limits(&self) -> Result<(u64, u64)> {
        let pid = fs::read_to_string(format!("/run/libvirt/qemu/{}.pid", self.0))?;
        limits(pid.trim())
    }

    fn destroy(self) -> Result<()> {
        virsh(&["destroy", self.0]).map(drop)
    }
}

impl Drop for Domain<'_> {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = virsh(&["destroy", self.0]);
    }
}

fn file(domain: &str) -> String {
    format!("{DOMAINS}/{domain}.xml")
}

fn limits(pid: &str) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let mut next = || match words.next() {
        Some("unlimited") => Ok(u64::MAX),
        Some(number) => number.parse().context("limits"),
        None => bail!("/proc/{pid}/limits: no locked memory"),
    };
    Ok((next()?, next()?))
}

/// What nvlink2ctl says for the domain.
fn told(domain: &str) -> Result<u64> {
    let done = Command::new("/files/nvlink2ctl")
        .args(["--json", "memlock", "--domain", &file(domain)])
        .output()?;
    let text = String::from_utf8_lossy(&done.stdout);
    ensure!(
        done.status.success(),
        "nvlink2ctl: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let answer: Value = serde_json::from_str(&text)?;
    answer["bytes"]
        .as_u64()
        .ok_or_else(|| anyhow!("nvlink2ctl: {text}"))
}

/// libvirt's limit, nvlink2ctl's and the one in the table are the same.
fn same_limit(domain: &str, wanted: u64) -> Result<()> {
    let running = Domain::start(domain, true)?;
    let (soft, hard) = running.limits()?;
    let told = told(domain)?;
    let wanted_of_qemu = match wanted {
        // It has libvirtd's own.
        0 => limits("self")?.0,
        UNLIMITED => u64::MAX,
        limited => limited,
    };
    ensure!(
        soft == wanted_of_qemu && hard >= soft && told == wanted,
        "libvirt: {soft} and {hard}, nvlink2ctl: {told}, expected: {wanted}"
    );
    running.destroy()
}

/// A guest with a GPU and its bridges, run to its end.
fn guest(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let gpus = [bench.gpus[0].clone()];
    let domain = Domain::start("gpu-bridges", false)?;
    for function in gpus[0].functions() {
        let driver = driver_of(&function);
        ensure!(
            driver.as_deref() == Some(DRIVER),
            "{function}: the driver is {driver:?}"
        );
    }
    let mut agent = Agent::connect(Path::new("/run/agent"))?;
    let mut alive = || {
        let state = virsh(&["domstate", "gpu-bridges"])?;
        ensure!(state.trim() == "running", "the domain is {}", state.trim());
        Ok(())
    };
    agent.await_ready(&mut alive)?;
    tally.add(
        "libvirt's guest: bound to its LPID",
        bound_to(&mut bench.emulator, &gpus[0]).map(drop),
    );
    for test in ["guest_tree", "guest_memory", "guest_ats"] {
        let (output, status) = agent.run(&format!("{} {test}", environment(&gpus)), &mut alive)?;
        tally.add_tap(&format!("libvirt's guest: {test}"), &output, status);
    }
    domain.destroy()
}

fn fails_with(domain: &str, reason: &str) -> Result<()> {
    match Domain::start(domain, true) {
        Ok(_) => bail!("it starts"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains(reason), "it fails for another reason: {text}");
            Ok(())
        }
    }
}

/// libvirt's limits, and a guest that it starts.
pub fn libvirt(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let libvirt = Libvirt::start()?;
    let version = virsh(&["version"])?;
    tally.add("it is libvirt 9.0", {
        if version.contains("library: libvirt 9.0.") {
            Ok(())
        } else {
            Err(anyhow!(version))
        }
    });
    tally.add(
        "libvirt 9.0 takes no driver but vfio-pci for an unmanaged device",
        fails_with("gpu-unmanaged", "must be manually detached"),
    );
    let ran = guest(bench, tally);
    tally.add("libvirt's guest: starts and ends, with the hook", ran);
    for (domain, bytes) in LIMITS {
        // libvirt leaves managed devices without a driver, and a bridge can't be opened without its GPU.
        bench.take_back()?;
        tally.add(
            &format!("limit of {domain}: {bytes} bytes"),
            same_limit(domain, bytes),
        );
    }
    tally.add(
        "a hard_limit below the guest's memory is enforced",
        fails_with("too-little", "RAM memory listener initialization failed"),
    );
    tally.add("libvirtd had nothing to complain of", quiet(&libvirt));
    bench.take_back()?;
    bench.clean(tally, "libvirt's guests");
    Ok(())
}

/// libvirtd logged no errors but those of the domains that may not start.
fn quiet(libvirt: &Libvirt) -> Result<()> {
    let log = libvirt.log()?;
    let unexpected: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" : error : ") || line.contains(": error :"))
        .filter(|line| {
            !["manually detached", "monitor"]
                .iter()
                .any(|known| line.contains(known))
        })
        .collect();
    ensure!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    Ok(())
}
