// SPDX-License-Identifier: GPL-2.0
/* One IOMMU group per NPU: its GPUs and all their bridges, nothing else. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"
#include "testbed.h"

FIXTURE(group)
{
	struct testbed tb;
};

FIXTURE_SETUP(group)
{
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(group)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Entries of the folder @path that begin with @start, which is not "." */
static int count_entries(const char *path, const char *start)
{
	struct dirent *d;
	int count = 0;
	DIR *dir;

	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((d = readdir(dir))) {
		if (d->d_name[0] != '.' && !strncmp(d->d_name, start, strlen(start)))
			count++;
	}
	closedir(dir);
	return count;
}

static int count_members(int id)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/devices", id);
	return count_entries(path, "");
}

/* Bridges of the NPU of @b, which has a PCI domain of its own: those that lead nowhere, too. */
static int count_bridges(const struct dt_bridge *b)
{
	char domain[BDF_LEN];

	snprintf(domain, sizeof(domain), "%s", b->bdf);
	strchr(domain, ':')[1] = '\0';
	return count_entries("/sys/bus/pci/devices", domain);
}

TEST_F(group, all_functions_of_one_npu_and_nothing_else)
{
	const struct dt_topology *t = &self->tb.topo;
	unsigned int i, j;

	for (i = 0; i < t->num_gpus; i++) {
		const struct dt_gpu *g = &t->gpu[i];
		int id = pci_iommu_group(g->bdf), same_npu = 0;

		ASSERT_LE(0, id)
			TH_LOG("%s has no IOMMU group", g->bdf);
		for (j = 0; j < g->num_links; j++) {
			EXPECT_EQ(id, pci_iommu_group(g->link[j].bdf))
				TH_LOG("%s is not with its GPU %s", g->link[j].bdf, g->bdf);
		}
		for (j = 0; j < t->num_gpus; j++) {
			bool same = t->gpu[j].link[0].npu_regs == g->link[0].npu_regs;

			EXPECT_EQ(same, pci_iommu_group(t->gpu[j].bdf) == id)
				TH_LOG("%s and %s", g->bdf, t->gpu[j].bdf);
			same_npu += same;
		}
		EXPECT_EQ(same_npu + count_bridges(&g->link[0]), count_members(id))
			TH_LOG("group %d", id);
	}
}

/*
 * The six links of a chip lead to two GPUs ("Redbud") or to three ("Sequoia"), or to sockets that
 * are empty.
 */
TEST_F(group, six_bridges_and_two_or_three_gpus)
{
	const struct dt_topology *t = &self->tb.topo;
	const unsigned int links = t->gpu[0].num_links;
	unsigned int i, j;

	ASSERT_TRUE(links == 2 || links == 3)
		TH_LOG("%u links", links);
	for (i = 0; i < t->num_gpus; i++) {
		const int id = pci_iommu_group(t->gpu[i].bdf);
		unsigned int gpus = 0;

		EXPECT_EQ(links, t->gpu[i].num_links)
			TH_LOG("%s", t->gpu[i].bdf);
		for (j = 0; j < t->num_gpus; j++)
			gpus += pci_iommu_group(t->gpu[j].bdf) == id;
		EXPECT_GE(NPU_LINKS / links, gpus);
		/* The models that these tests run on but for one have no empty socket. */
		EXPECT_TRUE(on_hardware() || gpus == NPU_LINKS / links);
		EXPECT_EQ((int)(gpus + NPU_LINKS), count_members(id));
	}
}

/* Bridges have no EEH PE, and may come first in a group: the GPU that is open is found. */
TEST_F(group, eeh_finds_a_gpu_first)
{
	struct vfio_eeh_pe_op op = { .argsz = sizeof(op), .op = VFIO_EEH_PE_GET_STATE };
	const char *bdf = self->tb.topo.gpu[0].bdf;
	struct vfio_group g;
	int dev;

	ASSERT_EQ(0, vfio_group_open(&g, pci_iommu_group(bdf), false));
	dev = vfio_device_open(&g, bdf);
	ASSERT_LE(0, dev);
	if (ioctl(g.container, VFIO_CHECK_EXTENSION, VFIO_EEH) == 1) {
		EXPECT_EQ(VFIO_EEH_PE_STATE_NORMAL, ioctl(g.container, VFIO_EEH_PE_OP, &op))
			TH_LOG("%s", strerror(errno));
	} else {
		TH_LOG("the kernel has no EEH for VFIO");
		EXPECT_TRUE(false);
	}
	close(dev);
	vfio_group_close(&g);
}

static bool has_eeh_device(const char *bdf)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/eeh_mode", bdf);
	return !access(path, F_OK);
}

