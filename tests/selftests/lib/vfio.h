/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VFIO user for SPAPR TCE v2 groups, in the order in which QEMU does it: container,
 * group, DMA window, KVM, and only then devices.
 *
 * Functions that return int give 0 (or a file descriptor) or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_VFIO_H
#define NVLINK2_SELFTEST_VFIO_H

#include <linux/types.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>

#define REGION_TYPE_GPU		(VFIO_REGION_TYPE_PCI_VENDOR_TYPE | 0x10de)
#define REGION_TYPE_NPU		(VFIO_REGION_TYPE_PCI_VENDOR_TYPE | 0x1014)

/* Index 9 is the first that vfio-pci-core leaves to a variant driver. */
#define REGION_FIRST_OWN	VFIO_PCI_NUM_REGIONS
#define REGION_OFFSET(index)	((__u64)(index) << 40)

/* By which the guest of a group names its window */
#define VFIO_GROUP_LIOBN	0x80000000ULL

struct vfio_group {
	int id;
	int container;
	int group;
	/* -1 without KVM */
	int kvm;
	int vm;
	int kvm_vfio;
	int kvm_table;
	/* The DMA window: bus address of its start, bytes, and page size as a shift. */
	__u64 window_start;
	__u64 window_size;
	__u32 page_shift;
};

/*
 * Opens IOMMU group @id with one window of pages as large as the kernel's. With @kvm, a new VM is
 * added to the group before any device can be opened, so that every device of it has a KVM.
 */
int vfio_group_open(struct vfio_group *g, int id, bool kvm);
void vfio_group_close(struct vfio_group *g);
/* Has one with pages of 1 << @page_shift in place of the window. */
int vfio_group_replace_window(struct vfio_group *g, __u32 page_shift);
/* Makes a VM and adds the group, which has none, to it, with its window ... */
int vfio_group_add_vm(struct vfio_group *g);
/* ... or without. */
int vfio_group_make_vm(struct vfio_group *g);
/* Closes all descriptors of it. */
void vfio_group_drop_vm(struct vfio_group *g);
/* Gives the VM the group's window, once more: vfio_group_add_vm() did. */
int vfio_group_set_table(const struct vfio_group *g);
/* The descriptor of a device of the group. Memory space is enabled. */
int vfio_device_open(const struct vfio_group *g, const char *bdf);

/* Region info with all its capabilities, to be freed by the caller. */
int vfio_region(int dev, __u32 index, struct vfio_region_info **info);
/* The first region beyond vfio-pci-core's own with this type; -ENOENT if there is none. */
int vfio_find_region(int dev, __u32 type, __u32 subtype, struct vfio_region_info **info);
int vfio_find_gpu_ram(int dev, struct vfio_region_info **info);
int vfio_find_atsd(int dev, struct vfio_region_info **info);
/* The capability with this id, or NULL. */
const void *vfio_cap(const struct vfio_region_info *info, __u16 id);

int vfio_config_read16(int dev, unsigned int reg, __u16 *value);
int vfio_config_write16(int dev, unsigned int reg, __u16 value);
/* The memory space bit of the command register, which VFIO emulates. */
int vfio_set_memory(int dev, bool on);
/* Offset of a PCI capability in configuration space, -ENOENT if absent. */
int vfio_find_pci_cap(int dev, __u8 id);

int vfio_dma_register(const struct vfio_group *g, const void *va, __u64 size);
int vfio_dma_unregister(const struct vfio_group *g, const void *va, __u64 size);
int vfio_dma_map(const struct vfio_group *g, const void *va, __u64 iova, __u64 size);
int vfio_dma_unmap(const struct vfio_group *g, __u64 iova, __u64 size);

/*
 * mmap() of @size bytes at @offset of a region, shared, read and write. NULL on failure with
 * errno set.
 */
void *vfio_map(int dev, const struct vfio_region_info *info, __u64 offset, size_t size);
/* At this address, in place of what is there; NULL: anywhere. */
void *vfio_map_at(int dev, const struct vfio_region_info *info, __u64 offset, size_t size,
		  void *at);

#endif
