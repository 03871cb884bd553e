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

use crate::{
    linux::{
        lock::MemoryGuard,
        vfio::{
            Core,
            UserMappings,
            FIRST_REGION, //
        },
    },
    pure::gate::{
        Cause,
        Causes, //
    },
};
use core::ops::Deref;
use kernel::{
    fmt, new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        Arc,
        CondVar,
        Mutex, //
    },
};

/// What a closed gate has in [`Gate::accesses`] beside the accesses under way.
const CLOSED: i64 = 1 << 32;

/// Lets accesses to a region through, or not.
///
/// This is on the path of every fault, for which a semaphore costs too much.
#[pin_data]
pub(crate) struct Gate {
    /// The number of accesses under way, and [`CLOSED`] if there is a cause.
    accesses: Atomic<i64>,
    // Taken inside of `memory_lock`.
    #[pin]
    state: Mutex<State>,
    /// Signalled with `state` held when the last access to a closed region is over.
    #[pin]
    idle: CondVar,
}

struct State {
    /// Why it is closed.
    causes: Causes,
    /// The user mappings of the region, while its device is open.
    mappings: Option<UserMappings>,
}

/// Proof that a region is not being reset, as long as it exists.
pub(crate) struct Entered<'a>(&'a Gate);

impl<'a> Entered<'a> {
    #[inline(always)]
    fn new(gate: &'a Gate) -> Result<Self> {
        let before = gate.accesses.fetch_add(1, Acquire);
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
        let before = self.0.accesses.fetch_add(-1, Release);

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
            accesses: Atomic::new(0),
            state <- new_mutex!(State {
                causes: Causes::new(),
                mappings: None,
            }),
            idle <- new_condvar!(),
        })
    }

    /// Tells those who close the gate that the last access is over.
    #[cold]
    fn wake(&self) {
        // Whoever waits has either not looked yet, or is to be woken.
        let _state = self.state.lock();

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

    /// Says whose mappings to remove, while its device is open. The region is the first that `core`
    /// has.
    pub(crate) fn attach(this: &Arc<Self>, core: &Core) -> Attached {
        this.state.lock().mappings = Some(core.mappings());
        Attached(this.clone())
    }

    /// Ends all access. All those who close wait for accesses under way, not only who came first.
    fn begin(&self, cause: Cause) {
        let mut state = self.state.lock();

        if state.causes.begin(cause) {
            // Either an access comes before this in the order of changes, and is waited for, or
            // behind it, and is refused.
            self.accesses.fetch_add(CLOSED, Full);
        }
        // What was done in accesses that are over comes before what follows.
        while self.accesses.load(Acquire) % CLOSED != 0 {
            self.idle.wait(&mut state);
        }
        if let Some(mappings) = &state.mappings {
            mappings.zap(FIRST_REGION);
        }
    }

    /// See [`Gate::begin`].
    fn end(&self, cause: Cause) {
        if self.state.lock().causes.end(cause) {
            // Who is let in finds what was done before.
            self.accesses.fetch_add(-CLOSED, Release);
        }
    }

    /// Writes each cause for which it is closed, and how many of it there are, or `none`.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let mut causes = state.causes.iter().peekable();

        if causes.peek().is_none() {
            return writeln!(f, "none");
        }
        causes.try_for_each(|(cause, count)| writeln!(f, "{} {count}", cause.name()))
    }
}

/// A gate is closed for a cause, as long as this exists: nobody accesses the region, and nobody has
/// it mapped.
pub(crate) struct Closed<G: Deref<Target = Gate>> {
    gate: G,
    cause: Cause,
}

impl<G: Deref<Target = Gate>> Closed<G> {
    /// Closes `gate`; sleeps until accesses under way are over. `memory_lock` may be held for
    /// writing, and must not be for reading.
    pub(crate) fn new(gate: G, cause: Cause) -> Self {
        gate.begin(cause);
        Self { gate, cause }
    }
}

impl<G: Deref<Target = Gate>> Drop for Closed<G> {
    fn drop(&mut self) {
        self.gate.end(self.cause);
    }
}

/// A gate knows the mappings of an open device, as long as this exists.
pub(crate) struct Attached(Arc<Gate>);

impl Drop for Attached {
    fn drop(&mut self) {
        let mappings = self.0.state.lock().mappings.take();

        // Not under the lock: dropping an inode may sleep for long.
        drop(mappings);
    }
}
