// SPDX-License-Identifier: GPL-2.0
/*
 * What a GPU reaches without address translation services: on PCIe and on each of its
 * NVLinks the memory that VFIO mapped, as it was mapped, while it is mapped, and no more.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "engine.h"
#include "npu.h"
#include "sys.h"
#include "testbed.h"

#define PCI		V100_ENGINE_PATH_PCI
#define TCE		V100_ENGINE_PATH_TCE
#define CAUSE(name)	V100_ENGINE_CAUSE_##name

/* Where the second window and, for the kernel's own devices, the bypass start on PCIe. */
#define WINDOW_64	0x800000000000000ULL

#define MEM_SIZE	(16 * PAGE_64K)
/* Where the tests map it: not at zero, so that an offset lost on the way shows. */
#define IOVA		(7 * PAGE_64K)

/* The ways to memory: a GPU has the first of them, as many NVLinks as there are links. */
static const struct way {
	const char *name;
	__u32 path;
	__u32 link;
} ways[] = {
	{ "PCIe", PCI, 0 },
	{ "first NVLink", TCE, 0 },
	{ "second NVLink", TCE, 1 },
	{ "third NVLink", TCE, 2 },
};

static size_t num_ways(const struct engine *e)
{
	const size_t count = 1 + engine_links(e);

	return count < ARRAY_SIZE(ways) ? count : ARRAY_SIZE(ways);
}

/* The cause of a fault at an address that is in a window and not mapped. */
static __u32 cause_unmapped(const struct way *way)
{
	return way->path == PCI ? CAUSE(PCI) : CAUSE(TCE_INVALID);
}

static __u32 cause_outside(const struct way *way)
{
	return way->path == PCI ? CAUSE(PCI) : CAUSE(TVE_RANGE);
}

/* Whose NPU the tests thaw. */
static const struct dt_bridge *bridge;

FIXTURE(nvlink)
{
	struct testbed tb;
	struct engine engine;
	/* MEM_SIZE, registered, not mapped */
	char *mem;
};

FIXTURE_SETUP(nvlink)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	bridge = &self->tb.gpu->link[0];
	ASSERT_EQ(0, npu_thaw(bridge))
		TH_LOG("somebody left a PE that is frozen");
	ASSERT_EQ(0, engine_attach(&self->engine, self->tb.dev));
	ASSERT_EQ(1 + self->tb.gpu->num_links, num_ways(&self->engine));
	self->mem = anonymous(MEM_SIZE);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, self->mem, MEM_SIZE));
}

FIXTURE_TEARDOWN(nvlink)
{
	engine_detach(&self->engine);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static void fill(void *p, size_t size, __u64 seed)
{
	__u64 *word = p;
	size_t i;

	for (i = 0; i < size / sizeof(*word); i++)
		word[i] = pattern(i * sizeof(*word), seed);
}

static bool filled(const void *p, size_t size, __u64 seed)
{
	const __u64 *word = p;
	size_t i;

	for (i = 0; i < size / sizeof(*word); i++) {
		if (word[i] != pattern(i * sizeof(*word), seed))
			return false;
	}
	return true;
}

/* The GPU reads and writes @mem, which is mapped at @iova, on @way. */
static bool copies(struct engine *e, const struct way *way, char *mem, __u64 iova)
{
	static char seen[PAGE_64K];
	static __u64 seed;
	__u32 cause;

	e->link = way->link;
	fill(mem, PAGE_64K, ++seed);
	cause = engine_read(e, way->path, iova, seen, PAGE_64K);
	if (cause || !filled(seen, PAGE_64K, seed)) {
		fprintf(stderr, "# %s: read of %#lx: cause %u\n", way->name, iova, cause);
		return false;
	}
	fill(seen, PAGE_64K, ++seed);
	cause = engine_write(e, way->path, iova, seen, PAGE_64K);
	if (cause || !filled(mem, PAGE_64K, seed)) {
		fprintf(stderr, "# %s: write of %#lx: cause %u\n", way->name, iova, cause);
		return false;
	}
	return true;
}

static bool copies_all_ways(struct engine *e, char *mem, __u64 iova)
{
	size_t i;

	for (i = 0; i < num_ways(e); i++) {
		if (!copies(e, &ways[i], mem, iova))
			return false;
	}
	return true;
}

/*
 * Both directions fault at @addr, with @cause, and say where. On a link that stops all DMA of the
 * PE, which is undone. "" or what was different.
 */
static const char *refused(struct engine *e, const struct way *way, __u64 addr, __u32 cause)
{
	static char text[160];
	struct engine_fault fault;
	__u64 value = 0x5a5a5a5a5a5a5a5a;
	unsigned int side;

	e->link = way->link;
	for (side = 0; side < 2; side++) {
		__u32 seen = side ? engine_write64(e, way->path, addr, value) :
				    engine_read64(e, way->path, addr, &value);

		engine_last_fault(e, &fault);
		if (way->path == TCE && npu_thaw(bridge) != 1)
			return "the PE does DMA";
		if (seen == cause && fault.addr == addr && fault.side == side && !fault.copied)
			continue;
		snprintf(text, sizeof(text), "%s, %s of %#lx: cause %u (not %u) at %#lx side %u",
			 way->name, side ? "write" : "read", addr, seen, cause, fault.addr,
			 fault.side);
		return text;
	}
	return "";
}

TEST_F(nvlink, mapped_memory_is_copied)
{
	char *mem = self->mem;
	unsigned int i;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, mem, IOVA, MEM_SIZE));
	for (i = 0; i < MEM_SIZE / PAGE_64K; i++)
		EXPECT_TRUE(copies_all_ways(&self->engine, mem + i * PAGE_64K,
					    IOVA + i * PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, IOVA, MEM_SIZE));
}

