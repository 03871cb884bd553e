// SPDX-License-Identifier: GPL-2.0

//! The life of one PCI function that the driver is bound to.

use crate::{
    atsd::AtsdRegion,
    debug::Files,
    driver::{
        Shared,
        ID_TABLE, //
    },
    gate::{
        Attached,
        Closed,
        Gate, //
    },
    gpu_ram::{
        GpuRam,
        Reported, //
    },
    linux::{
        driver::Driver,
        kvm::{
            Kvm,
            KvmNotifier, //
        },
        of::OfNode,
        pci::{
            self,
            OverrideId, //
        },
        vfio::{
            Core,
            Enabled,
            FIRST_REGION, //
        },
    },
    lpar::{
        Attended,
        Hold,
        Lpar, //
    },
    pure::{
        devicetree::Fault,
        gate::{
            Cause,
            Spanning, //
        },
        topology::{
            self,
            Bridge,
            Gpu, //
        },
    },
};
use core::ffi::CStr;
use kernel::{
    current,
    device::Device,
    device_id::IdTable,
    new_mutex,
    pci::Vendor,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// What a function is to NVLink2.
pub(crate) enum Role {
    /// Nothing: it works as with vfio-pci.
    Ordinary,
    Gpu(Arc<GpuState>),
    Bridge(Arc<BridgeState>),
}

/// A GPU's RAM, and whose addresses it translates.
pub(crate) struct GpuState {
    /// What the region shows.
    pub(crate) ram: Arc<GpuRam>,
    /// What it is bound to; shared with the bridges of the GPU.
    pub(crate) lpar: Arc<Lpar>,
}

/// A bridge and what accesses to it depend on.
pub(crate) struct BridgeState {
    /// As firmware describes it.
    pub(crate) bridge: Bridge,
    /// Of its own registers.
    pub(crate) gate: Arc<Gate>,
    /// Of the RAM of the GPU behind the link, which a reset of the bridge cuts off.
    gpu_gate: Arc<Gate>,
    /// Of the GPU behind the link.
    pub(crate) lpar: Arc<Lpar>,
}

/// A function that the driver is bound to.
#[pin_data]
pub(crate) struct Function {
    role: Role,
    _files: Files,
    /// While it is open for a virtual machine: its share of the GPU's binding.
    #[pin]
    hold: Mutex<Option<Hold>>,
    /// While it is open.
    #[pin]
    opened: Mutex<Option<Opened>>,
    /// While it is being reset. It outlives a close, as the reset may.
    // Taken inside of `memory_lock`, and outside of a `Gate`'s.
    #[pin]
    resetting: Mutex<Spanning<Resetting>>,
    /// Of a GPU, until it is unbound from the driver.
    #[pin]
    attended: Mutex<Option<Attended>>,
}

/// What ends with the device's last user.
struct Opened {
    _attached: Option<Attached>,
    /// Of a GPU.
    _reported: Option<Pin<KBox<Reported>>>,
}

/// What a reset makes inaccessible is so, as long as this exists.
struct Resetting {
    _own: Option<Closed<Arc<Gate>>>,
    _behind_link: Option<Closed<Arc<Gate>>>,
}

impl Role {
    /// Finds out what a function is, and says so if it is an ordinary one.
    fn of(function: &pci::Function, shared: &Shared) -> Result<Self> {
        let found = match (OfNode::of(function), function.vendor()) {
            (Some(node), Vendor::NVIDIA) => {
                topology::gpu(&node).map(|gpu| gpu.map(|gpu| Self::gpu(gpu, node, shared)))
            }
            (Some(node), Vendor::IBM) => topology::bridge(&node).map(|bridge| {
                bridge.map(|(bridge, fault)| {
                    if let Some(fault) = fault {
                        complain(function, &fault, "there is no ATSD region");
                    }
                    Self::bridge(bridge, &node, shared)
                })
            }),
            _ => Ok(None),
        };

        match found {
            Ok(Some(role)) => role,
            Ok(None) => {
                dev_info!(
                    function.device(),
                    "not on NVLink2: an ordinary vfio-pci device\n"
                );
                Ok(Self::Ordinary)
            }
            Err(fault) => {
                complain(
                    function,
                    &fault,
                    "an ordinary vfio-pci device without NVLink2",
                );
                Ok(Self::Ordinary)
            }
        }
    }

    fn gpu(gpu: Gpu, node: OfNode, shared: &Shared) -> Result<Self> {
        let base = gpu.aperture.base();
        let state = GpuState {
            ram: GpuRam::new(gpu, shared.gates.of(base, Gate::new())?)?,
            lpar: shared.lpars.of(base, Lpar::new(node))?,
        };

        Ok(Self::Gpu(Arc::new(state, GFP_KERNEL)?))
    }

    fn bridge(bridge: Bridge, node: &OfNode, shared: &Shared) -> Result<Self> {
        let base = bridge.aperture.base();
        let gpu = topology::gpu_of(node).map_err(|_| EINVAL)?;
        let state = BridgeState {
            bridge,
            gate: Arc::pin_init(Gate::new(), GFP_KERNEL)?,
            gpu_gate: shared.gates.of(base, Gate::new())?,
            lpar: shared.lpars.of(base, Lpar::new(gpu))?,
        };

        Ok(Self::Bridge(Arc::new(state, GFP_KERNEL)?))
    }

    /// Returns the gate of the region that the function itself has.
    fn own_gate(&self) -> Option<&Arc<Gate>> {
        match self {
            Self::Ordinary => None,
            Self::Gpu(state) => Some(&state.ram.gate),
            Self::Bridge(state) => Some(&state.gate),
        }
    }

    fn lpar(&self) -> Option<&Arc<Lpar>> {
        match self {
            Self::Ordinary => None,
            Self::Gpu(state) => Some(&state.lpar),
            Self::Bridge(state) => Some(&state.lpar),
        }
    }

    /// Returns the gate of what may be accessed only while the GPU is bound.
    fn bound_gate(&self) -> Option<&Arc<Gate>> {
        match self {
            Self::Ordinary | Self::Gpu(_) => None,
            Self::Bridge(state) => Some(&state.gate),
        }
    }

    /// Returns the gate of what is reached through the function.
    fn gate_behind_link(&self) -> Option<&Arc<Gate>> {
        match self {
            Self::Bridge(state) => Some(&state.gpu_gate),
            Self::Ordinary | Self::Gpu(_) => None,
        }
    }

    /// Closes what a reset of the function makes unusable.
    fn close_for_reset(&self) -> Resetting {
        let close = |gate: &Arc<Gate>, cause| Closed::new(gate.clone(), cause);

        Resetting {
            _own: self.own_gate().map(|gate| close(gate, Cause::Reset)),
            _behind_link: self
                .gate_behind_link()
                .map(|gate| close(gate, Cause::LinkReset)),
        }
    }
}

/// Tells what firmware got wrong, what follows, and what to do.
fn complain(function: &pci::Function, fault: &Fault<OfNode>, consequence: &str) {
    dev_err!(
        function.device(),
        "{}: {consequence}, update or fix the OPAL firmware\n",
        format_args!("{fault}")
    );
}

impl Driver for Function {
    const NAME: &'static CStr = c"nvlink2-vfio-pci";
    const IDS: &'static dyn IdTable<OverrideId, ()> = ID_TABLE;

    type Shared = Shared;

    type Disabling<'a> = Option<Closed<&'a Gate>>;

    fn shared() -> Result<Shared> {
        Shared::new()
    }

    fn probe(function: &pci::Function, shared: &Shared) -> Result<Arc<Self>> {
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
        let files = Files::new(&shared.debugfs, function.name(), &role)?;
        let attended = match &role {
            Role::Gpu(state) => Some(Lpar::attend(&state.lpar)),
            Role::Ordinary | Role::Bridge(_) => None,
        };

        Arc::pin_init(
            pin_init!(Self {
                role,
                _files: files,
                hold <- new_mutex!(None),
                opened <- new_mutex!(None),
                resetting <- new_mutex!(Spanning::new()),
                attended <- new_mutex!(attended),
            }),
            GFP_KERNEL,
        )
    }

    fn remove(&self, device: &Device) {
        let Role::Gpu(state) = &self.role else {
            return;
        };
        let mut seconds = 0u32;

        // Its bridges may still be open. If it is unplugged now the kernel unmaps behind our back.
        let attended = self.attended.lock().take();

        drop(attended);
        while state.ram.ledger.settle() != 0 {
            if seconds % 10 == 0 {
                dev_warn!(
                    device,
                    "GPU RAM is mapped for DMA by a former user, waiting for it to end\n"
                );
            }
            fsleep(Delta::from_secs(1));
            seconds = seconds.wrapping_add(1);
        }
    }

    fn open(&self, enabled: &Enabled<'_>) -> Result {
        let core = enabled.core();
        let bound = matches!(*self.hold.lock(), Some(Hold::Bound(_)));

        if let Some(lpar) = self.role.lpar().filter(|_| !bound) {
            lpar.settle()?;
        }
        let reported = match &self.role {
            Role::Ordinary => None,
            Role::Gpu(state) => {
                let ram = &state.ram;

                if ram.ledger.is_held_by_other(current!().mm().map(|mm| &**mm)) {
                    dev_warn!(
                        core.device(),
                        "GPU RAM is still mapped for DMA by a former user\n"
                    );
                    return Err(EBUSY);
                }
                enabled.register(ram.clone())?;
                ram.report(core)?
            }
            Role::Bridge(state) => {
                if let Some(atsd) = state.bridge.atsd.filter(|_| bound) {
                    let region = AtsdRegion::new(state.bridge, atsd, state.gate.clone())?;

                    enabled.register(region)?;
                }
                None
            }
        };

        // Last: nothing fails behind it.
        *self.opened.lock() = Some(Opened {
            _attached: self.role.own_gate().map(|gate| Gate::attach(gate, core)),
            _reported: reported,
        });
        Ok(())
    }

    // The binding, if any, lasts until `clear_kvm`.
    fn close(&self, _core: &Core) {
        let opened = self.opened.lock().take();

        // Not under the lock: dropping an inode may sleep for long.
        drop(opened);
    }

    fn largest_page(&self, index: u64) -> Option<u64> {
        match &self.role {
            Role::Gpu(state) if index == FIRST_REGION.into() => state.ram.largest_page.bytes(),
            _ => None,
        }
    }

    fn reset_prepare(&self) {
        self.resetting.lock().begin(|| self.role.close_for_reset());
    }

    fn reset_done(&self) {
        let over = self.resetting.lock().end();

        drop(over);
    }

    fn disabling(&self) -> Self::Disabling<'_> {
        match &self.role {
            Role::Gpu(state) => Some(Closed::new(&*state.ram.gate, Cause::Disabling)),
            // ATSD registers depend neither on power nor on decoding.
            Role::Ordinary | Role::Bridge(_) => None,
        }
    }
}

impl KvmNotifier for Function {
    fn set_kvm(&self, core: &Core, kvm: Option<Kvm>) -> Result {
        let hold = match (&self.role, self.role.lpar(), kvm) {
            (_, Some(lpar), Some(kvm)) => {
                Hold::Bound(Lpar::bind(lpar, core, kvm, self.role.bound_gate())?)
            }
            (Role::Gpu(_), Some(lpar), None) => Hold::Unbound(Lpar::keep_unbound(lpar, core)?),
            _ => return Ok(()),
        };

        *self.hold.lock() = Some(hold);
        Ok(())
    }

    fn clear_kvm(&self) {
        let hold = self.hold.lock().take();

        // Not under the lock: it may end a virtual machine.
        drop(hold);
    }
}
