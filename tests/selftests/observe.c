// SPDX-License-Identifier: GPL-2.0
/*
 * What one GPU, its links and its NPU are like before, during and after a binding to a virtual
 * machine. Not a test: it judges nothing, and prints one line an observation, "phase TAB what TAB
 * value", for scripts/nvlink2-trial. Nothing of it touches GPU RAM, but with "untrained".
 *
 *   observe npu GPU        what the GPU's NPU has, whoever uses the GPU meanwhile
 *   observe bound GPU      the same while the GPU and its bridges are open for a virtual machine
 *   observe untrained GPU  one load of GPU RAM while the links are down, which may end the host
 *
 * GPU is a PCI address.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"

#include "bind.h"
#include "dt.h"
#include "npu.h"
#include "scom.h"
#include "sys.h"
#include "vfio.h"

#define ATSD_AVA	0x8
#define ATSD_STATUS	0x10

/* Where CQ_FENCE_STATUS of a link's transport layer is in the NPU's register space. */
static __u32 ntl_fence_status(__u32 link)
{
	return (4 + link / 2) << 20 | (9 + 2 * (link % 2)) << 16 | 0x500;
}

static const char *phase = "npu";

static __printf(2, 3)
void saw(const char *what, const char *format, ...)
{
	va_list args;

	printf("%s\t%s\t", phase, what);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	/* Of a host that ends something is left that way. */
	fflush(stdout);
}

static void saw_error(const char *what, int error)
{
	saw(what, "error: %s", strerror(-error));
}

