// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys.h"
#include "vfio.h"

int vfio_group_replace_window(struct vfio_group *g, __u32 page_shift)
{
	struct vfio_iommu_spapr_tce_remove remove = {
		.argsz = sizeof(remove), .start_addr = g->window_start,
	};
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create),
		.page_shift = page_shift,
		.window_size = 1ULL << 30,
		.levels = 1,
	};

	if (ioctl(g->container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove))
		return -errno;
	if (ioctl(g->container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create))
		return -errno;
	g->window_start = create.start_addr;
	g->window_size = create.window_size;
	g->page_shift = create.page_shift;
	return 0;
}

static int first_window(struct vfio_group *g)
{
	struct vfio_iommu_spapr_tce_info info = { .argsz = sizeof(info) };

	if (ioctl(g->container, VFIO_IOMMU_SPAPR_TCE_GET_INFO, &info))
		return -errno;
	g->window_start = info.dma32_window_start;
	/* With larger pages it could map no system memory but huge pages. */
	return vfio_group_replace_window(g, __builtin_ctzl(host_page()));
}

int vfio_group_set_table(const struct vfio_group *g)
{
	struct kvm_vfio_spapr_tce table = { .groupfd = g->group, .tablefd = g->kvm_table };
	struct kvm_device_attr attr = {
		.group = KVM_DEV_VFIO_GROUP,
		.attr = KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE,
		.addr = (uintptr_t)&table,
	};

	return ioctl(g->kvm_vfio, KVM_SET_DEVICE_ATTR, &attr) ? -errno : 0;
}

int vfio_group_make_vm(struct vfio_group *g)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_VFIO };
	struct kvm_device_attr attr = { .group = KVM_DEV_VFIO_GROUP };

	g->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (g->kvm < 0)
		return -errno;
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, KVM_VM_PPC_HV);
	if (g->vm < 0)
		return -errno;
	if (ioctl(g->vm, KVM_CREATE_DEVICE, &device))
		return -errno;
	g->kvm_vfio = device.fd;

	attr.attr = KVM_DEV_VFIO_GROUP_ADD;
	attr.addr = (uintptr_t)&g->group;
	return ioctl(g->kvm_vfio, KVM_SET_DEVICE_ATTR, &attr) ? -errno : 0;
}

int vfio_group_add_vm(struct vfio_group *g)
{
	struct kvm_create_spapr_tce_64 tce = {
		.liobn = VFIO_GROUP_LIOBN,
		.page_shift = g->page_shift,
		.offset = g->window_start >> g->page_shift,
		.size = g->window_size >> g->page_shift,
	};
	int ret = vfio_group_make_vm(g);

	if (ret)
		return ret;
	/* Left out, the kernel warns when the group is dropped. */
	g->kvm_table = ioctl(g->vm, KVM_CREATE_SPAPR_TCE_64, &tce);
	if (g->kvm_table < 0)
		return -errno;
	return vfio_group_set_table(g);
}

static int group_attach(struct vfio_group *g, bool kvm)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[32];
	int ret;

	g->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (g->container < 0)
		return -errno;
	if (ioctl(g->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION)
		return -EPROTO;
	snprintf(path, sizeof(path), "/dev/vfio/%d", g->id);
	g->group = open(path, O_RDWR | O_CLOEXEC);
	if (g->group < 0)
		return -errno;
	if (ioctl(g->group, VFIO_GROUP_GET_STATUS, &status))
		return -errno;
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return -EPERM;
	if (ioctl(g->group, VFIO_GROUP_SET_CONTAINER, &g->container))
		return -errno;
	if (ioctl(g->container, VFIO_SET_IOMMU, VFIO_SPAPR_TCE_v2_IOMMU))
		return -errno;
	ret = first_window(g);
	if (!ret && kvm)
		ret = vfio_group_add_vm(g);
	return ret;
}

