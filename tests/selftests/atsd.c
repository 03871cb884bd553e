// SPDX-License-Identifier: GPL-2.0
/* The ATSD region of a bridge: the register block of its own link, and nothing more. */
#define _GNU_SOURCE
#include <endian.h>
#include <signal.h>

#include "kselftest_harness.h"

#include "scom.h"
#include "sys.h"
#include "testbed.h"

#define ATSD_AVA	0x8
#define ATSD_STATUS	0x10

FIXTURE(atsd)
{
	struct testbed tb;
	const struct dt_bridge *bridge;
	int dev;
	struct vfio_region_info *info;
};

FIXTURE_SETUP(atsd)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	self->bridge = &self->tb.gpu->link[1];
	self->dev = vfio_device_open(&self->tb.group, self->bridge->bdf);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, vfio_find_atsd(self->dev, &self->info));
}

FIXTURE_TEARDOWN(atsd)
{
	free(self->info);
	close(self->dev);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/*
 * The register as firmware sees it. NPU registers are big endian, and so are the bytes that
 * a user reads and writes.
 */
static __u64 firmware_read(const struct dt_bridge *b, __u32 reg)
{
	__u64 value = 0xdead;

	if (npu_read64(b->chip, b->xscom_base, b->atsd - b->npu_regs + reg, &value))
		return 0xdead;
	return value;
}

static int firmware_write(const struct dt_bridge *b, __u32 reg, __u64 value)
{
	return npu_write64(b->chip, b->xscom_base, b->atsd - b->npu_regs + reg, value);
}

static int region_read64(int dev, const struct vfio_region_info *info, __u64 offset, __u64 *value)
{
	ssize_t n = pread(dev, value, sizeof(*value), info->offset + offset);

	*value = be64toh(*value);
	return n < 0 ? -errno : n == sizeof(*value) ? 0 : -EIO;
}

static int region_write64(int dev, const struct vfio_region_info *info, __u64 offset, __u64 value)
{
	ssize_t n;

	value = htobe64(value);
	n = pwrite(dev, &value, sizeof(value), info->offset + offset);
	return n < 0 ? -errno : n == sizeof(value) ? 0 : -EIO;
}

TEST_F(atsd, mapping_is_the_register_block_of_the_link)
{
	/* As processes have addresses: silicon need not keep bits that no address has. */
	const __u64 a = 0x00007fee12345000, b = 0x0000123456789000;
	char *p = vfio_map(self->dev, self->info, 0, PAGE_64K);
	__u64 value;

	ASSERT_NE(NULL, p);
	store64(p + ATSD_AVA, htobe64(a));
	EXPECT_EQ(a, firmware_read(self->bridge, ATSD_AVA));
	ASSERT_EQ(0, firmware_write(self->bridge, ATSD_AVA, b));
	EXPECT_EQ(b, be64toh(load64(p + ATSD_AVA)));
	ASSERT_EQ(0, region_read64(self->dev, self->info, ATSD_AVA, &value));
	EXPECT_EQ(b, value);
	ASSERT_EQ(0, region_write64(self->dev, self->info, ATSD_AVA, a));
	EXPECT_EQ(a, firmware_read(self->bridge, ATSD_AVA));
	EXPECT_EQ(a, be64toh(load64(p + ATSD_AVA)));
	EXPECT_EQ(0ULL, be64toh(load64(p + ATSD_STATUS)));
	EXPECT_EQ(0, munmap(p, PAGE_64K));
}

/* Every bridge has its own. */
TEST_F(atsd, every_bridge_reaches_its_own_register)
{
	const struct dt_topology *t = &self->tb.topo;
	struct vfio_region_info *info;
	unsigned int i, j, written = 0;
	__u64 ava;
	int dev;

	for (i = 0; i < t->num_gpus; i++) {
		if (pci_iommu_group(t->gpu[i].bdf) != self->tb.group.id)
			continue;
		for (j = 0; j < t->gpu[i].num_links; j++) {
			const struct dt_bridge *b = &t->gpu[i].link[j];

			ASSERT_EQ(0, firmware_write(b, ATSD_AVA, 0));
			dev = vfio_device_open(&self->tb.group, b->bdf);
			ASSERT_LE(0, dev);
			ASSERT_EQ(0, vfio_find_atsd(dev, &info))
				TH_LOG("%s", b->bdf);
			ava = (i * 16 + j + 1ULL) << 20;
			EXPECT_EQ(0, region_write64(dev, info, ATSD_AVA, ava));
			free(info);
			close(dev);
			written++;
		}
	}
	/* Links of one GPU, and of another, unless its socket is empty. */
	ASSERT_LE(self->tb.gpu->num_links + !on_hardware(), written);
	for (i = 0; i < t->num_gpus; i++) {
		if (pci_iommu_group(t->gpu[i].bdf) != self->tb.group.id)
			continue;
		for (j = 0; j < t->gpu[i].num_links; j++) {
			const struct dt_bridge *b = &t->gpu[i].link[j];

			ava = (i * 16 + j + 1ULL) << 20;
			EXPECT_EQ(ava, firmware_read(b, ATSD_AVA))
				TH_LOG("%s, link %u", b->bdf, b->link_index);
		}
	}
}

/* Defect 18: the original copied bytes of any number at any place from a device mapping. */
TEST_F(atsd, defect_18_aligned_eight_byte_accesses)
{
	static const struct {
		__u64 offset;
		size_t size;
	} refused[] = {
		{ 8, 1 }, { 8, 2 }, { 8, 4 }, { 8, 7 }, { 8, 9 }, { 8, 12 }, { 8, 15 },
		{ 1, 8 }, { 4, 8 }, { 12, 8 }, { 15, 8 }, { 8, PAGE_64K },
		{ PAGE_64K - 4, 8 }, { PAGE_64K - 8, 16 }, { PAGE_64K, 8 }, { 2 * PAGE_64K, 8 },
		{ (1ULL << 40) - 8, 8 },
	};
	static char buf[PAGE_64K];
	const __u64 ava = 0x0000777700001000;
	__u64 value, two[2];
	unsigned int i;

	ASSERT_EQ(0, firmware_write(self->bridge, ATSD_AVA, ava));
	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		const size_t size = refused[i].size;
		const __u64 at = refused[i].offset;

		EXPECT_EQ(-1, pread(self->dev, buf, size, self->info->offset + at))
			TH_LOG("read of %zu at %#lx", size, at);
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, pwrite(self->dev, buf, size, self->info->offset + at))
			TH_LOG("write of %zu at %#lx", size, at);
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(ava, firmware_read(self->bridge, ATSD_AVA));
	EXPECT_EQ(0, region_read64(self->dev, self->info, PAGE_64K - 8, &value));

	/* Two registers are two accesses. */
	EXPECT_EQ(16, pread(self->dev, two, 16, self->info->offset + ATSD_AVA));
	EXPECT_EQ(ava, be64toh(two[0]));
	EXPECT_EQ(0ULL, be64toh(two[1]));
}

