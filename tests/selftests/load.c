// SPDX-License-Identifier: GPL-2.0
/*
 * The same again and again: memory of the kernel is what it was before, in pages and in objects
 * of every slab cache.
 *
 * The environment's NVLINK2_LOAD is the number of cycles, 50 if it is not set; of races there
 * are a tenth as many, of unbinds a twentieth. The whole load is 1000. NVLINK2_LOAD_PAGES is for
 * a kernel with KASAN, which keeps pages for what vfree() has not unmapped yet: how many of them
 * a cycle may cost.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "counts.h"
#include "reset.h"
#include "sys.h"
#include "testbed.h"
#include "toucher.h"

#define DEFAULT_CYCLES	50
/* What comes and goes for the first time stays in caches: these many rounds are not counted. */
#define WARM_UP		5
/* Seconds */
#define LIMIT		7200

FIXTURE(load)
{
	struct testbed tb;
	struct counts before, after;
	unsigned int cycles, kept_pages;
};

static unsigned int from_environment(const char *name, unsigned int otherwise)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 10) : otherwise;
}

FIXTURE_SETUP(load)
{
	self->cycles = from_environment("NVLINK2_LOAD", DEFAULT_CYCLES);
	self->kept_pages = from_environment("NVLINK2_LOAD_PAGES", 0);
	ASSERT_LE(20U, self->cycles);
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(load)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/*
 * By how much a count may grow: what leaks in every other round shows. Fewer than the second
 * number come and go with whatever else the kernel does, so that short runs see less.
 */
static long limit(unsigned int rounds)
{
	return rounds / 2 > 25 ? rounds / 2 : 25;
}

static long page_limit(unsigned int rounds, unsigned int kept)
{
	return limit(rounds) + (long)rounds * kept;
}

/* The kernel log is read as it comes: it keeps a few dozen rounds only. */
static void end_round(struct __test_metadata *_metadata, struct testbed *tb, const char *what,
		      unsigned int i, unsigned int rounds)
{
	ASSERT_EQ(0, kmsg_splats(tb->kmsg));
	if (i && i % 100 == 0)
		TH_LOG("%u of %u %s", i, rounds, what);
}

/* Everything that a VM monitor opens, one page of GPU RAM, and everything closed. */
static void use_in_a_vm(struct __test_metadata *_metadata, struct testbed *tb, unsigned int i)
{
	const struct dt_gpu *g = &tb->topo.gpu[i % tb->topo.num_gpus];
	struct vfio_region_info *ram;
	struct vfio_group group;
	struct model model;
	__u64 value;
	int dev;
	void *p;

	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(g->bdf), true));
	dev = vfio_device_open(&group, g->bdf);
	ASSERT_LE(0, dev);
	ASSERT_EQ(0, model_attach(&model, dev));
	ASSERT_EQ(0, model_train(&model));
	ASSERT_EQ(0, vfio_find_gpu_ram(dev, &ram));
	p = vfio_map(dev, ram, i % 64 * PAGE_64K, PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, i));
	ASSERT_EQ(0, try_read64(p, &value));
	ASSERT_EQ(i, value);
	ASSERT_EQ(0, munmap(p, PAGE_64K));
	free(ram);
	close(dev);
	vfio_group_close(&group);
}

TEST_F_TIMEOUT(load, open_map_fault_close_with_a_vm, LIMIT)
{
	unsigned int i;

	for (i = 0; i < WARM_UP; i++)
		use_in_a_vm(_metadata, &self->tb, i);
	ASSERT_EQ(0, counts_take(&self->before));
	for (i = 0; i < self->cycles; i++) {
		use_in_a_vm(_metadata, &self->tb, i);
		end_round(_metadata, &self->tb, "cycles", i, self->cycles);
	}
	ASSERT_EQ(0, counts_take(&self->after));
	EXPECT_EQ(0U, counts_grown(&self->before, &self->after, limit(self->cycles),
				   page_limit(self->cycles, self->kept_pages)));
}

/* The VM gets the window's table twice, and then all goes. */
static void set_table_twice(struct __test_metadata *_metadata, struct testbed *tb)
{
	struct vfio_group group;

	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(tb->topo.gpu[0].bdf), true));
	ASSERT_EQ(0, vfio_group_set_table(&group));
	vfio_group_close(&group);
}

/*
 * The table of a window of 1 GiB and that of its user addresses have two pages each: half of that
 * is lost in each round, if any. A kernel with KASAN keeps about one for a while.
 */
