# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and editing flattened device trees by path, over libfdt."""

import libfdt


class U64(int):
    """A property of one 64-bit cell pair."""


def encode(value):
    """Bytes of a property: bytes, str, int (u32), U64, or a list of these."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, U64):
        return value.to_bytes(8, "big")
    if isinstance(value, int):
        return value.to_bytes(4, "big")
    if isinstance(value, str):
        return value.encode() + b"\0"
    return b"".join(encode(item) for item in value)


def cells(data, width=4):
    """A property's bytes as a list of big-endian numbers of WIDTH bytes."""
    return [int.from_bytes(data[i:i + width], "big")
            for i in range(0, len(data), width)]


class Tree:
    """A flattened device tree that can be changed."""

    # Room for what the callers add.
    SPARE = 0x10000

    def __init__(self, blob):
        self.fdt = libfdt.Fdt(blob)
        self.fdt.resize(len(blob) + self.SPARE)

    def offset(self, path):
        """The node's offset; KeyError if there is none."""
        offset = self.fdt.path_offset(path, libfdt.QUIET_NOTFOUND)
        if offset < 0:
            raise KeyError(path)
        return offset

    def children(self, path):
        """Paths of a node's children, in order."""
        paths = []
        node = self.fdt.first_subnode(self.offset(path), libfdt.QUIET_NOTFOUND)
        while node >= 0:
            paths.append(f"{path.rstrip('/')}/{self.fdt.get_name(node)}")
            node = self.fdt.next_subnode(node, libfdt.QUIET_NOTFOUND)
        return paths

    def walk(self, path="/"):
        """Paths of a node and all below it, parents first."""
        yield path
        for child in self.children(path):
            yield from self.walk(child)

    def properties(self, path):
        """{name: bytes} of a node, in order."""
        found = {}
        prop = self.fdt.first_property_offset(self.offset(path),
                                              libfdt.QUIET_NOTFOUND)
        while prop >= 0:
            item = self.fdt.get_property_by_offset(prop)
            found[item.name] = bytes(item)
            prop = self.fdt.next_property_offset(prop, libfdt.QUIET_NOTFOUND)
        return found

    def get(self, path, name):
        """A property's bytes, or None."""
        prop = self.fdt.getprop(self.offset(path), name, libfdt.QUIET_NOTFOUND)
        return None if isinstance(prop, int) else bytes(prop)

    def set(self, path, name, value):
        """Set a property to what encode() makes of VALUE."""
        self.fdt.setprop(self.offset(path), name, encode(value))

    def delete(self, path, name):
        """Remove a property."""
        self.fdt.delprop(self.offset(path), name)

    def merge(self, path, content):
        """Set the properties and create the children (dicts) in CONTENT."""
        # In reverse: libfdt puts new properties and children in front.
        for name, value in reversed(list(content.items())):
            if isinstance(value, dict):
                child = f"{path.rstrip('/')}/{name}"
                try:
                    self.offset(child)
                except KeyError:
                    self.fdt.add_subnode(self.offset(path), name)
                self.merge(child, value)
            else:
                self.set(path, name, value)

    def phandles(self):
        """{phandle: path} of all nodes that have one."""
        found = {}
        for path in self.walk():
            phandle = self.get(path, "phandle")
            if phandle:
                found[cells(phandle)[0]] = path
        return found

    def blob(self):
        """The flattened tree."""
        self.fdt.pack()
        return bytes(self.fdt.as_bytearray())[:self.fdt.totalsize()]
