// SPDX-License-Identifier: GPL-2.0
/*
 * The BARs of a bridge: what is done to one bridge does not take them from another.
 *
 * Two links share a register block of generation ids, the second BAR of both. OPAL stops decoding
 * all of it when memory space of either bridge is switched off, and an access that nothing decodes
 * is a machine check: these tests end with the host where the kernel lets that happen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "sys.h"
#include "testbed.h"

/* Registers of the link, and generation ids: 64-bit BARs, so two indices each. */
static const __u32 bars[] = { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX };

FIXTURE(bridges)
{
	struct testbed tb;
	const struct dt_gpu *gpu;
	int dev[DT_MAX_LINKS];
};

FIXTURE_SETUP(bridges)
{
	unsigned int i;

	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->gpu = self->tb.gpu;
	ASSERT_LE(2U, self->gpu->num_links);
	for (i = 0; i < self->gpu->num_links; i++) {
		self->dev[i] = vfio_device_open(&self->tb.group, self->gpu->link[i].bdf);
		ASSERT_LE(0, self->dev[i])
			TH_LOG("%s", self->gpu->link[i].bdf);
	}
}

FIXTURE_TEARDOWN(bridges)
{
	unsigned int i;

	for (i = 0; i < self->gpu->num_links; i++) {
		if (self->dev[i] >= 0)
			close(self->dev[i]);
	}
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Reads eight bytes of each BAR: 0, or the negative errno of the first that failed. */
static int read_bars(int dev)
{
	__u64 value;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bars); i++) {
		if (pread(dev, &value, 8, REGION_OFFSET(bars[i]) + 0x78) != 8)
			return -errno;
	}
	return 0;
}

TEST_F(bridges, memory_space_of_another_is_off)
{
	unsigned int off, i;

	for (off = 0; off < self->gpu->num_links; off++) {
		TH_LOG("%s is switched off", self->gpu->link[off].bdf);
		ASSERT_EQ(0, vfio_set_memory(self->dev[off], false));
		for (i = 0; i < self->gpu->num_links; i++)
			EXPECT_EQ(i == off ? -EIO : 0, read_bars(self->dev[i]));
		ASSERT_EQ(0, vfio_set_memory(self->dev[off], true));
		EXPECT_EQ(0, read_bars(self->dev[off]));
	}
}

TEST_F(bridges, another_is_closed)
{
	close(self->dev[1]);
	self->dev[1] = -1;
	EXPECT_EQ(0, read_bars(self->dev[0]));
}

struct reader {
	int dev;
	atomic_bool stop;
	atomic_ulong done, failed;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;

	while (!atomic_load(&r->stop))
		atomic_fetch_add(read_bars(r->dev) ? &r->failed : &r->done, 1);
	return NULL;
}

/* A reset switches memory space off, and on again. */
TEST_F(bridges, another_is_reset)
{
	struct reader r = { .dev = self->dev[0] };
	unsigned long done, meanwhile = 0;
	pthread_t thread;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, read_on, &r));
	for (i = 0; i < 10; i++) {
		done = atomic_load(&r.done);
		while (atomic_load(&r.done) == done && !atomic_load(&r.failed))
			usleep(100);
		done = atomic_load(&r.done);
		EXPECT_EQ(0, ioctl(self->dev[1], VFIO_DEVICE_RESET));
		meanwhile += atomic_load(&r.done) - done;
	}
	atomic_store(&r.stop, true);
	pthread_join(thread, NULL);
	EXPECT_LT(0UL, meanwhile);
	EXPECT_EQ(0UL, atomic_load(&r.failed));
}

TEST_HARNESS_MAIN
