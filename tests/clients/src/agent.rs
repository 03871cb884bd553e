// SPDX-License-Identifier: GPL-2.0

//! The guest's second console, on which guest/init obeys command lines.

use crate::lines::{within, Lines};
use anyhow::{ensure, Context, Result};
use std::{io::Write, os::unix::net::UnixStream, path::Path, time::Instant};

/// Seconds for a guest's boot; it takes 10 on an idle machine.
const BOOT: u64 = 300;
/// Seconds for a command in the guest.
const COMMAND: u64 = 300;
/// Seconds of silence after which somebody looks whether the guest still runs.
const SILENCE: u64 = 10;

/// The agent of a guest.
pub struct Agent {
    to: UnixStream,
    from: Lines,
}

impl Agent {
    /// The agent behind the socket at `path`, to which QEMU connects the guest's second console.
    pub fn connect(path: &Path) -> Result<Self> {
        let to = UnixStream::connect(path).with_context(|| path.display().to_string())?;
        let from = Lines::new(to.try_clone()?, "the guest's agent");
        Ok(Self { to, from })
    }

    /// Waits for the end of a boot. `alive` fails if there will be none.
    pub fn await_ready(&mut self, alive: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let deadline = within(BOOT);
        while self.line(deadline, alive)? != "agent: ready" {}
        Ok(())
    }

    /// Sends a command line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        Ok(self.to.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Sends a command line that does not end by itself, and waits for what it prints first.
    pub fn begin(&mut self, line: &str, alive: &mut dyn FnMut() -> Result<()>) -> Result<String> {
        self.from.waiting();
        self.send(line)?;
        let first = self.line(within(COMMAND), alive).context(line.to_owned())?;
        ensure!(!first.starts_with("agent: "), "{line}: {first}");
        Ok(first)
    }

    /// Runs a command line; what it printed, and its exit status. `alive` as above.
    pub fn run(
        &mut self,
        line: &str,
        alive: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(String, u32)> {
        self.from.waiting();
        self.send(line)?;
        let deadline = within(COMMAND);
        let mut output = String::new();
        loop {
            let answer = self
                .line(deadline, alive)
                .with_context(|| format!("{line}\n{output}"))?;
            if let Some(status) = answer.strip_prefix("agent: status ") {
                return Ok((output, status.parse()?));
            }
            output.push_str(&answer);
            output.push('\n');
        }
    }

    fn line(&mut self, deadline: Instant, alive: &mut dyn FnMut() -> Result<()>) -> Result<String> {
        loop {
            let line = self.from.next(deadline.min(within(SILENCE)));
            if line.is_ok() || Instant::now() >= deadline {
                return line;
            }
            alive()?;
        }
    }
}
