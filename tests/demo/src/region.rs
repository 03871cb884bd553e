// SPDX-License-Identifier: GPL-2.0

//! VFIO regions and their capabilities.

use crate::{sys, vfio::Device};
use anyhow::{bail, ensure, Context, Result};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD, VFIO_REGION_INFO_CAP_NVLINK2_SSATGT,
    VFIO_REGION_INFO_CAP_TYPE, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD,
    VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM, VFIO_REGION_TYPE_PCI_VENDOR_TYPE,
};

/// struct vfio_region_info has this many bytes.
const INFO_BYTES: usize = 32;

/// One capability of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// VFIO_REGION_INFO_CAP_TYPE
    Type {
        /// Vendor in the lower half.
        kind: u32,
        /// Of that vendor.
        subtype: u32,
    },
    /// VFIO_REGION_INFO_CAP_NVLINK2_SSATGT: the aperture's address as the GPU names it.
    Ssatgt(u64),
    /// VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD: NVIDIA's code.
    LinkSpeed(u32),
    /// One that this program does not know.
    Other {
        /// Its id.
        id: u16,
    },
}

/// What a function says about one region.
pub struct Info {
    /// PCI address of the function.
    pub bdf: String,
    /// Index of the region.
    pub index: u32,
    /// VFIO_REGION_INFO_FLAG_*
    pub flags: u32,
    /// Bytes.
    pub size: u64,
    /// In the device's file.
    pub offset: u64,
    /// In the order in which they are chained.
    pub capabilities: Vec<Capability>,
}

impl Info {
    /// The value of the type capability.
    pub fn kind(&self) -> Option<(u32, u32)> {
        self.capabilities
            .iter()
            .find_map(|capability| match *capability {
                Capability::Type { kind, subtype } => Some((kind, subtype)),
                _ => None,
            })
    }

    /// Whether this is a GPU's RAM.
    pub fn is_gpu_ram(&self) -> bool {
        let kind = VFIO_REGION_TYPE_PCI_VENDOR_TYPE | 0x10de;
        self.kind() == Some((kind, VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM))
    }

    /// Whether this is a link's ATSD register block.
    pub fn is_atsd(&self) -> bool {
        let kind = VFIO_REGION_TYPE_PCI_VENDOR_TYPE | 0x1014;
        self.kind() == Some((kind, VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD))
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        if self.is_gpu_ram() {
            "GPU RAM"
        } else if self.is_atsd() {
            "ATSD register"
        } else {
            "unknown"
        }
    }

    /// Flags in words.
    pub fn flag_names(&self) -> String {
        let names = [
            (VFIO_REGION_INFO_FLAG_READ, "read"),
            (VFIO_REGION_INFO_FLAG_WRITE, "write"),
            (VFIO_REGION_INFO_FLAG_MMAP, "mmap"),
            (VFIO_REGION_INFO_FLAG_CAPS, "caps"),
        ];
        let set = names.iter().filter(|(flag, _)| self.flags & flag != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    }
}

/// The bytes of an answer, as the kernel left them.
struct Answer(Vec<u8>);

impl Answer {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = at.checked_add(N).and_then(|end| self.0.get(at..end));
        let bytes =
            bytes.with_context(|| format!("a capability reaches beyond the answer at {at:#x}"))?;
        Ok(bytes.try_into()?)
    }

    fn u16(&self, at: usize) -> Result<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64> {
        self.bytes(at).map(u64::from_ne_bytes)
    }

    /// Follows the chain of struct vfio_info_cap_header.
    fn capabilities(&self) -> Result<Vec<Capability>> {
        let mut found = Vec::new();
        let mut at = self.u32(12)? as usize;
        while at != 0 {
            ensure!(found.len() < 16, "the chain of capabilities does not end");
            let id = self.u16(at)?;
            found.push(match id.into() {
                VFIO_REGION_INFO_CAP_TYPE => Capability::Type {
                    kind: self.u32(at + 8)?,
                    subtype: self.u32(at + 12)?,
                },
                VFIO_REGION_INFO_CAP_NVLINK2_SSATGT => Capability::Ssatgt(self.u64(at + 8)?),
                VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD => Capability::LinkSpeed(self.u32(at + 8)?),
                _ => Capability::Other { id },
            });
            at = self.u32(at + 4)? as usize;
        }
        Ok(found)
    }
}

