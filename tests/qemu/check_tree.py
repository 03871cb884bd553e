#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare the NVLink2 part of a device tree with what it should be.

    check_tree.py print BOOT.dtb                  the part, as text
    check_tree.py check EXPECTED BOOT.dtb         exit status 1 if it differs
    check_tree.py recording REAL.dts BOOT.dtb     the same, from a real machine

BOOT.dtb is /sys/firmware/fdt of the emulated host.  The part is what a driver
sees of NPUs, bridges, GPUs, their slots and their memory; phandles are shown as
the nodes they name, as their numbers depend on the rest of the tree.

REAL.dts is skiboot's recording of a Redbud, hdata/test/op920.wsp.dts in its
source: what firmware tells OPAL, which passes it on.

With --mutations the text is what mutations.py can do to that part: name, node,
property and its new value, separated by tabs.
"""

import argparse
import difflib
import subprocess
import sys

import libfdt

import mutations
from devtree import Tree, cells

COMPATIBLE = {"ibm,power9-npu", "ibm,ioda2-npu2-phb",
              "ibm,coherent-device-memory"}
# Subtrees that belong whole.
WHOLE = {"ibm,power9-npu", "ibm,ioda2-npu2-phb"}
PHANDLES = {"ibm,npcq", "ibm,npu", "ibm,gpu", "ibm,nvlink", "memory-region",
            "interrupt-parent"}
STRINGS = {"compatible", "device_type", "ibm,loc-code", "ibm,slot-label",
           "ibm,npu-link-type"}
# Pairs of phandles: another GPU and the bridge to it, or the GPU twice.
PEERS = "ibm,nvlink-peers"
# Unit address (3), pin, controller's phandle, source and sense.
MAP_ENTRY, MAP_PHANDLE = 7, 4


def selected(tree):
    """Paths of the nodes to compare, in a fixed order."""
    paths = set()
    for path in tree.walk():
        names = (tree.get(path, "compatible") or b"").decode().split("\0")
        if COMPATIBLE & set(names) or tree.get(path, "ibm,npu"):
            paths.update(tree.walk(path) if WHOLE & set(names) else [path])
    paths.update(tree.walk("/ibm,pcie-slots"))
    return sorted(paths)


def show(tree, owners, name, data):
    """A property's value as text."""
    def node(phandle):
        return f"&{owners.get(phandle, hex(phandle))}"

    if name in STRINGS:
        return " ".join(f'"{text}"' for text in data[:-1].decode().split("\0"))
    if rest := len(data) % 4:
        # What is less than a cell is shown as a device tree's source has it.
        whole = show(tree, owners, name, data[:-rest])
        return f"{whole} [{data[-rest:].hex()}]".lstrip()
    numbers = cells(data)
    if name in PHANDLES or name == PEERS:
        return " ".join(map(node, numbers))
    if name == "interrupt-map":
        return " ".join(
            node(number) if index % MAP_ENTRY == MAP_PHANDLE else f"{number:x}"
            for index, number in enumerate(numbers))
    return " ".join(f"{number:x}" for number in numbers)


def lines(tree):
    """The NVLink2 part of TREE."""
    owners = tree.phandles()
    for path in selected(tree):
        yield path
        for name, data in sorted(tree.properties(path).items()):
            if name != "phandle":
                yield f"  {name} {show(tree, owners, name, data)}".rstrip()


def changes(tree):
    """What can be done to the NVLink2 part of TREE."""
    owners = tree.phandles()
    for change in mutations.mutations(tree).values():
        data = change.value()
        value = "/delete-property/" if data is None else \
            show(tree, owners, change.property, data) or "[]"
        yield "\t".join([change.name, change.path, change.property, value])


