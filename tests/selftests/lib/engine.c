// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "sys.h"
#include "vfio.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

/* /proc/self/pagemap */
#define PAGEMAP_PRESENT	0x8000000000000000ULL
#define PAGEMAP_PFN	0x7fffffffffffffULL

static __u32 load32(const void *addr)
{
	return __atomic_load_n((const __u32 *)addr, __ATOMIC_RELAXED);
}

static void store32(void *addr, __u32 value)
{
	__atomic_store_n((__u32 *)addr, value, __ATOMIC_RELAXED);
}

static void *map_bar(int fd, __u64 offset)
{
	void *p = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	return p == MAP_FAILED ? NULL : p;
}

static void engine_set(const struct engine *e, __u32 reg, __u32 value)
{
	store32((char *)e->regs + reg - V100_MODEL_BASE, value);
}

/* The mmap() offsets of the two BARs come from @bar0 and @bar1. */
static int map_bars(struct engine *e, int fd0, __u64 bar0, int fd1, __u64 bar1)
{
	*e = (struct engine){ 0 };
	e->regs = map_bar(fd0, bar0 + V100_MODEL_BASE);
	if (!e->regs)
		return -errno;
	e->ram = map_bar(fd1, bar1);
	if (!e->ram) {
		int ret = -errno;

		munmap(e->regs, PAGE_64K);
		return ret;
	}
	if (engine_reg(e, V100_MODEL_ID) != V100_MODEL_ID_MAGIC) {
		engine_detach(e);
		return -ENODEV;
	}
	return 0;
}

int engine_attach(struct engine *e, int dev)
{
	__u16 command;
	int ret = vfio_config_read16(dev, PCI_COMMAND, &command);

	ret = ret ?: vfio_config_write16(dev, PCI_COMMAND, command | PCI_COMMAND_MASTER);
	return ret ?: map_bars(e, dev, REGION_OFFSET(VFIO_PCI_BAR0_REGION_INDEX),
			       dev, REGION_OFFSET(VFIO_PCI_BAR1_REGION_INDEX));
}

