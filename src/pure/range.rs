// SPDX-License-Identifier: GPL-2.0

//! Offsets and ranges in a VFIO region.
//!
//! User space addresses a region of a device by the offset in the device's file, of which the bits
//! from 40 up are the region's index. This is the one place that takes such offsets apart.

/// Bits of a file offset that are the offset in the region (`VFIO_PCI_OFFSET_SHIFT`).
const OFFSET_BITS: u32 = 40;

/// Size of the largest region that file offsets have room for.
pub(crate) const MAX_REGION_SIZE: u64 = 1 << OFFSET_BITS;

/// An offset in a region, in bytes.
///
/// # Invariants
///
/// Less than [`MAX_REGION_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionOffset(u64);

impl RegionOffset {
    /// Takes the offset in the region out of an offset in the device's file.
    pub(crate) const fn new(file_offset: u64) -> Self {
        // INVARIANT: The remainder is less than the divisor.
        Self(file_offset % MAX_REGION_SIZE)
    }

    /// Returns it in bytes.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// Returns the index of the region that a file offset is in.
pub(crate) fn region_index(file_offset: u64) -> u64 {
    file_offset >> OFFSET_BITS
}

/// Returns the file offset at which region `index` starts.
pub(crate) fn region_file_offset(index: u32) -> u64 {
    u64::from(index) << OFFSET_BITS
}

/// A non-empty range of bytes in a region.
///
/// # Invariants
///
/// `len != 0`, and `start + len` is at most the size of the region it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionRange {
    start: u64,
    len: u64,
}

impl RegionRange {
    /// Returns the `len` bytes from `start` if all of them are in a region of `size` bytes.
    pub(crate) fn new(start: RegionOffset, len: u64, size: u64) -> Option<Self> {
        let end = start.0.checked_add(len)?;

        // INVARIANT: Both conditions are checked here.
        (len != 0 && end <= size).then_some(Self {
            start: start.0,
            len,
        })
    }

    /// Returns those of the `len` bytes from `start` that are in a region of `size` bytes.
    pub(crate) fn clipped(start: RegionOffset, len: u64, size: u64) -> Option<Self> {
        Self::new(start, len.min(size.checked_sub(start.0)?), size)
    }

    /// Returns the offset of the first byte.
    pub(crate) fn start(self) -> u64 {
        self.start
    }

    /// Returns the length in bytes.
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// Returns the first offset behind the range.
    pub(crate) fn end(self) -> u64 {
        // Does not saturate: by the type invariant the sum is at most some region's size.
        self.start.saturating_add(self.len)
    }

    /// Splits the range at multiples of `window` bytes from the region's start.
    pub(crate) fn windows(self, window: u64) -> impl Iterator<Item = RegionRange> {
        let mut start = self.start;

        core::iter::from_fn(move || {
            let room = window.checked_sub(start.checked_rem(window)?)?;
            let len = room.min(self.end().checked_sub(start)?);
            let chunk = RegionRange { start, len };

            start = start.checked_add(len)?;
            // INVARIANT: Not empty, and a part of `self`.
            (len != 0).then_some(chunk)
        })
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_range))]
mod tests {
    use super::*;

    const PAGE: u64 = 0x1_0000;
    const SIZE: u64 = 0x20_0000_0000;

    #[test]
    fn file_offsets_lose_the_index() {
        assert_eq!(RegionOffset::new(region_file_offset(9)).get(), 0);
        assert_eq!(RegionOffset::new(region_file_offset(9) + 5).get(), 5);
        assert_eq!(RegionOffset::new(u64::MAX).get(), MAX_REGION_SIZE - 1);
        assert_eq!(region_file_offset(9), 0x900_0000_0000);
        assert_eq!(region_index(region_file_offset(9)), 9);
        assert_eq!(region_index(region_file_offset(9) - 1), 8);
    }

    #[test]
    fn offset_and_length_are_checked_together() {
        let table = [
            (0, SIZE, true),
            (0, SIZE + 1, false),
            (PAGE, SIZE, false),
            (PAGE, SIZE - PAGE, true),
            (SIZE - PAGE, PAGE, true),
            (SIZE, PAGE, false),
            (SIZE, 0, false),
            (0, 0, false),
            (MAX_REGION_SIZE - 1, u64::MAX, false),
        ];

        for (start, len, valid) in table {
            let range = RegionRange::new(RegionOffset::new(start), len, SIZE);
            assert_eq!(range.is_some(), valid);
        }
    }

    #[test]
    fn clipping_ends_at_the_region() {
        let table = [
            (0, 1, Some(1)),
            (SIZE - 1, 8, Some(1)),
            (SIZE, 8, None),
            (SIZE + 1, 8, None),
            (0, u64::MAX, Some(SIZE)),
            (0, 0, None),
        ];

        for (start, len, expected) in table {
            let range = RegionRange::clipped(RegionOffset::new(start), len, SIZE);
            assert_eq!(range.map(RegionRange::len), expected);
        }
    }

    #[test]
    fn windows_cover_the_range_once() {
        let table = [
            (0, PAGE, 1),
            (PAGE - 1, 2, 2),
            (5, 3 * PAGE, 4),
            (SIZE - 1, 1, 1),
            (PAGE, 2 * PAGE, 2),
        ];

        for (start, len, count) in table {
            let mut next = start;
            let mut seen = 0;

            if let Some(range) = RegionRange::new(RegionOffset::new(start), len, SIZE) {
                for window in range.windows(PAGE) {
                    assert_eq!(window.start(), next);
                    assert_eq!(window.start() / PAGE, (window.end() - 1) / PAGE);
                    next = window.end();
                    seen += 1;
                }
            }
            assert_eq!((next, seen), (start + len, count));
        }
    }

    #[test]
    fn a_window_of_nothing_yields_nothing() {
        let range = RegionRange::new(RegionOffset::new(0), PAGE, SIZE);
        assert_eq!(range.map(|r| r.windows(0).count()), Some(0));
    }
}
