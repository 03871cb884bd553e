// SPDX-License-Identifier: GPL-2.0

//! What has to hold.

use crate::measurement::Measurements;
use serde::Serialize;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const BAR1: u64 = 256 * MIB;

/// A limit of a value.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// One thing that has to hold.
#[derive(Serialize)]
pub struct Criterion {
    /// For a person.
    pub what: &'static str,
    /// `None`: it was not measured.
    pub value: Option<f64>,
    /// What the value must respect.
    pub limit: Limit,
}

impl Criterion {
    /// Whether it holds; what was not measured does not.
    pub fn holds(&self) -> bool {
        self.value.is_some_and(|value| match self.limit {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
        })
    }
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}

/// Returns what has to hold of `ours`, with `peer` measured on the original driver.
pub fn all(ours: &Measurements, peer: Option<&Measurements>) -> Vec<Criterion> {
    use Limit::{AtLeast, AtMost};

    let cost = |benchmark, variant, size| {
        ours.get(benchmark, variant, size)
            .map(|median| median.instructions)
    };
    let count = |benchmark, variant, size| {
        ours.get(benchmark, variant, size)
            .map(|median| median.count as f64)
    };
    let mut list = Vec::new();
    let mut add = |what, value, limit| list.push(Criterion { what, value, limit });

    add(
        "faults while 1 GiB is touched page by page",
        count("populate", "1 GiB", GIB),
        AtMost(1.0),
    );
    add(
        "the same in pages of 64 KiB",
        count("populate", "64 KiB", GIB),
        AtLeast(16384.0),
    );
    add(
        "1 GiB populated in pages of 64 KiB / in one page",
        ratio(
            cost("populate", "64 KiB", GIB),
            cost("populate", "1 GiB", GIB),
        ),
        AtLeast(500.0),
    );
    add(
        "offset of mmap(NULL, 128 GiB) from a multiple of 1 GiB",
        count("mmap of the aperture", "", 128 * GIB),
        AtMost(0.0),
    );
    add(
        "entries of the second stage when a guest has touched 1 GiB",
        count("guest populates", "1 GiB", GIB),
        AtMost(2.0),
    );
    add(
        "fault of 64 KiB / vfio-pci's of a BAR",
        ratio(
            cost("fault", "64 KiB", BAR1),
            cost("fault of a BAR", "64 KiB", BAR1),
        ),
        AtMost(1.0),
    );
    add(
        "fault of 2 MiB / vfio-pci's of a BAR",
        ratio(
            cost("fault", "2 MiB", BAR1),
            cost("fault of a BAR", "2 MiB", BAR1),
        ),
        AtMost(1.05),
    );
    add(
        "zap of 4 GiB in four pages / of nothing",
        ratio(cost("zap", "1 GiB", 4 * GIB), cost("zap", "1 GiB", 0)),
        AtMost(2.0),
    );
    add(
        "zap of 4 GiB in pages of 64 KiB / in four pages",
        ratio(
            cost("zap", "64 KiB", 4 * GIB),
            cost("zap", "1 GiB", 4 * GIB),
        ),
        AtLeast(100.0),
    );
    add(
        "pread() of 64 MiB / a copy through the mapping",
        ratio(
            cost("copy", "out, pread()", 64 * MIB),
            cost("copy", "out, mapping", 64 * MIB),
        ),
        AtMost(1.1),
    );
    add(
        "pwrite() of 64 MiB / a copy through the mapping",
        ratio(
            cost("copy", "in, pwrite()", 64 * MIB),
            cost("copy", "in, mapping", 64 * MIB),
        ),
        AtMost(1.1),
    );
    add(
        "shootdowns launched for 1,000 munmap() beside a guest's memory",
        count("munmap", "beside the guest's memory", 1000),
        AtMost(0.0),
    );
    add(
        "launches for a page of a guest's memory",
        count("munmap", "of the guest's memory", 1),
        AtMost(4.0),
    );
    if let Some(peer) = peer {
        add(
            "region info / the original's",
            ratio(
                cost("region info", "", 0),
                peer.get("region info", "", 0)
                    .map(|median| median.instructions),
            ),
            // The chain of capabilities moves as it grows, in vfio-pci-core: 7% of a call that is made at set-up.
            AtMost(1.10),
        );
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let nothing = Measurements::parse("# x\n").expect("no lines are fine");

        assert!(all(&nothing, None).iter().all(|c| !c.holds()));
    }

    #[test]
    fn limits() {
        let holds = |value, limit| {
            Criterion {
                what: "",
                value: Some(value),
                limit,
            }
            .holds()
        };

        assert!(holds(1.05, Limit::AtMost(1.05)));
        assert!(!holds(1.06, Limit::AtMost(1.05)));
        assert!(holds(500.0, Limit::AtLeast(500.0)));
        assert!(!holds(499.9, Limit::AtLeast(500.0)));
    }
}
