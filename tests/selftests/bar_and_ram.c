// SPDX-License-Identifier: GPL-2.0
/*
 * A BAR and the RAM of one GPU, mapped side by side, and a thread that touches each: whatever the
 * user or the host does to the GPU, nobody is refused the RAM who would have had the BAR.
 *
 * Whether the RAM answers is another matter: links are not trained after a reset, and the threads
 * do not wait for that. The model counts such accesses, and is made to forgive them: a store would
 * end the host.
 */
#define _GNU_SOURCE
#include <linux/pci_regs.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "guest.h"
#include "npu.h"
#include "reset.h"
#include "sys.h"
#include "testbed.h"
#include "toucher.h"

#define SIZE		(TOUCHER_PAGES * PAGE_64K)
/* The GPU's own view of the lower part of its RAM, which needs no link. */
#define BAR		1
#define GUEST_RAM	(64UL << 40)
#define WRITES		2000
#define RESETS		5

FIXTURE(beside)
{
	struct testbed tb;
	struct vfio_region_info *bar_info;
	char *bar, *ram;
	/* Odd while neither has to be there. */
	atomic_uint phase;
	struct toucher on_bar, on_ram;
	const char *dead;
};

FIXTURE_SETUP(beside)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->dead = npu_dead();
	ASSERT_EQ(0, npu_set("dead", ALL_ONES));
	ASSERT_EQ(0, vfio_region(self->tb.dev, BAR, &self->bar_info));
	self->bar = vfio_map(self->tb.dev, self->bar_info, 0, SIZE);
	ASSERT_NE(NULL, self->bar);
	self->ram = vfio_map(self->tb.dev, self->tb.ram, 0, SIZE);
	ASSERT_NE(NULL, self->ram);
	ASSERT_EQ(0, toucher_start_with(&self->on_bar, self->bar, &self->phase));
	ASSERT_EQ(0, toucher_start_with(&self->on_ram, self->ram, &self->phase));
}

FIXTURE_TEARDOWN(beside)
{
	toucher_stop(&self->on_bar);
	toucher_stop(&self->on_ram);
	free(self->bar_info);
	EXPECT_EQ(0, testbed_close(&self->tb));
	EXPECT_EQ(0, npu_set("dead", self->dead));
}

/* Waits until the thread has had as many more answers as there are pages. */
static void goes_on(const struct toucher *t)
{
	const unsigned long done = atomic_load(&t->done);

	while (atomic_load(&t->done) < done + TOUCHER_PAGES)
		usleep(100);
}

/* Neither was refused what it should have had, the RAM as little as the BAR. */
static void equal_rights(struct __test_metadata *_metadata, const struct toucher *bar,
			 const struct toucher *ram, const char *what)
{
	EXPECT_EQ(0UL, atomic_load(&bar->wrong))
		TH_LOG("accesses of the BAR, %s", what);
	EXPECT_EQ(0UL, atomic_load(&ram->wrong))
		TH_LOG("accesses of the RAM, of %lu, %s", atomic_load(&ram->tried), what);
}

static int flip(int dev, unsigned int reg, __u16 bits)
{
	__u16 value;
	int ret = vfio_config_read16(dev, reg, &value);

	return ret ?: vfio_config_write16(dev, reg, value ^ bits);
}

