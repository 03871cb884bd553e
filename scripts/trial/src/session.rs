// SPDX-License-Identifier: GPL-2.0

//! A run of the program: which steps are done, who is asked, and how it ends.

use crate::{
    cli::{DONE, FAILED, Options, STOPPED},
    kernel_log,
    plan::{self, Plan},
    report::{Done, Report, Verdict},
    steps::{self, Risk, Step},
};
use anyhow::{Result, bail};
use nvlink2ctl::{host::Host, output, source::Source};
use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    time::Instant,
};

/// What a person wants with a step.
enum Answer {
    Yes,
    No,
    Stop,
}

/// Does what the options say; the exit status.
pub fn run(options: &Options) -> Result<u8> {
    if let Some(file) = &options.show {
        print(options, &Report::read(file)?)?;
        return Ok(DONE);
    }
    let source = || match &options.sysfs {
        Some(recording) => Source::open(recording),
        None => Ok(Source::machine()),
    };
    let host = Host::read(&source()?);
    let steps = steps::all(&host);
    check_names(options, &steps)?;
    if options.list {
        list(&steps)?;
        return Ok(DONE);
    }
    let machine = options.sysfs.is_none();
    if machine && !rustix::process::geteuid().is_root() {
        bail!(
            "only root can read what a report needs: use sudo (--list, --show and --sysfs need no root)"
        );
    }
    let mut report = Report::open(&options.output, options.fresh)?;
    let name = host.model.trim_end_matches('\0');
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let release = if machine {
        text(system.release())
    } else {
        "of a recording".to_owned()
    };
    report.identify(
        name,
        &if machine {
            text(system.nodename())
        } else {
            "a recording".to_owned()
        },
    )?;
    report.kernel = if machine {
        format!("{release} {}", text(system.version()))
    } else {
        release.clone()
    };
    report.machine = format!(
        "{}, Linux {release}",
        if name.is_empty() { "no name" } else { name }
    );
    if machine {
        // For the step that looks at what the kernel said since.
        let _ = fs::write("/dev/kmsg", format!("{}\n", kernel_log::MARK));
    }
    let names: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
    let count = steps.len();
    let mut stopped = false;

    for (number, step) in (1_usize..).zip(&steps) {
        let earlier = report.entry(&step.name).cloned();
        let planned = plan::plan(&case(options, &report, step, machine));
        if planned == Plan::Keep {
            if earlier.is_some_and(|entry| entry.done.verdict == Verdict::Begun) {
                say(&format!(
                    "[{number}/{count}] {0}: something ended it in an earlier run, and it is not done again without --again {0}",
                    step.name
                ));
            }
            continue;
        }
        say(&format!("[{number}/{count}] {}: {}", step.name, step.about));
        let done = match planned {
            Plan::LeaveOut(verdict, why) => Done::new(verdict, why),
            Plan::Run | Plan::Keep => match ask(options, step)? {
                Answer::Stop => {
                    stopped = true;
                    break;
                }
                Answer::No => Done::new(Verdict::Declined, "nobody wanted it"),
                Answer::Yes => {
                    // Should it end the host, the next run finds this.
                    report.note(&step.name, Done::new(Verdict::Begun, "it was begun"))?;
                    let start = Instant::now();
                    let mut done = match step.run(&source()?, &mut report, options) {
                        Ok(done) => done,
                        Err(error) => Done::new(Verdict::Failed, format!("{error:#}")),
                    };
                    done.seconds = start.elapsed().as_secs();
                    done
                }
            },
        };
        say(&format!("    {}: {}", done.verdict, done.summary));
        // Who says no, or lacks what it takes, has not shown that what was seen before is not so.
        let kept = earlier.filter(|earlier| {
            plan::is_evidence(earlier.done.verdict) && !plan::is_evidence(done.verdict)
        });
        match kept {
            Some(kept) => {
                say(&format!(
                    "    what the report has stays: {}",
                    kept.done.verdict
                ));
                report.put(kept)?;
            }
            None => report.note(&step.name, done)?,
        }
        report.sort(&names);
    }
    report.sort(&names);
    let (json, text) = report.files();
    print(options, &report)?;
    say(&format!(
        "the report is in {} (for people: {}); Documentation/trial.rst says how to read it and where to send it",
        json.display(),
        text.display()
    ));
    if stopped {
        say("not all steps are done: the same command goes on");
        return Ok(STOPPED);
    }
    Ok(if report.wrong.is_empty() {
        DONE
    } else {
        FAILED
    })
}

