// SPDX-License-Identifier: GPL-2.0

//! Handing over functions of a host that does as it is told.

use super::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Function {
    driver: Option<String>,
    reservation: Option<String>,
}

/// A host in memory, some of whose steps fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fake {
    functions: BTreeMap<Bdf, Function>,
    /// "STEP BDF", such as "attach 0000:03:00.0": the step fails.
    refused: Vec<String>,
    /// The same: the step succeeds and does nothing.
    ignored: Vec<String>,
    /// What the kernel would bind to a function that is not reserved.
    native: Option<String>,
}

fn bdf(number: u32) -> Bdf {
    Bdf::new(0, number, 0, 0).unwrap()
}

impl Fake {
    fn new(drivers: &[Option<&str>]) -> Self {
        let functions = (0..).zip(drivers).map(|(number, driver)| {
            let function = Function {
                driver: driver.map(str::to_owned),
                reservation: driver.filter(|name| *name == "vfio-pci").map(str::to_owned),
            };
            (bdf(number), function)
        });
        Self {
            functions: functions.collect(),
            ..Self::default()
        }
    }

    /// Whether a step is to have its effect.
    fn step(&mut self, step: &str, bdf: Bdf) -> io::Result<bool> {
        let name = format!("{step} {bdf}");
        if self.refused.contains(&name) {
            return Err(io::Error::other("refused by the test"));
        }
        Ok(!self.ignored.contains(&name))
    }

    fn at(&mut self, bdf: Bdf) -> &mut Function {
        self.functions.get_mut(&bdf).unwrap()
    }
}

impl Drivers for Fake {
    fn driver(&self, bdf: Bdf) -> Option<String> {
        self.functions[&bdf].driver.clone()
    }

    fn reservation(&self, bdf: Bdf) -> Option<String> {
        self.functions[&bdf].reservation.clone()
    }

    fn reserve(&mut self, bdf: Bdf, driver: Option<&str>) -> io::Result<()> {
        if self.step("reserve", bdf)? {
            self.at(bdf).reservation = driver.map(str::to_owned);
        }
        Ok(())
    }

    fn release(&mut self, bdf: Bdf, driver: &str) -> io::Result<()> {
        assert_eq!(self.driver(bdf).as_deref(), Some(driver));
        if self.step("release", bdf)? {
            self.at(bdf).driver = None;
        }
        Ok(())
    }

    fn attach(&mut self, bdf: Bdf, driver: &str) -> io::Result<()> {
        assert_eq!(self.driver(bdf), None);
        if self.step("attach", bdf)? {
            self.at(bdf).driver = Some(driver.to_owned());
        }
        Ok(())
    }

    fn probe(&mut self, bdf: Bdf) -> io::Result<()> {
        if self.step("probe", bdf)? && self.driver(bdf).is_none() {
            self.at(bdf).driver = self.reservation(bdf).or(self.native.clone());
        }
        Ok(())
    }
}

const AT_ONCE: Duration = Duration::ZERO;

fn ours() -> Owner {
    Owner::Driver(DRIVER.to_owned())
}

fn all(host: &Fake) -> Vec<Bdf> {
    host.functions.keys().copied().collect()
}

#[test]
fn functions_come_from_any_driver() {
    let mut host = Fake::new(&[None, Some("nvidia"), Some("vfio-pci"), Some(DRIVER)]);
    let functions = all(&host);
    let changes = hand_over(&mut host, &functions, &ours(), AT_ONCE).unwrap();

    for function in host.functions.values() {
        assert_eq!(function.driver.as_deref(), Some(DRIVER));
        assert_eq!(function.reservation.as_deref(), Some(DRIVER));
    }
    let from: Vec<_> = changes
        .iter()
        .map(|change| change.from.as_deref())
        .collect();
    assert_eq!(from, [None, Some("nvidia"), Some("vfio-pci"), Some(DRIVER)]);
    assert!(
        changes
            .iter()
            .all(|change| change.to.as_deref() == Some(DRIVER))
    );
}

#[test]
fn the_host_takes_back() {
    for (owner, native, wanted) in [
        (Owner::Host, Some("nvidia"), Some("nvidia")),
        (Owner::Host, None, None),
        (Owner::Nobody, Some("nvidia"), None),
    ] {
        let mut host = Fake::new(&[Some(DRIVER)]);
        host.at(bdf(0)).reservation = Some(DRIVER.to_owned());
        host.native = native.map(str::to_owned);
        let changes = hand_over(&mut host, &[bdf(0)], &owner, AT_ONCE).unwrap();

        assert_eq!(host.functions[&bdf(0)].driver.as_deref(), wanted);
        assert_eq!(host.functions[&bdf(0)].reservation, None);
        assert_eq!(changes[0].to.as_deref(), wanted);
    }
}

