// SPDX-License-Identifier: GPL-2.0

//! What Documentation/driver/security.rst assumes of the hardware, and what a report says of it.
//!
//! A report shows little of most: that takes a GPU that works, with the vendor's driver in a guest.

use crate::{
    report::{Fact, Report, Verdict as Came},
    steps,
};
use serde::{Deserialize, Serialize};

/// What a report says of an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing of it was tried.
    Open,
    /// What was seen is as assumed.
    Seen,
    /// What was seen is not as assumed.
    Refuted,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Seen => "seen",
            Self::Refuted => "REFUTED",
        })
    }
}

/// An assumption, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The assumption, as the document names it.
    pub assumption: String,
    /// What the report says of it.
    pub verdict: Verdict,
    /// By what.
    pub because: String,
}

type Judge = fn(&Report) -> (Verdict, String);

/// The assumptions, in the order of the document, and then what else nobody knows.
pub const ASSUMPTIONS: [(&str, Judge); 8] = [
    ("A GPU forgets by four launches", by_the_vendors_driver),
    (
        "The nest MMU forgets by tlbie with RIC=2",
        by_the_vendors_driver,
    ),
    ("A shootdown ends, or is known not to", shootdowns),
    ("A fenced link carries nothing", fences),
    ("No translation without an entry", by_the_vendors_driver),
    ("A reset GPU has forgotten", resets),
    (
        "A GPU has no function level reset (not assumed, but not known)",
        function_level_reset,
    ),
    (
        "What a load of GPU RAM does while links are down (not assumed, but not known)",
        untrained,
    ),
];

/// What a report says of each.
pub fn judge(report: &Report) -> Vec<Judged> {
    ASSUMPTIONS
        .iter()
        .map(|(assumption, judge)| {
            let (verdict, because) = judge(report);
            Judged {
                assumption: (*assumption).to_owned(),
                verdict,
                because,
            }
        })
        .collect()
}

fn open(because: &str) -> (Verdict, String) {
    (Verdict::Open, because.to_owned())
}

/// Steps in which a person says what was seen.
pub const PERSONS: &str = "vendor-";

fn by_the_vendors_driver(report: &Report) -> (Verdict, String) {
    let answered: Vec<_> = report
        .steps
        .iter()
        .filter(|entry| entry.step.starts_with(PERSONS) && entry.done.verdict == Came::Passed)
        .map(|entry| entry.step.as_str())
        .collect();
    if answered.is_empty() {
        return open("only a guest with the vendor's driver shows it, and none was tried");
    }
    open(&format!(
        "a guest with the vendor's driver was tried; what a person saw is in {}",
        answered.join(", ")
    ))
}

/// Facts about links, while their GPU is open and untrained: number of link, value.
fn links<'r>(
    report: &'r Report,
    phase: &'static str,
    what: &'static str,
) -> impl Iterator<Item = &'r Fact> {
    report
        .facts()
        .filter(move |fact| fact.phase == phase && fact.what.starts_with(what))
}

fn names<'f>(facts: impl Iterator<Item = &'f Fact>) -> String {
    let all: Vec<_> = facts
        .map(|fact| format!("{}, {}: {}", fact.of, fact.what, fact.value))
        .collect();
    all.join("; ")
}

/// What the kernel says of a GPU that did not answer (admin-guide.rst).
const UNCONFIRMED: &str = "does not confirm that it dropped translations";

fn shootdowns(report: &Report) -> (Verdict, String) {
    let unconfirmed = report
        .steps
        .iter()
        .flat_map(|entry| entry.done.texts.values())
        .flat_map(|text| text.lines())
        .find(|line| line.contains(UNCONFIRMED));
    let busy: Vec<_> = links(report, "after", "ATSD STATUS")
        .filter(|fact| fact.value != "0" && fact.value != "0x0")
        .collect();
    let seen = links(report, "after", "ATSD STATUS").count();
    if !busy.is_empty() {
        return (
            Verdict::Seen,
            format!(
                "there are launches that do not end, and STATUS says so: {}",
                names(busy.into_iter())
            ),
        );
    }
    if let Some(line) = unconfirmed {
        return (
            Verdict::Seen,
            format!("a GPU did not answer in time, and the kernel saw it: {line}"),
        );
    }
    match seen {
        0 => open("no step has bound a GPU"),
        _ => open(&format!(
            "STATUS was 0 of {seen} registers after bindings with links down, so no launch was left over; \
             whether one was made the report does not say"
        )),
    }
}

