// SPDX-License-Identifier: GPL-2.0

//! The emulated V100's own registers in BAR0, as `tests/qemu/include/nvlink2-v100-regs.h` has them.

use crate::{procedures, vfio::Device};
use anyhow::{ensure, Result};

const MODEL_ID: u64 = 0xf0_0000;
const MODEL_ID_MAGIC: u32 = 0x4e56_4c32;
const RAM_SIZE_LO: u64 = 0xf0_0008;
const RAM_SIZE_HI: u64 = 0xf0_000c;
const LINK_TRAIN: u64 = 0xf0_0010;
const LINK_STATUS: u64 = 0xf0_0014;
const LINK_MASK: u64 = 0xf0_0018;

/// The GPU brings its own ends of the links up.
const GPU_ENDS: u32 = 2;

/// Bytes of RAM that BAR1 shows, from its start.
pub const BAR1_SIZE: u64 = 256 << 20;

/// A GPU that is the model, not silicon.
pub struct Model<'a>(&'a Device);

impl<'a> Model<'a> {
    /// `None` for a real GPU, whose registers are the vendor driver's business.
    pub fn of(device: &'a Device) -> Result<Option<Self>> {
        let model = Self(device);
        Ok((model.register(MODEL_ID)? == MODEL_ID_MAGIC).then_some(model))
    }

    fn register(&self, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.0.read_bar(0, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Bytes of RAM behind the aperture.
    pub fn ram_size(&self) -> Result<u64> {
        Ok(u64::from(self.register(RAM_SIZE_HI)?) << 32 | u64::from(self.register(RAM_SIZE_LO)?))
    }

    /// Trains the links that are not, as the vendor's driver does: the NPU's ends by what
    /// firmware offers in their bridges. Returns whether it had to.
    pub fn train(&self, bridges: &[&Device]) -> Result<bool> {
        let mask = self.register(LINK_MASK)?;
        if self.register(LINK_STATUS)? == mask {
            return Ok(false);
        }
        procedures::reset(bridges)?;
        self.0.write_bar(0, LINK_TRAIN, &GPU_ENDS.to_le_bytes())?;
        procedures::train(bridges)?;
        let status = self.register(LINK_STATUS)?;
        ensure!(status == mask, "links {status:#x} of {mask:#x} came up");
        Ok(true)
    }

    /// 8 bytes of RAM as the GPU's own PCIe view shows them.
    pub fn ram(&self, offset: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_bar(1, offset, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
