// SPDX-License-Identifier: GPL-2.0

//! Gives PCI functions to drivers and takes them away: all of them, or none.

use crate::{
    bdf::Bdf,
    exit::{Status, Stop},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The driver that this is about.
pub const DRIVER: &str = "nvlink2-vfio-pci";

/// How long a driver may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The drivers of a host. The kernel's own is [`Sysfs`].
pub trait Drivers {
    /// The driver of a function.
    fn driver(&self, bdf: Bdf) -> Option<String>;
    /// The driver that a function is reserved for.
    fn reservation(&self, bdf: Bdf) -> Option<String>;
    /// Reserves a function for a driver, or for none in particular.
    fn reserve(&mut self, bdf: Bdf, driver: Option<&str>) -> io::Result<()>;
    /// Takes a function away from its driver.
    fn release(&mut self, bdf: Bdf, driver: &str) -> io::Result<()>;
    /// Gives a function without a driver to this one.
    fn attach(&mut self, bdf: Bdf, driver: &str) -> io::Result<()>;
    /// Lets the kernel find a driver for a function that has none; that there is none is no error.
    fn probe(&mut self, bdf: Bdf) -> io::Result<()>;
}

/// sysfs of this machine.
pub struct Sysfs;

fn write(path: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// Where sysfs shows a driver.
pub fn driver_folder(driver: &str) -> String {
    format!("/sys/bus/pci/drivers/{driver}")
}

impl Drivers for Sysfs {
    fn driver(&self, bdf: Bdf) -> Option<String> {
        let link = fs::read_link(format!("{}/driver", bdf.folder())).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    fn reservation(&self, bdf: Bdf) -> Option<String> {
        let text = fs::read_to_string(format!("{}/driver_override", bdf.folder())).ok()?;
        let name = text.trim();
        (!name.is_empty() && name != "(null)").then(|| name.to_owned())
    }

    fn reserve(&mut self, bdf: Bdf, driver: Option<&str>) -> io::Result<()> {
        // An empty line is none in particular.
        let line = format!("{}\n", driver.unwrap_or_default());
        write(&format!("{}/driver_override", bdf.folder()), &line)
    }

    fn release(&mut self, bdf: Bdf, driver: &str) -> io::Result<()> {
        write(
            &format!("{}/unbind", driver_folder(driver)),
            &bdf.to_string(),
        )
    }

    fn attach(&mut self, bdf: Bdf, driver: &str) -> io::Result<()> {
        write(&format!("{}/bind", driver_folder(driver)), &bdf.to_string())
    }

    fn probe(&mut self, bdf: Bdf) -> io::Result<()> {
        if !Path::new(&bdf.folder()).exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the device is gone",
            ));
        }
        write("/sys/bus/pci/drivers_probe", &bdf.to_string())
    }
}

/// Who a function is to belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This driver, for which the function is reserved, too.
    Driver(String),
    /// Whichever driver the kernel finds for a function that is not reserved.
    Host,
    /// No driver.
    Nobody,
}

/// What was done to a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The function.
    pub bdf: Bdf,
    /// Its driver before.
    pub from: Option<String>,
    /// Its driver now.
    pub to: Option<String>,
}

/// What a function was like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The function.
    pub bdf: Bdf,
    /// Its driver.
    pub driver: Option<String>,
    /// The driver that it was reserved for.
    pub reservation: Option<String>,
}

