#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the machine description, on made-up trees and kernels."""

import struct
import unittest

import libfdt

import check_tree
import machine
import mutations
import shim
from devtree import U64, Tree, cells

GIB = 1 << 30


def empty():
    """An empty tree."""
    blob = libfdt.Fdt.create_empty_tree(4096).as_bytearray()
    return Tree(bytes(blob))


def redbud(chips=2, **sockets):
    """A Redbud."""
    return machine.Machine(machine.BOARDS["redbud"], chips, **sockets)


def all_machines():
    """Both boards with one chip and with two."""
    return [machine.Machine(board, chips) for board in machine.BOARDS.values() for chips in (1, 2)]


def base(chips=1):
    """What machine.make_tree() needs of QEMU's tree."""
    tree = empty()
    tree.merge("/", {
        "compatible": ["qemu,powernv9", "ibm,powernv"],
        "cpus": {"PowerPC,POWER9@0": {"reg": 0}, "PowerPC,POWER9@4": {"reg": 4}},
        "chosen": {},
    })
    for chip in range(chips):
        tree.merge("/", {
            machine.xscom(chip).lstrip("/"): {
                "i2cm@a1000": {"i2c-bus@4": {"ibm,port-name": "wrong"}},
            },
        })
    return tree.blob()


def boot():
    """What OPAL makes of one chip: three GPUs with two bridges each."""
    tree = empty()
    gpus = {}
    bridges = {}
    memory = {}
    for gpu in range(3):
        start = (0x3e0 - 0x20 * gpu) << 32
        memory[f"memory@{start:x}"] = {
            "phandle": 0x30 + gpu,
            "reg": [U64(start), U64(128 * GIB)],
        }
        gpus[f"gpu@{gpu}"] = {
            "phandle": 0x10 + gpu,
            "ibm,npu": [0x20 + 2 * gpu, 0x21 + 2 * gpu],
        }
        for link in (2 * gpu, 2 * gpu + 1):
            bridges[f"bridge@{link}"] = {
                "phandle": 0x20 + link,
                "ibm,gpu": 0x10 + gpu,
                "ibm,nvlink": 0x40 + link,
                "ibm,nvlink-speed": 9,
                "ibm,device-tgt-addr": U64(start),
                "memory-region": 0x30 + gpu,
            }
    tree.merge("/", {
        **memory,
        "pciex@1": gpus,
        "pciex@2": {
            "compatible": ["ibm,power9-npu-pciex", "ibm,ioda2-npu2-phb"],
            "ibm,mmio-atsd": [U64(0x6030200800000 + 0x10000 * n)
                              for n in range(8)],
            **bridges,
        },
        "chosen": {"bootargs": "old"},
    })
    return tree.blob()


