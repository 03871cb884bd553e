// SPDX-License-Identifier: GPL-2.0

//! Blocks of the system's memory, as `/sys/devices/system/memory` names them.

use core::{
    fmt,
    ops::Range, //
};

/// The number of runs of blocks that a message names at most.
const MAX_RUNS: usize = 8;

/// Returns the numbers of the blocks of `block` bytes of which `len` bytes from `base` have some.
pub(crate) fn numbers(base: u64, len: u64, block: u64) -> Range<u64> {
    let last = base.saturating_add(len).saturating_sub(1);

    match (base.checked_div(block), last.checked_div(block)) {
        (Some(first), Some(last)) if len != 0 => first..last.saturating_add(1),
        _ => 0..0,
    }
}

/// Writes names of blocks, whose numbers ascend: `memory3, memory5-memory9`.
pub(crate) fn write_names(
    mut numbers: impl Iterator<Item = u64>,
    f: &mut impl fmt::Write,
) -> fmt::Result {
    let mut next = numbers.next();
    let mut runs = 0usize;

    while let Some(first) = next {
        let mut last = first;

        loop {
            next = numbers.next();
            match next {
                Some(number) if last.checked_add(1) == Some(number) => last = number,
                _ => break,
            }
        }
        if runs == MAX_RUNS {
            return f.write_str(" and more");
        }
        if runs != 0 {
            f.write_str(", ")?;
        }
        write!(f, "memory{first}")?;
        if last != first {
            write!(f, "-memory{last}")?;
        }
        runs = runs.saturating_add(1);
    }
    Ok(())
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_blocks))]
mod tests {
    use super::*;

    /// A buffer for what was written, of at most 128 bytes.
    struct Text {
        bytes: [u8; 128],
        len: usize,
    }

    impl fmt::Write for Text {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            for byte in s.bytes() {
                *self.bytes.get_mut(self.len).ok_or(fmt::Error)? = byte;
                self.len = self.len.saturating_add(1);
            }
            Ok(())
        }
    }

    fn is_written_as(numbers: impl Iterator<Item = u64>, expected: &str) -> bool {
        let mut text = Text {
            bytes: [0; 128],
            len: 0,
        };

        write_names(numbers, &mut text).is_ok()
            && text.bytes.get(..text.len) == Some(expected.as_bytes())
    }

    #[test]
    fn blocks_are_those_with_a_byte_of_the_range() {
        let table = [
            ((0x1000, 0x1000, 0x1000), 1..2),
            ((0x1000, 0x1001, 0x1000), 1..3),
            ((0xfff, 0x1001, 0x1000), 0..2),
            ((0x1000, 0, 0x1000), 0..0),
            ((0x1000, 0x1000, 0), 0..0),
            ((u64::MAX - 0xfff, 0x1000, 0x1000), (1 << 52) - 1..1 << 52),
        ];

        for ((base, len, block), expected) in table {
            assert_eq!(numbers(base, len, block), expected);
        }
    }

    #[test]
    fn runs_are_named_by_their_ends() {
        let table: [(&[u64], &str); 4] = [
            (&[], ""),
            (&[7], "memory7"),
            (&[7, 8, 9], "memory7-memory9"),
            (&[1, 3, 4, 9], "memory1, memory3-memory4, memory9"),
        ];

        for (numbers, expected) in table {
            assert!(is_written_as(numbers.iter().copied(), expected));
        }
    }

    #[test]
    fn a_message_has_its_end() {
        assert!(is_written_as(
            (0..40).step_by(2),
            "memory0, memory2, memory4, memory6, memory8, memory10, memory12, memory14 and more"
        ));
        assert!(is_written_as(
            (0..16).step_by(2),
            "memory0, memory2, memory4, memory6, memory8, memory10, memory12, memory14"
        ));
    }
}
