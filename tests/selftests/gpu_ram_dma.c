// SPDX-License-Identifier: GPL-2.0
/* GPU RAM as a target of DMA: the registration that mmap() makes and the TCEs that VFIO builds on it. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "scom.h"
#include "sys.h"
#include "testbed.h"

#define TCE_READ_WRITE	3ULL
#define MAP_SIZE	(4 * PAGE_64K)
#define MAP_OFFSET	(37 * PAGE_64K)

FIXTURE(dma)
{
	struct testbed tb;
	/* Ordinary memory: a container accepts no mapping before something was registered. */
	void *ram;
};

FIXTURE_SETUP(dma)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->ram = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->ram);
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, self->ram, PAGE_64K));
}

FIXTURE_TEARDOWN(dma)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/*
 * How many of the NPU's TVEs translate @iova to @tce. -EBADMSG if one that is in use says something else.
 */
static int tves_with(const struct testbed *tb, uint64_t iova, uint64_t tce)
{
	const struct dt_bridge *b = &tb->gpu->link[0];
	uint64_t tve, seen;
	unsigned int pe;
	int count = 0, ret;

	for (pe = 0; pe < NPU_NUM_TVES; pe++) {
		ret = npu_read_tve(b->chip, b->xscom_base, pe, &tve);
		ret = ret ?: tve_lookup(tve, iova, &seen);
		if (ret == -ENOENT)
			continue;
		if (ret)
			return ret;
		if (seen != tce) {
			fprintf(stderr, "# PE %u: TVE %#lx, TCE of %#lx is %#lx, not %#lx\n", pe, tve, iova, seen,
				tce);
			return -EBADMSG;
		}
		count++;
	}
	return count;
}

/* Defect 4: the original registered the start of the aperture whatever was mapped; DMA then went elsewhere. */
TEST_F(dma, defect_4_tce_holds_the_address_of_the_page)
{
	const uint64_t iova = 5 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	uint64_t i;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p + PAGE_64K, iova, 2 * PAGE_64K));
	for (i = 0; i < 2; i++) {
		const uint64_t hpa = self->tb.gpu->aperture + MAP_OFFSET + (1 + i) * PAGE_64K;

		EXPECT_LT(0, tves_with(&self->tb, iova + i * PAGE_64K, hpa | TCE_READ_WRITE));
	}
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, iova, 2 * PAGE_64K));
	EXPECT_LT(0, tves_with(&self->tb, iova, 0));
	EXPECT_EQ(0, munmap(p, MAP_SIZE));
}

/* Two mappings of different parts keep their own physical addresses. */
TEST_F(dma, defect_4_two_mappings)
{
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);
	char *q = vfio_map(self->tb.dev, self->tb.ram, self->tb.ram->size - MAP_SIZE, MAP_SIZE);

	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, q);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, q, MAP_SIZE, MAP_SIZE));
	EXPECT_LT(0, tves_with(&self->tb, 0, self->tb.gpu->aperture | TCE_READ_WRITE));
	EXPECT_LT(0, tves_with(&self->tb, 2 * MAP_SIZE - PAGE_64K,
			       (self->tb.gpu->aperture + self->tb.ram->size - PAGE_64K) | TCE_READ_WRITE));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, 2 * MAP_SIZE));
}

/* Ordinary memory for comparison: the same walk must not find it inside an aperture. */
TEST_F(dma, ordinary_memory_is_not_in_the_aperture)
{
	const struct dt_bridge *b = &self->tb.gpu->link[0];
	unsigned int pe, found = 0;
	uint64_t tve, tce;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->ram, 0, PAGE_64K));
	for (pe = 0; pe < NPU_NUM_TVES; pe++) {
		ASSERT_EQ(0, npu_read_tve(b->chip, b->xscom_base, pe, &tve));
		if (tve_lookup(tve, 0, &tce))
			continue;
		found++;
		EXPECT_EQ(TCE_READ_WRITE, tce & TCE_READ_WRITE);
		EXPECT_GT(self->tb.gpu->aperture - 2 * self->tb.ram->size, tce);
	}
	EXPECT_LT(0U, found);
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, PAGE_64K));
}

/* QEMU takes the registration away and makes it again, for the whole range, at every reset of its PHB. */
TEST_F(dma, whole_aperture_registers_again_and_again)
{
	const uint64_t size = self->tb.ram->size;
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, size);
	int i;

	ASSERT_NE(NULL, p);
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, vfio_dma_register(&self->tb.group, p, size))
			TH_LOG("round %d", i);
		EXPECT_EQ(-EBUSY, vfio_dma_register(&self->tb.group, p, size));
		ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, 16 * PAGE_64K));
		ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, 16 * PAGE_64K));
		ASSERT_EQ(0, vfio_dma_unregister(&self->tb.group, p, size));
	}
}

