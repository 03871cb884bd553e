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
#include "guest.h"
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

/* The largest page that a mapping can have at all, wherever it is put. */
static unsigned long best_page(__u64 offset, __u64 size, unsigned long limit)
{
	static const unsigned long pages[] = { GIB, 2 * MIB };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		__u64 start = (offset + pages[i] - 1) & ~(pages[i] - 1);

		if (pages[i] <= limit && start + pages[i] <= offset + size)
			return pages[i];
	}
	return PAGE_64K;
}

/* mmap() without an address, as QEMU does it. */
TEST_F(huge, addresses_suit_the_pages)
{
	const __u64 aperture = self->tb.ram->size;
	const struct {
		__u64 offset, size;
	} cases[] = {
		{ 0, aperture },
		{ GIB, aperture - GIB },
		{ 0, GIB },
		{ 5 * GIB, GIB },
		{ 0, GIB - PAGE_64K },
		{ GIB - PAGE_64K, GIB + PAGE_64K },
		{ GIB - PAGE_64K, GIB },
		{ 7 * PAGE_64K, 6 * MIB },
		{ 2 * MIB, 2 * MIB },
		{ MIB, 2 * MIB },
		{ 0, PAGE_64K },
		{ aperture - PAGE_64K, PAGE_64K },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned long page = best_page(cases[i].offset, cases[i].size, variant->page);
		/* So that luck does not help. */
		void *shift = reserve(PAGE_64K, PAGE_64K);
		char *p = vfio_map(self->tb.dev, self->tb.ram, cases[i].offset, cases[i].size);

		ASSERT_NE(NULL, shift);
		ASSERT_NE(NULL, p);
		EXPECT_EQ(0, ((uintptr_t)p - cases[i].offset) % page)
			TH_LOG("offset %#lx, size %#lx: %p", (unsigned long)cases[i].offset,
			       (unsigned long)cases[i].size, p);
		munmap(p, cases[i].size);
	}
}

/* An address that the user asks for is the one he gets, if it is free. */
TEST_F(huge, addresses_of_the_user_are_kept)
{
	char *base = reserve(4 * GIB, GIB), *at = base + GIB + PAGE_64K, *p;

	ASSERT_NE(NULL, base);
	EXPECT_EQ(at, vfio_map_at(self->tb.dev, self->tb.ram, 0, GIB, at));
	ASSERT_EQ(0, munmap(at, GIB));
	p = mmap(at, GIB, PROT_READ, MAP_SHARED, self->tb.dev, self->tb.ram->offset);
	EXPECT_EQ(at, p);
	ASSERT_EQ(0, munmap(at, GIB));
	p = mmap(at, GIB, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, self->tb.dev,
		 self->tb.ram->offset);
	EXPECT_EQ(at, p);
}

/*
 * The only addresses left are not congruent to the offset: mmap() works, with the pages that
 * are possible there.
 */
TEST_F_TIMEOUT(huge, no_room_for_alignment, 120)
{
	const size_t small = variant->page < 2 * MIB ? variant->page : 2 * MIB;
	char *hole = reserve(4 * GIB, GIB), *p[2];
	size_t size;

	ASSERT_NE(NULL, hole);
	for (size = 1UL << 46; size >= PAGE_64K; size /= 2) {
		while (mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0) != MAP_FAILED)
			;
	}
	hole += GIB + 2 * MIB;
	ASSERT_EQ(0, munmap(hole, GIB));
	p[0] = vfio_map(self->tb.dev, self->tb.ram, 0, GIB);
	ASSERT_EQ(hole, p[0]);
	EXPECT_FAULTS(GIB / small, touch(p[0], GIB));
	EXPECT_EQ(NULL, vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K));
	ASSERT_EQ(0, munmap(hole, GIB));

	p[0] = mmap(hole, PAGE_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(hole, p[0]);
	p[0] = mmap(hole + PAGE_64K + 2 * MIB, GIB - 2 * MIB - PAGE_64K, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	ASSERT_EQ(hole + PAGE_64K + 2 * MIB, p[0]);
	p[1] = vfio_map(self->tb.dev, self->tb.ram, 0, 2 * MIB);
	ASSERT_EQ(hole + PAGE_64K, p[1]);
	EXPECT_FAULTS(2 * MIB / PAGE_64K, touch(p[1], 2 * MIB));
}

/* As QEMU places the RAM of a GPU in a guest. */
#define GUEST_RAM	(64UL << 40)

#define TRACING	"/sys/kernel/tracing/instances/selftest"
#define EXITS	TRACING "/events/kvm_hv/kvm_guest_exit/enable"

FIXTURE(huge_guest)
{
	struct testbed tb;
	struct guest guest;
};

FIXTURE_VARIANT(huge_guest)
{
	const char *parameters;
	unsigned long page;
};

FIXTURE_VARIANT_ADD(huge_guest, none)
{
	.parameters = "max_order=0",
	.page = PAGE_64K,
};

FIXTURE_VARIANT_ADD(huge_guest, up_to_2_mib)
{
	.parameters = "max_order=5",
	.page = 2 * MIB,
};

FIXTURE_VARIANT_ADD(huge_guest, any)
{
	.parameters = "",
	.page = GIB,
};

FIXTURE_SETUP(huge_guest)
{
	if (module_loaded())
		ASSERT_EQ(0, module_unload());
	ASSERT_EQ(0, module_load_with(variant->parameters));
	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, guest_create(&self->guest, self->tb.group.vm, 1));
}

