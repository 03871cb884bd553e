// SPDX-License-Identifier: GPL-2.0

//! Why a region is closed, and which ends belong to which begins.

/// Why nobody may access a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its function is being reset, alone or with a bus, on behalf of whomever.
    Reset,
    /// A bridge that it is reached through is being reset.
    LinkReset,
    /// The binding that made it the user's was revoked.
    Revoked,
}

impl Cause {
    const ALL: [Self; 3] = [Self::Reset, Self::LinkReset, Self::Revoked];

    /// Returns what people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::LinkReset => "link-reset",
            Self::Revoked => "revoked",
        }
    }
}

/// The outcome of an access to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The access goes through.
    Open,
    /// The access is refused, or waits: the cause ends without the user's doing.
    ClosedForNow,
    /// The access is refused: its user would wait for itself.
    Closed,
}

impl Verdict {
    /// Returns the number that stands for it: 0 for what most find.
    pub(crate) const fn to_raw(self) -> i32 {
        match self {
            Self::Open => 0,
            Self::ClosedForNow => 1,
            Self::Closed => 2,
        }
    }

    /// Returns what a number stands for.
    pub(crate) const fn from_raw(raw: i32) -> Self {
        match raw {
            0 => Self::Open,
            1 => Self::ClosedForNow,
            _ => Self::Closed,
        }
    }
}

/// The causes for which a region is closed: the number of each of [`Cause::ALL`]. It is open if all
/// are 0.
#[derive(Debug)]
pub(crate) struct Causes([u32; Cause::ALL.len()]);

impl Causes {
    /// Makes the causes of an open region.
    pub(crate) const fn new() -> Self {
        Self([0; Cause::ALL.len()])
    }

    /// Returns the causes that there are, and the number of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cause, u32)> {
        Cause::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count != 0)
    }

    /// Returns the outcome of an access.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.iter().any(|(cause, _)| cause == Cause::Revoked) {
            Verdict::Closed
        } else if self.iter().next().is_some() {
            Verdict::ClosedForNow
        } else {
            Verdict::Open
        }
    }

    /// Adds a cause.
    pub(crate) fn begin(&mut self, cause: Cause) {
        self.change(cause, |count| count.saturating_add(1));
    }

    /// Takes a cause away. The end of one that never began has no effect.
    pub(crate) fn end(&mut self, cause: Cause) {
        self.change(cause, |count| count.saturating_sub(1));
    }

    fn change(&mut self, of: Cause, change: fn(u32) -> u32) {
        for (count, cause) in self.0.iter_mut().zip(Cause::ALL) {
            if cause == of {
                *count = change(*count);
            }
        }
    }
}

/// A value that exists from the first begin to the last end. Others report begins and ends: begins
/// may nest, and an end may come without a begin.
///
/// # Invariants
///
/// The number of begins that have not ended is not 0.
#[derive(Debug)]
pub(crate) struct Spanning<T>(Option<(T, u32)>);

impl<T> Spanning<T> {
    /// Makes one without a begin.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// One more begin: the first calls `make`.
    pub(crate) fn begin(&mut self, make: impl FnOnce() -> T) {
        // INVARIANT: 1 or more.
        let (value, begins) = match self.0.take() {
            Some((value, begins)) => (value, begins.saturating_add(1)),
            None => (make(), 1),
        };

        self.0 = Some((value, begins));
    }

    /// One more end: the last returns what the first begin made. An end without a begin is nothing.
    pub(crate) fn end(&mut self) -> Option<T> {
        let (value, begins) = self.0.take()?;

        match begins.saturating_sub(1) {
            0 => Some(value),
            left => {
                // INVARIANT: Not 0.
                self.0 = Some((value, left));
                None
            }
        }
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_causes))]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_closes_and_the_last_opens() {
        for first in Cause::ALL {
            for second in Cause::ALL {
                let mut causes = Causes::new();

                assert_eq!(causes.verdict(), Verdict::Open);
                causes.begin(first);
                assert!(causes.verdict() != Verdict::Open);
                causes.begin(second);
                causes.end(first);
                assert!(causes.verdict() != Verdict::Open);
                causes.end(second);
                assert_eq!(causes.verdict(), Verdict::Open);
                causes.begin(second);
                assert!(causes.verdict() != Verdict::Open);
            }
        }
    }

    #[test]
    fn nobody_waits_for_the_end_of_a_revocation() {
        let mut causes = Causes::new();

        for cause in [Cause::Reset, Cause::LinkReset] {
            causes.begin(cause);
            assert_eq!(causes.verdict(), Verdict::ClosedForNow);
            causes.begin(Cause::Revoked);
            assert_eq!(causes.verdict(), Verdict::Closed);
            causes.end(cause);
            assert_eq!(causes.verdict(), Verdict::Closed);
            causes.begin(cause);
            causes.end(Cause::Revoked);
            assert_eq!(causes.verdict(), Verdict::ClosedForNow);
            causes.end(cause);
        }
    }

    #[test]
    fn ends_without_a_begin_open_nothing() {
        for cause in Cause::ALL {
            for other in Cause::ALL.into_iter().filter(|other| *other != cause) {
                let mut causes = Causes::new();

                causes.end(other);
                causes.begin(cause);
                causes.end(other);
                assert!(causes.iter().eq([(cause, 1)]));
                // Nor are they made up for by a later begin.
                causes.begin(other);
                assert_eq!(causes.iter().count(), 2);
                causes.end(cause);
                assert!(causes.iter().eq([(other, 1)]));
                causes.end(other);
                assert_eq!(causes.verdict(), Verdict::Open);
            }
        }
    }

    #[test]
    fn causes_are_counted_one_by_one() {
        let mut causes = Causes::new();

        causes.begin(Cause::LinkReset);
        causes.begin(Cause::Reset);
        causes.begin(Cause::LinkReset);
        assert!(causes.iter().eq([(Cause::Reset, 1), (Cause::LinkReset, 2)]));
        causes.end(Cause::LinkReset);
        assert!(causes.iter().eq([(Cause::Reset, 1), (Cause::LinkReset, 1)]));
        causes.end(Cause::LinkReset);
        causes.end(Cause::Reset);
        assert!(causes.iter().next().is_none());
    }

    #[test]
    fn verdicts_are_told_apart() {
        for verdict in [Verdict::Open, Verdict::ClosedForNow, Verdict::Closed] {
            assert_eq!(Verdict::from_raw(verdict.to_raw()), verdict);
        }
        assert_eq!(Verdict::Open.to_raw(), 0);
        // What means nothing lets nobody in.
        assert_eq!(Verdict::from_raw(-1), Verdict::Closed);
        assert_eq!(Verdict::from_raw(3), Verdict::Closed);
    }

    #[test]
    fn causes_are_told_apart() {
        for cause in Cause::ALL {
            let same = Cause::ALL
                .iter()
                .filter(|other| other.name() == cause.name());

            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn begins_within_a_begin_make_nothing_new() {
        let mut spanning = Spanning::new();

        spanning.begin(|| 1);
        spanning.begin(|| 2);
        assert_eq!(spanning.end(), None);
        assert_eq!(spanning.end(), Some(1));
        spanning.begin(|| 3);
        assert_eq!(spanning.end(), Some(3));
    }

    #[test]
    fn ends_that_are_too_many_are_forgotten() {
        let mut spanning = Spanning::new();

        assert_eq!(spanning.end(), None::<i32>);
        spanning.begin(|| 1);
        assert_eq!(spanning.end(), Some(1));
        assert_eq!(spanning.end(), None);
        spanning.begin(|| 2);
        assert_eq!(spanning.end(), Some(2));
    }
}