/// Waits until `done` says so.
fn wait(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= patience {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Gives functions to an owner. If one of them can't be, all get back what they had, and the error says
/// which it was.
pub fn hand_over(
    drivers: &mut impl Drivers,
    functions: &[Bdf],
    owner: &Owner,
    patience: Duration,
) -> Result<Vec<Change>, Stop> {
    let mut touched: Vec<Before> = Vec::new();
    let mut changes = Vec::new();

    for bdf in functions.iter().copied() {
        let before = Before {
            bdf,
            driver: drivers.driver(bdf),
            reservation: drivers.reservation(bdf),
        };
        let from = before.driver.clone();
        touched.push(before);
        if let Err(reason) = give(drivers, bdf, owner, patience) {
            let left: Vec<_> = touched
                .iter()
                .rev()
                .filter_map(|before| put_back(drivers, before, patience).err())
                .collect();
            return Err(failure(bdf, owner, &reason, &left));
        }
        changes.push(Change {
            bdf,
            from,
            to: drivers.driver(bdf),
        });
    }
    Ok(changes)
}

/// Gives functions back what they had before they were given to [`DRIVER`]: those that it has now, and those that
/// nobody has since a bind that was cut short. What somebody else has made of a function meanwhile stays. All are
/// tried; the error says which could not be put back.
pub fn undo(
    drivers: &mut impl Drivers,
    functions: &[Before],
    patience: Duration,
) -> Result<Vec<Change>, Stop> {
    let mut changes = Vec::new();
    let mut left = Vec::new();

    for before in functions {
        let from = drivers.driver(before.bdf);
        let ours = from.as_deref().is_none_or(|driver| driver == DRIVER);
        let same = from == before.driver && drivers.reservation(before.bdf) == before.reservation;
        if !ours || same {
            continue;
        }
        match put_back(drivers, before, patience) {
            Ok(()) => changes.push(Change {
                bdf: before.bdf,
                from,
                to: before.driver.clone(),
            }),
            Err(reason) => left.push(reason),
        }
    }
    if left.is_empty() {
        return Ok(changes);
    }
    Err(Stop::new(
        Status::HalfDone,
        format!(
            "not everything could be put back: {}. Look at 'nvlink2ctl list' and at the kernel log ('dmesg')",
            left.join("; ")
        ),
    ))
}

fn give(
    drivers: &mut impl Drivers,
    bdf: Bdf,
    owner: &Owner,
    patience: Duration,
) -> Result<(), String> {
    let (reserve, wanted) = match owner {
        Owner::Driver(name) => (Some(name.as_str()), Some(name.as_str())),
        Owner::Host | Owner::Nobody => (None, None),
    };
    if drivers.reservation(bdf).as_deref() != reserve {
        drivers
            .reserve(bdf, reserve)
            .map_err(|error| error.to_string())?;
    }
    match drivers.driver(bdf) {
        Some(driver) if Some(driver.as_str()) == wanted => return Ok(()),
        Some(driver) => {
            drivers
                .release(bdf, &driver)
                .map_err(|error| error.to_string())?;
            if !wait(patience, || drivers.driver(bdf).is_none()) {
                return Err(format!("{driver} has not let go of it after {patience:?}"));
            }
        }
        None => {}
    }
    match owner {
        Owner::Driver(name) => {
            let said = drivers.attach(bdf, name);
            if wait(patience, || said.is_err() || drivers.driver(bdf).is_some())
                && drivers.driver(bdf).as_deref() == Some(name)
            {
                return Ok(());
            }
            Err(match (said, drivers.driver(bdf)) {
                (Err(error), _) => error.to_string(),
                (Ok(()), Some(other)) => format!("{other} took it"),
                (Ok(()), None) => format!("{name} has not taken it after {patience:?}"),
            })
        }
        Owner::Host => drivers.probe(bdf).map_err(|error| error.to_string()),
        Owner::Nobody => Ok(()),
    }
}

fn put_back(drivers: &mut impl Drivers, before: &Before, patience: Duration) -> Result<(), String> {
    let Before {
        bdf,
        driver,
        reservation,
    } = before;
    let bdf = *bdf;
    let complain = |error: io::Error| format!("{bdf}: {error}");

    if drivers.reservation(bdf) != *reservation {
        drivers
            .reserve(bdf, reservation.as_deref())
            .map_err(complain)?;
    }
    let now = drivers.driver(bdf);
    if now == *driver {
        return Ok(());
    }
    if let Some(now) = now {
        drivers.release(bdf, &now).map_err(complain)?;
    }
    if let Some(driver) = driver {
        drivers.attach(bdf, driver).map_err(complain)?;
    }
    if wait(patience, || drivers.driver(bdf) == *driver) {
        return Ok(());
    }
    Err(format!(
        "{bdf}: has not come back to its driver after {patience:?}"
    ))
}

fn failure(bdf: Bdf, owner: &Owner, reason: &str, left: &[String]) -> Stop {
    let what = match owner {
        Owner::Driver(name) => format!("{bdf} could not be given to {name}: {reason}"),
        Owner::Host | Owner::Nobody => format!("{bdf} could not be taken back: {reason}"),
    };
    if left.is_empty() {
        return Stop::new(
            Status::RolledBack,
            format!(
                "{what}. Everything is as it was before; the kernel log ('dmesg') may say more"
            ),
        );
    }
    Stop::new(
        Status::HalfDone,
        format!(
            "{what}. Not everything could be put back: {}. Look at 'nvlink2ctl list' and at the kernel log ('dmesg')",
            left.join("; ")
        ),
    )
}

#[cfg(test)]
mod tests;
