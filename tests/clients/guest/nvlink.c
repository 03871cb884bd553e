// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nvlink.h"
#include "sys.h"

#define PCI_DEVICES	"/sys/bus/pci/devices/"

#define ATSD_LAUNCH	0x0
#define ATSD_STATUS	0x10

/* Of the guest's processes; it starts a few dozen. */
#define MAX_PASID	4096

/*
 * Links that the tests open and close without a reset in between. If the machine lost memory
 * meanwhile, a BAR of the GPU for example, the host first has the GPU forget it, which takes up to
 * 10 ms from when the links are up, and translates nothing until then.
 */
#define SETTLED_US	200000

static int read_gpu(struct nvlink_gpu *gpu, const glob_t *devices)
{
	__u32 phandle, region, wanted;
	int ret = 0;
	size_t i;

	for (gpu->num_links = 0; gpu->num_links < NVLINK_MAX_LINKS; gpu->num_links++) {
		typeof(gpu->link[0]) *link = &gpu->link[gpu->num_links];

		if (dt_u32(gpu->node, "ibm,npu", gpu->num_links, &wanted))
			break;
		for (i = 0; i < devices->gl_pathc; i++) {
			snprintf(link->bdf, sizeof(link->bdf), "%.15s",
				 devices->gl_pathv[i] + strlen(PCI_DEVICES));
			if (!dt_node_of_pci(link->bdf, link->node) &&
			    !dt_u32(link->node, "phandle", 0, &phandle) && phandle == wanted)
				break;
		}
		if (i == devices->gl_pathc)
			return -ENODEV;
		ret = dt_u32(link->node, "memory-region", 0, &region);
		if (ret)
			return ret;
	}
	if (!gpu->num_links)
		return -EINVAL;
	ret = dt_node_of_phandle(region, gpu->memory, sizeof(gpu->memory));
	ret = ret ?: dt_u64(gpu->memory, "reg", 0, &gpu->ram);
	return ret ?: dt_u64(gpu->memory, "reg", 1, &gpu->ram_size);
}

int nvlink_read(struct nvlink *nv)
{
	glob_t devices;
	int ret = 0;
	__u32 cell;
	size_t i;

	memset(nv, 0, sizeof(*nv));
	if (glob(PCI_DEVICES "*", 0, NULL, &devices))
		return -ENODEV;
	for (i = 0; !ret && i < devices.gl_pathc; i++) {
		struct nvlink_gpu *gpu = &nv->gpu[nv->num_gpus];

		snprintf(gpu->bdf, sizeof(gpu->bdf), "%.15s",
			 devices.gl_pathv[i] + strlen(PCI_DEVICES));
		if (dt_node_of_pci(gpu->bdf, gpu->node) || dt_u32(gpu->node, "ibm,npu", 0, &cell))
			continue;
		ret = read_gpu(gpu, &devices);
		if (++nv->num_gpus == NVLINK_MAX_GPUS)
			break;
	}
	globfree(&devices);
	if (!nv->num_gpus)
		return ret ?: -ENODEV;
	snprintf(nv->phb, sizeof(nv->phb), "%s", nv->gpu[0].node);
	*strrchr(nv->phb, '/') = '\0';
	return ret;
}

static void *map_file(const char *path, int flags, __u64 offset, size_t size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | flags);
	void *p;

	if (fd < 0)
		return NULL;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

void *nvlink_map(__u64 address, size_t size)
{
	return map_file("/dev/mem", O_SYNC, address, size);
}

void *nvlink_map_bar1(const struct nvlink_gpu *gpu, __u64 offset, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), PCI_DEVICES "%s/resource1", gpu->bdf);
	return map_file(path, 0, offset, size);
}

int nvlink_attach(const struct nvlink *nv, struct engine *engines)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < nv->num_gpus; i++)
		ret = engine_attach_host(&engines[i], nv->gpu[i].bdf, true);
	if (ret) {
		while (--i)
			engine_detach_host(&engines[i - 1], nv->gpu[i - 1].bdf);
		return ret;
	}
	usleep(SETTLED_US);
	return 0;
}

bool nvlink_detach(const struct nvlink *nv, struct engine *engines)
{
	__u32 lost = 0;
	unsigned int i;

	for (i = 0; i < nv->num_gpus; i++) {
		if (!engines[i].regs)
			continue;
		lost += engine_reg(&engines[i], V100_UNTRAINED_ACCESSES);
		engine_detach_host(&engines[i], nv->gpu[i].bdf);
	}
	return !lost;
}

int nvlink_dma_base(const struct nvlink *nv, __u64 *base)
{
	static const char window[] = "linux,direct64-ddr-window-info";

	/* Number of the table, padding, address (two cells), page size and window size. */
	return dt_u64(nv->phb, window, 1, base);
}

void *nvlink_map_atsd(const struct nvlink *nv, unsigned int number)
{
	__u64 address;

	return dt_u64(nv->phb, "ibm,mmio-atsd", number, &address) ? NULL :
	       nvlink_map(address, PAGE_64K);
}

static void launch(void *atsd, __u64 what)
{
	store64((char *)atsd + ATSD_LAUNCH, htobe64(what));
	while (load64((char *)atsd + ATSD_STATUS))
		;
}

void nvlink_launch(void *atsd, __u64 what)
{
	launch(atsd, what);
	launch(atsd, ATSD_PID(0));
	launch(atsd, ATSD_PID(0));
}

int nvlink_forget(const struct nvlink *nv)
{
	/* It reaches all GPUs of the guest. */
	void *atsd = nvlink_map_atsd(nv, 0);

	if (!atsd)
		return -errno;
	nvlink_launch(atsd, ATSD_LPAR);
	nvlink_launch(atsd, ATSD_ALL);
	munmap(atsd, PAGE_64K);
	return 0;
}

int nvlink_own_pasid(const struct nvlink *nv, struct engine *e, __u32 *pasid)
{
	__u64 *mine = anonymous(PAGE_64K), value;
	const __u32 was = e->pasid;
	unsigned int found = 0;
	__u32 i;
	int ret;

	if (!mine)
		return -ENOMEM;
	ret = nvlink_forget(nv);
	if (ret)
		return ret;
	*mine = pattern((uintptr_t)mine, getpid());
	for (i = 1; i < MAX_PASID; i++) {
		e->pasid = i;
		if (!engine_read64(e, V100_ENGINE_PATH_ATS, (uintptr_t)mine, &value) &&
		    value == *mine) {
			*pasid = i;
			found++;
		}
	}
	e->pasid = was;
	munmap(mine, PAGE_64K);
	ret = nvlink_forget(nv);
	return ret ?: found == 1 ? 0 : found ? -EEXIST : -ESRCH;
}
