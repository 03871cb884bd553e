// SPDX-License-Identifier: GPL-2.0
/*
 * What GPUs reach by addresses of the guest's processes, and how the guest has them forget.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

#define LIMIT	300
#define ATS	V100_ENGINE_PATH_ATS

FIXTURE(ats)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
};

FIXTURE_SETUP(ats)
{
	unsigned int i;
	__u32 pasid;

	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
	for (i = 0; i < self->nv.num_gpus; i++) {
		ASSERT_EQ(0, nvlink_own_pasid(&self->nv, &self->engine[i], &pasid));
		self->engine[i].pasid = pasid;
		EXPECT_EQ(self->engine[0].pasid, pasid);
	}
}

FIXTURE_TEARDOWN(ats)
{
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

static __u64 ea(const void *p)
{
	return (uintptr_t)p;
}

/* The word at @p as the GPU sees it; all ones after a fault. */
static __u64 seen(const struct engine *e, const void *p)
{
	__u64 value;

	engine_read64(e, ATS, ea(p), &value);
	return value;
}

TEST_F_TIMEOUT(ats, memory_of_the_process, LIMIT)
{
	__u64 *pages = anonymous(4 * PAGE_64K);
	unsigned int i, n;

	ASSERT_NE(NULL, pages);
	for (i = 0; i < self->nv.num_gpus; i++) {
		struct engine *e = &self->engine[i];

		for (n = 0; n < 4; n++) {
			__u64 *word = pages + n * PAGE_64K / sizeof(*pages) + n;

			e->link = n % self->nv.gpu[i].num_links;
			store64(word, pattern(n, i));
			EXPECT_EQ(pattern(n, i), seen(e, word));
			EXPECT_EQ(0, engine_write64(e, ATS, ea(word), pattern(n, i + 1)));
			EXPECT_EQ(pattern(n, i + 1), load64(word));
		}
	}
	munmap(pages, 4 * PAGE_64K);
}

TEST_F_TIMEOUT(ats, permissions_of_the_process, LIMIT)
{
	__u64 *page = anonymous(PAGE_64K), *hole = anonymous(PAGE_64K), value;
	unsigned int i;

	ASSERT_NE(NULL, page);
	*page = pattern(0, 1);
	*hole = 0;
	ASSERT_EQ(0, mprotect(page, PAGE_64K, PROT_READ));
	ASSERT_EQ(0, munmap(hole, PAGE_64K));
	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct engine *e = &self->engine[i];

		EXPECT_EQ(pattern(0, 1), seen(e, page));
		EXPECT_EQ(V100_ENGINE_CAUSE_PERMISSION, engine_write64(e, ATS, ea(page), 0));
		EXPECT_EQ(V100_ENGINE_CAUSE_RADIX, engine_read64(e, ATS, ea(hole), &value));
		/* The kernel's own addresses. */
		EXPECT_NE(0, engine_read64(e, ATS, 0xc000000000000000, &value));
	}
	EXPECT_EQ(pattern(0, 1), *page);
	munmap(page, PAGE_64K);
}

/* Puts the page at @from where the one at @to is, which moves to @away. */
static int exchange(void *away, void *to, void *from)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	if (mremap(to, PAGE_64K, PAGE_64K, flags, away) == MAP_FAILED ||
	    mremap(from, PAGE_64K, PAGE_64K, flags, to) == MAP_FAILED)
		return -errno;
	return 0;
}

/* Three pages, of which the GPU takes the first for what it was before. */
struct stale {
	__u64 *page, *new, *away;
};

static void stale_unmap(struct stale *s)
{
	munmap(s->page, PAGE_64K);
	munmap(s->away, PAGE_64K);
}

/* 0; -EAGAIN if a shootdown of somebody else's came in between; or another errno. */
static int stale_map(struct stale *s, const struct engine *e)
{
	const __u32 shootdowns = engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS);
	unsigned long first, last;
	int ret;

	s->page = anonymous(PAGE_64K);
	s->new = anonymous(PAGE_64K);
	s->away = anonymous(PAGE_64K);
	*s->page = 1;
	*s->new = 2;
	first = seen(e, s->page);
	ret = exchange(s->away, s->page, s->new);
	if (ret)
		return ret;
	last = seen(e, s->page);
	/* The process has the new page, and nothing has told the GPU. */
	if (*s->page == 2 && first == 1 && last == 1)
		return 0;
	ksft_print_msg("process: %#lx, GPU: %#lx, then %#lx, shootdowns: %u, then %u\n",
		       (unsigned long)*s->page, first, last, shootdowns,
		       engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS));
	stale_unmap(s);
	return engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS) == shootdowns ? -EFAULT : -EAGAIN;
}

/*
 * The host shoots all of the machine down when any memory of QEMU's process changes: that must not
 * be so each time.
 */
#define ATTEMPTS	20

TEST_F_TIMEOUT(ats, atsd_launch_removes_stale_translations, LIMIT)
{
	const __u64 what[] = { ATSD_PID(self->engine[0].pasid), ATSD_LPAR };
	unsigned int i, j, k, attempt, number = 0;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct engine *e = &self->engine[i];

		for (j = 0; j < self->nv.gpu[i].num_links; j++, number++) {
			void *atsd = nvlink_map_atsd(&self->nv, number);

			ASSERT_NE(NULL, atsd);
			for (k = 0; k < ARRAY_SIZE(what); k++) {
				int ret = -EAGAIN;
				struct stale s;
				__u32 before;

				for (attempt = 0; ret == -EAGAIN && attempt < ATTEMPTS; attempt++) {
					/* It still knows addresses of the last try. */
					ASSERT_EQ(0, nvlink_forget(&self->nv));
					ret = stale_map(&s, e);
				}
				ASSERT_EQ(0, ret);
				before = engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS);
				nvlink_launch(atsd, what[k]);
				EXPECT_EQ(2, seen(e, s.page));
				EXPECT_LT(before, engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS));
				stale_unmap(&s);
			}
			munmap(atsd, PAGE_64K);
		}
	}
}

TEST_HARNESS_MAIN
