// SPDX-License-Identifier: GPL-2.0

//! Versions of the programs that a guest needs beside the kernel, and what is known of them.
//!
//! - OPAL (skiboot): the firmware. Fixes for GPUs that are passed through came one by one.
//! - QEMU: releases 4.1 to 8.1 have the NVLink2 client. It was removed before 8.2; whether a build has it
//!   is told by the properties of its PCI host bridge.
//! - libvirt: every release since then knows NVLink2 bridges (12.9 does). Which drivers of the host it
//!   accepts depends on it.

use crate::{devicetree::BASE, source::Source};

/// Where QEMU for ppc64 and libvirt's daemons are installed.
const QEMU: [&str; 4] = [
    "/usr/local/bin/qemu-system-ppc64",
    "/usr/bin/qemu-system-ppc64",
    "/usr/libexec/qemu-kvm",
    PACKAGED,
];
/// The QEMU of this project's package. It is the last of them: nobody runs it who does not name it.
pub const PACKAGED: &str = "/usr/bin/qemu-system-ppc64-nvlink2";
const LIBVIRT: [&str; 3] = [
    "/usr/sbin/libvirtd",
    "/usr/sbin/virtqemud",
    "/usr/local/sbin/libvirtd",
];

/// The words that make QEMU print the properties of its PCI host bridge, and what the client adds.
const PROPERTIES: [&str; 2] = ["-device", "spapr-pci-host-bridge,help"];
const CLIENT: &str = "atsd=";

/// A version that a program or firmware says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// As it was said.
    pub text: String,
    /// Its first numbers; `None` if there are none.
    numbers: Option<(u64, u64, u64)>,
}

impl Release {
    /// Reads it; OPAL puts its name in front of the numbers.
    pub fn new(text: &str) -> Self {
        // What is behind the numbers says how many changes are on top: never fewer fixes.
        let version = lenient_semver::parse(text.trim_start_matches("skiboot-")).ok();
        Self {
            text: text.to_owned(),
            numbers: version.map(|version| (version.major, version.minor, version.patch)),
        }
    }

    /// Whether it is at least this release; `None` if it has no numbers.
    pub fn is_at_least(&self, major: u64, minor: u64, patch: u64) -> Option<bool> {
        Some(self.numbers? >= (major, minor, patch))
    }

    fn is_in(&self, from: (u64, u64), to: (u64, u64)) -> bool {
        self.numbers
            .is_some_and(|(major, minor, _)| (major, minor) >= from && (major, minor) <= to)
    }
}

/// The firmware of a host; `None` if it has no OPAL.
pub fn opal(source: &Source) -> Option<Release> {
    let text = source.text(&format!("{BASE}/ibm,opal/firmware/version"))?;
    Some(Release::new(text.trim_end_matches('\0')))
}

/// What an OPAL lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fix {
    /// The release that has it.
    pub since: &'static str,
    /// What is wrong without.
    pub without: &'static str,
    /// Whether guests with a GPU cannot be run without.
    pub needed: bool,
}

/// The fixes that an OPAL lacks; `None` if its version has no numbers.
pub fn missing_fixes(opal: &Release) -> Option<Vec<Fix>> {
    let (major, minor, patch) = opal.numbers?;
    // The series 6.0 got the last of them, but none of the others.
    let fences = (major, minor, patch) >= (6, 5, 3) || (major, minor) == (6, 0) && patch >= 23;
    let fixes = [
        (
            (major, minor) >= (6, 2),
            Fix {
                since: "6.2",
                without: "the device tree names one ATSD register for all links, and CPU cache lines of GPU RAM outlive the reset of a link",
                needed: true,
            },
        ),
        (
            (major, minor) >= (6, 3),
            Fix {
                since: "6.3",
                without: "no guest can have a GPU drop translations (ATSD)",
                needed: true,
            },
        ),
        (
            (major, minor, patch) >= (6, 3, 2),
            Fix {
                since: "6.3.2",
                without: "the reset of a GPU before its bridges raises HMIs, and a GPU keeps translations of the kernel before the last kexec, by which every host boots",
                needed: true,
            },
        ),
        (
            fences,
            Fix {
                since: "6.5.3 (or 6.0.23)",
                without: "links stay fenced after an error until the host reboots",
                needed: false,
            },
        ),
    ];
    Some(
        fixes
            .into_iter()
            .filter(|(there, _)| !there)
            .map(|(_, fix)| fix)
            .collect(),
    )
}

