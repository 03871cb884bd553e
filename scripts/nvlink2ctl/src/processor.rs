// SPDX-License-Identifier: GPL-2.0

//! Which processor a host has, as Linux says it.

use crate::source::Source;

const FILE: &str = "/proc/cpuinfo";

/// A host's processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Its name, such as `POWER9, altivec supported`.
    pub name: String,
    /// `Radix` or `Hash`.
    pub mmu: String,
}

impl Processor {
    /// Reads what is known; empty where nothing is.
    pub fn read(source: &Source) -> Self {
        let bytes = source.peek(FILE).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // Of dozens of threads, a recording needs only one.
        let lines: Vec<_> = ["cpu", "platform", "MMU"]
            .iter()
            .filter_map(|key| text.lines().find(|line| key_of(line) == Some(*key)))
            .collect();
        let value = |key| {
            let line = lines.iter().find(|line| key_of(line) == Some(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };

        if !lines.is_empty() {
            source.remember(FILE, lines.join("\n").as_bytes());
        }
        Self {
            name: value("cpu").unwrap_or_default(),
            mmu: value("MMU").unwrap_or_default(),
        }
    }

    /// Whether it is a POWER9, the only processor with NVLink2.
    pub fn is_power9(&self) -> bool {
        self.name.starts_with("POWER9")
    }
}

fn key_of(line: &str) -> Option<&str> {
    Some(line.split_once(':')?.0.trim())
}
