// SPDX-License-Identifier: GPL-2.0

//! The program on recordings of emulated hosts: what a report says first, and how a run goes on.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use assert_cmd::Command;
use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../nvlink2ctl/tests/recordings")
        .join(name)
}

/// The folder of a report, and what it is about.
struct Trial {
    folder: tempfile::TempDir,
    recording: PathBuf,
}

impl Trial {
    fn of(name: &str) -> Self {
        Self::changed(name, |_| {})
    }

    fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut value: Value = serde_json::from_slice(&fs::read(recording(name)).unwrap()).unwrap();
        change(&mut value["files"]);
        let file = folder.path().join("recording.json");
        fs::write(&file, value.to_string()).unwrap();
        Self {
            folder,
            recording: file,
        }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvlink2-trial"));
        command
            .current_dir(self.folder.path())
            .arg("--sysfs")
            .arg(&self.recording)
            .args(arguments.split_whitespace());
        command
    }

    fn report(&self) -> Value {
        let file = self.folder.path().join("nvlink2-trial-report.json");
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }
}

impl Trial {
    /// Has the report say of a step what an earlier run, on a machine, would have said.
    fn set(&self, step: &str, what: Value) {
        self.change(|report| {
            let steps = report["steps"].as_array_mut().unwrap();
            let entry = steps.iter_mut().find(|entry| entry["step"] == step);
            let entry = entry.unwrap().as_object_mut().unwrap();
            entry.extend(what.as_object().unwrap().clone());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut report = self.report();
        change(&mut report);
        let file = self.folder.path().join("nvlink2-trial-report.json");
        fs::write(file, report.to_string()).unwrap();
    }
}

fn verdict<'r>(report: &'r Value, step: &str) -> &'r str {
    report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["step"] == step)
        .unwrap()["verdict"]
        .as_str()
        .unwrap()
}

#[test]
fn a_good_host_has_nothing_wrong() {
    let trial = Trial::of("4-bound.json");
    trial
        .command("--yes")
        .assert()
        .code(0)
        .stdout(contains("NOTHING IS WRONG"));
    let report = trial.report();
    for step in ["doctor", "device-tree", "doctor-bound"] {
        assert_eq!(verdict(&report, step), "passed", "{step}");
    }
    // Nothing of another machine is done on this one.
    for step in ["bind", "selftest-lpar", "bound-0004:04:00.0", "give-back"] {
        assert_eq!(verdict(&report, step), "skipped", "{step}");
    }
    assert!(
        trial
            .folder
            .path()
            .join("nvlink2-trial-report.txt")
            .exists()
    );
}

#[test]
fn what_only_guests_need_is_no_obstacle() {
    let trial = Trial::changed("4-bound.json", |files| {
        files["proc"]["self"]["status"] = "=CapEff:\t0\n".into();
    });
    trial.command("--yes").assert().code(0).stdout(contains(
        "note    locked memory: this user may lock no bytes",
    ));
}

#[test]
fn bridges_that_are_not_bound_come_first() {
    let trial = Trial::changed("4-bound.json", |files| {
        for function in 0..3 {
            files["sys"]["bus"]["pci"]["devices"][format!("0006:00:00.{function}")]
                .as_object_mut()
                .unwrap()
                .remove("driver")
                .unwrap();
        }
    });
    trial.command("--yes").assert().code(1);
    let wrong = &trial.report()["wrong"];
    let first = wrong[0].as_str().unwrap();
    assert!(first.starts_with("doctor-bound: binding: "), "{first}");
    assert!(first.contains("not all bridges of 0004:04:00.0"), "{first}");
}

#[test]
fn bad_firmware_comes_first() {
    let trial = Trial::changed("4-bound.json", |files| {
        let tree = &mut files["sys"]["firmware"]["devicetree"]["base"];
        tree["pciex@6030200000000"]["ibm,mmio-atsd"] = "#00".into();
    });
    trial.command("--yes").assert().code(1);
    let report = trial.report();
    let first = report["wrong"][0].as_str().unwrap();
    assert!(first.starts_with("doctor: "), "{first}");
    assert!(report["wrong"].to_string().contains("ibm,mmio-atsd"));
    assert_eq!(verdict(&report, "device-tree"), "failed");
}

