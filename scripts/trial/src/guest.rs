// SPDX-License-Identifier: GPL-2.0

//! A guest of ours in QEMU: what it finds, while the host looks at its own side.

use crate::child;
use anyhow::{Context, Result, bail};
use nvlink2ctl::{host::Gpu, host::Host, software, source::Source};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// What the guest says when it has said all else.
const WAITS: &str = "nvlink2-trial: the guest waits";
/// How long a guest may take to get there, and to end. One that is emulated twice takes minutes.
const START: Duration = Duration::from_secs(900);
const END: Duration = Duration::from_secs(300);

/// What a guest is made of.
pub struct Parts {
    qemu: String,
    kernel: PathBuf,
    initrd: PathBuf,
    machine: String,
}

impl Parts {
    /// Finds them; or why there is no guest.
    pub fn find(
        source: &Source,
        kernel: Option<&Path>,
        machine: &str,
    ) -> std::result::Result<Self, String> {
        if !Path::new("/dev/kvm").exists() {
            return Err("there is no /dev/kvm: load the module kvm_hv".to_owned());
        }
        let initrd = child::beside("guest.cpio.gz")
            .ok_or("the guest's initrd, guest.cpio.gz, is not beside this program")?;
        let qemu = software::packaged_qemu(source)
            .or_else(|| {
                let mut all = software::qemus(source).into_iter();
                all.find(|qemu| qemu.client && !qemu.frees_too_early())
            })
            .ok_or("no QEMU has the NVLink2 client: install the package qemu-system-ppc-nvlink2")?;
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let kernel = match kernel {
            Some(kernel) => kernel.to_owned(),
            None => ["vmlinux", "vmlinuz"]
                .map(|name| PathBuf::from(format!("/boot/{name}-{release}")))
                .into_iter()
                .find(|path| path.exists())
                .ok_or_else(|| {
                    format!(
                        "/boot has no kernel {release} for the guest: name one by --guest-kernel"
                    )
                })?,
        };
        Ok(Self {
            qemu: qemu.path,
            kernel,
            initrd,
            machine: machine.to_owned(),
        })
    }

    /// The QEMU to use.
    pub fn qemu(&self) -> &str {
        &self.qemu
    }
}

/// What the guest's test of its device tree expects of a GPU: its address to the NPU, its links and their speed.
fn expected(host: &Host, gpu: &Gpu) -> Result<String> {
    let first = gpu.bridges.first().and_then(|bdf| host.bridge(*bdf));
    let speed = first.context("the GPU has no bridge")?.speed;
    Ok(format!("{:x}:{:x}:{speed:x}", gpu.tgt.0, gpu.bridges.len()))
}

/// Sends each line of a stream on, until its end.
fn pass_on(stream: impl Read + Send + 'static, to: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream)
            .split(b'\n')
            .map_while(|line| line.ok())
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if to.send(text).is_err() {
                break;
            }
        }
    });
}

/// A guest that runs. It ends with this.
pub struct Guest {
    child: Child,
    console: Receiver<String>,
    /// What it has said.
    pub said: String,
}

impl Guest {
    /// Starts QEMU with a GPU and its bridges.
    pub fn start(parts: &Parts, host: &Host, gpu: &Gpu) -> Result<Self> {
        let mut command = Command::new(&parts.qemu);
        command
            .args(["-nodefaults", "-display", "none", "-accel", "kvm"])
            .args(["-machine", &parts.machine, "-m", "512M"])
            .args(["-chardev", "stdio,id=console,signal=off"])
            .args(["-serial", "chardev:console"])
            .arg("-kernel")
            .arg(&parts.kernel)
            .arg("-initrd")
            .arg(&parts.initrd)
            // The guest trusts whom it has, and what is done against speculation takes long where it is emulated.
            .args([
                "-append",
                &format!(
                    "console=hvc0 rdinit=/init quiet panic=-1 mitigations=off EXPECT={}",
                    expected(host, gpu)?
                ),
            ]);
        for bdf in std::iter::once(&gpu.function.bdf).chain(&gpu.bridges) {
            command.args(["-device", &format!("vfio-pci,host={bdf}")]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| parts.qemu.clone())?;
        let (sender, console) = mpsc::channel();
        if let Some(out) = child.stdout.take() {
            pass_on(out, sender.clone());
        }
        if let Some(err) = child.stderr.take() {
            pass_on(err, sender);
        }
        Ok(Self {
            child,
            console,
            said: String::new(),
        })
    }

    /// Listens until the guest says `wanted`, or until QEMU has ended.
    fn listen(&mut self, wanted: Option<&str>, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            match self.console.recv_timeout(left) {
                Ok(line) => {
                    self.said += &format!("{line}\n");
                    if wanted.is_some_and(|wanted| line.contains(wanted)) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) if wanted.is_none() => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("QEMU ended before the guest did"),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the guest was not done after {} seconds (its kernel needs CONFIG_PPC_PSERIES; \
                         --guest-kernel names another one)",
                        limit.as_secs()
                    )
                }
            }
        }
    }

    /// Waits until the guest has said what it finds.
    pub fn await_findings(&mut self) -> Result<()> {
        self.listen(Some(WAITS), START)
    }

    /// Has the guest power off.
    pub fn end(&mut self) -> Result<()> {
        // A line, and the end of the input.
        self.child
            .stdin
            .take()
            .context("the guest's console")?
            .write_all(b"\n")?;
        self.listen(None, END)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvlink2ctl::source::Source;
    use std::{fs, os::unix::fs::PermissionsExt};

    /// Starts a script that stands in for QEMU, with the first GPU of a recording.
    fn start(script: &str) -> (tempfile::TempDir, Guest) {
        let folder = tempfile::tempdir().unwrap();
        let qemu = folder.path().join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let recording = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../nvlink2ctl/tests/recordings/4-bound.json"
        );
        let host = Host::read(&Source::open(Path::new(recording)).unwrap());
        let parts = Parts {
            qemu: qemu.display().to_string(),
            kernel: "/boot/vmlinux".into(),
            initrd: "guest.cpio.gz".into(),
            machine: "pseries".to_owned(),
        };
        let guest = Guest::start(&parts, &host, host.gpus.first().unwrap()).unwrap();
        (folder, guest)
    }

    #[test]
    fn a_guest_says_what_it_finds_and_ends_when_it_may() {
        let (_folder, mut guest) = start(&format!(
            "echo \"$*\"; echo warning >&2; echo 'ok 1 tree'; echo '{WAITS}'; read -r _; echo gone"
        ));
        guest.await_findings().unwrap();
        assert!(!guest.said.contains("gone"));
        guest.end().unwrap();
        for words in [
            "EXPECT=3e000000000:3:8 ",
            "vfio-pci,host=0004:04:00.0 -device vfio-pci,host=0006:00:00.0 ",
            "host=0006:00:00.2",
            "warning",
            "ok 1 tree",
            "gone",
        ] {
            assert!(guest.said.contains(words), "{words}: {}", guest.said);
        }
    }

    #[test]
    fn an_early_end_is_told_with_what_was_said() {
        let (_folder, mut guest) = start("echo 'qemu: no device'; exit 1");
        let error = guest.await_findings().unwrap_err().to_string();
        assert!(error.contains("ended before the guest did"), "{error}");
        assert!(guest.said.contains("no device"));
    }

    #[test]
    fn a_bad_end_is_told() {
        let (_folder, mut guest) = start(&format!("echo '{WAITS}'; read -r _; exit 3"));
        guest.await_findings().unwrap();
        let error = guest.end().unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }
}
