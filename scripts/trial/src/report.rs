// SPDX-License-Identifier: GPL-2.0

//! The report: a JSON file that a program goes on with, and the text that is made of it.

use crate::{assumptions, assumptions::Judged, plan::Earlier};
use anyhow::{Context, Result, bail};
use nvlink2ctl::{bind::Before, finding, host::Host, output};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

/// The value of [`Report::format`].
const FORMAT: &str = "nvlink2-trial report 1";
/// How wide the text is.
const WIDTH: usize = 100;

/// What came out of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was begun. If the program finds that when it starts, something ended it.
    Begun,
    /// As it has to be.
    Passed,
    /// Not as it has to be.
    Failed,
    /// Not possible here.
    Skipped,
    /// Nobody wanted it.
    Declined,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Begun => "INTERRUPTED",
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
            Self::Declined => "declined",
        })
    }
}

/// What a check found, as `nvlink2ctl doctor` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// `ok`, `FAILED`, `note` or `skipped`.
    pub verdict: String,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl From<&finding::Finding> for Finding {
    fn from(finding: &finding::Finding) -> Self {
        Self {
            check: finding.check.to_owned(),
            verdict: finding.verdict.to_string(),
            found: finding.found.clone(),
            remedy: finding.remedy.clone(),
        }
    }
}

impl Finding {
    /// Whether it is a failure.
    pub fn failed(&self) -> bool {
        self.verdict == finding::Verdict::Failed.to_string()
    }

    /// What was found and what to do, in a sentence or two.
    pub fn text(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}: {}. {remedy}", self.check, self.found),
            None => format!("{}: {}", self.check, self.found),
        }
    }
}

/// An observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// When it was made: `host`, `npu`, `before`, `bound`, `guest`, `after`, `untrained`.
    pub phase: String,
    /// The GPU that was looked at, or whose NPU.
    pub of: String,
    /// What was looked at.
    pub what: String,
    /// What was seen.
    pub value: String,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What came out of it.
    pub verdict: Verdict,
    /// In a line.
    pub summary: String,
    /// What is wrong, the first to be repaired first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
    /// How long it took.
    #[serde(default)]
    pub seconds: u64,
    /// What it found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What it observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// Whole texts: what programs printed, logs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, String>,
}

impl Done {
    /// A step that came to this.
    pub fn new(verdict: Verdict, summary: impl Into<String>) -> Self {
        Self {
            verdict,
            summary: summary.into(),
            wrong: Vec::new(),
            seconds: 0,
            findings: Vec::new(),
            facts: Vec::new(),
            texts: BTreeMap::new(),
        }
    }

    /// A step with findings: failed if one of them is.
    pub fn of_findings(findings: Vec<Finding>, well: &str) -> Self {
        let wrong: Vec<_> = findings
            .iter()
            .filter(|finding| finding.failed())
            .map(Finding::text)
            .collect();
        let mut done = match wrong.first() {
            Some(first) => Self::new(Verdict::Failed, first.clone()),
            None => Self::new(Verdict::Passed, well),
        };
        done.findings = findings;
        done.wrong = wrong;
        done
    }

    /// The same, with a text.
    pub fn with_text(mut self, name: &str, text: String) -> Self {
        self.texts.insert(name.to_owned(), text);
        self
    }
}

/// A step with its name, in the order of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step.
    pub step: String,
    /// The kernel on which it was done.
    #[serde(default)]
    pub kernel: String,
    /// What it did.
    #[serde(flatten)]
    pub done: Done,
}

/// What drivers functions had before they were bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Drivers {
    /// Which start of the host that was.
    boot: String,
    functions: Vec<Before>,
}

/// The kernel's name for this start of the host.
fn boot() -> Result<String> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(FILE).context(FILE)?.trim().to_owned())
}

/// A report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    format: String,
    /// The version of this program.
    program: String,
    /// When it was begun.
    begun: String,
    /// The machine, as it calls itself, and the release of its kernel.
    pub machine: String,
    /// What the machine is told by: its model, and its name on the network.
    #[serde(default)]
    identity: Option<(String, String)>,
    /// The kernel of the last run: release and version.
    #[serde(default)]
    pub kernel: String,
    /// What is wrong, the first to be repaired first.
    pub wrong: Vec<String>,
    /// The steps that were begun.
    pub steps: Vec<Entry>,
    /// What is to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drivers: Option<Drivers>,
    /// What the project assumes of the hardware, and what this report says of it.
    pub assumptions: Vec<Judged>,
    /// What nvlink2ctl reads of the host.
    pub recording: serde_json::Value,
    #[serde(skip)]
    file: PathBuf,
}

