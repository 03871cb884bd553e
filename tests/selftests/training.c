// SPDX-License-Identifier: GPL-2.0
/*
 * Links that are trained as a driver of a GPU does it: by firmware's procedures, which each bridge
 * offers in a capability, and the GPU's own ends.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"

#include "npu.h"
#include "procedures.h"
#include "reset.h"
#include "sys.h"
#include "testbed.h"

FIXTURE(links)
{
	struct testbed tb;
	unsigned int count;
	int bridge[DT_MAX_LINKS];
	struct procedures procedures[DT_MAX_LINKS];
};

/* The GPU's own ends of its links are up, or down. */
static int gpu_ends(const struct testbed *tb, bool up)
{
	return model_write32(&tb->model, V100_LINK_TRAIN,
			     up ? V100_LINK_TRAIN_GPU_END : V100_LINK_TRAIN_DOWN);
}

static __u32 trained(const struct testbed *tb)
{
	__u32 status;

	return model_read32(&tb->model, V100_LINK_STATUS, &status) ? ~0U : status;
}

/* All links are in reset at both ends. */
FIXTURE_SETUP(links)
{
	unsigned int i;

	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->count = self->tb.gpu->num_links;
	for (i = 0; i < self->count; i++) {
		self->bridge[i] = vfio_device_open(&self->tb.group, self->tb.gpu->link[i].bdf);
		ASSERT_LE(0, self->bridge[i]);
		ASSERT_EQ(0, procedures_find(&self->procedures[i], self->bridge[i],
					     REGION_OFFSET(VFIO_PCI_CONFIG_REGION_INDEX)));
	}
	ASSERT_EQ(0, procedures_reset(self->procedures, self->count));
	ASSERT_EQ(0, gpu_ends(&self->tb, false));
	ASSERT_EQ(0U, trained(&self->tb));
}

FIXTURE_TEARDOWN(links)
{
	unsigned int i;

	EXPECT_EQ(0, lost_accesses(&self->tb));
	for (i = 0; i < self->count; i++)
		close(self->bridge[i]);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

TEST_F(links, are_trained_by_procedures)
{
	const __u32 all = (1U << self->count) - 1;
	unsigned int i;
	__u64 value;
	char *p;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, gpu_ends(&self->tb, true));
		EXPECT_EQ(0U, trained(&self->tb));
		ASSERT_EQ(0, procedures_train(self->procedures, self->count));
		ASSERT_EQ(all, trained(&self->tb));
		p = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);
		ASSERT_NE(NULL, p);
		ASSERT_EQ(0, try_write64(p + 8, pattern(i, 1)));
		ASSERT_EQ(0, model_ram_read(&self->tb.model, 8, &value, 8));
		EXPECT_EQ(pattern(i, 1), value);
		ASSERT_EQ(0, munmap(p, PAGE_64K));

		/* Down again, in order: nothing is torn. */
		ASSERT_EQ(0, procedures_reset(self->procedures, self->count));
		EXPECT_EQ(0U, trained(&self->tb));
		ASSERT_EQ(0, gpu_ends(&self->tb, false));
	}
}

/* A link is down where lanes were not calibrated since their reset, and where the GPU's end is. */
TEST_F(links, stay_down_without_calibration)
{
	const struct procedures *first = &self->procedures[0];
	__u32 status;

	ASSERT_EQ(0, gpu_ends(&self->tb, true));
	ASSERT_EQ(0, procedure_run(first, PROCEDURE_PHY_RESET, &status));
	EXPECT_EQ(PROCEDURE_OK, status);
	ASSERT_EQ(0, procedure_run(first, PROCEDURE_PHY_RX_TRAINING, &status));
	EXPECT_EQ(PROCEDURE_FAILED, status);
	EXPECT_EQ(0U, trained(&self->tb));

	ASSERT_EQ(0, gpu_ends(&self->tb, false));
	ASSERT_EQ(0, procedure_run(first, PROCEDURE_PHY_RESET, &status));
	ASSERT_EQ(0, procedure_run(first, PROCEDURE_PHY_RX_DCCAL, &status));
	EXPECT_EQ(PROCEDURE_OK, status);
	ASSERT_EQ(0, procedure_run(first, PROCEDURE_PHY_RX_TRAINING, &status));
	EXPECT_EQ(PROCEDURE_FAILED, status);
	EXPECT_EQ(0U, trained(&self->tb));
}

TEST_F(links, other_numbers_do_nothing)
{
	static const __u32 none[] = { 2, 3, PROCEDURE_CHECK_CREDITS + 1, ~0U };
	unsigned int i;
	__u32 status;

	for (i = 0; i < ARRAY_SIZE(none); i++) {
		ASSERT_EQ(0, procedure_run(&self->procedures[0], none[i], &status));
		EXPECT_EQ(PROCEDURE_UNSUPPORTED, status);
	}
	ASSERT_EQ(0, procedure_run(&self->procedures[0], PROCEDURE_NOP, &status));
	EXPECT_EQ(PROCEDURE_OK, status);
	ASSERT_EQ(0, procedure_run(&self->procedures[0], PROCEDURE_STOP, &status));
	EXPECT_EQ(PROCEDURE_ABORTED, status);
}

TEST_HARNESS_MAIN
