/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How much memory the kernel has in use: what a load test compares before and after.
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_COUNTS_H
#define NVLINK2_SELFTEST_COUNTS_H

#define COUNTS_CACHES	512

struct counts {
	/* Pages that nobody has, the processors' own lists included. */
	long free_pages;
	unsigned int pages_grew;
	unsigned int num_caches;
	struct {
		char name[64];
		/* Objects in use. */
		long objects;
		/* How many times in a row counts_grown() saw it grow. */
		unsigned int grew;
	} cache[COUNTS_CACHES];
};

/*
 * Counts after all that is merely kept for later was given back: page cache, free objects of
 * slabs, and what waits for a grace period of RCU. The lowest of several readings, as of each
 * there may be some that were made ready for the next allocation meanwhile.
 */
int counts_take(struct counts *c);
/*
 * Prints each slab cache that has at least @objects objects more than @before, and the pages if
 * at least @pages are missing. Returns in how many calls, one after the other, the same of them has
 * grown, 0 if nothing grew: give the @after of one call as the @before of the next.
 */
unsigned int counts_grown(const struct counts *before, struct counts *after, long objects,
			  long pages);

#endif