TEST_F(nvlink, what_is_not_mapped_faults)
{
	struct engine *e = &self->engine;
	size_t i;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem + PAGE_64K, IOVA, PAGE_64K));
	fill(self->mem, MEM_SIZE, 1);
	for (i = 0; i < num_ways(e); i++) {
		const struct way *way = &ways[i];

		EXPECT_STREQ("", refused(e, way, IOVA - 8, cause_unmapped(way)));
		EXPECT_STREQ("", refused(e, way, IOVA + PAGE_64K, cause_unmapped(way)));
		EXPECT_STREQ("", refused(e, way, self->tb.group.window_size,
					 cause_outside(way)));
	}
	EXPECT_TRUE(filled(self->mem, MEM_SIZE, 1));
}

static int map_read_only(const struct vfio_group *g, const void *va, __u64 iova)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .flags = VFIO_DMA_MAP_FLAG_READ,
		.vaddr = (uintptr_t)va, .iova = iova, .size = PAGE_64K,
	};

	return ioctl(g->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

TEST_F(nvlink, read_only_tce_refuses_writes)
{
	struct engine *e = &self->engine;
	struct engine_fault fault;
	__u64 value;
	size_t i;

	ASSERT_EQ(0, map_read_only(&self->tb.group, self->mem, IOVA));
	fill(self->mem, PAGE_64K, 1);
	for (i = 0; i < num_ways(e); i++) {
		const struct way *way = &ways[i];

		e->link = way->link;
		EXPECT_EQ(0, engine_read64(e, way->path, IOVA + 8, &value));
		EXPECT_EQ(pattern(8, 1), value);
		EXPECT_EQ(way->path == PCI ? CAUSE(PCI) : CAUSE(TCE_WRITE),
			  engine_write64(e, way->path, IOVA + 8, 0))
			TH_LOG("%s", way->name);
		engine_last_fault(e, &fault);
		EXPECT_EQ(IOVA + 8, fault.addr);
		EXPECT_EQ(way->path != PCI, npu_thaw(bridge));
	}
	EXPECT_TRUE(filled(self->mem, PAGE_64K, 1));
}

/* What the NPU remembers of a TCE goes with it; its neighbour stays. */
TEST_F(nvlink, unmapped_memory_is_out_of_reach_at_once)
{
	struct engine *e = &self->engine;
	char *mem = self->mem;
	unsigned int round;
	size_t i;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, mem + PAGE_64K, IOVA + PAGE_64K, PAGE_64K));
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, vfio_dma_map(&self->tb.group, mem, IOVA, PAGE_64K));
		EXPECT_TRUE(copies_all_ways(e, mem, IOVA));
		EXPECT_TRUE(copies_all_ways(e, mem + PAGE_64K, IOVA + PAGE_64K));
		ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, IOVA, PAGE_64K));
		fill(mem, PAGE_64K, 1);
		for (i = 0; i < num_ways(e); i++)
			EXPECT_STREQ("", refused(e, &ways[i], IOVA, cause_unmapped(&ways[i])));
		EXPECT_TRUE(filled(mem, PAGE_64K, 1));
		EXPECT_TRUE(copies_all_ways(e, mem + PAGE_64K, IOVA + PAGE_64K));
	}
	/* Other memory at the same address. */
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, mem + 2 * PAGE_64K, IOVA, PAGE_64K));
	EXPECT_TRUE(copies_all_ways(e, mem + 2 * PAGE_64K, IOVA));
}

