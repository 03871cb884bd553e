/* SPDX-License-Identifier: GPL-2.0 */
/*
 * GPU RAM as memory of the guest's kernel, added and put online through sysfs, as the vendor's
 * driver and its daemon do after training.
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_GUEST_NUMA_H
#define NVLINK2_GUEST_NUMA_H

#include <linux/types.h>
#include <stddef.h>

#include "nvlink.h"

#define NUMA_MEMORY	"/sys/devices/system/memory"

/* Bytes that are added and put online at once. */
int numa_block_size(__u64 *size);
/* The node that the device tree gives the GPU's RAM. */
int numa_node(const struct nvlink_gpu *gpu, __u32 *node);
/* Adds the block at @start, a guest real address, and puts it online; @block is its directory. */
int numa_online(__u64 start, char *block, size_t size);
int numa_offline(const char *block);
/* @size bytes of memory of NUMA node @node, or NULL with errno set. */
__u64 *numa_memory(__u32 node, size_t size);

#endif
