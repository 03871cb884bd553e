// SPDX-License-Identifier: GPL-2.0

//! Which IOMMU page sizes a user mapping of device memory can be translated with.

/// log2 of the largest IOMMU page of POWER9: PHB4 has 4K, 64K, 2M, 1G, the NPU 4K, 64K, 16M, 256M.
pub(crate) const MAX_IOMMU_PAGE_SHIFT: u32 = 30;

/// Returns log2 of the smallest IOMMU page that must not translate this mapping.
///
/// A TCE for a user address aligned to its page gets the physical address `physical + (address -
/// user)`. That is aligned to the page too only if `user` and `physical` are congruent modulo the
/// page size; if not, powernv's `pnv_tce_xchg` stops the kernel. `None`: they are congruent modulo
/// every page size there is.
pub(crate) fn first_incongruent_shift(user: u64, physical: u64) -> Option<u32> {
    let shift = (user ^ physical).trailing_zeros().saturating_add(1);

    (shift <= MAX_IOMMU_PAGE_SHIFT).then_some(shift)
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_alignment))]
mod tests {
    use super::*;

    const APERTURE: u64 = 0x3e0_0000_0000;

    #[test]
    fn congruent_addresses_take_every_page() {
        assert_eq!(first_incongruent_shift(APERTURE, APERTURE), None);
        assert_eq!(first_incongruent_shift(1 << 30, APERTURE), None);
        assert_eq!(
            first_incongruent_shift(3 << 30 | 0x1_0000, APERTURE | 0x1_0000),
            None
        );
    }

    #[test]
    fn incongruent_addresses_name_the_first_bad_page() {
        assert_eq!(
            first_incongruent_shift(0x7fff_0001_0000, APERTURE),
            Some(17)
        );
        assert_eq!(
            first_incongruent_shift(0x7fff_0100_0000, APERTURE),
            Some(25)
        );
        assert_eq!(first_incongruent_shift(1 << 29, APERTURE), Some(30));
    }
}
