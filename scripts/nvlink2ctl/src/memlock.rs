// SPDX-License-Identifier: GPL-2.0

//! How much memory libvirt lets QEMU lock (RLIMIT_MEMLOCK).
//!
//! The arithmetic is libvirt's, to the byte: KiB in 64 bits, divisions round down and come before
//! multiplications. It is the same in all releases with rules for NVLink2, which are those up to 12.9 at
//! least. What is in it:
//!
//! - TCE: an entry of 8 bytes in a table that translates DMA addresses; the tables are locked memory.
//! - PHB: a PCI host bridge of the guest, including the one every pseries guest has.

use crate::units::{Kib, UNLIMITED};
use serde::Serialize;

/// What is passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No host device.
    None,
    /// Host devices, but no NVLink2 bridge.
    Vfio,
    /// An NVLink2 bridge, whatever else.
    Nvlink2,
}

/// What the limit of a KVM guest on pseries depends on.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pseries {
    /// Memory of the guest at start, DIMMs included.
    pub memory: Kib,
    /// What it can grow to.
    pub max_memory: Kib,
    /// Number of PHBs.
    pub phbs: u64,
    /// What is passed through.
    pub mode: Mode,
}

/// What the limit of any other guest depends on.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generic {
    /// Memory of the guest at start, DIMMs included.
    pub memory: Kib,
    /// VFIO devices: PCI functions, mediated devices, NVMe disks.
    pub vfio: u64,
    /// vDPA network interfaces.
    pub vdpa: u64,
    /// Whether the guest has an IOMMU.
    pub iommu: bool,
}

/// A part of the sum, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// Name of the term.
    pub name: &'static str,
    /// Its value.
    pub kib: Kib,
    /// How it is computed.
    pub formula: String,
    /// What the memory is for.
    pub purpose: &'static str,
}

/// A limit in bytes, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// 0: libvirt does not set a limit.
    pub bytes: u64,
    /// Whether it is libvirt's number for "no limit".
    pub unlimited: bool,
    /// Which rule decided.
    pub rule: &'static str,
    /// The parts of the sum; none if a setting decided.
    pub terms: Vec<Term>,
}

/// The limit does not fit into 64 bits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit for {0} of memory (at most {1}) and {2} PCI host bridges does not fit into 64 bits: use less of them"
)]
pub struct Overflow(Kib, Kib, u64);

/// What a guest's hard limit or locked memory make of the limit.
pub fn configured(hard_limit: Option<Kib>, locked: bool) -> Option<Limit> {
    // A hard limit of UNLIMITED is how libvirt says that there is none.
    if let Some(limit) = hard_limit.filter(|limit| limit.0 < UNLIMITED) {
        return Some(Limit {
            bytes: limit.bytes()?,
            unlimited: false,
            rule: "<hard_limit> of <memtune>, which comes before everything else",
            terms: Vec::new(),
        });
    }
    locked.then(|| Limit {
        bytes: UNLIMITED,
        unlimited: true,
        rule: "<locked/> of <memoryBacking>, which means no limit",
        terms: Vec::new(),
    })
}

const BASE_TABLES: u64 = 8192;
const WINDOW_32: u64 = 4096;
const OLD_WINDOW: u64 = 2 << 20;
/// TCEs of 8 bytes for the 4 KiB pages of 128 TiB, which is where GPU RAM ends in the guest.
const NVLINK2_WINDOW: u64 = (128 << 40) / 4096 * 8 / 1024;

impl Pseries {
    /// Computes the limit.
    pub fn limit(self) -> Result<Limit, Overflow> {
        self.checked()
            .ok_or(Overflow(self.memory, self.max_memory, self.phbs))
    }

