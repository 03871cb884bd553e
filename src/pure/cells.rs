// SPDX-License-Identifier: GPL-2.0

//! Numbers in device tree properties: big-endian cells of 32 bits.

/// Decodes a property that is exactly one cell.
pub(crate) fn cell(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Decodes a property that is exactly one 64-bit number.
pub(crate) fn wide(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Decodes a property that starts with two 64-bit numbers, such as `reg` with two address and two
/// size cells.
pub(crate) fn wide_pair(bytes: &[u8]) -> Option<(u64, u64)> {
    Some((wide(bytes.get(0..8)?)?, wide(bytes.get(8..16)?)?))
}

/// Decodes entry `index` of a property that is a list of 64-bit numbers.
pub(crate) fn nth_wide(bytes: &[u8], index: usize) -> Option<u64> {
    let start = index.checked_mul(8)?;

    wide(bytes.get(start..start.checked_add(8)?)?)
}

/// Decodes a property that is a non-empty list of cells.
pub(crate) fn list(bytes: &[u8]) -> Option<impl Iterator<Item = u32> + Clone + '_> {
    (!bytes.is_empty() && bytes.len() % 4 == 0).then(|| bytes.chunks_exact(4).filter_map(cell))
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_cells))]
mod tests {
    use super::*;

    const BYTES: [u8; 16] = [0, 0, 3, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 1];

    #[test]
    fn lengths_must_fit() {
        for len in 0..BYTES.len() {
            let bytes = &BYTES[..len];

            assert_eq!(cell(bytes).is_some(), len == 4);
            assert_eq!(wide(bytes).is_some(), len == 8);
            assert!(wide_pair(bytes).is_none());
            assert_eq!(list(bytes).is_some(), len != 0 && len % 4 == 0);
        }
    }

    #[test]
    fn most_significant_byte_comes_first() {
        assert_eq!(cell(&BYTES[0..4]), Some(0x3e0));
        assert_eq!(wide(&BYTES[0..8]), Some(0x3e0_0000_0000));
        assert_eq!(wide_pair(&BYTES), Some((0x3e0_0000_0000, 0x20_0000_0001)));
        assert_eq!(list(&BYTES).map(|mut l| l.nth(2)), Some(Some(0x20)));
    }

    #[test]
    fn entries_beyond_the_end_are_none() {
        assert_eq!(nth_wide(&BYTES, 0), Some(0x3e0_0000_0000));
        assert_eq!(nth_wide(&BYTES, 1), Some(0x20_0000_0001));
        assert_eq!(nth_wide(&BYTES, 2), None);
        assert_eq!(nth_wide(&BYTES[..15], 1), None);
        assert_eq!(nth_wide(&BYTES, usize::MAX), None);
        assert_eq!(nth_wide(&BYTES, usize::MAX / 8), None);
    }
}
