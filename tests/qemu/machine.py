#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated Witherspoon: QEMU's arguments and the firmware's input tree.

QEMU's powernv9-witherspoon machine has the processors, the PHBs and one NPU2 per
chip; what makes a board of it is the switch and the GPUs on the command line and
what Hostboot would tell OPAL in the device tree.  Both are tables in this file:
"redbud", air-cooled, has two GPUs with three NVLinks each per chip, "sequoia",
water-cooled, three with two.

    machine.py args --machine redbud --chips 2    one argument per line
    machine.py guest-args                         the same of a pseries guest
    machine.py tree --machine redbud --chips 2 --append TEXT [--initrd FILE] \
        IN.dtb OUT.dtb

OPAL makes the NVLink2 nodes itself.  To show Linux bad ones, take the tree of a
good boot (/sys/firmware/fdt), change it and give it to the kernel behind OPAL's
back:

    machine.py mutations BOOT.dtb                 what can be wrong
    machine.py shim --kernel VMLINUX --fdt BOOT.dtb --mutate NAME[,NAME...] \
        --append TEXT [--initrd FILE] OUT         a kernel for -kernel
"""

import argparse
import sys
from dataclasses import dataclass

import libfdt

import mutations
import shim
from devtree import U64, Tree

# -- topology ----------------------------------------------------------------

@dataclass(frozen=True)
class Board:
    """How the GPUs of a board are wired to each chip."""
    name: str
    gpus: int
    # Of each link: "ibm,link-speed" in bits per second, and NVIDIA's code for it.
    bps: int
    speed: int

    @property
    def links(self):
        """Links of each GPU."""
        return len(LINKS) // self.gpus

    def sockets(self, chips):
        """Labels of the sockets, by chip."""
        return [[f"GPU{chip * SOCKETS + index}" for index in range(self.gpus)]
                for chip in range(chips)]


# skiboot has a recording of a real Redbud, hdata/test/op920.wsp.dts, and test_machine.py
# compares with it.  Of a Sequoia none is public; that its links are on the same lanes, and its
# GPUs behind the same switches (which the recording has ports for), is assumed.
BOARDS = {board.name: board for board in (
    Board("redbud", gpus=2, bps=25_781_250_000, speed=8),
    Board("sequoia", gpus=3, bps=25_000_000_000, speed=9),
)}

# Labels count three sockets for each chip, whether they are there or not.
SOCKETS = 3

# The PHYs of OBUS 0 and 3, as OPAL accesses them: by indirect SCOM.
OBUS0, OBUS3 = 0x8000000009010c3f, 0x800000000c010c3f

# Links of a chip: PHY, its lanes, and the brick as the chip's documents count.
LINKS = (
    (OBUS0, 0xf1e000, 0x0),
    (OBUS0, 0x0e1870, 0x1),
    (OBUS0, 0x00078f, 0x2),
    (OBUS3, 0x00078f, 0x9),
    (OBUS3, 0x0e1870, 0xa),
    (OBUS3, 0xf1e000, 0xb),
)


@dataclass(frozen=True)
class Switch:
    """The PCIe switch that a chip's GPUs are behind."""
    phb: int
    # Device numbers of the ports of the sockets.
    ports: tuple[int, ...]
    # Of a port to something else, which takes a bus before the GPUs'.
    other: int | None = None


# By chip.  GPUs are on 0004:04:00.0 and on, and 0035:03:00.0 and on.
SWITCHES = (
    Switch(phb=4, ports=(0xa, 0xb, 0xc), other=0x9),
    Switch(phb=5, ports=(0x4, 0x5, 0xd)),
)


# The models are as unforgiving as anybody who had the hardware says of it, or as hard as may be
# where nobody does. For comparison: what makes each of these forgive.
RELAXED = {
    "atc-hit": ("nvlink2-v100.atc-asks-xts=on",),
    "atsd-flush": ("nvlink2-v100.atc-flushes=0",),
    "atsd-status": ("pnv-npu2.atsd-polls=0", "pnv-npu2.atsd-link-wait=off"),
    "atsd-4k": ("pnv-npu2.atsd-4k=on",),
    "nmmu-cache": ("pnv-nmmu.walk-cache=off",),
    "flr": ("nvlink2-v100.flr=on",),
    "freeze": ("pnv-npu2.freeze=off",),
}

