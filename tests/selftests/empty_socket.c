// SPDX-License-Identifier: GPL-2.0
/*
 * Sockets that are free or whose card does not answer, as the machine was booted with (emu
 * --empty, --dead): firmware makes bridges for their links, which lead nowhere. That is no
 * fault of anybody's: their neighbours work, nothing is complained of, and who opens such a
 * bridge has a PCI function without a region of the driver's.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"
#include "testbed.h"

/* Six of each of two chips. */
#define MAX_LOOSE	12
/* Levels of the kernel log up to which somebody has to do something about it. */
#define LEVEL_WARNING	4

FIXTURE(socket)
{
	struct testbed tb;
	char loose[MAX_LOOSE][BDF_LEN];
	unsigned int num_loose;
	/* A GPU that has such a bridge in its group. */
	unsigned int neighbour;
};

/* The bridges that name no GPU; how many there are. */
static unsigned int find_loose(char (*loose)[BDF_LEN])
{
	const char *devices = "/sys/bus/pci/devices";
	DIR *dir = opendir(devices);
	unsigned int count = 0;
	char node[PATH_MAX];
	struct dirent *d;
	__u32 phandle;

	while (dir && count < MAX_LOOSE && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || dt_node_of_pci(d->d_name, node) ||
		    dt_u32(node, "ibm,nvlink", 0, &phandle) ||
		    !dt_u32(node, "ibm,gpu", 0, &phandle))
			continue;
		snprintf(loose[count++], BDF_LEN, "%.15s", d->d_name);
	}
	if (dir)
		closedir(dir);
	return count;
}

FIXTURE_SETUP(socket)
{
	struct dt_topology *t = &self->tb.topo;

	self->num_loose = find_loose(self->loose);
	ASSERT_LT(0U, self->num_loose)
		TH_LOG("all sockets are full: boot with --empty GPU1, or --dead GPU1");
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
	while (self->neighbour < t->num_gpus &&
	       pci_iommu_group(t->gpu[self->neighbour].bdf) != pci_iommu_group(self->loose[0]))
		self->neighbour++;
	ASSERT_GT(t->num_gpus, self->neighbour)
		TH_LOG("no GPU is in the group of %s", self->loose[0]);
}

FIXTURE_TEARDOWN(socket)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* How many lines since then the driver has said, of @level or worse, or of any with @needle. */
static int said(int kmsg, int level, const char *needle)
{
	char record[8192], *text;
	int count = 0;
	ssize_t n;

	while ((n = read(kmsg, record, sizeof(record) - 1)) > 0) {
		record[n] = '\0';
		text = strchr(record, ';');
		if (!text || strncmp(text + 1, DRIVER " ", sizeof(DRIVER)))
			continue;
		text[strcspn(text, "\n")] = '\0';
		if ((atoi(record) & 7) <= level && (!needle || strstr(text, needle))) {
			fprintf(stderr, "# %s\n", text + 1);
			count++;
		}
	}
	return count;
}

TEST_F(socket, nothing_is_complained_of)
{
	int all = kmsg_open(), info = kmsg_open();
	unsigned int i;

	for (i = 0; i < self->num_loose; i++) {
		if (driver_is(self->loose[i], DRIVER))
			ASSERT_EQ(0, driver_unbind(self->loose[i]));
		ASSERT_EQ(0, driver_bind(self->loose[i], DRIVER))
			TH_LOG("%s", self->loose[i]);
	}
	EXPECT_EQ(0, said(all, LEVEL_WARNING, NULL));
	EXPECT_EQ((int)self->num_loose, said(info, 7, "not connected"));
	close(all);
	close(info);
}

/* Whoever has the bridge: its driver, or nobody. */
TEST_F(socket, group_is_viable_and_the_gpu_beside_works)
{
	struct testbed tb;
	unsigned int i;
	bool kvm;
	__u64 value;
	void *p;

	for (kvm = false;; kvm = true) {
		ASSERT_EQ(0, testbed_open(&tb, self->neighbour, kvm))
			TH_LOG("%s", tb.why);
		p = vfio_map(tb.dev, tb.ram, 0, PAGE_64K);
		ASSERT_NE(NULL, p);
		EXPECT_EQ(0, try_write64(p, 0x17));
		EXPECT_EQ(0, try_read64(p, &value));
		EXPECT_EQ(0x17ULL, value);
		munmap(p, PAGE_64K);
		EXPECT_EQ(0, testbed_close(&tb));
		if (kvm)
			break;
		for (i = 0; i < self->num_loose; i++)
			ASSERT_EQ(0, driver_unbind(self->loose[i]));
	}
}

TEST_F(socket, bridge_opens_without_a_region)
{
	struct vfio_device_info device = { .argsz = sizeof(device) };
	struct vfio_region_info *info;
	struct vfio_group group;
	unsigned int i;
	int dev;

	for (i = 0; i < self->num_loose; i++)
		ASSERT_EQ(0, driver_bind(self->loose[i], DRIVER));
	/* With a machine, which a bridge of a GPU binds that to. */
	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(self->loose[0]), true));
	for (i = 0; i < self->num_loose; i++) {
		if (pci_iommu_group(self->loose[i]) != group.id)
			continue;
		dev = vfio_device_open(&group, self->loose[i]);
		ASSERT_LE(0, dev)
			TH_LOG("%s: %s", self->loose[i], strerror(-dev));
		EXPECT_EQ(0, ioctl(dev, VFIO_DEVICE_GET_INFO, &device));
		EXPECT_EQ((__u32)REGION_FIRST_OWN, device.num_regions);
		EXPECT_EQ(-EINVAL, vfio_region(dev, REGION_FIRST_OWN, &info));
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED, dev,
					   REGION_OFFSET(REGION_FIRST_OWN)));
		close(dev);
	}
	vfio_group_close(&group);
}

TEST_HARNESS_MAIN