int vfio_group_open(struct vfio_group *g, int id, bool kvm)
{
	int ret;

	*g = (struct vfio_group){
		.id = id,
		.container = -1,
		.group = -1,
		.kvm = -1,
		.vm = -1,
		.kvm_vfio = -1,
		.kvm_table = -1,
	};
	ret = group_attach(g, kvm);
	if (ret)
		vfio_group_close(g);
	return ret;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vfio_group_drop_vm(struct vfio_group *g)
{
	close_fd(&g->kvm_table);
	close_fd(&g->kvm_vfio);
	close_fd(&g->vm);
	close_fd(&g->kvm);
}

void vfio_group_close(struct vfio_group *g)
{
	vfio_group_drop_vm(g);
	close_fd(&g->group);
	close_fd(&g->container);
}

int vfio_device_open(const struct vfio_group *g, const char *bdf)
{
	int dev = ioctl(g->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	int ret;

	if (dev < 0)
		return -errno;
	ret = vfio_set_memory(dev, true);
	if (ret) {
		close(dev);
		return ret;
	}
	return dev;
}

int vfio_region(int dev, __u32 index, struct vfio_region_info **info)
{
	__u32 argsz = sizeof(**info);

	for (;;) {
		*info = calloc(1, argsz);
		if (!*info)
			return -ENOMEM;
		(*info)->argsz = argsz;
		(*info)->index = index;
		if (ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, *info)) {
			int ret = -errno;

			free(*info);
			*info = NULL;
			return ret;
		}
		if ((*info)->argsz <= argsz)
			return 0;
		argsz = (*info)->argsz;
		free(*info);
	}
}

int vfio_find_region(int dev, __u32 type, __u32 subtype, struct vfio_region_info **info)
{
	struct vfio_device_info device = { .argsz = sizeof(device) };
	__u32 index;
	int ret;

	if (ioctl(dev, VFIO_DEVICE_GET_INFO, &device))
		return -errno;
	for (index = REGION_FIRST_OWN; index < device.num_regions; index++) {
		const struct vfio_region_info_cap_type *cap;

		ret = vfio_region(dev, index, info);
		if (ret)
			return ret;
		cap = vfio_cap(*info, VFIO_REGION_INFO_CAP_TYPE);
		if (cap && cap->type == type && cap->subtype == subtype)
			return 0;
		free(*info);
	}
	*info = NULL;
	return -ENOENT;
}

int vfio_find_gpu_ram(int dev, struct vfio_region_info **info)
{
	return vfio_find_region(dev, REGION_TYPE_GPU, VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM, info);
}

int vfio_find_atsd(int dev, struct vfio_region_info **info)
{
	return vfio_find_region(dev, REGION_TYPE_NPU, VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD, info);
}

const void *vfio_cap(const struct vfio_region_info *info, __u16 id)
{
	__u32 offset = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;
	const struct vfio_info_cap_header *cap;

	while (offset >= sizeof(*info) && offset + sizeof(*cap) <= info->argsz) {
		cap = (const void *)((const char *)info + offset);
		if (cap->id == id)
			return cap;
		offset = cap->next;
	}
	return NULL;
}

static __u64 config_offset(unsigned int reg)
{
	return REGION_OFFSET(VFIO_PCI_CONFIG_REGION_INDEX) + reg;
}

int vfio_config_read16(int dev, unsigned int reg, __u16 *value)
{
	ssize_t n = pread(dev, value, sizeof(*value), config_offset(reg));

	if (n < 0)
		return -errno;
	return n == sizeof(*value) ? 0 : -EIO;
}

int vfio_config_write16(int dev, unsigned int reg, __u16 value)
{
	ssize_t n = pwrite(dev, &value, sizeof(value), config_offset(reg));

	if (n < 0)
		return -errno;
	return n == sizeof(value) ? 0 : -EIO;
}

int vfio_set_memory(int dev, bool on)
{
	__u16 command;
	int ret = vfio_config_read16(dev, PCI_COMMAND, &command);

	if (ret)
		return ret;
	if (on)
		command |= PCI_COMMAND_MEMORY;
	else
		command &= ~PCI_COMMAND_MEMORY;
	return vfio_config_write16(dev, PCI_COMMAND, command);
}

int vfio_find_pci_cap(int dev, __u8 id)
{
	__u16 header;
	__u8 pos;
	int guard = 48, ret;

	if (pread(dev, &pos, 1, config_offset(PCI_CAPABILITY_LIST)) != 1)
		return -EIO;
	for (; pos && guard; guard--) {
		ret = vfio_config_read16(dev, pos, &header);
		if (ret)
			return ret;
		if ((header & 0xff) == id)
			return pos;
		pos = header >> 8;
	}
	return -ENOENT;
}

static int dma_register(const struct vfio_group *g, unsigned long request, const void *va,
			__u64 size)
{
	struct vfio_iommu_spapr_register_memory reg = {
		.argsz = sizeof(reg), .vaddr = (uintptr_t)va, .size = size,
	};

	return ioctl(g->container, request, &reg) ? -errno : 0;
}

int vfio_dma_register(const struct vfio_group *g, const void *va, __u64 size)
{
	return dma_register(g, VFIO_IOMMU_SPAPR_REGISTER_MEMORY, va, size);
}

int vfio_dma_unregister(const struct vfio_group *g, const void *va, __u64 size)
{
	return dma_register(g, VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, va, size);
}

int vfio_dma_map(const struct vfio_group *g, const void *va, __u64 iova, __u64 size)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)va,
		.iova = iova,
		.size = size,
	};

	return ioctl(g->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

int vfio_dma_unmap(const struct vfio_group *g, __u64 iova, __u64 size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = size,
	};

	return ioctl(g->container, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno : 0;
}

void *vfio_map_at(int dev, const struct vfio_region_info *info, __u64 offset, size_t size, void *at)
{
	void *p = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), dev,
		       info->offset + offset);

	return p == MAP_FAILED ? NULL : p;
}

void *vfio_map(int dev, const struct vfio_region_info *info, __u64 offset, size_t size)
{
	return vfio_map_at(dev, info, offset, size, NULL);
}
