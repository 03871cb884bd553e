// SPDX-License-Identifier: GPL-2.0

//! Which guest's addresses a GPU may translate.
//!
//! - LPAR, LPID: a guest's logical partition, and its number. KVM gives numbers out again.
//! - NPU: has one entry per GPU that says for which LPID it translates, and an LPID for the ATSD
//!   registers of each link.
//! - ATSD: the registers by which a guest has the GPU drop translations.
//!
//! A GPU is bound to the LPAR of the virtual machine that it, or one of its bridges, is first
//! opened for, and until the last device that was opened for it is closed, the GPU leaves this
//! driver, or the machine loses all its memory. As long as the NPU may know an LPID a reference to
//! the machine keeps KVM from giving it to another.
//!
//! A GPU that is open is bound by that open or not at all, and can't be opened without a virtual
//! machine while it is bound through a bridge: it keeps translations until it is reset, which
//! closing it does, and they must not outlive a binding. Its share ends before that reset, while
//! it can still be told to forget, and nobody binds it again before the reset is over.
//!
//! A GPU that does not forget what the machine lost loses its binding: the NPU has ceased to
//! translate for it by then. What it knows it may go on to use, without asking the NPU: it is
//! reset, as is one whose links are down when the machine loses all its memory, before that is
//! freed.
//!
//! Should firmware fail to take an LPID back, the reference is retained with it, at most one per
//! GPU, and nobody can open the GPU or its bridges (EIO) until firmware has: every open tries
//! again.
//!
//! Lock order: the state of a [`GpuBinding`] is taken inside of the locks that VFIO holds to open
//! and close a device, and outside of the mmap lock (beginning to watch a machine's memory takes
//! that) and of a [`Gate`]'s.

use crate::{
    binding::{
        lpar_mapping::{
            self,
            LparMapping, //
        },
        translator::{
            Translator,
            Translators, //
        },
        vm_watch::{
            BoundVm,
            Owner,
            Translations,
            VmWatches, //
        },
    },
    linux::{
        kvm::Kvm,
        npu::GpuFunction,
        of::OfNode,
        vfio::core::Core,
        workqueue::{
            Retry,
            Retrying, //
        },
    },
    pure::{
        causes::Cause,
        lpid::Lpid,
        shared_value::{
            Left,
            Share,
            SharedValue, //
        },
        xts::Links,
    },
    regions::gate::{
        Closed,
        Gate, //
    },
};
use kernel::{
    fmt,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex,
        SetOnce, //
    }, //
};

/// What a guest may access only while the GPU is bound for it.
struct Gated {
    gate: Arc<Gate>,
    revoked: Option<Closed>,
}

impl Gated {
    fn revoke(&mut self) {
        self.revoked
            .get_or_insert_with(|| Closed::new(self.gate.clone(), Cause::Revoked));
    }
}

struct BindingState {
    binding: SharedValue<LparMapping>,
    /// How often this driver has the GPU itself: it may not be bound while that is 0.
    gpus: usize,
    /// The GPU is open, or is being reset as it was closed.
    open: bool,
    /// A machine whose memory went while the GPU was bound to it, until there is an occasion to
    /// drop it.
    departed: Option<BoundVm>,
    /// Of the devices that have a share in it, or had one when it was revoked.
    gates: KVec<Gated>,
}

/// What a binding that ended leaves.
#[derive(Default)]
struct Ended {
    /// Not to be dropped under the lock.
    vm: Option<BoundVm>,
    /// The GPU may know addresses of the machine.
    untold: bool,
}

impl BindingState {
    /// Ends a binding, or retains it.
    fn end(&mut self, binding: LparMapping) -> Ended {
        // Others may have been held up by the shootdown.
        if let Some(translations) = binding.translations() {
            translations.schedule();
        }
        match binding.end() {
            Ok((vm, told)) => Ended { vm, untold: !told },
            Err(binding) => {
                self.binding.retain(binding);
                Ended {
                    vm: None,
                    untold: true,
                }
            }
        }
    }

