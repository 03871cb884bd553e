// SPDX-License-Identifier: GPL-2.0

//! `doctor`.

use super::{Options, output, source};
use crate::{doctor, exit::Status, finding, host::Host};
use anyhow::Result;

/// Prints what is right and what is wrong with a host.
pub fn run(options: &Options) -> Result<Status> {
    let source = source(options)?;
    let findings = doctor::examine(&source, &Host::read(&source));

    output::findings(&findings, options.json, "This host is ready.")?;
    Ok(match finding::failures(&findings) {
        0 => Status::Done,
        _ => Status::No,
    })
}