#[test]
fn a_kernel_without_the_series_comes_first() {
    let trial = Trial::changed("4-gpus.json", |files| {
        let devices = files["sys"]["bus"]["pci"]["devices"]
            .as_object_mut()
            .unwrap();
        devices.retain(|bdf, _| !bdf.starts_with("0006:") && !bdf.starts_with("0007:"));
    });
    trial.command("--yes").assert().code(1);
    let report = trial.report();
    let first = report["wrong"][0].as_str().unwrap();
    assert!(
        first.starts_with("doctor: NVLink2 bridges: ")
            && first.contains("the kernel has no support for NPUs"),
        "{first}"
    );
}

#[test]
fn a_run_goes_on_where_it_was() {
    let trial = Trial::of("4-gpus.json");
    trial.command("--yes").assert().code(1);
    // What passed is not done again; what failed is, and so is what only reads.
    trial.set("selftest-atsd", json!({ "verdict": "passed" }));
    trial
        .command("--yes")
        .assert()
        .code(1)
        .stderr(contains("doctor-bound: "))
        .stderr(contains("device-tree: "))
        .stderr(contains("selftest-atsd: ").not());
    assert_eq!(verdict(&trial.report(), "selftest-atsd"), "passed");
    // Whatever ended the host, the next run finds what it was at.
    trial.set("selftest-lpar", json!({ "verdict": "begun" }));
    trial.command("--only doctor").assert().code(1);
    let wrong = trial.report()["wrong"].to_string();
    assert!(
        wrong.contains("selftest-lpar: it was begun, and something ended it"),
        "{wrong}"
    );
    trial
        .command("--yes --fresh --only doctor")
        .assert()
        .code(0);
}

/// Whatever a run leaves out: what an earlier one found stays, and the report says it first.
#[test]
fn what_was_found_stays() {
    let trial = Trial::of("4-bound.json");
    trial.command("--yes").assert().code(0);
    trial.set(
        "selftest-lpar",
        json!({ "verdict": "failed", "wrong": ["not ok 3 lpar.second_vm_is_refused"] }),
    );
    trial.set("untrained", json!({ "verdict": "begun" }));
    for arguments in [
        "--only doctor",
        "--yes --skip selftest-lpar",
        "--yes",
        "--yes --again untrained",
        "--yes --only untrained",
    ] {
        trial
            .command(arguments)
            .assert()
            .code(1)
            .stdout(contains("WHAT IS WRONG FIRST"))
            .stderr(contains(
                "untrained: something ended it in an earlier run, and it is not done again without --again untrained",
            ));
        let report = trial.report();
        assert_eq!(verdict(&report, "selftest-lpar"), "failed", "{arguments}");
        assert_eq!(verdict(&report, "untrained"), "begun", "{arguments}");
        let wrong = report["wrong"].to_string();
        for words in ["second_vm_is_refused", "untrained: it was begun"] {
            assert!(wrong.contains(words), "{arguments}: {wrong}");
        }
    }
}

/// First a stock kernel, then one with the series, as trial.rst says: the report is of the second, and says what is not.
#[test]
fn a_report_is_of_the_kernel_that_runs() {
    let trial = Trial::of("4-bound.json");
    trial.command("--yes").assert().code(0);
    let machine = trial.report()["machine"].clone();
    for step in ["doctor", "selftest-lpar"] {
        trial.set(
            step,
            json!({ "verdict": "passed", "summary": "of old", "kernel": "5.10.0 #1" }),
        );
    }
    trial.change(|report| report["machine"] = json!("a host, Linux 5.10.0"));
    trial.command("--yes").assert().code(0).stdout(
        contains("(on Linux 5.10.0) of old")
            .count(1)
            .and(contains("a host, Linux 5.10.0").not()),
    );
    let report = trial.report();
    assert_eq!(report["machine"], machine);
    // What only reads was done again; what this recording cannot do is still what it was, and of which kernel.
    for entry in report["steps"].as_array().unwrap() {
        let old = entry["step"] == "selftest-lpar";
        assert_eq!(entry["kernel"] == "5.10.0 #1", old, "{entry}");
        assert_eq!(entry["summary"] == "of old", old, "{entry}");
    }
}

