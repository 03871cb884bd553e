// SPDX-License-Identifier: GPL-2.0
/* mmap() of the GPU RAM region: bounds, faults, and that everybody sees the same memory. */
#define _GNU_SOURCE
#include "kselftest_harness.h"

#include "bind.h"
#include "npu.h"
#include "sys.h"
#include "testbed.h"

FIXTURE(gpu)
{
	struct testbed tb;
};

FIXTURE_SETUP(gpu)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(gpu)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Defect 1: the original checked the length alone and mapped whatever lay behind the aperture. */
TEST_F(gpu, defect_1_bounds)
{
	const __u64 size = self->tb.ram->size, last = size - PAGE_64K, end_of_index = 1ULL << 40;
	const struct {
		__u64 offset, length;
		int error;
	} cases[] = {
		{ 0, PAGE_64K, 0 },
		{ 0, size, 0 },
		{ 0, size + PAGE_64K, EINVAL },
		{ PAGE_64K, size - PAGE_64K, 0 },
		{ PAGE_64K, size, EINVAL },
		{ last, PAGE_64K, 0 },
		{ last, 1, 0 },
		{ last, PAGE_64K + 1, EINVAL },
		{ last, 2 * PAGE_64K, EINVAL },
		{ size, PAGE_64K, EINVAL },
		{ size + PAGE_64K, PAGE_64K, EINVAL },
		{ size * 2, PAGE_64K, EINVAL },
		{ end_of_index - PAGE_64K, PAGE_64K, EINVAL },
		{ end_of_index - PAGE_64K, 2 * PAGE_64K, EINVAL },
		{ end_of_index, PAGE_64K, EINVAL },
		/* Not a multiple of the page size. */
		{ PAGE_64K / 2, PAGE_64K, EINVAL },
		{ 4096, 4096, EINVAL },
		/* The sum of file offset and length wraps. */
		{ -self->tb.ram->offset - PAGE_64K, 2 * PAGE_64K, EOVERFLOW },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		void *p = vfio_map(self->tb.dev, self->tb.ram, cases[i].offset, cases[i].length);
		int error = p ? 0 : errno;

		EXPECT_EQ(cases[i].error, error)
			TH_LOG("offset %#lx, length %#lx", cases[i].offset, cases[i].length);
		if (p)
			munmap(p, cases[i].length);
	}
}

TEST_F(gpu, private_mapping_is_refused)
{
	void *p = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->tb.dev,
		       self->tb.ram->offset);

	EXPECT_EQ(MAP_FAILED, p);
	EXPECT_EQ(EINVAL, errno);
}

/* Defect 17: nothing may copy, dump, grow or hand down the mapping. */
TEST_F(gpu, defect_17_vma_flags)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);

	ASSERT_NE(NULL, p);
	EXPECT_STREQ("", vma_missing_flag(p));
}

/* Nothing is mapped before it is touched, every page is taken once, and from the right place. */
TEST_F(gpu, faults_insert_the_page_that_was_touched)
{
	static const unsigned long pages[] = { 0, 1, 7, 100, 8191, 8190 };
	const __u64 offset = 16 * PAGE_64K;
	char expected[64];
	__u64 value;
	unsigned int i;
	char *p;

	ASSERT_EQ(0, trace_start("selftest"));
	/* Where no huge page fits. */
	p = reserve(8193 * PAGE_64K, 2UL << 20);
	ASSERT_NE(NULL, p);
	p = vfio_map_at(self->tb.dev, self->tb.ram, offset, 8192 * PAGE_64K, p + PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(1, trace_count("selftest", "vfio_pci_nvgpu_mmap", NULL));
	EXPECT_EQ(0, trace_count("selftest", "vfio_pci_nvgpu_mmap_fault", NULL));

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		char *page = p + pages[i] * PAGE_64K;

		ASSERT_EQ(0, try_write64(page + 8, pages[i]));
		ASSERT_EQ(0, try_read64(page + PAGE_64K - 8, &value));
		EXPECT_EQ((int)i + 1, trace_count("selftest", "vfio_pci_nvgpu_mmap_fault", NULL))
			TH_LOG("page %lu", pages[i]);
		snprintf(expected, sizeof(expected), "%lx -> %lx ",
			 self->tb.gpu->aperture + offset + pages[i] * PAGE_64K,
			 (unsigned long)page);
		EXPECT_EQ(1, trace_count("selftest", "vfio_pci_nvgpu_mmap_fault", expected))
			TH_LOG("no fault %s", expected);
	}
	trace_stop("selftest");
}

/*
 * Pages far apart, in the part of the RAM that BAR1 shows too: both ways, at two offsets of
 * the region.
 */
