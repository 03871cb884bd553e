// SPDX-License-Identifier: GPL-2.0

//! GPUs as PCI functions, and the NPUs that their links lead to: registers, and calls of OPAL.
//!
//! C headers: `arch/powerpc/include/asm/pnv-npu2.h`, `arch/powerpc/include/asm/opal.h`

use crate::{
    linux::{
        bindings,
        of::OfNode, //
    },
    pure::{
        lpid::Lpid,
        xts::{
            Bdfn,
            Hardware,
            HostBlocks,
            Register, //
        },
    },
};
use core::{
    ffi::CStr,
    ptr::NonNull, //
};
use kernel::{
    device::Device,
    error::to_result,
    io::{
        Io,
        Mmio,
        MmioRaw,
        Region, //
    },
    prelude::*,
    time::{
        delay::udelay,
        Delta, //
    },
};

/// MSR bits of a guest's translation requests: translated, problem state, and so never HV.
// CAST: Small constants.
const GUEST_MSR: u64 = (bindings::NVLINK2_MSR_DR | bindings::NVLINK2_MSR_PR) as u64;

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

    /// Returns by what the NPU knows the GPU.
    pub(crate) fn bdfn(&self) -> Bdfn {
        // SAFETY: By the type invariant the function is valid.
        Bdfn(unsafe { bindings::nvlink2_pci_dev_id(self.0.as_ptr()) })
    }

    /// Returns the NPU that the GPU's links lead to.
    ///
    /// ENODEV: the kernel has not set up the links for DMA. ENXIO: firmware does not tell where the
    /// NPU's registers are, or leaves none of those to the host by which GPUs are told to forget.
    /// EOPNOTSUPP: firmware has no calls to map an LPAR.
    pub(crate) fn npu(&self) -> Result<Npu> {
        let mut window = bindings::pnv_npu2_window::default();

        // SAFETY: By the type invariant the function is valid. Any device may be passed.
        if !unsafe { bindings::pnv_npu2_find(self.0.as_ptr(), &mut window) } {
            return Err(ENODEV);
        }
        let regs = NonNull::new(window.regs).ok_or(ENXIO)?;
        // SAFETY: The node of a host bridge, which exists as long as that, for ever.
        let phb = unsafe { OfNode::get(window.phb) }.ok_or(ENXIO)?;
        let blocks = HostBlocks::of(&phb);

        if blocks.is_empty() {
            return Err(ENXIO);
        }
        // SAFETY: There are no arguments.
        if !unsafe { bindings::nvlink2_opal_has_npu_calls() } {
            return Err(EOPNOTSUPP);
        }
        // INVARIANT: They stay mapped for ever.
        Ok(Npu {
            opal_id: window.opal_id,
            registers: MmioRaw::new_region(
                regs.as_ptr().expose_provenance(),
                usize::try_from(window.size)?,
            )?,
            blocks,
        })
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

impl Drop for GpuFunction {
    fn drop(&mut self) {
        // SAFETY: Gives up the reference that the type invariant says we own.
        unsafe { bindings::pci_dev_put(self.0.as_ptr()) };
    }
}

/// An NPU.
///
/// # Invariants
///
/// `registers` are mapped, uncached, for as long as the kernel runs.
pub(crate) struct Npu {
    opal_id: u64,
    registers: MmioRaw<Region>,
    /// Those by which the host launches shootdowns.
    pub(crate) blocks: HostBlocks,
}

impl Npu {
    fn io(&self) -> Mmio<'_, Region> {
        // SAFETY: By the type invariant they are mapped, from a page's start.
        unsafe { Mmio::from_raw(self.registers) }
    }

    /// Has firmware let a GPU use the translation of guest `lpid`. On failure nothing is mapped.
    pub(crate) fn map_lpar(&self, gpu: &GpuFunction, lpid: Lpid) -> Result {
        let bdfn = gpu.bdfn();
        // SAFETY: OPAL checks what it is passed.
        let code =
            unsafe { bindings::nvlink2_opal_map_lpar(self.opal_id, bdfn.0, lpid.get().into()) };

        Answer(code).check(gpu, "map_lpar", lpid)?;
        // It returns the number of the context.
        //
        // SAFETY: As above.
        let code = unsafe { bindings::nvlink2_opal_init_context(self.opal_id, GUEST_MSR, bdfn.0) };

        Answer(code.min(0))
            .check(gpu, "init_context", lpid)
            .inspect_err(|_| {
                // SAFETY: As above.
                unsafe { bindings::nvlink2_opal_map_lpar(self.opal_id, bdfn.0, 0) };
            })
    }

    /// Has firmware take back what a GPU uses. Whatever a call returns, the next one is made: a
    /// half removed mapping lets the GPU into the memory of an LPAR that may be another guest's
    /// soon.
    pub(crate) fn unmap_lpar(&self, bdfn: Bdfn) -> Result<(), Answer> {
        // Makes the entry in the PID map invalid, but not that in the BDF map.
        //
        // SAFETY: As in `map_lpar`.
        let destroyed = unsafe { bindings::nvlink2_opal_destroy_context(self.opal_id, bdfn.0) };
        // Mapping another LPAR does that, there is no call to unmap one. It leaves both entries
        // invalid, and LPID 0 with HV in the first ATSD register, which is not for a GPU without a
        // context either.
        //
        // SAFETY: As in `map_lpar`.
        let mapped = unsafe { bindings::nvlink2_opal_map_lpar(self.opal_id, bdfn.0, 0) };

        match [mapped, destroyed].into_iter().find(|code| *code != 0) {
            Some(code) => Err(Answer(code)),
            None => Ok(()),
        }
    }
}

