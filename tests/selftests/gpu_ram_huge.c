// SPDX-License-Identifier: GPL-2.0
/*
 * GPU RAM in pages of 1 GiB, 2 MiB and the kernel's own size, whichever is the largest that the
 * module may use.
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
#include "npu.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"

#define MIB	(16 * PAGE_64K)
#define GIB	(1024 * MIB)
/* Faults of the test program itself. */
#define NOISE	2

/* What the module was loaded with last. Each test is a process of its own, so they share this. */
static char *loaded_with;

static __attribute__((constructor)) void share(void)
{
	loaded_with = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			   0);
	if (loaded_with == MAP_FAILED)
		abort();
	snprintf(loaded_with, PAGE_64K, "not by us");
}

/* What @limit and @page of variants can be besides a number of bytes. */
#define NO_LIMIT	0
#define SMALLEST	PAGE_64K

/* The size of the pages where the variant has @page: where that is SMALLEST, the kernel's own. */
static unsigned long size_of(unsigned long page)
{
	return page == SMALLEST ? host_page() : page;
}

/* With pages of at most @limit bytes. */
static int load_with(unsigned long limit)
{
	char parameters[32] = "";
	int ret = 0;

	if (limit)
		snprintf(parameters, sizeof(parameters), "max_order=%d",
			 __builtin_ctzl(size_of(limit) / host_page()));

	if (module_loaded()) {
		if (!strcmp(loaded_with, parameters))
			return 0;
		ret = module_unload();
	}
	ret = ret ?: module_load_with(parameters);
	if (!ret)
		snprintf(loaded_with, PAGE_64K, "%s", parameters);
	return ret;
}

FIXTURE(huge)
{
	struct testbed tb;
};

FIXTURE_VARIANT(huge)
{
	unsigned long limit;
	unsigned long page;
};

/* What is between two sizes allows what is below. */
FIXTURE_VARIANT_ADD(huge, none)
{
	.limit = SMALLEST,
	.page = SMALLEST,
};

FIXTURE_VARIANT_ADD(huge, below_2_mib)
{
	.limit = MIB,
	.page = SMALLEST,
};

FIXTURE_VARIANT_ADD(huge, up_to_2_mib)
{
	.limit = 2 * MIB,
	.page = 2 * MIB,
};

FIXTURE_VARIANT_ADD(huge, below_1_gib)
{
	.limit = 512 * MIB,
	.page = 2 * MIB,
};

FIXTURE_VARIANT_ADD(huge, up_to_1_gib)
{
	.limit = GIB,
	.page = GIB,
};

FIXTURE_VARIANT_ADD(huge, any)
{
	.limit = NO_LIMIT,
	.page = GIB,
};

