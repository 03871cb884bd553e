// SPDX-License-Identifier: GPL-2.0
/*
 * Defect 16: while the GPU cannot answer (reset, memory space off, D3) nobody reaches its
 * RAM; on real hardware such an access raises an HMI and fences the link. The model counts
 * each one.
 */
#define _GNU_SOURCE
#include <linux/pci_regs.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "reset.h"
#include "sys.h"
#include "testbed.h"
#include "toucher.h"

FIXTURE(gpu)
{
	struct testbed tb;
	char *p;
};

FIXTURE_SETUP(gpu)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->p = vfio_map(self->tb.dev, self->tb.ram, 0, TOUCHER_PAGES * PAGE_64K);
	ASSERT_NE(NULL, self->p);
	ASSERT_EQ(0, try_write64(self->p, 77));
}

FIXTURE_TEARDOWN(gpu)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

TEST_F(gpu, defect_16_memory_space_off)
{
	__u64 value;
	int round;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
		/* Touched before, and never touched. */
		EXPECT_EQ(SIGBUS, try_read64(self->p, &value));
		EXPECT_EQ(SIGBUS, try_write64(self->p, 1));
		EXPECT_EQ(SIGBUS, try_read64(self->p + (3 + round) * PAGE_64K, &value));
		EXPECT_EQ(-1, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
		EXPECT_EQ(EIO, errno);
		EXPECT_EQ(-1, pwrite(self->tb.dev, &value, 8, self->tb.ram->offset));
		EXPECT_EQ(EIO, errno);

		ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
		EXPECT_EQ(0, try_read64(self->p, &value));
		EXPECT_EQ(77ULL, value);
		EXPECT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
		EXPECT_EQ(77ULL, value);
	}
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

TEST_F(gpu, defect_16_mmap_while_memory_space_is_off)
{
	__u64 value;
	char *q;

	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
	q = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, q)
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(SIGBUS, try_read64(q, &value))
		TH_LOG("read through a mapping made while memory space was off");
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	EXPECT_EQ(0, try_read64(q, &value))
		TH_LOG("no access after memory space was switched on");
	EXPECT_EQ(77ULL, value);
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

TEST_F(gpu, defect_16_d3)
{
	int pm = vfio_find_pci_cap(self->tb.dev, PCI_CAP_ID_PM);
	__u64 value;
	__u16 pmcsr;

	if (pm == -ENOENT)
		SKIP(return, "%s has no power management capability", self->tb.gpu->bdf);
	ASSERT_LT(0, pm);
	ASSERT_EQ(0, vfio_config_read16(self->tb.dev, pm + PCI_PM_CTRL, &pmcsr));
	ASSERT_EQ(0, vfio_config_write16(self->tb.dev, pm + PCI_PM_CTRL, (pmcsr & ~3) | 3));
	EXPECT_EQ(SIGBUS, try_read64(self->p, &value));
	EXPECT_EQ(-1, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
	EXPECT_EQ(EIO, errno);
	ASSERT_EQ(0, vfio_config_write16(self->tb.dev, pm + PCI_PM_CTRL, pmcsr & ~3));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	EXPECT_EQ(0U, lost_accesses(&self->tb));
	ASSERT_EQ(0, model_train(&self->tb.model));
	EXPECT_EQ(0, try_write64(self->p, 5));
	EXPECT_EQ(0, try_read64(self->p, &value));
	EXPECT_EQ(5ULL, value);
}

/*
 * The mapping is gone after a reset, as the links are; it comes back, page by page, for who
 * trains them first.
 */
TEST_F(gpu, defect_16_reset)
{
	__u32 status, resets, after;
	__u64 value;
	int faults;

	ASSERT_EQ(0, model_read32(&self->tb.model, V100_RESETS, &resets));
	ASSERT_EQ(0, ioctl(self->tb.dev, VFIO_DEVICE_RESET));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	ASSERT_EQ(0, model_read32(&self->tb.model, V100_RESETS, &after));
	EXPECT_LT(resets, after);
	ASSERT_EQ(0, model_read32(&self->tb.model, V100_LINK_STATUS, &status));
	EXPECT_EQ(0U, status);
	ASSERT_EQ(0, model_train(&self->tb.model));
	ASSERT_EQ(0, trace_start("selftest-reset"));
	EXPECT_EQ(0, try_write64(self->p, 78));
	EXPECT_EQ(0, try_read64(self->p, &value));
	EXPECT_EQ(78ULL, value);
	faults = trace_count("selftest-reset", "vfio_pci_nvgpu_mmap_fault", NULL);
	trace_stop("selftest-reset");
	EXPECT_EQ(1, faults)
		TH_LOG("the page was still mapped after the reset");
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

/* Accesses that race with memory space going off and on: refused or answered, never lost. */
TEST_F_TIMEOUT(gpu, defect_16_race, 60)
{
	struct toucher t;
	int i;

	/* All of them are there at the start: without a zap nothing would be refused. */
	for (i = 0; i < TOUCHER_PAGES; i++) {
		ASSERT_EQ(0, try_write64(self->p + i * PAGE_64K, i))
			TH_LOG("page %d", i);
	}
	ASSERT_EQ(0, toucher_start(&t, self->p));
	for (i = 0; i < 200; i++) {
		EXPECT_EQ(0, vfio_set_memory(self->tb.dev, false));
		usleep(500);
		EXPECT_EQ(0, vfio_set_memory(self->tb.dev, true));
		usleep(500);
	}
	toucher_stop(&t);
	EXPECT_LT(0UL, atomic_load(&t.done));
	EXPECT_LT(0UL, atomic_load(&t.refused));
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

TEST_F(gpu, defect_16_function_level_reset)
{
	int cap = vfio_find_pci_cap(self->tb.dev, PCI_CAP_ID_EXP);
	const __u32 before = resets(&self->tb);
	__u16 control;

	ASSERT_LT(0, cap);
	ASSERT_EQ(0, vfio_config_read16(self->tb.dev, cap + PCI_EXP_DEVCTL, &control));
	ASSERT_EQ(0, vfio_config_write16(self->tb.dev, cap + PCI_EXP_DEVCTL,
					 control | PCI_EXP_DEVCTL_BCR_FLR));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
	EXPECT_LT(before, resets(&self->tb));
}

TEST_F(gpu, defect_16_hot_reset)
{
	struct {
		struct vfio_pci_hot_reset reset;
		__s32 group;
	} hot = { .reset = { .argsz = sizeof(hot), .count = 1 }, .group = self->tb.group.group };
	const __u32 before = resets(&self->tb);

	ASSERT_EQ(0, ioctl(self->tb.dev, VFIO_DEVICE_PCI_HOT_RESET, &hot))
		TH_LOG("%s", strerror(errno));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
	EXPECT_LT(before, resets(&self->tb));
}

/* By somebody else: whoever may write to sysfs. */
TEST_F(gpu, defect_16_reset_by_sysfs)
{
	const __u32 before = resets(&self->tb);
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", self->tb.gpu->bdf);
	ASSERT_EQ(0, sys_write(path, "1"));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
	EXPECT_LT(before, resets(&self->tb));
}

static int low_power(int dev, __u32 feature)
{
	struct vfio_device_feature f = {
		.argsz = sizeof(f), .flags = VFIO_DEVICE_FEATURE_SET | feature,
	};

	return ioctl(dev, VFIO_DEVICE_FEATURE, &f) ? -errno : 0;
}

TEST_F(gpu, defect_16_low_power)
{
	__u64 value;

	ASSERT_EQ(0, low_power(self->tb.dev, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));
	EXPECT_EQ(SIGBUS, try_read64(self->p, &value));
	EXPECT_EQ(SIGBUS, try_read64(self->p + 2 * PAGE_64K, &value));
	EXPECT_EQ(-1, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
	EXPECT_EQ(EIO, errno);
	ASSERT_EQ(0, low_power(self->tb.dev, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
}

static int reset_device(int dev)
{
	return ioctl(dev, VFIO_DEVICE_RESET) ? -errno : 0;
}

/*
 * What resets a bridge takes its link down, and with it the GPU's RAM: the mapping goes as with a
 * reset of the GPU.
 */
static void bridge_is_reset_by(struct __test_metadata *_metadata, struct testbed *tb, char *p,
			       int (*how)(int dev))
{
	int bridge = vfio_device_open(&tb->group, tb->gpu->link[0].bdf);
	__u64 value;
	int faults;

	ASSERT_LE(0, bridge);
	ASSERT_EQ(0, model_train(&tb->model));
	ASSERT_EQ(0, try_write64(p, 6));
	ASSERT_EQ(0, how(bridge))
		TH_LOG("%s: %s", tb->gpu->link[0].bdf, strerror(errno));
	ASSERT_EQ(0, model_train(&tb->model));
	ASSERT_EQ(0, trace_start("selftest-reset"));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(6ULL, value);
	faults = trace_count("selftest-reset", "vfio_pci_nvgpu_mmap_fault", NULL);
	trace_stop("selftest-reset");
	EXPECT_EQ(1, faults)
		TH_LOG("the page was still mapped after the reset");
	EXPECT_EQ(0U, lost_accesses(tb));
	close(bridge);
}

TEST_F(gpu, defect_16_bridge_reset)
{
	bridge_is_reset_by(_metadata, &self->tb, self->p, reset_device);
}

/* VFIO resets what is closed, and tells no driver. */
TEST_F(gpu, defect_16_bridge_close)
{
	bridge_is_reset_by(_metadata, &self->tb, self->p, close);
}

TEST_HARNESS_MAIN
