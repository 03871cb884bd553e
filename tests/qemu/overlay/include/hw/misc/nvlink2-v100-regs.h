/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BAR0 registers of the nvlink2-v100 device model.
 *
 * The QEMU model (hw/misc/nvlink2_v100.c) and the selftests that run in the
 * emulated host include this one file: plain #defines, no QEMU or kernel
 * headers.
 *
 * All registers are 32 bits wide, little endian, naturally aligned; a 64-bit
 * access to an aligned pair (lo, hi) is accepted too.  Smaller ones read a part
 * of a register, and write nothing.  Registers that are not listed read as zero
 * and ignore writes.
 *
 * A real V100 has nothing at V100_MODEL_BASE and beyond: what lives there is
 * the model's own interface, for tests only.
 */
#ifndef NVLINK2_V100_REGS_H
#define NVLINK2_V100_REGS_H

/* PCI identity: Tesla V100-SXM2-16GB (or 32GB, by its RAM), 3D controller */
#define V100_PCI_VENDOR_ID              0x10de
#define V100_PCI_DEVICE_ID              0x1db1
#define V100_32G_PCI_DEVICE_ID          0x1db5
#define V100_32G_RAM_SIZE               (32ULL << 30)
#define V100_PCI_REVISION               0xa1
#define V100_PCI_SUBSYSTEM_ID           0x1212
#define V100_PCI_CLASS                  0x0302

/*
 * BAR0: registers, 32-bit.  BAR1: 64-bit prefetchable view of the first
 * 256 MiB of the GPU's RAM over PCIe; answers whenever memory space is
 * enabled, trained or not.  BAR3: 64-bit prefetchable, no registers modelled.
 */
#define V100_BAR0_SIZE                  0x1000000
#define V100_BAR1_SIZE                  0x10000000
#define V100_BAR3_SIZE                  0x2000000

/* PMC_BOOT_0, read only: the chip's identity (GV100, stepping a1) */
#define V100_PMC_BOOT_0                 0x0
#define   V100_PMC_BOOT_0_GV100                 0x140000a1

/* The model's area */
#define V100_MODEL_BASE                 0xf00000

/* Read only: tells the model from silicon ("NVL2" in ASCII) */
#define V100_MODEL_ID                   0xf00000
#define   V100_MODEL_ID_MAGIC                   0x4e564c32
/* Read only: version of this interface */
#define V100_MODEL_VERSION              0xf00004
#define   V100_MODEL_VERSION_2                  2       /* with engine */

/*
 * Read only: bytes of RAM behind the aperture, at its start.  The aperture
 * (128 GiB) is larger: what lies beyond the RAM answers like an untrained
 * access.
 */
#define V100_RAM_SIZE_LO                0xf00008
#define V100_RAM_SIZE_HI                0xf0000c

/*
 * Write 1: train all links of this GPU, as the vendor driver does at start
 * (PHY calibration, NTL out of reset, fences of its own bricks cleared).
 * Write 2: bring up this GPU's ends of its links only, and leave the NPU's to
 * firmware's procedures; a link trains when both are up.
 * Write 0: untrain them.  Other values are ignored.  Reads the last command
 * that took effect.
 * Secondary bus reset, loss of power, system reset and, if the model was given
 * one, function level reset untrain; so does a reset of one of the NPU's
 * bricks, for that link only.  Links that go down at this end are fenced.
 */
#define V100_LINK_TRAIN                 0xf00010
#define   V100_LINK_TRAIN_UP                    1
#define   V100_LINK_TRAIN_GPU_END               2
#define   V100_LINK_TRAIN_DOWN                  0

/*
 * Read only: bit n set = link n of this GPU (0 .. number of links - 1, in the
 * order of the NPU's bricks) is trained.  The RAM answers in the aperture only
 * while all links in V100_LINK_MASK are, memory space is enabled in the GPU's
 * command register and the GPU is in power state D0.  (Whether a real one needs
 * the last two is not known: a driver that keeps everybody away meanwhile must
 * never notice.)
 */
#define V100_LINK_STATUS                0xf00014
/* Read only: bit n set = link n is wired to a brick of the NPU */
#define V100_LINK_MASK                  0xf00018

