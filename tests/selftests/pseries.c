// SPDX-License-Identifier: GPL-2.0
/*
 * In a guest (`emu run --pseries`) the driver refuses every device, whatever it is: there is no
 * NPU below it, and nothing of what the driver asks of PowerNV is there.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"

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

TEST_F(guest, defect_23_refused)
{
	char message[128];

	snprintf(message, sizeof(message), DRIVER " %s: the platform is not PowerNV", self->bdf);
	EXPECT_EQ(-ENODEV, driver_bind(self->bdf, DRIVER));
	EXPECT_TRUE(driver_is(self->bdf, ""));
	EXPECT_EQ(1, kmsg_count(self->kmsg, message));
}

/* What the message says to do. */
TEST_F(guest, vfio_pci_takes_what_was_refused)
{
	EXPECT_EQ(-ENODEV, driver_bind(self->bdf, DRIVER));
	EXPECT_EQ(0, driver_bind(self->bdf, "vfio-pci"));
	EXPECT_EQ(0, driver_unbind(self->bdf));
	EXPECT_EQ(0, module_unload());
}

TEST_HARNESS_MAIN