FIXTURE_SETUP(huge)
{
	ASSERT_EQ(0, load_with(variant->limit));
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

/* Whether there were as many as expected, those of the program itself aside. */
static bool counted(__u64 expected, __u64 faults)
{
	if (faults >= expected && faults <= expected + NOISE)
		return true;
	fprintf(stderr, "# %llu faults, not %llu\n", (unsigned long long)faults,
		(unsigned long long)expected);
	return false;
}

#define EXPECT_FAULTS(expected, faults)	EXPECT_TRUE(counted(expected, faults))

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
	const __u64 step = 16 * PAGE_64K + 8;
	__u64 value, at, wrong = 0;
	unsigned int i;
	char *p;

	p = vfio_map_at(self->tb.dev, self->tb.ram, 0, 3 * GIB, reserve(3 * GIB, GIB));
	ASSERT_NE(NULL, p);
	/* Backwards: it is not the first word of a page that brings it in. */
	for (at = 3 * GIB / step * step; at; at -= step)
		store64(p + at, pattern(at, 3));
	for (i = 0; i < ARRAY_SIZE(ends); i++)
		store64(p + ends[i], pattern(ends[i], 4));
	for (at = step; at < 3 * GIB; at += step) {
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
	const __u64 size = self->tb.ram->size, page = size_of(variant->page);
	char *p = vfio_map_at(self->tb.dev, self->tb.ram, size - GIB, GIB, reserve(GIB, GIB));
	const char *dead = npu_dead();
	char expected[64];

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, trace_start("selftest"));
	/* There is no RAM: the value is of no interest. */
	ASSERT_EQ(0, npu_set("dead", ALL_ONES));
	load64(p + GIB - 8);
	ASSERT_EQ(0, npu_set("dead", dead));
	snprintf(expected, sizeof(expected), "%llx -> %lx ",
		 (unsigned long long)(self->tb.gpu->aperture + size - page),
		 (unsigned long)(p + GIB - page));
	EXPECT_EQ(1, trace_count("selftest", "vfio_pci_nvgpu_mmap_fault", expected))
		TH_LOG("no fault %s", expected);
	trace_stop("selftest");
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

/*
 * Parts of a mapping of the first WHOLE bytes: inside of a page of 2 MiB, one such page in one of
 * 1 GiB, inside of two pages, and a page of 1 GiB.
 */
#define WHOLE	(2 * GIB)

static const struct part {
	__u64 start, end;
} parts[] = {
	{ 10 * MIB + 7 * PAGE_64K, 10 * MIB + 8 * PAGE_64K },
	{ 64 * MIB, 66 * MIB },
	{ GIB - PAGE_64K, GIB + 3 * PAGE_64K },
	{ GIB, 2 * GIB },
};

/*
 * How many pages of at most @page bytes [@start, @end) of the region takes, where user addresses
 * are congruent to the offset.
 */
static __u64 pages_in(unsigned long page, __u64 start, __u64 end)
{
	static const unsigned long sizes[] = { GIB, 2 * MIB, PAGE_64K };
	__u64 count;

	for (count = 0; start < end; count++) {
		const unsigned long *size = sizes;

		while (*size > page || start % *size || end - start < *size)
			size++;
		start += *size;
	}
	return count;
}

/*
 * Pages that are only partly in the part go, and smaller ones come in their place: so many in
 * the part, and beside it.
 */
static __u64 pages_inside(unsigned long page, const struct part *part)
{
	if (part->start % page || part->end % page)
		return pages_in(page, part->start, part->end);
	return 0;
}

static __u64 pages_below(unsigned long page, const struct part *part)
{
	return pages_in(page, part->start / page * page, part->start);
}

static __u64 pages_above(unsigned long page, const struct part *part)
{
	return pages_in(page, part->end, (part->end + page - 1) / page * page);
}

/* From word to word that has a content of its own, so that any place in any page has one. */
#define STEP	(MIB + PAGE_64K + 8)

/* Of @start to @end of the region, which are at @p. */
static void fill(char *p, __u64 start, __u64 end)
{
	__u64 at;

	for (at = start; at < end; at += STEP)
		store64(p + (at - start), pattern(at, 5));
}

/* How many of them are not as they were. */
static __u64 damaged(const char *p, __u64 start, __u64 end)
{
	__u64 at, count = 0;

	for (at = start; at < end; at += STEP)
		count += load64(p + (at - start)) != pattern(at, 5);
	return count;
}

/*
 * WHOLE bytes with all pages in place and a content for each of @part and what is beside it.
 * NULL: they are not, or not with pages of @page bytes.
 */
static char *map_whole(const struct testbed *tb, unsigned long page, const struct part *part)
{
	char *p = reserve(WHOLE, GIB);

	if (p)
		p = vfio_map_at(tb->dev, tb->ram, 0, WHOLE, p);
	if (!p || !counted(WHOLE / page, touch(p, WHOLE)))
		return NULL;
	fill(p, 0, part->start);
	fill(p + part->start, part->start, part->end);
	fill(p + part->end, part->end, WHOLE);
	return p;
}

/*
 * Whether @size bytes at @p can be used for DMA, as a mapping of their own and at both ends, and
 * TCEs then have the addresses of @offset of the region: "", or what is wrong.
 */
static const char *dma_reaches(const struct testbed *tb, char *p, __u64 offset, size_t size)
{
	const __u64 first = tb->gpu->aperture + offset, last = first + size - PAGE_64K;

	if (vfio_dma_register(&tb->group, p, size))
		return "it is not registered";
	if (vfio_dma_map(&tb->group, p, 0, PAGE_64K) ||
	    vfio_dma_map(&tb->group, p + size - PAGE_64K, PAGE_64K, PAGE_64K))
		return "no TCE maps it";
	if (testbed_tves_with(tb, 0, first | TCE_READ_WRITE) <= 0 ||
	    testbed_tves_with(tb, PAGE_64K, last | TCE_READ_WRITE) <= 0)
		return "a TCE has another address";
	if (vfio_dma_unmap(&tb->group, 0, 2 * PAGE_64K))
		return "the TCEs stay";
	return vfio_dma_unregister(&tb->group, p, size) ? "the registration stays" : "";
}

/* Ordinary memory, so that the container lets anything be mapped at all. */
static int register_something(const struct testbed *tb)
{
	void *ram = anonymous(PAGE_64K);

	return ram ? vfio_dma_register(&tb->group, ram, PAGE_64K) : -ENOMEM;
}

/* What is left of @whole when the part is not there any more: content, and what DMA reaches. */
static const char *is_left(const struct testbed *tb, char *whole, const struct part *part)
{
	const char *wrong = dma_reaches(tb, whole, 0, part->start);

	if (!*wrong && part->end < WHOLE)
		wrong = dma_reaches(tb, whole + part->end, part->end, WHOLE - part->end);
	if (!*wrong && (damaged(whole, 0, part->start) ||
			damaged(whole + part->end, part->end, WHOLE)))
		wrong = "the content is another";
	return wrong;
}

/* Only what is unmapped goes; of the rest of its page, the content stays. */
TEST_F_TIMEOUT(huge, part_is_unmapped, 120)
{
	const unsigned long page = variant->page;
	const struct part *part;
	__u64 value;
	char *p;

	ASSERT_EQ(0, register_something(&self->tb));
	for (part = parts; part < parts + ARRAY_SIZE(parts); part++) {
		p = map_whole(&self->tb, page, part);
		ASSERT_NE(NULL, p);
		ASSERT_EQ(0, munmap(p + part->start, part->end - part->start));
		EXPECT_FAULTS(pages_below(page, part) + pages_above(page, part),
			      touch(p, part->start) + touch(p + part->end, WHOLE - part->end))
			TH_LOG("beside %#lx", (unsigned long)part->start);
		EXPECT_EQ(SIGSEGV, try_read64(p + part->start, &value));
		EXPECT_EQ(SIGSEGV, try_read64(p + part->end - 8, &value));
		EXPECT_STREQ("", is_left(&self->tb, p, part));
		EXPECT_EQ(part->end < WHOLE ? 2 : 1, testbed_mappings(&self->tb, NULL));
		EXPECT_NE(0, vfio_dma_map(&self->tb.group, p + part->start, 0, PAGE_64K));
		EXPECT_NE(0, vfio_dma_register(&self->tb.group, p, WHOLE));

		/* Pages of all sizes go with the memory space, and come back. */
		ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
		EXPECT_EQ(SIGBUS, try_read64(p, &value));
		EXPECT_EQ(SIGBUS, try_read64(p + part->start - 8, &value));
		EXPECT_EQ(part->end < WHOLE ? SIGBUS : SIGSEGV, try_read64(p + part->end, &value));
		ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
		EXPECT_STREQ("", is_left(&self->tb, p, part));
		ASSERT_EQ(0, munmap(p, WHOLE));
		EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));
	}
}

