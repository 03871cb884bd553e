// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups: VFIO can use one only if no driver of the host uses any of it.

use crate::{bdf::Bdf, bind::driver_folder, host::Host, source::Source};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Drivers that do no DMA of their own, so that VFIO does not mind them.
const HARMLESS: [&str; 2] = ["pcieport", "pci-stub"];

/// Whose modules are VFIO drivers.
const HOLDERS: &str = "/sys/module/vfio_pci_core/holders";

/// A function that keeps its group from VFIO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// The group.
    pub group: u32,
    /// The function.
    pub bdf: Bdf,
    /// The driver that uses it.
    pub driver: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, bdf, driver } = self;
        write!(f, "IOMMU group {group}: {bdf} belongs to {driver}")
    }
}

/// The groups of functions.
pub fn of(host: &Host, functions: &[Bdf]) -> BTreeSet<u32> {
    functions
        .iter()
        .filter_map(|bdf| host.functions.get(bdf)?.group)
        .collect()
}

/// What would keep a group from VFIO if functions had the drivers that `drivers` says.
pub fn obstacles(
    source: &Source,
    host: &Host,
    group: u32,
    drivers: &BTreeMap<Bdf, &str>,
) -> Vec<Obstacle> {
    host.group(group)
        .filter_map(|function| {
            let driver = match drivers.get(&function.bdf) {
                Some(name) => *name,
                None => function.driver.as_deref()?,
            };
            (!is_for_vfio(source, driver)).then(|| Obstacle {
                group,
                bdf: function.bdf,
                driver: driver.to_owned(),
            })
        })
        .collect()
}

/// Whether a driver leaves its functions to VFIO.
pub fn is_for_vfio(source: &Source, driver: &str) -> bool {
    HARMLESS.contains(&driver) || is_vfio(source, driver)
}

/// Whether a driver is one of VFIO's.
pub fn is_vfio(source: &Source, driver: &str) -> bool {
    if driver == "vfio-pci" || driver == crate::bind::DRIVER {
        return true;
    }
    source
        .link_name(&format!("{}/module", driver_folder(driver)))
        .is_some_and(|module| source.exists(&format!("{HOLDERS}/{module}")))
}
