// SPDX-License-Identifier: GPL-2.0
/*
 * GPU RAM is either the host's memory, as the vendor's driver of the host makes it by
 * /sys/devices/system/memory, or the driver's: whoever comes first has it, and the other is told.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "nvlink2-v100-regs.h"
#include "sys.h"
#include "testbed.h"

#define MEMORY		"/sys/devices/system/memory"
#define PCI_DEVICES	"/sys/bus/pci/devices"
#define NOT_BUILT	"needs CONFIG_ARCH_MEMORY_PROBE and CONFIG_MEMORY_HOTREMOVE"
/* Blocks that a test makes of a GPU's RAM: the first two, and one that is apart. */
static const unsigned int block[] = { 0, 1, 3 };

FIXTURE(memory)
{
	struct testbed tb;
	__u64 block_size;
};

static __u64 number_of(__u64 block_size, const struct dt_gpu *g, unsigned int i)
{
	return g->aperture / block_size + block[i];
}

/* Has the host know a part of the GPU's RAM. */
static int make_known(__u64 block_size, const struct dt_gpu *g, unsigned int i)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx",
		 (unsigned long)(number_of(block_size, g, i) * block_size));
	return sys_write(MEMORY "/probe", text);
}

static bool is_known(__u64 block_size, const struct dt_gpu *g, unsigned int i)
{
	char path[128];

	snprintf(path, sizeof(path), MEMORY "/memory%llu",
		 (unsigned long long)number_of(block_size, g, i));
	return sys_exists(path);
}

/* "online_movable" or "offline" */
static int set_state(__u64 block_size, const struct dt_gpu *g, unsigned int i, const char *state)
{
	char path[128];

	snprintf(path, sizeof(path), MEMORY "/memory%llu/state",
		 (unsigned long long)number_of(block_size, g, i));
	return sys_write(path, state);
}

/* Whether /proc/iomem has a line with these ends and this name. */
static bool is_claimed(__u64 start, __u64 size, const char *name)
{
	char wanted[160], line[160];
	FILE *f = fopen("/proc/iomem", "re");
	bool found = false;

	if (!f)
		return false;
	snprintf(wanted, sizeof(wanted), "%lx-%lx : %s\n", (unsigned long)start,
		 (unsigned long)(start + size - 1), name);
	while (!found && fgets(line, sizeof(line), f))
		found = !strcmp(line + strspn(line, " "), wanted);
	fclose(f);
	return found;
}

static bool is_claimed_by_driver(const struct dt_gpu *g)
{
	char name[64];

	snprintf(name, sizeof(name), DRIVER " %s GPU RAM", g->bdf);
	return is_claimed(g->aperture, g->aperture_size, name);
}