/// VFIO_DEVICE_GET_REGION_INFO, a second time with room for the capabilities if there are any.
fn ask(device: &Device, index: u32) -> Result<Answer> {
    let mut words = vec![0u64; INFO_BYTES / 8];
    loop {
        words[1] = index.into();
        sys::region_info(device.file(), &mut words)?;
        let needed = words[0] as u32 as usize;
        if needed <= size_of_val(words.as_slice()) {
            return Ok(Answer(
                words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
            ));
        }
        words = vec![0; needed.div_ceil(8)];
    }
}

fn read(bdf: &str, device: &Device, index: u32) -> Result<Info> {
    let answer = ask(device, index)?;
    let flags = answer.u32(4)?;
    let capabilities = if flags & VFIO_REGION_INFO_FLAG_CAPS != 0 {
        answer.capabilities()?
    } else {
        Vec::new()
    };
    Ok(Info {
        bdf: bdf.to_owned(),
        index,
        flags,
        size: answer.u64(16)?,
        offset: answer.u64(24)?,
        capabilities,
    })
}

/// The regions that devices have beyond those of vfio-pci.
pub fn read_all(devices: &[(&str, Device)]) -> Result<Vec<Info>> {
    let mut found = Vec::new();
    for (bdf, device) in devices {
        for index in VFIO_PCI_NUM_REGIONS..device.num_regions()? {
            let info = read(bdf, device, index);
            found.push(info.with_context(|| format!("region {index} of {bdf}"))?);
        }
    }
    Ok(found)
}

/// A function's device and its own region.
pub fn of<'a>(
    devices: &'a [(&str, Device)],
    regions: &'a [Info],
    bdf: &str,
) -> Result<(&'a Device, &'a Info)> {
    let device = devices.iter().find(|(name, _)| *name == bdf);
    let region = regions.iter().find(|info| info.bdf == bdf);
    match (device, region) {
        (Some((_, device)), Some(region)) => Ok((device, region)),
        _ => bail!("{bdf} has no region beyond those of vfio-pci"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(cap_offset: u32, chain: &[(u16, u32, &[u32])]) -> Answer {
        let mut bytes = vec![0; 12];
        bytes.extend(cap_offset.to_ne_bytes());
        bytes.resize(INFO_BYTES, 0);
        for (id, next, words) in chain {
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
            words
                .iter()
                .for_each(|word| bytes.extend(word.to_ne_bytes()));
        }
        Answer(bytes)
    }

    #[test]
    fn decodes_a_bridge() {
        let tgt: &[u32] = if cfg!(target_endian = "little") {
            &[0, 0x3e0]
        } else {
            &[0x3e0, 0]
        };
        let chain = answer(
            32,
            &[(2, 48, &[0x8000_1014, 1]), (4, 64, tgt), (5, 0, &[9, 0])],
        );
        let expected = [
            Capability::Type {
                kind: 0x8000_1014,
                subtype: 1,
            },
            Capability::Ssatgt(0x3e0_0000_0000),
            Capability::LinkSpeed(9),
        ];
        assert_eq!(chain.capabilities().unwrap(), expected);
    }

    #[test]
    fn refuses_chains_that_leave_the_answer_or_never_end() {
        assert!(answer(33, &[]).capabilities().is_err());
        assert!(answer(u32::MAX, &[]).capabilities().is_err());
        assert!(answer(32, &[(2, 0, &[])]).capabilities().is_err());
        assert!(answer(32, &[(7, 32, &[])]).capabilities().is_err());
        assert_eq!(answer(0, &[]).capabilities().unwrap(), []);
        assert_eq!(
            answer(32, &[(7, 0, &[])]).capabilities().unwrap(),
            [Capability::Other { id: 7 }]
        );
    }
}