class Machine(unittest.TestCase):
    """The arguments and the input tree."""

    def test_gpus_have_their_own_bricks(self):
        for which in all_machines():
            devices = [dict(item.split("=") for item in arg.split(",")[1:])
                       for arg in machine.qemu_args(which) if arg.startswith("nvlink2-v100")]
            self.assertEqual(len(devices), which.board.gpus * which.chips)
            for chip in range(which.chips):
                bricks = [int(device["bricks"], 16) for device in devices
                          if device["npu"] == f"/machine/chip[{chip}]/npu"]
                # Each of the six has one GPU.
                self.assertEqual(sum(bricks), 0x3f)
                self.assertEqual({brick.bit_count() for brick in bricks}, {which.board.links})

    def test_short_form(self):
        self.assertEqual([(board.name, chips) for board, chips in map(machine.by_gpus, (2, 4, 3, 6))],
                         [("redbud", 1), ("redbud", 2), ("sequoia", 1), ("sequoia", 2)])
        for count in (0, 1, 5, 7, 8, 12):
            with self.assertRaises(ValueError):
                machine.by_gpus(count)
        with self.assertRaises(ValueError):
            redbud(chips=3)

    def test_empty_and_dead_sockets(self):
        whole = redbud()
        self.assertEqual(whole.sockets(), [["GPU0", "GPU1"], ["GPU3", "GPU4"]])
        self.assertEqual(whole.present(), 0x33)
        for how, present in (("empty", 0x31), ("dead", 0x33)):
            which = redbud(**{how: frozenset(["GPU1"])})
            self.assertEqual(which.present(), present)
            args = machine.qemu_args(which)
            self.assertIn(f"powernv9-witherspoon,gpus-present={present:#x},idle-speed={machine.IDLE_SPEED}", args)
            gpus = [arg.partition("id=")[2].partition(",")[0] for arg in args
                    if arg.startswith("nvlink2-v100")]
            self.assertEqual(gpus, ["gpu0", "gpu2", "gpu3"])
            # The board and what firmware says of it are the same.
            self.assertEqual(machine.edits(which), machine.edits(whole))
        for label in ("GPU2", "GPU5", "gpu0", ""):
            with self.assertRaises(ValueError):
                redbud(empty=frozenset([label]))

    def test_memory_map(self):
        wanted = "pnv-npu2.small-memory-map=on"
        self.assertNotIn(wanted, machine.qemu_args(redbud()))
        self.assertIn(wanted, machine.qemu_args(redbud(small_map=True)))

    def test_unforgiving_unless_asked(self):
        plain = machine.qemu_args(redbud())
        for name, values in machine.RELAXED.items():
            args = machine.qemu_args(redbud(relaxed=(name,)))
            for value in values:
                self.assertNotIn(value, plain)
                self.assertIn(value, args)
        wanted = "pnv-npu2.pest-write-ones=on"
        self.assertNotIn(wanted, plain)
        self.assertIn(wanted, machine.qemu_args(redbud(pest_ones=True)))
        wanted = "nvlink2-v100.hide-model=on"
        self.assertNotIn(wanted, plain)
        self.assertIn(wanted, machine.qemu_args(redbud(hide_model=True)))

    def test_lost_accesses(self):
        self.assertIn("pnv-npu2.dead=machine-check", machine.qemu_args(redbud()))
        self.assertIn("pnv-npu2.dead=ones", machine.qemu_args(redbud(dead_access="ones")))

    def test_power_of_slots(self):
        for on in (False, True):
            ports = [arg for arg in machine.qemu_args(redbud(slot_power=on))
                     if arg.startswith("xio3130-downstream")]
            self.assertEqual({arg.rpartition("=")[2] for arg in ports}, {"on" if on else "off"})

    def test_instructions_are_counted_by_one_thread(self):
        plain, counting = (machine.qemu_args(redbud(), icount=icount)
                           for icount in (False, True))
        self.assertNotIn("-icount", plain)
        self.assertIn("-icount", counting)
        self.assertIn("tcg,thread=single", counting)
        self.assertEqual(counting.count("-accel"), 1)

    def test_guests_have_no_firmware_of_ours(self):
        args = machine.guest_args()
        self.assertNotIn("powernv9", " ".join(args))
        self.assertTrue(args[args.index("-M") + 1].startswith("pseries"))
        self.assertNotIn("-dtb", args)

    def test_disks(self):
        args = machine.qemu_args(redbud(), disks=["/a", "/b,c"])
        drives = [arg for arg in args if arg.startswith("if=none")]
        self.assertEqual([arg.partition("file=")[2] for arg in drives],
                         ["/a", "/b,,c"])
        # Nobody may change the image, which other runs use at the same time.
        self.assertTrue(all("snapshot=on" in arg for arg in drives))
        buses = [arg.partition("bus=")[2] for arg in args
                 if arg.startswith(("virtio-", "x3130"))]
        self.assertEqual(len(set(buses)), 5)
        with self.assertRaises(ValueError):
            machine.qemu_args(redbud(), disks=["/a"] * 3)

    def test_tree(self):
        for which in all_machines():
            tree = Tree(machine.make_tree(base(which.chips), which, "quiet",
                                          (0x28000000, 0x28000123)))
            self.assertEqual(tree.get("/", "compatible"),
                             b"ibm,witherspoon\0ibm,powernv\0")
            self.assertEqual(tree.get("/chosen", "bootargs"), b"quiet\0")
            self.assertEqual(
                cells(tree.get("/chosen", "linux,initrd-end")), [0x28000123])
            self.assertEqual(
                cells(tree.get("/cpus/PowerPC,POWER9@4",
                               "ibm,processor-radix-AP-encodings")),
                [0x0c, 0xa0000010, 0x20000015, 0x4000001e])
            # A link has the label of the slot its GPU sits in.
            slots = [tree.get(path, "ibm,slot-label")
                     for path in tree.walk("/ibm,pcie-slots")
                     if "down-port" in path]
            links = [tree.get(path, "ibm,slot-label")
                     for path in tree.walk() if "/link@" in path]
            sockets = {label.encode() + b"\0" for chip in which.sockets() for label in chip}
            self.assertEqual(set(slots) - {b"BUILTIN\0"}, sockets)
            self.assertEqual(len(links), 6 * which.chips)
            for label in sockets:
                self.assertEqual(links.count(label), which.board.links)
            for chip in range(which.chips):
                xscom = machine.xscom(chip)
                self.assertEqual(
                    tree.get(f"{xscom}/i2cm@a1000/i2c-bus@4",
                             "ibm,port-name"),
                    f"p8_{8 * chip:08x}_e1p4\0".encode())
                # Without it OPAL does not know the nest MMU of the chip.
                self.assertEqual(
                    tree.get(f"{xscom}/nmmu@5012c40", "compatible"),
                    b"ibm,power9-nest-mmu\0")
                self.assertEqual(
                    cells(tree.get(f"{xscom}/nmmu@5012c40", "reg")),
                    [0x5012c40, 0x20])

    def test_children_keep_their_order(self):
        tree = empty()
        tree.merge("/", {"b": {}, "a": {"x": 1, "w": 2}})
        self.assertEqual(tree.children("/"), ["/b", "/a"])
        self.assertEqual(list(tree.properties("/a")), ["x", "w"])


