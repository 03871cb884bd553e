// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "qmp.h"
#include "scom.h"

#define SCOM_DEBUGFS	"/sys/kernel/debug/powerpc/scom"

/* NPU2_MISC_SCOM_IND_SCOM_ADDR and _DATA, relative to the NPU's XSCOM base */
#define IND_ADDR	0x68e
#define IND_DATA	0x68f
/* Bits 0-23: register; bits 24-25: length, 3 = 8 bytes */
#define IND_ADDR_OF(reg)	((__u64)(reg) << 40 | 3ULL << 38)

/*
 * NPU2_ATS_IODA_TBL, _DATA: table select (bits 11-15; 9 = TVT) and index (bits 54-63), then
 * the entry
 */
#define ATS_IODA_TBL	0x700108
#define ATS_IODA_DATA	0x700110
#define IODA_TBL_TVT(pe)	(9ULL << 48 | (pe))

static int scom_open(__u32 chip)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), SCOM_DEBUGFS "/%08x/access", chip);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The file is an array of registers, 8 bytes each, in host byte order. */
static int scom_read(int fd, __u32 reg, __u64 *value)
{
	return pread(fd, value, 8, (off_t)reg << 3) == 8 ? 0 : -EIO;
}

static int scom_write(int fd, __u32 reg, __u64 value)
{
	return pwrite(fd, &value, 8, (off_t)reg << 3) == 8 ? 0 : -EIO;
}

int npu_read64(__u32 chip, __u32 xscom_base, __u32 reg, __u64 *value)
{
	int fd = scom_open(chip), ret;

	if (fd < 0)
		return fd;
	ret = scom_write(fd, xscom_base + IND_ADDR, IND_ADDR_OF(reg));
	ret = ret ?: scom_read(fd, xscom_base + IND_DATA, value);
	close(fd);
	return ret;
}

int npu_write64(__u32 chip, __u32 xscom_base, __u32 reg, __u64 value)
{
	int fd = scom_open(chip), ret;

	if (fd < 0)
		return fd;
	ret = scom_write(fd, xscom_base + IND_ADDR, IND_ADDR_OF(reg));
	ret = ret ?: scom_write(fd, xscom_base + IND_DATA, value);
	close(fd);
	return ret;
}

int npu_read_tve(__u32 chip, __u32 xscom_base, unsigned int pe, __u64 *tve)
{
	int ret = npu_write64(chip, xscom_base, ATS_IODA_TBL, IODA_TBL_TVT(pe));

	return ret ?: npu_read64(chip, xscom_base, ATS_IODA_DATA, tve);
}

int tve_lookup(__u64 tve, __u64 iova, __u64 *tce)
{
	__u64 table = tve >> 16 << 12;		/* bits 0-47: address / 4 KiB */
	unsigned int levels = (tve >> 13 & 7) + 1;	/* bits 48-50: levels - 1 */
	unsigned int size_shift = (tve >> 8 & 0x1f) + 11; /* bits 51-55: log2(table bytes) - 11 */
	unsigned int page_shift = (tve & 0x1f) + 11;	/* bits 59-63: log2(page bytes) - 11 */
	__u64 entry = iova >> page_shift;

	if (!table)
		return -ENOENT;
	if (levels != 1)
		return -EOPNOTSUPP;
	if (entry >= (1ULL << size_shift) / sizeof(*tce))
		return -ERANGE;
	return phys_read_be64(table + entry * sizeof(*tce), tce);
}