TEST_F(atsd, defect_1_bounds)
{
	const struct {
		__u64 offset, length;
		int error;
	} cases[] = {
		{ 0, PAGE_64K, 0 },
		{ 0, 4096, 0 },
		{ 0, 2 * PAGE_64K, EINVAL },
		{ PAGE_64K, PAGE_64K, EINVAL },
		{ 2 * PAGE_64K, PAGE_64K, EINVAL },
		{ (1ULL << 40) - PAGE_64K, PAGE_64K, EINVAL },
		{ 4096, 4096, EINVAL },
	};
	unsigned int i;
	int error;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		void *p = vfio_map(self->dev, self->info, cases[i].offset, cases[i].length);

		error = p ? 0 : errno;
		EXPECT_EQ(cases[i].error, error)
			TH_LOG("offset %#lx, length %#lx", cases[i].offset, cases[i].length);
		if (p)
			munmap(p, cases[i].length);
	}
}

/*
 * The registers are the NPU's: a guest launches without ever having enabled the bridges, for which
 * it has no driver, and KVM stops a machine whose access ends in SIGBUS.
 */
TEST_F(atsd, bridge_needs_no_memory_space)
{
	char *p = vfio_map(self->dev, self->info, 0, PAGE_64K);
	__u64 value;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_set_memory(self->dev, false));
	EXPECT_EQ(0, try_write64(p + ATSD_AVA, htobe64(0x5000)));
	EXPECT_EQ(0, region_read64(self->dev, self->info, ATSD_AVA, &value));
	EXPECT_EQ(0x5000ULL, value);
	EXPECT_EQ(0, region_write64(self->dev, self->info, ATSD_AVA, 0x6000));
	EXPECT_EQ(0, try_read64(p + ATSD_AVA, &value));
	EXPECT_EQ(0x6000ULL, be64toh(value));
	ASSERT_EQ(0, vfio_set_memory(self->dev, true));
	EXPECT_EQ(0, try_read64(p + ATSD_AVA, &value));
	EXPECT_EQ(0x6000ULL, be64toh(value));
}

/* Defect 17. */
TEST_F(atsd, defect_17_vma_flags)
{
	void *p = vfio_map(self->dev, self->info, 0, PAGE_64K);

	ASSERT_NE(NULL, p);
	EXPECT_STREQ("", vma_missing_flag(p));
}

TEST_F(atsd, mapping_is_traced)
{
	void *p;

	ASSERT_EQ(0, trace_start("selftest-atsd"));
	p = vfio_map(self->dev, self->info, 0, PAGE_64K);
	EXPECT_NE(NULL, p);
	EXPECT_EQ(1, trace_count("selftest-atsd", "vfio_pci_npu2_mmap", NULL));
	trace_stop("selftest-atsd");
}

FIXTURE(no_kvm)
{
	struct testbed tb;
	int dev;
};

FIXTURE_SETUP(no_kvm)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->dev = vfio_device_open(&self->tb.group, self->tb.gpu->link[0].bdf);
	ASSERT_LE(0, self->dev);
}

FIXTURE_TEARDOWN(no_kvm)
{
	close(self->dev);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/*
 * Defect 2: where it had no register to offer the original kept a region of size 0 that could be
 * mapped, to physical page 0. Here there is no region, so nothing to map, read or write. Firmware
 * without registers is bad_firmware's.
 */
TEST_F(no_kvm, defect_2_no_region_nothing_to_map)
{
	const __u64 offset = REGION_OFFSET(REGION_FIRST_OWN);
	struct vfio_region_info *info;
	__u64 value = 0;
	void *p;

	EXPECT_EQ(-ENOENT, vfio_find_atsd(self->dev, &info));
	p = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED, self->dev, offset);
	EXPECT_EQ(MAP_FAILED, p);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(self->dev, &value, 8, offset + ATSD_AVA));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pwrite(self->dev, &value, 8, offset + ATSD_AVA));
	EXPECT_EQ(EINVAL, errno);
}

TEST_HARNESS_MAIN
