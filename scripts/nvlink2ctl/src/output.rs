// SPDX-License-Identifier: GPL-2.0

//! How results are printed: as tables for people, as JSON for programs.

use crate::finding::{self, Finding};
use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// A table with a line of titles.
pub fn table(titles: &[&str]) -> Table {
    let mut table = untitled();
    table.set_header(titles.iter().copied());
    table
}

/// A table without titles.
pub fn untitled() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Prints lines; a reader who has read enough is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let lines: String = text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();

    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Prints findings, and `all_well` if none of them is a failure.
pub fn findings(findings: &[Finding], as_json: bool, all_well: &str) -> Result<()> {
    if as_json {
        return json(&findings);
    }
    let mut text: String = findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect();
    text += &match finding::failures(findings) {
        0 => all_well.to_owned(),
        1 => "1 check failed.".to_owned(),
        failed => format!("{failed} checks failed."),
    };
    print(&text)
}

/// An optional value, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if let Some(count) = bytes.checked_shr(shift).filter(|count| *count != 0) {
            if count.checked_shl(shift) == Some(bytes) {
                return format!("{count} {unit}");
            }
        }
    }
    format!("{bytes} bytes")
}
