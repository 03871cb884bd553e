// SPDX-License-Identifier: GPL-2.0
/*
 * What GPUs reach by bus addresses, on PCIe and on each NVLink: the guest's memory, which the
 * guest's kernel has mapped into the DMA window of the virtual PHB for another device.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

#define LIMIT	300

FIXTURE(dma)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
	__u64 *page;
	/* The page's guest real address, and where devices see it. */
	__u64 gpa;
	__u64 bus;
};

FIXTURE_SETUP(dma)
{
	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
	ASSERT_EQ(0, nvlink_dma_base(&self->nv, &self->bus))
		TH_LOG("the guest has no DMA window over all of its memory");
	self->page = anonymous(PAGE_64K);
	ASSERT_NE(NULL, self->page);
	*self->page = 0;
	ASSERT_EQ(0, physical_address(self->page, &self->gpa));
	self->bus += self->gpa;
}

FIXTURE_TEARDOWN(dma)
{
	munmap(self->page, PAGE_64K);
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

#define WORDS	(PAGE_64K / sizeof(__u64))

/* The GPU reads the page and writes it. Returns what went wrong, or "". */
static const char *reaches(struct engine *e, __u32 path, __u64 bus, __u64 *page, __u64 seed)
{
	static __u64 copy[WORDS];
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		page[i] = pattern(i, seed);
	if (engine_read(e, path, bus, copy, PAGE_64K))
		return "reading faults";
	for (i = 0; i < WORDS; i++) {
		if (copy[i] != pattern(i, seed))
			return "something else is read";
		copy[i] = pattern(i, seed + 1);
	}
	if (engine_write(e, path, bus, copy, PAGE_64K))
		return "writing faults";
	for (i = 0; i < WORDS; i++) {
		if (load64(&page[i]) != pattern(i, seed + 1))
			return "something else is written";
	}
	return "";
}

TEST_F_TIMEOUT(dma, memory_of_the_guest, LIMIT)
{
	unsigned int i;

	for (i = 0; i < self->nv.num_gpus; i++) {
		struct engine *e = &self->engine[i];
		const char *why = reaches(e, V100_ENGINE_PATH_PCI, self->bus, self->page, i);

		EXPECT_EQ('\0', *why)
			TH_LOG("%s by PCIe: %s", self->nv.gpu[i].bdf, why);
		for (e->link = 0; e->link < self->nv.gpu[i].num_links; e->link++) {
			why = reaches(e, V100_ENGINE_PATH_TCE, self->bus, self->page, i + 100);
			EXPECT_EQ('\0', *why)
				TH_LOG("%s by link %u: %s", self->nv.gpu[i].bdf, e->link, why);
		}
	}
}

/*
 * Neither what is behind the end of the guest's memory nor an address that is not in the window.
 * What is refused on a link is guest_refused's.
 */
TEST_F_TIMEOUT(dma, nothing_else, LIMIT)
{
	const __u64 pages = sysconf(_SC_PHYS_PAGES) + 4096;
	const __u64 end = self->bus - self->gpa + pages * PAGE_64K;
	unsigned int i;
	__u64 value;

	*self->page = pattern(0, 1);
	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct engine *e = &self->engine[i];

		EXPECT_EQ(V100_ENGINE_CAUSE_PCI,
			  engine_read64(e, V100_ENGINE_PATH_PCI, self->gpa, &value));
		EXPECT_EQ(V100_ENGINE_CAUSE_PCI,
			  engine_write64(e, V100_ENGINE_PATH_PCI, self->gpa, 0));
		EXPECT_EQ(V100_ENGINE_CAUSE_PCI,
			  engine_read64(e, V100_ENGINE_PATH_PCI, end, &value));
	}
	EXPECT_EQ(pattern(0, 1), load64(self->page));
}

TEST_HARNESS_MAIN
