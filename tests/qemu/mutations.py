# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad firmware: named, single changes of the device tree that OPAL gives Linux.

A mutation is named DEVICE-PROPERTY-DEFECT, e.g. bridge3-tgt-missing.  Devices
are gpu0.., bridge0.. (in the order of the NPU's links), mem0.. (the apertures,
in the order of the GPUs) and npu0.. (NVLink PHBs).
"""

from dataclasses import dataclass
from typing import Callable

from devtree import U64, cells

# A phandle that no node has.
DANGLING = 0x7fffffff

TIB = 1 << 40


@dataclass(frozen=True)
class Mutation:
    """One change: of PROPERTY of the node at PATH, described by TEXT.

    VALUE gives the property's new bytes, or None to remove it.
    """
    name: str
    path: str
    property: str
    text: str
    value: Callable


@dataclass(frozen=True)
class Defect:
    """A way for a property to be bad.

    CHANGE takes the property's bytes and gives new ones, or None to remove it.
    """
    name: str
    text: str
    change: Callable


def reg(start=None, size=None):
    """Replace the start or the size of a memory node's reg."""
    def change(data):
        old_start, old_size = cells(data, 8)
        new_start = old_start if start is None else start(old_start, old_size)
        new_size = old_size if size is None else size
        return U64(new_start % (1 << 64)).to_bytes(8, "big") + \
            U64(new_size).to_bytes(8, "big")
    return change


MISSING = Defect("missing", "is not there", lambda data: None)
EMPTY = Defect("empty", "has no value", lambda data: b"")
TRUNCATED = Defect("truncated", "ends within a cell", lambda data: data[:-2])
HALF = Defect("half", "has one cell of two", lambda data: data[:4])
DANGLES = Defect("dangling", "names a node that does not exist",
                 lambda data: DANGLING.to_bytes(4, "big") + data[4:])

PHANDLE = [MISSING, EMPTY, TRUNCATED, DANGLES]

GPU = {
    "npu": ("ibm,npu", PHANDLE + [
        Defect("self", "names the GPU itself", None),
    ]),
}

BRIDGE = {
    "gpu": ("ibm,gpu", PHANDLE),
    "nvlink": ("ibm,nvlink", PHANDLE),
    "memory": ("memory-region", PHANDLE),
    "tgt": ("ibm,device-tgt-addr", [
        MISSING, EMPTY, TRUNCATED, HALF,
        Defect("zero", "is 0", lambda data: bytes(8)),
    ]),
    "speed": ("ibm,nvlink-speed", [
        MISSING, EMPTY, TRUNCATED,
        Defect("zero", "is 0", lambda data: bytes(4)),
    ]),
}

MEMORY = {
    "reg": ("reg", [
        MISSING, EMPTY, TRUNCATED,
        Defect("short", "has an address and no size", lambda data: data[:8]),
        Defect("zero", "is all zero", lambda data: bytes(16)),
        Defect("nosize", "has a size of 0", reg(size=0)),
        Defect("noaddress", "has an address of 0", reg(start=lambda a, s: 0)),
        Defect("unaligned", "starts within a 64 KiB page",
               reg(start=lambda a, s: a + 0x1000)),
        Defect("oddsize", "ends within a 64 KiB page",
               reg(size=(128 << 30) - 0x1000)),
        Defect("beyond", "is larger than 1 TiB", reg(size=2 * TIB)),
        Defect("wraps", "wraps around the end of the address space",
               reg(start=lambda a, s: -s // 2)),
    ]),
}

# The apertures lie side by side, that of the first GPU at the top.
OVERLAP_HIGHER = Defect("overlap", "covers half of the next higher aperture",
                        reg(start=lambda a, s: a + s // 2))
OVERLAP_LOWER = Defect("overlap", "covers half of the next lower aperture",
                       reg(start=lambda a, s: a - s // 2))


def memory_table(number):
    """What can be wrong with the aperture of GPU NUMBER."""
    prop, defects = MEMORY["reg"]
    overlap = OVERLAP_HIGHER if number else OVERLAP_LOWER
    return {"reg": (prop, defects + [overlap])}


NPU = {
    "atsd": ("ibm,mmio-atsd", [
        MISSING, EMPTY,
        Defect("truncated", "ends within an address", lambda data: data[:-4]),
        Defect("short", "has an address for the first link only",
               lambda data: data[:8]),
        Defect("zero", "has an address of 0 for the first link",
               lambda data: bytes(8) + data[8:]),
        Defect("unaligned", "has an address within a 64 KiB page for the "
               "first link",
               lambda data: U64(cells(data, 8)[0] + 0x1000).to_bytes(8, "big") +
               data[8:]),
    ]),
}


def compatible(tree, path, name):
    """Whether the node is compatible with NAME."""
    value = tree.get(path, "compatible") or b""
    return name.encode() in value.split(b"\0")


def devices(tree):
    """{device: (path, its table)} of all NVLink2 nodes of TREE."""
    found = {}
    nodes = list(tree.walk())
    owners = tree.phandles()
    gpus = [path for path in nodes if tree.get(path, "ibm,npu")]
    for number, path in enumerate(gpus):
        found[f"gpu{number}"] = (path, GPU)
    bridges = [path for path in nodes if tree.get(path, "ibm,nvlink")]
    for number, path in enumerate(bridges):
        found[f"bridge{number}"] = (path, BRIDGE)
    for number, path in enumerate(gpus):
        link = owners[cells(tree.get(path, "ibm,npu"))[0]]
        memory = owners[cells(tree.get(link, "memory-region"))[0]]
        found[f"mem{number}"] = (memory, memory_table(number))
    phbs = [path for path in nodes
            if compatible(tree, path, "ibm,ioda2-npu2-phb")]
    for number, path in enumerate(phbs):
        found[f"npu{number}"] = (path, NPU)
    return found


def value_of(tree, path, prop, defect):
    """What gives the bytes that DEFECT makes of PROP of the node at PATH."""
    def value():
        old = tree.get(path, prop)
        if old is None:
            raise ValueError(f"{path} has no {prop} any more")
        if defect.name == "self":
            return tree.get(path, "phandle") + old[4:]
        return defect.change(old)
    return value


def mutations(tree):
    """{name: Mutation} of all that can be done to TREE."""
    found = {}
    for device, (path, table) in devices(tree).items():
        for short, (prop, defects) in table.items():
            for defect in defects:
                name = f"{device}-{short}-{defect.name}"
                found[name] = Mutation(name, path, prop, defect.text,
                                       value_of(tree, path, prop, defect))
    return found


def mutate(tree, names):
    """Apply the named mutations, in order."""
    known = mutations(tree)
    for name in names:
        if name not in known:
            raise ValueError(f"no mutation {name}; see \"machine.py mutations\"")
        change = known[name]
        new = change.value()
        if new is None:
            tree.delete(change.path, change.property)
        else:
            tree.set(change.path, change.property, new)