    /// Makes sure that the NPU knows no LPID of a former user.
    ///
    /// EIO: firmware still fails.
    fn settle(&mut self) -> Result<Ended> {
        let ended = self
            .binding
            .take_retained()
            .map(|binding| self.end(binding))
            .unwrap_or_default();

        if self.binding.retained().is_some() {
            return Err(EIO);
        }
        Ok(ended)
    }

    /// Finds the GPU for a binding. What is wrong is in the kernel log.
    fn gpu_for(&self, core: &Core, node: &OfNode, lpid: Lpid) -> Result<GpuFunction> {
        let Some(gpu) = GpuFunction::at(node) else {
            dev_err!(
                core.device(),
                "LPID {} not bound: no PCI function is at the GPU's node {}, rescan the bus\n",
                lpid.get(),
                format_args!("{node}")
            );
            return Err(ENODEV);
        };

        if self.gpus == 0 {
            dev_err!(
                core.device(),
                "LPID {} not bound: nvlink2-vfio-pci does not have the GPU {}, bind it first, or \
                 see what the driver said of its firmware\n",
                lpid.get(),
                gpu.name()
            );
            return Err(ENODEV);
        }
        Ok(gpu)
    }

    /// Ends the binding, whoever shares it, and access to what needs it.
    fn revoke(&mut self) -> Option<Ended> {
        let binding = self.binding.revoke()?;

        for gated in &mut *self.gates {
            gated.revoke();
        }
        Some(self.end(binding))
    }

    /// The same, where to drop the machine is to wait for the caller. Returns whether the GPU may
    /// know addresses of it.
    fn part(&mut self) -> bool {
        // If it was retained it is tried once more, now that it matters most.
        let ended = match self.revoke() {
            Some(ended) => ended,
            None => self.settle().unwrap_or_default(),
        };

        if ended.vm.is_some() {
            self.departed = ended.vm;
        }
        ended.untold
    }

    /// Whether `translations` are of the machine that the NPU may know.
    fn concerns(&self, translations: &Translations) -> bool {
        self.binding
            .held()
            .or(self.binding.retained())
            .is_some_and(|binding| binding.has(translations))
    }
}

/// What a GPU is bound to, and the work of having the GPU forget what it could not be told yet.
pub(crate) type GpuBinding = Retrying<Binding>;

/// What a GPU is bound to.
#[pin_data]
pub(crate) struct Binding {
    /// The GPU's.
    node: OfNode,
    /// Of all GPUs.
    watches: Arc<VmWatches>,
    /// Of all NPUs.
    translators: Arc<Translators>,
    /// Of the GPU's, which stays the same, once it was bound.
    translator: SetOnce<Arc<Translator>>,
    #[pin]
    state: Mutex<BindingState>,
    /// Taken for a reset of the GPU by [`Binding::reset`].
    // Outside of what VFIO and the PCI core take for a reset, but for what VFIO holds to open and
    // close a device.
    #[pin]
    resetting: Mutex<()>,
}

impl GpuBinding {
    /// The GPU that `node` describes, bound to nothing; whose memory is watched for it is in
    /// `watches`.
    pub(crate) fn of(
        node: OfNode,
        watches: Arc<VmWatches>,
        translators: Arc<Translators>,
    ) -> impl PinInit<Self> {
        Self::new(pin_init!(Binding {
            node,
            watches,
            translators,
            translator: SetOnce::new(),
            state <- new_mutex!(BindingState {
                binding: SharedValue::new(),
                gpus: 0,
                open: false,
                departed: None,
                gates: KVec::new(),
            }),
            resetting <- new_mutex!(()),
        }))
    }

    /// `core` is being opened for `kvm`, or for no virtual machine. EIO: the NPU still knows the
    /// LPID of a former user.
    pub(crate) fn open(
        this: &Arc<Self>,
        core: &Core,
        kvm: Option<Kvm>,
        opens: Opens<'_>,
    ) -> Result<KvmHold> {
        match kvm {
            Some(kvm) => Self::bind(this, core, kvm, opens),
            None => Self::stay_unbound(this, core, opens),
        }
    }