# What skiboot's parser made of the HDAT of a real Redbud; the root has QEMU's source.
RECORDING = "/made/qemu/source/roms/skiboot/hdata/test/op920.wsp.dts"


class Recording(unittest.TestCase):
    """What OPAL is told of a Redbud is what a real one's firmware says, wherever that says it."""

    def test_redbud(self):
        real = check_tree.load_source(RECORDING)
        ours = Tree(machine.make_tree(base(2), redbud()))
        self.assertEqual(list(check_tree.differences(real, ours)), [])

    def test_each_difference_is_seen(self):
        real = check_tree.load_source(RECORDING)
        blob = machine.make_tree(base(2), redbud())
        link = f"{machine.xscom(1)}/npu@5011000/link@4"
        for name in ("ibm,npu-phy", "ibm,npu-lane-mask", "ibm,link-speed", "ibm,slot-label"):
            for value in (None, b"\0\0\0\x2a"):
                ours = Tree(blob)
                if value is None:
                    ours.delete(link, name)
                else:
                    ours.set(link, name, value)
                (said,) = check_tree.differences(real, ours)
                self.assertTrue(said.startswith(f"{link}: ") and name in said, said)
        ours = Tree(blob)
        ours.set("/ibm,pcie-slots/root-complex@8,5/switch-up@104c,8232/down-port@4",
                 "ibm,slot-label", "GPU4")
        self.assertEqual(len(list(check_tree.differences(real, ours))), 1)
        sequoia = machine.Machine(machine.BOARDS["sequoia"], 2)
        ours = Tree(machine.make_tree(base(2), sequoia))
        self.assertLess(12, len(list(check_tree.differences(real, ours))))


class Mutations(unittest.TestCase):
    """Bad firmware."""

    def test_each_changes_just_what_it_says(self):
        before = Tree(boot())
        names = mutations.mutations(before)
        for name in names:
            after = Tree(boot())
            mutations.mutate(after, [name])
            changed = [(path, prop)
                       for path in before.walk()
                       for prop in before.properties(path)
                       if before.get(path, prop) != after.get(path, prop)]
            self.assertEqual(changed,
                             [(names[name].path, names[name].property)], name)

    def test_all_devices(self):
        devices = {name.split("-")[0] for name in
                   mutations.mutations(Tree(boot()))}
        self.assertEqual(devices, {"gpu0", "gpu1", "gpu2", "npu0",
                                   "mem0", "mem1", "mem2",
                                   *(f"bridge{n}" for n in range(6))})

    def test_combination(self):
        tree = Tree(boot())
        mutations.mutate(tree, ["mem1-reg-overlap", "bridge4-tgt-missing"])
        # mem1 starts in its own middle and reaches the middle of mem0.
        self.assertEqual(cells(tree.get("/memory@3c000000000", "reg"), 8),
                         [0x3d000000000, 128 * GIB])
        self.assertIsNone(tree.get("/pciex@2/bridge@4",
                                   "ibm,device-tgt-addr"))

    def test_overlap(self):
        apertures = [0x3e000000000, 0x3c000000000, 0x3a000000000]
        for number, old in enumerate(apertures):
            tree = Tree(boot())
            mutations.mutate(tree, [f"mem{number}-reg-overlap"])
            start, size = cells(tree.get(f"/memory@{old:x}", "reg"), 8)
            self.assertTrue(any(
                start < other + size and other < start + size
                for other in apertures if other != old))

    def test_wrap(self):
        tree = Tree(boot())
        mutations.mutate(tree, ["mem0-reg-wraps"])
        start, size = cells(tree.get("/memory@3e000000000", "reg"), 8)
        self.assertGreater(start + size, 1 << 64)

    def test_unknown_and_impossible(self):
        with self.assertRaises(ValueError):
            mutations.mutate(Tree(boot()), ["gpu9-npu-missing"])
        with self.assertRaises(ValueError):
            mutations.mutate(Tree(boot()), ["gpu0-npu-missing",
                                            "gpu0-npu-empty"])


ENTRY_OFFSET = 0x10000


