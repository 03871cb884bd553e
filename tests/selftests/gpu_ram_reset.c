// SPDX-License-Identifier: GPL-2.0
/*
 * Defect 16: while the GPU cannot answer (reset, memory space off, D3) nobody reaches its
 * RAM; on real hardware such an access raises an HMI and fences the link. The model counts
 * each one.
 */
#define _GNU_SOURCE
#include <linux/pci_regs.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "sys.h"
#include "testbed.h"

FIXTURE(gpu)
{
	struct testbed tb;
	char *p;
};

FIXTURE_SETUP(gpu)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->p = vfio_map(self->tb.dev, self->tb.ram, 0, 16 * PAGE_64K);
	ASSERT_NE(NULL, self->p);
	ASSERT_EQ(0, try_write64(self->p, 77));
	ASSERT_EQ(0, model_write32(&self->tb.model, V100_UNTRAINED_ACCESSES, 0));
}

FIXTURE_TEARDOWN(gpu)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static __u32 lost_accesses(const struct testbed *tb)
{
	__u32 count = ~0U;

	model_read32(&tb->model, V100_UNTRAINED_ACCESSES, &count);
	return count;
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
	if (q) {
		EXPECT_EQ(SIGBUS, try_read64(q, &value))
			TH_LOG("read through a mapping made while memory space was off");
	}
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	if (q) {
		EXPECT_EQ(0, try_read64(q, &value))
			TH_LOG("no access after memory space was switched on");
	}
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

struct toucher {
	char *p;
	atomic_bool stop;
	atomic_ulong tried, done, refused;
};

static __thread sigjmp_buf toucher_env;

static void on_sigbus(int sig)
{
	siglongjmp(toucher_env, sig);
}

static void *touch(void *arg)
{
	struct toucher *t = arg;

	while (!atomic_load(&t->stop)) {
		/* Not in a local variable: siglongjmp() may bring an old value back. */
		atomic_fetch_add(&t->tried, 1);
		if (!sigsetjmp(toucher_env, 1)) {
			store64(t->p + (atomic_load(&t->tried) % 16) * PAGE_64K, 1);
			atomic_fetch_add(&t->done, 1);
		} else {
			atomic_fetch_add(&t->refused, 1);
		}
	}
	return NULL;
}

/* Accesses that race with memory space going off and on: refused or answered, never lost. */
TEST_F_TIMEOUT(gpu, defect_16_race, 60)
{
	struct sigaction sa = { .sa_handler = on_sigbus };
	struct toucher t = { .p = self->p };
	pthread_t thread;
	int i;

	/* All of them are there at the start: without a zap nothing would be refused. */
	for (i = 0; i < 16; i++) {
		ASSERT_EQ(0, try_write64(self->p + i * PAGE_64K, i))
			TH_LOG("page %d", i);
	}
	sigaction(SIGBUS, &sa, NULL);
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch, &t));
	for (i = 0; i < 200; i++) {
		EXPECT_EQ(0, vfio_set_memory(self->tb.dev, false));
		usleep(500);
		EXPECT_EQ(0, vfio_set_memory(self->tb.dev, true));
		usleep(500);
	}
	atomic_store(&t.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0UL, atomic_load(&t.done));
	EXPECT_LT(0UL, atomic_load(&t.refused));
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

/*
 * The reset of a bridge takes its link down, and with it the GPU's RAM: the mapping goes as
 * with a reset of the GPU.
 */
TEST_F(gpu, defect_16_bridge_reset)
{
	int bridge = vfio_device_open(&self->tb.group, self->tb.gpu->link[0].bdf);
	__u64 value;
	int faults;

	ASSERT_LE(0, bridge);
	ASSERT_EQ(0, model_train(&self->tb.model));
	ASSERT_EQ(0, try_write64(self->p, 6));
	ASSERT_EQ(0, ioctl(bridge, VFIO_DEVICE_RESET))
		TH_LOG("%s: %s", self->tb.gpu->link[0].bdf, strerror(errno));
	ASSERT_EQ(0, model_train(&self->tb.model));
	ASSERT_EQ(0, trace_start("selftest-reset"));
	EXPECT_EQ(0, try_read64(self->p, &value));
	EXPECT_EQ(6ULL, value);
	faults = trace_count("selftest-reset", "vfio_pci_nvgpu_mmap_fault", NULL);
	trace_stop("selftest-reset");
	EXPECT_EQ(1, faults)
		TH_LOG("the page was still mapped after the reset");
	EXPECT_EQ(0U, lost_accesses(&self->tb));
	close(bridge);
}

TEST_HARNESS_MAIN