/* A mapping that shrinks loses its end, wherever in a page that is. */
TEST_F_TIMEOUT(huge, mapping_shrinks, 120)
{
	const unsigned long page = variant->page;
	const struct part *part;
	__u64 value;
	char *p;

	ASSERT_EQ(0, register_something(&self->tb));
	for (part = parts; part < parts + ARRAY_SIZE(parts); part++) {
		p = map_whole(&self->tb, page, part);
		ASSERT_NE(NULL, p);
		ASSERT_EQ(p, mremap(p, WHOLE, part->start, 0));
		EXPECT_FAULTS(pages_below(page, part), touch(p, part->start))
			TH_LOG("below %#lx", (unsigned long)part->start);
		EXPECT_EQ(SIGSEGV, try_read64(p + part->start, &value));
		EXPECT_EQ(SIGSEGV, try_read64(p + WHOLE - 8, &value));
		EXPECT_EQ(0ULL, damaged(p, 0, part->start));
		EXPECT_EQ(1, testbed_mappings(&self->tb, NULL));
		EXPECT_STREQ("", dma_reaches(&self->tb, p, 0, part->start));
		EXPECT_NE(0, vfio_dma_map(&self->tb.group, p + part->start, 0, PAGE_64K));
		ASSERT_EQ(0, munmap(p, part->start));
	}
}

