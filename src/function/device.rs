// SPDX-License-Identifier: GPL-2.0

//! The life of one PCI function that the driver is bound to.

use crate::{
    binding::gpu_binding::{
        GpuBinding,
        GpuPresence,
        KvmHold, //
    },
    function::{
        debugfs,
        ids,
        role::{
            Resetting,
            Role, //
        },
        shared::SharedState, //
    },
    linux::{
        mm::pfn_address_space::PfnSpaceRegistration,
        pci::{
            self,
            Awake,
            OverrideId, //
        },
        process::Process,
        vfio::{
            core::{
                Core,
                FIRST_REGION, //
            },
            driver::Driver,
            enabled::Enabled, //
        },
    },
    pure::causes::Spanning,
    regions::{
        atsd_page::AtsdRegion,
        gate::{
            Attached,
            Gate, //
        },
        gpu_ram::RamMapping, //
    },
};
use core::ffi::CStr;
use kernel::{
    current,
    debugfs::Scope,
    device::Device,
    device_id::IdTable,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// A function that the driver is bound to.
#[pin_data]
pub(crate) struct Nvlink2Device {
    /// With its files in debugfs.
    #[pin]
    role: Scope<Role>,
    /// The state of the open device.
    #[pin]
    opened: Mutex<Option<Opened>>,
    /// What a reset keeps closed. It outlives a close of the device, as the reset may.
    // Taken inside of `memory_lock`, and outside of a `Gate`'s.
    #[pin]
    resetting: Mutex<Spanning<Resetting>>,
    /// A GPU's presence for its bridges, until the driver is unbound from it.
    #[pin]
    presence: Mutex<Option<GpuPresence>>,
    /// Keeps a GPU awake as long as its RAM could not be claimed: it may be the host's memory.
    #[pin]
    awake: Mutex<Option<Awake>>,
}

/// The state of an open device.
struct Opened {
    /// The process that opened it first.
    process: Process,
    _attached: Option<Attached>,
    /// Tells the kernel who maps a GPU's RAM.
    _reported: Option<Pin<KBox<PfnSpaceRegistration<RamMapping>>>>,
    /// The device's share of the GPU's binding. It lasts until the device was closed.
    hold: KvmHold,
}

impl Driver for Nvlink2Device {
    const NAME: &'static CStr = ids::NAME;
    const IDS: &'static dyn IdTable<OverrideId, ()> = ids::ID_TABLE;

    type Shared = SharedState;
    type Closing = Option<KvmHold>;

    fn shared() -> Result<SharedState> {
        SharedState::new(Self::NAME)
    }

    fn probe(function: &pci::Function, shared: &SharedState) -> Result<Arc<Self>> {
        let role = Role::of(function, shared)?;

        match &role {
            Role::Ordinary => {}
            Role::Gpu(state) => dev_info!(
                function.device(),
                "GPU with {} NVLink2 links, RAM at {:#x}, tgt {:#x}\n",
                state.ram.gpu.links().len(),
                state.ram.gpu.aperture.base(),
                state.ram.gpu.tgt
            ),
            Role::Bridge(state) => dev_info!(
                function.device(),
                "NVLink2 bridge of link {}, tgt {:#x}\n",
                state.bridge.link,
                state.bridge.tgt
            ),
        }
        let awake = match &role {
            // What it takes can be done until the GPU is opened.
            Role::Gpu(state) if state.claim_ram(function.device()).is_err() => {
                Some(Awake::new(function))
            }
            _ => None,
        };
        let presence = match &role {
            Role::Gpu(state) => Some(GpuBinding::appear(&state.binding)),
            Role::Ordinary | Role::Bridge(_) => None,
        };

        Arc::pin_init(
            pin_init!(Self {
                role <- debugfs::scope(&shared.debugfs, function.name(), role),
                opened <- new_mutex!(None),
                resetting <- new_mutex!(Spanning::new()),
                presence <- new_mutex!(presence),
                awake <- new_mutex!(awake),
            }),
            GFP_KERNEL,
        )
    }

    fn remove(&self, device: &Device) {
        let Role::Gpu(state) = &*self.role else {
            return;
        };
        // Its bridges may still be open.
        self.shutdown();
        // The module stays for it, and does not let others open the GPU. Another driver would.
        if let Some(process) = state.ram.registrations.former_user() {
            dev_warn!(
                device,
                "GPU RAM is still mapped for DMA by {}: end it before another driver gets the GPU\n",
                format_args!("{process}")
            );
        }
    }

    // What the GPU knows of its user's memory it would go on to use under the next kernel.
    fn shutdown(&self) {
        let presence = self.presence.lock().take();

        drop(presence);
    }

    fn requested(&self, device: &Device) {
        if let Some(opened) = &*self.opened.lock() {
            dev_warn!(
                device,
                "unbinding waits for {} to close the device\n",
                format_args!("{}", opened.process)
            );
        }
    }

    fn before_open(&self, core: &Core) -> Result {
        match &*self.role {
            Role::Ordinary => {}
            Role::Gpu(state) => {
                state.claim_ram(core.device())?;
                drop(self.awake.lock().take());
                state.binding.before_open();
            }
            // Its reset cuts the GPU off.
            Role::Bridge(state) => {
                state.ensure_gpu_unused(core.device())?;
            }
        }
        Ok(())
    }

    fn open(&self, enabled: &Enabled<'_>) -> Result {
        let core = enabled.core();
        let hold = self.role.bind(enabled)?;
        let reported = match &*self.role {
            Role::Ordinary => None,
            Role::Gpu(state) => {
                let ram = &state.ram;

                if !core.was_reset() {
                    dev_err!(
                        core.device(),
                        "not opened: it could not be reset, and may know memory of its last user\n"
                    );
                    return Err(EIO);
                }
                if let Some(process) = ram
                    .registrations
                    .other_user(current!().mm().map(|mm| &**mm))
                {
                    dev_warn!(
                        core.device(),
                        "GPU RAM is still mapped for DMA by {}: not opened\n",
                        format_args!("{process}")
                    );
                    return Err(EBUSY);
                }
                enabled.register(ram.clone())?;
                ram.report(core)?
            }
            Role::Bridge(state) => {
                if hold.is_bound() {
                    if let Some(claim) = state.claim_atsd(core.device())? {
                        let region = AtsdRegion::new(*state.bridge, claim, state.gate.clone())?;

                        enabled.register(region)?;
                    }
                }
                None
            }
        };

        // Last: nothing fails behind it.
        *self.opened.lock() = Some(Opened {
            process: Process::current(),
            _attached: self.role.own_gate().map(|gate| Gate::attach(gate, core)),
            _reported: reported,
            hold,
        });
        Ok(())
    }

    // The binding lasts until the device was closed, but for the GPU's own share: what the GPU
    // knows can't be shot down any more once its links are down.
    fn close(&self) -> Option<KvmHold> {
        // Not dropped under the lock: it may end a virtual machine, and an inode sleeps for long.
        let opened = self.opened.lock().take()?;

        Some(opened.hold.before_reset())
    }

    fn largest_page(&self, index: u64) -> Option<u64> {
        match &*self.role {
            Role::Gpu(state) if index == FIRST_REGION.into() => {
                Some(state.ram.largest_page_or_tce())
            }
            _ => None,
        }
    }

    fn reset_prepare(&self) {
        self.resetting.lock().begin(|| self.role.close_for_reset());
    }

    fn reset_done(&self) {
        // Under the lock: otherwise a reset that begins meanwhile makes the GPU quiet, and this
        // ends that.
        drop(self.resetting.lock().end());
    }
}
