// SPDX-License-Identifier: GPL-2.0

//! Operations, and how they are drawn.
//!
//! An operation says what to do in terms that do not depend on what happened before: "the second
//! function", "a page near the end of the region". Which descriptor or address that is, is found out
//! when it is done ([`crate::world`]). So a seed gives the same sequence each time, and a sequence from
//! which operations were taken out can still be done.

use rand::{
    distr::{weighted::WeightedIndex, Distribution},
    Rng, RngCore, SeedableRng,
};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

/// What `argsz` says about a structure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Argsz {
    /// Its size.
    Exact,
    /// With room for capabilities and arrays.
    Room,
    /// Nothing.
    Zero,
    /// A byte less than the smallest that is valid.
    Less,
    /// All ones.
    Max,
}

/// Which address a system call gets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Pointer {
    /// Of a buffer.
    Good,
    /// Zero.
    Null,
    /// Of a page that is not mapped.
    Unmapped,
    /// Of the kernel's.
    Kernel,
    /// Of a page that may only be read.
    ReadOnly,
    /// 8 bytes before the end of what is mapped.
    Straddling,
    /// Of a mapping of a device, by number.
    Mapping(u8),
}

/// A place in a region.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Place {
    /// Bytes from the start.
    Byte(u32),
    /// CPU pages from the start.
    Page(u16),
    /// Units of 2 MiB from the start.
    TwoMegabytes(u16),
    /// Bytes from the end, or beyond it.
    End(i32),
    /// Anywhere in the offsets a region has.
    Anywhere(u64),
}

/// How long something is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Length {
    /// Bytes.
    Bytes(u32),
    /// CPU pages.
    Pages(u32),
    /// All of the region.
    Region,
    /// More than the region.
    Beyond,
}

/// What a range of user memory is of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Memory {
    /// CPU pages of ordinary memory, from one on.
    Ordinary {
        /// The first.
        page: u8,
        /// How many.
        pages: u8,
    },
    /// A mapping of a device, by number, whole.
    Mapping(u8),
    /// CPU pages of a mapping of a device, from its second on.
    PartOfMapping {
        /// By number.
        mapping: u8,
        /// How many.
        pages: u8,
    },
    /// An address that makes no sense.
    Nonsense(u64),
}

/// Which part of a mapping.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Part {
    /// All.
    Whole,
    /// The first half.
    Head,
    /// The second half.
    Tail,
    /// One page in the middle.
    Middle,
}

/// By what device memory is accessed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Toucher {
    /// A load or store.
    Instruction,
    /// The kernel, on behalf of a system call.
    SystemCall,
    /// A child made by fork().
    Child,
}

/// How to get a device reset.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Reset {
    /// VFIO_DEVICE_RESET.
    Ioctl,
    /// The same, memory space off before and on after it: accesses go on meanwhile.
    WithMemoryOff,
    /// A function level reset through configuration space.
    Config,
}

/// A write to configuration space.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Config {
    /// Memory space (and bus mastering) on or off.
    Memory(bool),
    /// Power state D0 to D3, by number.
    Power(u8),
    /// Anything.
    Any {
        /// Where.
        offset: u16,
        /// How many bytes.
        len: u8,
        /// What.
        value: u32,
    },
}

/// What to do with a descriptor of KVM.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Kvm {
    /// A machine with a VFIO device.
    Create {
        /// KVM_VM_PPC_*: 1 is HV.
        kind: u8,
    },
    /// The machine is closed, and so is all that came of it.
    Close,
    /// A group is added, and its table set.
    Add {
        /// Which group; beyond the last: no group's descriptor.
        group: u8,
        /// Of which table.
        table: Table,
    },
    /// A group is removed.
    Remove {
        /// Which; beyond the last: no group's descriptor.
        group: u8,
    },
    /// A mapping of a device becomes memory of the machine.
    Slot {
        /// Of the machine.
        slot: u8,
        /// By number.
        mapping: u8,
    },
    /// A vCPU is made.
    Vcpu {
        /// Its number.
        id: u16,
    },
}

