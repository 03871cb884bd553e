// SPDX-License-Identifier: GPL-2.0

//! Whether a run does a step.

use crate::{report::Verdict, steps::Risk};

/// What becomes of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is done, if nobody who is asked says no.
    Run,
    /// What the report has of it stays.
    Keep,
    /// It is not done, and there is nothing of it to keep: why.
    LeaveOut(Verdict, String),
}

/// What the report has of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// What it came to.
    pub verdict: Verdict,
    /// Whether that was on the kernel that runs now.
    pub same_kernel: bool,
}

/// A step, its past, and what the options say of it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it may do.
    pub risk: Risk,
    /// Whether it is done whatever came before.
    pub always: bool,
    /// What it came to before.
    pub earlier: Option<Earlier>,
    /// A step that has to be in order first, and is not.
    pub obstacle: Option<&'a str>,
    /// Whether this is no recording.
    pub machine: bool,
    /// --skip names it, or --only others.
    pub left_out: bool,
    /// --only names it.
    pub only: bool,
    /// --again names it.
    pub again: bool,
    /// --dangerous names it.
    pub dangerous: bool,
    /// --yes.
    pub yes: bool,
}

/// Whether this came of a step that was done, so that nothing but the step itself may take its place.
pub fn is_evidence(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Begun | Verdict::Passed | Verdict::Failed => true,
        Verdict::Skipped | Verdict::Declined => false,
    }
}

/// What becomes of a step.
pub fn plan(case: &Case) -> Plan {
    let earlier = case.earlier.filter(|earlier| is_evidence(earlier.verdict));
    match (why_not(case), earlier) {
        (Some(_), Some(_)) => Plan::Keep,
        (Some((verdict, why)), None) => Plan::LeaveOut(verdict, why),
        (None, Some(earlier)) if is_done(case, earlier) => Plan::Keep,
        (None, _) => Plan::Run,
    }
}

/// Whether a person is asked before a step is done.
pub fn asks(risk: Risk, yes: bool) -> bool {
    !yes && !matches!(risk, Risk::Reads | Risk::Person)
}

/// Why a step is not for this run, whatever came of it before.
fn why_not(case: &Case) -> Option<(Verdict, String)> {
    if case.left_out {
        return Some((Verdict::Declined, "left out".to_owned()));
    }
    if case.risk == Risk::Dangerous && !case.dangerous {
        let why = format!("only with --dangerous {}", case.name);
        return Some((Verdict::Declined, why));
    }
    if case.risk == Risk::Reads {
        return None;
    }
    if !case.machine {
        return Some((Verdict::Skipped, "this is a recording".to_owned()));
    }
    if case.risk == Risk::Person && case.yes {
        let why = "it needs a person, whom --yes says not to ask".to_owned();
        return Some((Verdict::Skipped, why));
    }
    // What a person names, after what was found is understood, is done.
    let obstacle = case.obstacle.filter(|_| !case.only && !case.always)?;
    let why = format!("not before what {obstacle} found is repaired");
    Some((Verdict::Skipped, why))
}

