// SPDX-License-Identifier: GPL-2.0
/*
 * GPU RAM as memory of the guest's kernel, in the NUMA node that the device tree gives it: added
 * and put online through sysfs, as the vendor's driver and its daemon do after training.
 */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

#define LIMIT	300
#define MEMORY	"/sys/devices/system/memory"

/* Where the block starts in the GPU's RAM: behind what BAR1 shows, which engines write. */
#define OFFSET	(4ULL << 30)
#define PAGES	16

FIXTURE(numa)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
};

FIXTURE_SETUP(numa)
{
	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
}

FIXTURE_TEARDOWN(numa)
{
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

/* Memory of NUMA node @node, or NULL with errno set. */
static __u64 *memory_of_node(unsigned int node)
{
	const unsigned long mask = 1UL << node, bits = 8 * sizeof(mask);
	__u64 *p = anonymous(PAGES * PAGE_64K);
	unsigned int tries;

	if (!p)
		return NULL;
	/* The node that just got memory is allowed to processes a moment later. */
	for (tries = 0; tries < 300; tries++) {
		if (!syscall(SYS_mbind, p, PAGES * PAGE_64K, MPOL_BIND, &mask, bits, 0))
			return p;
		usleep(100000);
	}
	munmap(p, PAGES * PAGE_64K);
	return NULL;
}

TEST_F_TIMEOUT(numa, memory_of_the_guest_kernel, LIMIT)
{
	char path[128], text[32];
	__u64 block_size, base;
	unsigned int i, n;

	ASSERT_LT(0, sys_read(MEMORY "/block_size_bytes", text, sizeof(text)));
	block_size = strtoull(text, NULL, 16);
	ASSERT_EQ(0, nvlink_dma_base(&self->nv, &base));
	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		struct engine *e = &self->engine[i];
		const __u64 start = gpu->ram + OFFSET;
		__u32 levels, node;
		__u64 *memory;

		ASSERT_EQ(0, dt_u32(gpu->memory, "ibm,associativity", 0, &levels));
		ASSERT_EQ(0, dt_u32(gpu->memory, "ibm,associativity", levels, &node));

		snprintf(text, sizeof(text), "%#lx", start);
		ASSERT_EQ(0, sys_write(MEMORY "/probe", text));
		snprintf(path, sizeof(path), MEMORY "/memory%lu/node%u", start / block_size, node);
		EXPECT_TRUE(sys_exists(path))
			TH_LOG("no %s", path);
		snprintf(path, sizeof(path), MEMORY "/memory%lu/state", start / block_size);
		ASSERT_EQ(0, sys_write(path, "online_movable"));

		memory = memory_of_node(node);
		ASSERT_NE(NULL, memory)
			TH_LOG("node %u: %s", node, strerror(errno));
		for (n = 0; n < PAGES; n++) {
			__u64 *word = memory + n * PAGE_64K / sizeof(*word), address, value;
			const __u32 paths = V100_ENGINE_PATHS(V100_ENGINE_PATH_RAM,
							      V100_ENGINE_PATH_RAM);

			*word = pattern(n, i);
			ASSERT_EQ(0, physical_address(word, &address));
			ASSERT_LE(start, address);
			ASSERT_GT(start + block_size, address);
			/* The GPU has it in its RAM ... */
			EXPECT_EQ(0, engine_copy(e, paths, address - gpu->ram, 0,
						 sizeof(*word)));
			EXPECT_EQ(pattern(n, i), load64(e->ram));
			/* ... and the guest's kernel has mapped it for DMA. */
			EXPECT_EQ(0, engine_read64(e, V100_ENGINE_PATH_TCE, base + address,
						   &value));
			EXPECT_EQ(pattern(n, i), value);
		}
		munmap(memory, PAGES * PAGE_64K);
		ASSERT_EQ(0, sys_write(path, "offline"));
	}
}

TEST_HARNESS_MAIN