/*
 * Read only: CPU accesses to this GPU's aperture that nothing answered (links
 * not trained, memory space off, not in D0, or beyond the RAM), in CPU loads
 * and stores.  They read as all ones, the store is lost, and the brick that
 * owns the aperture is fenced.  Counts since power on, whatever was reset
 * since; compare two values.
 */
#define V100_UNTRAINED_ACCESSES         0xf0001c

/* Read only: address the NPU decodes for this GPU, 0 while its BAR is off */
#define V100_APERTURE_LO                0xf00020
#define V100_APERTURE_HI                0xf00024

/*
 * Read only: resets of any kind this function went through, with the one of
 * power on; compare two values.
 */
#define V100_RESETS                     0xf00028

/*
 * Test engine: one copy at a time, between any two of the GPU's RAM and what
 * the GPU reaches on three paths.  It runs while V100_ENGINE_START is written:
 * whoever reads V100_ENGINE_STATUS after that reads the result.  It copies
 * pieces that stay in one 4 KiB page on both sides, and translates each anew.
 * Reset of any kind sets all its registers and counters to zero and empties its
 * cache.
 */
#define V100_ENGINE_BASE                0xf01000
#define V100_ENGINE_END                 0xf01fff

/*
 * Addresses of the first byte to read and to write, any alignment.  What they
 * are depends on the path of that side (V100_ENGINE_PATH):
 *   RAM   offset in the GPU's RAM, which always answers
 *   PCI   PCI bus address, translated by the PHB; needs bus mastering
 *   TCE   NVLink, untranslated: the PE of the brick and of this GPU's BDF
 *         selects the TVE, which bypasses or names a table of TCEs
 *   ATS   NVLink, an effective address of the process V100_ENGINE_PASID in the
 *         LPAR that the NPU has bound this GPU's BDF to
 */
#define V100_ENGINE_SRC_LO              0xf01000
#define V100_ENGINE_SRC_HI              0xf01004
#define V100_ENGINE_DST_LO              0xf01008
#define V100_ENGINE_DST_HI              0xf0100c
/* Bytes to copy, 1 to V100_ENGINE_LENGTH_MAX */
#define V100_ENGINE_LENGTH              0xf01010
#define   V100_ENGINE_LENGTH_MAX                0x1000000
/* Process of ATS accesses, 20 bits: the PID of the process in its LPAR */
#define V100_ENGINE_PASID               0xf01014
#define   V100_ENGINE_PASID_MAX                 0xfffff
/* Bits 0-3: path of the source; bits 4-7: path of the destination */
#define V100_ENGINE_PATH                0xf01018
#define   V100_ENGINE_PATH_RAM                  0
#define   V100_ENGINE_PATH_PCI                  1
#define   V100_ENGINE_PATH_TCE                  2
#define   V100_ENGINE_PATH_ATS                  3
#define   V100_ENGINE_PATHS(src, dst)           ((src) | ((dst) << 4))
/* Link that TCE and ATS accesses take, as numbered in V100_LINK_STATUS */
#define V100_ENGINE_LINK                0xf0101c

/* Write 1: copy.  Other values are ignored.  Reads as zero. */
#define V100_ENGINE_START               0xf01020
/* Read only: what became of the last copy */
#define V100_ENGINE_STATUS              0xf01024
#define   V100_ENGINE_STATUS_NONE               0       /* never started */
#define   V100_ENGINE_STATUS_DONE               1
#define   V100_ENGINE_STATUS_FAULT              2

/*
 * Read only, of the last copy: why it stopped.  For all but NONE and PARAM,
 * V100_ENGINE_FAULT_ADDR is the address that failed.
 */
