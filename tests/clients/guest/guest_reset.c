// SPDX-License-Identifier: GPL-2.0
/*
 * A function reset that the guest asks for: it reaches the GPU, whose links are untrained and whose
 * RAM keeps its content, and all works again after training.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

#define LIMIT	300

FIXTURE(reset)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
};

FIXTURE_SETUP(reset)
{
	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
}

FIXTURE_TEARDOWN(reset)
{
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

TEST_F_TIMEOUT(reset, reset_and_train_again, LIMIT)
{
	unsigned int i;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		const struct engine *e = &self->engine[i];
		__u64 *cpu = nvlink_map(gpu->ram, PAGE_64K);
		const __u32 resets = engine_reg(e, V100_RESETS);
		char path[64];

		ASSERT_NE(NULL, cpu);
		store64(cpu, pattern(i, 7));
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", gpu->bdf);
		ASSERT_EQ(0, sys_write(path, "1"))
			TH_LOG("%s", path);
		EXPECT_LT(resets, engine_reg(e, V100_RESETS));
		EXPECT_EQ(0, engine_reg(e, V100_LINK_STATUS));
		/* BAR1 needs no links. */
		EXPECT_EQ(pattern(i, 7), load64(e->ram));
		engine_train(e);
		EXPECT_EQ(engine_reg(e, V100_LINK_MASK), engine_reg(e, V100_LINK_STATUS));
		EXPECT_EQ(pattern(i, 7), load64(cpu));
		store64(cpu, pattern(i, 8));
		EXPECT_EQ(pattern(i, 8), load64(e->ram));
		munmap(cpu, PAGE_64K);
	}
}

TEST_HARNESS_MAIN
