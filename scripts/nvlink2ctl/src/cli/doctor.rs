// SPDX-License-Identifier: GPL-2.0

//! `doctor`.

use super::{Options, output, source};
use crate::{
    doctor::{self, Verdict},
    exit::Status,
    host::Host,
};
use anyhow::Result;

/// Prints what is right and what is wrong with a host.
pub fn run(options: &Options) -> Result<Status> {
    let source = source(options)?;
    let findings = doctor::examine(&source, &Host::read(&source));
    let failed = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Failed)
        .count();

    if options.json {
        output::json(&findings)?;
    } else {
        let mut text = String::new();
        for finding in &findings {
            text += &format!(
                "{:7} {}: {}\n",
                finding.verdict.to_string(),
                finding.check,
                finding.found
            );
            if let Some(remedy) = &finding.remedy {
                text += &format!("        -> {remedy}\n");
            }
        }
        text += &match failed {
            0 => "This host is ready.".to_owned(),
            1 => "1 check failed.".to_owned(),
            failed => format!("{failed} checks failed."),
        };
        output::print(&text)?;
    }
    Ok(if failed == 0 {
        Status::Done
    } else {
        Status::No
    })
}
