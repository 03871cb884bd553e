// SPDX-License-Identifier: GPL-2.0

//! Sizes of memory, and how libvirt writes them.

use serde::Serialize;
use std::{fmt, str::FromStr};

/// A size in units of 1024 bytes, in which libvirt computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Kib(pub u64);

/// Why a text is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// No decimal number of 64 bits.
    #[error("'{0}' is no number: want decimal digits, up to 2^64 - 1, and nothing behind them")]
    Number(String),
    /// A unit that nobody knows.
    #[error(
        "'{0}' is no unit: want bytes, KiB, MiB, GiB, TiB, PiB, EiB (or K to E), KB, MB, GB, TB, PB or EB"
    )]
    Unit(String),
    /// Larger than libvirt can take.
    #[error("{0} {1} is too large: at most {2} bytes")]
    TooLarge(u64, String, u64),
}

/// What libvirt takes for "no limit", in KiB for a limit that is configured.
pub const UNLIMITED: u64 = (1 << 53) - 1;

/// QEMU's granularity of memory on ppc64 in KiB, to which libvirt rounds up.
pub const PPC64_BLOCK: u64 = 256 << 10;

/// The largest amount of memory, in bytes.
const MOST_MEMORY: u64 = i64::MAX.unsigned_abs();

/// The largest limit, in bytes.
const MOST_LIMIT: u64 = UNLIMITED << 10;

impl Kib {
    /// Of an amount of memory; a part of a KiB counts as one.
    ///
    /// `unit` is libvirt's attribute of this name, KiB if there is none.
    pub fn of_memory(number: &str, unit: Option<&str>) -> Result<Self, BadSize> {
        let bytes = bytes(number, unit, MOST_MEMORY)?;
        let size = Self(bytes.div_ceil(1024));

        // The last KiB below 2^63 is out of libvirt's bounds, too.
        if size.0 >= MOST_MEMORY.div_ceil(1024) {
            return Err(too_large(number, unit, MOST_MEMORY));
        }
        Ok(size)
    }

    /// Of a limit, for which values from [`UNLIMITED`] on mean that there is none.
    pub fn of_limit(number: &str, unit: Option<&str>) -> Result<Self, BadSize> {
        let bytes = bytes(number, unit, MOST_LIMIT)?;
        Ok(Self(bytes.div_ceil(1024).min(UNLIMITED)))
    }

    /// Rounded up to what a pseries guest's memory comes in; `None` if it is too large for that.
    pub fn rounded_up(self) -> Option<Self> {
        self.0.checked_next_multiple_of(PPC64_BLOCK).map(Self)
    }

    /// In bytes, if they can be counted in 64 bits.
    pub fn bytes(self) -> Option<u64> {
        self.0.checked_mul(1024)
    }
}

impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0)
    }
}

impl FromStr for Kib {
    type Err = BadSize;

    /// Reads an amount of memory as people type it: `1048576`, `1048576KiB`, `4 GiB`.
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let end = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();

        Self::of_memory(number, (!unit.is_empty()).then_some(unit))
    }
}

/// Reads a number as C's strtoull() does, but nothing below zero.
pub fn number(text: &str) -> Result<u64, BadSize> {
    let digits = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);

    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadSize::Number(text.to_owned()));
    }
    digits.parse().map_err(|_| BadSize::Number(text.to_owned()))
}

/// The number of bytes in a unit.
fn scale(unit: &str) -> Result<u64, BadSize> {
    let lower = unit.to_ascii_lowercase();
    if matches!(lower.as_str(), "b" | "byte" | "bytes") {
        return Ok(1);
    }
    let unknown = || BadSize::Unit(unit.to_owned());
    let mut letters = lower.chars();
    let prefix = letters.next().ok_or_else(unknown)?;
    let base: u64 = match letters.as_str() {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return Err(unknown()),
    };
    let power = "kmgtpe".find(prefix).ok_or_else(unknown)?;
    let power = u32::try_from(power)
        .ok()
        .and_then(|power| power.checked_add(1));

    power
        .and_then(|power| base.checked_pow(power))
        .ok_or_else(unknown)
}

