// SPDX-License-Identifier: GPL-2.0
/*
 * A function reset that the guest asks for, of the GPU, or of one of its bridges if the GPU has
 * none (a guest cannot reset the bus): the links are untrained, the RAM keeps its content, and all
 * works again after training.
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

/* Has the guest's kernel reset the function @bdf. -ENOENT if that knows no way to. */
static int reset_function(const char *bdf)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", bdf);
	return sys_exists(path) ? sys_write(path, "1") : -ENOENT;
}

TEST_F_TIMEOUT(reset, reset_and_train_again, LIMIT)
{
	unsigned int i;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		const struct engine *e = &self->engine[i];
		__u64 *cpu = nvlink_map(gpu->ram, PAGE_64K);
		const __u32 resets = engine_reg(e, V100_RESETS);
		int ret;

		ASSERT_NE(NULL, cpu);
		store64(cpu, pattern(i, 7));
		ret = reset_function(gpu->bdf);
		if (ret == -ENOENT) {
			ASSERT_EQ(0, reset_function(gpu->link[0].bdf))
				TH_LOG("%s", gpu->link[0].bdf);
			EXPECT_EQ(resets, engine_reg(e, V100_RESETS));
			EXPECT_NE(engine_reg(e, V100_LINK_MASK), engine_reg(e, V100_LINK_STATUS));
		} else {
			ASSERT_EQ(0, ret)
				TH_LOG("%s", gpu->bdf);
			EXPECT_LT(resets, engine_reg(e, V100_RESETS));
			EXPECT_EQ(0, engine_reg(e, V100_LINK_STATUS));
		}
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
