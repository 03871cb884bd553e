// SPDX-License-Identifier: GPL-2.0

//! Where the files of a host come from: this machine, another root folder, a recording.

use crate::recording::{Found, Recording};
use anyhow::{Context, Result, bail};
use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where recordings have what programs print.
pub const OUTPUT: &str = "/output";

enum Backend {
    /// Files below this folder, which has no links in its own path.
    Folder(PathBuf),
    Recording(Recording),
}

/// The files of a host. Paths are absolute: `/sys/bus/pci/devices`.
pub struct Source {
    backend: Backend,
    /// What was found, if somebody wants to know.
    log: Option<RefCell<Recording>>,
}

impl Source {
    /// This machine.
    pub fn machine() -> Self {
        Self {
            backend: Backend::Folder(PathBuf::from("/")),
            log: None,
        }
    }

    /// The recording or the folder at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let real = fs::canonicalize(path).with_context(name)?;
        let backend = if real.is_dir() {
            if !real.join("sys").is_dir() {
                bail!(
                    "{}: has no folder 'sys'; want the root folder of a host or a recording",
                    name()
                );
            }
            Backend::Folder(real)
        } else {
            let bytes = fs::read(&real).with_context(name)?;
            Backend::Recording(Recording::parse(&bytes).with_context(name)?)
        };

        Ok(Self { backend, log: None })
    }

    /// A recording.
    pub fn recorded(recording: Recording) -> Self {
        Self {
            backend: Backend::Recording(recording),
            log: None,
        }
    }

    /// The same files, and a memory of which were read.
    pub fn logged(self) -> Self {
        Self {
            log: Some(RefCell::new(Recording::default())),
            ..self
        }
    }

    /// What was read since [`Source::logged`].
    pub fn into_log(self) -> Recording {
        self.log.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Whether this is the machine that the program runs on.
    pub fn is_machine(&self) -> bool {
        matches!(&self.backend, Backend::Folder(root) if root == Path::new("/"))
    }

    /// Has a recording say that there is a file with this content, which is all that matters of it.
    pub fn remember(&self, path: &str, bytes: &[u8]) {
        self.note(path, &Found::File(bytes.to_vec()));
    }

    fn note(&self, path: &str, found: &Found) {
        if let Some(log) = &self.log {
            log.borrow_mut().add(path, found);
        }
    }

    fn path(root: &Path, path: &str) -> PathBuf {
        root.join(path.trim_start_matches('/'))
    }

    /// The content of a file, of which nothing is remembered.
    pub fn peek(&self, path: &str) -> Option<Vec<u8>> {
        match &self.backend {
            Backend::Folder(root) => {
                let path = Self::path(root, path);
                // Reading a device or a pipe could take for ever.
                path.is_file().then(|| fs::read(path).ok()).flatten()
            }
            Backend::Recording(recording) => match recording.get(path)? {
                Found::File(bytes) => Some(bytes),
                Found::Link(_) | Found::Folder(_) => None,
            },
        }
    }

    /// The content of a file; `None` if it is not there or can't be read.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.peek(path)?;
        self.note(path, &Found::File(bytes.clone()));
        Some(bytes)
    }

    /// The content of a text file without white space around it.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path)?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Where a link leads to, if that is there.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = match &self.backend {
            Backend::Folder(root) => {
                let path = Self::path(root, path);
                path.is_symlink().then_some(())?;
                let target = fs::canonicalize(path).ok()?;
                format!("/{}", target.strip_prefix(root).ok()?.display())
            }
            Backend::Recording(recording) => match recording.get(path)? {
                Found::Link(target) => target,
                Found::File(_) | Found::Folder(_) => return None,
            },
        };
        self.note(path, &Found::Link(target.clone()));
        Some(target)
    }

    /// The last part of where a link leads to.
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = self.link(path)?;
        Some(target.rsplit('/').next()?.to_owned())
    }

    /// The names in a folder, sorted, and whether each is a folder. Nothing of it is remembered.
    pub fn peek_folder(&self, path: &str) -> Option<Vec<(String, bool)>> {
        match &self.backend {
            Backend::Folder(root) => {
                let mut names: Vec<_> = fs::read_dir(Self::path(root, path))
                    .ok()?
                    .flatten()
                    .map(|entry| {
                        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                        (entry.file_name().to_string_lossy().into_owned(), folder)
                    })
                    .collect();
                names.sort();
                Some(names)
            }
            Backend::Recording(recording) => match recording.get(path)? {
                Found::Folder(names) => Some(names),
                Found::File(_) | Found::Link(_) => None,
            },
        }
    }

    /// The names in a folder, sorted; `None` if there is no such folder. What is in them is not
    /// remembered, only that they are there, as folders.
    pub fn folder(&self, path: &str) -> Option<Vec<String>> {
        let names = self.peek_folder(path)?;
        self.note(path, &Found::Folder(Vec::new()));
        Some(names.into_iter().map(|(name, _)| name).collect())
    }

    /// The lines with `words` in them that a program of the host prints; `None` if it is not there, fails, or
    /// would have to be run on another machine. A recording has them as a file below [`OUTPUT`].
    pub fn output(&self, program: &str, arguments: &[&str], words: &str) -> Option<String> {
        let name = format!("{OUTPUT}{program}/{}", arguments.join(" "));
        if let Backend::Recording(_) = self.backend {
            return self.text(&name);
        }
        if !self.is_machine() || !Path::new(program).is_file() {
            return None;
        }
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<_> = text.lines().filter(|line| line.contains(words)).collect();
        let lines = lines.join("\n");

        output.status.success().then(|| {
            self.remember(&name, lines.as_bytes());
            lines.trim().to_owned()
        })
    }

    /// Whether there is anything at `path`.
    pub fn exists(&self, path: &str) -> bool {
        let found = match &self.backend {
            Backend::Folder(root) => {
                let path = Self::path(root, path);
                path.exists().then(|| {
                    if path.is_dir() {
                        Found::Folder(Vec::new())
                    } else {
                        Found::File(Vec::new())
                    }
                })
            }
            Backend::Recording(recording) => recording.get(path),
        };

        if let Some(found) = &found {
            self.note(path, found);
        }
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_this_machine_are_run_and_recorded() {
        let shell = "/bin/sh";
        let script = ["-c", "echo one; echo two; echo three"];
        let source = Source::machine().logged();

        assert_eq!(
            source.output(shell, &script, "t").as_deref(),
            Some("two\nthree")
        );
        assert_eq!(source.output(shell, &["-c", "echo two; exit 1"], "t"), None);
        assert_eq!(source.output("/nonexistent", &script, "t"), None);

        // A recording has it, and nobody else's programs are run.
        let recording = Source::recorded(source.into_log());
        assert_eq!(
            recording.output(shell, &script, "t").as_deref(),
            Some("two\nthree")
        );
        assert_eq!(recording.output(shell, &["-c", "echo two"], "t"), None);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("sys")).unwrap();
        let other = Source::open(folder.path()).unwrap();
        assert_eq!(other.output(shell, &script, "t"), None);
    }
}
