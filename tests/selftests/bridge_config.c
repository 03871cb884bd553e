// SPDX-License-Identifier: GPL-2.0
/*
 * Configuration space of a bridge, which firmware emulates: it stores what is written to the
 * pointer to the next capability of the vendor's one, and shows it to who opens the bridge next.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "sys.h"
#include "testbed.h"

FIXTURE(bridge)
{
	struct testbed tb;
	int dev;
	/* Of the vendor specific capability. */
	int vendor;
};

FIXTURE_SETUP(bridge)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->dev = vfio_device_open(&self->tb.group, self->tb.gpu->link[0].bdf);
	ASSERT_LE(0, self->dev);
	self->vendor = vfio_find_pci_cap(self->dev, PCI_CAP_ID_VNDR);
	ASSERT_LT(0, self->vendor);
}

FIXTURE_TEARDOWN(bridge)
{
	close(self->dev);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static int config_write8(int dev, unsigned int reg, __u8 value)
{
	if (pwrite(dev, &value, 1, REGION_OFFSET(VFIO_PCI_CONFIG_REGION_INDEX) + reg) < 0)
		return -errno;
	return 0;
}

/* As firmware has it, past VFIO. */
static int host_config_read16(const char *bdf, unsigned int reg, __u16 *value)
{
	char path[128];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = pread(fd, value, sizeof(*value), reg);
	close(fd);
	return n == sizeof(*value) ? 0 : -EIO;
}

/*
 * A capability that reaches beyond the 256 bytes that a bridge has: where the header of the
 * vendor's takes writes, the next open writes behind tables of the kernel.
 */
TEST_F(bridge, chain_of_capabilities_is_not_the_users)
{
	const char *bdf = self->tb.gpu->link[0].bdf;
	__u16 before, after;
	unsigned int i;

	ASSERT_EQ(0, host_config_read16(bdf, self->vendor, &before));
	EXPECT_EQ(0, config_write8(self->dev, 0xff, PCI_CAP_ID_VPD));
	EXPECT_EQ(0, config_write8(self->dev, self->vendor + PCI_CAP_LIST_NEXT, 0xff));
	EXPECT_EQ(0, vfio_config_write16(self->dev, self->vendor, 0xff00 | PCI_CAP_ID_VNDR));
	ASSERT_EQ(0, host_config_read16(bdf, self->vendor, &after));
	EXPECT_EQ(before, after)
		TH_LOG("the vendor's capability began with %#x, and now with %#x", before, after);
	for (i = 0; i < 3; i++) {
		close(self->dev);
		self->dev = vfio_device_open(&self->tb.group, bdf);
		ASSERT_LE(0, self->dev);
		EXPECT_EQ(self->vendor, vfio_find_pci_cap(self->dev, PCI_CAP_ID_VNDR));
	}
}

TEST_HARNESS_MAIN
