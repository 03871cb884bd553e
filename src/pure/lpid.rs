// SPDX-License-Identifier: GPL-2.0

//! Which LPAR a GPU may be bound to.

use core::fmt;

/// What KVM says about a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// Whether HV KVM runs the guest: other guests have no LPID.
    pub(crate) hv: bool,
    /// Whether the host translates its addresses by radix trees.
    pub(crate) radix: bool,
    /// The number that KVM gave its partition.
    pub(crate) lpid: u64,
}

/// The number of a guest's logical partition, as the NPU takes it: 12 bits, and never 0, which is
/// the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lpid(u32);

/// Why a guest cannot have the address translation services of a GPU. Displays with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    NoHv,
    Hash,
    Lpid(u64),
}

impl Lpid {
    const MAX: u64 = 0xfff;

    /// Returns the LPID of a guest that the NPU can translate for.
    pub(crate) fn of(guest: Guest) -> Result<Self, Unfit> {
        if !guest.hv {
            return Err(Unfit::NoHv);
        }
        if !guest.radix {
            return Err(Unfit::Hash);
        }
        match u32::try_from(guest.lpid) {
            Ok(lpid) if (1..=Self::MAX).contains(&guest.lpid) => Ok(Self(lpid)),
            _ => Err(Unfit::Lpid(guest.lpid)),
        }
    }

    /// Returns it as a number, never 0.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHv => {
                f.write_str("the guest runs on PR KVM and has no LPID, use HV KVM (kvm-hv)")
            }
            Self::Hash => f.write_str("the guest uses the hash MMU, start it with the radix MMU"),
            Self::Lpid(lpid) => write!(f, "the guest's LPID {lpid} is not one of 1 to 4095"),
        }
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_lpid))]
mod tests {
    use super::*;

    fn lpid(hv: bool, radix: bool, lpid: u64) -> Result<u32, Unfit> {
        Lpid::of(Guest { hv, radix, lpid }).map(Lpid::get)
    }

    #[test]
    fn lpids_of_radix_guests_fit() {
        assert_eq!(lpid(true, true, 0), Err(Unfit::Lpid(0)));
        assert_eq!(lpid(true, true, 1), Ok(1));
        assert_eq!(lpid(true, true, 4095), Ok(4095));
        assert_eq!(lpid(true, true, 4096), Err(Unfit::Lpid(4096)));
        assert_eq!(lpid(true, true, 1 << 32 | 1), Err(Unfit::Lpid(1 << 32 | 1)));
        assert_eq!(lpid(true, true, u64::MAX), Err(Unfit::Lpid(u64::MAX)));
    }

    #[test]
    fn other_guests_do_not() {
        assert_eq!(lpid(false, true, 1), Err(Unfit::NoHv));
        assert_eq!(lpid(false, false, 0), Err(Unfit::NoHv));
        assert_eq!(lpid(true, false, 1), Err(Unfit::Hash));
    }
}