# How bits 11 to 13 of ATSD LAUNCH may be read.
ATSD_IS = ("tlbie", "uvm")

# What an access of GPU RAM may be that nobody answers.
DEAD = ("machine-check", "ones")


@dataclass(frozen=True)
class Machine:
    """A board with one chip or two, and what its sockets hold."""
    board: Board
    chips: int
    # Labels of sockets without a card, and of those whose card does not answer.
    empty: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    # GPU memory from 4 TiB up, and not from there down.
    small_map: bool = False
    # Of RELAXED, ATSD_IS and DEAD.
    relaxed: tuple[str, ...] = ()
    atsd_is: str = ATSD_IS[0]
    dead_access: str = DEAD[0]
    # The slots of GPUs have a power controller.
    slot_power: bool = False
    # Ones clear the NPU's PESTB.
    pest_ones: bool = False
    # GPUs have no registers that real ones do not have.
    hide_model: bool = False

    def __post_init__(self):
        if self.chips not in (1, 2):
            raise ValueError(f"a {self.board.name} has 1 or 2 chips, not {self.chips}")
        known = {label for chip in self.sockets() for label in chip}
        for label in sorted((self.empty | self.dead) - known):
            raise ValueError(f"there is no socket {label}; there are {', '.join(sorted(known))}")

    def sockets(self):
        """Labels of the sockets, by chip."""
        return self.board.sockets(self.chips)

    def present(self):
        """What the OCCs know of the sockets, as QEMU's machine takes it: 4 bits for each chip."""
        return sum(1 << (4 * chip + index)
                   for chip, labels in enumerate(self.sockets())
                   for index, label in enumerate(labels) if label not in self.empty)


def by_gpus(gpus):
    """Board and chips of the machine that has GPUS GPUs when all sockets are full."""
    for board in BOARDS.values():
        if gpus % board.gpus == 0 and gpus // board.gpus in (1, 2):
            return board, gpus // board.gpus
    raise ValueError(f"a Redbud has 2 or 4 GPUs, a Sequoia 3 or 6, not {gpus}")


# How fast time goes while all processors wait, or poll with low priority: each reset of a GPU has them wait for seconds.
IDLE_SPEED = 20

# From one chip's number to the next one's.
CHIP_STRIDE = 8

# PHBs of one powernv9 chip; QEMU numbers the root buses pcie.0, pcie.1, ...
# through all chips.
PHBS_PER_CHIP = 6
SERIAL_PHB = 1
DISK_PHBS = (2, 3)

# QEMU wants each slot's chassis and number to be unique; the root ports use the
# numbers of the chips.
SWITCH_CHASSIS = 16

# Bus that carries the virtio-serial ports of the caller.
SERIAL_BUS = "emu-serial.0"

# Where QEMU's powernv machine puts -initrd (INITRD_LOAD_ADDR in hw/ppc/pnv.c).
INITRD_BASE = 0x28000000
INITRD_MAX = 128 << 20

# A chip's number in physical addresses (phys_map_nimbus in OPAL).
CHIP_SHIFT = 42
XSCOM_BASE = 0x603fc00000000

# Texas Instruments XIO3130, QEMU's PCIe switch.
SWITCH_VENDOR, SWITCH_UPSTREAM = 0x104c, 0x8232


def xscom(chip):
    """Path of a chip's XSCOM node."""
    return f"/xscom@{XSCOM_BASE + (chip * CHIP_STRIDE << CHIP_SHIFT):x}"