/* A part is protected, and nothing beside it; its page is split, or not, as need be. */
TEST_F_TIMEOUT(huge, part_is_protected, 120)
{
	const unsigned long page = variant->page;
	const struct part *part;
	__u64 value;
	char *p, *q;

	for (part = parts; part < parts + ARRAY_SIZE(parts); part++) {
		const size_t size = part->end - part->start;

		p = map_whole(&self->tb, page, part);
		ASSERT_NE(NULL, p);
		q = p + part->start;
		ASSERT_EQ(0, mprotect(q, size, PROT_READ));
		EXPECT_FAULTS(pages_below(page, part) + pages_inside(page, part) +
			      pages_above(page, part), touch(p, WHOLE))
			TH_LOG("beside and in %#lx", (unsigned long)part->start);
		EXPECT_EQ(SIGSEGV, try_write64(q + 8, 91));
		EXPECT_EQ(SIGSEGV, try_write64(q + size - 16, 91));
		EXPECT_EQ(0, try_write64(q - 16, 92));
		EXPECT_EQ(part->end < WHOLE ? 0 : SIGSEGV, try_write64(q + size + 8, 93));
		EXPECT_EQ(0ULL, damaged(q, part->start, part->end));
		EXPECT_STREQ("", vma_missing_flag(q));
		EXPECT_EQ(part->end < WHOLE ? 3 : 2, testbed_mappings(&self->tb, NULL));
		EXPECT_STREQ("", is_left(&self->tb, p, part));
		EXPECT_STREQ("", dma_reaches(&self->tb, q, part->start, size));

		ASSERT_EQ(0, mprotect(q, size, PROT_NONE));
		EXPECT_EQ(SIGSEGV, try_read64(q, &value));
		EXPECT_EQ(SIGSEGV, try_read64(q + size - 8, &value));
		EXPECT_EQ(0, try_read64(q - 16, &value));
		EXPECT_EQ(92ULL, value);
		ASSERT_EQ(0, mprotect(q, size, PROT_READ | PROT_WRITE));
		EXPECT_EQ(0, try_write64(q + size - 16, 94));
		ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + part->end - 16));
		EXPECT_EQ(94ULL, value);
		EXPECT_EQ(0ULL, damaged(q, part->start, part->end));
		ASSERT_EQ(0, munmap(p, WHOLE));
		EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));
	}
}

/*
 * A part is moved: with its pages if they are in it as a whole and suit the new address, and with
 * its content in any case. What is beside it stays.
 */
