// SPDX-License-Identifier: GPL-2.0

//! A host's files in one file: what `record` writes and `--sysfs` reads.
//!
//! A recording is JSON: objects are folders, strings are files and links. The first letter of a string
//! says which: `=text`, `#hexadecimal bytes`, `>target` of a link, absolute and without further links.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write};

/// The value of [`Recording::format`].
const FORMAT: &str = "nvlink2ctl recording 1";

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// A file or a link.
    Leaf(String),
    /// A folder.
    Folder(BTreeMap<String, Entry>),
}

/// What is at a path, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The content of a file.
    File(Vec<u8>),
    /// The path that a link leads to.
    Link(String),
    /// The names in a folder, and whether each is a folder.
    Folder(Vec<(String, bool)>),
}

/// Files of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    format: String,
    files: BTreeMap<String, Entry>,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            files: BTreeMap::new(),
        }
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

impl Recording {
    /// Reads a recording; every string in it must be decodable.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let recording: Self =
            serde_json::from_slice(bytes).context("no recording of nvlink2ctl")?;
        if recording.format != FORMAT {
            bail!(
                "its format is '{}', this program reads '{FORMAT}'",
                recording.format
            );
        }
        let mut folders: Vec<_> = vec![(String::new(), &recording.files)];
        while let Some((path, folder)) = folders.pop() {
            for (name, entry) in folder {
                let path = format!("{path}/{name}");
                if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                    bail!("{path}: no name of a file");
                }
                match entry {
                    Entry::Folder(inner) => folders.push((path, inner)),
                    Entry::Leaf(text) => {
                        decode(text).with_context(|| format!("{path}: neither =, # nor >"))?;
                    }
                }
            }
        }
        Ok(recording)
    }

    /// The recording as text.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn entry(&self, path: &str) -> Option<&Entry> {
        let mut parts = parts(path);
        let first = self.files.get(parts.next()?)?;

        parts.try_fold(first, |entry, part| match entry {
            Entry::Folder(folder) => folder.get(part),
            Entry::Leaf(_) => None,
        })
    }

    /// What is at `path`; links are not followed.
    pub fn get(&self, path: &str) -> Option<Found> {
        match self.entry(path)? {
            Entry::Leaf(text) => decode(text),
            Entry::Folder(folder) => Some(Found::Folder(
                folder
                    .iter()
                    .map(|(name, entry)| (name.clone(), matches!(entry, Entry::Folder(_))))
                    .collect(),
            )),
        }
    }

    /// Adds a file, link or (empty) folder with the folders above it. What is there already stays.
    pub fn add(&mut self, path: &str, found: &Found) {
        let mut names: Vec<_> = parts(path).collect();
        let Some(last) = names.pop() else {
            return;
        };
        let mut folder = &mut self.files;
        for name in names {
            let entry = folder
                .entry(name.to_owned())
                .or_insert_with(|| Entry::Folder(BTreeMap::new()));
            match entry {
                Entry::Folder(inner) => folder = inner,
                Entry::Leaf(_) => return,
            }
        }
        folder
            .entry(last.to_owned())
            .or_insert_with(|| encode(found));
    }
}

fn encode(found: &Found) -> Entry {
    match found {
        Found::Folder(_) => Entry::Folder(BTreeMap::new()),
        Found::Link(target) => Entry::Leaf(format!(">{target}")),
        Found::File(bytes) => Entry::Leaf(match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains(|c: char| c.is_control() && c != '\n') => format!("={text}"),
            _ => bytes.iter().fold(String::from("#"), |mut text, byte| {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            }),
        }),
    }
}

fn decode(text: &str) -> Option<Found> {
    let mut letters = text.chars();
    match (letters.next()?, letters.as_str()) {
        ('=', text) => Some(Found::File(text.into())),
        ('>', target) => target
            .starts_with('/')
            .then(|| Found::Link(target.to_owned())),
        ('#', digits) => {
            let digits: Option<Vec<u8>> = digits
                .chars()
                .map(|digit| {
                    digit
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                })
                .collect();
            let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
            let bytes = digits.chunks_exact(2).map(|pair| match pair {
                [high, low] => (high << 4) | low,
                _ => 0,
            });
            Some(Found::File(bytes.collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_found_again() {
        let mut recording = Recording::default();
        for (path, found) in [
            ("/sys/a/text", Found::File(b"0x10de\n".into())),
            ("/sys/a/cells", Found::File(vec![0, 0, 3, 0xe0])),
            ("/sys/a/empty", Found::File(vec![])),
            ("/sys/a/link", Found::Link("/sys/b".into())),
            ("/sys/b", Found::Folder(vec![])),
        ] {
            recording.add(path, &found);
            assert_eq!(recording.get(path), Some(found));
        }
        let again = Recording::parse(recording.text().unwrap().as_bytes()).unwrap();
        assert_eq!(again, recording);
        assert_eq!(
            again.get("/sys"),
            Some(Found::Folder(vec![("a".into(), true), ("b".into(), true)]))
        );
        assert_eq!(again.get("/sys/a/text/more"), None);
        assert_eq!(again.get("/"), None);
    }

    #[test]
    fn what_is_there_stays() {
        let mut recording = Recording::default();
        let file = Found::File(b"1".into());
        recording.add("/a", &file);
        recording.add("/a", &Found::File(b"2".into()));
        recording.add("/a/b", &file);
        assert_eq!(recording.get("/a"), Some(file));
    }

    #[test]
    fn refuses_what_is_no_recording() {
        for text in [
            "",
            "{}",
            r#"{"format": "nvlink2ctl recording 2", "files": {}}"#,
            r#"{"format": "nvlink2ctl recording 1", "files": {"a": 1}}"#,
            r#"{"format": "nvlink2ctl recording 1", "files": {"a": ""}}"#,
            r#"{"format": "nvlink2ctl recording 1", "files": {"a": "text"}}"#,
            r##"{"format": "nvlink2ctl recording 1", "files": {"a": "#abc"}}"##,
            r##"{"format": "nvlink2ctl recording 1", "files": {"a": "#+1"}}"##,
            r#"{"format": "nvlink2ctl recording 1", "files": {"a": ">relative"}}"#,
            r#"{"format": "nvlink2ctl recording 1", "files": {"..": "=x"}}"#,
            r#"{"format": "nvlink2ctl recording 1", "files": {"a/b": "=x"}}"#,
            r#"{"format": "nvlink2ctl recording 1", "files": {}, "more": 1}"#,
        ] {
            assert!(Recording::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