#define V100_ENGINE_CAUSE               0xf01028
#define   V100_ENGINE_CAUSE_NONE                0
/* A register holds what the engine does not know: nothing was copied */
#define   V100_ENGINE_CAUSE_PARAM               1
/* Beyond the GPU's RAM */
#define   V100_ENGINE_CAUSE_RAM                 2
/* PCIe: no bus mastering, no TCE, no permission, or nothing there */
#define   V100_ENGINE_CAUSE_PCI                 3
/* NVLink: the link is not trained */
#define   V100_ENGINE_CAUSE_UNTRAINED           4
/* NVLink: the brick is fenced */
#define   V100_ENGINE_CAUSE_FENCED              5
/* TCE: the brick has no PE for this GPU's BDF, so there is no TVE */
#define   V100_ENGINE_CAUSE_NO_TVE              6
/* TCE: outside of what the TVE covers (a disabled TVE covers nothing) */
#define   V100_ENGINE_CAUSE_TVE_RANGE           7
/* TCE: the TCE, or a table on the way to it, lets nobody read or write */
#define   V100_ENGINE_CAUSE_TCE_INVALID         8
/* TCE: the TCE does not permit reading, or writing */
#define   V100_ENGINE_CAUSE_TCE_READ            9
#define   V100_ENGINE_CAUSE_TCE_WRITE           10
/* ATS: no valid entry for this GPU's BDF in the XTS BDF map, or not radix */
#define   V100_ENGINE_CAUSE_XTS_BDF_MISS        11
/* ATS: no valid entry for the LPAR and PASID in the XTS PID map */
#define   V100_ENGINE_CAUSE_XTS_PID_MISS        12
/* ATS: the entry grants hypervisor state (MSR HV) in an LPAR other than 0 */
#define   V100_ENGINE_CAUSE_HV_DENIED           13
/* ATS: nobody told the nest MMU where the partition table is */
#define   V100_ENGINE_CAUSE_NO_PTCR             14
/* ATS: the LPAR has no entry in the partition table, or one that isn't radix */
#define   V100_ENGINE_CAUSE_PARTITION_ENTRY     15
/* ATS: the PASID has no entry in the LPAR's process table */
#define   V100_ENGINE_CAUSE_PROCESS_ENTRY       16
/* ATS: the process has nothing at this effective address */
#define   V100_ENGINE_CAUSE_RADIX               17
/* ATS: the process may not access it so (read, write, privilege) */
#define   V100_ENGINE_CAUSE_PERMISSION          18
/*
 * ATS: the LPAR has nothing at a guest real address, V100_ENGINE_FAULT_GPA:
 * the page's own or one of the tables'
 */
#define   V100_ENGINE_CAUSE_PARTITION_RADIX     19
/* ATS: the LPAR may not access the guest real address so */
#define   V100_ENGINE_CAUSE_PARTITION_PERMISSION 20
/* NVLink: translated, but nothing answers at the host real address */
#define   V100_ENGINE_CAUSE_NO_MEMORY           21
/* NVLink: a TCE access that was refused before froze the PE of this GPU */
#define   V100_ENGINE_CAUSE_FROZEN              22
/* Read only, of the last fault: which side it was on */
#define V100_ENGINE_FAULT_SIDE          0xf0102c
#define   V100_ENGINE_FAULT_SIDE_SRC            0
#define   V100_ENGINE_FAULT_SIDE_DST            1
#define V100_ENGINE_FAULT_ADDR_LO       0xf01030
#define V100_ENGINE_FAULT_ADDR_HI       0xf01034
#define V100_ENGINE_FAULT_GPA_LO        0xf01038
#define V100_ENGINE_FAULT_GPA_HI        0xf0103c
/* Read only, of the last copy: bytes written before it ended */
#define V100_ENGINE_COPIED              0xf01040

/*
 * The engine's cache of ATS translations.  An entry is made by each walk that
 * ends well and serves the accesses to its page, (LPAR, PASID, effective
 * address), that it permits, whatever became of the page tables, until a
 * shootdown (ATSD) has named it and two more of all of PID 0 have come, or the
 * GPU is reset.  The XTS maps are looked up on each access: an entry of an LPAR
 * serves only while this GPU is bound to it.  All but ENTRIES count since reset.
 * Read only.
 */
#define V100_ENGINE_ATC_ENTRIES         0xf01050        /* now */
#define V100_ENGINE_ATC_HITS            0xf01054        /* translations served */
#define V100_ENGINE_ATC_WALKS           0xf01058        /* table walks begun */
#define V100_ENGINE_ATC_SHOOTDOWNS      0xf0105c        /* that reached this GPU */
#define V100_ENGINE_ATC_REMOVED         0xf01060        /* entries, by these */
#define   V100_ENGINE_ATC_SIZE                  64      /* entries at most */

#endif /* NVLINK2_V100_REGS_H */
