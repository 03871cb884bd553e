// SPDX-License-Identifier: GPL-2.0
/*
 * Defect 16: while the GPU cannot answer (reset, memory space off, D3) nobody reaches its
 * RAM; on real hardware such an access raises an HMI and fences the link. The model counts
 * each one.
 */
#define _GNU_SOURCE
#include <linux/pci_regs.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>

#include "kselftest_harness.h"

#include "bind.h"
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

/* How often the kernel has mapped the GPU's aperture; -1 if that cannot be known. */
static int kernel_mappings(const struct testbed *tb)
{
	FILE *f = fopen("/proc/vmallocinfo", "re");
	char wanted[32], line[512];
	int count = 0;

	if (!f)
		return -1;
	snprintf(wanted, sizeof(wanted), "phys=0x%016lx", (unsigned long)tb->gpu->aperture);
	while (fgets(line, sizeof(line), f))
		count += !!strstr(line, wanted);
	fclose(f);
	return count;
}

/*
 * There is one for all reads and writes until a reset begins: a processor may load by speculation
 * what is mapped.
 */
TEST_F(gpu, kernel_mapping_goes_with_a_reset)
{
	__u64 value;
	int i;

	ASSERT_EQ(0, kernel_mappings(&self->tb));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + i * PAGE_64K));
		ASSERT_EQ(8, pwrite(self->tb.dev, &value, 8, self->tb.ram->offset + PAGE_64K));
		EXPECT_EQ(1, kernel_mappings(&self->tb));
	}
	ASSERT_EQ(0, ioctl(self->tb.dev, VFIO_DEVICE_RESET));
	EXPECT_EQ(0, kernel_mappings(&self->tb));
	ASSERT_EQ(0, model_train(&self->tb.model));
	ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
	EXPECT_EQ(1, kernel_mappings(&self->tb));
	ASSERT_EQ(0, munmap(self->p, TOUCHER_PAGES * PAGE_64K));
	close(self->tb.dev);
	self->tb.dev = -1;
	EXPECT_EQ(0, kernel_mappings(&self->tb));
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

/* Threads that read a region again and again, whatever comes of it. */
#define HAMMERS		64
/*
 * How many times as long something that closes the region takes, at most, as beside as many threads
 * whose reads fail before it is looked at whether the region is closed.
 */
#define LONGER		4
#define ROUNDS		5

struct hammer {
	int dev;
	__u64 offset;
	atomic_bool stop;
	/* Reads that failed as the region was closed. */
	atomic_ulong refused;
	pthread_t threads[HAMMERS];
};

static void *read_on(void *arg)
{
	struct hammer *h = arg;
	__u64 value;

	setpriority(PRIO_PROCESS, gettid(), 19);
	while (!atomic_load(&h->stop)) {
		if (pread(h->dev, &value, 8, h->offset) < 0 && errno == EIO)
			atomic_fetch_add(&h->refused, 1);
	}
	return NULL;
}

static int hammer_start(struct hammer *h, int dev, __u64 offset)
{
	unsigned int i;
	int ret = 0;

	*h = (struct hammer){ .dev = dev, .offset = offset };
	for (i = 0; !ret && i < HAMMERS; i++)
		ret = pthread_create(&h->threads[i], NULL, read_on, h);
	return -ret;
}

static void hammer_stop(struct hammer *h)
{
	unsigned int i;

	atomic_store(&h->stop, true);
	for (i = 0; i < HAMMERS; i++)
		pthread_join(h->threads[i], NULL);
}

static __u64 microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

FIXTURE(hammered)
{
	struct testbed tb;
	int bridge;
	struct vfio_region_info *atsd;
	struct hammer hammer;
};

FIXTURE_SETUP(hammered)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	self->bridge = vfio_device_open(&self->tb.group, self->tb.gpu->link[0].bdf);
	ASSERT_LE(0, self->bridge);
	ASSERT_EQ(0, vfio_find_atsd(self->bridge, &self->atsd));
}