/// Whatever fails at whichever function: all is as before, or the error says what is not.
#[test]
fn any_failure_is_rolled_back() {
    let start = [None, Some("nvidia"), Some("vfio-pci")];
    for owner in [ours(), Owner::Host, Owner::Nobody] {
        for step in ["reserve", "release", "attach", "probe"] {
            for number in 0..3 {
                for ignore in [false, true] {
                    let mut host = Fake::new(&start);
                    let name = format!("{step} {}", bdf(number));
                    if ignore {
                        host.ignored.push(name.clone());
                    } else {
                        host.refused.push(name.clone());
                    }
                    let before = host.functions.clone();
                    let functions = all(&host);
                    let result = hand_over(&mut host, &functions, &owner, AT_ONCE);
                    let Err(stop) = result else {
                        continue;
                    };
                    match stop.status {
                        Status::RolledBack => {
                            assert_eq!(host.functions, before, "{owner:?} {name}")
                        }
                        Status::HalfDone => {
                            // Only a step that also fails on the way back.
                            assert_ne!(host.functions, before, "{owner:?} {name}");
                            assert!(stop.message.contains("Not everything"), "{}", stop.message);
                        }
                        other => panic!("{other:?}"),
                    }
                    assert!(
                        stop.message.starts_with(&bdf(number).to_string()),
                        "{}",
                        stop.message
                    );
                }
            }
        }
    }
}

#[test]
fn refusal_of_the_last_gives_the_first_back() {
    let mut host = Fake::new(&[Some("nvidia"), Some("vfio-pci"), None]);
    host.refused.push(format!("attach {}", bdf(2)));
    let before = host.functions.clone();
    let functions = all(&host);
    let stop = hand_over(&mut host, &functions, &ours(), AT_ONCE).unwrap_err();

    assert_eq!(stop.status, Status::RolledBack);
    assert_eq!(host.functions, before);
    assert!(
        stop.message.contains("refused by the test"),
        "{}",
        stop.message
    );
}

#[test]
fn another_driver_may_be_faster() {
    let mut host = Fake::new(&[None]);
    host.ignored.push(format!("attach {}", bdf(0)));
    let stop = hand_over(&mut host, &[bdf(0)], &ours(), AT_ONCE).unwrap_err();
    assert!(
        stop.message.contains("has not taken it after"),
        "{}",
        stop.message
    );
}

#[test]
fn what_cannot_be_put_back_is_said() {
    let mut host = Fake::new(&[Some("nvidia"), None]);
    host.refused.push(format!("attach {}", bdf(1)));
    // nvidia can be left, but not be entered again.
    host.refused.push(format!("attach {}", bdf(0)));
    let stop = hand_over(&mut host, &[bdf(0), bdf(1)], &Owner::Nobody, AT_ONCE);
    assert!(stop.is_ok());

    let mut host = Fake::new(&[Some("nvidia")]);
    host.refused.push(format!("attach {}", bdf(0)));
    let stop = hand_over(&mut host, &[bdf(0)], &ours(), AT_ONCE).unwrap_err();
    assert_eq!(stop.status, Status::HalfDone);
    assert!(
        stop.message
            .contains("Not everything could be put back: 0000:00:00.0"),
        "{}",
        stop.message
    );
}

/// What a bind did is undone, and nothing else: also of a bind that stopped half way.
#[test]
fn undoing_gives_each_what_it_had() {
    let start = [
        None,
        Some("nvidia"),
        Some("vfio-pci"),
        Some(DRIVER),
        Some(DRIVER),
        Some("vfio-pci"),
    ];
    let mut host = Fake::new(&start);
    host.native = Some("nvidia".to_owned());
    // An administrator has reserved one of those that the driver had.
    host.at(bdf(3)).reservation = Some(DRIVER.to_owned());
    let first = host.functions.clone();
    let functions = all(&host);
    let before: Vec<_> = functions
        .iter()
        .map(|bdf| Before {
            bdf: *bdf,
            driver: host.driver(*bdf),
            reservation: host.reservation(*bdf),
        })
        .collect();
    hand_over(&mut host, &functions, &ours(), AT_ONCE).unwrap();
    // Of a bind that was cut short; and somebody else's since.
    host.at(bdf(1)).driver = None;
    host.at(bdf(5)).driver = Some("own".to_owned());

    let changes = undo(&mut host, &before, AT_ONCE).unwrap();
    let moved: Vec<_> = changes
        .iter()
        .map(|change| (change.bdf, change.to.as_deref()))
        .collect();
    assert_eq!(
        moved,
        [
            (bdf(0), None),
            (bdf(1), Some("nvidia")),
            (bdf(2), Some("vfio-pci")),
            (bdf(4), Some(DRIVER)),
        ]
    );
    for number in 0..5 {
        assert_eq!(host.functions[&bdf(number)], first[&bdf(number)]);
    }
    assert_eq!(host.functions[&bdf(5)].driver.as_deref(), Some("own"));
    assert_eq!(undo(&mut host, &before, AT_ONCE).unwrap(), []);

    host.at(bdf(2)).driver = Some(DRIVER.to_owned());
    host.at(bdf(1)).driver = Some(DRIVER.to_owned());
    host.refused.push(format!("release {}", bdf(1)));
    let stop = undo(&mut host, &before, AT_ONCE).unwrap_err();
    assert_eq!(stop.status, Status::HalfDone);
    assert!(stop.message.contains("0000:01:00.0"), "{}", stop.message);
    // The others were put back nevertheless.
    assert_eq!(host.functions[&bdf(2)], first[&bdf(2)]);
}
