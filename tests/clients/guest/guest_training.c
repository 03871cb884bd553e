// SPDX-License-Identifier: GPL-2.0
/*
 * Links that the guest trains as a driver does: by firmware's procedures, which each bridge offers
 * in its configuration space, and the GPU's own ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "procedures.h"
#include "sys.h"

#define LIMIT	300

FIXTURE(training)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
};

FIXTURE_SETUP(training)
{
	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
}

FIXTURE_TEARDOWN(training)
{
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

static int find_procedures(struct procedures *p, const char *bdf)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? fd : procedures_find(p, fd, 0);
}

TEST_F_TIMEOUT(training, links_are_trained_by_procedures, LIMIT)
{
	unsigned int i, link;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		const struct engine *e = &self->engine[i];
		struct procedures p[NVLINK_MAX_LINKS];
		__u64 *cpu = nvlink_map(gpu->ram, PAGE_64K);

		ASSERT_NE(NULL, cpu);
		for (link = 0; link < gpu->num_links; link++)
			ASSERT_EQ(0, find_procedures(&p[link], gpu->link[link].bdf))
				TH_LOG("%s", gpu->link[link].bdf);
		ASSERT_EQ(0, procedures_reset(p, gpu->num_links));
		EXPECT_EQ(0U, engine_reg(e, V100_LINK_STATUS));
		engine_gpu_ends(e, false);
		engine_gpu_ends(e, true);
		EXPECT_EQ(0U, engine_reg(e, V100_LINK_STATUS));
		ASSERT_EQ(0, procedures_train(p, gpu->num_links));
		ASSERT_EQ(engine_reg(e, V100_LINK_MASK), engine_reg(e, V100_LINK_STATUS));
		store64(cpu, pattern(i, 9));
		EXPECT_EQ(pattern(i, 9), load64(e->ram));
		for (link = 0; link < gpu->num_links; link++)
			close(p[link].fd);
		munmap(cpu, PAGE_64K);
	}
}

TEST_HARNESS_MAIN