/// The table that a group gets when it is added to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// One of a window.
    Good,
    /// A descriptor that is of no table.
    Bad,
    /// None is set.
    None,
}

/// What is asked of a container.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Container {
    /// VFIO_GET_API_VERSION.
    Version,
    /// VFIO_CHECK_EXTENSION.
    Extension(u32),
    /// VFIO_SET_IOMMU.
    SetIommu(u32),
    /// VFIO_IOMMU_SPAPR_TCE_GET_INFO.
    Info(Argsz, Pointer),
    /// VFIO_IOMMU_SPAPR_TCE_CREATE.
    CreateWindow {
        /// log2 of the page size.
        shift: u8,
        /// log2 of the window's size.
        size: u8,
        /// Of tables.
        levels: u8,
        /// Bad flags.
        flags: u32,
        /// Of the structure.
        argsz: Argsz,
    },
    /// VFIO_IOMMU_SPAPR_TCE_REMOVE.
    RemoveWindow {
        /// Which, or an address that is none's.
        window: u8,
        /// Bad flags.
        flags: u32,
    },
    /// VFIO_IOMMU_SPAPR_REGISTER_MEMORY.
    Register(Memory, Argsz),
    /// VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY.
    Unregister(Memory),
    /// VFIO_IOMMU_MAP_DMA.
    Map {
        /// What.
        memory: Memory,
        /// In which window.
        window: u8,
        /// At which CPU page of it.
        page: u16,
        /// Permissions, and what is none.
        flags: u32,
        /// Of the structure.
        argsz: Argsz,
    },
    /// VFIO_IOMMU_UNMAP_DMA.
    Unmap {
        /// In which window.
        window: u8,
        /// At which CPU page of it.
        page: u16,
        /// How many.
        pages: u16,
        /// None are valid.
        flags: u32,
    },
    /// VFIO_EEH_PE_OP.
    Eeh {
        /// VFIO_EEH_PE_*
        op: u32,
        /// None are valid.
        flags: u32,
        /// Of the structure.
        argsz: Argsz,
    },
    /// VFIO_IOMMU_ENABLE, of the first version.
    Enable,
    /// VFIO_IOMMU_DISABLE, of the first version.
    Disable,
    /// A request that nobody knows.
    Unknown(u8),
}

/// What is asked of a device beyond what has a variant of its own in [`Op`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Device {
    /// VFIO_DEVICE_GET_INFO.
    Info(Argsz, Pointer),
    /// VFIO_DEVICE_GET_REGION_INFO.
    Region {
        /// Of the region.
        index: u32,
        /// Of the structure.
        argsz: Argsz,
        /// Where it is.
        at: Pointer,
    },
    /// VFIO_DEVICE_GET_IRQ_INFO.
    Irq {
        /// Of the interrupt.
        index: u32,
        /// Of the structure.
        argsz: Argsz,
    },
    /// VFIO_DEVICE_SET_IRQS.
    SetIrqs {
        /// VFIO_IRQ_SET_*
        flags: u32,
        /// Of the interrupt.
        index: u32,
        /// First.
        start: u32,
        /// Number of.
        count: u32,
    },
    /// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.
    HotResetInfo(Argsz),
    /// VFIO_DEVICE_PCI_HOT_RESET.
    HotReset {
        /// How many descriptors are passed.
        count: u8,
        /// The first is none of a group.
        bad: bool,
    },
    /// VFIO_DEVICE_FEATURE.
    Feature {
        /// Number and VFIO_DEVICE_FEATURE_{GET,SET,PROBE}.
        flags: u32,
        /// Of the structure.
        argsz: Argsz,
    },
    /// VFIO_DEVICE_IOEVENTFD.
    IoEvent {
        /// Of the device's file.
        offset: u64,
        /// Size, and what is none.
        flags: u32,
    },
    /// A request that nobody knows.
    Unknown(u8),
}