TEST_F_TIMEOUT(huge, part_is_moved, 120)
{
	static const size_t shifts[] = { 0, PAGE_64K };
	const unsigned long page = variant->page;
	const struct part *part;
	unsigned int i;
	__u64 value;
	char *p, *q;

	ASSERT_EQ(0, register_something(&self->tb));
	for (i = 0; i < 2 * ARRAY_SIZE(parts); i++) {
		const size_t shift = shifts[i % ARRAY_SIZE(shifts)];
		size_t size;
		__u64 faults;

		part = parts + i / ARRAY_SIZE(shifts);
		size = part->end - part->start;
		faults = pages_inside(page, part);
		/* With the shift, all that does not move as it is comes back in small pages. */
		if (shift && page > PAGE_64K)
			faults = size / PAGE_64K;
		p = map_whole(&self->tb, page, part);
		ASSERT_NE(NULL, p);
		q = reserve(WHOLE + PAGE_64K, GIB);
		ASSERT_NE(NULL, q);
		q += part->start + shift;
		ASSERT_EQ(q, mremap(p + part->start, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, q));
		EXPECT_FAULTS(faults, touch(q, size))
			TH_LOG("%#lx, moved to %p", (unsigned long)part->start, q);
		EXPECT_FAULTS(pages_below(page, part) + pages_above(page, part),
			      touch(p, part->start) + touch(p + part->end, WHOLE - part->end))
			TH_LOG("beside %#lx", (unsigned long)part->start);
		EXPECT_EQ(SIGSEGV, try_read64(p + part->start, &value));
		EXPECT_EQ(SIGSEGV, try_read64(p + part->end - 8, &value));
		EXPECT_EQ(0ULL, damaged(q, part->start, part->end));
		EXPECT_STREQ("", is_left(&self->tb, p, part));
		EXPECT_EQ(part->end < WHOLE ? 3 : 2, testbed_mappings(&self->tb, NULL));
		EXPECT_STREQ("", dma_reaches(&self->tb, q, part->start, size));
		EXPECT_NE(0, vfio_dma_map(&self->tb.group, p + part->start, 0, PAGE_64K));
		EXPECT_EQ(0, try_write64(q + size - 16, 95));
		ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + part->end - 16));
		EXPECT_EQ(95ULL, value);

		/* And back to where it was. */
		ASSERT_EQ(p + part->start, mremap(q, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
						  p + part->start));
		EXPECT_EQ(0ULL, damaged(p + part->start, part->start, part->end));
		EXPECT_STREQ("", dma_reaches(&self->tb, p + part->start, part->start, size));
		EXPECT_STREQ("", is_left(&self->tb, p, part));
		ASSERT_EQ(0, munmap(p, WHOLE));
		EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));
	}
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
	unsigned long limit;
	unsigned long page;
};

FIXTURE_VARIANT_ADD(huge_guest, none)
{
	.limit = SMALLEST,
	.page = SMALLEST,
};

FIXTURE_VARIANT_ADD(huge_guest, below_2_mib)
{
	.limit = MIB,
	.page = SMALLEST,
};

FIXTURE_VARIANT_ADD(huge_guest, up_to_2_mib)
{
	.limit = 2 * MIB,
	.page = 2 * MIB,
};

FIXTURE_VARIANT_ADD(huge_guest, below_1_gib)
{
	.limit = 512 * MIB,
	.page = 2 * MIB,
};

FIXTURE_VARIANT_ADD(huge_guest, up_to_1_gib)
{
	.limit = GIB,
	.page = GIB,
};

FIXTURE_VARIANT_ADD(huge_guest, any)
{
	.limit = NO_LIMIT,
	.page = GIB,
};

FIXTURE_SETUP(huge_guest)
{
	ASSERT_EQ(0, load_with(variant->limit));
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
	const unsigned long size = size_of(variant->page);
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

	EXPECT_EQ(pages, guest_host_pages(GUEST_RAM, self->tb.ram->size, size));
	EXPECT_EQ(pages, guest_host_pages(GUEST_RAM, self->tb.ram->size, 0));
	EXPECT_LE(pages, faults);
	EXPECT_GE(pages + 1, faults);

	/* What the host removes, the guest loses; what it maps again, the guest has again. */
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
	EXPECT_EQ(0, guest_host_pages(GUEST_RAM, self->tb.ram->size, 0));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM, PAGE_64K, GIB / PAGE_64K));
	EXPECT_EQ(pages, guest_host_pages(GUEST_RAM, self->tb.ram->size, size));

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

