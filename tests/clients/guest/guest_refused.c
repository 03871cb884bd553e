// SPDX-License-Identifier: GPL-2.0
/*
 * What is behind the end of the guest's memory no GPU reaches on a link. One that tries has no DMA
 * on any of its links until the guest starts anew, so nothing that needs links comes after this.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

#define LIMIT	300

FIXTURE(refused)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
	__u64 *page;
	/* Where devices see the page, and guest real address 0. */
	__u64 bus;
	__u64 base;
};

FIXTURE_SETUP(refused)
{
	__u64 gpa;

	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
	ASSERT_EQ(0, nvlink_dma_base(&self->nv, &self->base));
	self->page = anonymous(PAGE_64K);
	ASSERT_NE(NULL, self->page);
	*self->page = pattern(0, 1);
	ASSERT_EQ(0, physical_address(self->page, &gpa));
	self->bus = self->base + gpa;
}

FIXTURE_TEARDOWN(refused)
{
	munmap(self->page, PAGE_64K);
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

TEST_F_TIMEOUT(refused, stops_the_links_of_the_gpu, LIMIT)
{
	const __u64 pages = sysconf(_SC_PHYS_PAGES) + 4096;
	const __u64 end = self->base + pages * PAGE_64K;
	unsigned int i;
	__u64 value;

	for (i = 0; i < self->nv.num_gpus; i++) {
		struct engine *e = &self->engine[i];

		/* That of the one before is no matter to this one. */
		EXPECT_EQ(0, engine_read64(e, V100_ENGINE_PATH_TCE, self->bus, &value));
		EXPECT_EQ(pattern(0, 1), value);
		EXPECT_EQ(V100_ENGINE_CAUSE_TCE_INVALID,
			  engine_read64(e, V100_ENGINE_PATH_TCE, end, &value));
		for (e->link = 0; e->link < self->nv.gpu[i].num_links; e->link++) {
			EXPECT_EQ(V100_ENGINE_CAUSE_FROZEN,
				  engine_write64(e, V100_ENGINE_PATH_TCE, self->bus, 0))
				TH_LOG("%s, link %u", self->nv.gpu[i].bdf, e->link);
		}
		e->link = 0;
		EXPECT_EQ(0, engine_read64(e, V100_ENGINE_PATH_PCI, self->bus, &value));
		EXPECT_EQ(pattern(0, 1), value);
	}
}

TEST_HARNESS_MAIN