/* A second window, much larger than the first. */
static int create_window(const struct vfio_group *g, __u32 page_shift, __u32 levels, __u64 *start)
{
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create), .page_shift = page_shift, .window_size = 1ULL << 34,
		.levels = levels,
	};

	if (ioctl(g->container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create))
		return -errno;
	*start = create.start_addr;
	return 0;
}

static int remove_window(const struct vfio_group *g, __u64 start)
{
	struct vfio_iommu_spapr_tce_remove remove = {
		.argsz = sizeof(remove), .start_addr = start,
	};

	return ioctl(g->container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove) ? -errno : 0;
}

/*
 * PCIe has two windows side by side. A link has one at a time, the second if there is one, and
 * addresses in it count from its start.
 */
TEST_F(nvlink, links_follow_the_windows)
{
	const struct vfio_group *g = &self->tb.group;
	struct engine *e = &self->engine;
	char *low = self->mem, *high = self->mem + PAGE_64K;
	static const struct {
		__u32 page_shift, levels;
	} shape[] = { { 16, 1 }, { 16, 2 }, { 12, 3 } };
	/* Beyond the end of the first window. */
	const __u64 far = (1ULL << 33) + IOVA;
	__u64 start;
	size_t i, s;

	ASSERT_EQ(0, vfio_dma_map(g, low, IOVA, PAGE_64K));
	for (s = 0; s < ARRAY_SIZE(shape); s++) {
		/* With larger pages than its own the host maps no memory but huge pages. */
		if (1UL << shape[s].page_shift > host_page())
			continue;
		EXPECT_TRUE(copies_all_ways(e, low, IOVA));

		ASSERT_EQ(0, create_window(g, shape[s].page_shift, shape[s].levels, &start));
		ASSERT_EQ(WINDOW_64, start);
		ASSERT_EQ(0, vfio_dma_map(g, high, start + far, PAGE_64K));
		EXPECT_TRUE(copies(e, &ways[0], low, IOVA));
		EXPECT_TRUE(copies(e, &ways[0], high, start + far));
		fill(low, PAGE_64K, 1);
		for (i = 1; i < num_ways(e); i++) {
			EXPECT_TRUE(copies(e, &ways[i], high, start + far))
				TH_LOG("%u levels", shape[s].levels);
			EXPECT_STREQ("", refused(e, &ways[i], IOVA, CAUSE(TCE_INVALID)));
		}
		EXPECT_TRUE(filled(low, PAGE_64K, 1));

		ASSERT_EQ(0, remove_window(g, start));
		EXPECT_STREQ("", refused(e, &ways[0], start + far, CAUSE(PCI)));
		for (i = 1; i < num_ways(e); i++)
			EXPECT_STREQ("", refused(e, &ways[i], far, CAUSE(TVE_RANGE)));
		EXPECT_TRUE(copies_all_ways(e, low, IOVA));
	}

	ASSERT_EQ(0, remove_window(g, g->window_start));
	fill(low, PAGE_64K, 1);
	for (i = 0; i < num_ways(e); i++)
		EXPECT_STREQ("", refused(e, &ways[i], IOVA, cause_outside(&ways[i])));
	EXPECT_TRUE(filled(low, PAGE_64K, 1));
}

