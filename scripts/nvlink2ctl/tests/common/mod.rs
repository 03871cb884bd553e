// SPDX-License-Identifier: GPL-2.0

//! How tests run the program on recordings, and change recordings.

#![allow(dead_code, reason = "not every test uses all of it")]

use assert_cmd::{Command, assert::Assert};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of the tests.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// The program.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_nvlink2ctl"))
}

/// Runs the program on a recording; arguments are separated by spaces.
pub fn run(recording: &Path, arguments: &str) -> Assert {
    program()
        .arg("--sysfs")
        .arg(recording)
        .args(arguments.split_whitespace())
        .assert()
}

/// What it printed.
pub fn output(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// A recording with changes, in a file that goes away with the first value.
pub fn changed(recording: &Path, change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let mut value: Value = serde_json::from_slice(&fs::read(recording).unwrap()).unwrap();
    change(&mut value["files"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.json");
    fs::write(&file, value.to_string()).unwrap();
    (folder, file)
}

/// A PCI function in the files of a recording.
pub fn device<'v>(files: &'v mut Value, bdf: &str) -> &'v mut Value {
    &mut files["sys"]["bus"]["pci"]["devices"][bdf]
}

/// A node of the device tree, by the names on its path.
pub fn node<'v>(files: &'v mut Value, path: &str) -> &'v mut Value {
    path.split('/').fold(
        &mut files["sys"]["firmware"]["devicetree"]["base"],
        |node, name| &mut node[name],
    )
}

/// Takes an entry out of a folder, which must have it.
pub fn remove(folder: &mut Value, name: &str) {
    folder.as_object_mut().unwrap().remove(name).unwrap();
}

/// A host of the cases; most domains are for "redbud", a machine with four GPUs of three links each.
pub fn host(case: &str) -> PathBuf {
    data(&format!("cases/{case}/host.json"))
}

/// What is expected of a command: its exit status, words that it says, and words that it does not say (these
/// with a minus in front). Standard output and standard error count alike.
pub type Row<'a> = (&'a str, i32, &'a [&'a str]);

/// Text without the white space that makes columns.
fn squeezed(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.join("\n")
}

/// Runs commands on a recording and compares what they say.
pub fn expect(recording: &Path, rows: &[Row]) {
    for (command, status, words) in rows {
        let done = run(recording, command).code(*status);
        let said = squeezed(&(output(&done) + &String::from_utf8_lossy(&done.get_output().stderr)));
        for word in *words {
            let (word, wanted) = match word.strip_prefix('-') {
                Some(word) => (word, false),
                None => (*word, true),
            };
            assert_eq!(
                said.contains(&squeezed(word)),
                wanted,
                "{command}: '{word}' in\n{said}"
            );
        }
    }
}

/// The same for a recording with a change.
pub fn expect_after(recording: &Path, change: impl FnOnce(&mut Value), rows: &[Row]) {
    let (_folder, file) = changed(recording, change);
    expect(&file, rows);
}

pub fn json_of(recording: &Path, command: &str) -> Value {
    let done = run(recording, &format!("--json {command}"));
    serde_json::from_str(&output(&done)).unwrap()
}

/// A command on a domain of the cases.
pub fn on_domain(command: &str, file: &str) -> String {
    format!("{command} {}", data(&format!("cases/{file}")).display())
}
