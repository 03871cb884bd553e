// SPDX-License-Identifier: GPL-2.0
/*
 * TCEs that the guest sets by itself, by a hypercall that KVM knows the group's window for: memory
 * is in use as long as it is mapped, and nothing is mapped that nobody would clear.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "guest.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"

#define PID	77
/* A page of the guest's, and where it maps it. */
#define PAGE	3
#define IOBA(g)	((g)->window_start + 5 * PAGE_64K)

FIXTURE(tce)
{
	struct testbed tb;
	struct vfio_group group;
	struct guest guest;
};

FIXTURE_SETUP(tce)
{
	self->guest.vcpu = -1;
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, vfio_group_open(&self->group,
				     pci_iommu_group(self->tb.topo.gpu[0].bdf), true));
	ASSERT_EQ(0, guest_create(&self->guest, self->group.vm, PID));
	ASSERT_EQ(0, vfio_dma_register(&self->group, self->guest.memory, GUEST_MEMORY_SIZE));
}

/* That nothing warns of memory that stays registered is seen in the kernel log. */
FIXTURE_TEARDOWN(tce)
{
	vfio_group_close(&self->group);
	guest_destroy(&self->guest);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static int put_tce(struct guest *guest, const struct vfio_group *group, __u64 permissions)
{
	return guest_put_tce(guest, VFIO_GROUP_LIOBN, IOBA(group),
			     permissions ? guest_gpa(PAGE) | permissions : 0);
}

static int unregister(const struct guest *guest, const struct vfio_group *group)
{
	return vfio_dma_unregister(group, guest->memory, GUEST_MEMORY_SIZE);
}

TEST_F(tce, memory_is_in_use_while_it_is_mapped)
{
	ASSERT_EQ(0, put_tce(&self->guest, &self->group, TCE_READ_WRITE));
	EXPECT_EQ(-EBUSY, unregister(&self->guest, &self->group));
	/* Once more, over what is there. */
	ASSERT_EQ(0, put_tce(&self->guest, &self->group, TCE_READ_WRITE));
	EXPECT_EQ(-EBUSY, unregister(&self->guest, &self->group));
	ASSERT_EQ(0, put_tce(&self->guest, &self->group, 0));
	ASSERT_EQ(0, put_tce(&self->guest, &self->group, 0));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

/* What the guest has mapped VFIO clears with the window. */
TEST_F(tce, window_goes_with_what_is_mapped)
{
	struct vfio_iommu_spapr_tce_remove remove = {
		.argsz = sizeof(remove), .start_addr = self->group.window_start,
	};

	ASSERT_EQ(0, put_tce(&self->guest, &self->group, TCE_READ_WRITE));
	ASSERT_EQ(0, ioctl(self->group.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

/* KVM still has the table of a window that is gone. Nobody would clear what came into it now. */
TEST_F(tce, nothing_is_mapped_by_a_window_that_is_gone)
{
	struct vfio_iommu_spapr_tce_remove remove = {
		.argsz = sizeof(remove), .start_addr = self->group.window_start,
	};

	ASSERT_EQ(0, ioctl(self->group.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove));
	EXPECT_EQ(-ENOTSUP, put_tce(&self->guest, &self->group, TCE_READ_WRITE));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

TEST_HARNESS_MAIN
