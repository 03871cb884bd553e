// SPDX-License-Identifier: GPL-2.0

//! Any text as the XML of a domain: it is refused, or has a limit that is the sum of its terms.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nvlink2ctl::{
    domain::{Domain, Known},
    units::UNLIMITED,
};

fuzz_target!(|text: &str| {
    let Ok(domain) = Domain::parse(text) else {
        return;
    };
    // Every function exists: groups by bus, bridges by slot.
    let host = |bdf: nvlink2ctl::bdf::Bdf| {
        Some(Known {
            group: (bdf.bus != 0).then_some(bdf.bus.into()),
            bridge: bdf.slot % 2 == 1,
        })
    };
    let Ok(assessment) = domain.limit(host) else {
        return;
    };
    let limit = assessment.limit;
    let sum: u64 = limit.terms.iter().map(|term| term.kib.0).sum();
    assert!(limit.terms.is_empty() || sum * 1024 == limit.bytes);
    assert_eq!(limit.unlimited, limit.bytes == UNLIMITED);
    assert!(assessment.host_bridges.len() <= 32);
    assert_eq!(assessment.host_bridges.is_empty(), !domain.pseries);
});
