// SPDX-License-Identifier: GPL-2.0
/*
 * GPU RAM in pages of 64 KiB, 2 MiB and 1 GiB, whichever is the largest that the module may use.
 *
 * How large a page is tells the number of faults that the kernel counts for the process while it
 * touches one word in each 64 KiB.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/resource.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"
#include "testbed.h"

#define MIB	(16 * PAGE_64K)
#define GIB	(1024 * MIB)
/* Faults of the test program itself. */
#define NOISE	2

FIXTURE(huge)
{
	struct testbed tb;
};

FIXTURE_VARIANT(huge)
{
	const char *parameters;
	unsigned long page;
};

FIXTURE_VARIANT_ADD(huge, none)
{
	.parameters = "max_order=0",
	.page = PAGE_64K,
};

/* 1 GiB is order 14: what is in between allows what is below. */
FIXTURE_VARIANT_ADD(huge, up_to_2_mib)
{
	.parameters = "max_order=13",
	.page = 2 * MIB,
};

FIXTURE_VARIANT_ADD(huge, any)
{
	.parameters = "",
	.page = GIB,
};

FIXTURE_SETUP(huge)
{
	if (module_loaded())
		ASSERT_EQ(0, module_unload());
	ASSERT_EQ(0, module_load_with(variant->parameters));
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(huge)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static __u64 minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* Loads a word of each 64 KiB and returns how many faults there were. */
static __u64 touch(const char *p, size_t size)
{
	__u64 before = minor_faults();
	size_t at;

	for (at = 0; at < size; at += PAGE_64K)
		load64(p + at);
	return minor_faults() - before;
}

#define EXPECT_FAULTS(expected, faults) do {				\
	__u64 expected_ = (expected), faults_ = (faults);		\
	EXPECT_LE(expected_, faults_);					\
	EXPECT_GE(expected_ + NOISE, faults_);				\
} while (0)

TEST_F_TIMEOUT(huge, one_gib_is_one_fault, 120)
{
	char *p = vfio_map_at(self->tb.dev, self->tb.ram, GIB, GIB, reserve(GIB, GIB));

	ASSERT_NE(NULL, p);
	EXPECT_FAULTS(GIB / variant->page, touch(p, GIB));
	/* All of it is there now. */
	EXPECT_FAULTS(0, touch(p, GIB));
	EXPECT_EQ(0, munmap(p, GIB));
}

/* At both ends there is room for smaller pages only. */
TEST_F_TIMEOUT(huge, falls_back_a_step_at_a_time, 120)
{
	const size_t edge = 2 * MIB + PAGE_64K, size = GIB + 2 * edge;
	const __u64 small = size / PAGE_64K, medium = 2 + (GIB + 4 * MIB) / (2 * MIB), large = 5;
	char *base = reserve(3 * GIB, GIB), *p;

	ASSERT_NE(NULL, base);
	p = vfio_map_at(self->tb.dev, self->tb.ram, GIB - edge, size, base + GIB - edge);
	ASSERT_NE(NULL, p);
	EXPECT_FAULTS(variant->page == GIB ? large : variant->page == 2 * MIB ? medium : small,
		      touch(p, size));
}

/* User and physical address have to be congruent modulo the page. */
TEST_F_TIMEOUT(huge, incongruent_addresses_take_smaller_pages, 120)
{
	const size_t middle = variant->page < 2 * MIB ? variant->page : 2 * MIB;
	char *base = reserve(3 * GIB, GIB), *p;

	ASSERT_NE(NULL, base);
	p = vfio_map_at(self->tb.dev, self->tb.ram, 0, GIB, base + 2 * MIB);
	ASSERT_NE(NULL, p);
	EXPECT_FAULTS(GIB / middle, touch(p, GIB));
	ASSERT_EQ(0, munmap(p, GIB));

	p = vfio_map_at(self->tb.dev, self->tb.ram, 0, 64 * MIB, base + PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_FAULTS(64 * MIB / PAGE_64K, touch(p, 64 * MIB));
}

/* What is mapped is the memory at that offset: read(2) takes another way to it. */
TEST_F_TIMEOUT(huge, every_page_is_in_its_place, 120)
{
	static const __u64 ends[] = {
		0, GIB - 2 * MIB - 8, GIB - 8, GIB, GIB + 2 * MIB - 8, GIB + 2 * MIB,
		2 * GIB - 8, 2 * GIB, 3 * GIB - 8,
	};
	__u64 value, at, wrong = 0;
	unsigned int i;
	char *p;

	p = vfio_map_at(self->tb.dev, self->tb.ram, 0, 3 * GIB, reserve(3 * GIB, GIB));
	ASSERT_NE(NULL, p);
	for (at = 0; at < 3 * GIB; at += 16 * PAGE_64K + 8)
		store64(p + at, pattern(at, 3));
	for (i = 0; i < ARRAY_SIZE(ends); i++)
		store64(p + ends[i], pattern(ends[i], 4));
	for (at = 16 * PAGE_64K + 8; at < 3 * GIB; at += 16 * PAGE_64K + 8) {
		ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + at));
		wrong += value != pattern(at, 3);
	}
	EXPECT_EQ(0ULL, wrong);
	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + ends[i]));
		EXPECT_EQ(pattern(ends[i], 4), value)
			TH_LOG("offset %#lx", (unsigned long)ends[i]);
	}
}