/// A home that machines share: the report of one is not gone on with on the other.
#[test]
fn a_report_is_of_one_machine() {
    let trial = Trial::of("4-bound.json");
    trial.command("--yes").assert().code(0);
    let before = trial.report();
    for (place, name) in [(0, "another model"), (1, "another-host")] {
        let mut other = before.clone();
        other["identity"][place] = json!(name);
        trial.change(|report| *report = other.clone());
        trial
            .command("--yes")
            .assert()
            .code(2)
            .stderr(contains(name).and(contains("--fresh")));
        assert_eq!(trial.report(), other);
    }
    trial.command("--yes --output mine").assert().code(0);
    trial.command("--yes --fresh").assert().code(0);
    trial.command("--yes").assert().code(0);
}

#[test]
fn nothing_dangerous_is_done_by_yes() {
    let trial = Trial::of("4-bound.json");
    trial.command("--yes").assert().code(0);
    assert_eq!(verdict(&trial.report(), "untrained"), "declined");
    trial
        .command("--dangerous doctor")
        .assert()
        .code(2)
        .stderr(contains("doctor is not dangerous"));
    trial
        .command("--skip nonsense")
        .assert()
        .code(2)
        .stderr(contains("there is no step nonsense"));
}

#[test]
fn a_report_that_was_sent_is_shown() {
    let trial = Trial::of("4-bound.json");
    trial.command("--yes").assert().code(0);
    trial
        .command("--show nvlink2-trial-report.json")
        .assert()
        .code(0)
        .stdout(contains("A fenced link carries nothing: open"));
    fs::write(trial.folder.path().join("other.json"), "{}").unwrap();
    trial
        .command("--show other.json")
        .assert()
        .code(2)
        .stderr(contains("no report of nvlink2-trial"));
    let mut report = trial.report();
    report["format"] = json!("nvlink2-trial report 0");
    fs::write(trial.folder.path().join("other.json"), report.to_string()).unwrap();
    trial
        .command("--show other.json")
        .assert()
        .code(2)
        .stderr(contains("this program reads 'nvlink2-trial report 1'"));
}

/// The example of the documents.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../Documentation")
        .join(name)
}

/// `scripts/record trial` makes the example again.
#[test]
fn the_example_is_a_report_of_this_program() {
    let sent = example("trial-report.json");
    let report: Value = serde_json::from_slice(&fs::read(&sent).unwrap()).unwrap();
    let shown = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_nvlink2-trial"))
            .arg("--show")
            .arg(&sent)
            .args(arguments)
            .assert()
            .code(0);
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    // Nothing of it is unknown to the program, and nothing that the program writes is missing.
    let read: Value = serde_json::from_str(&shown(&["--json"])).unwrap();
    assert_eq!(read, report);
    let text = fs::read_to_string(example("trial-report.txt")).unwrap();
    assert_eq!(shown(&[]), text);

    // On the same host the program has the same steps, and those that only read find the same.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.json");
    fs::write(&file, report["recording"].to_string()).unwrap();
    let trial = Trial {
        folder,
        recording: file,
    };
    trial.command("--yes").assert().code(1);
    let again = trial.report();
    let names = |report: &Value| -> Vec<String> {
        let steps = report["steps"].as_array().unwrap();
        steps
            .iter()
            .map(|step| step["step"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&again), names(&report));
    for (step, of_example) in again["steps"]
        .as_array()
        .unwrap()
        .iter()
        .zip(report["steps"].as_array().unwrap())
        .filter(|(step, _)| step["step"] == "doctor" || step["step"] == "device-tree")
    {
        assert_eq!(step["findings"], of_example["findings"]);
    }
    assert_eq!(
        again["assumptions"].as_array().unwrap().len(),
        report["assumptions"].as_array().unwrap().len()
    );
}
