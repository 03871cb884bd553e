// SPDX-License-Identifier: GPL-2.0

//! Any text as the XML of a domain: it is refused, or has a limit that is the sum of its terms.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nvlink2ctl::{
    check,
    domain::{Domain, Known},
    host::Host,
    recording::Recording,
    source::Source,
    units::UNLIMITED,
};
use std::cell::OnceCell;

/// An emulated machine with four GPUs of three links each.
const REDBUD: &str = include_str!("../../tests/recordings/4-gpus.json");

thread_local! {
    static HOST: OnceCell<(Source, Host)> = const { OnceCell::new() };
}

/// Checks a domain on a real host, if that has all of its functions.
fn check(domain: &Domain) {
    HOST.with(|cell| {
        let (source, host) = cell.get_or_init(|| {
            let source = Source::recorded(Recording::parse(REDBUD.as_bytes()).unwrap());
            let host = Host::read(&source);
            (source, host)
        });
        if let Ok(assessment) = domain.limit(|bdf| host.known(bdf)) {
            let findings = check::examine(domain, &assessment, host, source);
            assert!(findings.iter().all(|finding| !finding.found.is_empty()));
        }
    });
}

fuzz_target!(|text: &str| {
    let Ok(domain) = Domain::parse(text) else {
        return;
    };
    check(&domain);
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
