#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated Witherspoon: QEMU's arguments and the firmware's input tree.

QEMU's powernv9 machine has the processor, the PHBs and one NPU2 per chip; what
makes it a Witherspoon ("Sequoia", three GPUs with two NVLinks each per chip) is
the switch and the GPUs on the command line and what Hostboot would tell OPAL
in the device tree.  Both are tables in this file.

    machine.py args --gpus 3                      one argument per line
    machine.py guest-args                         the same of a pseries guest
    machine.py tree --gpus 3 --append TEXT [--initrd FILE] IN.dtb OUT.dtb

OPAL makes the NVLink2 nodes itself.  To show Linux bad ones, take the tree of a
good boot (/sys/firmware/fdt), change it and give it to the kernel behind OPAL's
back:

    machine.py mutations BOOT.dtb                 what can be wrong
    machine.py shim --kernel VMLINUX --fdt BOOT.dtb --mutate NAME[,NAME...] \
        --append TEXT [--initrd FILE] OUT         a kernel for -kernel
"""

import argparse
import sys

import libfdt

import mutations
import shim
from devtree import U64, Tree

# -- topology ----------------------------------------------------------------

GPUS_PER_CHIP = 3
LINKS_PER_GPU = 2
LINKS_PER_CHIP = GPUS_PER_CHIP * LINKS_PER_GPU

# PHBs of one powernv9 chip; QEMU numbers the root buses pcie.0, pcie.1, ...
# through all chips.
PHBS_PER_CHIP = 6
GPU_PHB = 0
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


def chips(gpus):
    """Number of processor chips that GPUS (3 or 6) need."""
    if gpus not in (GPUS_PER_CHIP, 2 * GPUS_PER_CHIP):
        raise ValueError(f"a Sequoia has 3 or 6 GPUs, not {gpus}")
    return gpus // GPUS_PER_CHIP


def qemu_args(gpus, memory="4G", gpu_ram="16G", icount=False, disks=()):
    """QEMU's arguments for GPUS GPUs, without firmware, kernel and tree.

    With ICOUNT an instruction takes a nanosecond of the machine's time, and
    waiting takes none of ours.
    DISKS are raw images, which are not changed: what is written is lost.

    The controller "emu-serial" has ports on bus SERIAL_BUS: add -chardev and
    -device virtserialport,bus=emu-serial.0,... for each.  Consoles (-serial),
    -L, -kernel, -initrd and -dtb are the caller's too.
    """
    count = chips(gpus)
    args = [
        "-M", "powernv9",
        *(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
          if icount else ["-accel", "tcg,thread=multi"]),
        "-smp", f"2,sockets={count},cores={2 // count},threads=1",
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
    for chip in range(count):
        bus = chip * PHBS_PER_CHIP + GPU_PHB
        args += ["-device", f"x3130-upstream,id=plx{chip},bus=pcie.{bus}"]
        for index in range(GPUS_PER_CHIP):
            gpu = chip * GPUS_PER_CHIP + index
            bricks = ((1 << LINKS_PER_GPU) - 1) << (index * LINKS_PER_GPU)
            # A socket has no switch of its own. Had it one, OPAL would use it for a fundamental
            # reset, and QEMU takes a card out of a slot that is switched off.
            args += [
                "-device",
                f"xio3130-downstream,id=slot{gpu},bus=plx{chip},port={index},"
                f"chassis={SWITCH_CHASSIS + chip},slot={index},addr={index},"
                f"power_controller_present=off",
                "-device",
                f"nvlink2-v100,id=gpu{gpu},bus=slot{gpu},"
                f"npu=/machine/chip[{chip}]/npu,bricks={bricks:#x},"
                f"ram-size={gpu_ram}",
            ]
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
        "-device", "pci-testdev",
    ]


# -- device tree -------------------------------------------------------------

# As real POWER9 firmware says it: 4K, 64K, 2M, 1G, with the AP encoding of each
# in the top three bits.
CPU = {
    "ibm,processor-radix-AP-encodings":
        [0x0000000c, 0xa0000010, 0x20000015, 0x4000001e],
}

# Lane masks and OBUS chiplet of the six links of a Sequoia chip.
LINK_PHY = [
    (0x9010c3f, 0x0f1e000),
    (0x9010c3f, 0xf0e1e00),
    (0x9010c3f, 0x0001e0f),
    (0xa010c3f, 0x0f1e000),
    (0xa010c3f, 0x0001e0f),
    (0xa010c3f, 0x0001e0f),
]

LINK_SPEED_BPS = 25_000_000_000
# Encoding of the vendor's: 9 = 25 Gbit/s per lane.
NVIDIA_LINK_SPEED = 9


# The nest MMU, which firmware tells where the kernel's partition table is.
NMMU = {
    "compatible": "ibm,power9-nest-mmu",
    "reg": [0x5012c40, 0x20],
}


def npu_node(chip):
    """The NPU as Hostboot describes it to OPAL, six links to three GPUs."""
    node = {
        "compatible": "ibm,power9-npu",
        "reg": [0x5011000, 0x2c00],
        "#address-cells": 1,
        "#size-cells": 0,
        "ibm,npu-index": chip,
        "ibm,npu-links": LINKS_PER_CHIP,
    }
    for link, (phy, lanes) in enumerate(LINK_PHY):
        group = link // LINKS_PER_GPU
        node[f"link@{link}"] = {
            "reg": link,
            "compatible": "ibm,npu-link",
            "ibm,npu-link-index": link,
            "ibm,npu-phy": U64(phy),
            "ibm,npu-lane-mask": lanes,
            "ibm,npu-group-id": group,
            "ibm,link-speed": U64(LINK_SPEED_BPS),
            "nvidia,link-speed": NVIDIA_LINK_SPEED,
            "ibm,slot-label": f"GPU{chip * GPUS_PER_CHIP + group}",
        }
    return node


def slot_node(chip):
    """The PCIe slots behind the chip's switch; OPAL matches their labels with
    those of the links."""
    return {
        "compatible": ["ibm,pcie-port", "ibm,pcie-root-port"],
        "reg": [chip, GPU_PHB],
        "#address-cells": 2,
        "#size-cells": 0,
        "ibm,slot-label": "PLX" if chip == 0 else f"PLX{chip}",
        f"switch-up@{SWITCH_VENDOR:x},{SWITCH_UPSTREAM:x}": {
            "compatible": "ibm,pcie-switch-up",
            "reg": [SWITCH_VENDOR, SWITCH_UPSTREAM],
            "#address-cells": 1,
            "#size-cells": 0,
            **{
                f"down-port@{port}": {
                    "compatible": "ibm,pcie-port",
                    "reg": port,
                    "ibm,slot-label": f"GPU{chip * GPUS_PER_CHIP + port}",
                }
                for port in range(GPUS_PER_CHIP)
            },
        },
    }


def edits(gpus):
    """What to merge into QEMU's tree: {path: {property or child: value}}."""
    count = chips(gpus)
    tree = {
        "/": {
            "compatible": ["ibm,witherspoon", "ibm,powernv"],
            "ibm,pcie-slots": {
                "#address-cells": 2,
                "#size-cells": 0,
                **{f"root-complex@{chip:x},{GPU_PHB}": slot_node(chip)
                   for chip in range(count)},
            },
        },
    }
    for chip in range(count):
        xscom = f"/xscom@{XSCOM_BASE + (chip << CHIP_SHIFT):x}"
        tree[xscom] = {"npu@5011000": npu_node(chip), "nmmu@5012c40": NMMU}
        # QEMU counts I2C engines from 1, the platform code of OPAL from 0.
        tree[f"{xscom}/i2cm@a1000/i2c-bus@4"] = {
            "ibm,port-name": f"p8_{chip:08x}_e1p4",
        }
    return tree


