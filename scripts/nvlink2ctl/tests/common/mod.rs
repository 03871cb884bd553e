// SPDX-License-Identifier: GPL-2.0

//! How tests run the program on recordings, and change recordings.

#![allow(dead_code, reason = "not every test uses all of it")]

use assert_cmd::{Command, assert::Assert};
use serde_json::{Value, json};
use std::{
    fs,
    ops::Deref,
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

/// The recording of a host, with its file if that goes away with it.
pub struct Host {
    _folder: Option<tempfile::TempDir>,
    file: PathBuf,
}

impl Deref for Host {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.file
    }
}

/// Functions of the NPUs of a Redbud.
pub const BRIDGES: [&str; 12] = [
    "0006:00:00.0",
    "0006:00:00.1",
    "0006:00:00.2",
    "0006:00:01.0",
    "0006:00:01.1",
    "0006:00:01.2",
    "0007:00:00.0",
    "0007:00:00.1",
    "0007:00:00.2",
    "0007:00:01.0",
    "0007:00:01.1",
    "0007:00:01.2",
];

/// GPUs of a Redbud.
pub const GPUS: [&str; 4] = [
    "0004:04:00.0",
    "0004:05:00.0",
    "0035:03:00.0",
    "0035:04:00.0",
];

/// A host of the cases. Most domains are for "redbud", a machine with four GPUs of three links each.
///
/// They are recordings of emulated hosts, some with a change that makes them what people have reported; a
/// machine that nobody emulates has a file of its own.
pub fn host(case: &str) -> Host {
    let recording = |name: &str| data(&format!("recordings/{name}.json"));
    type Change = fn(&mut Value);
    let (base, change): (&str, Change) = match case {
        "redbud" => return Host::of(recording("4-gpus")),
        "empty-socket" => return Host::of(recording("4-empty")),
        "link-gone" => ("4-bound", |files| {
            remove(&mut files["sys"]["bus"]["pci"]["devices"], "0006:00:00.1");
            let debugfs = &mut files["sys"]["kernel"]["debug"]["nvlink2-vfio-pci"];
            remove(debugfs, "0006:00:00.1");
        }),
        "no-link-speed" => ("4-gpus", |files| {
            for bridge in BRIDGES {
                remove(node(files, &bridge_node(bridge)), "ibm,nvlink-speed");
            }
        }),
        "old-opal" => ("4-gpus", |files| {
            node(files, "ibm,opal/firmware")["version"] = "=skiboot-v6.0.20\0".into();
        }),
        "stock-kernel" => ("4-gpus", stock_kernel),
        _ => return Host::of(data(&format!("cases/{case}/host.json"))),
    };
    let (folder, file) = changed(&recording(base), change);
    Host {
        _folder: Some(folder),
        file,
    }
}

impl Host {
    fn of(file: PathBuf) -> Self {
        assert!(file.is_file(), "{}", file.display());
        Self {
            _folder: None,
            file,
        }
    }
}

/// The path of a bridge's node: the NPU of a domain, and slot and function in hexadecimal as OPAL has them.
pub fn bridge_node(bdf: &str) -> String {
    let npu = match &bdf[..4] {
        "0006" => "6030200000000",
        _ => "6230200000000",
    };
    let function = match &bdf[11..] {
        "0" => String::new(),
        function => format!(",{function}"),
    };
    format!("pciex@{npu}/unknown-bridge@{}{function}", &bdf[9..10])
}

/// A distribution's kernel: it has no support for NPUs, each GPU is in a group of its own, and there is no driver.
fn stock_kernel(files: &mut Value) {
    for bridge in BRIDGES {
        remove(&mut files["sys"]["bus"]["pci"]["devices"], bridge);
    }
    for (gpu, group) in GPUS.iter().zip([0, 1, 10, 11]) {
        device(files, gpu)["iommu_group"] = format!(">/sys/kernel/iommu_groups/{group}").into();
    }
    remove(
        &mut files["sys"]["bus"]["pci"]["drivers"],
        "nvlink2-vfio-pci",
    );
    remove(&mut files["sys"]["kernel"]["debug"], "nvlink2-vfio-pci");

    let release = files["proc"]["sys"]["kernel"]["osrelease"].take();
    files["proc"]["sys"]["kernel"]["osrelease"] = "=6.12.0\n".into();
    let release = release.as_str().unwrap().trim_matches(['=', '\n']);
    let config = files["boot"][format!("config-{release}")].take();
    let config = config
        .as_str()
        .unwrap()
        .replace("CONFIG_PPC_POWERNV_NPU2=y\n", "");
    files["boot"] = json!({ "config-6.12.0": config });
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
