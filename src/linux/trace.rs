// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, see `include/nvlink2_trace.h`.

use crate::{
    linux::{
        bindings,
        mm::vma::Outcome,
        vfio::core::Core, //
    },
    pure::lpid::Lpid, //
};
use core::ffi::CStr;
use kernel::{
    prelude::*,
    str::CStrExt, //
};

/// Whether anybody wants to know of faults.
#[inline(always)]
pub(crate) fn gpu_fault_is_on() -> bool {
    // SAFETY: The counter of a tracepoint of this module, which others change in one access.
    let users = unsafe {
        (&raw const bindings::__tracepoint_vfio_pci_nvgpu_mmap_fault
            .key
            .key
            .enabled
            .counter)
            .read_volatile()
    };

    users != 0
}

/// A page of GPU RAM at `physical` was asked for at user address `user`.
pub(crate) fn gpu_fault(core: &Core, physical: u64, user: u64, outcome: Outcome) {
    // SAFETY: The PCI device exists as long as its core device.
    // CAST: `unsigned long` has 64 bits on every machine with this driver.
    unsafe {
        bindings::nvlink2_trace_gpu_fault(
            core.pci(),
            physical as usize,
            user as usize,
            outcome.get(),
        )
    };
}

/// GPU RAM was to be mapped.
pub(crate) fn gpu_mmap(core: &Core, physical: u64, user: u64, len: u64, result: &Result) {
    // SAFETY: The PCI device exists as long as its core device.
    // CAST: `unsigned long` has 64 bits on every machine with this driver.
    unsafe {
        bindings::nvlink2_trace_gpu_mmap(
            core.pci(),
            physical as usize,
            user as usize,
            len as usize,
            errno(result),
        )
    };
}

/// An ATSD register block was to be mapped.
pub(crate) fn bridge_mmap(core: &Core, physical: u64, user: u64, len: u64, result: &Result) {
    // SAFETY: The PCI device exists as long as its core device.
    // CAST: `unsigned long` has 64 bits on every machine with this driver.
    unsafe {
        bindings::nvlink2_trace_bridge_mmap(
            core.pci(),
            physical as usize,
            user as usize,
            len as usize,
            errno(result),
        )
    };
}

/// A GPU was to be bound to an LPAR.
pub(crate) fn lpar_bind(gpu: &CStr, lpid: Lpid, result: &Result) {
    // SAFETY: The name is copied.
    unsafe { bindings::nvlink2_trace_lpar_bind(gpu.as_char_ptr(), lpid.get(), errno(result)) };
}

/// The binding of a GPU to an LPAR was to end.
pub(crate) fn lpar_unbind(gpu: &CStr, lpid: Lpid, result: &Result) {
    // SAFETY: The name is copied.
    unsafe { bindings::nvlink2_trace_lpar_unbind(gpu.as_char_ptr(), lpid.get(), errno(result)) };
}

/// The GPUs of an NPU were to forget the translations of an LPAR, as its machine lost the user
/// addresses from `start` to `end`. The result is how many launches that took.
pub(crate) fn lpar_invalidate(lpid: Lpid, start: usize, end: usize, result: &Result<u32>) {
    let launches = *result.as_ref().unwrap_or(&0);

    // SAFETY: All are numbers.
    unsafe {
        bindings::nvlink2_trace_lpar_invalidate(lpid.get(), start, end, launches, errno(result));
    }
}

fn errno<T>(result: &Result<T>) -> i32 {
    result.as_ref().err().map_or(0, |error| error.to_errno())
}
