// SPDX-License-Identifier: GPL-2.0

//! What the driver needs of a device tree, and how it says that one is wrong.

use core::{
    ffi::CStr,
    fmt, //
};

/// A node of a device tree. Displays as its path, such as
/// `/pciex@6030200000000/unknown-bridge@0,1`.
pub(crate) trait Node: Clone + fmt::Display {
    /// Returns the value of a property, `None` if there is no such property.
    fn property(&self, name: &CStr) -> Option<&[u8]>;

    /// Returns the node's own phandle, 0 if it has none.
    fn phandle(&self) -> u32;

    /// Returns the node that has `phandle`.
    fn find(&self, phandle: u32) -> Option<Self>;

    /// Returns the node above, `None` for the root.
    fn parent(&self) -> Option<Self>;

    /// Calls `f` for each node below until it returns `true`; returns whether it did.
    fn any_child(&self, f: &mut dyn FnMut(&Self) -> bool) -> bool;

    /// Calls `f` for each node of the tree that has a property until it returns `true`; returns
    /// whether it did.
    fn any_with(&self, name: &CStr, f: &mut dyn FnMut(&Self) -> bool) -> bool;
}

/// What is wrong with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Missing,
    /// Too short, too long or not a multiple of the size of its entries.
    Length,
    /// Refers to a node that does not exist.
    Dangling,
    /// Refers to a node that is no NVLink2 bridge.
    NoBridge,
    /// Is 0, which is no address, speed or size.
    Zero,
    Unaligned,
    /// Address plus size does not fit into 64 bits.
    Wraps,
    /// More than a VFIO region can hold (1 TiB).
    TooLarge,
    /// Covers addresses of another memory node.
    Overlaps,
    /// Is not what another property, which has to agree, says.
    Disagrees,
    /// Has no entry for this link.
    NoEntry,
    /// Lies outside of the NPU's registers.
    Outside,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Length => "has the wrong length",
            Self::Dangling => "refers to a node that does not exist",
            Self::NoBridge => "refers to a node that is no NVLink2 bridge",
            Self::Zero => "is zero",
            Self::Unaligned => "is not aligned to 64 KiB",
            Self::Wraps => "exceeds the address space",
            Self::TooLarge => "exceeds 1 TiB",
            Self::Overlaps => "overlaps other memory",
            Self::Disagrees => "disagrees with the other links or ends",
            Self::NoEntry => "has no entry for this link",
            Self::Outside => "lies outside of the NPU",
        })
    }
}

/// A property that firmware got wrong.
#[derive(Debug)]
pub(crate) struct FirmwareFault<N> {
    /// Where it is.
    pub(crate) node: N,
    /// Its name, or that of the property that is missing.
    pub(crate) property: &'static CStr,
    /// What is wrong.
    pub(crate) problem: Problem,
}

impl<N: Node> fmt::Display for FirmwareFault<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let property = self.property.to_str().unwrap_or_default();

        write!(
            f,
            "device tree: {} of {} {}",
            property, self.node, self.problem
        )
    }
}

/// Blames `property` of `node`.
pub(crate) fn fault<N: Node>(
    node: &N,
    property: &'static CStr,
    problem: Problem,
) -> FirmwareFault<N> {
    FirmwareFault {
        node: node.clone(),
        property,
        problem,
    }
}
