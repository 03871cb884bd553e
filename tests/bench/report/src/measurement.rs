// SPDX-License-Identifier: GPL-2.0

//! What was measured: the lines of `measure.c`, and their medians.

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ticks of POWER9's time base in a second.
const TIME_BASE: f64 = 512e6;
/// Instructions that the emulated host executes in a second of its time (`-icount shift=0`).
const INSTRUCTIONS: f64 = 1e9;

/// Fewer runs make no median worth the name.
const MIN_RUNS: usize = 9;

/// One line of `measure.c`.
#[derive(Deserialize)]
struct Line {
    benchmark: String,
    variant: String,
    size: u64,
    #[expect(dead_code, reason = "tells lines apart for a person")]
    run: u32,
    ticks: u64,
    count: u64,
}

/// What is measured: benchmark, variant, and size in bytes or 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// As `measure.c` calls it.
    pub benchmark: String,
    /// Of pages or objects, or empty.
    pub variant: String,
    /// In bytes, or 0.
    pub size: u64,
}

/// The runs of one benchmark.
#[derive(Clone, Serialize)]
pub struct Median {
    /// How many there were.
    pub runs: usize,
    /// In instructions of the emulated host: the median, the least and the most.
    pub instructions: f64,
    /// See `instructions`.
    pub least: f64,
    /// See `instructions`.
    pub most: f64,
    /// The median of what the benchmark counts.
    pub count: u64,
}

/// All that one run of `measure.c` printed.
pub struct Measurements {
    /// Driver and kernel.
    pub host: String,
    medians: BTreeMap<Key, Median>,
    /// In the order of the lines.
    order: Vec<Key>,
}

/// The middle one of at least one value.
fn middle<T: Copy + PartialOrd>(values: &mut [T]) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

impl Measurements {
    /// Reads the lines; fails if one is not understood, or if there were too few runs.
    pub fn parse(text: &str) -> Result<Self> {
        let host = text
            .lines()
            .find_map(|line| line.strip_prefix("# "))
            .context("no line says what it was measured on")?
            .to_owned();
        let mut runs: BTreeMap<Key, Vec<(u64, u64)>> = BTreeMap::new();
        let mut order = Vec::new();
        let mut lines = csv::ReaderBuilder::new()
            .delimiter(b'\t')
            .has_headers(false)
            .comment(Some(b'#'))
            .from_reader(text.as_bytes());

        for line in lines.deserialize() {
            let Line {
                benchmark,
                variant,
                size,
                ticks,
                count,
                ..
            } = line?;
            let key = Key {
                benchmark,
                variant,
                size,
            };
            let values = runs.entry(key.clone()).or_default();

            if values.is_empty() {
                order.push(key);
            }
            values.push((ticks, count));
        }

        let mut medians = BTreeMap::new();
        for (key, values) in runs {
            ensure!(
                values.len() >= MIN_RUNS,
                "{}, {}, {}: {} runs, wanted {MIN_RUNS}",
                key.benchmark,
                key.variant,
                key.size,
                values.len()
            );
            let mut instructions: Vec<f64> = values
                .iter()
                .map(|(ticks, _)| *ticks as f64 * INSTRUCTIONS / TIME_BASE)
                .collect();
            let mut counts: Vec<u64> = values.iter().map(|(_, count)| *count).collect();
            let median = Median {
                runs: values.len(),
                instructions: middle(&mut instructions).context("no runs")?,
                least: *instructions.first().context("no runs")?,
                most: *instructions.last().context("no runs")?,
                count: middle(&mut counts).context("no runs")?,
            };

            medians.insert(key, median);
        }
        Ok(Self {
            host,
            medians,
            order,
        })
    }

    /// Returns what was measured, in the order in which it was.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Median)> {
        self.order
            .iter()
            .filter_map(|key| Some((key, self.medians.get(key)?)))
    }

    /// Returns the runs of one benchmark, if there were any.
    pub fn get(&self, benchmark: &str, variant: &str, size: u64) -> Option<&Median> {
        self.medians.get(&Key {
            benchmark: benchmark.to_owned(),
            variant: variant.to_owned(),
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(ticks: &[u64]) -> String {
        let mut text = String::from("# driver 1.0\n");

        for (run, ticks) in ticks.iter().enumerate() {
            text += &format!("fault\t2 MiB\t64\t{run}\t{ticks}\t{run}\n");
        }
        text
    }

    #[test]
    fn median_of_nine() {
        let all = Measurements::parse(&lines(&[512, 1, 1024, 2, 3, 2048, 4096, 5, 8192]));
        let all = all.expect("nine runs");
        let fault = all.get("fault", "2 MiB", 64).expect("was measured");

        assert_eq!(all.host, "driver 1.0");
        assert_eq!(fault.instructions, 1000.0);
        assert_eq!((fault.runs, fault.count), (9, 4));
        assert_eq!(fault.most, 16000.0);
    }

    #[test]
    fn few_runs_are_refused() {
        assert!(Measurements::parse(&lines(&[1; 8])).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Measurements::parse("# x\nfault\t\t0\t0\tmany\t1\n").is_err());
        assert!(Measurements::parse("").is_err());
    }
}