/// What the administrator does, in a process that has no device open.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Admin {
    /// Unbinds a function.
    Unbind,
    /// Gives a function to this driver.
    Bind,
    /// Gives a function to vfio-pci.
    BindPlain,
    /// Unloads the module.
    Unload,
}

/// One operation of one process.
#[derive(Clone, Copy, Debug, IntoStaticStr, VariantNames, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "fields have the names of the system calls' arguments"
)]
pub enum Op {
    /// Opens a device.
    Open {
        function: u8,
    },
    /// Opens a device by a name that none has.
    OpenNonsense {
        group: u8,
        name: Pointer,
    },
    /// Closes one descriptor of a device.
    Close {
        function: u8,
    },
    /// Takes a copy of another process' descriptor of a device.
    Steal {
        process: u8,
        function: u8,
    },
    Device {
        function: u8,
        request: Device,
    },
    Reset {
        function: u8,
        how: Reset,
        train: bool,
    },
    Config {
        function: u8,
        write: Config,
    },
    Read {
        function: u8,
        region: u8,
        place: Place,
        len: Length,
        to: Pointer,
    },
    Write {
        function: u8,
        region: u8,
        place: Place,
        len: Length,
        from: Pointer,
        value: u64,
    },
    /// 8-byte words to the ATSD registers: LAUNCH, AVA, STATUS and others.
    Shootdown {
        function: u8,
        register: u16,
        words: [u64; 2],
    },
    Map {
        function: u8,
        region: u8,
        place: Place,
        len: Length,
        prot: u8,
        private: bool,
        aligned: bool,
    },
    Touch {
        mapping: u8,
        place: Place,
        write: bool,
        size: u8,
        by: Toucher,
    },
    Unmap {
        mapping: u8,
        part: Part,
    },
    Remap {
        mapping: u8,
        part: Part,
        grow: bool,
        aligned: bool,
    },
    Protect {
        mapping: u8,
        part: Part,
        prot: u8,
    },
    Advise {
        mapping: u8,
        part: Part,
        advice: u8,
    },
    Lock {
        mapping: u8,
        part: Part,
    },
    GroupStatus {
        group: u8,
        argsz: Argsz,
    },
    SetContainer {
        group: u8,
        container: u8,
    },
    UnsetContainer {
        group: u8,
    },
    /// Opens a group that is open already.
    OpenGroup {
        group: u8,
    },
    Container {
        container: u8,
        request: Container,
    },
    /// The steps of QEMU, up to windows and a machine.
    SetUp {
        group: u8,
        kvm: bool,
    },
    Kvm(Kvm),
    /// Trains the links of a GPU, as its driver does.
    Train {
        gpu: u8,
    },
    /// Untrains them, as no driver does.
    Untrain {
        gpu: u8,
    },
    /// Has a GPU copy something.
    Engine {
        gpu: u8,
        paths: u8,
        source: u64,
        destination: u64,
        len: u32,
        pasid: u32,
        link: u8,
    },
    Debugfs {
        function: u8,
        file: u8,
    },
    Admin {
        function: u8,
        what: Admin,
    },
}

/// The generator of one process' operations.
pub struct Generator {
    rng: Pcg64Mcg,
    kinds: WeightedIndex<u32>,
}

type Draw = fn(&mut Pcg64Mcg) -> Op;

