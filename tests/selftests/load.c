// SPDX-License-Identifier: GPL-2.0
/*
 * The same again and again: memory of the kernel is what it was before, in pages and in objects
 * of every slab cache.
 *
 * Objects come and go with whatever else the kernel does, often more of them than a few rounds can
 * leak. But they do not come each time: where something grew, the same rounds are done again, and
 * only what grows again and again with them is lost.
 *
 * The environment's NVLINK2_LOAD is the number of cycles, 50 if it is not set; of races there
 * are a tenth as many, of unbinds a twentieth, but never fewer than 20. The whole load is 1000.
 * NVLINK2_LOAD_PAGES is for a kernel with KASAN, which keeps pages for what vfree() has not
 * unmapped yet: how many of them a cycle may cost.
 */
#define _GNU_SOURCE
#include <linux/kvm.h>
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
/* Less is not told from what others do. */
#define LEAST		20
/* What comes and goes for the first time stays in caches: these many rounds are not counted. */
#define WARM_UP		5
/* So many measurements in a row have to grow, of which most runs need one only. */
#define MEASUREMENTS	4
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

/* What is done again and again. */
struct load {
	const char *name;
	unsigned int rounds;
	/* One of them, number @i; @arg is the load's. */
	void (*round)(struct __test_metadata *_metadata, struct testbed *tb, void *arg,
		      unsigned int i);
	void *arg;
	/* How many pages at least are lost in @rounds of them, if any are. */
	long pages;
};

static unsigned int at_least(unsigned int rounds)
{
	return rounds > LEAST ? rounds : LEAST;
}

/* Of each round or of every other one: what leaks that often is found. */
static long half(unsigned int rounds)
{
	return (rounds + 1) / 2;
}

static void do_rounds(struct __test_metadata *_metadata, struct testbed *tb, const struct load *l)
{
	unsigned int i;

	for (i = 0; i < l->rounds; i++) {
		l->round(_metadata, tb, l->arg, i);
		/* The kernel log is read as it comes: it keeps a few dozen rounds only. */
		ASSERT_EQ(0, kmsg_splats(tb->kmsg));
		if (i && i % 100 == 0)
			TH_LOG("%u of %u %s", i, l->rounds, l->name);
	}
}

static void measure(struct __test_metadata *_metadata, struct _test_data_load *self,
		    const struct load *l)
{
	unsigned int i, grew = 0;

	for (i = 0; i < WARM_UP; i++)
		l->round(_metadata, &self->tb, l->arg, i);
	ASSERT_EQ(0, counts_take(&self->before));
	do {
		do_rounds(_metadata, &self->tb, l);
		ASSERT_EQ(0, counts_take(&self->after));
		grew = counts_grown(&self->before, &self->after, half(l->rounds), l->pages);
		self->before = self->after;
	} while (grew && grew < MEASUREMENTS);
	EXPECT_EQ(0U, grew)
		TH_LOG("in each of %u times %u %s something was lost", grew, l->rounds, l->name);
}

/* Everything that a VM monitor opens, one page of GPU RAM, and everything closed. */
static void use_in_a_vm(struct __test_metadata *_metadata, struct testbed *tb, void *arg,
			unsigned int i)
{
	const struct dt_gpu *g = &tb->topo.gpu[i % tb->topo.num_gpus];
	struct vfio_region_info *ram;
	struct vfio_group group;
	struct model model;
	__u64 value;
	int dev;
	void *p;

	(void)arg;
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
	const struct load cycles = {
		.name = "cycles", .rounds = self->cycles, .round = use_in_a_vm,
		.pages = half(self->cycles) + (long)self->cycles * self->kept_pages,
	};

	measure(_metadata, self, &cycles);
}

/* The VM gets the window's table twice, and then all goes. */
static void set_table_twice(struct __test_metadata *_metadata, struct testbed *tb, void *arg,
			    unsigned int i)
{
	struct vfio_group group;

	(void)arg;
	(void)i;
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
	const struct load tables = {
		.name = "tables", .rounds = self->cycles, .round = set_table_twice,
		.pages = 2 * self->cycles,
	};

	measure(_metadata, self, &tables);
}

/* The window goes, and another one comes for the table of a VM, which stays. */
static void replace_window(struct __test_metadata *_metadata, struct testbed *tb, void *arg,
			   unsigned int i)
{
	const struct vfio_group *group = arg;
	struct vfio_iommu_spapr_tce_remove remove = {
		.argsz = sizeof(remove), .start_addr = group->window_start,
	};
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create),
		.page_shift = group->page_shift,
		.window_size = group->window_size,
		.levels = 1,
	};

	(void)tb;
	(void)i;
	ASSERT_EQ(0, ioctl(group->container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove));
	ASSERT_EQ(0, ioctl(group->container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create));
	ASSERT_EQ(group->window_start, create.start_addr);
	ASSERT_EQ(0, vfio_group_set_table(group));
}