    /// Waits until the GPU can be reset, as it is when it is opened.
    pub(crate) fn before_open(&self) {
        drop(self.resetting.lock());
    }

    /// Binds the GPU to the LPAR of `kvm`, or shares the binding to it.
    ///
    /// EBUSY: it is bound to another machine's, or open without a binding. EOPNOTSUPP: the machine
    /// has no LPID that the NPU can be told, or firmware has no calls for it. ENODEV: the GPU is
    /// not plugged in, or has another driver. ESRCH: the machine's process is gone. ENXIO: firmware
    /// does not tell where the NPU's registers are, or leaves none to the host. EIO: firmware
    /// failed, now or at the end of the last binding. ENOSPC: the NPU's table is full. EINTR: a
    /// signal came.
    fn bind(this: &Arc<Self>, core: &Core, kvm: Kvm, opens: Opens<'_>) -> Result<KvmHold> {
        let lpid = Lpid::of(kvm.guest()).map_err(|unfit| {
            dev_err!(
                core.device(),
                "no LPAR is bound: {}\n",
                format_args!("{unfit}")
            );
            EOPNOTSUPP
        })?;
        let mm = kvm.mm().ok_or_else(|| {
            dev_err!(
                core.device(),
                "LPID {} not bound: the process whose memory the virtual machine has is gone\n",
                lpid.get()
            );
            ESRCH
        })?;
        // Declared first, so that they are dropped after the lock.
        let (_former, _departed, _failed, _surplus);
        let mut state = this.state.lock();

        _departed = state.departed.take();
        _former = state.settle()?;
        state.gates.reserve(1, GFP_KERNEL)?;
        let share = match state.binding.held() {
            None if state.open => {
                dev_err!(
                    core.device(),
                    "LPID {} not bound: the GPU is open without a virtual machine, or lost the one \
                     that it was opened for, close it first\n",
                    lpid.get()
                );
                return Err(EBUSY);
            }
            None => {
                let gpu = state.gpu_for(core, &this.node, lpid)?;
                let name = CString::try_from(gpu.name())?;
                let translator = this
                    .translator(&gpu)
                    .inspect_err(|error| lpar_mapping::complain(&gpu, lpid, *error))?;
                let vm = BoundVm::new(
                    kvm,
                    &mm,
                    translator.clone(),
                    lpid,
                    &this.watches,
                    this.clone(),
                )?;
                let binding = match LparMapping::new(
                    &gpu,
                    this.node.clone(),
                    name,
                    this.links(),
                    translator,
                    vm,
                    lpid,
                ) {
                    Ok(binding) => binding,
                    Err((error, vm)) => {
                        _failed = vm;
                        return Err(error);
                    }
                };

                match state.binding.begin(binding) {
                    Ok(share) => share,
                    Err(binding) => {
                        _surplus = binding;
                        return Err(EBUSY);
                    }
                }
            }
            Some(binding) if binding.is_to(&kvm) => state.binding.join().ok_or(EBUSY)?,
            Some(binding) => {
                dev_err!(
                    core.device(),
                    "GPU {} is bound to LPID {}, not to LPID {} of this virtual machine: close the \
                     GPU and its bridges first\n",
                    binding.name(),
                    binding.lpid().get(),
                    lpid.get()
                );
                return Err(EBUSY);
            }
        };

        let (gate, open) = match opens {
            Opens::Gpu => (None, Some(GpuOpen::new(this, &mut state))),
            Opens::Bridge(gate) => {
                // There is room for it.
                let _ = state.gates.push_within_capacity(Gated {
                    gate: gate.clone(),
                    revoked: None,
                });
                (Some(gate.clone()), None)
            }
        };

        Ok(KvmHold {
            bound: Some(Bound {
                binding: this.clone(),
                share,
                gate,
            }),
            open,
        })
    }

