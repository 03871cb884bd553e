// SPDX-License-Identifier: GPL-2.0

//! Physical addresses that are the driver's, and nobody else's in the kernel.
//!
//! A [`Claim`] is made of what firmware says ([`Described`]), and [`Physical`] addresses of a
//! claim: there is no other way to either. So whoever maps device memory, to the kernel or to a
//! user, or has TCE tables refer to it, cannot name memory of the kernel.
//!
//! `/proc/iomem` lists a claim, and the kernel adds no listed range to the system's memory.
//!
//! C headers: `include/linux/ioport.h`, `include/linux/memory_hotplug.h`

use crate::{
    linux::{
        bindings,
        of::Described, //
    },
    pure::{
        aperture::Aperture,
        atsd_registers::{
            Atsd, //
            ATSD_SIZE,
        },
        blocks,
        range::{
            RegionOffset,
            RegionRange, //
        },
    },
};
use core::{
    fmt,
    marker::PhantomData, //
};
use kernel::{
    error::to_result,
    io::resource::{
        Flags,
        Region,
        Resource, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// Only this file says which addresses a described value stands for.
mod sealed {
    /// Has no implementations elsewhere.
    pub(crate) trait Sealed {}
}

/// A range of physical addresses that can be claimed.
pub(crate) trait Place: Copy + sealed::Sealed {
    /// Returns the first address.
    fn base(self) -> u64;

    /// Returns the size in bytes, which is not 0.
    fn size(self) -> u64;
}

impl sealed::Sealed for Aperture {}

impl Place for Aperture {
    fn base(self) -> u64 {
        Self::base(self)
    }

    fn size(self) -> u64 {
        Self::size(self)
    }
}

impl sealed::Sealed for Atsd {}

impl Place for Atsd {
    fn base(self) -> u64 {
        self.address()
    }

    fn size(self) -> u64 {
        ATSD_SIZE
    }
}

/// A `T` that is the driver's as long as this exists.
///
/// # Invariants
///
/// The `size` bytes from `base` are those of a `T` that firmware describes, and of `_region`. They
/// do not wrap.
pub(crate) struct Claim<T> {
    base: u64,
    size: u64,
    _region: Region,
    _place: PhantomData<T>,
}

impl<T: Place> Claim<T> {
    /// Claims `place`, by a name for `/proc/iomem`.
    ///
    /// Removes parts that are offline memory of the system: the kernel has them mapped, and may
    /// access them by speculation.
    pub(crate) fn new(place: Described<T>, name: fmt::Arguments<'_>) -> Result<Arc<Self>, Refusal> {
        let (base, size) = (place.base(), place.size());
        let memory = Memory { base, size };
        let region = match request(base, size, name) {
            Some(region) => region,
            None => {
                memory.remove_offline();
                request(base, size, name).ok_or_else(|| memory.refusal())?
            }
        };

        // INVARIANT: It was just requested, and `place` says what it is. No resource wraps.
        Arc::new(
            Self {
                base,
                size,
                _region: region,
                _place: PhantomData,
            },
            GFP_KERNEL,
        )
        .map_err(|_| Refusal::NoMemory)
    }
}

impl<T> Claim<T> {
    /// Returns the first address.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the addresses of the `len` bytes from `offset` of the region that shows the claim;
    /// `None` if they are not all in the region, or if `len` is 0.
    #[inline]
    pub(crate) fn physical(
        self: &Arc<Self>,
        offset: RegionOffset,
        len: u64,
    ) -> Option<Physical<'_, T>> {
        let range = RegionRange::new(offset, len, self.size)?;

        // INVARIANT: The range is in a region of the claim's size, which does not wrap.
        Some(Physical {
            claim: self,
            start: self.base.wrapping_add(range.start()),
            len,
        })
    }
}

/// Physical addresses that are the driver's.
///
/// # Invariants
///
/// The `len` bytes from `start` are within the claim.
pub(crate) struct Physical<'a, T> {
    claim: &'a Arc<Claim<T>>,
    start: u64,
    len: u64,
}

impl<T> Clone for Physical<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Physical<'_, T> {}

impl<'a, T> Physical<'a, T> {
    /// Returns the first address.
    pub(crate) fn start(self) -> u64 {
        self.start
    }

    /// Returns the size in bytes.
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// Returns the claim, which has to exist as long as anything refers to the addresses.
    pub(super) fn claim(self) -> &'a Arc<Claim<T>> {
        self.claim
    }
}

