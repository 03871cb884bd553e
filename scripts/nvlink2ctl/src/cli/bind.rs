// SPDX-License-Identifier: GPL-2.0

//! `bind` and `unbind`.

use super::{
    Options, host, note, output,
    select::{self, Selection},
    source,
};
use crate::{
    bdf::Bdf,
    bind::{self, Change, DRIVER, Owner, Sysfs},
    exit::{Status, Stop},
    gpu_memory, groups,
    host::Host,
    source::Source,
    users,
};
use anyhow::{Result, bail};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// What to give to the driver.
#[derive(Debug, clap::Args)]
pub struct Bind {
    #[command(flatten)]
    selection: Selection,

    /// The driver: any VFIO driver, but only the default one knows NVLink2
    #[arg(long, value_name = "NAME", default_value = DRIVER)]
    driver: String,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What to take from its driver.
#[derive(Debug, clap::Args)]
pub struct Unbind {
    #[command(flatten)]
    selection: Selection,

    /// With --group and --all: take functions from this driver only [default: VFIO's drivers]
    #[arg(long, value_name = "NAME", conflicts_with = "functions")]
    driver: Option<String>,

    /// Leave the functions without a driver, and do not let the kernel look for one
    #[arg(long)]
    no_probe: bool,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    changes: Vec<Change>,
}

/// Gives GPUs and bridges to the driver.
pub fn bind(options: &Options, arguments: &Bind) -> Result<Status> {
    let host = host(options)?.with_nvlink2()?;
    let mut functions = arguments.selection.complete(&host)?;
    let source = source(options)?;
    // A bridge that leads nowhere is nothing for guests, but must not stay with a driver of the host.
    functions.extend(
        arguments
            .selection
            .unconnected(&host)
            .filter(|bridge| {
                let driver = bridge.function.driver.as_deref();
                driver.is_some_and(|driver| !groups::is_for_vfio(&source, driver))
            })
            .map(|bridge| bridge.function.bdf),
    );
    for bridge in select::without_gpu(&host, &functions) {
        note(
            options,
            &format!(
                "{} is a bridge of {}, which is not bound with it; a guest needs both",
                bridge.function.bdf,
                output::or_dash(bridge.gpu)
            ),
        );
    }
    let folder = bind::driver_folder(&arguments.driver);

    if source.is_machine() && !source.exists(&folder) {
        return Err(Stop::new(
            Status::Refused,
            format!(
                "there is no driver {0}: load its module ('modprobe {0}')",
                arguments.driver
            ),
        )
        .into());
    }
    refuse_memory_of_the_host(&source, &host, &functions)?;
    let drivers: BTreeMap<Bdf, &str> = functions
        .iter()
        .map(|bdf| (*bdf, arguments.driver.as_str()))
        .collect();
    let obstacles: Vec<_> = groups::of(&host, &functions)
        .into_iter()
        .flat_map(|number| groups::obstacles(&source, &host, number, &drivers))
        .map(|obstacle| obstacle.to_string())
        .collect();
    if !obstacles.is_empty() {
        return Err(Stop::new(
            Status::Refused,
            format!(
                "{}. VFIO needs all of an IOMMU group: bind the whole group (--group), or take these functions from their drivers first",
                obstacles.join("; ")
            ),
        )
        .into());
    }
    let owner = Owner::Driver(arguments.driver.clone());
    change(options, &host, &functions, &owner, arguments.dry_run)
}

/// Takes GPUs and bridges back.
pub fn unbind(options: &Options, arguments: &Unbind) -> Result<Status> {
    let host = host(options)?.with_nvlink2()?;
    let source = source(options)?;
    let mut functions = arguments.selection.functions(&host)?;
    functions.extend(
        arguments
            .selection
            .unconnected(&host)
            .map(|bridge| &bridge.function)
            .filter(|function| function.driver.as_deref() == Some(DRIVER))
            .map(|function| function.bdf),
    );
    if !arguments.selection.is_by_name() {
        // Who asks for all means all that guests have, and not what the host works with.
        let (taken, left): (Vec<_>, Vec<_>) = functions.into_iter().partition(|bdf| {
            let driver = host.functions.get(bdf).and_then(|f| f.driver.as_deref());
            match (driver, &arguments.driver) {
                (None, None) => true,
                (Some(driver), None) => groups::is_vfio(&source, driver),
                (driver, Some(wanted)) => driver == Some(wanted.as_str()),
            }
        });
        if !left.is_empty() {
            let left: Vec<_> = left.iter().map(ToString::to_string).collect();
            note(
                options,
                &format!(
                    "{} stay with their drivers; --driver NAME takes functions from another driver than VFIO's",
                    left.join(", ")
                ),
            );
        }
        functions = taken;
    }
    let of_the_host: Vec<_> = functions
        .iter()
        .copied()
        .filter(|bdf| {
            let driver = host.functions.get(bdf).and_then(|f| f.driver.as_deref());
            driver.is_some_and(|driver| !groups::is_for_vfio(&source, driver))
        })
        .collect();
    refuse_memory_of_the_host(&source, &host, &of_the_host)?;
    let owner = if arguments.no_probe {
        Owner::Nobody
    } else {
        Owner::Host
    };
    change(options, &host, &functions, &owner, arguments.dry_run)
}

/// Functions are not taken from the driver that holds up the links to memory of the host.
fn refuse_memory_of_the_host(source: &Source, host: &Host, functions: &[Bdf]) -> Result<()> {
    let online = gpu_memory::online(source, gpu_memory::gpus_of(host, functions));
    if online.is_empty() {
        return Ok(());
    }
    let online: Vec<_> = online.iter().map(ToString::to_string).collect();
    Err(Stop::new(
        Status::Refused,
        format!(
            "{}. Without its driver the host would lose it. {}",
            online.join("; "),
            gpu_memory::REMEDY
        ),
    )
    .into())
}

fn change(
    options: &Options,
    host: &Host,
    functions: &[Bdf],
    owner: &Owner,
    dry_run: bool,
) -> Result<Status> {
    let changes = if dry_run {
        planned(host, functions, owner)
    } else {
        if !source(options)?.is_machine() {
            bail!(
                "only this machine's drivers can be changed: leave out --sysfs, or say --dry-run"
            );
        }
        if !rustix::process::geteuid().is_root() {
            bail!("drivers can only be changed by root: use sudo");
        }
        let users = users::find(Path::new("/proc"), host, functions);
        if !users.is_empty() {
            let users: Vec<_> = users.iter().map(ToString::to_string).collect();
            return Err(Stop::new(
                Status::Refused,
                format!(
                    "in use: {}. Shut down the guest or end the process first",
                    users.join("; ")
                ),
            )
            .into());
        }
        bind::hand_over(&mut Sysfs, functions, owner, bind::PATIENCE)?
    };
    if options.json {
        output::json(&Report { dry_run, changes })?;
        return Ok(Status::Done);
    }
    let mut table = output::untitled();
    for Change { bdf, from, to } in changes {
        let name =
            |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
        let what = if dry_run && *owner == Owner::Host {
            format!("{} -> whatever driver the kernel finds", name(&from))
        } else if from == to {
            format!("stays with {}", name(&to))
        } else {
            format!("{} -> {}", name(&from), name(&to))
        };
        table.add_row([bdf.to_string(), what]);
    }
    output::print(&table.to_string())?;
    Ok(Status::Done)
}

fn planned(host: &Host, functions: &[Bdf], owner: &Owner) -> Vec<Change> {
    functions
        .iter()
        .map(|bdf| Change {
            bdf: *bdf,
            from: host
                .functions
                .get(bdf)
                .and_then(|function| function.driver.clone()),
            to: match owner {
                Owner::Driver(name) => Some(name.clone()),
                Owner::Host | Owner::Nobody => None,
            },
        })
        .collect()
}