impl Report {
    /// The report NAME.json to go on with, or a new one.
    pub fn open(name: &Path, fresh: bool) -> Result<Self> {
        // Not with_extension(): a name may have dots.
        let file = PathBuf::from(format!("{}.json", name.display()));
        if file.exists() && !fresh {
            return Self::read(&file);
        }
        Ok(Self {
            format: FORMAT.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            begun: jiff::Timestamp::now().strftime("%F %T UTC").to_string(),
            machine: String::new(),
            identity: None,
            kernel: String::new(),
            wrong: Vec::new(),
            steps: Vec::new(),
            drivers: None,
            assumptions: Vec::new(),
            recording: serde_json::Value::Null,
            file,
        })
    }

    /// Says whose report it is, which must not be another machine's: a folder may be shared.
    pub fn identify(&mut self, model: &str, name: &str) -> Result<()> {
        let ours = (model.to_owned(), name.to_owned());
        if let Some(theirs) = self.identity.as_ref().filter(|theirs| **theirs != ours) {
            bail!(
                "{} is the report of another machine, {} ({}), and this is {name} ({model}): name another one by --output, or begin anew by --fresh",
                self.file.display(),
                theirs.1,
                theirs.0,
            );
        }
        self.identity = Some(ours);
        Ok(())
    }

    /// The report in a file.
    pub fn read(file: &Path) -> Result<Self> {
        let name = || file.display().to_string();
        let bytes = fs::read(file).with_context(name)?;
        let mut report: Self = serde_json::from_slice(&bytes)
            .context("no report of nvlink2-trial")
            .with_context(name)?;
        if report.format != FORMAT {
            bail!(
                "{}: its format is '{}', this program reads '{FORMAT}'",
                name(),
                report.format
            );
        }
        report.file = file.to_owned();
        Ok(report)
    }

    /// What a step did.
    pub fn of(&self, step: &str) -> Option<&Done> {
        self.entry(step).map(|entry| &entry.done)
    }

    /// The same, and on which kernel.
    pub fn entry(&self, step: &str) -> Option<&Entry> {
        self.steps.iter().find(|entry| entry.step == step)
    }

    /// The same, as far as it decides what becomes of the step.
    pub fn earlier(&self, step: &str) -> Option<Earlier> {
        self.entry(step).map(|entry| Earlier {
            verdict: entry.done.verdict,
            same_kernel: entry.kernel == self.kernel,
        })
    }

    /// Notes down what a step did, in place of what it did before, and writes the report to the disk: what comes
    /// next may end the host.
    pub fn note(&mut self, step: &str, done: Done) -> Result<()> {
        self.put(Entry {
            step: step.to_owned(),
            kernel: self.kernel.clone(),
            done,
        })
    }

    /// The same for what is not of this run.
    pub fn put(&mut self, entry: Entry) -> Result<()> {
        match self.steps.iter_mut().find(|old| old.step == entry.step) {
            Some(old) => *old = entry,
            None => self.steps.push(entry),
        }
        self.judge();
        self.write()
    }

    /// Notes down, on the disk, what drivers GPUs and bridges have before they are bound. What an earlier bind of this
    /// start of the host has found stays: nothing was given back since.
    pub fn remember_drivers(&mut self, host: &Host) -> Result<()> {
        if self.drivers_before().is_some() {
            return Ok(());
        }
        let functions = host
            .gpus
            .iter()
            .map(|gpu| &gpu.function)
            .chain(host.bridges.iter().map(|bridge| &bridge.function))
            .chain(host.unconnected.iter().map(|bridge| &bridge.function))
            .map(|function| Before {
                bdf: function.bdf,
                driver: function.driver.clone(),
                reservation: function.driver_override.clone(),
            })
            .collect();
        self.drivers = Some(Drivers {
            boot: boot()?,
            functions,
        });
        self.write()
    }

    /// What drivers functions had before this start of the host has bound them.
    pub fn drivers_before(&self) -> Option<&[Before]> {
        let drivers = self.drivers.as_ref()?;
        let boot = boot().ok()?;
        (drivers.boot == boot).then_some(&drivers.functions)
    }

    /// Nothing is to be given back any more.
    pub fn forget_drivers(&mut self) {
        self.drivers = None;
    }

    /// Puts steps in this order.
    pub fn sort(&mut self, names: &[String]) {
        let place = |entry: &Entry| names.iter().position(|name| *name == entry.step);
        self.steps
            .sort_by_key(|entry| place(entry).unwrap_or(usize::MAX));
    }