/* Each window that is left behind has four pages, as above. */
TEST_F_TIMEOUT(load, windows_behind_a_table, LIMIT)
{
	struct vfio_group group;
	const struct load windows = {
		.name = "windows", .rounds = self->cycles, .round = replace_window, .arg = &group,
		.pages = 2 * self->cycles,
	};

	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(self->tb.topo.gpu[0].bdf), true));
	measure(_metadata, self, &windows);
	vfio_group_close(&group);
}

#define TABLES	100

/* Each window goes while another table of the VM has it, which gets no other one. */
TEST_F_TIMEOUT(load, windows_behind_many_tables, LIMIT)
{
	struct vfio_group group, other;
	unsigned int i;

	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(self->tb.topo.gpu[0].bdf), true));
	for (i = 0; i < WARM_UP; i++)
		replace_window(_metadata, &self->tb, &group, i);
	ASSERT_EQ(0, counts_take(&self->before));
	for (i = 0; i < TABLES; i++) {
		struct kvm_create_spapr_tce_64 tce = {
			.liobn = VFIO_GROUP_LIOBN + 1 + i,
			.page_shift = group.page_shift,
			.offset = group.window_start >> group.page_shift,
			.size = group.window_size >> group.page_shift,
		};

		/* Closed with the test. */
		other = group;
		other.kvm_table = ioctl(group.vm, KVM_CREATE_SPAPR_TCE_64, &tce);
		ASSERT_LE(0, other.kvm_table);
		replace_window(_metadata, &self->tb, &other, i);
	}
	ASSERT_EQ(0, counts_take(&self->after));
	EXPECT_FALSE(counts_grown(&self->before, &self->after, 10 * TABLES, 2 * TABLES));
	vfio_group_close(&group);
}

/* A GPU that is open, and a thread that faults. */
struct faulting {
	struct testbed tb;
	struct toucher t;
};

/*
 * A reset while a thread faults. Between the reset and the training of the links the thread has
 * to be kept away, as by the guest's driver: nothing but the guest knows when they are trained.
 */
static void reset_while_faulting(struct __test_metadata *_metadata, struct testbed *bound,
				 void *arg, unsigned int i)
{
	struct faulting *f = arg;
	struct testbed *tb = &f->tb;
	struct toucher *t = &f->t;
	const unsigned long done = atomic_load(&t->done);

	(void)bound;
	(void)i;
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
	const unsigned int races = at_least(self->cycles / 10);
	struct faulting f;
	const struct load resets = {
		.name = "resets", .rounds = races, .round = reset_while_faulting, .arg = &f,
		.pages = half(races) + (long)races * self->kept_pages,
	};
	void *p;

	ASSERT_EQ(0, testbed_open(&f.tb, 0, false))
		TH_LOG("%s", f.tb.why);
	p = vfio_map(f.tb.dev, f.tb.ram, 0, TOUCHER_PAGES * PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, toucher_start(&f.t, p));
	measure(_metadata, self, &resets);
	toucher_stop(&f.t);
	EXPECT_LT(0UL, atomic_load(&f.t.refused));
	EXPECT_EQ(0U, lost_accesses(&f.tb));
	ASSERT_EQ(0, munmap(p, TOUCHER_PAGES * PAGE_64K));
	EXPECT_EQ(0, testbed_close(&f.tb));
}

/* The unbind starts while the device is open and mapped, and ends when the user is gone. */
static void unbind_while_open(struct __test_metadata *_metadata, struct testbed *bound,
			      void *arg, unsigned int i)
{
	const char *bdf = bound->topo.gpu[i % bound->topo.num_gpus].bdf;
	struct testbed tb;
	int status;
	pid_t child;
	void *p;

	(void)arg;
	ASSERT_EQ(0, testbed_open(&tb, i % bound->topo.num_gpus, i & 1))
		TH_LOG("%s", tb.why);
	p = vfio_map(tb.dev, tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, i));
	child = testbed_unbind_in_child(&tb, bdf);
	ASSERT_LT(0, child)
		TH_LOG("%s", strerror(-child));
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
	const unsigned int rounds = at_least(self->cycles / 20);
	const struct load unbinds = {
		.name = "unbinds", .rounds = rounds, .round = unbind_while_open,
		.pages = half(rounds) + (long)rounds * self->kept_pages,
	};

	measure(_metadata, self, &unbinds);
}

TEST_HARNESS_MAIN
