// SPDX-License-Identifier: GPL-2.0
/*
 * Names each ATSD register of the guest, without launching anything: writes a number to its AVA,
 * which the host finds there, and prints "atsd TAB register TAB number". It needs nothing of the
 * model: scripts/trial runs it on hardware.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "nvlink.h"
#include "sys.h"

#define ATSD_AVA	0x8
/* The page of register 0; the others' follow. A guest before has left others in the registers. */
#define PAGE(when)	(0x00c0000000010000ULL | ((when) & 0xffffULL) << 24)

int main(void)
{
	const __u64 first = PAGE(time(NULL));
	unsigned int i, links = 0;
	struct nvlink nv;
	int ret = nvlink_read(&nv);

	for (i = 0; !ret && i < nv.num_gpus; i++)
		links += nv.gpu[i].num_links;
	for (i = 0; i < links; i++) {
		const __u64 page = first + i * PAGE_64K;
		char *p = nvlink_map_atsd(&nv, i);

		if (!p)
			return EXIT_FAILURE;
		store64(p + ATSD_AVA, htobe64(page));
		/* The same word as it is read back. */
		printf("atsd\t%u\t%#llx\n", i,
		       (unsigned long long)be64toh(load64(p + ATSD_AVA)));
		munmap(p, PAGE_64K);
	}
	return links ? EXIT_SUCCESS : EXIT_FAILURE;
}
