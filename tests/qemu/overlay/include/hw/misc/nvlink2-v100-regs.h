/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BAR0 registers of the nvlink2-v100 device model.
 *
 * The QEMU model (hw/misc/nvlink2_v100.c) and the selftests that run in the
 * emulated host include this one file: plain #defines, no QEMU or kernel
 * headers.
 *
 * All registers are 32 bits wide, little endian, naturally aligned; a 64-bit
 * access to an aligned pair (lo, hi) is accepted too.  Registers that are not
 * listed read as zero and ignore writes.
 *
 * A real V100 has nothing at V100_MODEL_BASE and beyond: what lives there is
 * the model's own interface, for tests only.
 */
#ifndef NVLINK2_V100_REGS_H
#define NVLINK2_V100_REGS_H

/* PCI identity: Tesla V100-SXM2-16GB, 3D controller */
#define V100_PCI_VENDOR_ID              0x10de
#define V100_PCI_DEVICE_ID              0x1db1
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
#define   V100_MODEL_VERSION_1                  1

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
 * Write 0: untrain them.  Other values are ignored.  Reads the last command
 * that took effect.
 * Function level reset, secondary bus reset and system reset untrain; so does
 * a reset of one of the NPU's bricks, for that link only.
 */
#define V100_LINK_TRAIN                 0xf00010
#define   V100_LINK_TRAIN_UP                    1
#define   V100_LINK_TRAIN_DOWN                  0

/*
 * Read only: bit n set = link n of this GPU (0 .. number of links - 1, in the
 * order of the NPU's bricks) is trained.  The RAM answers in the aperture only
 * while all links in V100_LINK_MASK are.
 */
#define V100_LINK_STATUS                0xf00014
/* Read only: bit n set = link n is wired to a brick of the NPU */
#define V100_LINK_MASK                  0xf00018

/*
 * CPU accesses to this GPU's aperture that nothing answered (links not
 * trained, or beyond the RAM), in CPU loads and stores.  They read as all
 * ones, the store is lost, and the brick that owns the aperture is fenced.
 * Writing any value sets the count to zero.
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

/* 0xf01000 - 0xf01fff: reserved for the DMA engine with ATS */
#define V100_ENGINE_BASE                0xf01000

#endif /* NVLINK2_V100_REGS_H */