FIXTURE_TEARDOWN(hammered)
{
	free(self->atsd);
	close(self->bridge);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/*
 * Whoever reads GPU RAM makes the kernel's mapping of it again after each reset, while the next
 * reset waits for all who read: one of them must not wait for the reset.
 */
TEST_F_TIMEOUT(hammered, reads_of_gpu_ram_beside_resets, 240)
{
	unsigned int round;

	ASSERT_EQ(0, hammer_start(&self->hammer, self->tb.dev, self->tb.ram->offset));
	for (round = 0; round < 20 * ROUNDS; round++)
		EXPECT_EQ(0, reset_device(self->bridge));
	hammer_stop(&self->hammer);
	EXPECT_LT(0UL, atomic_load(&self->hammer.refused));
}

/* Resets the bridge; returns how long that took, 0 if it failed. */
static __u64 time_of_reset(const struct testbed *tb, int bridge)
{
	__u64 start = microseconds();

	(void)tb;
	return reset_device(bridge) ? 0 : microseconds() - start;
}

/* Unbinds the GPU, which nobody has open: that takes its registers from the bridge. */
static __u64 time_of_unbind(const struct testbed *tb, int bridge)
{
	__u64 start = microseconds();

	(void)bridge;
	return driver_unbind(tb->gpu->bdf) ? 0 : microseconds() - start;
}

/*
 * The shortest of some times that it takes beside threads that read at @offset of the bridge's
 * registers, 0 if one failed. An unbind is undone.
 */
static __u64 time_beside(struct testbed *tb, int *bridge, struct hammer *h, __u64 offset,
			 __u64 (*what)(const struct testbed *tb, int bridge))
{
	__u64 least = ~0ULL, took;
	unsigned int round;

	for (round = 0; round < ROUNDS; round++) {
		if (hammer_start(h, *bridge, offset))
			return 0;
		took = what(tb, *bridge);
		hammer_stop(h);
		if (!took)
			return 0;
		if (took < least)
			least = took;
		if (what != time_of_unbind)
			continue;
		close(*bridge);
		if (driver_bind(tb->gpu->bdf, DRIVER))
			return 0;
		*bridge = vfio_device_open(&tb->group, tb->gpu->link[0].bdf);
		if (*bridge < 0)
			return 0;
	}
	return least;
}

/*
 * Beside threads that read elsewhere, and beside those that read the registers, which may take
 * @longer times as long; 0 if that is not judged.
 */
static void compare(struct __test_metadata *_metadata, struct testbed *tb, int *bridge,
		    struct hammer *h, const struct vfio_region_info *registers,
		    __u64 (*what)(const struct testbed *tb, int bridge), unsigned int longer)
{
	__u64 elsewhere, closed;

	elsewhere = time_beside(tb, bridge, h, registers->offset + registers->size, what);
	EXPECT_EQ(0UL, atomic_load(&h->refused));
	closed = time_beside(tb, bridge, h, registers->offset, what);
	EXPECT_LT(0UL, atomic_load(&h->refused));
	TH_LOG("beside %u threads that read elsewhere %llu us, what is closed %llu us",
	       HAMMERS, (unsigned long long)elsewhere, (unsigned long long)closed);
	ASSERT_LT(0ULL, elsewhere);
	ASSERT_LT(0ULL, closed);
	if (longer)
		EXPECT_GT(longer * elsewhere, closed);
}

/*
 * Who reads a region that is closed does not keep it from being closed once more. The registers of
 * a bridge are, once its GPU is unbound; a reset of the bridge closes them, too.
 */
TEST_F_TIMEOUT(hammered, bridge_reset, 240)
{
	close(self->tb.dev);
	ASSERT_EQ(0, driver_unbind(self->tb.gpu->bdf));
	compare(_metadata, &self->tb, &self->bridge, &self->hammer, self->atsd, time_of_reset,
		LONGER);
	ASSERT_EQ(0, driver_bind(self->tb.gpu->bdf, DRIVER));
	self->tb.dev = vfio_device_open(&self->tb.group, self->tb.gpu->bdf);
	EXPECT_LE(0, self->tb.dev);
}

/*
 * Nor from being closed at all. How long that takes says nothing: reads that were let in are waited
 * for, and as many threads take turns on a few processors.
 */
TEST_F_TIMEOUT(hammered, unbind, 240)
{
	close(self->tb.dev);
	compare(_metadata, &self->tb, &self->bridge, &self->hammer, self->atsd, time_of_unbind, 0);
	self->tb.dev = vfio_device_open(&self->tb.group, self->tb.gpu->bdf);
	EXPECT_LE(0, self->tb.dev);
}

TEST_HARNESS_MAIN
