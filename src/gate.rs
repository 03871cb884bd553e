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
    lock::{
        MemoryGuard,
        ReadGuard,
        RwLock, //
    },
    vfio::{
        Core,
        UserMappings,
        FIRST_REGION, //
    },
};
use kernel::prelude::*;

struct State {
    /// How many resets and the like are under way.
    closed: u32,
    /// The user mappings of the region, while its device is open.
    mappings: Option<UserMappings>,
}

/// Lets accesses to a region through, or not.
#[pin_data]
pub(crate) struct Gate {
    // Taken inside of `memory_lock`. Held for reading during an access, so that closing the gate
    // waits for those under way.
    #[pin]
    state: RwLock<State>,
}

/// Proof that a region is usable, as long as it exists.
pub(crate) struct Access<'a> {
    /// memory_lock, held for reading.
    pub(crate) memory: MemoryGuard<'a>,
    _state: ReadGuard<'a, State>,
}

impl Gate {
    /// Makes a gate that lets everybody in.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- RwLock::new(State {
                closed: 0,
                mappings: None,
            }),
        })
    }

    /// Lets one access through. EIO: the region is not usable.
    pub(crate) fn enter<'a>(&'a self, core: &'a Core) -> Result<Access<'a>> {
        let memory = core.lock_memory();
        let state = self.state.read();

        if state.closed != 0 || !memory.enabled() {
            return Err(EIO);
        }
        Ok(Access {
            memory,
            _state: state,
        })
    }

    /// Lets one access through to what the function's power and decoding do not matter to. EIO: the
    /// region is not usable.
    pub(crate) fn enter_always_on(&self) -> Result<impl Drop + '_> {
        let state = self.state.read();

        if state.closed != 0 {
            return Err(EIO);
        }
        Ok(state)
    }

    /// Says whose mappings to remove. The region is the first that `core` has.
    pub(crate) fn attach(&self, core: &Core) {
        self.state.write().mappings = Some(core.mappings());
    }

    /// The device was closed: there are no mappings any more.
    pub(crate) fn detach(&self) {
        let mappings = self.state.write().mappings.take();

        // Not under the lock: dropping an inode may sleep for long.
        drop(mappings);
    }

    /// Ends all access, until as many calls of [`Gate::open`].
    pub(crate) fn close(&self) {
        let mut state = self.state.write();

        state.closed = state.closed.saturating_add(1);
        if let Some(mappings) = &state.mappings {
            mappings.zap(FIRST_REGION);
        }
    }

    /// See [`Gate::close`].
    pub(crate) fn open(&self) {
        let mut state = self.state.write();

        state.closed = state.closed.saturating_sub(1);
    }
}