def vmlinux(size=0x20000, bss=0x5000):
    """A kernel with one segment, entered at its start."""
    image = bytearray(ENTRY_OFFSET + size)
    image[:shim.EHDR.size] = shim.EHDR.pack(
        shim.ELF64_LSB + bytes(10), 2, shim.EM_PPC64, 1, 0xc000000000000000,
        64, 0, 0, 64, shim.PHDR.size, 1, 0, 0, 0)
    shim.PHDR.pack_into(image, 64, shim.PT_LOAD, 7, ENTRY_OFFSET,
                        0xc000000000000000, 0, size, size + bss, 0x10000)
    return bytes(image)


def opal_entry(image):
    """Where OPAL enters a kernel, as an offset into the file."""
    ehdr = shim.EHDR.unpack_from(image)
    for i in range(ehdr[10]):
        kind, _, offset, vaddr, _, _, memsz, _ = \
            shim.PHDR.unpack_from(image, ehdr[5] + i * shim.PHDR.size)
        if kind == shim.PT_LOAD and vaddr <= ehdr[4] <= vaddr + memsz:
            return ehdr[4] - vaddr + offset
    raise AssertionError("no segment has the entry point")


def run(image, pc, regs):
    """Run the stub's big-endian code until it branches; give the target."""
    memory = bytearray(image)
    link = ctr = 0
    while True:
        word, = struct.unpack_from(">I", memory, pc)
        op, rt, ra = word >> 26, word >> 21 & 31, word >> 16 & 31
        value = (word & 0xffff) - (0x10000 if word & 0x8000 else 0)
        if word == shim.BCL_NEXT:
            link = pc + 4
        elif word == shim.MFLR_R12:
            regs[12] = link
        elif word == shim.MTCTR_R12:
            ctr = regs[12]
        elif word == shim.BCTR:
            return ctr, memory
        elif op == 14:
            regs[rt] = regs[ra] + value
        elif op == 15:
            regs[rt] = regs[ra] + (value << 16)
        elif op == 32:
            regs[rt], = struct.unpack_from(">I", memory, regs[ra] + value)
        elif op == 36:
            struct.pack_into(">I", memory, regs[ra] + value, regs[rt])
        else:
            raise AssertionError(f"{word:08x}")
        pc += 4


class Shim(unittest.TestCase):
    """The tree that a kernel brings along."""

    def check(self, kernel, tree):
        image = shim.add_tree(kernel, tree)
        # The rest of the kernel stays as it is.
        self.assertEqual(image[shim.EHDR.size:len(kernel)],
                         kernel[shim.EHDR.size:])
        # OPAL's own tree: its boot processor is number 7.
        opal = len(image)
        given = image + struct.pack(">10I", *[0] * 7, 7, 0, 0)
        regs = {3: opal, 4: 0, 8: 0x30000000, 9: 0x30001000}
        target, memory = run(given, opal_entry(image), regs)
        self.assertEqual(target, ENTRY_OFFSET)
        self.assertEqual((regs[4], regs[8], regs[9]),
                         (0, 0x30000000, 0x30001000))
        found = memory[regs[3]:regs[3] + len(tree)]
        self.assertEqual(struct.unpack_from(">I", found, 28)[0], 7)
        self.assertEqual(found[:28] + found[32:], tree[:28] + tree[32:])
        # It is clear of the kernel's bss, which OPAL does not load.
        self.assertGreaterEqual(regs[3], ENTRY_OFFSET + 0x25000)

    def test_sizes(self):
        for size in (0x100, 0xfffc, 0x18000, 0x28000, 0x345678):
            for blob in (boot(), boot() + bytes(0x12345)):
                self.check(vmlinux(max(size, 0x20000)), blob)

    def test_bss(self):
        image = shim.add_tree(vmlinux(bss=0x400000), boot())
        self.assertGreaterEqual(opal_entry(image), 0x420000)

    def test_not_a_kernel(self):
        for data in (b"", b"\x7fELF", bytes(4096),
                     vmlinux()[:18] + b"\x3e\0" + vmlinux()[20:]):
            with self.assertRaises(ValueError):
                shim.add_tree(data, boot())

    def test_whole(self):
        image = machine.make_shim(vmlinux(), boot(), ["gpu0-npu-missing"],
                                  "new", (0x28000000, 0x28000001))
        regs = {3: 0, 4: 0, 8: 0, 9: 0}
        _, memory = run(image, opal_entry(image), regs)
        size, = struct.unpack_from(">I", memory, regs[3] + 4)
        tree = Tree(bytes(memory[regs[3]:regs[3] + size]))
        self.assertEqual(tree.get("/chosen", "bootargs"), b"new\0")
        self.assertIsNone(tree.get("/pciex@1/gpu@0", "ibm,npu"))


if __name__ == "__main__":
    unittest.main()