TEST_F(gpu, mapping_and_the_gpu_see_the_same_memory)
{
	static const __u64 offsets[] = { 0, 37 * PAGE_64K };
	const __u64 length = 64 * PAGE_64K;
	__u64 value, at;
	unsigned int i;
	char *p;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		p = vfio_map(self->tb.dev, self->tb.ram, offsets[i], length);
		ASSERT_NE(NULL, p);
		for (at = 0; at < length; at += PAGE_64K + 8) {
			ASSERT_EQ(0, try_write64(p + at, pattern(offsets[i] + at, i)));
			ASSERT_EQ(0, model_ram_read(&self->tb.model, offsets[i] + at, &value, 8));
			EXPECT_EQ(pattern(offsets[i] + at, i), value)
				TH_LOG("CPU wrote at %#lx, the GPU sees another", offsets[i] + at);
		}
		for (at = 16; at < length; at += PAGE_64K + 8) {
			value = pattern(offsets[i] + at, i + 100);
			ASSERT_EQ(0, model_ram_write(&self->tb.model, offsets[i] + at, &value, 8));
			ASSERT_EQ(0, try_read64(p + at, &value));
			EXPECT_EQ(pattern(offsets[i] + at, i + 100), value)
				TH_LOG("GPU wrote at %#lx, the CPU sees another", offsets[i] + at);
		}
		ASSERT_EQ(0, munmap(p, length));
	}
}

/*
 * The RAM's last page is RAM; the aperture beyond it is never somebody's memory: a load is counted
 * as lost. (That it may be a machine check, too, gpu_ram_rw has.)
 */
TEST_F(gpu, ram_ends_before_the_aperture)
{
	const __u64 ram = self->tb.model.ram_size;
	const char *dead = npu_dead();
	__u32 before, after;
	__u64 value;
	char *p;

	ASSERT_LT(ram, self->tb.ram->size);
	p = vfio_map(self->tb.dev, self->tb.ram, ram - PAGE_64K, 2 * PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p + PAGE_64K - 8, 0x1122334455667788));
	ASSERT_EQ(0, try_read64(p + PAGE_64K - 8, &value));
	EXPECT_EQ(0x1122334455667788ULL, value);

	ASSERT_EQ(0, model_read32(&self->tb.model, V100_UNTRAINED_ACCESSES, &before));
	ASSERT_EQ(0, npu_set("dead", ALL_ONES));
	ASSERT_EQ(0, try_read64(p + PAGE_64K, &value));
	ASSERT_EQ(0, npu_set("dead", dead));
	EXPECT_EQ(~0ULL, value);
	ASSERT_EQ(0, model_read32(&self->tb.model, V100_UNTRAINED_ACCESSES, &after));
	EXPECT_EQ(before + 1, after);
}

/* Every GPU's mapping is that GPU's RAM. */
TEST_F(gpu, gpus_do_not_share_memory)
{
	const struct dt_topology *t = &self->tb.topo;
	char *p[DT_MAX_GPUS] = {};
	int dev[DT_MAX_GPUS];
	struct vfio_region_info *info;
	unsigned int i, mapped = 0;
	struct model m;
	__u64 value;

	for (i = 0; i < t->num_gpus; i++) {
		dev[i] = i ? -1 : self->tb.dev;
		if (pci_iommu_group(t->gpu[i].bdf) != self->tb.group.id)
			continue;
		if (i)
			dev[i] = vfio_device_open(&self->tb.group, t->gpu[i].bdf);
		ASSERT_LE(0, dev[i]);
		ASSERT_EQ(0, model_attach(&m, dev[i]));
		ASSERT_EQ(0, model_train(&m));
		ASSERT_EQ(0, vfio_find_gpu_ram(dev[i], &info));
		p[i] = vfio_map(dev[i], info, 0, PAGE_64K);
		ASSERT_NE(NULL, p[i]);
		free(info);
		ASSERT_EQ(0, try_write64(p[i], pattern(0, i)));
		mapped++;
	}
	ASSERT_LE(2U, mapped);
	for (i = 0; i < t->num_gpus; i++) {
		if (!p[i])
			continue;
		m.dev = dev[i];
		EXPECT_EQ(0, model_ram_read(&m, 0, &value, 8));
		EXPECT_EQ(pattern(0, i), value)
			TH_LOG("%s", t->gpu[i].bdf);
	}
}

/* A read-only mapping reads and does not write. */
TEST_F(gpu, read_only_mapping)
{
	__u64 value = 42;
	void *p = mmap(NULL, PAGE_64K, PROT_READ, MAP_SHARED, self->tb.dev, self->tb.ram->offset);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, model_ram_write(&self->tb.model, 0, &value, 8));
	ASSERT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(42ULL, value);
	EXPECT_EQ(SIGSEGV, try_write64(p, 43));
	ASSERT_EQ(0, model_ram_read(&self->tb.model, 0, &value, 8));
	EXPECT_EQ(42ULL, value);
}

/* 512 MiB, every page: the volume at which the original was measured. */
TEST_F_TIMEOUT(gpu, fills_512_mib, 120)
{
	const __u64 length = 512ULL << 20;
	__u64 at, value, wrong = 0;
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, length);

	ASSERT_NE(NULL, p);
	for (at = 0; at < length; at += PAGE_64K)
		store64(p + at, pattern(at, 5));
	for (at = 0; at < length; at += PAGE_64K)
		wrong += load64(p + at) != pattern(at, 5);
	EXPECT_EQ(0ULL, wrong);
	for (at = 0; at < V100_BAR1_SIZE; at += 64 * PAGE_64K) {
		ASSERT_EQ(0, model_ram_read(&self->tb.model, at, &value, 8));
		EXPECT_EQ(pattern(at, 5), value);
	}
}

TEST_HARNESS_MAIN
