#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated Witherspoon: QEMU's arguments and the firmware's input tree.

QEMU's powernv9 machine has the processor, the PHBs and one NPU2 per chip; what
makes it a Witherspoon ("Sequoia", three GPUs with two NVLinks each per chip) is
the switch and the GPUs on the command line and what Hostboot would tell OPAL
in the device tree.  Both are tables in this file.

    machine.py args --gpus 3                      one argument per line
    machine.py tree --gpus 3 --append TEXT [--initrd FILE] IN.dtb OUT.dtb
"""

import argparse
import sys

import libfdt

# -- topology ----------------------------------------------------------------

GPUS_PER_CHIP = 3
LINKS_PER_GPU = 2
LINKS_PER_CHIP = GPUS_PER_CHIP * LINKS_PER_GPU

# PHBs of one powernv9 chip; QEMU numbers the root buses pcie.0, pcie.1, ...
# through all chips.
PHBS_PER_CHIP = 6
GPU_PHB = 0
SERIAL_PHB = 1

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


def qemu_args(gpus, memory="4G", gpu_ram="16G"):
    """QEMU's arguments for GPUS GPUs, without firmware, kernel and tree.

    The controller "emu-serial" has ports on bus SERIAL_BUS: add -chardev and
    -device virtserialport,bus=emu-serial.0,... for each.  Consoles (-serial),
    -L, -kernel, -initrd and -dtb are the caller's too.
    """
    count = chips(gpus)
    args = [
        "-M", "powernv9",
        "-accel", "tcg,thread=multi",
        "-smp", f"2,sockets={count},cores={2 // count},threads=1",
        "-m", memory,
        "-display", "none",
        "-nic", "none",
        "-device", f"virtio-serial-pci,id=emu-serial,bus=pcie.{SERIAL_PHB}",
    ]
    for chip in range(count):
        bus = chip * PHBS_PER_CHIP + GPU_PHB
        args += ["-device", f"x3130-upstream,id=plx{chip},bus=pcie.{bus}"]
        for index in range(GPUS_PER_CHIP):
            gpu = chip * GPUS_PER_CHIP + index
            bricks = ((1 << LINKS_PER_GPU) - 1) << (index * LINKS_PER_GPU)
            args += [
                "-device",
                f"xio3130-downstream,id=slot{gpu},bus=plx{chip},port={index},"
                f"chassis={SWITCH_CHASSIS + chip},slot={index},addr={index}",
                "-device",
                f"nvlink2-v100,id=gpu{gpu},bus=slot{gpu},"
                f"npu=/machine/chip[{chip}]/npu,bricks={bricks:#x},"
                f"ram-size={gpu_ram}",
            ]
    return args


# -- device tree -------------------------------------------------------------

class U64(int):
    """A property of one 64-bit cell pair."""


def encode(value):
    """Bytes of a property: str, list of str, int (u32), U64, list of u32."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, U64):
        return value.to_bytes(8, "big")
    if isinstance(value, int):
        return value.to_bytes(4, "big")
    if isinstance(value, str):
        return value.encode() + b"\0"
    return b"".join(encode(item) for item in value)


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
        tree[xscom] = {"npu@5011000": npu_node(chip)}
        # QEMU counts I2C engines from 1, the platform code of OPAL from 0.
        tree[f"{xscom}/i2cm@a1000/i2c-bus@4"] = {
            "ibm,port-name": f"p8_{chip:08x}_e1p4",
        }
    return tree


def children(fdt, path):
    """Names of a node's children, in order."""
    names = []
    node = fdt.first_subnode(fdt.path_offset(path), libfdt.QUIET_NOTFOUND)
    while node >= 0:
        names.append(fdt.get_name(node))
        node = fdt.next_subnode(node, libfdt.QUIET_NOTFOUND)
    return names


def merge(fdt, path, content):
    """Set the properties and create the children that CONTENT lists."""
    # Properties first and children in reverse: libfdt puts new ones in front.
    for name, value in reversed(list(content.items())):
        if isinstance(value, dict):
            child = f"{path.rstrip('/')}/{name}"
            if fdt.path_offset(child, libfdt.QUIET_NOTFOUND) < 0:
                fdt.add_subnode(fdt.path_offset(path), name)
            merge(fdt, child, value)
        else:
            fdt.setprop(fdt.path_offset(path), name, encode(value))


def make_tree(base_dtb, gpus, bootargs="", initrd=None):
    """Turn QEMU's own tree (-M powernv9,dumpdtb=) into a Witherspoon's.

    BASE_DTB and the result are flattened trees (bytes).  INITRD is the range
    (first byte, byte after the last) where QEMU loads -initrd, or None.
    """
    fdt = libfdt.Fdt(base_dtb)
    fdt.resize(len(base_dtb) + 0x10000)
    for path, content in edits(gpus).items():
        merge(fdt, path, content)
    for cpu in children(fdt, "/cpus"):
        merge(fdt, f"/cpus/{cpu}", CPU)
    chosen = {"bootargs": bootargs}
    if initrd:
        chosen["linux,initrd-start"], chosen["linux,initrd-end"] = initrd
    merge(fdt, "/chosen", chosen)
    fdt.pack()
    return bytes(fdt.as_bytearray())


def initrd_range(path):
    """Where QEMU puts the initial RAM disk PATH."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
    if size > INITRD_MAX:
        raise ValueError(f"{path}: {size} bytes, QEMU loads {INITRD_MAX} at most")
    return INITRD_BASE, INITRD_BASE + size


# -- command line ------------------------------------------------------------

def cmd_args(options):
    print("\n".join(qemu_args(options.gpus)))


def cmd_tree(options):
    with open(options.input, "rb") as file:
        base = file.read()
    initrd = initrd_range(options.initrd) if options.initrd else None
    tree = make_tree(base, options.gpus, options.append, initrd)
    with open(options.output, "wb") as file:
        file.write(tree)


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
    args.set_defaults(run=cmd_args)

    tree = commands.add_parser("tree", parents=[gpus],
                               help="make the firmware's input tree")
    tree.add_argument("--append", default="", metavar="TEXT",
                      help="the kernel's command line")
    tree.add_argument("--initrd", metavar="FILE",
                      help="the file QEMU is given with -initrd")
    tree.add_argument("input", metavar="IN.dtb",
                      help="dumped by -M powernv9,dumpdtb=IN.dtb")
    tree.add_argument("output", metavar="OUT.dtb", help="for -dtb")
    tree.set_defaults(run=cmd_tree)
    return top


def main():
    options = parser().parse_args()
    try:
        options.run(options)
    except (OSError, ValueError, libfdt.FdtException) as error:
        sys.exit(f"machine.py: {error}")


if __name__ == "__main__":
    main()
