// SPDX-License-Identifier: GPL-2.0
/*
 * What a GPU reaches without address translation services: on PCIe and on each of its
 * NVLinks the memory that VFIO mapped, as it was mapped, while it is mapped, and no more.
 */
#define _GNU_SOURCE
#include <linux/pci_regs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "engine.h"
#include "sys.h"
#include "testbed.h"

#define RAM		V100_ENGINE_PATH_RAM
#define PCI		V100_ENGINE_PATH_PCI
#define TCE		V100_ENGINE_PATH_TCE
#define CAUSE(name)	V100_ENGINE_CAUSE_##name

/* Where the second window and, for the kernel's own devices, the bypass start on PCIe. */
#define WINDOW_64	(1ULL << 59)

#define MEM_SIZE	(16 * PAGE_64K)
/* Where the tests map it: not at zero, so that an offset lost on the way shows. */
#define IOVA		(7 * PAGE_64K)

/* A way to memory, and what a refusal is called there. */
static const struct way {
	const char *name;
	__u32 path;
	__u32 link;
} ways[] = {
	{ "PCIe", PCI, 0 },
	{ "first NVLink", TCE, 0 },
	{ "second NVLink", TCE, 1 },
};

/* The cause of a fault at an address that is in a window and not mapped. */
static __u32 cause_unmapped(const struct way *way)
{
	return way->path == PCI ? CAUSE(PCI) : CAUSE(TCE_INVALID);
}

static __u32 cause_outside(const struct way *way)
{
	return way->path == PCI ? CAUSE(PCI) : CAUSE(TVE_RANGE);
}

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
	ASSERT_EQ(0, engine_attach(&self->engine, self->tb.dev));
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

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		if (!copies(e, &ways[i], mem, iova))
			return false;
	}
	return true;
}

/*
 * Both directions fault at @addr, with @cause, and say where. "" or what was different.
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
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		const struct way *way = &ways[i];

		EXPECT_STREQ("", refused(e, way, IOVA - 8, cause_unmapped(way)));
		EXPECT_STREQ("", refused(e, way, IOVA + PAGE_64K, cause_unmapped(way)));
		EXPECT_STREQ("", refused(e, way, self->tb.group.window_size,
					 cause_outside(way)));
	}
	EXPECT_TRUE(filled(self->mem, MEM_SIZE, 1));
}

TEST_HARNESS_MAIN
