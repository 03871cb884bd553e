// SPDX-License-Identifier: GPL-2.0

//! A value that many go by, and whoever changes it can wait for those who go by an older one.
//!
//! C headers: `include/linux/atomic.h`, `include/linux/wait_bit.h`

use crate::linux::bindings;
use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};

/// A number, and how many go by it.
///
/// Reading it is on the path of every fault, for which a semaphore costs too much. Nor is it SRCU:
/// its grace periods take long when readers, or those of RCU, wait for a processor.
pub(crate) struct Published {
    /// The number in the upper half, and how many go by it or an older one in the lower. Being one
    /// word, either a reader comes before a change, and is counted, or behind it, and sees it.
    word: Atomic<i64>,
}

/// What is in [`Published::word`] for each 1 of the number.
const ONE: i64 = 1 << 32;

/// Somebody goes by the number that was read when this was made, as long as it exists.
///
/// # Invariants
///
/// Is counted in `of.word`.
pub(crate) struct Reading<'a> {
    of: &'a Published,
    value: i32,
}

impl Published {
    /// Publishes 0, the only number that nobody waits for the readers of.
    pub(crate) const fn new() -> Self {
        Self {
            word: Atomic::new(0),
        }
    }

    fn number(word: i64) -> i32 {
        // CAST: The upper half of 64 bits.
        (word >> 32) as i32
    }

    /// Reads the number and goes by it.
    #[inline(always)]
    pub(crate) fn read(&self) -> Reading<'_> {
        // SAFETY: The pointer is to a valid number, of which all accesses are atomic.
        let before = unsafe { bindings::nvlink2_fetch_inc_acquire(self.word.as_ptr()) };

        // INVARIANT: Counted just now.
        Reading {
            of: self,
            value: Self::number(before),
        }
    }

    /// Reads the number to go by it only where nobody need wait for that.
    pub(crate) fn peek(&self) -> i32 {
        Self::number(self.word.load(Relaxed))
    }

    /// Publishes `value` in place of `old`, which is what was published last. Who reads it sees
    /// what was done before, and who waits looks at it.
    pub(crate) fn publish(&self, old: i32, value: i32) {
        let change = i64::from(value).wrapping_sub(i64::from(old));

        self.word.fetch_add(change.wrapping_mul(ONE), Full);
        self.wake();
    }

    fn wake(&self) {
        // SAFETY: The address is not looked at, but compared with those that others wait for.
        unsafe { bindings::nvlink2_wake_up(self.word.as_ptr()) };
    }

    /// Waits until nobody goes by a number that was published before the latest one, which must not
    /// be 0. The caller must not go by any of them, nor hold a lock that who does may wait for.
    pub(crate) fn wait_for_readers(&self) {
        // SAFETY: The pointer is to a valid number, of which all accesses are atomic.
        unsafe { bindings::nvlink2_wait_for_readers(self.word.as_ptr()) };
    }

    /// Sleeps as long as `value` is published, or until a signal that `signals` names.
    pub(crate) fn wait_while(&self, value: i32, signals: Signals) {
        let wait = match signals {
            Signals::All => bindings::nvlink2_wait_while_interruptible,
            Signals::Fatal => bindings::nvlink2_wait_while_killable,
        };

        // SAFETY: The pointer is to a valid number, of which all accesses are atomic.
        unsafe { wait(self.word.as_ptr(), value) };
    }
}

impl Reading<'_> {
    /// Returns the number.
    #[inline(always)]
    pub(crate) fn value(&self) -> i32 {
        self.value
    }
}

impl Drop for Reading<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: The pointer is to a valid number, of which all accesses are atomic.
        let before = unsafe { bindings::nvlink2_fetch_dec_release(self.of.word.as_ptr()) };

        if Published::number(before) != 0 {
            self.of.left(before);
        }
    }
}

impl Published {
    /// Somebody has left where somebody may wait for the last to leave.
    #[cold]
    fn left(&self, before: i64) {
        if before % ONE == 1 {
            self.wake();
        }
    }
}

/// What ends a wait before its time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signals {
    /// Any signal.
    All,
    /// Those that end the process.
    Fatal,
}
