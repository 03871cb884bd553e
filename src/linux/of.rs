// SPDX-License-Identifier: GPL-2.0

//! Device tree nodes.
//!
//! The kernel crate's `FwNode` has no parent, no phandle, no search of the tree, and properties
//! only in the CPU's byte order, copied.
//!
//! C header: `include/linux/of.h`

use crate::{
    linux::{
        bindings,
        pci::Function, //
    },
    pure::{
        aperture::Aperture,
        atsd_registers::Atsd,
        devicetree::{
            FirmwareFault,
            Node, //
        },
        topology::{
            self,
            Bridge,
            Gpu, //
        },
    },
};
use core::{
    ffi::CStr,
    fmt,
    ops::Deref,
    ptr::NonNull,
    slice, //
};
use kernel::str::CStrExt;

/// A reference to a `struct device_node`.
///
/// # Invariants
///
/// Points to a node of which this owns one reference.
pub(crate) struct OfNode(NonNull<bindings::device_node>);

impl OfNode {
    /// Returns a pointer that is valid as long as `self`.
    pub(super) fn as_raw(&self) -> *mut bindings::device_node {
        self.0.as_ptr()
    }

    /// Returns the node of a PCI function, if firmware described it.
    pub(crate) fn of(function: &Function) -> Option<Self> {
        // SAFETY: A `Function` is a valid `pci_dev`; the helper returns NULL or a new reference.
        let node = unsafe { bindings::nvlink2_pci_of_node(function.as_raw()) };

        // INVARIANT: The reference that the helper took is ours now.
        NonNull::new(node).map(Self)
    }

    /// Returns a reference of its own to a node; `None` for NULL.
    ///
    /// # Safety
    ///
    /// `node` must be valid, or NULL.
    pub(super) unsafe fn get(node: *mut bindings::device_node) -> Option<Self> {
        // SAFETY: By this function's contract.
        let node = unsafe { bindings::nvlink2_of_node_get(node) };

        // INVARIANT: The reference that the helper took is ours now.
        NonNull::new(node).map(Self)
    }

    /// Reads what the node says as a GPU; `None` if it is not on NVLink2.
    pub(crate) fn gpu(&self) -> Result<Option<Described<Gpu>>, FirmwareFault<Self>> {
        // INVARIANT: The node is one of firmware's tree.
        topology::gpu(self).map(|gpu| gpu.map(Described))
    }

    /// Reads what the node says as a bridge; `None` if it is none, or if its link is not connected.
    ///
    /// The second fault is that of the ATSD registers, without which the bridge works.
    #[expect(clippy::type_complexity)]
    pub(crate) fn bridge(
        &self,
    ) -> Result<Option<(Described<Bridge>, Option<FirmwareFault<Self>>)>, FirmwareFault<Self>> {
        // INVARIANT: As in `gpu`.
        topology::bridge(self)
            .map(|bridge| bridge.map(|(bridge, fault)| (Described(bridge), fault)))
    }

    /// Calls `f` for each node that `next` returns until it returns `true`; returns whether it did.
    ///
    /// # Safety
    ///
    /// `next` must take NULL to begin with, or a node of which it drops a reference to continue
    /// from there. It must return a node with a new reference, or NULL at the end.
    unsafe fn any_of(
        mut next: impl FnMut(*mut bindings::device_node) -> *mut bindings::device_node,
        f: &mut dyn FnMut(&Self) -> bool,
    ) -> bool {
        let mut previous: Option<Self> = None;

        loop {
            let raw = previous
                .as_ref()
                .map_or(core::ptr::null_mut(), |node| node.0.as_ptr());
            // `next` drops this reference.
            core::mem::forget(previous.take());
            // INVARIANT: The reference that was returned is ours now.
            let Some(node) = NonNull::new(next(raw)).map(Self) else {
                return false;
            };

            if f(&node) {
                return true;
            }
            previous = Some(node);
        }
    }
}

// SAFETY: A node's reference count is atomic, and what is read of a node does not change.
unsafe impl Send for OfNode {}
// SAFETY: There are no methods that change `self`; see above.
unsafe impl Sync for OfNode {}

