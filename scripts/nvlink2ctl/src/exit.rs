// SPDX-License-Identifier: GPL-2.0

//! How the program ends.

use std::process::ExitCode;

/// What the exit status says; README.md documents the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done; the answer is yes; every check passed.
    Done = 0,
    /// The answer is no; a check failed.
    No = 1,
    /// Wrong usage, unreadable input, or anything that has no number of its own.
    Error = 2,
    /// The host has no GPU with NVLink2 to its processors.
    NoNvlink2 = 3,
    /// Refused before anything was changed: a device is in use, RAM of a GPU is memory of the host, a group would
    /// not be viable, a GPU lacks one of its bridges, or there is no such driver.
    Refused = 4,
    /// A device could not be given to its driver; what was changed before is as it was.
    RolledBack = 5,
    /// As above, but not everything could be put back.
    HalfDone = 6,
}

impl Status {
    /// The number of the exit status.
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Error => 2,
            Self::NoNvlink2 => 3,
            Self::Refused => 4,
            Self::RolledBack => 5,
            Self::HalfDone => 6,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.number())
    }
}

/// An error that has an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stop {
    /// The exit status.
    pub status: Status,
    /// What happened and what to do about it.
    pub message: String,
}

impl Stop {
    /// An error that ends the program with `status`.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

/// The exit status of any error.
pub fn status_of(error: &anyhow::Error) -> Status {
    error
        .downcast_ref::<Stop>()
        .map_or(Status::Error, |stop| stop.status)
}
