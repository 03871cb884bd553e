// SPDX-License-Identifier: GPL-2.0

//! What a check found: of a host ([`crate::doctor`]) or of a domain ([`crate::check`]).

use serde::Serialize;
use std::fmt;

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it has to be.
    Ok,
    /// Not as it has to be.
    Failed,
    /// Neither is wrong, but it is good to know.
    Note,
    /// Not looked at, because something else is missing.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Note => "note",
            Self::Skipped => "skipped",
        })
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// What came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is as it has to be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// Nothing is wrong, but it is good to know.
    pub fn note(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Note,
            ..Self::ok(check, found)
        }
    }

    /// Nothing was looked at.
    pub fn skipped(check: &'static str, why: &str) -> Self {
        Self {
            verdict: Verdict::Skipped,
            ..Self::ok(check, why)
        }
    }

    /// Something is wrong.
    pub fn failed(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Failed,
            ..Self::ok(check, found)
        }
        .with_remedy(remedy)
    }

    /// The same, with what to do about it.
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7} {}: {}", self.verdict, self.check, self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n        -> {remedy}"),
            None => Ok(()),
        }
    }
}

/// How many of the findings are failures.
pub fn failures(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Failed)
        .count()
}