/* A thread that has the GPU read the first word that is mapped, over its first link. */
struct reader {
	const struct engine *e;
	atomic_bool stop;
	atomic_ulong done;
	/* Of the last copy that failed. */
	atomic_uint cause;
	pthread_t thread;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;
	__u64 value;
	__u32 cause;

	while (!atomic_load(&r->stop)) {
		cause = engine_read64(r->e, TCE, IOVA, &value);
		if (cause)
			atomic_store(&r->cause, cause);
		atomic_fetch_add(&r->done, 1);
	}
	return NULL;
}

/*
 * A link that loses one of two windows has the other one at once: DMA that is permitted by both
 * never stops. It would take more rounds than this to be sure.
 */
TEST_F_TIMEOUT(nvlink, dma_goes_on_while_the_window_changes, 300)
{
	const struct vfio_group *g = &self->tb.group;
	unsigned int round;
	__u64 start;

	self->engine.link = 0;
	ASSERT_EQ(0, vfio_dma_map(g, self->mem, IOVA, PAGE_64K));
	for (round = 0; round < 100; round++) {
		struct reader r = { .e = &self->engine };
		unsigned long before;

		ASSERT_EQ(0, create_window(g, 16, 1, &start));
		ASSERT_EQ(0, vfio_dma_map(g, self->mem, start + IOVA, PAGE_64K));
		ASSERT_EQ(0, pthread_create(&r.thread, NULL, read_on, &r));
		while (!atomic_load(&r.done))
			;
		EXPECT_EQ(0, remove_window(g, start));
		before = atomic_load(&r.done);
		while (atomic_load(&r.done) < before + 2)
			;
		atomic_store(&r.stop, true);
		pthread_join(r.thread, NULL);
		ASSERT_EQ(0, atomic_load(&r.cause))
			TH_LOG("round %u", round);
	}
	EXPECT_EQ(0, npu_frozen());
}

/* Mapped memory is out of reach on the GPU's links, whatever was mapped, and only there. */
static const char *links_are_stopped(struct engine *e, char *mem)
{
	__u64 value;
	size_t i;

	if (!copies(e, &ways[0], mem, IOVA))
		return "PCIe does not work";
	for (i = 1; i < num_ways(e); i++) {
		e->link = ways[i].link;
		if (engine_read64(e, TCE, IOVA, &value) != CAUSE(FROZEN))
			return "a link works";
	}
	return "";
}

/* The GPU does a DMA that is not permitted, after which its links do none at all. */
static const char *stop_links(struct engine *e, char *mem)
{
	__u64 value;

	e->link = 0;
	if (!copies_all_ways(e, mem, IOVA))
		return "the links do not work";
	e->link = 0;
	if (engine_read64(e, TCE, IOVA + MEM_SIZE, &value) != CAUSE(TCE_INVALID))
		return "what is not mapped can be read";
	return links_are_stopped(e, mem);
}

static int reset_gpu(struct testbed *tb, struct engine *e)
{
	if (ioctl(tb->dev, VFIO_DEVICE_RESET))
		return -errno;
	engine_detach(e);
	return vfio_set_memory(tb->dev, true) ?: engine_attach(e, tb->dev) ?:
	       model_train(&tb->model);
}

TEST_F(nvlink, refused_dma_stops_links_until_the_gpu_is_reset)
{
	struct engine *e = &self->engine;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, IOVA, PAGE_64K));
	EXPECT_STREQ("", stop_links(e, self->mem));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, IOVA + MEM_SIZE, PAGE_64K));
	EXPECT_STREQ("", links_are_stopped(e, self->mem));
	engine_train(e);
	EXPECT_STREQ("", links_are_stopped(e, self->mem));
	ASSERT_EQ(0, reset_gpu(&self->tb, e));
	EXPECT_TRUE(copies_all_ways(e, self->mem, IOVA));
	EXPECT_EQ(0, npu_frozen());
}

/* As when a guest starts anew and QEMU makes its windows again. */
TEST_F(nvlink, refused_dma_stops_links_until_windows_change)
{
	struct engine *e = &self->engine;
	__u64 start;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, IOVA, PAGE_64K));
	EXPECT_STREQ("", stop_links(e, self->mem));
	ASSERT_EQ(0, create_window(&self->tb.group, 16, 1, &start));
	ASSERT_EQ(0, remove_window(&self->tb.group, start));
	EXPECT_TRUE(copies_all_ways(e, self->mem, IOVA));
}