static int open_pci_file(const char *bdf, const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Switches the @set bits of the command register on, and @clear off. */
static int host_command(const char *bdf, __u16 set, __u16 clear)
{
	int fd = open_pci_file(bdf, "config"), ret = -EIO;
	__u16 command;

	if (fd < 0)
		return fd;
	if (pread(fd, &command, sizeof(command), PCI_COMMAND) == sizeof(command)) {
		command = (command & ~clear) | set;
		if (pwrite(fd, &command, sizeof(command), PCI_COMMAND) == sizeof(command))
			ret = 0;
	}
	close(fd);
	return ret;
}

int engine_attach_host(struct engine *e, const char *bdf, bool master)
{
	int fd0, fd1, ret;

	ret = host_command(bdf, PCI_COMMAND_MEMORY | (master ? PCI_COMMAND_MASTER : 0),
			   master ? 0 : PCI_COMMAND_MASTER);
	if (ret)
		return ret;
	fd0 = open_pci_file(bdf, "resource0");
	fd1 = open_pci_file(bdf, "resource1");
	ret = fd0 < 0 ? fd0 : fd1 < 0 ? fd1 : map_bars(e, fd0, 0, fd1, 0);
	if (fd0 >= 0)
		close(fd0);
	if (fd1 >= 0)
		close(fd1);
	if (ret) {
		host_command(bdf, 0, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		return ret;
	}
	engine_train(e);
	return 0;
}

void engine_train(const struct engine *e)
{
	engine_set(e, V100_LINK_TRAIN, V100_LINK_TRAIN_UP);
}

void engine_gpu_ends(const struct engine *e, bool up)
{
	engine_set(e, V100_LINK_TRAIN, up ? V100_LINK_TRAIN_GPU_END : V100_LINK_TRAIN_DOWN);
}

void engine_detach(struct engine *e)
{
	if (e->regs)
		munmap(e->regs, PAGE_64K);
	if (e->ram)
		munmap(e->ram, PAGE_64K);
	*e = (struct engine){ 0 };
}

void engine_detach_host(struct engine *e, const char *bdf)
{
	if (e->regs)
		engine_set(e, V100_LINK_TRAIN, V100_LINK_TRAIN_DOWN);
	engine_detach(e);
	host_command(bdf, 0, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

__u32 engine_links(const struct engine *e)
{
	return __builtin_popcount(engine_reg(e, V100_LINK_MASK));
}

__u32 engine_reg(const struct engine *e, __u32 reg)
{
	return load32((const char *)e->regs + reg - V100_MODEL_BASE);
}

static __u64 engine_reg64(const struct engine *e, __u32 lo)
{
	return (__u64)engine_reg(e, lo + 4) << 32 | engine_reg(e, lo);
}

static void engine_set64(const struct engine *e, __u32 lo, __u64 value)
{
	engine_set(e, lo, value);
	engine_set(e, lo + 4, value >> 32);
}

__u32 engine_copy(const struct engine *e, __u32 paths, __u64 src, __u64 dst, __u32 len)
{
	engine_set64(e, V100_ENGINE_SRC_LO, src);
	engine_set64(e, V100_ENGINE_DST_LO, dst);
	engine_set(e, V100_ENGINE_LENGTH, len);
	engine_set(e, V100_ENGINE_PASID, e->pasid);
	engine_set(e, V100_ENGINE_PATH, paths);
	engine_set(e, V100_ENGINE_LINK, e->link);
	engine_set(e, V100_ENGINE_START, 1);
	return engine_reg(e, V100_ENGINE_CAUSE);
}

void engine_last_fault(const struct engine *e, struct engine_fault *fault)
{
	*fault = (struct engine_fault){
		.cause = engine_reg(e, V100_ENGINE_CAUSE),
		.side = engine_reg(e, V100_ENGINE_FAULT_SIDE),
		.copied = engine_reg(e, V100_ENGINE_COPIED),
		.addr = engine_reg64(e, V100_ENGINE_FAULT_ADDR_LO),
		.gpa = engine_reg64(e, V100_ENGINE_FAULT_GPA_LO),
	};
}

__u32 engine_read(const struct engine *e, __u32 path, __u64 addr, void *buf, size_t len)
{
	__u64 *to = buf, *from = e->ram;
	__u32 cause;
	size_t i;

	cause = engine_copy(e, V100_ENGINE_PATHS(path, V100_ENGINE_PATH_RAM), addr, 0, len);
	for (i = 0; i < len / sizeof(*to); i++)
		to[i] = cause ? ~0ULL : load64(&from[i]);
	return cause;
}

__u32 engine_write(const struct engine *e, __u32 path, __u64 addr, const void *buf, size_t len)
{
	const __u64 *from = buf;
	__u64 *to = e->ram;
	size_t i;

	for (i = 0; i < len / sizeof(*to); i++)
		store64(&to[i], from[i]);
	return engine_copy(e, V100_ENGINE_PATHS(V100_ENGINE_PATH_RAM, path), 0, addr, len);
}

__u32 engine_read64(const struct engine *e, __u32 path, __u64 addr, __u64 *value)
{
	return engine_read(e, path, addr, value, sizeof(*value));
}

__u32 engine_write64(const struct engine *e, __u32 path, __u64 addr, __u64 value)
{
	return engine_write(e, path, addr, &value, sizeof(value));
}

int physical_address(const void *va, __u64 *pa)
{
	const long size = sysconf(_SC_PAGESIZE);
	__u64 entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = pread(fd, &entry, sizeof(entry), (uintptr_t)va / size * sizeof(entry));
	close(fd);
	if (n != sizeof(entry))
		return -EIO;
	if (!(entry & PAGEMAP_PRESENT) || !(entry & PAGEMAP_PFN))
		return -ENOENT;
	*pa = (entry & PAGEMAP_PFN) * size + (uintptr_t)va % size;
	return 0;
}
