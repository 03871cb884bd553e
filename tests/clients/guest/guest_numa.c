// SPDX-License-Identifier: GPL-2.0
/*
 * GPU RAM as memory of the guest's kernel, in the NUMA node that the device tree gives it.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "numa.h"
#include "nvlink.h"
#include "sys.h"

#define LIMIT	300

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

TEST_F_TIMEOUT(numa, memory_of_the_guest_kernel, LIMIT)
{
	char block[96], path[128];
	__u64 block_size, base;
	unsigned int i, n;

	ASSERT_EQ(0, numa_block_size(&block_size));
	ASSERT_EQ(0, nvlink_dma_base(&self->nv, &base));
	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		struct engine *e = &self->engine[i];
		const __u64 start = gpu->ram + OFFSET;
		__u64 *memory;
		__u32 node;

		ASSERT_EQ(0, numa_node(gpu, &node));
		ASSERT_EQ(0, numa_online(start, block, sizeof(block)));
		snprintf(path, sizeof(path), "%s/node%u", block, node);
		EXPECT_TRUE(sys_exists(path))
			TH_LOG("no %s", path);

		memory = numa_memory(node, PAGES * PAGE_64K);
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
		ASSERT_EQ(0, numa_offline(block));
	}
}

TEST_HARNESS_MAIN