def switch_args(machine, chip, gpu_ram):
    """QEMU's arguments for a chip's switch and what is behind it."""
    switch, links = SWITCHES[chip], machine.board.links
    args = ["-device",
            f"x3130-upstream,id=plx{chip},bus=pcie.{chip * PHBS_PER_CHIP + switch.phb}"]

    # Whether a socket's power can be switched nobody says. OPAL does it at a fundamental reset.
    power = "on" if machine.slot_power else "off"

    def port(name, addr):
        return ["-device",
                f"xio3130-downstream,id={name},bus=plx{chip},port={addr},"
                f"chassis={SWITCH_CHASSIS + chip},slot={addr},addr={addr:#x},x-speed=8,"
                f"power_controller_present={power}"]

    if switch.other is not None:
        args += port(f"other{chip}", switch.other)
    for index, label in enumerate(machine.sockets()[chip]):
        gpu = chip * machine.board.gpus + index
        args += port(f"slot{gpu}", switch.ports[index])
        if label not in machine.empty | machine.dead:
            bricks = ((1 << links) - 1) << (index * links)
            args += ["-device",
                     f"nvlink2-v100,id=gpu{gpu},bus=slot{gpu},"
                     f"npu=/machine/chip[{chip}]/npu,bricks={bricks:#x},ram-size={gpu_ram}"]
    return args


def qemu_args(machine, memory="4G", gpu_ram="16G", icount=False, disks=()):
    """QEMU's arguments for MACHINE, without firmware, kernel and tree.

    With ICOUNT an instruction takes a nanosecond of the machine's time, and
    waiting takes none of ours. Without it waiting takes less than it says.
    DISKS are raw images, which are not changed: what is written is lost.

    The controller "emu-serial" has ports on bus SERIAL_BUS: add -chardev and
    -device virtserialport,bus=emu-serial.0,... for each.  Consoles (-serial),
    -L, -kernel, -initrd and -dtb are the caller's too.
    """
    args = [
        "-M", f"powernv9-witherspoon,gpus-present={machine.present():#x}"
              + ("" if icount else f",idle-speed={IDLE_SPEED}"),
        *(["-global", "pnv-npu2.small-memory-map=on"] if machine.small_map else []),
        "-global", f"pnv-npu2.is={machine.atsd_is}",
        "-global", f"pnv-npu2.dead={machine.dead_access}",
        *(["-global", "pnv-npu2.pest-write-ones=on"] if machine.pest_ones else []),
        *(["-global", "nvlink2-v100.hide-model=on"] if machine.hide_model else []),
        *(word for name in machine.relaxed for value in RELAXED[name]
          for word in ("-global", value)),
        *(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
          if icount else ["-accel", "tcg,thread=multi"]),
        "-smp", f"2,sockets={machine.chips},cores={2 // machine.chips},threads=1",
        "-m", memory,
        "-display", "none",
        "-nic", "none",
        "-device", f"virtio-serial-pci,id=emu-serial,bus=pcie.{SERIAL_PHB}",
    ]
    if len(disks) > len(DISK_PHBS):
        raise ValueError(f"room for {len(DISK_PHBS)} disks, not {len(disks)}")
    for number, (phb, image) in enumerate(zip(DISK_PHBS, disks)):
        # A comma in a value of QEMU's is written twice.
        name = image.replace(",", ",,")
        args += [
            "-drive", f"if=none,id=disk{number},format=raw,snapshot=on,file={name}",
            "-device", f"virtio-blk-pci,drive=disk{number},bus=pcie.{phb}",
        ]
    for chip in range(machine.chips):
        args += switch_args(machine, chip, gpu_ram)
    return args


def guest_args(memory="2G"):
    """QEMU's arguments for a pseries guest, in which there is no NVLink2.

    It has a PCI function that no driver takes by itself.  What the caller adds is
    as for qemu_args(), but for -dtb: the hypervisor makes the tree.
    """
    return [
        "-M", "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,"
              "cap-ccf-assist=off",
        "-accel", "tcg,thread=multi",
        "-smp", "2",
        "-m", memory,
        "-display", "none",
        "-vga", "none",
        "-nic", "none",
        "-device", "virtio-serial-pci,id=emu-serial",
        # In an IOMMU group of its own, so that VFIO can have it.
        "-device", "spapr-pci-host-bridge,index=1,id=pci.1",
        "-device", "pci-testdev,bus=pci.1.0",
    ]


