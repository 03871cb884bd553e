// SPDX-License-Identifier: GPL-2.0

//! libvirt: it sees the bridges, starts guests, and limits QEMU's locked memory as nvlink2ctl says.
//!
//! That of bookworm, 9.0, needs a hook for the driver. Later ones find it by themselves.

use crate::{
    agent::Agent,
    faults::Faults,
    guests::{environment, Bench},
    host::{driver_of, release, Gpu, DRIVER},
    lines::within,
    npu::bound_to,
    tally::Tally,
    vm::{Client, GIB},
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

/// Where the domains are as they are kept, and as this libvirt gets them; libvirtd's own words.
const KEPT: &str = "/files/domains";
const DOMAINS: &str = "/run/domains";
const LOG: &str = "/run/libvirtd.log";

/// The first release that finds a driver by the aliases of its module.
const FINDS_DRIVERS: (u64, u64) = (10, 0);

/// What libvirt calls no limit, in bytes.
const UNLIMITED: u64 = 9_007_199_254_740_991;

/// Domains and QEMU's limit of locked memory in bytes: the values of libvirt's own tests, and for NVLink2,
/// which those leave out, values worked out by hand from its source. 0: libvirt sets none.
const LIMITS: [(&str, u64); 18] = [
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
    ("gpus-bridges", 550_863_110_144),
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

    /// QEMU's process.
    fn pid(&self) -> Result<String> {
        let pid = fs::read_to_string(format!("/run/libvirt/qemu/{}.pid", self.0))?;
        Ok(pid.trim().to_owned())
    }

    /// QEMU's RLIMIT_MEMLOCK, soft and hard, in bytes.
    fn limits(&self) -> Result<(u64, u64)> {
        limits(&self.pid()?)
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

/// A running domain and the agent of its guest.
struct Guest<'a> {
    domain: Domain<'a>,
    agent: Agent,
    gpus: &'a [Gpu],
}

impl<'a> Guest<'a> {
    /// Starts it, and waits for its boot.
    fn start(name: &'a str, gpus: &'a [Gpu]) -> Result<Self> {
        let domain = Domain::start(name, false)?;
        for function in gpus.iter().flat_map(Gpu::functions) {
            let driver = driver_of(&function);
            ensure!(
                driver.as_deref() == Some(DRIVER),
                "{function}: the driver is {driver:?}"
            );
        }
        let agent = Agent::connect(Path::new("/run/agent"))?;
        let mut guest = Self {
            domain,
            agent,
            gpus,
        };
        guest.await_boot()?;
        Ok(guest)
    }

    fn await_boot(&mut self) -> Result<()> {
        let name = self.domain.0;
        self.agent.await_ready(&mut || running(name))
    }

    fn test(&mut self, tally: &mut Tally, when: &str, tests: &[&str]) -> Result<()> {
        let name = self.domain.0;
        for test in tests {
            let line = format!("{} {test}", environment(self.gpus));
            let (output, status) = self.agent.run(&line, &mut || running(name))?;
            tally.add_tap(&format!("{when}: {test}"), &output, status);
        }
        Ok(())
    }
}

fn running(domain: &str) -> Result<()> {
    let state = virsh(&["domstate", domain])?;
    ensure!(state.trim() == "running", "the domain is {}", state.trim());
    Ok(())
}

/// A guest with a GPU and its bridges, run to its end.
fn guest(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let gpus = [bench.gpus[0].clone()];
    let mut guest = Guest::start("gpu-bridges", &gpus)?;
    tally.add(
        "libvirt's guest: bound to its LPID",
        bound_to(&mut bench.emulator, &gpus[0]).map(drop),
    );
    let tests = ["guest_tree", "guest_memory", "guest_ats"];
    guest.test(tally, "libvirt's guest", &tests)?;
    guest.domain.destroy()
}

/// A guest with all GPUs of a chip: its GPU RAM, a reboot, the end of its QEMU, and the guest after it.
fn chip(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    const NAME: &str = "gpus-bridges";
    let gpus: Vec<_> = bench.gpus.iter().filter(|g| g.chip == 0).cloned().collect();
    let tests = ["guest_tree", "guest_memory", "guest_ats"];
    let faults = Faults::start()?;
    let mut guest = Guest::start(NAME, &gpus)?;
    guest.test(tally, "libvirt's chip", &tests)?;
    tally.add(
        "libvirt's chip: GPU RAM is mapped by pages of 1 GiB",
        whole_gigabytes(&faults, &gpus),
    );
    drop(faults);
    guest.agent.send("reboot -f")?;
    guest.await_boot()?;
    for gpu in &gpus {
        bound_to(&mut bench.emulator, gpu)?;
    }
    guest.test(tally, "libvirt's chip, rebooted", &tests)?;

    let pid = guest.domain.pid()?;
    let killed = Command::new("kill").args(["-9", &pid]).status()?;
    ensure!(killed.success(), "kill -9 {pid}: {killed}");
    let deadline = within(60);
    while virsh(&["domstate", NAME]).is_ok() {
        ensure!(Instant::now() < deadline, "libvirt does not see QEMU's end");
        sleep(Duration::from_millis(200));
    }
    drop(guest);
    bench.take_back()?;
    bench.clean(tally, "kill -9 of libvirt's QEMU");
    // As libvirt leaves them: without a driver.
    release_all(&gpus)?;
    let mut guest = Guest::start(NAME, &gpus)?;
    guest.test(
        tally,
        "libvirt's second guest",
        &["guest_tree", "guest_memory"],
    )?;
    guest.domain.destroy()
}

/// Each fault of GPU RAM since brought a page of 1 GiB, whatever part of it the guest touched.
///
/// A page comes again after a time without memory space, as after each test program.
fn whole_gigabytes(faults: &Faults, gpus: &[Gpu]) -> Result<()> {
    let seen = faults.seen()?;
    println!("# {} faults of GPU RAM", seen.len());
    ensure!(
        seen.iter()
            .all(|fault| fault.physical % GIB == 0 && fault.user % GIB == 0),
        "{seen:#x?}"
    );
    for gpu in gpus {
        ensure!(
            seen.iter().any(|fault| fault.physical == gpu.aperture),
            "none of {}: {seen:#x?}",
            gpu.bdf
        );
    }
    Ok(())
}

fn release_all(gpus: &[Gpu]) -> Result<()> {
    gpus.iter()
        .flat_map(Gpu::functions)
        .try_for_each(|function| release(&function))
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

/// Writes the domains as they are for a client: kept are those for bookworm's.
fn adapt_domains(client: Client) -> Result<()> {
    fs::create_dir_all(DOMAINS)?;
    for file in fs::read_dir(KEPT)? {
        let file = file?;
        let mut text = fs::read_to_string(file.path())?;
        // What is emulated without KVM needs a QEMU that can.
        if client == Client::Series && !text.contains("<domain type='qemu'") {
            text = text
                .lines()
                .filter(|line| !line.contains("LD_PRELOAD"))
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                .replace(
                    "/usr/bin/qemu-system-ppc64<",
                    "/usr/bin/qemu-system-ppc64-nvlink2<",
                );
        }
        fs::write(Path::new(DOMAINS).join(file.file_name()), text)?;
    }
    Ok(())
}

/// Major and minor version, as in "Using library: libvirt 9.0.0".
fn version(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.split_once("library: libvirt ")?;
    let mut numbers = rest.trim().split(['.', '\n']).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// libvirt's limits, and guests that it starts.
pub fn libvirt(bench: &mut Bench, tally: &mut Tally) -> Result<()> {
    let old = bench.client == Client::Bookworm;
    adapt_domains(bench.client)?;
    if old {
        fs::create_dir_all("/etc/libvirt/hooks")?;
        fs::copy("/files/libvirt-hook", "/etc/libvirt/hooks/qemu")?;
    }
    let libvirt = Libvirt::start()?;
    let said = virsh(&["version"])?;
    let known = version(&said);
    println!("# libvirt {known:?}");
    tally.add("it is the libvirt that was meant", {
        if known.is_some_and(|known| old == (known == (9, 0)) && (old || known >= FINDS_DRIVERS)) {
            Ok(())
        } else {
            Err(anyhow!(said))
        }
    });
    if old {
        tally.add(
            "libvirt 9.0 takes no driver but vfio-pci for an unmanaged device",
            fails_with("gpu-unmanaged", "must be manually detached"),
        );
        let ran = guest(bench, tally);
        tally.add("libvirt's guest: starts and ends, with the hook", ran);
    } else {
        tally.add(
            "libvirt takes this driver for an unmanaged device",
            Domain::start("gpu-unmanaged", true).and_then(Domain::destroy),
        );
        release_all(&bench.gpus)?;
        let ran = guest(bench, tally);
        tally.add("libvirt's guest: starts and ends, without a hook", ran);
        release_all(&bench.gpus)?;
        let ran = chip(bench, tally);
        tally.add("libvirt's chip: all GPUs, reboot, kill, and once more", ran);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, wanted) in [
            (
                "Compiled against library: libvirt 9.0.0\nUsing library: libvirt 9.0.0\n",
                Some((9, 0)),
            ),
            ("Compiled against library: libvirt 12.8.0\n", Some((12, 8))),
            ("libvirt", None),
        ] {
            assert_eq!(version(text), wanted, "{text}");
        }
    }
}
