// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "model.h"
#include "vfio.h"

#define BAR0 REGION_OFFSET(VFIO_PCI_BAR0_REGION_INDEX)
#define BAR1 REGION_OFFSET(VFIO_PCI_BAR1_REGION_INDEX)

int model_read32(const struct model *m, __u32 reg, __u32 *value)
{
	ssize_t n = pread(m->dev, value, sizeof(*value), BAR0 + reg);

	if (n < 0)
		return -errno;
	return n == sizeof(*value) ? 0 : -EIO;
}

int model_write32(const struct model *m, __u32 reg, __u32 value)
{
	ssize_t n = pwrite(m->dev, &value, sizeof(value), BAR0 + reg);

	if (n < 0)
		return -errno;
	return n == sizeof(value) ? 0 : -EIO;
}

int model_attach(struct model *m, int dev)
{
	__u32 id, lo, hi;
	int ret;

	m->dev = dev;
	ret = model_read32(m, V100_MODEL_ID, &id);
	ret = ret ?: model_read32(m, V100_RAM_SIZE_LO, &lo);
	ret = ret ?: model_read32(m, V100_RAM_SIZE_HI, &hi);
	if (ret)
		return ret;
	if (id != V100_MODEL_ID_MAGIC)
		return -ENODEV;
	m->ram_size = (__u64)hi << 32 | lo;
	return 0;
}

int model_train(const struct model *m)
{
	__u32 status, mask;
	int ret = model_write32(m, V100_LINK_TRAIN, V100_LINK_TRAIN_UP);

	ret = ret ?: model_read32(m, V100_LINK_STATUS, &status);
	ret = ret ?: model_read32(m, V100_LINK_MASK, &mask);
	if (ret)
		return ret;
	return mask && status == mask ? 0 : -EIO;
}

int model_ram_read(const struct model *m, __u64 offset, void *buf, size_t size)
{
	ssize_t n = pread(m->dev, buf, size, BAR1 + offset);

	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EIO;
}

int model_ram_write(const struct model *m, __u64 offset, const void *buf, size_t size)
{
	ssize_t n = pwrite(m->dev, buf, size, BAR1 + offset);

	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EIO;
}
