// SPDX-License-Identifier: GPL-2.0

//! Any bytes as a recording, and what the program makes of that host.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nvlink2ctl::{doctor, host::Host, recording::Recording, source::Source};

fuzz_target!(|bytes: &[u8]| {
    let Ok(recording) = Recording::parse(bytes) else {
        return;
    };
    let source = Source::recorded(recording).logged();
    let host = Host::read(&source);
    let findings = doctor::examine(&source, &host);
    let (host, findings) = (
        serde_json::to_string(&host).unwrap(),
        serde_json::to_string(&findings).unwrap(),
    );

    // What was read of it says the same.
    let again = source.into_log().text().unwrap();
    let source = Source::recorded(Recording::parse(again.as_bytes()).unwrap());
    let second = Host::read(&source);
    assert_eq!(serde_json::to_string(&second).unwrap(), host);
    assert_eq!(
        serde_json::to_string(&doctor::examine(&source, &second)).unwrap(),
        findings
    );
});