impl PartialEq for Npu {
    fn eq(&self, other: &Self) -> bool {
        self.opal_id == other.opal_id
    }
}

impl Hardware for Npu {
    fn read(&self, register: Register) -> u64 {
        usize::try_from(register.offset())
            .ok()
            .and_then(|offset| self.io().try_read64(offset).ok())
            // What is not there answers so: an NPU that has no such register translates nothing.
            .map_or(u64::MAX, u64::swap_bytes)
    }

    fn write(&self, register: Register, value: u64) {
        if let Ok(offset) = usize::try_from(register.offset()) {
            // The store is done when a load from there is.
            if self.io().try_write64(value.swap_bytes(), offset).is_ok() {
                self.read(register);
            }
        }
    }

    fn flush_nest_mmu(&self, lpid: Lpid) {
        // Its page walk cache keeps what a tlbie with RIC = 0 invalidates, by which KVM takes pages
        // away: see mm_needs_flush_escalation().
        //
        // SAFETY: Any LPID may be passed.
        unsafe { bindings::nvlink2_radix_flush_all_lpid(lpid.get()) };
    }

    fn wait(&self) {
        udelay(Delta::from_micros(1));
    }
}

/// What OPAL returned.
#[derive(Clone, Copy)]
pub(crate) struct Answer(i64);

impl Answer {
    // CAST: All widen.
    const PARAMETER: i64 = bindings::NVLINK2_OPAL_PARAMETER as i64;
    const BUSY: i64 = bindings::NVLINK2_OPAL_BUSY as i64;
    const BUSY_EVENT: i64 = bindings::NVLINK2_OPAL_BUSY_EVENT as i64;
    const HARDWARE: i64 = bindings::NVLINK2_OPAL_HARDWARE as i64;
    const UNSUPPORTED: i64 = bindings::NVLINK2_OPAL_UNSUPPORTED as i64;
    const PERMISSION: i64 = bindings::NVLINK2_OPAL_PERMISSION as i64;
    const NO_MEM: i64 = bindings::NVLINK2_OPAL_NO_MEM as i64;
    const RESOURCE: i64 = bindings::NVLINK2_OPAL_RESOURCE as i64;
    const INTERNAL_ERROR: i64 = bindings::NVLINK2_OPAL_INTERNAL_ERROR as i64;
    const TIMEOUT: i64 = bindings::NVLINK2_OPAL_TIMEOUT as i64;

    /// Tells what it means if it is an error.
    pub(crate) fn check(self, gpu: &GpuFunction, what: &str, lpid: Lpid) -> Result {
        if self.0 == 0 {
            return Ok(());
        }
        let error = self.to_error();

        dev_err!(
            gpu.device(),
            "NPU {what} for LPID {}: {} (OPAL {})\n",
            lpid.get(),
            self.words(),
            self.0
        );
        Err(error)
    }

    /// Returns the error that users see.
    pub(crate) fn to_error(self) -> Error {
        match self.0 {
            Self::RESOURCE => ENOSPC,
            Self::UNSUPPORTED => EOPNOTSUPP,
            // SAFETY: Any number may be passed.
            code => to_result(unsafe { bindings::nvlink2_opal_errno(code) })
                .err()
                .unwrap_or(EIO),
        }
    }

    fn words(self) -> &'static str {
        match self.0 {
            Self::PARAMETER => "GPU, LPAR or context not known to the NPU",
            Self::BUSY | Self::BUSY_EVENT => "firmware is busy",
            Self::HARDWARE => "hardware error",
            Self::UNSUPPORTED => "not supported by the NPU",
            Self::PERMISSION => "permission denied",
            Self::NO_MEM => "firmware is out of memory",
            Self::RESOURCE => "no free entry in the NPU's XTS table",
            Self::INTERNAL_ERROR => "internal error of firmware",
            Self::TIMEOUT => "timed out",
            _ => "unexpected error",
        }
    }
}
