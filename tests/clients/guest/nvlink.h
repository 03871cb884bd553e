/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What QEMU's device tree tells a guest of its GPUs and NVLinks, and where the guest reaches
 * them. guest_tree.c checks the tree; here it is believed.
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_GUEST_NVLINK_H
#define NVLINK2_GUEST_NVLINK_H

#include <limits.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "dt.h"
#include "engine.h"

/* QEMU's limits for one virtual PHB. */
#define NVLINK_MAX_GPUS		6
#define NVLINK_MAX_LINKS	3

struct nvlink_gpu {
	char bdf[BDF_LEN];
	char node[PATH_MAX];
	/* Directory of the memory node that the bridges name. */
	char memory[PATH_MAX];
	/* Guest real address and bytes of the aperture. */
	__u64 ram;
	__u64 ram_size;
	unsigned int num_links;
	struct {
		char bdf[BDF_LEN];
		char node[PATH_MAX];
	} link[NVLINK_MAX_LINKS];
};

struct nvlink {
	unsigned int num_gpus;
	/* In order of their BDFs. */
	struct nvlink_gpu gpu[NVLINK_MAX_GPUS];
	/* Directory of the virtual PHB's node. */
	char phb[PATH_MAX];
};

int nvlink_read(struct nvlink *nv);

/* @size bytes of guest real address space that is no memory of the guest kernel's, or NULL. */
void *nvlink_map(__u64 address, size_t size);
/* @size bytes at @offset of BAR1, a GPU's own view of the start of its RAM, or NULL. */
void *nvlink_map_bar1(const struct nvlink_gpu *gpu, __u64 offset, size_t size);

/*
 * Attaches an engine to each GPU, which trains them; the engines of all or of none are attached.
 */
int nvlink_attach(const struct nvlink *nv, struct engine *engines);
/*
 * Undoes it. False if a processor touched RAM of a GPU while that did not answer, since the host
 * was switched on: no guest may.
 */
bool nvlink_detach(const struct nvlink *nv, struct engine *engines);

/* The bus address at which devices see guest real address 0, by the window over all memory. */
int nvlink_dma_base(const struct nvlink *nv, __u64 *base);

/*
 * What to launch: translations of one process, and of all of the guest's, as it may be read in two
 * ways: IS of tlbie, or "all addresses" of no process in particular.
 */
#define ATSD_PID(p)	(0x000c000000000000ULL | (__u64)(p) << 25)
#define ATSD_LPAR	0x0014000000000000ULL
#define ATSD_ALL	0x0008000000000000ULL

/* Number @number of the virtual PHB's ATSD registers: those of each GPU's links, GPU by GPU. */
void *nvlink_map_atsd(const struct nvlink *nv, unsigned int number);
/* Writes the LAUNCH register and waits, and then twice more for a flush, which it takes. */
void nvlink_launch(void *atsd, __u64 what);

/*
 * Has all GPUs forget what they know of addresses of processes. They do not learn by themselves
 * that a process is gone, or that it uses an address for something else.
 */
int nvlink_forget(const struct nvlink *nv);

/*
 * The identifier of the process that calls, as the GPU behind @e must say it (PASID): the only one
 * of which the GPU reads at the address of a value of this process what it is.
 */
int nvlink_own_pasid(const struct nvlink *nv, struct engine *e, __u32 *pasid);

#endif
