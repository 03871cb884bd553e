// SPDX-License-Identifier: GPL-2.0

//! When a region of a device may be accessed, and how access ends.
//!
//! A region is usable while its function is powered, decodes memory, and neither it nor what it is
//! reached through is being reset. For GPU RAM the latter are the bridges of its links: a function
//! reset of a bridge fences the link. ATSD registers are the NPU's, not the bridge's: power and
//! decoding of the bridge, which no driver of a guest enables, do not matter to them.
//!
//! Power, decoding and resets that VFIO makes of the function itself are VFIO's business: it
//! removes mappings of GPU RAM with those of BARs, and holds `memory_lock` meanwhile. A [`Gate`] is
//! for the rest, resets that others make or that are of a bridge. A fault waits for their end, as
//! no signal would be of use to a guest; a system call fails.
//!
//! Whether the links are *trained* is not part of it. Only the vendor's driver trains them, through
//! registers that firmware does not document; nothing that the host can read says that it did. As
//! on bare metal, whoever owns the GPU has to train the links after each reset before touching its
//! RAM. What the host guarantees: it never touches GPU RAM on its own account, its reads survive
//! machine checks, and no mapping outlasts a reset or the loss of power or memory decoding. An
//! access that is too early fences that GPU's own links.

use crate::{
    linux::{
        mm::{
            memremap::Window,
            vma::Obstacle, //
        },
        published::{
            Published,
            Reading,
            Signals, //
        },
        vfio::{
            core::{
                Core,
                UserMappings, //
                FIRST_REGION,
            },
            memory_lock::MemoryGuard, //
        },
    },
    pure::causes::{
        Cause,
        Causes,
        Verdict, //
    },
};
use kernel::{
    fmt, new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Lets accesses to a region through, or not.
#[pin_data]
pub(crate) struct Gate {
    /// What [`Causes::verdict`] says, for those who want to get through.
    verdict: Published,
    // Taken inside of `memory_lock`. Who has got through must not take it: who closes has it, and
    // waits for him.
    #[pin]
    state: Mutex<GateState>,
    /// The kernel's own mapping of the region, which those make and use who have got through.
    // Taken inside of `state`.
    #[pin]
    window: Mutex<Option<Arc<Window>>>,
}

struct GateState {
    /// Why it is closed.
    causes: Causes,
    /// The user mappings of the region, while its device is open.
    mappings: Option<UserMappings>,
}

/// Proof that a region is neither being reset nor revoked, as long as it exists.
pub(crate) struct Entered<'a>(#[expect(dead_code, reason = "held for its Drop")] Reading<'a>);

/// Proof that a region is usable, as long as it exists.
pub(crate) struct Access<'a> {
    gate: &'a Gate,
    // Dropped in this order: who waits for the gate may wait for `memory_lock` next.
    _entered: Entered<'a>,
    memory: MemoryGuard<'a>,
}

impl Access<'_> {
    /// Returns that the lock is held.
    #[inline(always)]
    pub(crate) fn memory(&self) -> &MemoryGuard<'_> {
        &self.memory
    }

    /// Calls `f` with the kernel's mapping of the region, which `make` makes if there is none. It
    /// stays until the region may not be accessed any more, or its device is closed.
    pub(crate) fn through_window<R>(
        &self,
        make: impl FnOnce() -> Result<Window>,
        f: impl FnOnce(&Window) -> Result<R>,
    ) -> Result<R> {
        let window = {
            let mut known = self.gate.window.lock();

            match &*known {
                Some(window) => window.clone(),
                None => known.insert(Arc::new(make()?, GFP_KERNEL)?).clone(),
            }
        };

        f(&window)
    }
}

