// SPDX-License-Identifier: GPL-2.0

//! `check-domain`.

use super::{Options, host, output, read, source};
use crate::{
    check,
    domain::{Domain, Fault, NoFunction},
    exit::Status,
    finding::{self, Finding},
    phb::Impossible,
};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Which domain.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// XML of a libvirt domain ('virsh dumpxml --inactive'); '-' is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints what is wrong with a domain.
pub fn run(options: &Options, arguments: &Arguments) -> Result<Status> {
    let text = read(&arguments.file)?;
    let findings = match examine(options, &text) {
        Ok(findings) => findings,
        // What libvirt would not define or start is an answer, not an error.
        Err(error) if is_refusal(&error) => vec![Finding::failed(
            "definition",
            format!("{error:#}"),
            "Correct the domain's XML ('virsh edit')",
        )],
        Err(error) => return Err(error.context(arguments.file.display().to_string())),
    };

    output::findings(
        &findings,
        options.json,
        "Nothing is known to be wrong with this domain.",
    )?;
    Ok(match finding::failures(&findings) {
        0 => Status::Done,
        _ => Status::No,
    })
}

fn examine(options: &Options, text: &str) -> Result<Vec<Finding>> {
    let domain = Domain::parse(text)?;
    let host = host(options)?;
    let assessment = domain.limit(|bdf| host.known(bdf))?;
    let mut findings = check::examine(
        &domain,
        &assessment,
        &host,
        &source(options).context("--sysfs")?,
    );

    findings.extend(
        assessment
            .remarks
            .into_iter()
            .map(|remark| Finding::note("not followed", remark)),
    );
    Ok(findings)
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.is::<Fault>() || error.is::<Impossible>() || error.is::<NoFunction>()
}