/* Firmware can neither freeze nor reset a single NVLink, so EEH must not believe that it can. */
TEST_F(group, nvlinks_take_no_part_in_eeh)
{
	const struct dt_topology *t = &self->tb.topo;
	unsigned int i, j;

	for (i = 0; i < t->num_gpus; i++) {
		const struct dt_gpu *g = &t->gpu[i];

		EXPECT_TRUE(has_eeh_device(g->bdf))
			TH_LOG("%s", g->bdf);
		for (j = 0; j < g->num_links; j++) {
			EXPECT_FALSE(has_eeh_device(g->link[j].bdf))
				TH_LOG("%s", g->link[j].bdf);
		}
	}
}

/* The group's page sizes are what both kinds of PHB can do. */
TEST_F(group, defect_22_windows_of_4k_and_64k_pages_only)
{
	struct vfio_iommu_spapr_tce_info info = { .argsz = sizeof(info) };
	struct vfio_iommu_spapr_tce_create create = { .argsz = sizeof(create) };
	struct vfio_group g;
	__u32 shift;

	ASSERT_EQ(0, vfio_group_open(&g, pci_iommu_group(self->tb.topo.gpu[0].bdf), false));
	ASSERT_EQ(0, ioctl(g.container, VFIO_IOMMU_SPAPR_TCE_GET_INFO, &info));
	EXPECT_EQ((__u32)VFIO_IOMMU_SPAPR_INFO_DDW, info.flags & VFIO_IOMMU_SPAPR_INFO_DDW);
	EXPECT_EQ(1ULL << 12 | 1ULL << 16, info.ddw.pgsizes);
	EXPECT_LT(0U, info.ddw.max_dynamic_windows_supported);

	for (shift = 13; shift < 31; shift++) {
		if (shift == 16)
			continue;
		create.page_shift = shift;
		create.window_size = 1ULL << 32;
		create.levels = 1;
		EXPECT_EQ(-1, ioctl(g.container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create))
			TH_LOG("a window of pages of 1 << %u", shift);
		EXPECT_EQ(EINVAL, errno);
	}
	vfio_group_close(&g);
}

/*
 * Second window at 1 << 59, as QEMU expects; removing it leaves the first one. Then the
 * default window again.
 */
TEST_F(group, two_windows_come_and_go)
{
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create), .window_size = 1ULL << 32, .levels = 1,
	};
	struct vfio_iommu_spapr_tce_remove remove = { .argsz = sizeof(remove) };
	struct vfio_group g;
	void *ram;
	int round;

	ram = anonymous(PAGE_64K);
	ASSERT_NE(NULL, ram);
	ASSERT_EQ(0, vfio_group_open(&g, pci_iommu_group(self->tb.topo.gpu[0].bdf), false));
	ASSERT_EQ(0ULL, g.window_start);
	create.page_shift = g.page_shift;
	ASSERT_EQ(0, vfio_dma_register(&g, ram, PAGE_64K));
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, ioctl(g.container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create))
			TH_LOG("round %d: %s", round, strerror(errno));
		ASSERT_EQ(1ULL << 59, create.start_addr);
		EXPECT_EQ(0, vfio_dma_map(&g, ram, create.start_addr, PAGE_64K));
		EXPECT_EQ(0, vfio_dma_map(&g, ram, 0, PAGE_64K));
		remove.start_addr = create.start_addr;
		ASSERT_EQ(0, ioctl(g.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove));
		EXPECT_EQ(0, vfio_dma_unmap(&g, 0, PAGE_64K));
	}
	EXPECT_EQ(0, vfio_dma_unregister(&g, ram, PAGE_64K));
	vfio_group_close(&g);
}

/* Ownership comes and goes with every open and close of the group. */
TEST_F(group, opens_again_and_again)
{
	struct vfio_group g;
	int i;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, vfio_group_open(&g, pci_iommu_group(self->tb.topo.gpu[0].bdf), i & 1))
			TH_LOG("round %d", i);
		vfio_group_close(&g);
	}
}

/*
 * Who keeps the group open when its last device is unbound has a group without anything, which gets
 * no table. The next test binds the devices.
 */
TEST_F_TIMEOUT(group, table_after_the_last_device, 120)
{
	const struct dt_topology *t = &self->tb.topo;
	const int id = pci_iommu_group(t->gpu[0].bdf);
	struct vfio_group g;
	unsigned int i, j;

	ASSERT_EQ(0, vfio_group_open(&g, id, false));
	for (i = 0; i < t->num_gpus; i++) {
		if (pci_iommu_group(t->gpu[i].bdf) != id)
			continue;
		ASSERT_EQ(0, driver_unbind(t->gpu[i].bdf));
		for (j = 0; j < t->gpu[i].num_links; j++)
			ASSERT_EQ(0, driver_unbind(t->gpu[i].link[j].bdf));
	}
	EXPECT_EQ(-EIO, vfio_group_add_vm(&g));
	vfio_group_close(&g);
}

TEST_HARNESS_MAIN
