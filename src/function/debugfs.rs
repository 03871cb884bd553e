// SPDX-License-Identifier: GPL-2.0

//! What the driver knows about its functions, in `/sys/kernel/debug/nvlink2-vfio-pci/<function>/`.
//!
//! What each file says is in the driver's documentation (abi.rst).

use crate::function::role::Role;
use core::ffi::CStr;
use kernel::{
    debugfs::{
        Dir,
        Scope, //
    },
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Makes the folder `name` in `root`, with the files that suit `role`, for as long as that exists.
pub(crate) fn scope<'a>(
    root: &'a Dir,
    name: &'a CStr,
    role: Role,
) -> impl PinInit<Scope<Role>> + 'a {
    root.scope(role, name, |role, dir| {
        dir.read_callback_file(c"role", role, &|role, f| {
            f.write_str(match role {
                Role::Ordinary => "ordinary\n",
                Role::Gpu(_) => "gpu\n",
                Role::Bridge(_) => "bridge\n",
            })
        });
        let (binding, gate) = match role {
            Role::Ordinary => return,
            Role::Gpu(state) => {
                let ram = &state.ram;

                dir.read_callback_file(c"shootdowns", &state.binding, &|binding, f| {
                    binding.show_shootdowns(f)
                });
                dir.read_callback_file(c"mappings", &ram.registrations, &|registrations, f| {
                    registrations.show(f)
                });
                dir.read_callback_file(c"largest-page", &ram.largest_page, &|page, f| {
                    writeln!(f, "{:#x}", page.bytes())
                });
                dir.read_callback_file(c"faults", &ram.faults, &|faults, f| {
                    writeln!(
                        f,
                        "refused {}\nwaited {}",
                        faults.refused.load(Relaxed),
                        faults.waited.load(Relaxed)
                    )
                });
                (&state.binding, &ram.gate)
            }
            Role::Bridge(state) => (&state.binding, &state.gate),
        };

        dir.read_callback_file(c"lpar", binding, &|binding, f| binding.show(f));
        dir.read_callback_file(c"closed", gate, &|gate, f| gate.show(f));
    })
}