/// Whether a run before this one has done it for good.
fn is_done(case: &Case, earlier: Earlier) -> bool {
    // A look is cheap, and what it saw may have changed.
    if case.again || case.always || case.risk == Risk::Reads {
        return false;
    }
    match earlier.verdict {
        // It may have ended the host, and would again.
        Verdict::Begun => true,
        // Nobody wants that twice without saying so.
        Verdict::Passed | Verdict::Failed if case.risk == Risk::Dangerous => true,
        // A restart of the host, or the end of the run, has undone a binding.
        Verdict::Passed => case.risk != Risk::Binds && !case.only && earlier.same_kernel,
        // What is wrong may have been repaired meanwhile.
        Verdict::Failed | Verdict::Skipped | Verdict::Declined => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISKS: [Risk; 6] = [
        Risk::Reads,
        Risk::Registers,
        Risk::Binds,
        Risk::Uses,
        Risk::Person,
        Risk::Dangerous,
    ];

    const VERDICTS: [Verdict; 5] = [
        Verdict::Begun,
        Verdict::Passed,
        Verdict::Failed,
        Verdict::Skipped,
        Verdict::Declined,
    ];

    const CASE: Case = Case {
        name: "step",
        risk: Risk::Reads,
        always: false,
        earlier: None,
        obstacle: None,
        machine: true,
        left_out: false,
        only: false,
        again: false,
        dangerous: false,
        yes: false,
    };

    fn letter(case: &Case) -> char {
        match plan(case) {
            Plan::Run => 'R',
            Plan::Keep => 'K',
            Plan::LeaveOut(..) => '-',
        }
    }

    type Change = fn(&mut Case);

    /// For each way to call the program: a row for each past (none, the five verdicts, and a pass on another kernel),
    /// with a column for each risk, and for what is always done, of risk "reads" and of risk "binds".
    #[test]
    fn every_risk_with_every_past() {
        let table: [(&str, Change, [&str; 7]); 9] = [
            (
                "no option",
                |_| {},
                [
                    "RRRRR-RR", "RKKKKKRR", "RKRKKKRR", "RRRRRKRR", "RRRRR-RR", "RRRRR-RR",
                    "RRRRRKRR",
                ],
            ),
            (
                "--dangerous",
                |case| case.dangerous = true,
                [
                    "RRRRRRRR", "RKKKKKRR", "RKRKKKRR", "RRRRRKRR", "RRRRRRRR", "RRRRRRRR",
                    "RRRRRKRR",
                ],
            ),
            (
                "--dangerous --again",
                |case| (case.dangerous, case.again) = (true, true),
                ["RRRRRRRR"; 7],
            ),
            (
                "--again",
                |case| case.again = true,
                [
                    "RRRRR-RR", "RRRRRKRR", "RRRRRKRR", "RRRRRKRR", "RRRRR-RR", "RRRRR-RR",
                    "RRRRRKRR",
                ],
            ),
            (
                "--only",
                |case| case.only = true,
                [
                    "RRRRR-RR", "RKKKKKRR", "RRRRRKRR", "RRRRRKRR", "RRRRR-RR", "RRRRR-RR",
                    "RRRRRKRR",
                ],
            ),
            (
                "--skip, or --only of others",
                |case| case.left_out = true,
                [
                    "--------", "KKKKKKKK", "KKKKKKKK", "KKKKKKKK", "--------", "--------",
                    "KKKKKKKK",
                ],
            ),
            (
                "--yes",
                |case| case.yes = true,
                [
                    "RRRR--RR", "RKKKKKRR", "RKRKKKRR", "RRRRKKRR", "RRRR--RR", "RRRR--RR",
                    "RRRRKKRR",
                ],
            ),
            (
                "something is to be repaired first",
                |case| case.obstacle = Some("doctor"),
                [
                    "R-----RR", "RKKKKKRR", "RKKKKKRR", "RKKKKKRR", "R-----RR", "R-----RR",
                    "RKKKKKRR",
                ],
            ),
            (
                "a recording",
                |case| case.machine = false,
                [
                    "R-----R-", "RKKKKKRK", "RKKKKKRK", "RKKKKKRK", "R-----R-", "R-----R-",
                    "RKKKKKRK",
                ],
            ),
        ];
        let mut pasts = vec![None];
        pasts.extend(VERDICTS.map(|verdict| Some((verdict, true))));
        pasts.push(Some((Verdict::Passed, false)));
        let columns = RISKS
            .map(|risk| (risk, false))
            .into_iter()
            .chain([(Risk::Reads, true), (Risk::Binds, true)]);

        for (name, change, rows) in table {
            for (past, wanted) in pasts.iter().zip(rows) {
                let found: String = columns
                    .clone()
                    .map(|(risk, always)| {
                        let mut case = Case {
                            risk,
                            always,
                            earlier: past.map(|(verdict, same_kernel)| Earlier {
                                verdict,
                                same_kernel,
                            }),
                            ..CASE
                        };
                        change(&mut case);
                        letter(&case)
                    })
                    .collect();
                assert_eq!(found, wanted, "{name}, {past:?}");
            }
        }
    }

    #[test]
    fn who_names_a_dangerous_step_is_asked_as_well() {
        assert!(!RISKS.into_iter().any(|risk| asks(risk, true)));
        let asked = RISKS.map(|risk| asks(risk, false));
        assert_eq!(asked, [false, true, true, true, false, true]);
    }

    /// What holds of all combinations, also of those that nobody thought of.
    #[test]
    fn nothing_is_lost_and_nothing_ends_the_host_unasked() {
        let mut pasts = vec![None];
        for verdict in VERDICTS {
            for same_kernel in [false, true] {
                pasts.push(Some(Earlier {
                    verdict,
                    same_kernel,
                }));
            }
        }
        for risk in RISKS {
            for earlier in &pasts {
                for bits in 0..256_u32 {
                    let bit = |number: u32| bits >> number & 1 == 1;
                    let case = Case {
                        risk,
                        earlier: *earlier,
                        always: bit(0),
                        obstacle: bit(1).then_some("doctor"),
                        machine: bit(2),
                        left_out: bit(3),
                        only: bit(4),
                        again: bit(5),
                        dangerous: bit(6),
                        yes: bit(7),
                        ..CASE
                    };
                    let verdict = earlier.map(|earlier| earlier.verdict);
                    let found = letter(&case);

                    assert!(
                        found != '-' || !verdict.is_some_and(is_evidence),
                        "evidence is lost: {case:?}"
                    );
                    assert!(
                        found != 'K' || verdict.is_some_and(is_evidence),
                        "there is nothing to keep: {case:?}"
                    );
                    if found != 'R' {
                        continue;
                    }
                    assert!(!case.left_out, "it was left out: {case:?}");
                    assert!(risk != Risk::Dangerous || case.dangerous, "{case:?}");
                    assert!(risk == Risk::Reads || case.machine, "{case:?}");
                    let harmless = risk == Risk::Reads || case.always;
                    assert!(
                        verdict != Some(Verdict::Begun) || harmless || case.again,
                        "what may have ended the host is done again: {case:?}"
                    );
                    assert!(
                        case.obstacle.is_none() || harmless || case.only,
                        "something was to be repaired first: {case:?}"
                    );
                }
            }
        }
    }
}
