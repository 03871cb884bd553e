// SPDX-License-Identifier: GPL-2.0
/*
 * In a guest (`emu run --pseries`) every device is an ordinary one, whatever it is: there is no NPU
 * below it, and nothing of what the driver asks of PowerNV is there.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "dt.h"
#include "hardware.h"
#include "sys.h"
#include "vfio.h"

#define PCI_DEVICES	"/sys/bus/pci/devices"

FIXTURE(guest)
{
	/* Of a PCI function that no driver has. */
	char bdf[NAME_MAX + 1];
	int kmsg;
};

static bool find_free_function(char *bdf, size_t size)
{
	DIR *dir = opendir(PCI_DEVICES);
	struct dirent *entry;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || !driver_is(entry->d_name, ""))
			continue;
		snprintf(bdf, size, "%s", entry->d_name);
		found = true;
	}
	closedir(dir);
	return found;
}

FIXTURE_SETUP(guest)
{
	ASSERT_FALSE(sys_exists("/proc/device-tree/ibm,opal"))
		TH_LOG("this test is for guests");
	ASSERT_TRUE(find_free_function(self->bdf, sizeof(self->bdf)));
	if (!module_loaded())
		ASSERT_EQ(0, module_load());
	self->kmsg = kmsg_open();
	ASSERT_LE(0, self->kmsg);
}

FIXTURE_TEARDOWN(guest)
{
	EXPECT_EQ(0, kmsg_splats(self->kmsg));
	close(self->kmsg);
	EXPECT_EQ(0, driver_unbind(self->bdf));
}

TEST_F(guest, defect_23_ordinary)
{
	char message[128], path[128], role[32];

	snprintf(message, sizeof(message), DRIVER " %s: the platform is not PowerNV", self->bdf);
	snprintf(path, sizeof(path), DEBUGFS "/%s/role", self->bdf);
	ASSERT_EQ(0, driver_bind(self->bdf, DRIVER));
	EXPECT_EQ(1, kmsg_count(self->kmsg, message));
	ASSERT_LT(0, sys_read(path, role, sizeof(role)));
	EXPECT_STREQ("ordinary", role);
}

/*
 * The hypervisor forgets a window that is removed: what is mapped by it has to be looked up before
 * that, or its memory counts as in use for ever.
 */
TEST_F(guest, memory_is_free_when_its_window_goes)
{
	const size_t size = 4 * host_page();
	struct vfio_group group;
	void *memory;

	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, memory);
	ASSERT_EQ(0, driver_bind(self->bdf, "vfio-pci"));
	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(self->bdf), false));
	ASSERT_EQ(0, vfio_dma_register(&group, memory, size));
	ASSERT_EQ(0, vfio_dma_map(&group, memory, group.window_start, size));
	EXPECT_EQ(-EBUSY, vfio_dma_unregister(&group, memory, size));
	ASSERT_EQ(0, vfio_group_replace_window(&group, group.page_shift));
	EXPECT_EQ(0, vfio_dma_unregister(&group, memory, size));
	vfio_group_close(&group);
	munmap(memory, size);
}

/* Opens the function by VFIO with a driver and gives its number of regions, or what failed. */
static int regions_with(const char *bdf, const char *driver)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_group group;
	int dev, ret = driver_bind(bdf, driver);

	ret = ret ?: vfio_group_open(&group, pci_iommu_group(bdf), false);
	if (ret)
		return ret;
	dev = vfio_device_open(&group, bdf);
	ret = dev;
	if (dev >= 0) {
		ret = ioctl(dev, VFIO_DEVICE_GET_INFO, &info) ? -errno : (int)info.num_regions;
		close(dev);
	}
	vfio_group_close(&group);
	return ret;
}

TEST_F(guest, has_what_vfio_pci_gives)
{
	EXPECT_EQ((int)VFIO_PCI_NUM_REGIONS, regions_with(self->bdf, "vfio-pci"));
	EXPECT_EQ((int)VFIO_PCI_NUM_REGIONS, regions_with(self->bdf, DRIVER));
	EXPECT_EQ(0, driver_unbind(self->bdf));
	EXPECT_EQ(0, module_unload());
}

TEST_HARNESS_MAIN
