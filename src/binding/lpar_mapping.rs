// SPDX-License-Identifier: GPL-2.0

//! The NPU's entry that says for which LPAR a GPU translates, from the call of firmware that makes
//! it until the one that takes it back.

use crate::{
    binding::{
        translator::Translator,
        vm_watch::{
            BoundVm,
            Translations, //
        },
    },
    linux::{
        kvm::Kvm,
        npu::GpuFunction,
        of::OfNode,
        trace,
        workqueue::Retrying, //
    },
    pure::{
        lpid::Lpid,
        xts::{
            Bdfn,
            Links, //
        },
    },
};
use core::ffi::CStr;
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// A GPU that is bound to an LPAR, or may be.
///
/// # Invariants
///
/// If the NPU may know the LPID, `vm` is the machine that it belongs to.
pub(crate) struct LparMapping {
    node: OfNode,
    translator: Arc<Translator>,
    bdfn: Bdfn,
    links: Links,
    /// The GPU's, for traces of what happens when it was unplugged.
    name: CString,
    lpid: Lpid,
    /// [`None`] once the NPU is known to be done with the LPID.
    vm: Option<BoundVm>,
    /// Firmware failed to unmap.
    failed: bool,
}

impl LparMapping {
    /// Binds a GPU, whose node, name and links are given. What goes wrong is in the kernel log; the
    /// machine is not to be dropped under the lock.
    pub(crate) fn new(
        gpu: &GpuFunction,
        node: OfNode,
        name: CString,
        links: Links,
        translator: Arc<Translator>,
        vm: BoundVm,
        lpid: Lpid,
    ) -> Result<Self, (Error, BoundVm)> {
        let result = translator.map(gpu, links, lpid);

        trace::lpar_bind(&name, lpid, &result);
        if let Err(error) = result {
            complain(gpu, lpid, error);
            return Err((error, vm));
        }
        // INVARIANT: The LPID is that of `vm`.
        Ok(Self {
            node,
            translator,
            bdfn: gpu.bdfn(),
            links,
            name,
            lpid,
            vm: Some(vm),
            failed: false,
        })
    }

    /// Returns the LPID that the NPU may know.
    pub(crate) fn lpid(&self) -> Lpid {
        self.lpid
    }

    /// Returns the GPU's name.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// Whether the machine is that of `kvm`.
    pub(crate) fn is_to(&self, kvm: &Kvm) -> bool {
        self.vm.as_ref().is_some_and(|vm| vm.is(kvm))
    }

    /// Returns what the GPU knows of the machine's memory, until the NPU is done with it.
    pub(crate) fn translations(&self) -> Option<&Retrying<Translations>> {
        self.vm.as_ref().map(BoundVm::translations)
    }

    /// Whether `translations` are of the machine.
    pub(crate) fn has(&self, translations: &Translations) -> bool {
        self.vm.as_ref().is_some_and(|vm| vm.has(translations))
    }

    /// Has the NPU forget the LPID; returns the machine then, and whether the GPU has forgotten
    /// what it knew of it, and the binding otherwise.
    pub(crate) fn end(mut self) -> Result<(Option<BoundVm>, bool), Self> {
        match self.clear() {
            Ok(told) => Ok((self.vm.take(), told)),
            Err(_) => Err(self),
        }
    }

    /// Has the NPU forget the LPID, and returns whether the GPU has, too.
    fn clear(&mut self) -> Result<bool> {
        let gpu = GpuFunction::at(&self.node);
        let result = self.unmap(gpu.as_ref());

        trace::lpar_unbind(&self.name, self.lpid, &result.map(|_| ()));
        if let Err(error) = &result {
            self.failed = true;
            if let Some(gpu) = gpu {
                dev_err!(
                    gpu.device(),
                    "LPID {} may still be mapped (errno {}): GPU and bridges are refused and the \
                     virtual machine is kept until unmapping succeeds, which the next open tries \
                     again\n",
                    self.lpid.get(),
                    -error.to_errno()
                );
            }
        }
        result
    }

    fn unmap(&self, gpu: Option<&GpuFunction>) -> Result<bool> {
        if self.failed {
            // Mapping it once more brings the NPU into a known state, and does no harm: the LPID
            // still belongs to the same machine.
            self.translator
                .map(gpu.ok_or(ENODEV)?, self.links, self.lpid)?;
        }
        self.translator.unmap(gpu, self.bdfn, self.links, self.lpid)
    }
}

/// Tells what a GPU was not bound for, and what to do, as far as nobody has told.
pub(crate) fn complain(gpu: &GpuFunction, lpid: Lpid, error: Error) {
    let why = match error {
        EOPNOTSUPP => "the OPAL firmware does not support it, update it",
        EBUSY => "this GPU or one with its bus address is bound already",
        ENODEV => {
            "the kernel has not set up the GPU's NVLinks for DMA, or the OPAL firmware numbers \
             none of them"
        }
        ENXIO => {
            "the OPAL firmware does not tell where the NPU's registers are, or leaves no ATSD \
             registers to the host, update it"
        }
        _ => return,
    };

    dev_err!(gpu.device(), "LPID {} not bound: {why}\n", lpid.get());
}

impl Drop for LparMapping {
    fn drop(&mut self) {
        if self.vm.is_none() || self.clear().is_ok() {
            return;
        }
        // Nobody is left who could try again. An LPID that no guest ever gets is the lesser evil.
        if let Some(vm) = self.vm.take() {
            vm.strand();
        }
    }
}
