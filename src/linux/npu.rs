// SPDX-License-Identifier: GPL-2.0

//! The NPU's tables that say for which LPAR a GPU translates addresses.
//!
//! C header: `arch/powerpc/include/asm/pnv-npu2.h`

use crate::{
    linux::{
        bindings,
        of::OfNode, //
    },
    pure::lpid::Lpid, //
};
use core::{
    ffi::CStr,
    ptr::NonNull, //
};
use kernel::{
    device::Device,
    error::to_result,
    prelude::*, //
};

/// MSR bits of a guest's translation requests: translated, problem state, and so never HV.
// CAST: Small constants.
const GUEST_MSR: usize = (bindings::NVLINK2_MSR_DR | bindings::NVLINK2_MSR_PR) as usize;

/// The PCI function of a GPU, whatever driver it has.
///
/// Not to be kept: the kernel gives the GPU's PE back when the last reference goes, and a GPU that
/// was removed and found again would get it while it is still in use.
///
/// # Invariants
///
/// Points to a `pci_dev` of which this owns one reference.
pub(crate) struct GpuFunction(NonNull<bindings::pci_dev>);

impl GpuFunction {
    /// Returns the function that `node` describes, `None` while it is not plugged in.
    pub(crate) fn at(node: &OfNode) -> Option<Self> {
        // SAFETY: The node is valid; the helper returns NULL or a new reference.
        let pdev = unsafe { bindings::nvlink2_pci_of_node_find(node.as_raw()) };

        // INVARIANT: The reference that the helper took is ours now.
        NonNull::new(pdev).map(Self)
    }

    /// Returns the device, for messages.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: By the type invariant the function is valid.
        unsafe { Device::from_raw(&raw mut (*self.0.as_ptr()).dev) }
    }

    /// Returns the function's name, such as `0004:04:00.0`.
    pub(crate) fn name(&self) -> &CStr {
        self.device().name()
    }

    /// Returns the NPU that the GPU's links lead to, if firmware describes one.
    pub(crate) fn npu(&self) -> Option<Npu> {
        // SAFETY: By the type invariant the function is valid. Any device may be passed.
        let npu = unsafe { bindings::pnv_npu2_of_gpu(self.0.as_ptr()) };

        // INVARIANT: NPUs are never freed.
        NonNull::new(npu).map(Npu)
    }

    /// Lets the GPU translate addresses of guest `lpid`, and the ATSD registers of its links launch
    /// for it. On failure nothing is mapped. The GPU must have no translations, and has none until
    /// [`GpuFunction::set_quiet`] says that it may.
    ///
    /// EBUSY: it is mapped; others: see `pnv_npu2_map_lpar()`.
    pub(crate) fn map_lpar(&self, lpid: Lpid) -> Result {
        // SAFETY: By the type invariant the function is valid. Any device and LPID may be passed.
        to_result(unsafe { bindings::pnv_npu2_map_lpar(self.0.as_ptr(), lpid.get(), GUEST_MSR) })
    }

    /// Tells whether the GPU is being reset: it forgets what it knows while it can be told, asks
    /// for no translations then, and has none thereafter. To be followed by [`GpuFunction::pay`].
    /// Does nothing while it is not mapped, and does not sleep.
    pub(crate) fn set_quiet(&self, quiet: bool) {
        // SAFETY: As in `map_lpar`.
        unsafe { bindings::pnv_npu2_set_quiet(self.0.as_ptr(), quiet) };
    }

    /// Launches the shootdown that the GPU is owed, if that can be done now. Does not sleep.
    ///
    /// EAGAIN: it cannot yet, and the GPU gets no translations before it could. ETIMEDOUT: the NPU
    /// translates nothing more for the GPU, which is mapped, as it did not confirm a shootdown.
    pub(crate) fn pay(&self) -> Result {
        // SAFETY: As in `map_lpar`.
        to_result(unsafe { bindings::pnv_npu2_pay(self.0.as_ptr()) })
    }

    /// Undoes [`GpuFunction::map_lpar`], and returns whether the GPU has forgotten what it knew: if
    /// its links are down it could not be told.
    ///
    /// ENOENT, ENODEV: it is not mapped; others: firmware failed at a part of it.
    pub(crate) fn unmap_lpar(&self) -> Result<bool> {
        // SAFETY: As in `map_lpar`.
        let untold = unsafe { bindings::pnv_npu2_unmap_lpar(self.0.as_ptr()) };

        to_result(untold)?;
        Ok(untold == 0)
    }

    /// Resets the GPU, whoever has it open. No lock may be held that a driver takes which is told
    /// of a reset.
    ///
    /// EAGAIN: somebody else resets it, or it is being unbound from its driver.
    pub(crate) fn try_reset(&self) -> Result {
        // SAFETY: By the type invariant the function is valid.
        to_result(unsafe { bindings::pci_try_reset_function(self.0.as_ptr()) })
    }
}

/// An NPU.
///
/// # Invariants
///
/// Points to a `struct pnv_npu`, which exists from boot on and for ever.
pub(crate) struct Npu(NonNull<bindings::pnv_npu>);

// SAFETY: The kernel locks what it does with an NPU.
unsafe impl Send for Npu {}
// SAFETY: As above.
unsafe impl Sync for Npu {}

impl Npu {
    /// Has the NPU's GPUs that are mapped to `lpid` forget all translations, and returns how many
    /// launches that took. Does not sleep.
    ///
    /// EAGAIN: a GPU cannot be told now, and gets no translations before it was. ETIMEDOUT: a GPU
    /// is given up. The kernel has told.
    pub(crate) fn invalidate_lpar(&self, lpid: Lpid) -> Result<u32> {
        // SAFETY: By the type invariant the NPU is valid. Any LPID may be passed.
        let launches = unsafe { bindings::pnv_npu2_invalidate_lpar(self.0.as_ptr(), lpid.get()) };

        to_result(launches)?;
        Ok(launches.unsigned_abs())
    }
}

impl PartialEq for Npu {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for GpuFunction {
    fn drop(&mut self) {
        // SAFETY: Gives up the reference that the type invariant says we own.
        unsafe { bindings::pci_dev_put(self.0.as_ptr()) };
    }
}
