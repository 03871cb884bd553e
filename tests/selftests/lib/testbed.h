/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a test starts from: module loaded, every GPU and bridge of the device tree
 * bound to it, one GPU (and what belongs to it) open.
 */
#ifndef NVLINK2_SELFTEST_TESTBED_H
#define NVLINK2_SELFTEST_TESTBED_H

#include <stdbool.h>
#include <sys/types.h>

#include "dt.h"
#include "hardware.h"
#include "model.h"
#include "vfio.h"

/*
 * Seconds of a test that has no limit of its own: an open of a GPU takes five of them, so does a
 * close. (The headers of the harness come before this one.)
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 90

struct testbed {
	struct dt_topology topo;
	const struct dt_gpu *gpu;
	struct vfio_group group;
	/*
	 * The GPU's device descriptor, and its GPU RAM region. Its links are trained, but on
	 * hardware, where there is no model either.
	 */
	int dev;
	struct model model;
	struct vfio_region_info *ram;
	/* Accesses of the GPU's RAM that were lost before it was opened. */
	__u32 lost_before;
	/* Links that were open when their GPU was reset, before. */
	long torn_before;
	/* Position in the kernel log at the start. */
	int kmsg;
	/* What went wrong, for a person. */
	char why[512];
};

/* Topology, module and bindings only; nothing is open. 0 or a negative errno with @why set. */
int testbed_bind(struct testbed *tb);
/* The above, then opens GPU number @gpu, with or without a KVM in its group. */
int testbed_open(struct testbed *tb, unsigned int gpu, bool kvm);
/*
 * Closes everything. Returns the number of kernel log lines since the start that report a
 * broken kernel, and of links that were open when their GPU was reset, which is an error of the
 * hardware, whoever reset it.
 */
int testbed_close(struct testbed *tb);

/*
 * Has a child, which gives up the descriptors of @tb that it inherits, unbind @bdf. Returns the
 * child once it is in the kernel's unbind, where it has to wait; -ECHILD if it ended without, and
 * -ETIMEDOUT if it never got there. It ends with status 0 when the driver has gone.
 */
pid_t testbed_unbind_in_child(struct testbed *tb, const char *bdf);

/*
 * Lines of the driver's table of DMA registrations of the GPU's RAM that hold the address @p,
 * or all lines (NULL). -1 if there is no table.
 */
int testbed_mappings(const struct testbed *tb, const void *p);
/*
 * How many of the NPU's TVEs translate @iova to @tce. -EBADMSG if one that is in use says
 * something else.
 */
int testbed_tves_with(const struct testbed *tb, __u64 iova, __u64 tce);

#endif
