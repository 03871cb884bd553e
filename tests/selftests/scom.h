/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The NPU's registers as firmware reaches them, by SCOM, and physical memory: two
 * views that do not pass through the driver under test.
 */
#ifndef NVLINK2_SELFTEST_SCOM_H
#define NVLINK2_SELFTEST_SCOM_H

#include <stdint.h>

/*
 * A register of the NPU's 24-bit register space (the space of the PHB's reg[0] BAR), 8 bytes, through the
 * indirect address/data pair MISC_SCOM_IND of the NPU at @xscom_base on @chip. 0 or a negative errno.
 */
int npu_read64(uint32_t chip, uint32_t xscom_base, uint32_t reg, uint64_t *value);
int npu_write64(uint32_t chip, uint32_t xscom_base, uint32_t reg, uint64_t value);

/* Translation Validation Table entry of PE @pe in the NPU's ATS unit. */
int npu_read_tve(uint32_t chip, uint32_t xscom_base, unsigned int pe, uint64_t *tve);
#define NPU_NUM_TVES	16

/*
 * What a TVE (as OPAL packs it: table address, levels, size, page size) translates @iova to: the TCE, host
 * byte order. -ENOENT if the TVE is empty, -ERANGE if @iova is outside, -EOPNOTSUPP for more than one level.
 */
int tve_lookup(uint64_t tve, uint64_t iova, uint64_t *tce);

/* Eight bytes of physical memory through /dev/mem, as they are. */
int phys_read64(uint64_t addr, uint64_t *value);

#endif
