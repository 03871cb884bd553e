// SPDX-License-Identifier: GPL-2.0

//! A value that exists as long as somebody has a share of it.

/// A holder's share; worth nothing once the value was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u64);

#[derive(Debug)]
enum ValueState<T> {
    Free,
    Shared { value: T, holders: usize },
    Retained(T),
}

/// A value that exists while somebody holds a share of it, and longer if it cannot be ended.
#[derive(Debug)]
pub(crate) struct SharedValue<T> {
    state: ValueState<T>,
    /// Tells the shares of one value from those of another.
    generation: u64,
}

/// The outcome of giving a share back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left<T> {
    /// Others hold the value.
    Others,
    /// Nobody else holds the value, so it has to be ended.
    Last(T),
    /// The value was revoked before.
    Revoked,
}

impl<T> SharedValue<T> {
    /// Makes one without a value.
    pub(crate) fn new() -> Self {
        Self {
            state: ValueState::Free,
            generation: 0,
        }
    }

    /// Returns the value, if somebody holds it.
    pub(crate) fn held(&self) -> Option<&T> {
        match &self.state {
            ValueState::Shared { value, .. } => Some(value),
            ValueState::Free | ValueState::Retained(_) => None,
        }
    }

    /// Returns the value that could not be ended.
    pub(crate) fn retained(&self) -> Option<&T> {
        match &self.state {
            ValueState::Retained(value) => Some(value),
            ValueState::Free | ValueState::Shared { .. } => None,
        }
    }

    /// Hands out another share of the value; `None` if nobody holds one.
    pub(crate) fn join(&mut self) -> Option<Share> {
        let ValueState::Shared { holders, .. } = &mut self.state else {
            return None;
        };

        *holders = holders.checked_add(1)?;
        Some(Share(self.generation))
    }

    /// Hands out the first share of a value. Gives it back if there is one already.
    pub(crate) fn begin(&mut self, value: T) -> Result<Share, T> {
        if !matches!(self.state, ValueState::Free) {
            return Err(value);
        }
        self.generation = self.generation.wrapping_add(1);
        self.state = ValueState::Shared { value, holders: 1 };
        Ok(Share(self.generation))
    }

    /// Takes a share back, which must not be used again.
    pub(crate) fn leave(&mut self, share: Share) -> Left<T> {
        let ValueState::Shared { holders, .. } = &mut self.state else {
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
        self.take(|state| matches!(state, ValueState::Shared { .. }))
    }

    /// Keeps a value that could not be ended: there is no other until
    /// [`SharedValue::take_retained`].
    pub(crate) fn retain(&mut self, value: T) {
        self.state = ValueState::Retained(value);
    }

    /// Takes what was retained, to try again.
    pub(crate) fn take_retained(&mut self) -> Option<T> {
        self.take(|state| matches!(state, ValueState::Retained(_)))
    }

    fn take(&mut self, wanted: fn(&ValueState<T>) -> bool) -> Option<T> {
        if !wanted(&self.state) {
            return None;
        }
        match core::mem::replace(&mut self.state, ValueState::Free) {
            ValueState::Free => None,
            ValueState::Shared { value, .. } | ValueState::Retained(value) => Some(value),
        }
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_shared_value))]
mod tests {
    use super::*;

    #[test]
    fn the_last_holder_gets_the_value_whoever_that_is() {
        for last in 0..3 {
            let mut shared = SharedValue::new();

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
        let mut shared = SharedValue::new();

        assert!(shared.begin(1).is_ok());
        assert_eq!(shared.begin(2), Err(2));
        assert_eq!(shared.held(), Some(&1));
    }

    #[test]
    fn shares_of_a_revoked_value_do_not_end_the_next_one() {
        let mut shared = SharedValue::new();
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
        let mut shared = SharedValue::new();

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