/// What is drawn how often.
const KINDS: &[(u32, Draw)] = &[
    (40, |r| Op::Open {
        function: r.random(),
    }),
    (3, |r| Op::OpenNonsense {
        group: r.random(),
        name: pointer(r, 2),
    }),
    (14, |r| Op::Close {
        function: r.random(),
    }),
    (12, |r| Op::Steal {
        process: r.random(),
        function: r.random(),
    }),
    (300, |r| Op::Device {
        function: r.random(),
        request: device(r),
    }),
    (14, |r| Op::Reset {
        function: r.random(),
        how: pick(
            r,
            &[
                Reset::Ioctl,
                Reset::WithMemoryOff,
                Reset::WithMemoryOff,
                Reset::Config,
            ],
        ),
        train: r.random_bool(0.8),
    }),
    (60, |r| Op::Config {
        function: r.random(),
        write: config(r),
    }),
    (350, |r| {
        let (region, place, len) = access(r);
        Op::Read {
            function: r.random(),
            region,
            place,
            len,
            to: pointer(r, 6),
        }
    }),
    (350, |r| {
        let (region, place, len) = access(r);
        let (function, value) = (r.random(), r.random());
        Op::Write {
            function,
            region,
            place,
            len,
            from: pointer(r, 6),
            value,
        }
    }),
    (120, |r| Op::Shootdown {
        function: r.random(),
        register: pick(r, &[0, 8, 16, 24, 0x100, 0xfff8]),
        words: [word(r), word(r)],
    }),
    (110, |r| Op::Map {
        function: r.random(),
        region: pick(r, &[0, 1, 2, 3, 7, 9, 9, 9, 9, 9, 9, 9, 9, 10]),
        place: place_to_map(r),
        len: length_to_map(r),
        prot: pick(r, &[3, 3, 3, 3, 1, 2, 0, 7]),
        private: r.random_bool(0.03),
        aligned: r.random_bool(0.3),
    }),
    // All that there is of ATSD registers.
    (20, |r| Op::Map {
        function: r.random(),
        region: 9,
        place: Place::Byte(0),
        len: Length::Pages(1),
        prot: 3,
        private: false,
        aligned: false,
    }),
    (700, |r| Op::Touch {
        mapping: r.random(),
        place: place(r),
        write: r.random(),
        size: pick(r, &[1, 2, 4, 8, 8, 8]),
        by: pick(
            r,
            &[
                Toucher::Instruction,
                Toucher::Instruction,
                Toucher::Instruction,
                Toucher::Instruction,
                Toucher::SystemCall,
                Toucher::SystemCall,
                Toucher::Child,
            ],
        ),
    }),
    (60, |r| Op::Unmap {
        mapping: r.random(),
        part: part(r, 6),
    }),
    (30, |r| Op::Remap {
        mapping: r.random(),
        part: part(r, 1),
        grow: r.random(),
        aligned: r.random(),
    }),
    (50, |r| Op::Protect {
        mapping: r.random(),
        part: part(r, 2),
        prot: r.random_range(0..8),
    }),
    (80, |r| Op::Advise {
        mapping: r.random(),
        part: part(r, 2),
        // All but those that poison memory of the host.
        advice: pick(
            r,
            &[
                0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25, 77,
            ],
        ),
    }),
    (20, |r| Op::Lock {
        mapping: r.random(),
        part: part(r, 2),
    }),
    (4, |r| Op::GroupStatus {
        group: r.random(),
        argsz: argsz(r),
    }),
    (3, |r| Op::SetContainer {
        group: r.random(),
        container: r.random(),
    }),
    (6, |r| Op::UnsetContainer { group: r.random() }),
    (2, |r| Op::OpenGroup { group: r.random() }),
    (500, |r| Op::Container {
        container: r.random(),
        request: container(r),
    }),
    (10, |r| Op::SetUp {
        group: r.random(),
        kvm: r.random_bool(0.7),
    }),
    (30, |r| Op::Kvm(kvm(r))),
    (60, |r| Op::Train { gpu: r.random() }),
    (3, |r| Op::Untrain { gpu: r.random() }),
    (120, |r| Op::Engine {
        gpu: r.random(),
        paths: pick(
            r,
            &[
                0, 0, 0x10, 0x01, 0x20, 0x20, 0x02, 0x02, 0x30, 0x03, 0x22, 0x44, 0xff,
            ],
        ),
        source: address(r),
        destination: address(r),
        len: pick(
            r,
            &[
                1,
                8,
                8,
                64,
                64,
                4096,
                4096,
                0x1_0000,
                0x1_0001,
                0,
                0x100_0001,
                u32::MAX,
            ],
        ),
        pasid: pick(r, &[0, 0, 0, 0, 1, 7, 0xf_ffff, u32::MAX]),
        link: pick(r, &[0, 1, 0, 1, 0, 1, 2, 255]),
    }),
    (40, |r| Op::Debugfs {
        function: r.random(),
        file: r.random(),
    }),
    (4, |r| Op::Admin {
        function: r.random(),
        what: pick(
            r,
            &[
                Admin::Unbind,
                Admin::Bind,
                Admin::Bind,
                Admin::BindPlain,
                Admin::Unload,
            ],
        ),
    }),
];