TEST_F(nvlink, next_user_has_links_that_work)
{
	const unsigned int gpu = self->tb.gpu - self->tb.topo.gpu;
	struct engine *e = &self->engine;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, IOVA, PAGE_64K));
	EXPECT_STREQ("", stop_links(e, self->mem));
	engine_detach(e);
	EXPECT_EQ(0, testbed_close(&self->tb));
	EXPECT_EQ(0, npu_frozen());

	ASSERT_EQ(0, testbed_open(&self->tb, gpu, false))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, engine_attach(e, self->tb.dev));
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, self->mem, MEM_SIZE));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, IOVA, PAGE_64K));
	EXPECT_TRUE(copies_all_ways(e, self->mem, IOVA));
}

/* A page that was never mapped for DMA, and where it is in the host. */
struct canary {
	char *page;
	__u64 pa;
};

static int canary_make(struct canary *c)
{
	c->page = anonymous(PAGE_64K);
	if (!c->page)
		return -ENOMEM;
	fill(c->page, PAGE_64K, 0xca);
	if (mlock(c->page, PAGE_64K))
		return -errno;
	return physical_address(c->page, &c->pa);
}

/*
 * Neither as it is nor in any place of the address space that hardware sets aside, is a
 * physical address one that the GPU can use. "" or what it could.
 */
static const char *reaches_canary(struct engine *e, const struct canary *c)
{
	static char text[160];
	unsigned int bit;
	__u64 value;
	size_t i;

	for (i = 0; i < num_ways(e); i++) {
		e->link = ways[i].link;
		for (bit = 48; bit <= 64; bit++) {
			__u64 addr = c->pa | (bit < 64 ? 1ULL << bit : 0);

			/* This sends interrupts. */
			if (ways[i].path == PCI && bit == 60)
				continue;
			if (engine_read64(e, ways[i].path, addr, &value) &&
			    npu_thaw(bridge) >= 0 &&
			    engine_write64(e, ways[i].path, addr, 0) && npu_thaw(bridge) >= 0)
				continue;
			snprintf(text, sizeof(text), "%s at %#lx", ways[i].name, addr);
			return text;
		}
	}
	return filled(c->page, PAGE_64K, 0xca) ? "" : "memory changed";
}

TEST_F(nvlink, physical_addresses_are_of_no_use)
{
	struct canary canary;

	ASSERT_EQ(0, canary_make(&canary));
	EXPECT_STREQ("", reaches_canary(&self->engine, &canary));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, 0, MEM_SIZE));
	EXPECT_STREQ("", reaches_canary(&self->engine, &canary));
}

/* When the user is gone so are the ways, though the GPU is alive and trained. */
TEST_F(nvlink, nothing_is_left_after_release)
{
	const char *bdf = self->tb.gpu->bdf;
	struct canary canary;
	struct engine e;
	__u64 value;
	size_t i;

	ASSERT_EQ(0, canary_make(&canary));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->mem, IOVA, PAGE_64K));
	EXPECT_TRUE(copies_all_ways(&self->engine, self->mem, IOVA));
	engine_detach(&self->engine);
	close(self->tb.dev);
	self->tb.dev = -1;
	vfio_group_close(&self->tb.group);

	fill(self->mem, MEM_SIZE, 1);
	ASSERT_EQ(0, engine_attach_host(&e, bdf, false));
	for (i = 0; i < num_ways(&e); i++)
		EXPECT_STREQ("", refused(&e, &ways[i], IOVA, cause_outside(&ways[i])));
	EXPECT_STREQ("", reaches_canary(&e, &canary));
	EXPECT_TRUE(filled(self->mem, MEM_SIZE, 1));
	engine_detach_host(&e, bdf);

	/* As the kernel's device it has the bypass, which shows that canaries can be hit. */
	ASSERT_EQ(0, engine_attach_host(&e, bdf, true));
	EXPECT_EQ(0, engine_read64(&e, PCI, canary.pa | WINDOW_64, &value));
	EXPECT_EQ(pattern(0, 0xca), value);
	engine_detach_host(&e, bdf);
}