static void saw_file(const char *what, const char *path)
{
	char text[4096];

	if (sys_read(path, text, sizeof(text)) < 0)
		return;
	saw(what, "%s", text);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* An entry is in use if one of the bits @valid is set. One that was used may have others left. */
static void saw_table(const char *name, const __u64 *values, unsigned int count, __u64 valid)
{
	char what[64];
	unsigned int i, used = 0;

	for (i = 0; i < count; i++) {
		if (!values[i])
			continue;
		snprintf(what, sizeof(what), "%s[%u]", name, i);
		saw(what, "%#018lx", values[i]);
		used += !!(values[i] & valid);
	}
	snprintf(what, sizeof(what), "%s, entries in use", name);
	saw(what, "%u of %u", used, count);
}

static void saw_atsd_register(const struct dt_bridge *b, const char *name, __u64 offset)
{
	__u64 value;
	char what[64];
	int ret;

	snprintf(what, sizeof(what), "ATSD %s of link %u", name, b->link_index);
	ret = npu_read64(b->chip, b->xscom_base, b->atsd - b->npu_regs + offset, &value);
	if (ret)
		saw_error(what, ret);
	else
		saw(what, "%#lx", value);
}

static void saw_npu(const struct dt_gpu *gpu)
{
	const struct dt_bridge *first = &gpu->link[0];
	__u64 value, tves[NPU_NUM_TVES], pestb[NUM_PEST];
	struct npu npu;
	char what[64], path[128];
	unsigned int i;
	int ret;

	snprintf(path, sizeof(path), DEBUGFS "/%s/lpar", gpu->bdf);
	saw_file("LPAR by the driver", path);
	npu_select(first);
	ret = npu_read(&npu);
	if (ret) {
		saw_error("SCOM", ret);
		return;
	}
	saw_table("XTS BDF map", npu.bdf_map, NUM_BDF_MAP, BDF_VALID);
	saw_table("XTS PID map", npu.pid_map, NUM_PID_MAP, PID_VALID);
	saw_table("ATSD LPARID", npu.atsd_lparid, NUM_ATSD, ~0UL);
	for (i = 0; !ret && i < NPU_NUM_TVES; i++)
		ret = npu_read_tve(first->chip, first->xscom_base, i, &tves[i]);
	for (i = 0; !ret && i < NUM_PEST; i++)
		ret = npu_read64(first->chip, first->xscom_base, PESTB(i), &pestb[i]);
	if (ret) {
		saw_error("SCOM", ret);
		return;
	}
	saw_table("TVT", tves, NPU_NUM_TVES, ~0UL);
	saw_table("PESTB", pestb, NUM_PEST, ~0UL);
	for (i = 0; i < gpu->num_links; i++) {
		const struct dt_bridge *b = &gpu->link[i];

		snprintf(what, sizeof(what), "fence of link %u", b->link_index);
		ret = npu_read64(b->chip, b->xscom_base, ntl_fence_status(b->link_index), &value);
		if (ret)
			saw_error(what, ret);
		else
			saw(what, "%lu", value >> 62);
		saw_atsd_register(b, "STATUS", ATSD_STATUS);
		saw_atsd_register(b, "AVA", ATSD_AVA);
	}
}

static void saw_regions(int dev, const char *bdf)
{
	struct vfio_device_info device = { .argsz = sizeof(device) };
	struct vfio_region_info *info;
	char what[64];
	__u32 i;
	int ret;

	if (ioctl(dev, VFIO_DEVICE_GET_INFO, &device))
		return;
	for (i = 0; i < device.num_regions; i++) {
		/* None of them is a VGA adapter, and VFIO refuses to tell of that region. */
		if (i == VFIO_PCI_VGA_REGION_INDEX)
			continue;
		snprintf(what, sizeof(what), "%s region %u", bdf, i);
		ret = vfio_region(dev, i, &info);
		if (ret) {
			saw_error(what, ret);
			continue;
		}
		if (info->size)
			saw(what, "%#llx bytes, flags %#x, capabilities at %#x",
			    (unsigned long long)info->size, info->flags, info->cap_offset);
		free(info);
	}
}

/* The registers answer, and are the link's own: what is written by MMIO is read by SCOM. */
static void saw_atsd(int dev, const struct dt_bridge *b)
{
	/* As processes have addresses: silicon need not keep bits that no address has. */
	const __u64 ava = 0x00007fee12340000;
	struct vfio_region_info *info;
	__u64 value = 0;
	char what[64];
	char *p;
	int ret;

	snprintf(what, sizeof(what), "%s ATSD registers", b->bdf);
	ret = vfio_find_atsd(dev, &info);
	if (ret) {
		saw_error(what, ret);
		return;
	}
	p = vfio_map(dev, info, 0, PAGE_64K);
	free(info);
	if (!p) {
		saw_error(what, -errno);
		return;
	}
	store64(p + ATSD_AVA, htobe64(ava));
	ret = npu_read64(b->chip, b->xscom_base, b->atsd - b->npu_regs + ATSD_AVA, &value);
	if (ret)
		saw_error(what, ret);
	else
		saw(what, "%s", value == ava ? "mapped, its own" : "mapped, NOT its own");
	store64(p + ATSD_AVA, ~0UL);
	snprintf(what, sizeof(what), "%s ATSD AVA, bits that stay set", b->bdf);
	ret = npu_read64(b->chip, b->xscom_base, b->atsd - b->npu_regs + ATSD_AVA, &value);
	if (ret)
		saw_error(what, ret);
	else
		saw(what, "%#lx", value);
	store64(p + ATSD_AVA, 0);
	munmap(p, PAGE_64K);
}

/* What is refused without anything being touched. */
static void saw_refusals(int dev, const char *bdf)
{
	struct vfio_region_info *ram;
	char what[64];
	void *p;
	int ret = vfio_find_gpu_ram(dev, &ram);

	snprintf(what, sizeof(what), "%s GPU RAM region", bdf);
	if (ret) {
		saw_error(what, ret);
		return;
	}
	saw(what, "%#llx bytes", (unsigned long long)ram->size);
	snprintf(what, sizeof(what), "%s mmap behind the region", bdf);
	p = vfio_map(dev, ram, ram->size, PAGE_64K);
	saw(what, "%s", p ? "MAPPED" : strerrorname_np(errno));
	if (p)
		munmap(p, PAGE_64K);
	free(ram);
}

static void saw_eeh(const struct vfio_group *group)
{
	struct vfio_eeh_pe_op op = { .argsz = sizeof(op), .op = VFIO_EEH_PE_GET_STATE };
	int state = ioctl(group->container, VFIO_EEH_PE_OP, &op);

	if (state < 0)
		saw_error("EEH state", -errno);
	else
		saw("EEH state", "%d", state);
}

static int open_timed(const struct vfio_group *group, const char *bdf)
{
	const long start = now_ms();
	int dev = vfio_device_open(group, bdf);
	char what[64];

	snprintf(what, sizeof(what), "%s open", bdf);
	if (dev < 0)
		saw_error(what, dev);
	else
		saw(what, "%ld ms", now_ms() - start);
	return dev;
}

static void close_timed(int dev, const char *bdf)
{
	const long start = now_ms();
	char what[64];

	if (dev < 0)
		return;
	close(dev);
	snprintf(what, sizeof(what), "%s close", bdf);
	saw(what, "%ld ms", now_ms() - start);
}

static int bound(const struct dt_gpu *gpu)
{
	int dev[DT_MAX_LINKS], gpu_dev, ret;
	struct vfio_group group;
	unsigned int i;

	phase = "before";
	saw_npu(gpu);
	phase = "bound";
	ret = vfio_group_open(&group, pci_iommu_group(gpu->bdf), true);
	if (ret) {
		saw_error("group", ret);
		return ret;
	}
	saw("group", "%d", group.id);
	gpu_dev = open_timed(&group, gpu->bdf);
	for (i = 0; i < gpu->num_links; i++)
		dev[i] = open_timed(&group, gpu->link[i].bdf);
	saw_npu(gpu);
	saw_eeh(&group);
	saw_regions(gpu_dev, gpu->bdf);
	saw_refusals(gpu_dev, gpu->bdf);
	for (i = 0; i < gpu->num_links; i++) {
		saw_regions(dev[i], gpu->link[i].bdf);
		saw_atsd(dev[i], &gpu->link[i]);
	}
	ret = gpu_dev < 0 ? gpu_dev : 0;
	for (i = 0; i < gpu->num_links; i++) {
		ret = ret ?: dev[i] < 0 ? dev[i] : 0;
		close_timed(dev[i], gpu->link[i].bdf);
	}
	close_timed(gpu_dev, gpu->bdf);
	vfio_group_close(&group);
	phase = "after";
	saw_npu(gpu);
	return ret;
}

static int untrained(const struct dt_gpu *gpu)
{
	struct vfio_region_info *ram;
	struct vfio_group group;
	__u64 value = 0;
	void *p = NULL;
	int ret, dev;

	phase = "untrained";
	ret = vfio_group_open(&group, pci_iommu_group(gpu->bdf), false);
	if (ret)
		return ret;
	dev = vfio_device_open(&group, gpu->bdf);
	ret = dev < 0 ? dev : vfio_find_gpu_ram(dev, &ram);
	if (!ret) {
		p = vfio_map(dev, ram, 0, PAGE_64K);
		ret = p ? 0 : -errno;
	}
	if (!ret) {
		saw_npu(gpu);
		saw("load", "begins");
		ret = try_read64(p, &value);
		if (ret)
			saw("load", "signal %s", sigabbrev_np(ret));
		else
			saw("load", "%#lx", value);
		ret = 0;
		saw_npu(gpu);
		munmap(p, PAGE_64K);
	}
	if (dev >= 0)
		close(dev);
	vfio_group_close(&group);
	return ret;
}

int main(int argc, char **argv)
{
	struct dt_topology topo;
	const struct dt_gpu *gpu = NULL;
	char why[256] = "";
	unsigned int i;
	int ret;

	/* Whatever machine it is: this one asks no emulator. */
	setenv("NVLINK2_HARDWARE", "1", 1);
	if (argc != 3) {
		fprintf(stderr, "usage: observe npu|bound|untrained GPU\n");
		return 2;
	}
	ret = dt_read_topology(&topo, why, sizeof(why));
	for (i = 0; !ret && i < topo.num_gpus; i++) {
		if (!strcmp(topo.gpu[i].bdf, argv[2]))
			gpu = &topo.gpu[i];
	}
	if (!ret && !gpu) {
		ret = -ENODEV;
		snprintf(why, sizeof(why), "the device tree has no GPU %s", argv[2]);
	}
	if (!ret && !strcmp(argv[1], "npu"))
		saw_npu(gpu);
	else if (!ret && !strcmp(argv[1], "bound"))
		ret = bound(gpu);
	else if (!ret && !strcmp(argv[1], "untrained"))
		ret = untrained(gpu);
	else if (!ret)
		ret = -EINVAL;
	if (ret)
		fprintf(stderr, "observe: %s: %s %s\n", argv[1], strerror(-ret), why);
	return !!ret;
}