impl Generator {
    /// Of process `process` in round `round` of a run with seed `seed`.
    pub fn new(seed: u64, round: u64, process: u64) -> Self {
        let mut mixer =
            Pcg64Mcg::seed_from_u64(seed ^ round.rotate_left(32) ^ process.rotate_left(16));
        let weights = KINDS.iter().map(|(weight, _)| *weight);
        Self {
            rng: Pcg64Mcg::seed_from_u64(mixer.next_u64()),
            kinds: WeightedIndex::new(weights).expect("the table of kinds has weights"),
        }
    }
}

impl Iterator for Generator {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        let (_, draw) = KINDS[self.kinds.sample(&mut self.rng)];
        Some(draw(&mut self.rng))
    }
}

fn pick<T: Copy>(r: &mut Pcg64Mcg, from: &[T]) -> T {
    from[r.random_range(0..from.len())]
}

fn argsz(r: &mut Pcg64Mcg) -> Argsz {
    use Argsz::{Exact, Less, Max, Room, Zero};
    pick(
        r,
        &[
            Exact, Exact, Exact, Exact, Exact, Room, Room, Room, Zero, Less, Max,
        ],
    )
}

/// Good ones are `weight` times as likely as each of the others.
fn pointer(r: &mut Pcg64Mcg, weight: usize) -> Pointer {
    let others = [
        Pointer::Null,
        Pointer::Unmapped,
        Pointer::Kernel,
        Pointer::ReadOnly,
        Pointer::Straddling,
        Pointer::Mapping(r.random()),
        Pointer::Mapping(r.random()),
        Pointer::Mapping(r.random()),
    ];
    let choice = r.random_range(0..others.len() * (1 + weight));
    others.get(choice).copied().unwrap_or(Pointer::Good)
}

fn part(r: &mut Pcg64Mcg, whole: usize) -> Part {
    let others = [Part::Head, Part::Tail, Part::Middle];
    let choice = r.random_range(0..others.len() + whole);
    others.get(choice).copied().unwrap_or(Part::Whole)
}

fn place(r: &mut Pcg64Mcg) -> Place {
    match r.random_range(0..12) {
        0..4 => Place::Byte(r.random_range(0..0x200)),
        4 => Place::Byte(r.random()),
        5..8 => Place::Page(r.random_range(0..64)),
        8 => Place::TwoMegabytes(r.random_range(0..32)),
        9 | 10 => Place::End(pick(r, &[0, -1, -4, -8, -16, -0x1_0000, 1, 8, 0x1_0000])),
        _ => Place::Anywhere(r.random()),
    }
}

fn place_to_map(r: &mut Pcg64Mcg) -> Place {
    match r.random_range(0..10) {
        0..4 => Place::Byte(0),
        4..7 => Place::Page(r.random_range(0..64)),
        7 => Place::TwoMegabytes(r.random_range(0..32)),
        8 => Place::End(pick(r, &[0, -0x1_0000, -0x2_0000, 0x1_0000])),
        _ => Place::Anywhere(r.random::<u64>() & !0xffff),
    }
}

fn length_to_map(r: &mut Pcg64Mcg) -> Length {
    match r.random_range(0..12) {
        0..6 => Length::Pages(r.random_range(1..40)),
        6 => Length::Pages(pick(r, &[32, 256, 1024, 16384, 16385])),
        7 | 8 => Length::Region,
        9 => Length::Beyond,
        10 => Length::Bytes(pick(r, &[0, 1, 0xffff, 0x1_0001])),
        _ => Length::Pages(1),
    }
}