/// Finds out whether a part of an aperture is memory of the system, and in use. If so, the GPU and
/// its links must be left alone.
pub(crate) fn ensure_unused(aperture: Described<Aperture>) -> Result<(), Refusal> {
    let memory = Memory {
        base: aperture.base(),
        size: aperture.size(),
    };

    if memory.blocks().any(Block::is_online) {
        return Err(Refusal::Online(memory));
    }
    Ok(())
}

/// Requests a range for the driver. [`None`]: somebody has a part of it, or memory is short.
fn request(base: u64, size: u64, name: fmt::Arguments<'_>) -> Option<Region> {
    // SAFETY: The root of all memory resources exists for ever. `Resource` is a transparent wrapper
    // that leaves all changes to C, which locks them.
    let iomem: &Resource = unsafe { &*(&raw mut bindings::iomem_resource).cast() };

    iomem.request_region(
        base,
        size,
        CString::try_from_fmt(name).ok()?,
        Flags::IORESOURCE_MEM,
    )
}

/// Why something could not be claimed.
pub(crate) enum Refusal {
    /// Memory is short.
    NoMemory,
    /// Another driver has claimed the addresses.
    Taken,
    /// A part is memory of the system, and in use.
    Online(Memory),
    /// A part is memory of the system, and cannot be removed although it is offline.
    Stuck,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("out of memory"),
            Self::Taken => f.write_str("another driver has it, see /proc/iomem"),
            Self::Online(memory) => write!(
                f,
                "it is memory of the host, take {memory} in /sys/devices/system/memory offline"
            ),
            Self::Stuck => f.write_str(
                "it is memory of the host that cannot be removed, restart without making it that",
            ),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoMemory => ENOMEM,
            Refusal::Taken | Refusal::Online(_) | Refusal::Stuck => EBUSY,
        }
    }
}

/// The parts of a range that are memory of the system. Displays as the names of their online
/// blocks.
pub(crate) struct Memory {
    base: u64,
    size: u64,
}

/// A block of the system's memory.
#[derive(Clone, Copy)]
struct Block {
    number: u64,
    base: u64,
    size: u64,
}

impl Memory {
    /// Whether any part is.
    fn is_there(&self) -> bool {
        self.has(bindings::IORESOURCE_SYSTEM_RAM)
    }

    /// Whether the range intersects with a resource that has all of `flags`.
    fn has(&self, flags: u32) -> bool {
        let Ok(size) = usize::try_from(self.size) else {
            return false;
        };
        // SAFETY: Looks whether resources intersect with any range.
        // CAST: Widen.
        let intersection = unsafe {
            bindings::region_intersects(
                self.base,
                size,
                flags as usize,
                bindings::IORES_DESC_NONE as usize,
            )
        };

        // CAST: A small constant.
        intersection != bindings::REGION_DISJOINT as i32
    }

    /// Returns the blocks that have a part of it.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        // SAFETY: Reads what is set when the kernel boots.
        let size = unsafe { bindings::nvlink2_memory_block_size() };
        let len = if self.is_there() { self.size } else { 0 };

        blocks::numbers(self.base, len, size)
            .filter_map(move |number| {
                Some(Block {
                    number,
                    base: number.checked_mul(size)?,
                    size,
                })
            })
            .filter(|block| {
                Memory {
                    base: block.base,
                    size: block.size,
                }
                .is_there()
            })
    }

    /// Removes the offline blocks that are within the range.
    fn remove_offline(&self) {
        let end = self.base.saturating_add(self.size);

        for block in self.blocks().filter(|block| {
            !block.is_online()
                && self.base <= block.base
                && block.base.saturating_add(block.size) <= end
        }) {
            // It cannot be claimed then, and that is told.
            let _ = block.remove();
        }
    }

    /// Returns why the range could not be claimed after that.
    fn refusal(self) -> Refusal {
        if self.blocks().any(Block::is_online) {
            Refusal::Online(self)
        } else if self.is_there() {
            Refusal::Stuck
        } else if self.has(bindings::IORESOURCE_BUSY) {
            Refusal::Taken
        } else {
            Refusal::NoMemory
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let online = self.blocks().filter(|block| block.is_online());

        blocks::write_names(online.map(|block| block.number), f)
    }
}

impl Block {
    fn is_online(self) -> bool {
        // SAFETY: Takes any address.
        unsafe { bindings::nvlink2_memory_is_online(self.base) }
    }

    /// Removes the block from the memory of the system. EBUSY: it is in use.
    fn remove(self) -> Result {
        // SAFETY: The numbers are those of a whole block, as is demanded; the kernel itself looks,
        // with the lock of all changes, whether it is offline. Nobody but this driver removes
        // memory of the place that the driver is bound to.
        to_result(unsafe { bindings::nvlink2_remove_memory(self.base, self.size) })
    }
}