    fn checked(self) -> Option<Limit> {
        let Self {
            memory: Kib(memory),
            max_memory: Kib(max),
            phbs,
            mode,
        } = self;
        let term = |name, kib, formula, purpose| Term {
            name,
            kib: Kib(kib),
            formula,
            purpose,
        };
        let tables = || {
            term(
                "passthrough tables",
                BASE_TABLES,
                format!("{BASE_TABLES}"),
                "upper levels of the tables of large DMA windows",
            )
        };
        let mut terms = vec![
            term(
                "hash table",
                max / 128,
                format!("{max} / 128"),
                "the guest's page table, if it uses the hash MMU",
            ),
            term(
                "32-bit windows",
                WINDOW_32.checked_mul(phbs)?,
                format!("{WINDOW_32} * {phbs}"),
                "TCEs of a 32-bit DMA window of 2 GiB per PHB",
            ),
            term(
                "base tables",
                BASE_TABLES,
                format!("{BASE_TABLES}"),
                "upper levels of those tables, and virtual devices",
            ),
        ];
        let rule = match mode {
            Mode::None => "no host device: the tables of emulated devices",
            Mode::Vfio => {
                let window = (memory / 512).checked_mul(phbs)?;
                let new = memory.checked_add(window)?.checked_add(BASE_TABLES)?;
                let old = OLD_WINDOW.checked_mul(phbs)?;
                if old > new {
                    terms.push(term(
                        "32-bit DMA",
                        old,
                        format!("{OLD_WINDOW} * {phbs}"),
                        "what a guest maps in 32-bit windows only, which is more than its memory with tables",
                    ));
                } else {
                    terms.extend([
                        term(
                            "memory",
                            memory,
                            format!("{memory}"),
                            "all of it is within reach of DMA, so pinned",
                        ),
                        term(
                            "64-bit windows",
                            window,
                            format!("{memory} / 512 * {phbs}"),
                            "TCEs for 4 KiB pages of the memory per PHB",
                        ),
                        tables(),
                    ]);
                }
                "host devices, none of them an NVLink2 bridge"
            }
            Mode::Nvlink2 => {
                terms.extend([
                    term("memory", max, format!("{max}"), "all that the guest can have is within reach of DMA, so pinned"),
                    term(
                        "128 TiB windows",
                        NVLINK2_WINDOW.checked_mul(phbs)?,
                        format!("{NVLINK2_WINDOW} * {phbs}"),
                        "TCEs for 4 KiB pages up to the end of GPU RAM at 128 TiB per PHB; GPU RAM itself is not locked",
                    ),
                    tables(),
                ]);
                "an NVLink2 bridge, which comes before other host devices"
            }
        };
        let sum = terms
            .iter()
            .try_fold(0_u64, |sum, term| sum.checked_add(term.kib.0))?;

        Some(Limit {
            bytes: Kib(sum).bytes()?,
            unlimited: false,
            rule,
            terms,
        })
    }
}

impl Generic {
    /// Computes the limit.
    pub fn limit(self) -> Result<Limit, Overflow> {
        self.checked().ok_or(Overflow(self.memory, self.memory, 0))
    }