/* The model's registers of a GPU, whatever driver it has; NULL on failure. */
static __u32 *registers_of(const struct dt_gpu *g)
{
	char path[128];
	void *p;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource0", g->bdf);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	p = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED, fd, V100_MODEL_BASE);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static __u32 load_register(const __u32 *regs, __u32 reg)
{
	return le32toh(__atomic_load_n(regs + (reg - V100_MODEL_BASE) / sizeof(*regs),
				       __ATOMIC_RELAXED));
}

/* All links of a GPU that is awake and decodes memory are up. */
static bool is_trained(const struct dt_gpu *g)
{
	__u32 *regs = registers_of(g);
	bool up;

	if (!regs)
		return false;
	up = load_register(regs, V100_LINK_STATUS) == load_register(regs, V100_LINK_MASK);
	munmap(regs, PAGE_64K);
	return up;
}

/* As the host's driver: takes the GPU, and trains its links. */
static int take(const struct dt_gpu *g)
{
	char path[128];
	__u32 *regs;
	int ret;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/enable", g->bdf);
	ret = driver_unbind(g->bdf) ?: sys_write(path, "1");
	if (ret)
		return ret;
	regs = registers_of(g);
	if (!regs)
		return -EIO;
	__atomic_store_n(regs + (V100_LINK_TRAIN - V100_MODEL_BASE) / sizeof(*regs),
			 htole32(V100_LINK_TRAIN_UP), __ATOMIC_SEQ_CST);
	munmap(regs, PAGE_64K);
	return is_trained(g) ? 0 : -EIO;
}

/* Has one that nobody has be as take() found it. */
static int give_back(const struct dt_gpu *g)
{
	char path[128];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/enable", g->bdf);
	return sys_write(path, "0");
}

/* 0, or what opening a device says. */
static int try_open(const struct dt_gpu *g, const char *bdf)
{
	struct vfio_group group;
	int ret = vfio_group_open(&group, pci_iommu_group(g->bdf), false);

	if (ret)
		return ret;
	ret = vfio_device_open(&group, bdf);
	if (ret >= 0)
		close(ret);
	vfio_group_close(&group);
	return ret < 0 ? ret : 0;
}

FIXTURE_SETUP(memory)
{
	char text[32];

	if (!sys_exists(MEMORY "/probe"))
		SKIP(return, NOT_BUILT);
	ASSERT_LT(0, sys_read(MEMORY "/block_size_bytes", text, sizeof(text)));
	self->block_size = strtoull(text, NULL, 16);
	ASSERT_NE(0, self->block_size);
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(memory)
{
	unsigned int i, j;

	/* For the next test, should this one have failed. */
	for (i = 0; i < self->tb.topo.num_gpus; i++) {
		const struct dt_gpu *g = &self->tb.topo.gpu[i];

		for (j = 0; j < ARRAY_SIZE(block); j++)
			set_state(self->block_size, g, j, "offline");
	}
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* The GPU works as it was, is not opened, and the log says what to do, a block at a time. */
TEST_F_TIMEOUT(memory, online_before_the_driver_comes, 120)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	const __u64 size = self->block_size;
	char all[256], blocks[96], last[64], path[128], state[32];
	int kmsg = kmsg_open();
	unsigned int i;

	ASSERT_LE(0, kmsg);
	snprintf(blocks, sizeof(blocks), "memory%llu-memory%llu, memory%llu",
		 (unsigned long long)number_of(size, g, 0),
		 (unsigned long long)number_of(size, g, 1),
		 (unsigned long long)number_of(size, g, 2));
	snprintf(all, sizeof(all), "%s: GPU RAM at %#llx cannot be used: %s, take %s in %s offline",
		 g->bdf, (unsigned long long)g->aperture, "it is memory of the host", blocks,
		 MEMORY);
	snprintf(last, sizeof(last), "take memory%llu in /sys",
		 (unsigned long long)number_of(size, g, 2));
	ASSERT_EQ(0, take(g));
	for (i = 0; i < ARRAY_SIZE(block); i++) {
		ASSERT_EQ(0, make_known(size, g, i));
		ASSERT_EQ(0, set_state(size, g, i, "online_movable"));
	}

	ASSERT_EQ(0, driver_bind(g->bdf, DRIVER));
	EXPECT_EQ(1, kmsg_count(kmsg, all));
	EXPECT_EQ(-EBUSY, try_open(g, g->bdf));
	EXPECT_EQ(1, kmsg_count(kmsg, all));
	/* To reset a bridge cuts the host's memory off, too. */
	EXPECT_EQ(-EBUSY, try_open(g, g->link[0].bdf));
	EXPECT_TRUE(is_trained(g));
	snprintf(path, sizeof(path), PCI_DEVICES "/%s/power/runtime_status", g->bdf);
	/* Kernels without CONFIG_PM have no such file, and put nothing to sleep. */
	if (sys_read(path, state, sizeof(state)) > 0)
		EXPECT_STREQ("active", state);
	EXPECT_FALSE(is_claimed_by_driver(g));

	ASSERT_EQ(0, set_state(size, g, 0, "offline"));
	ASSERT_EQ(0, set_state(size, g, 1, "offline"));
	EXPECT_EQ(0, kmsg_count(kmsg, last));
	EXPECT_EQ(-EBUSY, try_open(g, g->bdf));
	EXPECT_EQ(1, kmsg_count(kmsg, last));
	ASSERT_EQ(0, set_state(size, g, 2, "offline"));
	EXPECT_EQ(0, try_open(g, g->link[0].bdf));
	EXPECT_EQ(0, try_open(g, g->bdf));

	EXPECT_TRUE(is_claimed_by_driver(g));
	for (i = 0; i < ARRAY_SIZE(block); i++)
		EXPECT_FALSE(is_known(size, g, i));
	close(kmsg);
}

/* Bound, open, and closed again; and when the driver has gone it is to be had. */
TEST_F_TIMEOUT(memory, nobody_has_what_the_driver_has, 120)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	const __u64 size = self->block_size;
	struct testbed tb;

	EXPECT_TRUE(is_claimed_by_driver(g));
	EXPECT_EQ(-EEXIST, make_known(size, g, 0));
	ASSERT_EQ(0, testbed_open(&tb, 0, false))
		TH_LOG("%s", tb.why);
	EXPECT_TRUE(is_claimed_by_driver(g));
	EXPECT_EQ(-EEXIST, make_known(size, g, 0));
	EXPECT_EQ(0, testbed_close(&tb));
	EXPECT_TRUE(is_claimed_by_driver(g));
	EXPECT_EQ(-EEXIST, make_known(size, g, 0));
	EXPECT_FALSE(is_known(size, g, 0));

	ASSERT_EQ(0, take(g));
	EXPECT_FALSE(is_claimed_by_driver(g));
	ASSERT_EQ(0, make_known(size, g, 0));
	ASSERT_EQ(0, set_state(size, g, 0, "online_movable"));
	ASSERT_EQ(0, set_state(size, g, 0, "offline"));
	EXPECT_TRUE(is_known(size, g, 0));

	/* What is offline is removed at once. */
	ASSERT_EQ(0, driver_bind(g->bdf, DRIVER));
	EXPECT_TRUE(is_claimed_by_driver(g));
	EXPECT_FALSE(is_known(size, g, 0));
	EXPECT_EQ(0, try_open(g, g->bdf));
}

/* The RAM of one GPU can be the host's while another is passed on. */
TEST_F_TIMEOUT(memory, of_another_gpu, 120)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[1];
	const __u64 size = self->block_size;

	ASSERT_LE(2, self->tb.topo.num_gpus);
	ASSERT_EQ(0, take(g));
	ASSERT_EQ(0, make_known(size, g, 0));
	ASSERT_EQ(0, set_state(size, g, 0, "online_movable"));
	EXPECT_EQ(0, try_open(&self->tb.topo.gpu[0], self->tb.topo.gpu[0].bdf));
	EXPECT_EQ(-EBUSY, try_open(g, g->link[0].bdf));
	EXPECT_TRUE(is_trained(g));
	ASSERT_EQ(0, set_state(size, g, 0, "offline"));
	EXPECT_EQ(0, give_back(g));
	ASSERT_EQ(0, driver_bind(g->bdf, DRIVER));
	EXPECT_FALSE(is_known(size, g, 0));
}

/* ATSD registers of a bridge, from when it is first open for a guest: links can have the same. */
TEST_F_TIMEOUT(memory, registers_are_claimed, 120)
{
	struct testbed tb;
	char name[64];
	int dev;

	ASSERT_EQ(0, testbed_open(&tb, 0, true))
		TH_LOG("%s", tb.why);
	snprintf(name, sizeof(name), DRIVER " %s ATSD", tb.gpu->link[0].bdf);
	dev = vfio_device_open(&tb.group, tb.gpu->link[0].bdf);
	ASSERT_LE(0, dev);
	EXPECT_TRUE(is_claimed(tb.gpu->link[0].atsd, PAGE_64K, name));
	close(dev);
	EXPECT_EQ(0, testbed_close(&tb));
}

TEST_HARNESS_MAIN
