// SPDX-License-Identifier: GPL-2.0

//! The window of host physical address space behind which a GPU's memory lies.

use crate::pure::{
    devicetree::Problem,
    range::MAX_REGION_SIZE, //
};

/// What apertures, ATSD registers and mappings of them are aligned to: the largest page of the
/// kernels that run here, and the size of an ATSD register block.
pub(crate) const GRANULE: u64 = 0x1_0000;

/// An aperture in bytes of host physical address space.
///
/// It is the room firmware sets aside per GPU (128 GiB), not the size of the GPU's RAM.
///
/// # Invariants
///
/// `base` and `size` are non-zero multiples of [`GRANULE`], `size <= MAX_REGION_SIZE`, and
/// `base + size` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aperture {
    base: u64,
    size: u64,
}

impl Aperture {
    /// Checks `base` and `size`, in bytes; tells what is wrong with a `reg` property that says so.
    pub(crate) fn new(base: u64, size: u64) -> Result<Self, Problem> {
        if base == 0 || size == 0 {
            return Err(Problem::Zero);
        }
        if (base | size) % GRANULE != 0 {
            return Err(Problem::Unaligned);
        }
        if base.checked_add(size).is_none() {
            return Err(Problem::Wraps);
        }
        if size > MAX_REGION_SIZE {
            return Err(Problem::TooLarge);
        }
        // INVARIANT: Each condition was just checked.
        Ok(Self { base, size })
    }

    /// Returns the first physical address.
    pub(crate) fn base(self) -> u64 {
        self.base
    }

    /// Returns the size in bytes.
    pub(crate) fn size(self) -> u64 {
        self.size
    }

    /// Whether the `size` bytes from `base` have an address in common with this aperture.
    pub(crate) fn overlaps(self, base: u64, size: u64) -> bool {
        let end = base.saturating_add(size);
        // Does not saturate, by the type invariant.
        let own_end = self.base.saturating_add(self.size);

        size != 0 && base < own_end && self.base < end
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_aperture))]
mod tests {
    use super::*;

    #[test]
    fn defect_21_refuses_what_cannot_be_mapped() {
        let table = [
            (0, GRANULE, Problem::Zero),
            (GRANULE, 0, Problem::Zero),
            (GRANULE + 0x1000, GRANULE, Problem::Unaligned),
            (GRANULE, GRANULE - 1, Problem::Unaligned),
            (u64::MAX - GRANULE + 1, GRANULE, Problem::Wraps),
            (GRANULE, MAX_REGION_SIZE + GRANULE, Problem::TooLarge),
        ];

        for (base, size, error) in table {
            assert_eq!(Aperture::new(base, size), Err(error));
        }
    }

    #[test]
    fn accepts_the_largest() {
        assert!(Aperture::new(GRANULE, MAX_REGION_SIZE).is_ok());
        assert!(Aperture::new(u64::MAX - 2 * GRANULE + 1, GRANULE).is_ok());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let table = [
            (0, 4 * GRANULE, false),
            (0, 4 * GRANULE + 1, true),
            (6 * GRANULE, GRANULE, false),
            (6 * GRANULE - 1, 1, true),
            (5 * GRANULE, 0, false),
            (0, u64::MAX, true),
        ];

        for (base, size, expected) in table {
            let aperture = Aperture::new(4 * GRANULE, 2 * GRANULE);
            assert_eq!(aperture.map(|a| a.overlaps(base, size)), Ok(expected));
        }
    }
}