/* A page larger than its mapping would give what is behind it. */
TEST_F(huge, nothing_beyond_the_mapping)
{
	static const size_t sizes[] = { PAGE_64K, 2 * MIB - PAGE_64K, 2 * MIB, 4 * MIB };
	char *base = reserve(2 * GIB, GIB), *p;
	unsigned int i;
	__u64 value;

	ASSERT_NE(NULL, base);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		p = vfio_map_at(self->tb.dev, self->tb.ram, GIB, sizes[i], base + GIB);
		ASSERT_NE(NULL, p);
		ASSERT_EQ(0, try_read64(p + sizes[i] - 8, &value));
		EXPECT_EQ(SIGSEGV, try_read64(p + sizes[i], &value))
			TH_LOG("behind %#lx bytes", (unsigned long)sizes[i]);
		EXPECT_EQ(SIGSEGV, try_read64(p - 8, &value))
			TH_LOG("before %#lx bytes", (unsigned long)sizes[i]);
		ASSERT_EQ(0, munmap(p, sizes[i]));
		ASSERT_EQ(p, mmap(p, sizes[i], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
				  MAP_NORESERVE, -1, 0));
	}
}

/* The aperture's last bytes, of which a page is as good as any other. */
TEST_F(huge, last_page_of_the_region)
{
	const __u64 size = self->tb.ram->size;
	char *p = vfio_map_at(self->tb.dev, self->tb.ram, size - GIB, GIB, reserve(GIB, GIB));
	char path[128], text[256], *line;

	ASSERT_NE(NULL, p);
	/* There is no RAM: the value is of no interest. */
	load64(p + GIB - 8);
	snprintf(path, sizeof(path), DEBUGFS "/%s/faults", self->tb.gpu->bdf);
	ASSERT_LT(0, sys_read(path, text, sizeof(text)));
	line = strstr(text, "huge ");
	ASSERT_NE(NULL, line);
	EXPECT_EQ(variant->page > PAGE_64K, strtoul(line + strlen("huge "), NULL, 10));
}

TEST_F(huge, protection_of_the_whole_mapping_changes)
{
	char *p = vfio_map_at(self->tb.dev, self->tb.ram, GIB, GIB, reserve(GIB, GIB));
	__u64 value;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p + 8, 81));
	ASSERT_EQ(0, mprotect(p, GIB, PROT_READ));
	EXPECT_EQ(SIGSEGV, try_write64(p + 8, 82));
	EXPECT_EQ(SIGSEGV, try_write64(p + GIB - 8, 82));
	ASSERT_EQ(0, try_read64(p + 8, &value));
	EXPECT_EQ(81ULL, value);
	ASSERT_EQ(0, mprotect(p, GIB, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, try_write64(p + 8, 83));
	EXPECT_EQ(0, try_write64(p + GIB - 8, 84));
	EXPECT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + GIB + 8));
	EXPECT_EQ(83ULL, value);
}

/* Memory space off and on: huge pages go like others, and come back. */
TEST_F(huge, zapped_with_the_memory_space)
{
	char *p = vfio_map_at(self->tb.dev, self->tb.ram, 0, GIB, reserve(GIB, GIB));
	__u64 value;

	ASSERT_NE(NULL, p);
	EXPECT_FAULTS(GIB / variant->page, touch(p, GIB));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
	EXPECT_EQ(SIGBUS, try_read64(p, &value));
	EXPECT_EQ(SIGBUS, try_read64(p + GIB - PAGE_64K, &value));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	EXPECT_FAULTS(GIB / variant->page, touch(p, GIB));
}

TEST_HARNESS_MAIN