fn fences(report: &Report) -> (Verdict, String) {
    let seen = links(report, "bound", "fence of link").count();
    let open_links: Vec<_> = links(report, "bound", "fence of link")
        .filter(|fact| fact.value == "0")
        .collect();
    match (seen, open_links.is_empty()) {
        (0, _) => open("no step has bound a GPU"),
        (_, true) => (
            Verdict::Seen,
            format!(
                "of a GPU that was just reset all links, {seen} in all, were fenced; what passes a fence was not tried"
            ),
        ),
        (_, false) => (
            Verdict::Refuted,
            format!(
                "links were down, as their GPU was just reset, and not fenced: {}",
                names(open_links.into_iter())
            ),
        ),
    }
}

fn resets(report: &Report) -> (Verdict, String) {
    let seen = links(report, "bound", "fence of link").count();
    let trained_before = links(report, "before", "fence of link")
        .filter(|fact| fact.value == "0")
        .count();
    let open_after = links(report, "bound", "fence of link")
        .filter(|fact| fact.value == "0")
        .count();
    match (seen, trained_before, open_after) {
        (0, _, _) => open("no step has bound a GPU"),
        (_, _, 1..) => open("whether links that are not fenced are down a report does not say"),
        (_, 0, 0) => open("no link was in use before the reset"),
        (_, count, 0) => (
            Verdict::Seen,
            format!(
                "{count} links were in use, and the reset fenced them; what GPUs know was not tried"
            ),
        ),
    }
}

fn function_level_reset(report: &Report) -> (Verdict, String) {
    let of_gpus: Vec<_> = report
        .facts()
        .filter(|fact| fact.what == "reset_method of GPU")
        .collect();
    let with: Vec<_> = of_gpus
        .iter()
        .copied()
        .filter(|fact| fact.value.split_whitespace().any(|method| method == "flr"))
        .collect();
    match (of_gpus.is_empty(), with.is_empty()) {
        (true, _) => open("no reset_method was read"),
        (false, true) => (Verdict::Seen, names(of_gpus.into_iter())),
        (false, false) => (Verdict::Refuted, names(with.into_iter())),
    }
}

fn untrained(report: &Report) -> (Verdict, String) {
    let ended = report
        .steps
        .iter()
        .any(|entry| entry.step.starts_with("untrained") && entry.done.verdict == Came::Begun);
    if ended {
        return (
            Verdict::Seen,
            "it ended the host, or the program".to_owned(),
        );
    }
    let last = report
        .facts()
        .filter(|fact| fact.phase == "untrained" && fact.what == "load")
        .last();
    match last {
        None => open("it is only done by --dangerous"),
        Some(load) => (
            Verdict::Seen,
            format!("of {}, it {}", load.of, steps::outcome(&load.value)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_same() {
        let text = include_str!("../../../Documentation/driver/security.rst");
        let (_, text) = text.split_once("What we assume of the hardware\n").unwrap();
        let (text, _) = text.split_once("How it was tried\n").unwrap();
        let lines: Vec<_> = text.lines().collect();
        let titles: Vec<_> = lines
            .windows(2)
            .filter(|pair| pair[1].starts_with("   *Assumed:*"))
            .map(|pair| pair[0])
            .collect();
        let ours: Vec<_> = ASSUMPTIONS.iter().map(|(name, _)| *name).collect();

        assert!(titles.len() > 3);
        assert_eq!(ours[..titles.len()], titles[..]);
        assert!(
            ours[titles.len()..]
                .iter()
                .all(|name| name.ends_with("(not assumed, but not known)"))
        );
    }

    #[test]
    fn the_guide_has_the_message() {
        let guide = include_str!("../../../Documentation/admin-guide.rst");
        assert!(guide.contains(UNCONFIRMED));
    }
}