/// A QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// Where it is.
    pub path: String,
    /// Its version.
    pub release: Release,
    /// Whether it has the NVLink2 client.
    pub client: bool,
}

impl Qemu {
    /// Whether its client frees what it reads later, as in the releases 7.1 to 8.1.
    pub fn frees_too_early(&self) -> bool {
        self.client && self.release.is_in((7, 1), (8, 1))
    }
}

/// The QEMU at a path.
fn qemu_at(source: &Source, path: &str) -> Option<Qemu> {
    let said = source.output(path, &["--version"], "version")?;
    let release = Release::new(word_after(&said, "version")?);
    let properties = source.output(path, &PROPERTIES, CLIENT);
    Some(Qemu {
        path: path.to_owned(),
        client: properties.map_or_else(
            || release.is_in((4, 1), (8, 1)),
            |properties| properties.contains(CLIENT),
        ),
        release,
    })
}

/// The QEMUs of a host.
pub fn qemus(source: &Source) -> Vec<Qemu> {
    QEMU.iter()
        .filter_map(|path| qemu_at(source, path))
        .collect()
}

/// The QEMU of this project's package, if it is installed.
pub fn packaged_qemu(source: &Source) -> Option<Qemu> {
    qemu_at(source, PACKAGED).filter(|qemu| qemu.client)
}

/// The libvirt of a host.
pub fn libvirt(source: &Source) -> Option<Release> {
    LIBVIRT.iter().find_map(|path| {
        let said = source.output(path, &["--version"], "(libvirt)")?;
        word_after(&said, "(libvirt)").map(Release::new)
    })
}

/// The word after another one, as in "QEMU emulator version 7.2.11 (Debian ...)".
fn word_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_whitespace()
        .skip_while(|other| *other != word)
        .nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (text, wanted) in [
            ("v7.1", Some(true)),
            ("skiboot-v6.3.2", Some(true)),
            ("skiboot-6.3.2-p1f2e3d4", Some(true)),
            ("v6.3-123-g0123456", Some(false)),
            ("v6.3.2-rc1", Some(true)),
            ("v6.0.20", Some(false)),
            ("5.4.8-5787ad3", Some(false)),
            ("10.0.13", Some(true)),
            ("", None),
            ("0123abc-dirty", None),
        ] {
            assert_eq!(Release::new(text).is_at_least(6, 3, 2), wanted, "{text}");
        }
    }

    /// Which fixes an OPAL lacks, by the release that brought them.
    #[test]
    fn fixes_of_opal() {
        for (text, wanted) in [
            ("v5.11", "6.2 6.3 6.3.2 6.5.3"),
            ("v6.0.20", "6.2 6.3 6.3.2 6.5.3"),
            ("v6.0.22", "6.2 6.3 6.3.2 6.5.3"),
            ("v6.0.23", "6.2 6.3 6.3.2"),
            ("v6.1", "6.2 6.3 6.3.2 6.5.3"),
            ("v6.2.4", "6.3 6.3.2 6.5.3"),
            ("v6.3.1", "6.3.2 6.5.3"),
            ("v6.3.2", "6.5.3"),
            ("v6.4", "6.5.3"),
            ("v6.5.2-34-gabcdef0", "6.5.3"),
            ("v6.5.3", ""),
            ("v6.6", ""),
            ("v7.1", ""),
        ] {
            let fixes = missing_fixes(&Release::new(text)).unwrap();
            let since: Vec<_> = fixes
                .iter()
                .filter_map(|fix| fix.since.split(' ').next())
                .collect();
            assert_eq!(since.join(" "), wanted, "{text}");
        }
        assert_eq!(missing_fixes(&Release::new("unknown")), None);
    }

    #[test]
    fn words_of_version_lines() {
        for (text, word, wanted) in [
            (
                "QEMU emulator version 7.2.11 (Debian 1:7.2+dfsg-7+deb12u7)\nCopyright",
                "version",
                Some("7.2.11"),
            ),
            ("libvirtd (libvirt) 9.0.0\n", "(libvirt)", Some("9.0.0")),
            ("QEMU emulator version", "version", None),
            ("", "version", None),
        ] {
            assert_eq!(word_after(text, word), wanted, "{text}");
        }
    }
}
