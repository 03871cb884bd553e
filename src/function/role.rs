// SPDX-License-Identifier: GPL-2.0

//! What a function is to NVLink2.

use crate::{
    binding::gpu_binding::{
        GpuBinding,
        KvmHold,
        Opens,
        QuietGpu, //
    },
    function::{
        ids::NAME,
        shared::{
            ByAddress,
            SharedState, //
        },
    },
    linux::{
        claim::{
            self,
            Claim,
            Place,
            Refusal, //
        },
        kvm::Kvm,
        of::{
            Described,
            OfNode, //
        },
        pci,
        platform::is_powernv,
        vfio::enabled::Enabled, //
    },
    pure::{
        atsd_registers::Atsd,
        causes::Cause,
        devicetree::FirmwareFault,
        topology::{
            self,
            Bridge,
            Gpu, //
        },
    },
    regions::{
        gate::{
            Closed,
            Gate, //
        },
        gpu_ram::GpuRam, //
    },
};
use kernel::{
    device::Device,
    pci::Vendor,
    prelude::*,
    sync::Arc, //
};

/// The name of a GPU's claim in `/proc/iomem`, and in messages.
const GPU_RAM: &str = "GPU RAM";

/// The role of a function on NVLink2.
pub(crate) enum Role {
    /// The function is not on NVLink2, and works as with vfio-pci.
    Ordinary,
    Gpu(Arc<GpuState>),
    Bridge(Arc<BridgeState>),
}

/// A GPU's RAM, and the virtual machine that the GPU is bound to.
pub(crate) struct GpuState {
    /// The RAM that the region shows.
    pub(crate) ram: Arc<GpuRam>,
    /// The GPU's binding, which it shares with its bridges.
    pub(crate) binding: Arc<GpuBinding>,
}

impl GpuState {
    /// Claims the GPU's RAM, unless that was done before; logs why if that is impossible.
    pub(super) fn claim_ram(&self, device: &Device) -> Result {
        self.ram
            .claim(|| claim(device, GPU_RAM, self.ram.gpu.aperture()))
            .map(|_| ())
    }
}

/// A bridge, and the state that accesses to it depend on.
pub(crate) struct BridgeState {
    /// The link as firmware describes it.
    pub(crate) bridge: Described<Bridge>,
    /// The gate of the bridge's own registers.
    pub(crate) gate: Arc<Gate>,
    /// The gate of the RAM of the GPU behind the link, which a reset of the bridge cuts off.
    gpu_gate: Arc<Gate>,
    /// The binding of the GPU behind the link.
    pub(crate) binding: Arc<GpuBinding>,
    /// The claims of the ATSD registers of all links.
    atsds: Arc<ByAddress<Arc<Claim<Atsd>>>>,
}

impl BridgeState {
    /// Claims the ATSD registers of the link, unless that was done for another link of the GPU that
    /// has the same. [`None`]: there are none.
    pub(super) fn claim_atsd(&self, device: &Device) -> Result<Option<Arc<Claim<Atsd>>>> {
        self.bridge
            .atsd()
            .map(|atsd| {
                self.atsds
                    .or_made(atsd.address(), || claim(device, "ATSD", atsd))
            })
            .transpose()
    }

    /// Makes sure that the RAM of the GPU behind the link is not memory of the host.
    pub(super) fn ensure_gpu_unused(&self, device: &Device) -> Result {
        let aperture = self.bridge.aperture();

        claim::ensure_unused(aperture).map_err(|refusal| refuse(device, GPU_RAM, aperture, refusal))
    }
}

/// Keeps the regions closed that a reset makes unusable. It is made before the reset, and dropped
/// after it.
pub(super) struct Resetting {
    _own: Option<Closed>,
    _behind_link: Option<Closed>,
    _gpu: Option<QuietGpu>,
}

