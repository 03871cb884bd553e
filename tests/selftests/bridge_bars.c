// SPDX-License-Identifier: GPL-2.0
/*
 * The BARs of a bridge: what is done to one bridge does not take them from another.
 *
 * Two links share a register block of generation ids, the second BAR of both. OPAL stops decoding
 * all of it when memory space of either bridge is switched off, and an access that nothing decodes
 * is a machine check: these tests end with the host where the kernel lets that happen. The two may
 * be links of different GPUs: where a GPU has three, links 2 and 3 are.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "sys.h"
#include "testbed.h"

/* Registers of the link, and generation ids: 64-bit BARs, so two indices each. */
static const __u32 bars[] = { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX };

/* The first of the links that share each block. */
static const unsigned int firsts[] = { 0, 2, 4 };

FIXTURE(bridges)
{
	struct testbed tb;
	/* Of all links of the NPU, by their index, whatever GPU they lead to. */
	const struct dt_bridge *bridge[NPU_LINKS];
	int dev[NPU_LINKS];
};

FIXTURE_SETUP(bridges)
{
	const struct dt_topology *t = &self->tb.topo;
	unsigned int i, j;

	for (i = 0; i < NPU_LINKS; i++)
		self->dev[i] = -1;
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	for (i = 0; i < t->num_gpus; i++) {
		if (pci_iommu_group(t->gpu[i].bdf) != self->tb.group.id)
			continue;
		for (j = 0; j < t->gpu[i].num_links; j++) {
			const struct dt_bridge *b = &t->gpu[i].link[j];

			ASSERT_GT(NPU_LINKS, b->link_index);
			self->bridge[b->link_index] = b;
			self->dev[b->link_index] = vfio_device_open(&self->tb.group, b->bdf);
			ASSERT_LE(0, self->dev[b->link_index])
				TH_LOG("%s", b->bdf);
		}
	}
	for (i = 0; i < NPU_LINKS; i++)
		ASSERT_NE(NULL, self->bridge[i])
			TH_LOG("no bridge of link %u", i);
}

FIXTURE_TEARDOWN(bridges)
{
	unsigned int i;

	for (i = 0; i < NPU_LINKS; i++) {
		if (self->dev[i] >= 0)
			close(self->dev[i]);
	}
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Reads eight bytes of each BAR: 0, or the negative errno of the first that failed. */
static int read_bars(int dev)
{
	__u64 value;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bars); i++) {
		if (pread(dev, &value, 8, REGION_OFFSET(bars[i]) + 0x78) != 8)
			return -errno;
	}
	return 0;
}

TEST_F(bridges, memory_space_of_another_is_off)
{
	unsigned int off, i;

	for (off = 0; off < NPU_LINKS; off++) {
		TH_LOG("%s is switched off", self->bridge[off]->bdf);
		ASSERT_EQ(0, vfio_set_memory(self->dev[off], false));
		for (i = 0; i < NPU_LINKS; i++)
			EXPECT_EQ(i == off ? -EIO : 0, read_bars(self->dev[i]));
		ASSERT_EQ(0, vfio_set_memory(self->dev[off], true));
		EXPECT_EQ(0, read_bars(self->dev[off]));
	}
}

TEST_F(bridges, another_is_closed)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(firsts); i++) {
		const unsigned int one = firsts[i], other = one + 1;

		TH_LOG("%s is closed", self->bridge[other]->bdf);
		close(self->dev[other]);
		self->dev[other] = -1;
		EXPECT_EQ(0, read_bars(self->dev[one]));
	}
}

struct reader {
	int dev;
	atomic_bool stop;
	atomic_ulong done, failed;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;

	while (!atomic_load(&r->stop))
		atomic_fetch_add(read_bars(r->dev) ? &r->failed : &r->done, 1);
	return NULL;
}

/* Reads one bridge's BARs while the other is reset; how many reads there were meanwhile, or -1. */
static long read_while_reset(int dev, int reset)
{
	struct reader r = { .dev = dev };
	unsigned long done, meanwhile = 0;
	pthread_t thread;
	int i, ret = 0;

	if (pthread_create(&thread, NULL, read_on, &r))
		return -1;
	for (i = 0; i < 10; i++) {
		done = atomic_load(&r.done);
		while (atomic_load(&r.done) == done && !atomic_load(&r.failed))
			usleep(100);
		done = atomic_load(&r.done);
		ret = ret ?: ioctl(reset, VFIO_DEVICE_RESET);
		meanwhile += atomic_load(&r.done) - done;
	}
	atomic_store(&r.stop, true);
	pthread_join(thread, NULL);
	return ret || atomic_load(&r.failed) ? -1 : (long)meanwhile;
}

/* A reset switches memory space off, and on again. */
TEST_F(bridges, another_is_reset)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(firsts); i++) {
		const unsigned int one = firsts[i], other = one + 1;

		EXPECT_LT(0, read_while_reset(self->dev[one], self->dev[other]))
			TH_LOG("%s is reset", self->bridge[other]->bdf);
		EXPECT_LT(0, read_while_reset(self->dev[other], self->dev[one]))
			TH_LOG("%s is reset", self->bridge[one]->bdf);
	}
}

/*
 * A reset of a bridge takes the RAM of its own GPU from whoever has it mapped, and not that of the
 * GPU whose link shares the block: that stays mapped, and answers.
 */
TEST_F(bridges, gpu_ram_of_another_stays)
{
	const struct dt_gpu *other = &self->tb.topo.gpu[1];
	struct vfio_region_info *ram;
	__u32 lost[2] = { 0, 1 };
	struct model model;
	unsigned int i;
	__u64 value;
	void *p;
	int dev;

	ASSERT_EQ(self->tb.group.id, pci_iommu_group(other->bdf));
	dev = vfio_device_open(&self->tb.group, other->bdf);
	ASSERT_LE(0, dev);
	ASSERT_EQ(0, model_attach(&model, dev));
	ASSERT_EQ(0, model_train(&model));
	ASSERT_EQ(0, model_read32(&model, V100_UNTRAINED_ACCESSES, &lost[0]));
	ASSERT_EQ(0, vfio_find_gpu_ram(dev, &ram));
	p = vfio_map(dev, ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, 0x29));

	ASSERT_EQ(0, trace_start("selftest-bridges"));
	for (i = 0; i < self->tb.gpu->num_links; i++) {
		const struct dt_bridge *b = &self->tb.gpu->link[i];

		ASSERT_EQ(0, ioctl(self->dev[b->link_index], VFIO_DEVICE_RESET));
		EXPECT_EQ(0, try_read64(p, &value))
			TH_LOG("%s is reset", b->bdf);
		EXPECT_EQ(0x29ULL, value);
	}
	EXPECT_EQ(0, trace_count("selftest-bridges", "vfio_pci_nvgpu_mmap_fault", NULL));
	trace_stop("selftest-bridges");
	ASSERT_EQ(0, model_read32(&model, V100_UNTRAINED_ACCESSES, &lost[1]));
	EXPECT_EQ(lost[0], lost[1]);
	munmap(p, PAGE_64K);
	free(ram);
	close(dev);
}

TEST_HARNESS_MAIN
