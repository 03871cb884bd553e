// SPDX-License-Identifier: GPL-2.0

//! When a region of a device may be accessed, and how access ends.
//!
//! A region is usable while its function is powered (D0, not runtime suspended), decodes memory,
//! and neither it nor what it is reached through is being reset. For GPU RAM the latter are the
//! bridges of its links: a function reset of a bridge fences the link. ATSD registers are the
//! NPU's, not the bridge's: power and decoding of the bridge, which no driver of a guest enables,
//! do not matter to them.
//!
//! Whether the links are *trained* is not part of it. Only the vendor's driver trains them, through
//! registers that firmware does not document; nothing that the host can read says that it did. As
//! on bare metal, whoever owns the GPU has to train the links after each reset before touching its
//! RAM. What the host guarantees: it never touches GPU RAM on its own account, its reads survive
//! machine checks, and no mapping outlasts a reset or the loss of power or memory decoding. An
//! access that is too early fences that GPU's own links.

use crate::linux::{
    lock::MemoryGuard,
    vfio::{
        Core,
        UserMappings,
        FIRST_REGION, //
    },
};
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        CondVar,
        Mutex, //
    },
};

/// What each end of access adds to [`Gate::state`]; below it are the accesses under way.
const CLOSED: i64 = 1 << 32;

/// Lets accesses to a region through, or not.
///
/// This is on the path of every fault, for which a semaphore costs too much.
#[pin_data]
pub(crate) struct Gate {
    /// The number of accesses under way and, times [`CLOSED`], of the resets and the like.
    state: Atomic<i64>,
    /// The user mappings of the region, while its device is open.
    // Taken inside of `memory_lock`.
    #[pin]
    mappings: Mutex<Option<UserMappings>>,
    /// Signalled with `mappings` held when the last access to a closed region is over.
    #[pin]
    idle: CondVar,
}

/// Proof that a region is not being reset, as long as it exists.
pub(crate) struct Entered<'a>(&'a Gate);

impl<'a> Entered<'a> {
    #[inline(always)]
    fn new(gate: &'a Gate) -> Result<Self> {
        let before = gate.state.fetch_add(1, Acquire);
        let entered = Self(gate);

        if before >= CLOSED {
            return Err(EIO);
        }
        Ok(entered)
    }
}

impl Drop for Entered<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let before = self.0.state.fetch_add(-1, Release);

        if before > CLOSED && before % CLOSED == 1 {
            self.0.wake();
        }
    }
}

/// Proof that a region is usable, as long as it exists.
pub(crate) struct Access<'a> {
    _memory: MemoryGuard<'a>,
    _entered: Entered<'a>,
}

impl Gate {
    /// Makes a gate that lets everybody in.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state: Atomic::new(0),
            mappings <- new_mutex!(None),
            idle <- new_condvar!(),
        })
    }

    /// Tells those who close the gate that the last access is over.
    #[cold]
    fn wake(&self) {
        // Whoever waits has either not looked yet, or is to be woken.
        let _mappings = self.mappings.lock();

        self.idle.notify_all();
    }

    /// Lets one access through. EIO: the region is not usable.
    #[inline(always)]
    pub(crate) fn enter<'a>(&'a self, core: &'a Core) -> Result<Access<'a>> {
        let memory = core.lock_memory();
        let entered = Entered::new(self)?;

        if !memory.enabled() {
            return Err(EIO);
        }
        Ok(Access {
            _memory: memory,
            _entered: entered,
        })
    }

    /// Lets one access through to what the function's power and decoding do not matter to. EIO: the
    /// region is not usable.
    pub(crate) fn enter_always_on(&self) -> Result<Entered<'_>> {
        Entered::new(self)
    }

    /// Says whose mappings to remove. The region is the first that `core` has.
    pub(crate) fn attach(&self, core: &Core) {
        *self.mappings.lock() = Some(core.mappings());
    }

    /// The device was closed: there are no mappings any more.
    pub(crate) fn detach(&self) {
        let mappings = self.mappings.lock().take();

        // Not under the lock: dropping an inode may sleep for long.
        drop(mappings);
    }

    /// Ends all access, until as many calls of [`Gate::open`].
    pub(crate) fn close(&self) {
        self.state.fetch_add(CLOSED, Full);
        let mut mappings = self.mappings.lock();

        while self.state.load(Acquire) % CLOSED != 0 {
            self.idle.wait(&mut mappings);
        }
        if let Some(mappings) = &*mappings {
            mappings.zap(FIRST_REGION);
        }
    }

    /// See [`Gate::close`].
    pub(crate) fn open(&self) {
        self.state.fetch_add(-CLOSED, Release);
    }
}
