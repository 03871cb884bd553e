// SPDX-License-Identifier: GPL-2.0
/*
 * What a kernel finds of the maps that the one before made for GPUs: nothing, and a GPU that a
 * user has without a virtual machine reaches no memory by the addresses of a process. kexec.sh
 * goes from one kernel to the next.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "engine.h"
#include "npu.h"
#include "sys.h"
#include "testbed.h"

#define ATS	V100_ENGINE_PATH_ATS
/* Where a process of somebody else has this. */
#define ADDRESS	0x20000000000UL
#define SECRET	0x5ec2e7da7a5ec2e7UL
/* Linux gives processes the lowest that are free. */
#define PASIDS	4096U

/* Nobody has opened a GPU yet. */
TEST(nothing_is_mapped)
{
	struct dt_topology topo;
	char why[256];
	unsigned int gpu;

	ASSERT_EQ(0, dt_read_topology(&topo, why, sizeof(why)))
		TH_LOG("%s", why);
	/* Of each chip, once for each of its GPUs. */
	for (gpu = 0; gpu < topo.num_gpus; gpu++) {
		npu_select(&topo.gpu[gpu].link[0]);
		EXPECT_STREQ("", npu_not_clear())
			TH_LOG("of %s", topo.gpu[gpu].bdf);
	}
}

FIXTURE(stranger)
{
	struct dt_topology topo;
	const char *bdf;
	pid_t victim;
	struct vfio_group group;
	int dev;
	struct engine engine;
};

static int wait_to_be_killed(void)
{
	void *p = mmap((void *)ADDRESS, PAGE_64K, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	store64(p, SECRET);
	for (;;)
		pause();
}

/* A GPU of plain vfio-pci: the driver under test has nothing to do with it. */
FIXTURE_SETUP(stranger)
{
	struct model model;
	char why[256];

	self->dev = -1;
	ASSERT_EQ(0, dt_read_topology(&self->topo, why, sizeof(why)))
		TH_LOG("%s", why);
	ASSERT_LE(2, self->topo.num_gpus);
	self->bdf = self->topo.gpu[1].bdf;
	self->victim = fork();
	ASSERT_LE(0, self->victim);
	if (!self->victim)
		_exit(wait_to_be_killed());
	ASSERT_EQ(0, driver_bind(self->bdf, "vfio-pci"));
	ASSERT_EQ(0, vfio_group_open(&self->group, pci_iommu_group(self->bdf), false));
	self->dev = vfio_device_open(&self->group, self->bdf);
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, model_attach(&model, self->dev));
	ASSERT_EQ(0, model_train(&model));
	ASSERT_EQ(0, engine_attach(&self->engine, self->dev));
}

FIXTURE_TEARDOWN(stranger)
{
	kill(self->victim, SIGKILL);
	waitpid(self->victim, NULL, 0);
	engine_detach(&self->engine);
	if (self->dev >= 0)
		close(self->dev);
	vfio_group_close(&self->group);
	driver_unbind(self->bdf);
}

TEST_F_TIMEOUT(stranger, reaches_no_process, 60)
{
	unsigned int pasid, translated = 0, read = 0;
	__u64 value;

	for (pasid = 0; pasid < PASIDS; pasid++) {
		self->engine.pasid = pasid;
		if (engine_read64(&self->engine, ATS, ADDRESS, &value) == V100_ENGINE_CAUSE_NONE) {
			translated++;
			read += value == SECRET;
		}
	}
	EXPECT_EQ(0, translated);
	EXPECT_EQ(0, read);
}

TEST_HARNESS_MAIN
