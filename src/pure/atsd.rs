// SPDX-License-Identifier: GPL-2.0

//! Addresses of the address translation shootdown (ATSD) registers, and accesses to them.

use super::aperture::GRANULE;

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

    pub(crate) fn address(self) -> u64 {
        self.0
    }
}

/// Whether a read or write of `len` bytes at `offset` is one of a whole register of the block.
pub(crate) fn is_register_access(offset: u64, len: u64) -> bool {
    len == ATSD_ACCESS && offset % ATSD_ACCESS == 0 && offset < ATSD_SIZE
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
            (0, 8, true),
            (0x10, 8, true),
            (0x10, 16, false),
            (ATSD_SIZE - 8, 8, true),
            (0, 0, false),
            (4, 8, false),
            (0, 4, false),
            (0, 12, false),
            (ATSD_SIZE, 8, false),
            (u64::MAX - 7, 8, false),
        ];

        for (offset, len, valid) in table {
            assert_eq!(is_register_access(offset, len), valid);
        }
    }
}