TEST_F_TIMEOUT(load, table_is_set_twice, LIMIT)
{
	unsigned int i;

	for (i = 0; i < WARM_UP; i++)
		set_table_twice(_metadata, &self->tb);
	ASSERT_EQ(0, counts_take(&self->before));
	for (i = 0; i < self->cycles; i++) {
		set_table_twice(_metadata, &self->tb);
		end_round(_metadata, &self->tb, "tables", i, self->cycles);
	}
	ASSERT_EQ(0, counts_take(&self->after));
	EXPECT_EQ(0U, counts_grown(&self->before, &self->after, limit(self->cycles),
				   2 * self->cycles));
}

/*
 * A reset while a thread faults. Between the reset and the training of the links the thread has
 * to be kept away, as by the guest's driver: nothing but the guest knows when they are trained.
 */
static void reset_while_faulting(struct __test_metadata *_metadata, struct testbed *tb,
				 struct toucher *t)
{
	const unsigned long done = atomic_load(&t->done);

	while (atomic_load(&t->done) < done + 20)
		usleep(100);
	ASSERT_EQ(0, vfio_set_memory(tb->dev, false));
	ASSERT_EQ(0, ioctl(tb->dev, VFIO_DEVICE_RESET));
	toucher_hold(t);
	ASSERT_EQ(0, vfio_set_memory(tb->dev, true));
	ASSERT_EQ(0, model_train(&tb->model));
	toucher_release(t);
}

TEST_F_TIMEOUT(load, reset_while_faulting, LIMIT)
{
	const unsigned int races = self->cycles / 10;
	struct testbed tb;
	struct toucher t;
	unsigned int i;
	void *p;

	ASSERT_EQ(0, testbed_open(&tb, 0, false))
		TH_LOG("%s", tb.why);
	p = vfio_map(tb.dev, tb.ram, 0, TOUCHER_PAGES * PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, toucher_start(&t, p));
	reset_while_faulting(_metadata, &tb, &t);
	ASSERT_EQ(0, counts_take(&self->before));
	for (i = 0; i < races; i++) {
		reset_while_faulting(_metadata, &tb, &t);
		end_round(_metadata, &self->tb, "resets", i, races);
	}
	ASSERT_EQ(0, counts_take(&self->after));
	toucher_stop(&t);
	EXPECT_LT(0UL, atomic_load(&t.refused));
	EXPECT_EQ(0U, lost_accesses(&tb));
	EXPECT_EQ(0U, counts_grown(&self->before, &self->after, limit(races),
				   page_limit(races, self->kept_pages)));
	ASSERT_EQ(0, munmap(p, TOUCHER_PAGES * PAGE_64K));
	EXPECT_EQ(0, testbed_close(&tb));
}

/* The unbind starts while the device is open and mapped, and ends when the user is gone. */
static void unbind_while_open(struct __test_metadata *_metadata, struct testbed *bound,
			      unsigned int i)
{
	const char *bdf = bound->topo.gpu[i % bound->topo.num_gpus].bdf;
	struct testbed tb;
	int status;
	pid_t child;
	void *p;

	ASSERT_EQ(0, testbed_open(&tb, i % bound->topo.num_gpus, i & 1))
		TH_LOG("%s", tb.why);
	p = vfio_map(tb.dev, tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, i));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		/* The descriptors are the parent's. */
		close(tb.dev);
		vfio_group_close(&tb.group);
		_exit(!!driver_unbind(bdf));
	}
	usleep(200000);
	ASSERT_EQ(0, waitpid(child, &status, WNOHANG));
	ASSERT_EQ(0, try_write64(p, i + 1));
	ASSERT_EQ(0, munmap(p, PAGE_64K));
	ASSERT_EQ(0, testbed_close(&tb));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(0, driver_bind(bdf, DRIVER));
}

TEST_F_TIMEOUT(load, unbind_while_open, LIMIT)
{
	const unsigned int rounds = self->cycles / 20;
	unsigned int i;

	for (i = 0; i < WARM_UP; i++)
		unbind_while_open(_metadata, &self->tb, i);
	ASSERT_EQ(0, counts_take(&self->before));
	for (i = 0; i < rounds; i++) {
		unbind_while_open(_metadata, &self->tb, i);
		end_round(_metadata, &self->tb, "unbinds", i, rounds);
	}
	ASSERT_EQ(0, counts_take(&self->after));
	EXPECT_EQ(0U, counts_grown(&self->before, &self->after, limit(rounds),
				   page_limit(rounds, self->kept_pages)));
}

TEST_HARNESS_MAIN
