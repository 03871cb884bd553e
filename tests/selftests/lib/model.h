/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The emulated GPU's own registers (tests/qemu/include/nvlink2-v100-regs.h), reached
 * through BAR0, and its PCIe view of its RAM, BAR1: what the GPU sees, whatever the
 * driver under test does with the aperture.
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_MODEL_H
#define NVLINK2_SELFTEST_MODEL_H

#include <linux/types.h>
#include <stddef.h>

#include "nvlink2-v100-regs.h"

struct model {
	int dev;
	__u64 ram_size;
};

/* -ENODEV if the device behind @dev is not the model: a test must not train links of a real GPU. */
int model_attach(struct model *m, int dev);
int model_read32(const struct model *m, __u32 reg, __u32 *value);
int model_write32(const struct model *m, __u32 reg, __u32 value);
/* Trains all links, as the vendor's driver does; -EIO if they stay down. */
int model_train(const struct model *m);
/* @offset is a RAM address below V100_BAR1_SIZE. */
int model_ram_read(const struct model *m, __u64 offset, void *buf, size_t size);
int model_ram_write(const struct model *m, __u64 offset, const void *buf, size_t size);

#endif