/* Writes that leave memory space and power on take nothing away, and no access is lost. */
TEST_F_TIMEOUT(beside, harmless_writes, 120)
{
	const int pm = vfio_find_pci_cap(self->tb.dev, PCI_CAP_ID_PM);
	int i;

	ASSERT_LT(0, pm);
	for (i = 0; i < WRITES; i++) {
		ASSERT_EQ(0, flip(self->tb.dev, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE));
		if (i % 10)
			continue;
		ASSERT_EQ(0, flip(self->tb.dev, PCI_COMMAND, PCI_COMMAND_MASTER));
		ASSERT_EQ(0, flip(self->tb.dev, pm + PCI_PM_CTRL, PCI_PM_CTRL_PME_ENABLE));
		goes_on(&self->on_bar);
		goes_on(&self->on_ram);
	}
	equal_rights(_metadata, &self->on_bar, &self->on_ram, "writes");
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

static int memory_off(int dev)
{
	return vfio_set_memory(dev, false);
}

static int memory_on(int dev)
{
	return vfio_set_memory(dev, true);
}

static int power_state(int dev, __u16 state)
{
	int pm = vfio_find_pci_cap(dev, PCI_CAP_ID_PM);
	__u16 pmcsr;
	int ret = pm < 0 ? pm : vfio_config_read16(dev, pm + PCI_PM_CTRL, &pmcsr);

	return ret ?: vfio_config_write16(dev, pm + PCI_PM_CTRL,
					  (pmcsr & ~PCI_PM_CTRL_STATE_MASK) | state);
}

static int to_d3(int dev)
{
	return power_state(dev, 3);
}

static int to_d0(int dev)
{
	return power_state(dev, 0);
}

static int low_power(int dev, __u32 feature)
{
	struct vfio_device_feature f = {
		.argsz = sizeof(f), .flags = VFIO_DEVICE_FEATURE_SET | feature,
	};

	return ioctl(dev, VFIO_DEVICE_FEATURE, &f) ? -errno : 0;
}

static int low_power_entry(int dev)
{
	return low_power(dev, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY);
}

static int low_power_exit(int dev)
{
	return low_power(dev, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT);
}

/* Where the BAR is gone the RAM is, and comes back with it. */
TEST_F_TIMEOUT(beside, off_and_on, 120)
{
	static const struct {
		const char *name;
		int (*off)(int dev);
		int (*on)(int dev);
	} ways[] = {
		{ "memory space", memory_off, memory_on },
		{ "D3", to_d3, to_d0 },
		{ "low power", low_power_entry, low_power_exit },
	};
	ssize_t of_bar, of_ram;
	unsigned int i, round;
	__u64 value;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		for (round = 0; round < 3; round++) {
			goes_on(&self->on_bar);
			goes_on(&self->on_ram);
			atomic_fetch_add(&self->phase, 1);
			ASSERT_EQ(0, ways[i].off(self->tb.dev))
				TH_LOG("%s", ways[i].name);
			usleep(1000);
			toucher_hold(&self->on_bar);
			toucher_hold(&self->on_ram);
			EXPECT_EQ(SIGBUS, try_read64(self->bar, &value))
				TH_LOG("the BAR, %s", ways[i].name);
			EXPECT_EQ(SIGBUS, try_read64(self->ram, &value))
				TH_LOG("the RAM, %s", ways[i].name);
			/* VFIO refuses faults of a device that sleeps, and wakes it for calls. */
			of_bar = pread(self->tb.dev, &value, 8, self->bar_info->offset);
			of_ram = pread(self->tb.dev, &value, 8, self->tb.ram->offset);
			EXPECT_EQ(of_bar, of_ram)
				TH_LOG("%s", ways[i].name);
			ASSERT_EQ(0, ways[i].on(self->tb.dev));
			ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
			ASSERT_EQ(0, model_train(&self->tb.model));
			atomic_fetch_add(&self->phase, 1);
			toucher_release(&self->on_bar);
			toucher_release(&self->on_ram);
		}
	}
	goes_on(&self->on_bar);
	goes_on(&self->on_ram);
	EXPECT_LT(0UL, atomic_load(&self->on_bar.refused));
	EXPECT_LT(0UL, atomic_load(&self->on_ram.refused));
	equal_rights(_metadata, &self->on_bar, &self->on_ram, "off and on");
}

static int reset_device(int dev)
{
	return ioctl(dev, VFIO_DEVICE_RESET) ? -errno : 0;
}

static int reset_by_user(const struct testbed *tb)
{
	return reset_device(tb->dev);
}

/* Nothing happens if the GPU has none. */
static int function_level_reset(const struct testbed *tb)
{
	int cap = vfio_find_pci_cap(tb->dev, PCI_CAP_ID_EXP);

	return cap < 0 ? cap : flip(tb->dev, cap + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
}

/* VFIO does not wait for who faults just then, but has the user try again. */
static int hot_reset(const struct testbed *tb)
{
	struct {
		struct vfio_pci_hot_reset reset;
		__s32 group;
	} hot = { .reset = { .argsz = sizeof(hot), .count = 1 }, .group = tb->group.group };

	while (ioctl(tb->dev, VFIO_DEVICE_PCI_HOT_RESET, &hot)) {
		if (errno != EBUSY && errno != EAGAIN)
			return -errno;
	}
	return 0;
}

/* By somebody else: whoever may write to sysfs. VFIO knows nothing of it. */
static int reset_by_sysfs(const struct testbed *tb)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", tb->gpu->bdf);
	return sys_write(path, "1");
}

