// SPDX-License-Identifier: GPL-2.0

//! A stream of text lines, read with a limit on time.

use anyhow::{anyhow, Result};
use std::{
    env,
    io::{BufRead, BufReader, Read},
    sync::mpsc::{channel, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How much longer everything may take, on a slow kernel or machine: NVLINK2_TIME_FACTOR.
pub fn time_factor() -> u64 {
    let factor = env::var("NVLINK2_TIME_FACTOR").ok();
    factor.and_then(|f| f.parse().ok()).unwrap_or(1).max(1)
}

/// The lines that arrive from a socket, a port or a pipe.
pub struct Lines {
    received: Receiver<String>,
    /// Where they come from, for messages.
    source: String,
}

impl Lines {
    /// Reads `stream`, which messages call `source`, until its end.
    pub fn new(stream: impl Read + Send + 'static, source: &str) -> Self {
        let (send, received) = channel();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line);
                if send
                    .send(text.trim_end_matches(['\r', '\n']).to_owned())
                    .is_err()
                {
                    return;
                }
                line.clear();
            }
        });
        Self {
            received,
            source: source.to_owned(),
        }
    }

    /// The next line, which must arrive before `deadline`.
    pub fn next(&self, deadline: Instant) -> Result<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.received
            .recv_timeout(left)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => anyhow!("{}: nothing came in time", self.source),
                RecvTimeoutError::Disconnected => anyhow!("{}: closed", self.source),
            })
    }

    /// What is there already.
    pub fn waiting(&self) -> Vec<String> {
        self.received.try_iter().collect()
    }
}

/// The end of a limit of `seconds`, times the time factor.
pub fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds * time_factor())
}
