// SPDX-License-Identifier: GPL-2.0

//! Counts what passed and failed, and says it as TAP lines.

use anyhow::{Error, Result};

/// What was found so far.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
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

    /// The tests of a program that printed TAP, and whether its plan and `status` fit them.
    pub fn add_tap(&mut self, program: &str, output: &str, status: u32) {
        let (failed, count) = (self.failed, self.count());
        let mut skipped = false;
        let mut planned = None;
        for line in output.lines() {
            if let Some(test) = line.strip_prefix("ok ") {
                if test.contains("# SKIP") {
                    self.skipped += 1;
                    skipped = true;
                } else {
                    self.passed += 1;
                }
                println!("ok {} {program}: {test}", self.count());
            } else if let Some(test) = line.strip_prefix("not ok ") {
                self.failed += 1;
                println!("not ok {} {program}: {test}", self.count());
            } else if let Some(plan) = line.strip_prefix("1..") {
                planned = plan.trim().parse::<usize>().ok();
            }
        }
        let tests = self.count() - count;
        let fits = tests > 0 && planned == Some(tests) && (status != 0) == (self.failed > failed);
        if !fits || self.failed > failed || skipped {
            for line in output.lines() {
                println!("# {line}");
            }
        }
        if !fits {
            self.failed += 1;
            let planned =
                planned.map_or("no plan".to_owned(), |number| format!("{number} planned"));
            println!(
                "not ok {} {program}: exit status {status} after {tests} tests, {planned}",
                self.count()
            );
        }
    }

    fn count(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Whether something passed and nothing failed.
    pub fn good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// The last line of the output.
    pub fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn explain(error: &Error) -> String {
    format!("{error:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output: &str, status: u32) -> String {
        let mut tally = Tally::default();
        tally.add_tap("program", output, status);
        tally.summary()
    }

    #[test]
    fn tests_are_counted() {
        let output = "TAP version 13\n1..3\nok 1 a\nnot ok 2 b\nok 3 c # SKIP no d\n";
        assert_eq!(of(output, 1), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn programs_that_do_not_what_they_planned_failed() {
        for (output, status, summary) in [
            ("", 0, "0 passed, 1 failed, 0 skipped"),
            ("1..0\n", 0, "0 passed, 1 failed, 0 skipped"),
            ("1..0 # SKIP no GPU\n", 4, "0 passed, 1 failed, 0 skipped"),
            ("1..2\nok 1 a\n", 0, "1 passed, 1 failed, 0 skipped"),
            ("ok 1 a\n", 0, "1 passed, 1 failed, 0 skipped"),
            ("1..1\nok 1 a\n", 1, "1 passed, 1 failed, 0 skipped"),
            ("1..1\nnot ok 1 a\n", 0, "0 passed, 2 failed, 0 skipped"),
        ] {
            assert_eq!(of(output, status), summary, "{output}");
        }
    }
}
