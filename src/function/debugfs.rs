// SPDX-License-Identifier: GPL-2.0

//! What the driver knows about its functions, in `/sys/kernel/debug/nvlink2-vfio-pci/<function>/`.
//!
//! What each file says is in the driver's documentation (abi.rst).

use crate::{
    function::role::{
        BridgeState,
        GpuState,
        Role, //
    },
    pure::aperture::Aperture, //
};
use core::ffi::CStr;
use kernel::{
    debugfs::{
        Dir,
        Scope,
        ScopedDir, //
    },
    fmt,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};

/// The files of one function, as long as this exists.
#[expect(dead_code, reason = "the files are all there is to it")]
pub(crate) enum Files {
    Ordinary(Pin<KBox<Scope<()>>>),
    Gpu(Pin<KBox<Scope<Arc<GpuState>>>>),
    Bridge(Pin<KBox<Scope<Arc<BridgeState>>>>),
}

impl Files {
    /// Makes the folder `name` in `root`, with the files that suit `role`.
    pub(crate) fn new(root: &Dir, name: &CStr, role: &Role) -> Result<Self> {
        Ok(match role {
            Role::Ordinary => Self::Ordinary(KBox::pin_init(
                root.scope((), name, ordinary_files),
                GFP_KERNEL,
            )?),
            Role::Gpu(state) => Self::Gpu(KBox::pin_init(
                root.scope(state.clone(), name, gpu_files),
                GFP_KERNEL,
            )?),
            Role::Bridge(state) => Self::Bridge(KBox::pin_init(
                root.scope(state.clone(), name, bridge_files),
                GFP_KERNEL,
            )?),
        })
    }
}

fn ordinary_files<'data>(data: &'data (), dir: &ScopedDir<'data, '_>) {
    dir.read_callback_file(c"role", data, &|(), f| writeln!(f, "ordinary"));
}

fn gpu_files<'data>(data: &'data Arc<GpuState>, dir: &ScopedDir<'data, '_>) {
    dir.read_callback_file(c"role", data, &|_, f| writeln!(f, "gpu"));
    dir.read_callback_file(c"aperture", data, &|state, f| {
        aperture(state.ram.gpu.aperture, f)
    });
    dir.read_callback_file(c"tgt", data, &|state, f| {
        writeln!(f, "{:#x}", state.ram.gpu.tgt)
    });
    dir.read_callback_file(c"links", data, &|state, f| {
        state
            .ram
            .gpu
            .links()
            .iter()
            .try_for_each(|link| writeln!(f, "{link}"))
    });
    dir.read_callback_file(c"lpar", data, &|state, f| state.binding.show(f));
    dir.read_callback_file(c"shootdowns", data, &|state, f| {
        state.binding.show_shootdowns(f)
    });
    dir.read_callback_file(c"closed", data, &|state, f| state.ram.gate.show(f));
    dir.read_callback_file(c"mappings", data, &|state, f| {
        state.ram.registrations.show(f)
    });
    dir.read_callback_file(c"largest-page", data, &|state, f| {
        writeln!(f, "{:#x}", state.ram.largest_page.bytes())
    });
    dir.read_callback_file(c"faults", data, &|state, f| {
        let faults = &state.ram.faults;

        writeln!(
            f,
            "refused {}\nwaited {}",
            faults.refused.load(Relaxed),
            faults.waited.load(Relaxed)
        )
    });
}

fn bridge_files<'data>(data: &'data Arc<BridgeState>, dir: &ScopedDir<'data, '_>) {
    dir.read_callback_file(c"role", data, &|_, f| writeln!(f, "bridge"));
    dir.read_callback_file(c"aperture", data, &|state, f| {
        aperture(state.bridge.aperture, f)
    });
    dir.read_callback_file(c"tgt", data, &|state, f| {
        writeln!(f, "{:#x}", state.bridge.tgt)
    });
    dir.read_callback_file(c"links", data, &|state, f| {
        writeln!(f, "{}", state.bridge.link)
    });
    dir.read_callback_file(c"speed", data, &|state, f| {
        writeln!(f, "{}", state.bridge.speed)
    });
    dir.read_callback_file(c"atsd", data, &|state, f| match state.bridge.atsd {
        Some(atsd) => writeln!(f, "{:#x}", atsd.address()),
        None => writeln!(f, "none"),
    });
    dir.read_callback_file(c"closed", data, &|state, f| state.gate.show(f));
    dir.read_callback_file(c"lpar", data, &|state, f| state.binding.show(f));
}

fn aperture(aperture: Aperture, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:#x} {:#x}", aperture.base(), aperture.size())
}
