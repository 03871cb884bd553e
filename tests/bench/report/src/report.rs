// SPDX-License-Identifier: GPL-2.0

//! The tables.

use crate::{
    criteria::{self, Criterion, Limit},
    measurement::{Key, Measurements, Median},
};
use comfy_table::{presets::ASCII_MARKDOWN, Table};
use serde::Serialize;

/// One benchmark, side by side.
#[derive(Serialize)]
struct Row {
    benchmark: String,
    variant: String,
    size: u64,
    ours: Median,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Median>,
}

/// Everything that is to be said.
#[derive(Serialize)]
pub struct Report {
    ours: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// Bytes of code of the module.
    text: u64,
    criteria: Vec<Criterion>,
    rows: Vec<Row>,
}

/// `size` in the largest unit that divides it.
pub fn bytes(size: u64) -> String {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _): &(u32, &str)| size != 0 && size.is_multiple_of(1 << shift))
        .map_or_else(
            || size.to_string(),
            |(shift, unit)| format!("{} {unit}", size >> shift),
        )
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();

    table.load_style(ASCII_MARKDOWN).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    format!("{table}\n")
}

impl Report {
    /// Puts together what was measured.
    pub fn new(ours: &Measurements, peer: Option<&Measurements>, text: u64) -> Self {
        let row = |(key, median): (&Key, &Median)| Row {
            benchmark: key.benchmark.clone(),
            variant: key.variant.clone(),
            size: key.size,
            ours: median.clone(),
            peer: peer
                .and_then(|peer| peer.get(&key.benchmark, &key.variant, key.size))
                .cloned(),
        };

        Self {
            ours: ours.host.clone(),
            peer: peer.map(|peer| peer.host.clone()),
            text,
            criteria: criteria::all(ours, peer),
            rows: ours.iter().map(row).collect(),
        }
    }

    /// Whether all that has to hold does.
    pub fn holds(&self) -> bool {
        self.criteria.iter().all(Criterion::holds)
    }

    /// Returns the report for a person.
    pub fn markdown(&self) -> String {
        let criteria = self.criteria.iter().map(|criterion| {
            vec![
                criterion.what.to_owned(),
                criterion
                    .value
                    .map_or_else(|| "not measured".to_owned(), |value| format!("{value:.3}")),
                match criterion.limit {
                    Limit::AtLeast(limit) => format!(">= {limit}"),
                    Limit::AtMost(limit) => format!("<= {limit}"),
                },
                if criterion.holds() { "yes" } else { "NO" }.to_owned(),
            ]
        });
        let rows = self.rows.iter().map(|row| {
            let mut cells = vec![
                row.benchmark.clone(),
                row.variant.clone(),
                bytes(row.size),
                format!("{:.0}", row.ours.instructions),
                format!("{:.0} to {:.0}", row.ours.least, row.ours.most),
                row.ours.count.to_string(),
            ];

            if self.peer.is_some() {
                let peer = row.peer.as_ref();

                cells.push(
                    peer.map_or_else(String::new, |peer| format!("{:.0}", peer.instructions)),
                );
                cells.push(peer.map_or_else(String::new, |peer| {
                    format!("{:.2}", row.ours.instructions / peer.instructions)
                }));
            }
            cells
        });
        let mut head = vec![
            "benchmark",
            "variant",
            "size",
            "instructions",
            "range",
            "count",
        ];

        if self.peer.is_some() {
            head.extend(["original", "ratio"]);
        }

        let peer = self
            .peer
            .as_ref()
            .map_or_else(String::new, |peer| format!(", and of {peer}"));

        format!(
            "# Measurements of {}{peer}\n\n\
             Medians of at least 9 runs in one boot of the emulated host, in which an instruction takes\n\
             a nanosecond. What is not an instruction takes no time: TLB misses, caches, the links. Where\n\
             the PCI core sleeps (open, close, reset, bind), that is in it.\n\n\
             Code of the module: {} bytes.\n\n{}\n{}",
            self.ours,
            self.text,
            table(&["what", "value", "has to be", "holds"], criteria),
            table(&head, rows),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0");
        assert_eq!(bytes(0x1_0000), "64 KiB");
        assert_eq!(bytes(3 << 30), "3 GiB");
        assert_eq!(bytes(65), "65");
    }
}
