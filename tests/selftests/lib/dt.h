/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The NVLink2 topology as the device tree states it, read from
 * /sys/bus/pci/devices/<BDF>/of_node and the nodes its phandles name. The driver's
 * own words (debugfs, region info) are no source here: tests compare them with this.
 */
#ifndef NVLINK2_SELFTEST_DT_H
#define NVLINK2_SELFTEST_DT_H

#include <limits.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define NPU_LINKS	6
#define DT_MAX_GPUS	6
#define DT_MAX_LINKS	NPU_LINKS
#define BDF_LEN		16

/* An NPU function, one link of a GPU. */
struct dt_bridge {
	char bdf[BDF_LEN];
	__u32 phandle;
	__u32 link_index;	/* ibm,npu-link-index of the node that ibm,nvlink names */
	__u32 speed;		/* ibm,nvlink-speed */
	__u64 tgt;		/* ibm,device-tgt-addr */
	__u64 atsd;		/* ibm,mmio-atsd[link_index] of the PHB, a physical address */
	__u64 npu_regs;		/* reg[0] of the PHB: start of the NPU's 24-bit register space */
	__u32 xscom_base;	/* ibm,xscom-base of the PHB */
	__u32 chip;		/* ibm,chip-id of the PHB */
};

struct dt_gpu {
	char bdf[BDF_LEN];
	__u64 aperture;	/* reg of the memory-region node: host physical address ... */
	__u64 aperture_size;	/* ... and size in bytes */
	__u64 tgt;
	unsigned int num_links;
	struct dt_bridge link[DT_MAX_LINKS];
};

struct dt_topology {
	unsigned int num_gpus;
	/* In order of BDF, from number NVLINK2_FIRST_GPU (0 if not set) on and around. */
	struct dt_gpu gpu[DT_MAX_GPUS];
};

/* 0, or a negative errno with @why filled in. */
int dt_read_topology(struct dt_topology *t, char *why, size_t why_size);

/*
 * Reads a property of the node whose directory is @node as it is; the length in bytes, or a
 * negative errno.
 */
ssize_t dt_prop(const char *node, const char *name, void *buf, size_t size);
/* The cell, or pair of cells, number @index of a property. */
int dt_u32(const char *node, const char *name, unsigned int index, __u32 *value);
int dt_u64(const char *node, const char *name, unsigned int index, __u64 *value);
/* The directory of a node. */
int dt_node_of_phandle(__u32 phandle, char *node, size_t size);
int dt_node_of_pci(const char *bdf, char node[PATH_MAX]);

/* Number of the IOMMU group of a PCI function, or a negative errno. */
int pci_iommu_group(const char *bdf);
/* Start and end (inclusive) of PCI resource @index from sysfs. */
int pci_resource(const char *bdf, unsigned int index, __u64 *start, __u64 *end);

#endif