# -- device tree -------------------------------------------------------------

# As real POWER9 firmware says it: 4K, 64K, 2M, 1G, with the AP encoding of each
# in the top three bits.
CPU = {
    "ibm,processor-radix-AP-encodings":
        [0x0000000c, 0xa0000010, 0x20000015, 0x4000001e],
}

# What Hostboot says of speculation on the processor. Linux takes a firmware that says nothing for
# one without the instruction that flushes the L1 cache, and reads 32 KiB instead, each time it is
# entered, left or accesses memory of the user.
FW_FEATURES = {
    "enabled": (
        "tm-suspend-mode", "inst-spec-barrier-ori31,31,0", "fw-bcctrl-serialized",
        "inst-l1d-flush-trig2", "fw-l1d-thread-split", "fw-branch-hints-honored",
        "speculation-policy-favor-security", "user-mode-branch-speculation",
        "needs-l1d-flush-msr-hv-1-to-0", "needs-l1d-flush-msr-pr-0-to-1",
        "needs-spec-barrier-for-bound-checks",
    ),
    "disabled": (
        "inst-l1d-flush-ori30,30,0", "inst-thread-reconfig-control-trig0-1",
        "fw-count-cache-disabled", "fw-ltptr-serialized",
    ),
}

# The nest MMU, which firmware tells where the kernel's partition table is.
NMMU = {
    "compatible": "ibm,power9-nest-mmu",
    "reg": [0x5012c40, 0x20],
}


def npu_node(machine, chip):
    """The NPU as Hostboot describes it to OPAL, with six links."""
    board, labels = machine.board, machine.sockets()[chip]
    node = {
        "compatible": "ibm,power9-npu",
        "reg": [0x5011000, 0x2c],
        "#address-cells": 1,
        "#size-cells": 0,
        "ibm,npu-index": chip,
        "ibm,npu-links": len(LINKS),
    }
    for link, (phy, lanes, brick) in enumerate(LINKS):
        group = link // board.links
        node[f"link@{link}"] = {
            "reg": link,
            "compatible": "ibm,npu-link",
            "ibm,npu-link-index": link,
            "ibm,workbook-link-id": 2 * link + 1,
            "ibm,npu-phy": U64(phy),
            "ibm,npu-lane-mask": lanes,
            "ibm,npu-brick-id": brick,
            "ibm,npu-group-id": group,
            "ibm,slot-label": labels[group],
            "ibm,link-speed": U64(board.bps),
            "nvidia,link-speed": board.speed,
        }
    return node


def slot_node(machine, chip):
    """The PCIe slots behind the chip's switch; OPAL matches their labels with
    those of the links."""
    switch = SWITCHES[chip]
    ports = {
        f"down-port@{port:x}": {
            "compatible": "ibm,pcie-port",
            "reg": port,
            "ibm,slot-label": label,
        }
        for port, label in zip(switch.ports, machine.sockets()[chip])
    }
    if switch.other is not None:
        # Without a label OPAL takes it for a slot, and keeps four more buses for cards.
        ports[f"down-port@{switch.other:x}"] = {
            "compatible": "ibm,pcie-port",
            "reg": switch.other,
            "ibm,slot-label": "BUILTIN",
        }
    return {
        "compatible": ["ibm,pcie-port", "ibm,pcie-root-port"],
        "reg": [chip * CHIP_STRIDE, switch.phb],
        "#address-cells": 2,
        "#size-cells": 0,
        "ibm,chip-id": chip * CHIP_STRIDE,
        f"switch-up@{SWITCH_VENDOR:x},{SWITCH_UPSTREAM:x}": {
            "compatible": "ibm,pcie-switch-up",
            "reg": [SWITCH_VENDOR, SWITCH_UPSTREAM],
            "#address-cells": 1,
            "#size-cells": 0,
            **ports,
        },
    }