# The parts of the machine that the recording and ours have in common, by "compatible".
RECORDED = {"ibm,power9-npu", "ibm,npu-link", "ibm,power9-nest-mmu"}
# What is known of speculation has a node each, with a property that says whether it is so.
FW_FEATURES = "/ibm,opal/fw-features/"
# What a node may lack that is in the recording: phandles, and of PCIe slots what QEMU has not:
# lanes, and that cards can be plugged in.
UNTOLD = {"phandle", "ibm,pcie-slot", "upstream-port", "lane-mask", "ibm,pluggable"}


def names_of(tree, path):
    """What the node is compatible with."""
    return set((tree.get(path, "compatible") or b"").decode().split("\0"))


def counterparts(real, ours):
    """Pairs of nodes, in REAL and in OURS, that have to say the same."""
    for path in real.walk():
        if RECORDED & names_of(real, path) or path.startswith(FW_FEATURES):
            yield path, path
    for path in ours.children("/ibm,pcie-slots"):
        yield path, path
        # Switches are of different makers, which is in the names; their ports count.
        (theirs,), (switch,) = real.children(path), ours.children(path)
        known = {port.rpartition("/")[2]: port for port in real.children(theirs)}
        for port in ours.children(switch):
            if label := known.get(port.rpartition("/")[2]):
                yield label, port


def differences(real, ours):
    """What OURS, the tree of a Redbud, says otherwise than REAL, as text."""
    count = 0
    for there, here in counterparts(real, ours):
        count += 1
        try:
            found = ours.properties(here)
        except KeyError:
            yield f"{here}: there is no such node"
            continue
        for name, wanted in sorted(real.properties(there).items()):
            if name not in found and name not in UNTOLD:
                yield f"{here}: no {name}"
            elif name in found and name not in PHANDLES | {"phandle"} and found[name] != wanted:
                yield f"{here}: {name} is {show(ours, {}, name, found[name])}, " \
                      f"and {show(real, {}, name, wanted)} in the recording"
    # Of each chip the NPU, its six links, the nest MMU, a host bridge and two sockets; and 15 features.
    if count != 2 * 11 + 15:
        yield f"the trees have {count} nodes in common"


def load_source(path):
    """The tree of a source file."""
    done = subprocess.run(["dtc", "-q", "-I", "dts", "-O", "dtb", path],
                          stdout=subprocess.PIPE, check=True)
    return Tree(done.stdout)


def load(path):
    with open(path, "rb") as file:
        return Tree(file.read())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    what = argparse.ArgumentParser(add_help=False)
    what.add_argument("--mutations", dest="lines", action="store_const",
                      const=changes, default=lines,
                      help="not the part, but what can be done to it")
    printing = commands.add_parser("print", parents=[what],
                                   help="show the part as text")
    printing.add_argument("tree", metavar="BOOT.dtb")
    checking = commands.add_parser("check", parents=[what],
                                   help="compare it with a file")
    checking.add_argument("expected", metavar="EXPECTED")
    checking.add_argument("tree", metavar="BOOT.dtb")
    recording = commands.add_parser(
        "recording", help="compare it with what a real machine's firmware says")
    recording.add_argument("source", metavar="REAL.dts")
    recording.add_argument("tree", metavar="BOOT.dtb")
    options = parser.parse_args()
    try:
        if options.command == "recording":
            found = list(differences(load_source(options.source), load(options.tree)))
            print("\n".join(found or ["as recorded"]))
            return 1 if found else 0
        found = list(options.lines(load(options.tree)))
        if options.command == "print":
            print("\n".join(found))
            return 0
        with open(options.expected, encoding="utf-8") as file:
            expected = [line for line in file.read().splitlines()
                        if not line.startswith("#")]
    except (OSError, libfdt.FdtException, KeyError, subprocess.CalledProcessError) as error:
        sys.exit(f"check_tree.py: {error}")
    difference = list(difflib.unified_diff(expected, found, options.expected,
                                           options.tree, n=1, lineterm=""))
    print("\n".join(difference or [f"{len(found)} lines as expected"]))
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
