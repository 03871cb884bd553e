// SPDX-License-Identifier: GPL-2.0

//! References that keep this module loaded.
//!
//! C header: `include/linux/module.h`

use super::bindings;

/// As long as this exists the module is not unloaded.
///
/// # Invariants
///
/// Owns a reference of the module.
pub(crate) struct ModuleReference(());

impl ModuleReference {
    /// Returns [`None`] if the module is being unloaded.
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: The code that calls this is the module's own.
        // INVARIANT: The helper took the reference.
        unsafe { bindings::nvlink2_module_get() }.then_some(Self(()))
    }
}

impl Drop for ModuleReference {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give up. The caller's code stays
        // also if it was the last one: it runs in an operation of an open file, which has another,
        // or in work, a file of debugfs or a callback of the driver core, which unloading waits
        // for.
        unsafe { bindings::nvlink2_module_put() };
    }
}