fn check_names(options: &Options, steps: &[Step]) -> Result<()> {
    let named = [
        &options.only,
        &options.skip,
        &options.again,
        &options.dangerous,
    ];
    for name in named.into_iter().flatten() {
        match steps.iter().find(|step| step.name == *name) {
            None => bail!("there is no step {name}; --list names all"),
            Some(step) if options.dangerous.contains(name) && step.risk != Risk::Dangerous => {
                bail!("{name} is not dangerous: leave out --dangerous");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A step as the options, and the report of earlier runs, have it.
fn case<'a>(
    options: &Options,
    report: &'a Report,
    step: &'a Step,
    machine: bool,
) -> plan::Case<'a> {
    let named = |names: &[String]| names.contains(&step.name);
    plan::Case {
        name: &step.name,
        risk: step.risk,
        always: step.always,
        earlier: report.earlier(&step.name),
        obstacle: steps::CONDITIONS.into_iter().find(|name| {
            *name != step.name
                && report
                    .of(name)
                    .is_some_and(|done| matches!(done.verdict, Verdict::Begun | Verdict::Failed))
        }),
        machine,
        left_out: named(&options.skip) || !options.only.is_empty() && !named(&options.only),
        only: named(&options.only),
        again: named(&options.again),
        dangerous: named(&options.dangerous),
        yes: options.yes,
    }
}

fn ask(options: &Options, step: &Step) -> Result<Answer> {
    if !plan::asks(step.risk, options.yes) {
        return Ok(Answer::Yes);
    }
    if !io::stdin().is_terminal() {
        say("    nobody is there to be asked: --yes does this step without asking");
        return Ok(Answer::Stop);
    }
    loop {
        say(&format!(
            "    {}. Do it? [y]es, [n]o, [s]top here",
            step.risk.text()
        ));
        match line()?.as_deref() {
            Some("y" | "yes") => return Ok(Answer::Yes),
            Some("n" | "no") => return Ok(Answer::No),
            Some("s" | "stop") | None => return Ok(Answer::Stop),
            Some(_) => {}
        }
    }
}

/// A line of a person, without white space around it; `None` at the end of input.
pub fn line() -> Result<Option<String>> {
    let mut text = String::new();
    Ok(match io::stdin().lock().read_line(&mut text)? {
        0 => None,
        _ => Some(text.trim().to_lowercase()),
    })
}

/// What a person pasted.
#[derive(Debug, PartialEq, Eq)]
pub enum Pasted {
    /// Nothing: what was asked for was not done.
    Nothing,
    /// Lines, as they came: columns and empty lines mean something.
    Text(String),
}

/// Lines up to one that has only a dot, or to the end of input.
pub fn paste(input: &mut impl BufRead) -> Result<Pasted> {
    let mut text = String::new();
    for line in input.lines() {
        let line = line?;
        if line.trim() == "." {
            break;
        }
        text += &format!("{}\n", line.trim_end());
    }
    Ok(if text.trim().is_empty() {
        Pasted::Nothing
    } else {
        Pasted::Text(text)
    })
}

/// Says something to the person, and not in the report.
pub fn say(text: &str) {
    // Where nobody listens, there is nobody to complain to.
    let _ = writeln!(io::stderr(), "{text}");
}

fn list(steps: &[Step]) -> Result<()> {
    let mut table = output::table(&["STEP", "RISK", "WHAT IT DOES"]);
    for step in steps {
        table.add_row([step.name.as_str(), step.risk.name(), &step.about]);
    }
    output::print(&table.to_string())
}

fn print(options: &Options, report: &Report) -> Result<()> {
    let report = if options.brief {
        &report.brief()
    } else {
        report
    };
    output::print(&if options.json {
        report.json()?
    } else {
        report.text()?
    })
}

/// Whether a file is there: of the bundle, or of the host.
pub fn there(path: &str) -> bool {
    Path::new(path).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_pastes_stays_as_it_is() {
        let topo = "        GPU0    CPU Affinity\nGPU0     X      0-63\n\nLegend:\n";
        for (input, pasted) in [
            (format!("{topo}.\nmore\n"), Pasted::Text(topo.to_owned())),
            // The end of input ends it as well.
            (topo.to_owned(), Pasted::Text(topo.to_owned())),
            (".\n".to_owned(), Pasted::Nothing),
            ("\n \n.\n".to_owned(), Pasted::Nothing),
            (String::new(), Pasted::Nothing),
        ] {
            assert_eq!(paste(&mut input.as_bytes()).unwrap(), pasted, "{input:?}");
        }
    }
}
