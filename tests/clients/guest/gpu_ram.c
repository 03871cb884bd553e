// SPDX-License-Identifier: GPL-2.0
/*
 * Loads and stores of the guest's processor in the RAM of its first GPU:
 *
 *   gpu_ram train                 trains the links, and leaves them so
 *   gpu_ram read OFFSET           prints the word there, 16 hexadecimal digits
 *   gpu_ram write OFFSET VALUE    stores it
 *
 * OFFSET is in the RAM, a multiple of 8. The links must be trained for reading and writing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvlink.h"
#include "sys.h"

static int train(const struct nvlink *nv)
{
	struct engine engine;
	int ret = engine_attach_host(&engine, nv->gpu[0].bdf, true);

	if (!ret)
		engine_detach(&engine);
	return ret;
}

static int access_word(const struct nvlink *nv, __u64 offset, const char *value)
{
	char *page = nvlink_map(nv->gpu[0].ram + offset / PAGE_64K * PAGE_64K, PAGE_64K);

	if (!page)
		return -errno;
	if (value)
		store64(page + offset % PAGE_64K, strtoull(value, NULL, 0));
	else
		printf("%016lx\n", load64(page + offset % PAGE_64K));
	return 0;
}

int main(int argc, char **argv)
{
	static struct nvlink nv;
	int ret = nvlink_read(&nv);

	if (ret)
		;
	else if (argc == 2 && !strcmp(argv[1], "train"))
		ret = train(&nv);
	else if (argc == 3 && !strcmp(argv[1], "read"))
		ret = access_word(&nv, strtoull(argv[2], NULL, 0), NULL);
	else if (argc == 4 && !strcmp(argv[1], "write"))
		ret = access_word(&nv, strtoull(argv[2], NULL, 0), argv[3]);
	else
		ret = -EINVAL;
	if (ret)
		fprintf(stderr, "gpu_ram: %s\n", strerror(-ret));
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