def edits(machine):
    """What to merge into QEMU's tree: {path: {property or child: value}}."""
    tree = {
        "/": {
            "compatible": ["ibm,witherspoon", "ibm,powernv"],
            # OPAL adds to this node.
            "ibm,opal": {
                "fw-features": {name: {state: b""} for state, names in FW_FEATURES.items()
                                for name in names},
            },
            "ibm,pcie-slots": {
                "#address-cells": 2,
                "#size-cells": 0,
                **{f"root-complex@{chip * CHIP_STRIDE:x},{SWITCHES[chip].phb}":
                   slot_node(machine, chip) for chip in range(machine.chips)},
            },
        },
    }
    for chip in range(machine.chips):
        tree[xscom(chip)] = {"npu@5011000": npu_node(machine, chip), "nmmu@5012c40": NMMU}
        # QEMU counts I2C engines from 1, the platform code of OPAL from 0.
        tree[f"{xscom(chip)}/i2cm@a1000/i2c-bus@4"] = {
            "ibm,port-name": f"p8_{chip * CHIP_STRIDE:08x}_e1p4",
        }
    return tree


def make_tree(base_dtb, machine, bootargs="", initrd=None):
    """Turn QEMU's own tree (-M powernv9-witherspoon,dumpdtb=) into MACHINE's.

    BASE_DTB and the result are flattened trees (bytes).  INITRD is the range
    (first byte, byte after the last) where QEMU loads -initrd, or None.
    """
    tree = Tree(base_dtb)
    for path, content in edits(machine).items():
        tree.merge(path, content)
    for cpu in tree.children("/cpus"):
        tree.merge(cpu, CPU)
    set_chosen(tree, bootargs, initrd)
    return tree.blob()


def set_chosen(tree, bootargs, initrd):
    """Write the kernel's command line and the range of its initial RAM disk."""
    chosen = {"bootargs": bootargs}
    if initrd:
        chosen["linux,initrd-start"], chosen["linux,initrd-end"] = initrd
    tree.merge("/chosen", chosen)