/// Region, place and length of a read or write.
fn access(r: &mut Pcg64Mcg) -> (u8, Place, Length) {
    let region = pick(r, &[0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 9, 9, 9, 9, 9, 10]);
    let place = match r.random_range(0..3) {
        0 => place(r),
        1 => Place::Byte(r.random_range(0..0x40) * 8),
        _ => Place::Page(r.random_range(0..64)),
    };
    let len = match r.random_range(0..12) {
        0..7 => Length::Bytes(pick(r, &[1, 2, 4, 8, 8, 8, 16, 24, 64])),
        7 | 8 => Length::Bytes(r.random_range(0..256)),
        9 => Length::Bytes(pick(r, &[0, 0xffff, 0x1_0000, 0x1_0001, 0x2_0008])),
        10 => Length::Pages(r.random_range(1..4)),
        _ => Length::Beyond,
    };
    (region, place, len)
}

fn config(r: &mut Pcg64Mcg) -> Config {
    match r.random_range(0..10) {
        0..4 => Config::Memory(true),
        4 | 5 => Config::Memory(false),
        6 => Config::Power(3),
        7 => Config::Power(pick(r, &[0, 0, 1, 2])),
        _ => Config::Any {
            offset: pick(
                r,
                &[
                    0, 4, 5, 6, 0x10, 0x14, 0x30, 0x34, 0x3c, 0x40, 0x44, 0x60, 0x78, 0xfe, 0x100,
                    0xffc,
                ],
            ) + r.random_range(0..4),
            len: pick(r, &[1, 2, 4]),
            value: pick(r, &[0, 1, 2, 3, 4, 6, 7, 0xff, 0xffff, u32::MAX, 0x400]),
        },
    }
}

/// A word of ATSD LAUNCH or AVA: any, and such as a guest's kernel writes.
fn word(r: &mut Pcg64Mcg) -> u64 {
    match r.random_range(0..4) {
        0 => r.random(),
        1 => 1 << r.random_range(0..64),
        2 => 0,
        _ => (1 << 63) | (r.random::<u64>() & 0x001f_ffff_ffff_f000),
    }
}

/// An address for the engine: small offsets of RAM, windows, and any.
fn address(r: &mut Pcg64Mcg) -> u64 {
    match r.random_range(0..6) {
        0 | 1 => r.random_range(0..0x40_0000),
        2 | 3 => r.random_range(0..64) << 16,
        4 => (1 << 59) | (r.random_range(0..64) << 16),
        _ => r.random(),
    }
}

fn memory(r: &mut Pcg64Mcg) -> Memory {
    match r.random_range(0..8) {
        0..3 => Memory::Ordinary {
            page: pick(r, &[0, 0, 0, 8, 16, 24]),
            pages: 8,
        },
        3 => Memory::Ordinary {
            page: r.random_range(0..32),
            pages: r.random_range(0..32),
        },
        4..6 => Memory::Mapping(r.random()),
        6 => Memory::PartOfMapping {
            mapping: r.random(),
            pages: r.random_range(0..16),
        },
        _ => Memory::Nonsense(r.random()),
    }
}