def make_tree(base_dtb, gpus, bootargs="", initrd=None):
    """Turn QEMU's own tree (-M powernv9,dumpdtb=) into a Witherspoon's.

    BASE_DTB and the result are flattened trees (bytes).  INITRD is the range
    (first byte, byte after the last) where QEMU loads -initrd, or None.
    """
    tree = Tree(base_dtb)
    for path, content in edits(gpus).items():
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
    kernel on the same machine: same number of GPUs, memory and processors.
    """
    tree = Tree(boot_dtb)
    mutations.mutate(tree, names)
    set_chosen(tree, bootargs, initrd)
    return shim.add_tree(kernel, tree.blob())


# -- command line ------------------------------------------------------------

def cmd_args(options):
    print("\n".join(qemu_args(options.gpus, gpu_ram=options.gpu_ram,
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
    write(options.output, make_tree(read(options.input), options.gpus,
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

    gpus = argparse.ArgumentParser(add_help=False)
    gpus.add_argument("--gpus", type=int, default=GPUS_PER_CHIP,
                      choices=(GPUS_PER_CHIP, 2 * GPUS_PER_CHIP),
                      help="number of GPUs, three per chip (default: 3)")

    args = commands.add_parser("args", parents=[gpus],
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

    tree = commands.add_parser("tree", parents=[gpus, chosen],
                               help="make the firmware's input tree")
    tree.add_argument("input", metavar="IN.dtb",
                      help="dumped by -M powernv9,dumpdtb=IN.dtb")
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