def initrd_range(path):
    """Where QEMU puts the initial RAM disk PATH."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
    if size > INITRD_MAX:
        raise ValueError(f"{path}: {size} bytes, QEMU loads {INITRD_MAX} at most")
    return INITRD_BASE, INITRD_BASE + size


# -- bad firmware ------------------------------------------------------------

def make_shim(kernel, boot_dtb, names, bootargs, initrd=None):
    """A vmlinux that starts with the tree BOOT_DTB after the named mutations.

    KERNEL, BOOT_DTB and the result are bytes.  BOOT_DTB is what OPAL gave a
    kernel on the same machine: same board, sockets, memory and processors.
    """
    tree = Tree(boot_dtb)
    mutations.mutate(tree, names)
    set_chosen(tree, bootargs, initrd)
    return shim.add_tree(kernel, tree.blob())


# -- command line ------------------------------------------------------------

def machine_of(options):
    """The machine that the command line says."""
    board, chips = BOARDS[options.machine], options.chips
    if options.gpus:
        board, chips = by_gpus(options.gpus)
    return Machine(board, chips, frozenset(options.empty), frozenset(options.dead),
                   options.small_memory_map, relaxed=tuple(options.relaxed), atsd_is=options.atsd_is,
                   dead_access=options.dead_access, slot_power=options.slot_power, pest_ones=options.pest_ones,
                   hide_model=options.hide_model)


def cmd_args(options):
    print("\n".join(qemu_args(machine_of(options), gpu_ram=options.gpu_ram,
                              icount=options.icount, disks=options.disk)))


def cmd_guest_args(_):
    print("\n".join(guest_args()))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def cmd_tree(options):
    initrd = initrd_range(options.initrd) if options.initrd else None
    write(options.output, make_tree(read(options.input), machine_of(options),
                                    options.append, initrd))


def cmd_mutations(options):
    tree = Tree(read(options.fdt))
    for item in mutations.mutations(tree).values():
        print(item.name, item.path, item.property, item.text, sep="\t")


def cmd_shim(options):
    initrd = initrd_range(options.initrd) if options.initrd else None
    names = options.mutate.split(",") if options.mutate else []
    write(options.output, make_shim(read(options.kernel), read(options.fdt),
                                    names, options.append, initrd))


def parser():
    """The command line's grammar."""
    top = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--machine", choices=BOARDS, default="redbud",
                       help="the board (default: redbud)")
    which.add_argument("--chips", type=int, choices=(1, 2), default=2,
                       help="processor chips (default: 2)")
    which.add_argument("--gpus", type=int, choices=(2, 3, 4, 6),
                       help="instead of both: 2 or 4 is a Redbud with one chip or two, "
                       "3 or 6 a Sequoia")
    which.add_argument("--empty", action="append", default=[], metavar="LABEL",
                       help="the socket has no card; may be repeated")
    which.add_argument("--dead", action="append", default=[], metavar="LABEL",
                       help="the card in the socket does not answer; may be repeated")
    which.add_argument("--small-memory-map", action="store_true",
                       help="GPU memory is from 4 TiB up, and not from there down")
    which.add_argument("--relaxed", action="append", default=[], choices=RELAXED,
                       help="the models forgive this; may be repeated")
    which.add_argument("--atsd-is", choices=ATSD_IS, default=ATSD_IS[0],
                       help=f"how ATSD LAUNCH is read (default: {ATSD_IS[0]})")
    which.add_argument("--dead-access", choices=DEAD, default=DEAD[0],
                       help="what an access of GPU RAM is that nobody answers "
                       f"(default: {DEAD[0]})")
    which.add_argument("--slot-power", action="store_true",
                       help="the slots of GPUs have power controllers")
    which.add_argument("--pest-ones", action="store_true",
                       help="a frozen PE of the NPU is thawed by writing ones, not zeros")
    which.add_argument("--hide-model", action="store_true",
                       help="GPUs do not say that they are models, and nothing trains their links")

    args = commands.add_parser("args", parents=[which],
                               help="print QEMU's arguments, one per line")
    args.add_argument("--disk", action="append", default=[], metavar="FILE",
                      help="a raw disk image; may be repeated")
    args.add_argument("--gpu-ram", default="16G", metavar="SIZE",
                      help="RAM of each GPU (default: 16G)")
    args.add_argument("--icount", action="store_true",
                      help="count instructions, one a nanosecond")
    args.set_defaults(run=cmd_args)

    guest = commands.add_parser(
        "guest-args", help="print QEMU's arguments for a pseries guest")
    guest.set_defaults(run=cmd_guest_args)

    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--append", default="", metavar="TEXT",
                        help="the kernel's command line")
    chosen.add_argument("--initrd", metavar="FILE",
                        help="the file QEMU is given with -initrd")

    tree = commands.add_parser("tree", parents=[which, chosen],
                               help="make the firmware's input tree")
    tree.add_argument("input", metavar="IN.dtb",
                      help="dumped by -M ...,dumpdtb=IN.dtb")
    tree.add_argument("output", metavar="OUT.dtb", help="for -dtb")
    tree.set_defaults(run=cmd_tree)

    listing = commands.add_parser(
        "mutations", help="list bad firmware: name, node, property, defect")
    listing.add_argument("fdt", metavar="BOOT.dtb",
                         help="/sys/firmware/fdt of a good boot")
    listing.set_defaults(run=cmd_mutations)

    image = commands.add_parser("shim", parents=[chosen],
                                help="make a kernel that sees bad firmware")
    image.add_argument("--kernel", required=True, metavar="VMLINUX")
    image.add_argument("--fdt", required=True, metavar="BOOT.dtb",
                       help="/sys/firmware/fdt of a good boot")
    image.add_argument("--mutate", default="", metavar="NAME[,NAME...]",
                       help="the mutations, by default none")
    image.add_argument("output", metavar="OUT", help="for -kernel")
    image.set_defaults(run=cmd_shim)
    return top


def main():
    options = parser().parse_args()
    try:
        options.run(options)
    except (OSError, ValueError, KeyError, libfdt.FdtException) as error:
        sys.exit(f"machine.py: {error}")


if __name__ == "__main__":
    main()