    fn judge(&mut self) {
        // What a second look finds again is said once.
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for Entry { step, done, .. } in &self.steps {
            let wrong = match done.verdict {
                Verdict::Begun => &vec![
                    "it was begun, and something ended it: look at the kernel log of that time"
                        .to_owned(),
                ],
                Verdict::Failed if done.wrong.is_empty() => &vec![done.summary.clone()],
                Verdict::Failed => &done.wrong,
                Verdict::Passed | Verdict::Skipped | Verdict::Declined => continue,
            };
            for text in wrong {
                if done.verdict == Verdict::Begun || seen.insert(text.clone()) {
                    all.push(format!("{step}: {text}"));
                }
            }
        }
        self.wrong = all;
        self.assumptions = assumptions::judge(self);
    }

    /// All observations.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.steps.iter().flat_map(|entry| &entry.done.facts)
    }

    /// The report as JSON.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The files of the report.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.file.clone(), self.file.with_extension("txt"))
    }

    fn write(&self) -> Result<()> {
        let (json, text) = self.files();
        for (file, content) in [(&json, self.json()?), (&text, self.text()?)] {
            let name = || file.display().to_string();
            let fresh = file.with_extension("new");
            let mut out = File::create(&fresh).with_context(name)?;
            out.write_all(content.as_bytes()).with_context(name)?;
            out.sync_all().with_context(name)?;
            fs::rename(&fresh, file).with_context(name)?;
        }
        Ok(())
    }

    /// The same without logs and what programs printed: of each text only its name is left.
    pub fn brief(&self) -> Self {
        let mut brief = self.clone();
        for entry in &mut brief.steps {
            entry.done.texts.values_mut().for_each(String::clear);
        }
        brief
    }

    /// The report as text, without the recording.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "nvlink2-trial {}, {}", self.program, self.begun)?;
        writeln!(text, "{}\n", self.machine)?;
        match self.wrong.split_first() {
            None => writeln!(text, "NOTHING IS WRONG in the steps that were done.")?,
            Some((first, others)) => {
                writeln!(text, "WHAT IS WRONG FIRST\n{}", indented(first))?;
                if !others.is_empty() {
                    writeln!(text, "\nWHAT ELSE IS WRONG")?;
                }
                for other in others {
                    writeln!(text, "{}", indented(other))?;
                }
            }
        }
        let mut table = output::table(&["STEP", "RESULT", "SECONDS", ""]);
        for Entry { step, kernel, done } in &self.steps {
            // The whole of it is above, or below.
            let mut summary = done.summary.lines().next().unwrap_or_default().to_owned();
            if *kernel != self.kernel {
                let release = kernel.split_whitespace().next();
                summary = format!("(on Linux {}) {summary}", output::or_dash(release));
            }
            table.add_row([
                step.as_str(),
                &done.verdict.to_string(),
                &done.seconds.to_string(),
                &textwrap::wrap(&summary, WIDTH)
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            ]);
        }
        writeln!(text, "\nSTEPS\n{table}")?;
        writeln!(
            text,
            "\nWHAT THE PROJECT ASSUMES OF THE HARDWARE, and what this report says of it"
        )?;
        for judged in &self.assumptions {
            writeln!(text, "  {}: {}", judged.assumption, judged.verdict)?;
            writeln!(text, "{}", indented(&judged.because))?;
        }
        for Entry { step, done, .. } in &self.steps {
            let texts: Vec<_> = done
                .texts
                .iter()
                .filter(|(_, content)| !content.is_empty())
                .collect();
            if done.findings.is_empty() && done.facts.is_empty() && texts.is_empty() {
                continue;
            }
            writeln!(text, "\n=== {step}")?;
            for finding in &done.findings {
                writeln!(text, "{:7} {}", finding.verdict, finding.text())?;
            }
            if !done.facts.is_empty() {
                let mut table = output::untitled();
                for fact in &done.facts {
                    table.add_row([&fact.of, &fact.phase, &fact.what, &fact.value]);
                }
                writeln!(text, "{table}")?;
            }
            for (name, content) in texts {
                writeln!(text, "--- {name}\n{}", content.trim_end())?;
            }
        }
        Ok(text
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect())
    }
}

fn indented(text: &str) -> String {
    let options = textwrap::Options::new(WIDTH)
        .initial_indent("    ")
        .subsequent_indent("    ");
    textwrap::fill(text, options)
}
