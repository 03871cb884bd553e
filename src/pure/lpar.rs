// SPDX-License-Identifier: GPL-2.0

//! Which LPAR a GPU may be bound to, and how long a binding lasts that several share.

use core::fmt;

/// What KVM says about a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// It is run by HV KVM: others have no LPID.
    pub(crate) hv: bool,
    /// The host translates its addresses by radix trees.
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

/// A holder's share; worth nothing once the value was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u64);

#[derive(Debug)]
enum State<T> {
    Free,
    Shared { value: T, holders: usize },
    Retained(T),
}

/// A value that exists while somebody holds a share of it, and longer if it cannot be ended.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    state: State<T>,
    /// Tells the shares of one value from those of another.
    generation: u64,
}

/// What became of a share that was given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left<T> {
    /// Others hold the value.
    Others,
    /// Nobody does, so it has to be ended.
    Last(T),
    /// It was revoked before.
    Revoked,
}

impl<T> Shared<T> {
    /// Makes one without a value.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Free,
            generation: 0,
        }
    }

    /// Returns the value, if somebody holds it.
    pub(crate) fn held(&self) -> Option<&T> {
        match &self.state {
            State::Shared { value, .. } => Some(value),
            State::Free | State::Retained(_) => None,
        }
    }

    /// Returns the value that could not be ended.
    pub(crate) fn retained(&self) -> Option<&T> {
        match &self.state {
            State::Retained(value) => Some(value),
            State::Free | State::Shared { .. } => None,
        }
    }

    /// Hands out another share of the value; `None` if nobody holds one.
    pub(crate) fn join(&mut self) -> Option<Share> {
        let State::Shared { holders, .. } = &mut self.state else {
            return None;
        };

        *holders = holders.checked_add(1)?;
        Some(Share(self.generation))
    }

    /// Hands out the first share of a value. Gives it back if there is one already.
    pub(crate) fn begin(&mut self, value: T) -> Result<Share, T> {
        if !matches!(self.state, State::Free) {
            return Err(value);
        }
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Shared { value, holders: 1 };
        Ok(Share(self.generation))
    }

    /// Takes a share back, which must not be used again.
    pub(crate) fn leave(&mut self, share: Share) -> Left<T> {
        let State::Shared { holders, .. } = &mut self.state else {
            return Left::Revoked;
        };

        if share.0 != self.generation {
            return Left::Revoked;
        }
        *holders = holders.saturating_sub(1);
        if *holders != 0 {
            return Left::Others;
        }
        self.revoke().map_or(Left::Revoked, Left::Last)
    }

    /// Takes the value from all who hold it.
    pub(crate) fn revoke(&mut self) -> Option<T> {
        self.take(|state| matches!(state, State::Shared { .. }))
    }

    /// Keeps a value that could not be ended: there is no other until [`Shared::take_retained`].
    pub(crate) fn retain(&mut self, value: T) {
        self.state = State::Retained(value);
    }

    /// Takes what was retained, to try again.
    pub(crate) fn take_retained(&mut self) -> Option<T> {
        self.take(|state| matches!(state, State::Retained(_)))
    }

    fn take(&mut self, wanted: fn(&State<T>) -> bool) -> Option<T> {
        if !wanted(&self.state) {
            return None;
        }
        match core::mem::replace(&mut self.state, State::Free) {
            State::Free => None,
            State::Shared { value, .. } | State::Retained(value) => Some(value),
        }
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_lpar))]
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

    #[test]
    fn the_last_holder_gets_the_value_whoever_that_is() {
        for last in 0..3 {
            let mut shared = Shared::new();

            assert_eq!(shared.join(), None);
            let shares = [shared.begin(7).ok(), shared.join(), shared.join()];

            assert_eq!(shared.held(), Some(&7));
            for (i, share) in shares.iter().flatten().enumerate() {
                if i != last {
                    assert_eq!(shared.leave(*share), Left::Others);
                }
            }
            if let Some(share) = shares.iter().flatten().nth(last) {
                assert_eq!(shared.leave(*share), Left::Last(7));
            }
            assert_eq!(shared.held(), None);
        }
    }

    #[test]
    fn there_is_one_value_at_a_time() {
        let mut shared = Shared::new();

        assert!(shared.begin(1).is_ok());
        assert_eq!(shared.begin(2), Err(2));
        assert_eq!(shared.held(), Some(&1));
    }

    #[test]
    fn shares_of_a_revoked_value_do_not_end_the_next_one() {
        let mut shared = Shared::new();
        let old = shared.begin(1).ok();

        assert_eq!(shared.revoke(), Some(1));
        assert_eq!(shared.revoke(), None);
        assert_eq!(old.map(|share| shared.leave(share)), Some(Left::Revoked));
        let new = shared.begin(2).ok();

        assert_eq!(old.map(|share| shared.leave(share)), Some(Left::Revoked));
        assert_eq!(shared.held(), Some(&2));
        assert_eq!(new.map(|share| shared.leave(share)), Some(Left::Last(2)));
    }

    #[test]
    fn a_retained_value_blocks_others() {
        let mut shared = Shared::new();

        shared.retain(1);
        assert_eq!(shared.held(), None);
        assert_eq!(shared.retained(), Some(&1));
        assert_eq!(shared.join(), None);
        assert_eq!(shared.revoke(), None);
        assert_eq!(shared.begin(2), Err(2));
        assert_eq!(shared.take_retained(), Some(1));
        assert_eq!(shared.take_retained(), None);
        assert!(shared.begin(2).is_ok());
    }
}
