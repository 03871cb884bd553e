// SPDX-License-Identifier: GPL-2.0
/*
 * RAM of GPUs at its addresses in the guest, as the guest's processor sees it and as the GPU does.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

/* Seconds; the guest's processor is an emulator's emulator. */
#define LIMIT	300

FIXTURE(memory)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
};

FIXTURE_SETUP(memory)
{
	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
}

FIXTURE_TEARDOWN(memory)
{
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

static void fill(void *page, __u64 seed)
{
	__u64 i;

	for (i = 0; i < PAGE_64K; i += sizeof(i))
		store64((char *)page + i, pattern(i, seed));
}

/* How many words of a page are not what fill() wrote. */
static unsigned int differences(const void *page, __u64 seed)
{
	unsigned int count = 0;
	__u64 i;

	for (i = 0; i < PAGE_64K; i += sizeof(i))
		count += load64((const char *)page + i) != pattern(i, seed);
	return count;
}

TEST_F_TIMEOUT(memory, processor_and_bar1_see_the_same, LIMIT)
{
	static const __u64 offsets[] = {
		0, PAGE_64K, 16 << 20, V100_BAR1_SIZE - PAGE_64K,
	};
	unsigned int i, j;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];

		for (j = 0; j < ARRAY_SIZE(offsets); j++) {
			const __u64 seed = gpu->ram + offsets[j];
			void *cpu = nvlink_map(gpu->ram + offsets[j], PAGE_64K);
			void *bar1 = nvlink_map_bar1(gpu, offsets[j], PAGE_64K);

			ASSERT_NE(NULL, cpu);
			ASSERT_NE(NULL, bar1);
			fill(cpu, seed);
			EXPECT_EQ(0, differences(bar1, seed))
				TH_LOG("%s does not have what was stored at %#lx", gpu->bdf, seed);
			fill(bar1, seed + 1);
			EXPECT_EQ(0, differences(cpu, seed + 1))
				TH_LOG("loads from %#lx miss what %s has", seed, gpu->bdf);
			munmap(cpu, PAGE_64K);
			munmap(bar1, PAGE_64K);
		}
	}
}

/* Beyond BAR1, the engine brings to its start what is at the end of RAM, and back. */
TEST_F_TIMEOUT(memory, all_of_the_ram_is_there, LIMIT)
{
	unsigned int i, j;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		const struct engine *e = &self->engine[i];
		const __u64 size = (__u64)engine_reg(e, V100_RAM_SIZE_HI) << 32 |
				   engine_reg(e, V100_RAM_SIZE_LO);
		const __u64 offsets[] = {
			V100_BAR1_SIZE, size / 2 + PAGE_64K, size - PAGE_64K,
		};
		const __u32 paths = V100_ENGINE_PATHS(V100_ENGINE_PATH_RAM, V100_ENGINE_PATH_RAM);

		for (j = 0; j < ARRAY_SIZE(offsets); j++) {
			const __u64 seed = gpu->ram + offsets[j];
			void *cpu = nvlink_map(gpu->ram + offsets[j], PAGE_64K);

			ASSERT_NE(NULL, cpu);
			fill(cpu, seed);
			EXPECT_EQ(0, engine_copy(e, paths, offsets[j], 0, PAGE_64K));
			EXPECT_EQ(0, differences(e->ram, seed));
			fill(e->ram, seed + 1);
			EXPECT_EQ(0, engine_copy(e, paths, 0, offsets[j], PAGE_64K));
			EXPECT_EQ(0, differences(cpu, seed + 1));
			munmap(cpu, PAGE_64K);
		}
	}
}

TEST_F_TIMEOUT(memory, each_gpu_has_its_own, LIMIT)
{
	void *cpu[NVLINK_MAX_GPUS];
	unsigned int i;

	for (i = 0; i < self->nv.num_gpus; i++) {
		cpu[i] = nvlink_map(self->nv.gpu[i].ram, PAGE_64K);
		ASSERT_NE(NULL, cpu[i]);
		fill(cpu[i], i);
	}
	for (i = 0; i < self->nv.num_gpus; i++) {
		EXPECT_EQ(0, differences(cpu[i], i));
		EXPECT_EQ(0, differences(self->engine[i].ram, i));
		munmap(cpu[i], PAGE_64K);
	}
}

TEST_HARNESS_MAIN
