// SPDX-License-Identifier: GPL-2.0

//! What the kernel runs on.
//!
//! C header: `arch/powerpc/include/asm/firmware.h`

use super::bindings;

/// Whether this kernel runs on OPAL, and not as a guest.
pub(crate) fn is_powernv() -> bool {
    // SAFETY: Reads a global that is set early during boot.
    unsafe { bindings::nvlink2_platform_is_powernv() }
}
