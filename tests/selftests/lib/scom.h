/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The NPU's registers as firmware reaches them, by SCOM: a view
 * that does not pass through the driver under test.
 */
#ifndef NVLINK2_SELFTEST_SCOM_H
#define NVLINK2_SELFTEST_SCOM_H

#include <linux/types.h>

/*
 * A register of the NPU's 24-bit register space (the space of the PHB's reg[0] BAR), 8
 * bytes, through the indirect address/data pair MISC_SCOM_IND of the NPU at @xscom_base on
 * @chip. 0 or a negative errno.
 */
int npu_read64(__u32 chip, __u32 xscom_base, __u32 reg, __u64 *value);
int npu_write64(__u32 chip, __u32 xscom_base, __u32 reg, __u64 value);

/* Translation Validation Table entry of PE @pe in the NPU's ATS unit. */
int npu_read_tve(__u32 chip, __u32 xscom_base, unsigned int pe, __u64 *tve);
#define NPU_NUM_TVES	16

/*
 * What a TVE (as OPAL packs it: table address, levels, size, page size) translates @iova to:
 * the TCE, host byte order. -ENOENT if the TVE is empty, -ERANGE if @iova is outside,
 * -EOPNOTSUPP for more than one level.
 */
int tve_lookup(__u64 tve, __u64 iova, __u64 *tce);

/* What a TCE permits. */
#define TCE_READ_WRITE	3ULL

#endif