static int pci_remove(const char *bdf)
{
	char path[96];
	int ret;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", bdf);
	ret = sys_write(path, "1");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", bdf);
	return ret ?: sys_exists(path) ? -EBUSY : 0;
}

static int pci_rescan(const char *bdf)
{
	char path[96];
	int ret = sys_write("/sys/bus/pci/rescan", "1");

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", bdf);
	return ret ?: sys_exists(path) ? 0 : -ENODEV;
}

/*
 * A GPU that comes back into a group which a user owns gets the user's windows, the present
 * ones, and not the bypass that the kernel gives its own devices.
 */
TEST_F_TIMEOUT(nvlink, rescanned_gpu_has_the_windows_of_the_owner, 300)
{
	const struct dt_gpu *other = &self->tb.topo.gpu[1];
	const struct vfio_group *g = &self->tb.group;
	char *mem = self->mem, *before = mem, *after = mem + PAGE_64K;
	struct canary canary;
	unsigned int round;
	struct engine e;
	__u64 start;
	size_t i;
	int dev;

	ASSERT_EQ(0, canary_make(&canary));
	ASSERT_EQ(g->id, pci_iommu_group(other->bdf));
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, create_window(g, 16, 1, &start));
		ASSERT_EQ(0, vfio_dma_map(g, before, IOVA, PAGE_64K));
		ASSERT_EQ(0, vfio_dma_map(g, before, start + IOVA, PAGE_64K));

		ASSERT_EQ(0, pci_remove(other->bdf));
		EXPECT_TRUE(copies(&self->engine, &ways[0], before, IOVA));
		EXPECT_TRUE(copies_all_ways(&self->engine, before, start + IOVA));

		/* Windows change while it is away. */
		ASSERT_EQ(0, remove_window(g, start));
		ASSERT_EQ(0, vfio_dma_unmap(g, IOVA, PAGE_64K));
		ASSERT_EQ(0, vfio_dma_map(g, after, 2 * IOVA, PAGE_64K));

		ASSERT_EQ(0, pci_rescan(other->bdf));
		EXPECT_EQ(g->id, pci_iommu_group(other->bdf));
		fill(before, PAGE_64K, 1);

		/* The kernel's, as far as drivers are concerned. */
		ASSERT_EQ(0, engine_attach_host(&e, other->bdf, true));
		EXPECT_TRUE(copies_all_ways(&e, after, 2 * IOVA));
		for (i = 0; i < num_ways(&e); i++)
			EXPECT_STREQ("", refused(&e, &ways[i], IOVA, cause_unmapped(&ways[i])));
		EXPECT_STREQ("", refused(&e, &ways[0], start + IOVA, CAUSE(PCI)));
		EXPECT_STREQ("", reaches_canary(&e, &canary));
		engine_detach_host(&e, other->bdf);

		/* The user's. */
		ASSERT_EQ(0, driver_bind(other->bdf, DRIVER));
		dev = vfio_device_open(g, other->bdf);
		ASSERT_LE(0, dev);
		ASSERT_EQ(0, engine_attach(&e, dev));
		ASSERT_EQ(0, model_train(&(struct model){ .dev = dev }));
		EXPECT_TRUE(copies_all_ways(&e, after, 2 * IOVA));
		EXPECT_STREQ("", reaches_canary(&e, &canary));
		engine_detach(&e);
		close(dev);

		EXPECT_TRUE(filled(before, PAGE_64K, 1));
		EXPECT_TRUE(copies_all_ways(&self->engine, after, 2 * IOVA))
			TH_LOG("round %u: the GPU that was there all the time", round);
		ASSERT_EQ(0, vfio_dma_unmap(g, 2 * IOVA, PAGE_64K));
	}
	/* Ownership goes back for all of them, and comes again. */
	engine_detach(&self->engine);
	close(self->tb.dev);
	self->tb.dev = -1;
	vfio_group_close(&self->tb.group);
	ASSERT_EQ(0, vfio_group_open(&self->tb.group, pci_iommu_group(other->bdf), false));
}

TEST_HARNESS_MAIN