static int bridge_reset(const struct testbed *tb)
{
	int bridge = vfio_device_open(&tb->group, tb->gpu->link[0].bdf), ret;

	if (bridge < 0)
		return bridge;
	ret = reset_device(bridge);
	close(bridge);
	return ret;
}

/* Resets, by whomever: an access waits for the end. */
TEST_F_TIMEOUT(beside, resets, 240)
{
	static const struct {
		const char *name;
		int (*reset)(const struct testbed *tb);
		/* The GPU itself is reset. */
		bool own;
	} ways[] = {
		{ "VFIO_DEVICE_RESET", reset_by_user, true },
		{ "FLR", function_level_reset, false },
		{ "hot reset", hot_reset, true },
		{ "sysfs", reset_by_sysfs, true },
		{ "bridge", bridge_reset, false },
	};
	unsigned int i, round;
	__u32 before;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		before = resets(&self->tb);
		for (round = 0; round < RESETS; round++) {
			goes_on(&self->on_bar);
			goes_on(&self->on_ram);
			ASSERT_EQ(0, ways[i].reset(&self->tb))
				TH_LOG("%s: %s", ways[i].name, strerror(errno));
			ASSERT_EQ(0, model_train(&self->tb.model));
		}
		if (ways[i].own)
			EXPECT_LE(before + RESETS, resets(&self->tb));
		equal_rights(_metadata, &self->on_bar, &self->on_ram, ways[i].name);
	}
}

/* A guest that is in the middle of it takes no notice, but waits. */
struct walker {
	struct guest guest;
	atomic_bool stop;
	atomic_ulong walks;
	int ret;
	pthread_t thread;
};

static void *walk(void *arg)
{
	struct walker *w = arg;

	while (!w->ret && !atomic_load(&w->stop)) {
		w->ret = guest_walk(&w->guest, GUEST_RAM, PAGE_64K, TOUCHER_PAGES);
		atomic_fetch_add(&w->walks, 1);
	}
	return NULL;
}

FIXTURE(guest)
{
	struct testbed tb;
	struct walker walker;
	char *ram;
	const char *dead;
};

FIXTURE_SETUP(guest)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	self->dead = npu_dead();
	ASSERT_EQ(0, npu_set("dead", ALL_ONES));
	self->ram = vfio_map(self->tb.dev, self->tb.ram, 0, SIZE);
	ASSERT_NE(NULL, self->ram);
	ASSERT_EQ(0, guest_create(&self->walker.guest, self->tb.group.vm, 1));
	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, self->ram, SIZE));
}

FIXTURE_TEARDOWN(guest)
{
	EXPECT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, self->ram, 0));
	guest_destroy(&self->walker.guest);
	munmap(self->ram, SIZE);
	EXPECT_EQ(0, testbed_close(&self->tb));
	EXPECT_EQ(0, npu_set("dead", self->dead));
}

TEST_F_TIMEOUT(guest, outlives_resets_of_a_bridge, 120)
{
	struct walker *w = &self->walker;
	unsigned long walks;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&w->thread, NULL, walk, w));
	for (i = 0; i < RESETS; i++) {
		walks = atomic_load(&w->walks);
		while (!w->ret && atomic_load(&w->walks) < walks + 2)
			usleep(100);
		EXPECT_EQ(0, bridge_reset(&self->tb));
		EXPECT_EQ(0, model_train(&self->tb.model));
	}
	atomic_store(&w->stop, true);
	pthread_join(w->thread, NULL);
	EXPECT_EQ(0, w->ret)
		TH_LOG("%s, after %lu walks", strerror(-w->ret), atomic_load(&w->walks));
}

TEST_HARNESS_MAIN