    fn checked(self) -> Option<Limit> {
        const MMIO: u64 = 1 << 20;
        let Self {
            memory: Kib(memory),
            vfio,
            vdpa,
            iommu,
        } = self;
        let per_vfio = if iommu { vfio } else { vfio.min(1) };
        let factor = vdpa.checked_add(per_vfio)?;
        if factor == 0 {
            return Some(Limit {
                bytes: 0,
                unlimited: false,
                rule: "no KVM guest on ppc64, and nothing that locks memory: libvirt sets no limit",
                terms: Vec::new(),
            });
        }
        let terms = vec![
            Term {
                name: "memory",
                kib: Kib(memory.checked_mul(factor)?),
                formula: format!("{memory} * {factor}"),
                purpose: "pinned once, or once per device behind the guest's own IOMMU or vDPA",
            },
            Term {
                name: "MMIO",
                kib: Kib(MMIO),
                formula: format!("{MMIO}"),
                purpose: "registers of devices",
            },
        ];
        let sum = terms
            .iter()
            .try_fold(0_u64, |sum, term| sum.checked_add(term.kib.0))?;

        Some(Limit {
            bytes: Kib(sum).bytes()?,
            unlimited: false,
            rule: "no KVM guest on ppc64: the rule of other architectures",
            terms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 20;

    fn bytes(memory: u64, max: u64, phbs: u64, mode: Mode) -> Result<u64, Overflow> {
        let guest = Pseries {
            memory: Kib(memory),
            max_memory: Kib(max),
            phbs,
            mode,
        };
        let limit = guest.limit()?;
        let sum: u64 = limit.terms.iter().map(|term| term.kib.0).sum();

        assert_eq!(Kib(sum).bytes(), Some(limit.bytes));
        Ok(limit.bytes)
    }

    /// What libvirt set as RLIMIT_MEMLOCK of QEMU (seen of 9.0), or says in its own tests.
    #[test]
    fn values_of_libvirt() {
        for (memory, max, phbs, mode, wanted) in [
            (GIB, GIB, 1, Mode::None, 20_971_520),
            (GIB, GIB, 2, Mode::None, 25_165_824),
            (GIB, GIB, 1, Mode::Vfio, 2_168_455_168),
            (GIB, GIB, 2, Mode::Vfio, 4_320_133_120),
            (3 * GIB, 3 * GIB, 1, Mode::Vfio, 3_273_654_272),
            (GIB, 4 * GIB, 1, Mode::Vfio, 2_193_620_992),
            (GIB, GIB, 1, Mode::Nvlink2, 275_981_008_896),
            (GIB, GIB, 2, Mode::Nvlink2, 550_863_110_144),
            (GIB, GIB, 3, Mode::Nvlink2, 825_745_211_392),
            (3 * GIB, 3 * GIB, 2, Mode::Nvlink2, 553_027_371_008),
            (GIB, 4 * GIB, 1, Mode::Nvlink2, 279_227_400_192),
        ] {
            assert_eq!(
                bytes(memory, max, phbs, mode),
                Ok(wanted),
                "{memory} {max} {phbs} {mode:?}"
            );
        }
    }

    #[test]
    fn divisions_round_down_first() {
        // 127 / 128 and 511 / 512 * 3 are 0.
        assert_eq!(bytes(127, 127, 0, Mode::None), Ok(8192 << 10));
        assert_eq!(
            bytes(511, 511, 0, Mode::Vfio),
            Ok((3 + 8192 + 511 + 8192) << 10)
        );
        assert_eq!(
            bytes(8 * GIB + 511, 8 * GIB + 511, 3, Mode::Vfio),
            Ok((65539 + 3 * 4096 + 8192 + 8 * GIB + 511 + 16384 * 3 + 8192) << 10)
        );
    }

    #[test]
    fn too_much_is_an_error() {
        for (memory, max, phbs, mode) in [
            (GIB, u64::MAX, 1, Mode::Nvlink2),
            (u64::MAX, GIB, 1, Mode::Vfio),
            (GIB, GIB, u64::MAX, Mode::None),
            (GIB, GIB, 1 << 60, Mode::Vfio),
            (GIB, GIB, 1 << 40, Mode::Nvlink2),
            (u64::MAX >> 10, u64::MAX >> 10, 1, Mode::Vfio),
        ] {
            assert_eq!(
                bytes(memory, max, phbs, mode),
                Err(Overflow(Kib(memory), Kib(max), phbs))
            );
        }
    }

    #[test]
    fn settings_come_first() {
        let hard = configured(Some(Kib(2 << 20)), true).unwrap();
        assert_eq!((hard.bytes, hard.unlimited), (2_147_483_648, false));
        assert_eq!(configured(Some(Kib(0)), true).unwrap().bytes, 0);

        for none in [None, Some(Kib(UNLIMITED))] {
            let locked = configured(none, true).unwrap();
            assert_eq!(
                (locked.bytes, locked.unlimited),
                (9_007_199_254_740_991, true)
            );
            assert_eq!(configured(none, false), None);
        }
    }

    #[test]
    fn other_guests() {
        let limit = |vfio, vdpa, iommu| {
            let guest = Generic {
                memory: Kib(GIB),
                vfio,
                vdpa,
                iommu,
            };
            guest.limit().map(|limit| limit.bytes)
        };

        assert_eq!(limit(0, 0, true), Ok(0));
        assert_eq!(limit(1, 0, false), Ok(2_147_483_648));
        assert_eq!(limit(3, 0, false), Ok(2_147_483_648));
        assert_eq!(limit(3, 0, true), Ok(4 << 30));
        assert_eq!(limit(1, 2, false), Ok(4 << 30));
        assert!(limit(1, u64::MAX, false).is_err());
    }
}