fn container(r: &mut Pcg64Mcg) -> Container {
    match r.random_range(0..40) {
        0 => Container::Version,
        1 => Container::Extension(r.random_range(0..12)),
        2 => Container::SetIommu(pick(r, &[2, 7, 7, 7, 1, 99])),
        3 => Container::Info(argsz(r), pointer(r, 4)),
        4..7 => Container::CreateWindow {
            shift: pick(r, &[16, 16, 16, 12, 24, 28, 0, 63, 255]),
            size: pick(r, &[26, 28, 30, 30, 24, 31, 0, 12, 63]),
            levels: pick(r, &[1, 1, 1, 2, 3, 5, 0, 6, 255]),
            flags: pick(r, &[0, 0, 0, 0, 0, 1, u32::MAX]),
            argsz: argsz(r),
        },
        7 | 8 => Container::RemoveWindow {
            window: r.random_range(0..4),
            flags: pick(r, &[0, 0, 0, 0, 1]),
        },
        9..14 => Container::Register(memory(r), argsz(r)),
        14..17 => Container::Unregister(memory(r)),
        17..28 => Container::Map {
            memory: memory(r),
            window: pick(r, &[0, 0, 0, 0, 1, 2]),
            page: r.random_range(0..64),
            flags: pick(r, &[3, 3, 3, 3, 3, 3, 1, 2, 0, 4, u32::MAX]),
            argsz: argsz(r),
        },
        28..34 => Container::Unmap {
            window: pick(r, &[0, 0, 0, 0, 1, 2]),
            page: r.random_range(0..64),
            pages: pick(r, &[1, 1, 4, 8, 64, 0, 0xffff]),
            flags: pick(r, &[0, 0, 0, 0, 0, 0, 1]),
        },
        34..37 => Container::Eeh {
            // All but resets and the injection of errors, see the top of main.rs.
            op: pick(r, &[0, 1, 2, 3, 4, 4, 5, 8, 10]),
            flags: pick(r, &[0, 0, 0, 0, 0, 0, 1]),
            argsz: argsz(r),
        },
        37 => Container::Enable,
        38 => Container::Disable,
        _ => Container::Unknown(r.random()),
    }
}

fn kvm(r: &mut Pcg64Mcg) -> Kvm {
    match r.random_range(0..14) {
        0..2 => Kvm::Create {
            kind: pick(r, &[1, 1, 1, 2, 0, 9]),
        },
        2 => Kvm::Close,
        3..7 => Kvm::Add {
            group: r.random_range(0..4),
            table: pick(
                r,
                &[
                    Table::Good,
                    Table::Good,
                    Table::Good,
                    Table::Bad,
                    Table::None,
                ],
            ),
        },
        7..10 => Kvm::Remove {
            group: r.random_range(0..4),
        },
        10..13 => Kvm::Slot {
            slot: r.random_range(0..4),
            mapping: r.random(),
        },
        _ => Kvm::Vcpu {
            id: r.random_range(0..3),
        },
    }
}

fn device(r: &mut Pcg64Mcg) -> Device {
    match r.random_range(0..20) {
        0 | 1 => Device::Info(argsz(r), pointer(r, 4)),
        2..8 => Device::Region {
            index: pick(
                r,
                &[0, 1, 2, 3, 6, 7, 8, 9, 9, 9, 9, 10, 0x8000_0000, u32::MAX],
            ),
            argsz: argsz(r),
            at: pointer(r, 6),
        },
        8 => Device::Irq {
            index: pick(r, &[0, 1, 2, 3, 4, 5, u32::MAX]),
            argsz: argsz(r),
        },
        9..11 => Device::SetIrqs {
            flags: pick(r, &[0x21, 0x24, 0x24, 0x24, 0x0c, 0x0a, 0x14, 0x3f, 0]),
            index: r.random_range(0..6),
            start: pick(r, &[0, 0, 0, 0, 1, u32::MAX]),
            count: pick(r, &[0, 1, 1, 1, 2, 64, u32::MAX]),
        },
        // Five seconds each, in which nobody else gets far.
        13 if r.random_bool(0.1) => Device::HotReset {
            count: pick(r, &[1, 1, 1, 2, 0, 255]),
            bad: r.random_bool(0.2),
        },
        11..14 => Device::HotResetInfo(argsz(r)),
        14..18 => Device::Feature {
            // What there is: tokens, migration, low power; each asked, tried and done.
            flags: pick(r, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 3, 5, 3, 5, 99])
                | pick(
                    r,
                    &[
                        0,
                        1 << 16,
                        2 << 16,
                        2 << 16,
                        2 << 16,
                        4 << 16,
                        6 << 16,
                        7 << 16,
                        1 << 31,
                    ],
                ),
            argsz: argsz(r),
        },
        18 => Device::IoEvent {
            offset: r.random(),
            flags: pick(r, &[1, 2, 4, 8, 3, 0x10]),
        },
        _ => Device::Unknown(r.random()),
    }
}