fn too_large(text: &str, unit: Option<&str>, most: u64) -> BadSize {
    let unit = unit.unwrap_or("KiB").to_owned();
    number(text).map_or_else(|bad| bad, |value| BadSize::TooLarge(value, unit, most))
}

fn bytes(text: &str, unit: Option<&str>, most: u64) -> Result<u64, BadSize> {
    let value = number(text)?;
    let scale = match unit {
        None | Some("") => 1024,
        Some(unit) => scale(unit)?,
    };

    value
        .checked_mul(scale)
        .filter(|bytes| *bytes <= most)
        .ok_or_else(|| too_large(text, unit, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(number: &str, unit: &str) -> Result<u64, BadSize> {
        Kib::of_memory(number, Some(unit)).map(|size| size.0)
    }

    #[test]
    fn every_unit_of_libvirt() {
        for (unit, kib) in [
            ("b", 1),
            ("byte", 1),
            ("Bytes", 1),
            ("k", 1),
            ("KiB", 1),
            ("kb", 1),
            ("M", 1 << 10),
            ("MiB", 1 << 10),
            ("MB", 977),
            ("G", 1 << 20),
            ("gib", 1 << 20),
            ("GB", 976_563),
            ("T", 1 << 30),
            ("TiB", 1 << 30),
            ("tb", 976_562_500),
            ("P", 1 << 40),
            ("PiB", 1 << 40),
            ("PB", 976_562_500_000),
            ("E", 1 << 50),
            ("EiB", 1 << 50),
            ("EB", 976_562_500_000_000),
        ] {
            assert_eq!(memory("1", unit), Ok(kib), "{unit}");
        }
        assert_eq!(Kib::of_memory("7", None), Ok(Kib(7)));
        assert_eq!(Kib::of_memory("7", Some("")), Ok(Kib(7)));
    }

    #[test]
    fn parts_of_a_kib_count_as_one() {
        for (number, kib) in [("0", 0), ("1", 1), ("1023", 1), ("1024", 1), ("1025", 2)] {
            assert_eq!(memory(number, "bytes"), Ok(kib));
        }
    }

    #[test]
    fn unknown_units_are_errors() {
        for unit in [
            "kibi", "iB", "Ki", "KBB", "Z", "ZiB", "µB", " KiB", "K B", "GiBs",
        ] {
            assert_eq!(memory("1", unit), Err(BadSize::Unit(unit.into())), "{unit}");
        }
    }

    #[test]
    fn numbers_are_decimal_and_positive() {
        for text in [
            "",
            "-1",
            "1.5",
            "0x10",
            "1 ",
            "1k",
            "++1",
            "1e3",
            "18446744073709551616",
        ] {
            assert_eq!(
                memory(text, "b"),
                Err(BadSize::Number(text.into())),
                "{text}"
            );
        }
        assert_eq!(memory(" \n+1024", "b"), Ok(1));
    }

    #[test]
    fn the_largest_sizes() {
        assert_eq!(memory("7", "EiB"), Ok(7 << 50));
        for (number, unit) in [
            ("8", "EiB"),
            ("18446744073709551615", "b"),
            ("9223372036854775807", "b"),
            ("18446744073709551615", "KiB"),
        ] {
            assert!(
                matches!(memory(number, unit), Err(BadSize::TooLarge(..))),
                "{number} {unit}"
            );
        }
        assert_eq!(memory("9223372036854774784", "b"), Ok(UNLIMITED));
        assert_eq!(
            Kib::of_limit("9007199254740990", None),
            Ok(Kib(UNLIMITED - 1))
        );
        assert_eq!(Kib::of_limit("9007199254740991", None), Ok(Kib(UNLIMITED)));
        assert!(matches!(
            Kib::of_limit("9007199254740992", None),
            Err(BadSize::TooLarge(..))
        ));
    }

    #[test]
    fn as_people_type_them() {
        for (text, kib) in [
            ("1048576", 1 << 20),
            ("1048576KiB", 1 << 20),
            ("1 GiB", 1 << 20),
            ("4g", 4 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Kib(kib)), "{text}");
        }
        for text in ["", "GiB", "-1GiB", "1 Gi B", "1.5G"] {
            assert!(text.parse::<Kib>().is_err(), "{text}");
        }
    }
}