/// A statement of firmware's device tree, decoded and found to be consistent. Nothing else makes
/// one, so all physical addresses come from here ([`super::claim`]).
///
/// # Invariants
///
/// Made by [`topology`] of nodes of the tree that the kernel got from firmware, or a part of that.
#[derive(Clone, Copy)]
pub(crate) struct Described<T>(T);

impl<T> Deref for Described<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Described<Gpu> {
    /// Returns where the GPU's RAM is.
    pub(crate) fn aperture(self) -> Described<Aperture> {
        // INVARIANT: A part of what is described.
        Described(self.0.aperture)
    }
}

impl Described<Bridge> {
    /// Returns where the RAM of the GPU behind the link is.
    pub(crate) fn aperture(self) -> Described<Aperture> {
        // INVARIANT: A part of what is described.
        Described(self.0.aperture)
    }

    /// Returns where the ATSD registers of the link are, if it has some.
    pub(crate) fn atsd(self) -> Option<Described<Atsd>> {
        // INVARIANT: A part of what is described.
        self.0.atsd.map(Described)
    }
}

impl Clone for OfNode {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant the node has a reference, so another may be taken.
        unsafe { bindings::nvlink2_of_node_get(self.0.as_ptr()) };
        // INVARIANT: Owns the reference just taken.
        Self(self.0)
    }
}

impl Drop for OfNode {
    fn drop(&mut self) {
        // SAFETY: Gives up the reference that the type invariant says we own.
        unsafe { bindings::nvlink2_of_node_put(self.0.as_ptr()) };
    }
}

impl fmt::Display for OfNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent() else {
            return Ok(());
        };
        // SAFETY: The node is valid; `full_name` is set before a node can be found and lives as
        // long as the node.
        let name = unsafe { CStr::from_char_ptr((*self.0.as_ptr()).full_name) };

        // A dozen levels at most: firmware's trees mirror the hardware.
        write!(f, "{parent}/{}", name.to_str().unwrap_or("?"))
    }
}

impl Node for OfNode {
    fn property(&self, name: &CStr) -> Option<&[u8]> {
        let mut len = 0;
        // SAFETY: Node and name are valid for the call, `len` is written by it.
        let value =
            unsafe { bindings::of_get_property(self.0.as_ptr(), name.as_char_ptr(), &mut len) };
        let value = NonNull::new(value.cast_mut().cast::<u8>())?;

        // SAFETY: `of_get_property` found a value of `len` bytes. A property that is removed or
        // replaced moves to the node's list of dead ones, which is freed with the node only, and
        // `self` keeps the node. Values are not written in place.
        Some(unsafe { slice::from_raw_parts(value.as_ptr(), usize::try_from(len).ok()?) })
    }

    fn phandle(&self) -> u32 {
        // SAFETY: The node is valid; its phandle does not change once it is attached.
        unsafe { (*self.0.as_ptr()).phandle }
    }

    fn find(&self, phandle: u32) -> Option<Self> {
        // SAFETY: Takes any number; returns NULL or a new reference.
        let node = unsafe { bindings::of_find_node_by_phandle(phandle) };

        // INVARIANT: The reference that was returned is ours now.
        NonNull::new(node).map(Self)
    }

    fn parent(&self) -> Option<Self> {
        // SAFETY: The node is valid; returns NULL or a new reference.
        let node = unsafe { bindings::of_get_parent(self.0.as_ptr()) };

        // INVARIANT: The reference that was returned is ours now.
        NonNull::new(node).map(Self)
    }

    fn any_child(&self, f: &mut dyn FnMut(&Self) -> bool) -> bool {
        // SAFETY: The parent is valid; `any_of` passes NULL or a child of it with a reference.
        let next = |raw| unsafe { bindings::of_get_next_child(self.0.as_ptr(), raw) };

        // SAFETY: `of_get_next_child` drops the reference to the child it continues from, and
        // returns the next child with a reference.
        unsafe { Self::any_of(next, f) }
    }

    fn any_with(&self, name: &CStr, f: &mut dyn FnMut(&Self) -> bool) -> bool {
        // SAFETY: The name is valid for the call; `any_of` passes NULL or a node with a reference.
        let next = |raw| unsafe { bindings::of_find_node_with_property(raw, name.as_char_ptr()) };

        // SAFETY: `of_find_node_with_property` drops the reference to the node it continues from,
        // and returns the next node with a reference.
        unsafe { Self::any_of(next, f) }
    }
}
