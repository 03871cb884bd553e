// SPDX-License-Identifier: GPL-2.0

//! Programs of the bundle, which are beside this one.

use anyhow::{Context, Result};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// What a program printed, both ways, and how it ended.
pub struct Output {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }

    /// How it ended and what it printed, for a person.
    pub fn text(&self) -> String {
        let status = self
            .status
            .map_or_else(|| "a signal".to_owned(), |status| status.to_string());
        format!("{}{}ended with {status}\n", self.out, self.err)
    }
}

/// The folder of the bundle.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    Ok(program
        .parent()
        .context("this program is in no folder")?
        .to_owned())
}

/// A file of the bundle, if it is there.
pub fn beside(name: &str) -> Option<PathBuf> {
    let path = folder().ok()?.join(name);
    path.exists().then_some(path)
}

/// Runs a program of the bundle, or of the host if `program` has no slash.
pub fn run(program: &str, arguments: &[&str]) -> Result<Output> {
    let path = beside(program).unwrap_or_else(|| PathBuf::from(program));
    let output = Command::new(&path)
        .args(arguments)
        // Of selftests: the GPUs may be real ones.
        .env("NVLINK2_HARDWARE", "1")
        .stdin(Stdio::null())
        .output()
        .with_context(|| path.display().to_string())?;
    Ok(Output {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code(),
    })
}