/* What is not exactly the mapping is ordinary memory to the container, and cannot be pinned. */
TEST_F(dma, part_of_a_mapping_does_not_register)
{
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);

	ASSERT_NE(NULL, p);
	EXPECT_NE(0, vfio_dma_register(&self->tb.group, p, PAGE_64K));
	EXPECT_NE(0, vfio_dma_register(&self->tb.group, p + PAGE_64K, MAP_SIZE - PAGE_64K));
	EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p, MAP_SIZE));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, MAP_SIZE));
}

/* The registration goes with the mapping; before and after, the address is of no use. */
TEST_F(dma, registration_follows_the_mapping)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	EXPECT_EQ(-EINVAL, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
}

/*
 * Defect 14: munmap() with a TCE still there. No warning, the TCE keeps pointing at the GPU's RAM, and when it is gone
 * so is the registration: ordinary memory at that address is then ordinary memory.
 */
TEST_F(dma, defect_14_munmap_with_a_live_tce)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	const uint64_t expected = (self->tb.gpu->aperture + MAP_OFFSET) | TCE_READ_WRITE;
	const struct dt_bridge *b = &self->tb.gpu->link[0];
	unsigned int pe, found = 0;
	uint64_t tve, tce;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	EXPECT_LT(0, tves_with(&self->tb, 0, expected));
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	EXPECT_LT(0, tves_with(&self->tb, 0, 0));

	ASSERT_EQ(p, mmap(p, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	memset(p, 1, MAP_SIZE);
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, p, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	for (pe = 0; pe < NPU_NUM_TVES; pe++) {
		ASSERT_EQ(0, npu_read_tve(b->chip, b->xscom_base, pe, &tve));
		if (tve_lookup(tve, 0, &tce))
			continue;
		found++;
		EXPECT_NE(expected, tce)
			TH_LOG("memory of the process is still taken for GPU RAM");
	}
	EXPECT_LT(0U, found);
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, MAP_SIZE));
}

/* Defect 14, as it happens when a VM is killed: everything goes in the order in which the kernel drops it. */
TEST_F(dma, defect_14_process_dies_with_live_tces)
{
	int group = self->tb.group.id, status, i;
	struct vfio_group g;
	pid_t child;

	close(self->tb.dev);
	self->tb.dev = -1;
	vfio_group_close(&self->tb.group);

	for (i = 0; i < 4; i++) {
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			struct testbed tb;
			char *p;

			if (testbed_open(&tb, 0, i & 1))
				_exit(1);
			p = vfio_map(tb.dev, tb.ram, MAP_OFFSET, MAP_SIZE);
			if (!p || vfio_dma_register(&tb.group, p, MAP_SIZE) ||
			    vfio_dma_map(&tb.group, p, 0, MAP_SIZE) || try_write64(p, 1))
				_exit(2);
			if (i & 2)
				munmap(p, MAP_SIZE);
			kill(getpid(), SIGKILL);
		}
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status))
			TH_LOG("round %d: exit status %d", i, WEXITSTATUS(status));
		ASSERT_EQ(0, vfio_group_open(&g, group, false));
		vfio_group_close(&g);
	}
}

/* Defect 3: a TCE page larger than what address and memory share must not be reached; such windows do not exist. */
TEST_F(dma, defect_3_tces_of_4k_and_64k_at_any_page)
{
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create), .page_shift = 12, .window_size = 1ULL << 30, .levels = 1,
	};
	struct vfio_iommu_spapr_tce_remove remove = { .argsz = sizeof(remove) };
	char *p = vfio_map(self->tb.dev, self->tb.ram, 3 * PAGE_64K, 5 * PAGE_64K);

	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, vfio_dma_map(&self->tb.group, p + PAGE_64K, 0, 3 * PAGE_64K));
	EXPECT_EQ(-EINVAL, vfio_dma_map(&self->tb.group, p + 4096, 0, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, 3 * PAGE_64K));

	remove.start_addr = self->tb.group.window_start;
	ASSERT_EQ(0, ioctl(self->tb.group.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove));
	ASSERT_EQ(0, ioctl(self->tb.group.container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p + PAGE_64K + 4096, create.start_addr + 8192, 4096));
	EXPECT_LT(0, tves_with(&self->tb, create.start_addr + 8192,
			       (self->tb.gpu->aperture + 4 * PAGE_64K + 4096) | TCE_READ_WRITE));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, create.start_addr + 8192, 4096));
}

TEST_HARNESS_MAIN
