// SPDX-License-Identifier: GPL-2.0
/*
 * The device tree that QEMU 7.2 makes of what the driver exports. The host's values come in
 * EXPECT, one TGT:LINKS:SPEED for each GPU (hexadecimal, separated by blanks), in the order in
 * which QEMU was given the GPUs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest_harness.h"

#include "nvlink.h"
#include "sys.h"

#define BASE		"/sys/firmware/devicetree/base"

/* QEMU's plan of the guest's address space: a part of each range for each virtual PHB. */
#define RAM_BASE(phb)	((64ULL << 40) + (phb) * (2ULL << 40))
#define ATSD_BASE(phb)	((128ULL << 40) + (phb) * 18 * PAGE_64K)
/* Type of a PHB in ibm,my-drc-index; its number follows. */
#define DRC_PHB		0x20000000

struct expected {
	__u64 tgt;
	unsigned int links;
	__u32 speed;
};

FIXTURE(tree)
{
	struct nvlink nv;
	unsigned int num;
	struct expected gpu[NVLINK_MAX_GPUS];
	/* Number of the virtual PHB. */
	__u64 phb;
};

FIXTURE_SETUP(tree)
{
	const char *text = getenv("EXPECT");
	struct expected *e = self->gpu;
	__u32 index;
	int used;

	ASSERT_NE(NULL, text);
	while (self->num < NVLINK_MAX_GPUS &&
	       sscanf(text, " %lx:%x:%x%n", &e->tgt, &e->links, &e->speed, &used) == 3) {
		text += used;
		self->num++;
		e++;
	}
	ASSERT_LT(0, self->num);
	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, dt_u32(self->nv.phb, "ibm,my-drc-index", 0, &index));
	ASSERT_EQ(DRC_PHB, index & ~0xffff);
	self->phb = index & 0xffff;
}

FIXTURE_TEARDOWN(tree)
{
}

/* The strings of a property, with their terminating zeros, are @text and nothing else. */
static bool is_string(const char *node, const char *name, const char *text)
{
	char value[64];
	ssize_t n = dt_prop(node, name, value, sizeof(value));

	return n == (ssize_t)strlen(text) + 1 && !strcmp(value, text);
}

static __u32 cell(const char *node, const char *name, unsigned int index)
{
	__u32 value;

	return dt_u32(node, name, index, &value) ? ~0U : value;
}

static __u64 pair(const char *node, const char *name, unsigned int index)
{
	__u64 value;

	return dt_u64(node, name, index, &value) ? ~0ULL : value;
}

static ssize_t length(const char *node, const char *name)
{
	char value[256];

	return dt_prop(node, name, value, sizeof(value));
}

TEST_F(tree, gpus_and_their_bridges)
{
	unsigned int i, j;

	ASSERT_EQ(self->num, self->nv.num_gpus);
	for (i = 0; i < self->num; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];

		EXPECT_EQ(0x10de, cell(gpu->node, "vendor-id", 0));
		EXPECT_EQ(self->gpu[i].links, gpu->num_links);
		EXPECT_EQ(4 * gpu->num_links, length(gpu->node, "ibm,npu"));
		for (j = 0; j < gpu->num_links; j++) {
			const char *bridge = gpu->link[j].node;

			EXPECT_EQ(0x1014, cell(bridge, "vendor-id", 0));
			EXPECT_EQ(cell(gpu->node, "phandle", 0), cell(bridge, "ibm,gpu", 0));
			EXPECT_EQ(cell(gpu->memory, "phandle", 0),
				  cell(bridge, "memory-region", 0));
			EXPECT_EQ(8, length(bridge, "ibm,device-tgt-addr"));
			EXPECT_EQ(self->gpu[i].tgt, pair(bridge, "ibm,device-tgt-addr", 0));
			EXPECT_EQ(4, length(bridge, "ibm,nvlink-speed"));
			EXPECT_EQ(self->gpu[i].speed, cell(bridge, "ibm,nvlink-speed", 0));
		}
	}
}

