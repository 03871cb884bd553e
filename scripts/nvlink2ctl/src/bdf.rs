// SPDX-License-Identifier: GPL-2.0

//! Addresses of PCI functions.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// Domain, bus, device and function, as Linux writes them: `0004:04:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// PCI domain, one per PCI host bridge; 16 bits but for a few virtual ones.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub slot: u8,
    /// Function, below 8.
    pub function: u8,
}

impl Bdf {
    /// `None` if a part exceeds what PCI has room for.
    pub fn new(domain: u32, bus: u32, slot: u32, function: u32) -> Option<Self> {
        Some(Self {
            domain,
            bus: u8::try_from(bus).ok()?,
            slot: u8::try_from(slot).ok().filter(|slot| *slot < 32)?,
            function: u8::try_from(function).ok().filter(|number| *number < 8)?,
        })
    }

    /// Folder of the function in sysfs.
    pub fn folder(self) -> String {
        format!("/sys/bus/pci/devices/{self}")
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            slot,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{slot:02x}.{function:x}")
    }
}

/// A text that is no address of a PCI function.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no address of a PCI function: want DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, such as 0004:04:00.0"
)]
pub struct BadBdf(String);

impl FromStr for Bdf {
    type Err = BadBdf;

    /// Reads an address; without a domain it is in domain 0.
    fn from_str(text: &str) -> Result<Self, BadBdf> {
        let hex = |part: &str, digits| {
            (!part.is_empty()
                && part.len() <= digits
                && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(part, 16).ok())
            .flatten()
        };
        let parse = || {
            let (path, function) = text.rsplit_once('.')?;
            let (path, slot) = path.rsplit_once(':')?;
            let (domain, bus) = path.rsplit_once(':').unwrap_or(("0", path));

            Self::new(
                hex(domain, 8)?,
                hex(bus, 2)?,
                hex(slot, 2)?,
                hex(function, 1)?,
            )
        };

        parse().ok_or_else(|| BadBdf(text.to_owned()))
    }
}

impl Serialize for Bdf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bdf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["0004:04:00.0", "0000:ff:1f.7", "10000:00:00.1"] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        }
        assert_eq!("3:0.1".parse::<Bdf>().unwrap().to_string(), "0000:03:00.1");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            ":",
            ".",
            "0:0:0",
            "0000:00:20.0",
            "0000:00:00.8",
            "0000:100:00.0",
            "g:0:0.0",
            "0:0:0:0.0",
            "0000:03:00.0 ",
            "+1:0.0",
            "123456789:0:0.0",
            "::.",
            "0x1:0:0.0",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(BadBdf(text.to_owned())), "{text}");
        }
    }
}