FIXTURE_TEARDOWN(huge_guest)
{
	guest_destroy(&self->guest);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* KVM maps the guest's memory with pages as large as those of the process that gave it. */
TEST_F_TIMEOUT(huge_guest, second_stage_has_the_same_pages, 120)
{
	const long pages = GIB / variant->page;
	int faults;
	char *p;

	p = vfio_map(self->tb.dev, self->tb.ram, 0, self->tb.ram->size);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, p, self->tb.ram->size));
	ASSERT_EQ(0, trace_start("selftest"));
	ASSERT_EQ(0, sys_write(TRACING "/buffer_size_kb", "8192"));
	ASSERT_EQ(0, sys_write(EXITS, "1"));
	ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM, PAGE_64K, GIB / PAGE_64K));
	ASSERT_EQ(0, sys_write(EXITS, "0"));
	faults = trace_count("selftest", "kvm_guest_exit", "trap=H_DATA_STORAGE");
	trace_stop("selftest");

	EXPECT_EQ(pages, guest_host_pages(GUEST_RAM, self->tb.ram->size, variant->page));
	EXPECT_EQ(pages, guest_host_pages(GUEST_RAM, self->tb.ram->size, 0));
	EXPECT_LE(pages, faults);
	EXPECT_GE(pages + 1, faults);

	/* What the host removes, the guest loses; what it maps again, the guest has again. */
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
	EXPECT_EQ(0, guest_host_pages(GUEST_RAM, self->tb.ram->size, 0));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM, PAGE_64K, GIB / PAGE_64K));
	EXPECT_EQ(pages, guest_host_pages(GUEST_RAM, self->tb.ram->size, variant->page));

	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, p, 0));
	EXPECT_EQ(0, guest_host_pages(GUEST_RAM, self->tb.ram->size, 0));
	EXPECT_EQ(0, munmap(p, self->tb.ram->size));
}

/* A part of the host's mapping goes: so does the guest's page, and nothing else. */
TEST_F(huge_guest, guest_loses_what_the_host_unmaps)
{
	char *p[2];

	p[0] = reserve(2 * GIB, GIB);
	ASSERT_NE(NULL, p[0]);
	p[0] = vfio_map_at(self->tb.dev, self->tb.ram, 0, GIB, p[0]);
	ASSERT_NE(NULL, p[0]);
	p[1] = vfio_map_at(self->tb.dev, self->tb.ram, GIB, GIB, p[0] + GIB);
	ASSERT_NE(NULL, p[1]);
	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, p[0], 2 * GIB));
	ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM, GIB - PAGE_64K, 3));
	EXPECT_EQ(variant->page == GIB ? 2 : 3, guest_host_pages(GUEST_RAM, 2 * GIB, 0));
	ASSERT_EQ(0, munmap(p[0], GIB));
	EXPECT_EQ(0, guest_host_pages(GUEST_RAM, GIB, 0));
	EXPECT_EQ(1, guest_host_pages(GUEST_RAM + GIB, GIB, 0));
	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, p[0], 0));
	EXPECT_EQ(0, munmap(p[1], GIB));
}

TEST_HARNESS_MAIN
