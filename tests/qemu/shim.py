# SPDX-License-Identifier: GPL-2.0-or-later
"""Give a kernel a device tree of its own, whatever firmware passes to it.

OPAL stays unmodified and enters vmlinux in place, where QEMU loaded the file,
at the offset of the program header that holds the entry point.  So a tree and
a few instructions at the end of the file, with a program header for them, are
entered instead of the kernel: they load the address of the tree and go on to
the kernel.  OPAL's own tree is asked for one thing, which processor won the race
to boot (boot_cpuid_phys in the header): it may be another one at each boot.
"""

import struct

ALIGN = 0x10000

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
PT_LOAD = 1
PF_RX = 5
EM_PPC64 = 21
ELF64_LSB = b"\x7fELF\x02\x01"

# OPAL enters in big-endian mode with r3 = its tree, r8 and r9 = its own base
# and entry, r6 and r7 = ePAPR's; the kernel looks at r4 and r5 too.  r11, r12
# and CTR are free, and LR: nobody returns.
LWZ_R11_BOOT_CPU = 0x8163001c   # lwz r11,28(r3)
STW_R11_BOOT_CPU = 0x9163001c   # stw r11,28(r3)
MFLR_R12 = 0x7d8802a6
MTCTR_R12 = 0x7d8903a6
BCTR = 0x4e800420
BCL_NEXT = 0x429f0005           # bcl 20,31,.+4: LR = the next instruction


def addis(target, source, value):
    """addis TARGET,SOURCE,VALUE."""
    return 0x3c000000 | target << 21 | source << 16 | value & 0xffff


def addi(target, source, value):
    """addi TARGET,SOURCE,VALUE."""
    return 0x38000000 | target << 21 | source << 16 | value & 0xffff


def add_constant(target, source, value):
    """TARGET = SOURCE + VALUE (signed, 32 bits), in two instructions."""
    low = (value & 0xffff) - (0x10000 if value & 0x8000 else 0)
    return [addis(target, source, (value - low) >> 16),
            addi(target, target, low)]


def stub(tree, entry):
    """The code, for its own file offset 0, to the offsets TREE and ENTRY."""
    code = [LWZ_R11_BOOT_CPU, BCL_NEXT]
    here = 4 * len(code)        # what LR holds
    code.append(MFLR_R12)
    code += add_constant(3, 12, tree - here)
    code.append(STW_R11_BOOT_CPU)
    code += add_constant(12, 12, entry - here)
    code += [MTCTR_R12, BCTR]
    return struct.pack(f">{len(code)}I", *code)


def align(value):
    """Round up to a page."""
    return -(-value // ALIGN) * ALIGN


def add_tree(kernel, tree):
    """The vmlinux KERNEL (bytes) with TREE (bytes, flattened) built in."""
    if len(kernel) < EHDR.size or not kernel.startswith(ELF64_LSB):
        raise ValueError("the kernel is not a little-endian 64-bit ELF file")
    ehdr = list(EHDR.unpack_from(kernel))
    machine, entry, phoff = ehdr[2], ehdr[4], ehdr[5]
    phentsize, phnum = ehdr[9], ehdr[10]
    if machine != EM_PPC64 or phentsize != PHDR.size:
        raise ValueError("the kernel is not one for 64-bit POWER")
    headers = [PHDR.unpack_from(kernel, phoff + i * PHDR.size)
               for i in range(phnum)]
    loads = [(offset, vaddr, memsz)
             for kind, _, offset, vaddr, _, _, memsz, _ in headers
             if kind == PT_LOAD]
    entries = [entry - vaddr + offset for offset, vaddr, memsz in loads
               if vaddr <= entry < vaddr + memsz]
    if not entries:
        raise ValueError("the kernel's entry point is in none of its segments")

    # Behind all the kernel takes in place, its bss included.
    start = align(max([len(kernel)] + [off + size for off, _, size in loads]))
    vaddr = align(max(base + size for _, base, size in loads)) + ALIGN
    tree_at = start + ALIGN
    code = stub(ALIGN, entries[0] - start)
    table_at = align(tree_at + len(tree))
    headers.append((PT_LOAD, PF_RX, start, vaddr, 0, ALIGN, ALIGN, ALIGN))

    ehdr[4], ehdr[5], ehdr[10] = vaddr, table_at, len(headers)
    image = bytearray(table_at)
    image[:len(kernel)] = kernel
    image[:EHDR.size] = EHDR.pack(*ehdr)
    image[start:start + len(code)] = code
    image[tree_at:tree_at + len(tree)] = tree
    for header in headers:
        image += PHDR.pack(*header)
    return bytes(image)