/* A hole in a page of the host's is one in the guest's; what is beside it comes back. */
TEST_F_TIMEOUT(huge_guest, guest_keeps_what_is_beside_a_hole, 120)
{
	const unsigned long page = variant->page;
	const struct part *hole;
	char *p;

	for (hole = parts; hole < parts + 2; hole++) {
		const __u64 step = PAGE_64K;
		const long beside = pages_in(page, 0, hole->start) + pages_in(page, hole->end, GIB);

		p = vfio_map_at(self->tb.dev, self->tb.ram, 0, WHOLE, reserve(WHOLE, GIB));
		ASSERT_NE(NULL, p);
		ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, p, WHOLE));
		ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM, step, GIB / step + 1));
		EXPECT_EQ(GIB / page + 1, guest_host_pages(GUEST_RAM, WHOLE, 0));
		ASSERT_EQ(0, munmap(p + hole->start, hole->end - hole->start));
		EXPECT_EQ(0, guest_host_pages(GUEST_RAM + hole->start, hole->end - hole->start, 0));
		EXPECT_EQ(1, guest_host_pages(GUEST_RAM + GIB, GIB, 0));

		ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM, step, hole->start / step));
		ASSERT_EQ(0, guest_walk(&self->guest, GUEST_RAM + hole->end, step,
					(GIB - hole->end) / step));
		EXPECT_EQ(beside, guest_host_pages(GUEST_RAM, GIB, 0));
		EXPECT_GT(0, guest_walk(&self->guest, GUEST_RAM + hole->start, step, 1));
		EXPECT_EQ(1, guest_host_pages(GUEST_RAM + GIB, GIB, 0));
		ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, GUEST_RAM, p, 0));
		ASSERT_EQ(0, munmap(p, WHOLE));
	}
}

/* A guest with ordinary memory: pages of the module's are of no interest. */
FIXTURE(plain_guest)
{
	struct testbed tb;
	struct guest guest;
};

FIXTURE_SETUP(plain_guest)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, guest_create(&self->guest, self->tb.group.vm, 1));
}

FIXTURE_TEARDOWN(plain_guest)
{
	guest_destroy(&self->guest);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Each entry of the first table of a partition's tree is for 512 GiB: a second one ends here. */
#define BOUNDARY	0x10000000000UL

/* Two pages of memory, one on each side of the boundary: the guest loads from the upper one. */
static int load_above_boundary(struct guest *guest, char *p)
{
	store64(p + PAGE_64K, 1);
	return guest_walk(guest, BOUNDARY, PAGE_64K, 1);
}

/*
 * Both pages go at once. As there is nothing in the 512 GiB below the boundary, the tree has no
 * entry for these: that is to be stepped over, and no more than that.
 */
TEST_F(plain_guest, loses_what_is_above_an_absent_table)
{
	const __u64 start = BOUNDARY - PAGE_64K, size = 2 * PAGE_64K;
	const int vm = self->tb.group.vm;
	char *p = anonymous(size);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, guest_set_memory(vm, start, p, size));
	ASSERT_EQ(0, load_above_boundary(&self->guest, p));
	ASSERT_EQ(1, guest_host_pages(start, size, 0));
	ASSERT_EQ(0, madvise(p, size, MADV_DONTNEED));
	EXPECT_EQ(0, guest_host_pages(start, size, 0));

	ASSERT_EQ(0, load_above_boundary(&self->guest, p));
	ASSERT_EQ(1, guest_host_pages(start, size, 0));
	ASSERT_EQ(0, guest_set_memory(vm, start, p, 0));
	EXPECT_EQ(0, guest_host_pages(start, size, 0));

	ASSERT_EQ(0, guest_set_memory(vm, start, p, size));
	ASSERT_EQ(0, load_above_boundary(&self->guest, p));
	ASSERT_EQ(1, guest_host_pages(start, size, 0));
	ASSERT_EQ(0, munmap(p, size));
	EXPECT_EQ(0, guest_host_pages(start, size, 0));
	EXPECT_GT(0, guest_walk(&self->guest, BOUNDARY, PAGE_64K, 1));
}

TEST_HARNESS_MAIN