impl Role {
    /// Finds out what a function is, and says so if it is an ordinary one.
    pub(super) fn of(function: &pci::Function, shared: &SharedState) -> Result<Self> {
        // What a hypervisor says of NVLink2 in its guest's device tree is not what OPAL says.
        if !is_powernv() {
            dev_info!(
                function.device(),
                "the platform is not PowerNV (OPAL): an ordinary vfio-pci device\n"
            );
            return Ok(Self::Ordinary);
        }
        let node = OfNode::of(function);
        let found = match (&node, function.vendor()) {
            (Some(node), Vendor::NVIDIA) => node
                .gpu()
                .map(|gpu| gpu.map(|gpu| Self::gpu(gpu, node.clone(), shared))),
            (Some(node), Vendor::IBM) => node.bridge().map(|bridge| {
                bridge.map(|(bridge, fault)| {
                    if let Some(fault) = fault {
                        complain(
                            function,
                            &fault,
                            match bridge.atsd {
                                Some(_) => "the ATSD region is that of another link of its GPU",
                                None => "there is no ATSD region",
                            },
                        );
                    }
                    Self::bridge(bridge, node, shared)
                })
            }),
            _ => Ok(None),
        };

        let unconnected =
            function.vendor() == Vendor::IBM && node.as_ref().is_some_and(topology::is_unconnected);

        match found {
            Ok(Some(role)) => return role,
            Ok(None) if unconnected => dev_info!(
                function.device(),
                "NVLink2 bridge whose link is not connected: an ordinary vfio-pci device\n"
            ),
            Ok(None) => dev_info!(
                function.device(),
                "not on NVLink2: an ordinary vfio-pci device\n"
            ),
            Err(fault) => complain(
                function,
                &fault,
                "an ordinary vfio-pci device without NVLink2",
            ),
        }
        Ok(Self::Ordinary)
    }

    fn gpu(gpu: Described<Gpu>, node: OfNode, shared: &SharedState) -> Result<Self> {
        let of_gpu = shared.of_gpu(gpu.aperture.base(), node)?;
        let state = GpuState {
            ram: GpuRam::new(gpu, of_gpu.gate, of_gpu.registrations)?,
            binding: of_gpu.binding,
        };

        Ok(Self::Gpu(Arc::new(state, GFP_KERNEL)?))
    }

    fn bridge(bridge: Described<Bridge>, node: &OfNode, shared: &SharedState) -> Result<Self> {
        let gpu = topology::gpu_of(node).map_err(|_| EINVAL)?;
        let of_gpu = shared.of_gpu(bridge.aperture.base(), gpu)?;
        let state = BridgeState {
            bridge,
            gate: Arc::pin_init(Gate::new(), GFP_KERNEL)?,
            gpu_gate: of_gpu.gate,
            binding: of_gpu.binding,
            atsds: shared.atsds.clone(),
        };

        Ok(Self::Bridge(Arc::new(state, GFP_KERNEL)?))
    }

    /// Returns the gate of the region that the function itself has.
    pub(super) fn own_gate(&self) -> Option<&Arc<Gate>> {
        match self {
            Self::Ordinary => None,
            Self::Gpu(state) => Some(&state.ram.gate),
            Self::Bridge(state) => Some(&state.gate),
        }
    }

    /// Binds the GPU to the virtual machine that the function is opened for, if there is one.
    pub(super) fn bind(&self, enabled: &Enabled<'_>) -> Result<KvmHold> {
        let (binding, opens) = match self {
            Self::Ordinary => return Ok(KvmHold::default()),
            Self::Gpu(state) => (&state.binding, Opens::Gpu),
            Self::Bridge(state) => (&state.binding, Opens::Bridge(&state.gate)),
        };

        GpuBinding::open(binding, enabled.core(), Kvm::of(enabled)?, opens)
    }

    /// Closes what a reset of the function makes unusable.
    pub(super) fn close_for_reset(&self) -> Resetting {
        let close = |gate: &Arc<Gate>, cause| Some(Closed::new(gate.clone(), cause));
        let (own, behind_link, gpu) = match self {
            Self::Ordinary => (None, None, None),
            Self::Gpu(state) => (
                close(&state.ram.gate, Cause::Reset),
                None,
                Some(GpuBinding::reset_begins(&state.binding)),
            ),
            Self::Bridge(state) => (
                close(&state.gate, Cause::Reset),
                close(&state.gpu_gate, Cause::LinkReset),
                None,
            ),
        };

        Resetting {
            _own: own,
            _behind_link: behind_link,
            _gpu: gpu,
        }
    }
}

/// Claims the addresses that firmware describes, or logs why that is impossible.
fn claim<T: Place>(device: &Device, what: &str, place: Described<T>) -> Result<Arc<Claim<T>>> {
    let name = device.name();

    Claim::new(place, fmt!("{} {name} {what}", NAME))
        .map_err(|refusal| refuse(device, what, place, refusal))
}

/// Logs why the addresses that firmware describes cannot be used.
fn refuse<T: Place>(device: &Device, what: &str, place: Described<T>, refusal: Refusal) -> Error {
    dev_warn!(
        device,
        "{what} at {:#x} cannot be used: {}\n",
        place.base(),
        format_args!("{refusal}")
    );
    refusal.into()
}

/// Logs what firmware got wrong, what follows, and what to do.
fn complain(function: &pci::Function, fault: &FirmwareFault<OfNode>, consequence: &str) {
    dev_err!(
        function.device(),
        "{}: {consequence}, update or fix the OPAL firmware\n",
        format_args!("{fault}")
    );
}
