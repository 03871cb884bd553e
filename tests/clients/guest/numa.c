// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numa.h"
#include "sys.h"

int numa_block_size(__u64 *size)
{
	char text[32];
	ssize_t len = sys_read(NUMA_MEMORY "/block_size_bytes", text, sizeof(text));

	if (len < 0)
		return len;
	*size = strtoull(text, NULL, 16);
	return *size ? 0 : -EINVAL;
}

int numa_node(const struct nvlink_gpu *gpu, __u32 *node)
{
	__u32 levels;

	/* Number of levels, and a level each; the last names the node. */
	return dt_u32(gpu->memory, "ibm,associativity", 0, &levels) ?:
	       dt_u32(gpu->memory, "ibm,associativity", levels, node);
}

static int add(__u64 start)
{
	char text[32];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)start);
	return sys_write(NUMA_MEMORY "/probe", text);
}

int numa_online(__u64 start, char *block, size_t size)
{
	__u64 block_size = 0;
	char path[128];
	int ret = numa_block_size(&block_size);

	/*
	 * Linux 5.10 looks at what is beside a block of 16 MiB that comes online, whether there is
	 * anything or not (unset_migratetype_isolate()), and oopses where there is not. The
	 * vendor's daemon adds everything before it puts anything online.
	 */
	ret = ret ?: add(start);
	ret = ret ?: add(start ^ block_size);
	if (ret)
		return ret;
	snprintf(block, size, NUMA_MEMORY "/memory%llu", (unsigned long long)(start / block_size));
	snprintf(path, sizeof(path), "%s/state", block);
	return sys_write(path, "online_movable");
}

int numa_offline(const char *block)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/state", block);
	return sys_write(path, "offline");
}

__u64 *numa_memory(__u32 node, size_t size)
{
	const unsigned long mask = 1UL << node, bits = 8 * sizeof(mask);
	__u64 *p = anonymous(size);
	unsigned int tries;

	if (!p)
		return NULL;
	/* The node that just got memory is allowed to processes a moment later. */
	for (tries = 0; tries < 300; tries++) {
		if (!syscall(SYS_mbind, p, size, MPOL_BIND, &mask, bits, 0))
			return p;
		usleep(100000);
	}
	munmap(p, size);
	return NULL;
}
