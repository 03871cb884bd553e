// SPDX-License-Identifier: GPL-2.0

//! The recording of an emulated host with any values of files and properties, and with files missing.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nvlink2ctl::{doctor, host::Host, recording::Recording, source::Source};
use serde_json::Value;

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    /// A property gets these bytes.
    Bytes(&'a [u8]),
    /// A cell of it gets this value.
    Cell(u8, u32),
    /// A link leads to where this other entry is a link to, or a file has its content.
    Copy(u16),
    /// It is gone.
    Remove,
}

#[derive(Arbitrary, Debug)]
enum Base {
    Redbud,
    Bound,
    Sequoia,
    EmptySocket,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    base: Base,
    changes: Vec<(u16, Change<'a>)>,
}

/// Pointers to all files and links.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(folder) => {
            for (name, entry) in folder {
                leaves(entry, format!("{path}/{}", name.replace('~', "~0")), found);
            }
        }
        _ => found.push(path),
    }
}

fn hex(bytes: &[u8]) -> Value {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("#{digits}").into()
}

fuzz_target!(|input: Input<'_>| {
    let text = match input.base {
        Base::Redbud => include_str!("../../tests/recordings/4-gpus.json"),
        Base::Bound => include_str!("../../tests/recordings/4-bound.json"),
        Base::Sequoia => include_str!("../../tests/recordings/6-bound.json"),
        Base::EmptySocket => include_str!("../../tests/recordings/4-empty.json"),
    };
    let mut recording: Value = serde_json::from_str(text).unwrap();
    let mut paths = Vec::new();
    leaves(&recording["files"], "/files".into(), &mut paths);

    for (number, change) in input.changes {
        let path = &paths[usize::from(number) % paths.len()];
        let Some(old) = recording.pointer(path).cloned() else {
            continue;
        };
        let new = match change {
            Change::Bytes(bytes) => hex(bytes),
            Change::Cell(index, value) => {
                let text = old.as_str().unwrap_or_default();
                let at = 1 + usize::from(index) * 8;
                match (text.get(..at), text.get(at + 8..)) {
                    (Some(head), Some(tail)) if head.starts_with('#') => {
                        format!("{head}{value:08x}{tail}").into()
                    }
                    _ => continue,
                }
            }
            Change::Copy(other) => {
                let other = &paths[usize::from(other) % paths.len()];
                match recording.pointer(other) {
                    Some(value) => value.clone(),
                    None => continue,
                }
            }
            Change::Remove => {
                let (folder, name) = path.rsplit_once('/').unwrap();
                if let Some(Value::Object(folder)) = recording.pointer_mut(folder) {
                    folder.remove(&name.replace("~0", "~"));
                }
                continue;
            }
        };
        *recording.pointer_mut(path).unwrap() = new;
    }
    let recording = Recording::parse(recording.to_string().as_bytes()).unwrap();
    let source = Source::recorded(recording);
    let host = Host::read(&source);

    doctor::examine(&source, &host);
    for gpu in &host.gpus {
        let _ = host.incomplete(gpu);
    }
    serde_json::to_string(&host).unwrap();
});