impl Gate {
    /// Makes a gate that lets everybody in.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            verdict: Published::new(),
            state <- new_mutex!(GateState {
                causes: Causes::new(),
                mappings: None,
            }),
            window <- new_mutex!(None),
        })
    }

    /// Who may come again at once if he is refused is not even counted then: who closes the gate
    /// would wait for him, and many that try take turns.
    fn pass_without_hurry(&self) -> Result<Entered<'_>, Verdict> {
        match Verdict::from_raw(self.verdict.peek()) {
            Verdict::Open => self.pass(),
            verdict => Err(verdict),
        }
    }

    #[inline(always)]
    fn pass(&self) -> Result<Entered<'_>, Verdict> {
        let reading = self.verdict.read();

        if reading.value() == Verdict::Open.to_raw() {
            Ok(Entered(reading))
        } else {
            Err(Self::refuse(reading))
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse(reading: Reading<'_>) -> Verdict {
        Verdict::from_raw(reading.value())
    }

    /// Lets a system call through. EIO: the region is not usable.
    pub(crate) fn enter<'a>(&'a self, core: &'a Core) -> Result<Access<'a>> {
        let memory = MemoryGuard::new(core);
        let entered = self.enter_always_on()?;

        if !memory.decodes() {
            return Err(EIO);
        }
        Ok(Access {
            gate: self,
            _entered: entered,
            memory,
        })
    }

    /// Lets a system call through to what the function's power and decoding do not matter to. EIO:
    /// the region is not usable.
    pub(crate) fn enter_always_on(&self) -> Result<Entered<'_>> {
        self.pass_without_hurry().map_err(|_| EIO)
    }

    /// Lets a fault through, to where it is found out whether the function has power and decodes
    /// memory. One that is refused is counted for an instant, and waits before it comes again.
    #[inline(always)]
    pub(crate) fn enter_fault<'a>(
        this: &'a Arc<Self>,
        core: &'a Core,
    ) -> Result<Access<'a>, Refused> {
        let memory = MemoryGuard::new(core);

        match this.pass() {
            Ok(entered) => Ok(Access {
                gate: this,
                _entered: entered,
                memory,
            }),
            Err(verdict) => Err(Refused::new(this, verdict)),
        }
    }

    /// Lets a fault through to what the function's power and decoding do not matter to.
    pub(crate) fn enter_fault_always_on(this: &Arc<Self>) -> Result<Entered<'_>, Refused> {
        this.pass_without_hurry()
            .map_err(|verdict| Refused::new(this, verdict))
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

        self.change(&mut state, |causes| causes.begin(cause));
        // Nobody gets as far as here while the device is not open, and whoever opens it finds the
        // verdict.
        if let Some(mappings) = &state.mappings {
            self.verdict.wait_for_readers();
            mappings.zap(FIRST_REGION);
        }
        // Nobody uses it, as there are no accesses.
        *self.window.lock() = None;
    }

    /// See [`Gate::begin`].
    fn end(&self, cause: Cause) {
        self.change(&mut self.state.lock(), |causes| causes.end(cause));
    }

    /// Changes why it is closed, and publishes what follows.
    fn change(&self, state: &mut GateState, f: impl FnOnce(&mut Causes)) {
        let old = state.causes.verdict();

        f(&mut state.causes);
        self.verdict
            .publish(old.to_raw(), state.causes.verdict().to_raw());
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

/// Why a fault was not let through.
pub(crate) enum Refused {
    /// Nobody says how long that lasts.
    Closed,
    /// The gate opens again by itself.
    ForNow(Reopening),
}

impl Refused {
    #[cold]
    #[inline(never)]
    fn new(gate: &Arc<Gate>, verdict: Verdict) -> Self {
        match verdict {
            Verdict::ClosedForNow => Self::ForNow(Reopening(gate.clone())),
            Verdict::Open | Verdict::Closed => Self::Closed,
        }
    }
}

/// A gate that opens again by itself, to be waited for.
pub(crate) struct Reopening(Arc<Gate>);

impl Obstacle for Reopening {
    fn wait(self, signals: Signals) {
        self.0
            .verdict
            .wait_while(Verdict::ClosedForNow.to_raw(), signals);
    }
}

/// A gate is closed for a cause, as long as this exists: nobody accesses the region, and nobody has
/// it mapped.
pub(crate) struct Closed {
    gate: Arc<Gate>,
    cause: Cause,
}

impl Closed {
    /// Closes `gate`; sleeps until accesses under way are over. `memory_lock` may be held for
    /// writing, and must not be for reading.
    pub(crate) fn new(gate: Arc<Gate>, cause: Cause) -> Self {
        gate.begin(cause);
        Self { gate, cause }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.gate.end(self.cause);
    }
}

/// A gate knows the mappings of an open device, as long as this exists.
pub(crate) struct Attached(Arc<Gate>);

impl Drop for Attached {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock();

            (state.mappings.take(), self.0.window.lock().take())
        };

        // Not under the lock: dropping an inode may sleep for long.
        drop(left);
    }
}