    /// EBUSY: it is the GPU, which is bound through a bridge.
    fn stay_unbound(this: &Arc<Self>, core: &Core, opens: Opens<'_>) -> Result<KvmHold> {
        // Declared first, so that it is dropped after the lock.
        let _former;
        let mut state = this.state.lock();

        _former = state.settle()?;
        if matches!(opens, Opens::Bridge(_)) {
            return Ok(KvmHold::default());
        }
        if let Some(binding) = state.binding.held() {
            dev_err!(
                core.device(),
                "bound to LPID {} through a bridge: close the bridges, or open the GPU for the \
                 same virtual machine\n",
                binding.lpid().get()
            );
            return Err(EBUSY);
        }
        Ok(KvmHold {
            bound: None,
            open: Some(GpuOpen::new(this, &mut state)),
        })
    }

    /// The GPU is about to be reset.
    pub(crate) fn reset_begins(this: &Arc<Self>) -> QuietGpu {
        this.set_quiet(true);
        QuietGpu(this.clone())
    }

    fn set_quiet(&self, quiet: bool) {
        if let (Some(gpu), Some(known)) = (GpuFunction::at(&self.node), self.translator.as_ref()) {
            known.set_quiet(gpu.bdfn(), quiet);
            self.schedule();
        }
    }

    /// Finds what translates for the GPU. Errors are those of [`GpuFunction::npu`].
    fn translator(&self, gpu: &GpuFunction) -> Result<Arc<Translator>> {
        if let Some(known) = self.translator.as_ref() {
            return Ok(known.clone());
        }
        let found = self.translators.of(gpu)?;

        // The state is locked: nobody else does that.
        self.translator.populate(found.clone());
        Ok(found)
    }

    /// Returns the GPU's links.
    fn links(&self) -> Links {
        match self.node.gpu() {
            Ok(Some(gpu)) => Links::of(gpu.links()),
            _ => Links::of(&[]),
        }
    }

    /// This driver has the GPU from now on.
    pub(crate) fn appear(this: &Arc<Self>) -> GpuPresence {
        let mut state = this.state.lock();

        state.gpus = state.gpus.saturating_add(1);
        GpuPresence(this.clone())
    }

    /// Gives up what firmware still has not taken back: the module goes.
    pub(crate) fn abandon(&self) {
        let (binding, departed) = {
            let mut state = self.state.lock();

            (state.binding.take_retained(), state.departed.take())
        };

        drop((binding, departed));
    }

    /// Writes the LPID, `none`, or the LPID and `retained`.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();

        match (state.binding.held(), state.binding.retained()) {
            (Some(binding), _) => writeln!(f, "{}", binding.lpid().get()),
            (None, Some(binding)) => writeln!(f, "{} retained", binding.lpid().get()),
            (None, None) => writeln!(f, "none"),
        }
    }

    /// Writes what shootdowns there were for the machine, or `none`.
    pub(crate) fn show_shootdowns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();

        match state.binding.held().and_then(LparMapping::translations) {
            Some(translations) => translations.show(f),
            None => writeln!(f, "none"),
        }
    }
}

impl Owner for GpuBinding {
    /// Ends the binding, whoever shares it.
    fn memory_goes(&self, translations: &Translations) {
        let untold = {
            let mut state = self.state.lock();

            state.concerns(translations) && state.part()
        };

        if untold {
            self.reset();
        }
    }

    fn shootdown_is_owed(&self) {
        self.schedule();
    }
}

impl Binding {
    /// Has the GPU forget addresses of a machine, of which it could not be told.
    fn reset(&self) {
        let Some(gpu) = GpuFunction::at(&self.node) else {
            return;
        };

        let _resetting = self.resetting.lock();

        match gpu.try_reset() {
            Ok(()) => dev_info!(
                gpu.device(),
                "reset, as it could not be told to forget memory of a virtual machine\n"
            ),
            Err(error) => dev_err!(
                gpu.device(),
                "it could not be told to forget memory of a virtual machine, nor be reset (errno \
                 {}): close the GPU and its bridges\n",
                -error.to_errno()
            ),
        }
    }
}

