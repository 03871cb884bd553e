// SPDX-License-Identifier: GPL-2.0

//! GPUs, bridges and groups of this machine, and who drives them.

use crate::sys;
use anyhow::{bail, ensure, Context, Result};
use std::{
    env, fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// The driver under test.
pub const DRIVER: &str = "nvlink2-vfio-pci";
const MODULE: &std::ffi::CStr = c"nvlink2_vfio_pci";
const DEVICES: &str = "/sys/bus/pci/devices";

/// Bytes at the start of a GPU's RAM that accesses keep to. What is behind the RAM's end is lost like
/// what comes before training; every V100 has more than this.
pub const RAM: u64 = 1 << 30;

/// A PCI function on NVLink2.
#[derive(Clone, Debug)]
pub struct Function {
    /// PCI address.
    pub bdf: String,
    /// Whether it is a GPU; a bridge otherwise.
    pub is_gpu: bool,
    /// The GPU it is or belongs to, by number.
    pub gpu: usize,
    /// Its IOMMU group, by number of those here.
    pub group: usize,
}

/// All of a machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// GPUs, each followed by its bridges.
    pub functions: Vec<Function>,
    /// Position of each GPU in `functions`.
    pub gpus: Vec<usize>,
    /// Kernel's number of each IOMMU group.
    pub groups: Vec<u32>,
}

fn property(bdf: &str, name: &str) -> Option<Vec<u8>> {
    fs::read(format!("{DEVICES}/{bdf}/of_node/{name}")).ok()
}

fn group(bdf: &str) -> Result<u32> {
    let link = fs::read_link(format!("{DEVICES}/{bdf}/iommu_group"))
        .with_context(|| format!("{bdf} is in no IOMMU group: does the kernel have the series?"))?;
    let name = link.file_name().context("iommu_group leads nowhere")?;
    Ok(name.to_string_lossy().parse()?)
}

impl Machine {
    /// Looks around.
    pub fn read() -> Result<Self> {
        let mut names: Vec<String> = fs::read_dir(DEVICES)
            .with_context(|| format!("{DEVICES}: run this in the emulated host"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        let mut machine = Self::default();
        for bdf in names
            .iter()
            .filter(|bdf| property(bdf, "ibm,npu").is_some())
        {
            let phandle =
                property(bdf, "phandle").with_context(|| format!("{bdf} has no phandle"))?;
            let id = group(bdf)?;
            if !machine.groups.contains(&id) {
                machine.groups.push(id);
            }
            let gpu = machine.gpus.len();
            machine.gpus.push(machine.functions.len());
            let bridges = names
                .iter()
                .filter(|other| property(other, "ibm,gpu").as_ref() == Some(&phandle));
            for bdf in [bdf].into_iter().chain(bridges) {
                machine.functions.push(Function {
                    bdf: bdf.clone(),
                    is_gpu: machine.gpus.len() > gpu
                        && machine.functions.len() == machine.gpus[gpu],
                    gpu,
                    group: machine.groups.len() - 1,
                });
            }
        }
        ensure!(!machine.gpus.is_empty(), "no GPU on NVLink2 is there");
        Ok(machine)
    }

    /// First and last GPU of a group.
    pub fn gpus_of(&self, group: usize) -> (usize, usize) {
        let of_group = |gpu: &usize| self.functions[self.gpus[*gpu]].group == group;
        let first = (0..self.gpus.len()).find(of_group).unwrap_or(0);
        let last = (0..self.gpus.len()).rev().find(of_group).unwrap_or(first);
        (first, last)
    }

    /// Loads the module if it is not, and has it drive every function.
    pub fn bind_all(&self) -> Result<()> {
        if !is_loaded() {
            load()?;
        }
        for function in &self.functions {
            bind(&function.bdf, DRIVER)?;
        }
        Ok(())
    }
}

/// Who drives a function.
pub fn driver(bdf: &str) -> Option<String> {
    let link = fs::read_link(format!("{DEVICES}/{bdf}/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Takes a function away from its driver. Waits while somebody has it open.
pub fn unbind(bdf: &str) -> Result<()> {
    if driver(bdf).is_none() {
        return Ok(());
    }
    let path = format!("{DEVICES}/{bdf}/driver/unbind");
    fs::write(&path, bdf).with_context(|| path.clone())
}

/// Gives a function to a driver, as an administrator does with driver_override.
pub fn bind(bdf: &str, to: &str) -> Result<()> {
    if driver(bdf).as_deref() == Some(to) {
        return Ok(());
    }
    unbind(bdf)?;
    fs::write(format!("{DEVICES}/{bdf}/driver_override"), to).context("driver_override")?;
    fs::write("/sys/bus/pci/drivers_probe", bdf).context("drivers_probe")?;
    match driver(bdf) {
        Some(driver) if driver == to => Ok(()),
        Some(driver) => bail!("{driver} took {bdf}"),
        None => bail!("{to} refused {bdf}"),
    }
}

/// Whether the module is loaded.
pub fn is_loaded() -> bool {
    Path::new("/sys/bus/pci/drivers").join(DRIVER).exists()
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            return find(&path, name);
        }
        (path.file_name()?.to_str()? == name).then_some(path)
    })
}

/// Loads the module: `NVLINK2_KO`, or the one that is installed.
pub fn load() -> Result<()> {
    let name = format!("{DRIVER}.ko");
    let path = env::var_os("NVLINK2_KO").map(PathBuf::from);
    let path = path.or_else(|| find(Path::new("/lib/modules"), &name));
    let path = path.with_context(|| {
        format!("{name} is nowhere below /lib/modules, name it with NVLINK2_KO")
    })?;
    let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
    match sys::insert_module(file.as_raw_fd()) {
        Ok(_) | Err(libc::EEXIST) => Ok(()),
        Err(errno) => bail!(
            "loading {}: {}",
            path.display(),
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

/// Unloads the module; refused while somebody uses it.
pub fn unload() -> sys::Outcome {
    sys::delete_module(MODULE)
}
