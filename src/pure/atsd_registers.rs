// SPDX-License-Identifier: GPL-2.0

//! Addresses of the address translation shootdown (ATSD) registers, and accesses to them.

use crate::pure::aperture::GRANULE;

/// Size of an ATSD register block, which is one page of the NPU's register space.
pub(crate) const ATSD_SIZE: u64 = GRANULE;

/// Width of every ATSD register (LAUNCH, AVA, STATUS) and so of every access.
pub(crate) const ATSD_ACCESS: u64 = 8;

/// Physical address of one ATSD register block.
///
/// # Invariants
///
/// Non-zero, a multiple of [`ATSD_SIZE`], and the block does not wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Atsd(u64);

impl Atsd {
    /// Takes the block at `address` if it lies in the NPU's register window.
    pub(crate) fn new(address: u64, window: u64, window_size: u64) -> Option<Self> {
        let end = address.checked_add(ATSD_SIZE)?;
        let window_end = window.checked_add(window_size)?;

        // INVARIANT: Each condition is checked here, the wrap above.
        (address != 0 && address % ATSD_SIZE == 0 && address >= window && end <= window_end)
            .then_some(Self(address))
    }

    /// Returns its physical address.
    pub(crate) fn address(self) -> u64 {
        self.0
    }
}

/// Returns the offsets of the registers that a read or write of `len` bytes at `offset` accesses,
/// one after the other. `None`: it is not of whole registers of the block, at least one.
pub(crate) fn registers(offset: u64, len: u64) -> Option<impl Iterator<Item = u64>> {
    let end = offset.checked_add(len)?;

    (len != 0 && offset % ATSD_ACCESS == 0 && len % ATSD_ACCESS == 0 && end <= ATSD_SIZE)
        .then(|| (offset..end).step_by(size_of::<u64>()))
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_atsd))]
mod tests {
    use super::*;

    const WINDOW: u64 = 0x6_0302_0000_0000;
    const SIZE: u64 = 0x100_0000;

    #[test]
    fn stays_in_the_register_window() {
        let table = [
            (0, false),
            (WINDOW - ATSD_SIZE, false),
            (WINDOW, true),
            (WINDOW + 0x80_0000, true),
            (WINDOW + 0x80_1000, false),
            (WINDOW + SIZE - ATSD_SIZE, true),
            (WINDOW + SIZE, false),
            (u64::MAX - ATSD_SIZE + 1, false),
        ];

        for (address, valid) in table {
            assert_eq!(Atsd::new(address, WINDOW, SIZE).is_some(), valid);
        }
    }

    #[test]
    fn accesses_are_whole_registers() {
        let table = [
            (0, 8, Some(1)),
            (0x10, 16, Some(2)),
            (0, ATSD_SIZE, Some(0x2000)),
            (ATSD_SIZE - 8, 8, Some(1)),
            (0, 0, None),
            (4, 8, None),
            (0, 4, None),
            (0, 12, None),
            (ATSD_SIZE - 8, 16, None),
            (ATSD_SIZE, 8, None),
            (u64::MAX - 7, 8, None),
        ];

        for (offset, len, count) in table {
            assert_eq!(registers(offset, len).map(Iterator::count), count);
        }
    }

    #[test]
    fn registers_come_in_order() {
        let mut found = registers(8, 24).into_iter().flatten();

        for expected in [Some(8), Some(16), Some(24), None] {
            assert_eq!(found.next(), expected);
        }
    }
}