impl Retry for Binding {
    const DELAY_MS: u32 = 10;

    /// Has the GPU told what it is owed. If it does not answer the binding ends, whoever shares it.
    fn retry(&self) -> bool {
        let (Some(gpu), Some(known)) = (GpuFunction::at(&self.node), self.translator.as_ref())
        else {
            return false;
        };
        let untold = {
            let mut state = self.state.lock();

            match known.pay(gpu.bdfn()) {
                Err(ETIMEDOUT) => state.part(),
                result => return result == Err(EAGAIN),
            }
        };

        dev_err!(
            gpu.device(),
            "it does not confirm that it dropped translations of memory that its virtual machine \
             lost: nothing is translated for it any more, the binding ends, close the GPU and its \
             bridges\n"
        );
        if untold {
            self.reset();
        }
        false
    }
}

/// As long as it exists the GPU may be bound. When it is dropped, any binding ends, whoever shares
/// it: ATSD registers are out of reach until their bridges are opened again.
pub(crate) struct GpuPresence(Arc<GpuBinding>);

impl Drop for GpuPresence {
    fn drop(&mut self) {
        let ended = {
            let mut state = self.0.state.lock();

            state.gpus = state.gpus.saturating_sub(1);
            if state.gpus == 0 {
                state.revoke()
            } else {
                None
            }
        };

        drop(ended);
    }
}

/// Which device of a binding is opened.
pub(crate) enum Opens<'a> {
    /// The GPU itself.
    Gpu,
    /// A bridge, which has the gate of what may be accessed only while the GPU is bound.
    Bridge(&'a Arc<Gate>),
}

/// What an open device has to do with the binding of its GPU: nothing, if it was opened without a
/// virtual machine and is not the GPU.
#[derive(Default)]
pub(crate) struct KvmHold {
    bound: Option<Bound>,
    /// It is the GPU.
    open: Option<GpuOpen>,
}

impl KvmHold {
    /// Whether the device has a share of the binding, or had one when that was revoked.
    pub(crate) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// Gives the GPU's share up before it is reset. What is left keeps it unbound until then.
    pub(crate) fn before_reset(mut self) -> Self {
        if self.open.is_some() {
            self.bound = None;
        }
        self
    }
}

/// As long as it exists nobody else binds the GPU.
struct GpuOpen(Arc<GpuBinding>);

impl GpuOpen {
    fn new(binding: &Arc<GpuBinding>, state: &mut BindingState) -> Self {
        state.open = true;
        Self(binding.clone())
    }
}

impl Drop for GpuOpen {
    fn drop(&mut self) {
        self.0.state.lock().open = false;
    }
}

/// As long as it exists the GPU is being reset.
pub(crate) struct QuietGpu(Arc<GpuBinding>);

impl Drop for QuietGpu {
    fn drop(&mut self) {
        self.0.set_quiet(false);
    }
}

/// A device's share of its GPU's binding.
struct Bound {
    binding: Arc<GpuBinding>,
    share: Share,
    gate: Option<Arc<Gate>>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // A reset of the GPU follows, or came before, whether it was told or not; but not while the
        // GPU is being unbound: see "What is known not to hold" in security.rst.
        let vms = {
            let mut state = self.binding.state.lock();
            let left = state.binding.leave(self.share);

            if let Some(gate) = &self.gate {
                state.gates.retain(|other| !Arc::ptr_eq(&other.gate, gate));
            }
            let vm = match left {
                Left::Last(binding) => state.end(binding).vm,
                Left::Others | Left::Revoked => None,
            };

            (vm, state.departed.take())
        };

        // Not under the lock: it may be the last reference to the machine.
        drop(vms);
    }
}