TEST_F(tree, links_of_the_npus)
{
	unsigned int i, j, seen = 0;
	char npu[PATH_MAX];

	for (i = 0; i < self->nv.num_gpus; i++) {
		for (j = 0; j < self->nv.gpu[i].num_links; j++) {
			__u32 phandle = cell(self->nv.gpu[i].link[j].node, "ibm,nvlink", 0), index;
			char node[PATH_MAX];

			ASSERT_EQ(0, dt_node_of_phandle(phandle, node, sizeof(node)));
			EXPECT_TRUE(is_string(node, "compatible", "ibm,npu-link"));
			index = cell(node, "ibm,npu-link-index", 0);
			ASSERT_GT(32, index);
			EXPECT_EQ(0, seen & 1 << index)
				TH_LOG("two bridges say that they are link %u", index);
			seen |= 1 << index;
			/* /npuphb<N>/link@<index> */
			snprintf(npu, sizeof(npu), "%s", node);
			EXPECT_EQ(index, strtoul(strrchr(npu, '@') + 1, NULL, 16));
			*strrchr(npu, '/') = '\0';
			EXPECT_EQ(0, strncmp(npu, BASE "/npuphb", strlen(BASE "/npuphb")));
			EXPECT_TRUE(is_string(npu, "compatible", "ibm,power9-npu"));
			EXPECT_EQ(1, cell(npu, "#address-cells", 0));
			EXPECT_EQ(0, cell(npu, "#size-cells", 0));
		}
	}
}

TEST_F(tree, memory_nodes)
{
	__u32 nodes[NVLINK_MAX_GPUS];
	unsigned int i, j, last;
	char name[PATH_MAX];

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		const char *memory = gpu->memory;

		snprintf(name, sizeof(name), BASE "/memory@%lx", gpu->ram);
		EXPECT_EQ(0, strcmp(name, memory))
			TH_LOG("%s has the memory %s", gpu->bdf, memory);
		EXPECT_EQ(RAM_BASE(self->phb) + i * gpu->ram_size, gpu->ram);
		EXPECT_EQ(128ULL << 30, gpu->ram_size);
		EXPECT_EQ(16, length(memory, "reg"));
		EXPECT_TRUE(is_string(memory, "compatible", "ibm,coherent-device-memory"));
		EXPECT_TRUE(is_string(memory, "device_type", "memory"));
		EXPECT_EQ(16, length(memory, "linux,usable-memory"));
		EXPECT_EQ(gpu->ram, pair(memory, "linux,usable-memory", 0));
		EXPECT_EQ(0, pair(memory, "linux,usable-memory", 1));
		/* Number of levels, and a level each; the last names the NUMA node. */
		last = cell(memory, "ibm,associativity", 0);
		ASSERT_GT(8, last);
		nodes[i] = cell(memory, "ibm,associativity", last);
		EXPECT_LT(0, nodes[i]);
		for (j = 0; j < i; j++)
			EXPECT_NE(nodes[j], nodes[i]);
	}
}

TEST_F(tree, atsd_registers)
{
	unsigned int i, links = 0;

	for (i = 0; i < self->nv.num_gpus; i++)
		links += self->nv.gpu[i].num_links;
	EXPECT_EQ(8 * links, length(self->nv.phb, "ibm,mmio-atsd"));
	for (i = 0; i < links; i++)
		EXPECT_EQ(ATSD_BASE(self->phb) + i * PAGE_64K,
			  pair(self->nv.phb, "ibm,mmio-atsd", i));
}

/* The guest's kernel may not take it for memory before the vendor's driver has trained links. */
TEST_F(tree, kernel_leaves_gpu_ram_alone)
{
	unsigned long start, end;
	char line[128];
	unsigned int i;
	FILE *f;

	f = fopen("/proc/iomem", "re");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %lx-%lx", &start, &end) != 2)
			continue;
		for (i = 0; i < self->nv.num_gpus; i++) {
			const struct nvlink_gpu *gpu = &self->nv.gpu[i];

			EXPECT_TRUE(end < gpu->ram || start >= gpu->ram + gpu->ram_size)
				TH_LOG("%s", line);
		}
	}
	fclose(f);
}

TEST_HARNESS_MAIN
