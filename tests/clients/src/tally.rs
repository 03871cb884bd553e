// SPDX-License-Identifier: GPL-2.0

//! Counts what passed and failed, and says it as TAP lines.

use anyhow::{Error, Result};

/// What was found so far.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// One test with its outcome.
    pub fn add(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok {} {name}", self.count());
            }
            Err(error) => {
                self.failed += 1;
                println!("not ok {} {name}", self.count());
                for line in explain(&error).lines() {
                    println!("# {line}");
                }
            }
        }
    }

    /// The tests of a program that printed TAP, and whether its `status` fits them.
    pub fn add_tap(&mut self, program: &str, output: &str, status: u32) {
        let (passed, failed, count) = (self.passed, self.failed, self.count());
        for line in output.lines() {
            if let Some(test) = line.strip_prefix("ok ") {
                self.passed += 1;
                println!("ok {} {program}: {test}", self.count());
            } else if let Some(test) = line.strip_prefix("not ok ") {
                self.failed += 1;
                println!("not ok {} {program}: {test}", self.count());
            }
        }
        if self.failed > failed || self.passed == passed || status != 0 {
            print!(
                "{}",
                output
                    .lines()
                    .map(|line| format!("# {line}\n"))
                    .collect::<String>()
            );
        }
        if self.count() == count || (status != 0) != (self.failed > failed) {
            self.failed += 1;
            println!("not ok {} {program}: exit status {status}", self.count());
        }
    }

    fn count(&self) -> usize {
        self.passed + self.failed
    }

    /// Whether something passed and nothing failed.
    pub fn good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// The last line of the output.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed, 0 skipped", self.passed, self.failed)
    }
}

fn explain(error: &Error) -> String {
    format!("{error:#}")
}
