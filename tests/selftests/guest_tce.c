// SPDX-License-Identifier: GPL-2.0
/*
 * TCEs that the guest sets by itself, by a hypercall that KVM knows the group's window for: memory
 * is in use as long as it is mapped, and nothing is mapped that nobody would clear.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "kselftest_harness.h"

#include "guest.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"

#define PID	77
/* A page of the guest's, and where it maps it. */
#define PAGE	3
/* Where it has lists of TCEs. */
#define LIST	5
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
	ASSERT_EQ(0, guest_enable_tce_ranges(self->group.vm));
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

static int put_tces(struct guest *guest, const struct vfio_group *group, unsigned int count)
{
	return guest_put_tces(guest, VFIO_GROUP_LIOBN, IOBA(group), LIST, count);
}

/* Any number of TCEs at once, of which most were not there. */
TEST_F(tce, range_is_cleared)
{
	const unsigned int count = 6;
	unsigned int i;

	for (i = 0; i < count; i++)
		guest_write_tce(&self->guest, LIST, i, guest_gpa(i) | TCE_READ_WRITE);
	ASSERT_EQ(0, put_tces(&self->guest, &self->group, count));
	EXPECT_EQ(-EBUSY, unregister(&self->guest, &self->group));
	ASSERT_EQ(0, guest_stuff_tces(&self->guest, VFIO_GROUP_LIOBN, IOBA(&self->group), 0,
				      count - 1));
	EXPECT_EQ(-EBUSY, unregister(&self->guest, &self->group));
	ASSERT_EQ(0, guest_stuff_tces(&self->guest, VFIO_GROUP_LIOBN, self->group.window_start, 0,
				      self->group.window_size >> self->group.page_shift));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

/* A TCE that permits nothing maps nothing, and nothing has to clear it. */
TEST_F(tce, list_that_permits_nothing)
{
	guest_write_tce(&self->guest, LIST, 0, guest_gpa(PAGE) | TCE_READ_WRITE);
	guest_write_tce(&self->guest, LIST, 1, guest_gpa(PAGE));
	ASSERT_EQ(0, put_tces(&self->guest, &self->group, 2));
	EXPECT_EQ(-EBUSY, unregister(&self->guest, &self->group));
	guest_write_tce(&self->guest, LIST, 0, 0);
	guest_write_tce(&self->guest, LIST, 1, 0);
	ASSERT_EQ(0, put_tces(&self->guest, &self->group, 2));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

/* The middle of a page of the window. */
static __u64 no_page(const struct vfio_group *group)
{
	return guest_gpa(PAGE) + (1UL << group->page_shift) / 2;
}

/* Nor is its address one of a page. The host ends if it is taken for that. */
TEST_F(tce, list_of_no_addresses)
{
	guest_write_tce(&self->guest, LIST, 0, no_page(&self->group));
	guest_write_tce(&self->guest, LIST, 1, ~0ULL << 12);
	ASSERT_EQ(0, put_tces(&self->guest, &self->group, 2));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

/* Another processor of the guest's, which changes the last TCE of a list. */
struct changer {
	struct guest *guest;
	__u64 no_page;
	atomic_bool stop;
};

static void *change_list(void *arg)
{
	struct changer *c = arg;

	while (!atomic_load(&c->stop)) {
		guest_write_tce(c->guest, LIST, GUEST_TCES - 1,
				c->no_page | TCE_READ_WRITE);
		guest_write_tce(c->guest, LIST, GUEST_TCES - 1, guest_gpa(PAGE) | TCE_READ_WRITE);
	}
	return NULL;
}

/* KVM reads a list twice. What it read first is not what it uses. */
TEST_F_TIMEOUT(tce, list_that_changes, 120)
{
	struct changer c = { .guest = &self->guest, .no_page = no_page(&self->group) };
	unsigned int i, set = 0, left = 0;
	pthread_t thread;
	int ret;

	for (i = 0; i < GUEST_TCES; i++)
		guest_write_tce(&self->guest, LIST, i, guest_gpa(PAGE) | TCE_READ_WRITE);
	ASSERT_EQ(0, pthread_create(&thread, NULL, change_list, &c));
	for (i = 0; i < 400; i++) {
		ret = put_tces(&self->guest, &self->group, GUEST_TCES);
		if (!ret)
			set++;
		else if (ret == -ENOTSUP)
			left++;
		else
			break;
	}
	atomic_store(&c.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(400U, i)
		TH_LOG("%s", strerror(-ret));
	EXPECT_LT(0U, set);
	EXPECT_LT(0U, left);
	ASSERT_EQ(0, guest_stuff_tces(&self->guest, VFIO_GROUP_LIOBN, IOBA(&self->group), 0,
				      GUEST_TCES));
	EXPECT_EQ(0, unregister(&self->guest, &self->group));
}

/* Gives the VM the group's window as a table of pages of 1 << @shift. */
static int set_table_of(const struct vfio_group *group, unsigned int shift)
{
	struct kvm_create_spapr_tce_64 tce = {
		.liobn = VFIO_GROUP_LIOBN + shift,
		.page_shift = shift,
		.offset = group->window_start >> shift,
		.size = group->window_size >> shift,
	};
	struct vfio_group g = *group;
	int ret;

	g.kvm_table = ioctl(g.vm, KVM_CREATE_SPAPR_TCE_64, &tce);
	if (g.kvm_table < 0)
		return -errno;
	ret = vfio_group_set_table(&g);
	close(g.kvm_table);
	return ret;
}

/* A TCE of the guest's is set in one go, however many TCEs of the host that makes. */
TEST_F(tce, pages_are_not_of_too_many_pieces)
{
	EXPECT_EQ(0, set_table_of(&self->group, self->group.page_shift + 12));
	EXPECT_EQ(-EINVAL, set_table_of(&self->group, self->group.page_shift + 13));
}

/* A group without a VM, whose tables are not for everyone. */
FIXTURE(table)
{
	struct testbed tb;
	struct vfio_group group;
};

FIXTURE_SETUP(table)
{
	self->group = (struct vfio_group){
		.container = -1, .group = -1, .kvm = -1, .vm = -1, .kvm_vfio = -1, .kvm_table = -1,
	};
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
	self->group.id = pci_iommu_group(self->tb.topo.gpu[0].bdf);
}

FIXTURE_TEARDOWN(table)
{
	vfio_group_close(&self->group);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* A container that pins each page as it is mapped, with the window that it begins with. */
static int open_v1(struct vfio_group *g)
{
	struct vfio_iommu_spapr_tce_info info = { .argsz = sizeof(info) };
	char path[32];

	snprintf(path, sizeof(path), "/dev/vfio/%d", g->id);
	g->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	g->group = open(path, O_RDWR | O_CLOEXEC);
	if (g->container < 0 || g->group < 0)
		return -errno;
	if (ioctl(g->group, VFIO_GROUP_SET_CONTAINER, &g->container) ||
	    ioctl(g->container, VFIO_SET_IOMMU, VFIO_SPAPR_TCE_IOMMU) ||
	    ioctl(g->container, VFIO_IOMMU_SPAPR_TCE_GET_INFO, &info) ||
	    ioctl(g->container, VFIO_IOMMU_ENABLE))
		return -errno;
	g->window_start = info.dma32_window_start;
	g->window_size = info.dma32_window_size;
	g->page_shift = 12;
	return 0;
}

/*
 * VFIO unpins what it finds in the table of such a container. What KVM sets is not pinned for that,
 * and may be memory of a GPU.
 */
TEST_F(table, of_a_container_that_pins)
{
	void *p = anonymous(PAGE_64K);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, open_v1(&self->group));
	ASSERT_EQ(0, vfio_dma_map(&self->group, p, self->group.window_start, PAGE_64K));
	EXPECT_EQ(-EINVAL, vfio_group_add_vm(&self->group));
	EXPECT_EQ(0, vfio_dma_unmap(&self->group, self->group.window_start, PAGE_64K));
}

/* The addresses that KVM notes down are its process's, and VFIO takes them for its own. */
TEST_F(table, of_another_process)
{
	int status;
	pid_t child;

	ASSERT_EQ(0, vfio_group_open(&self->group, self->group.id, false));
	child = fork();
	ASSERT_LE(0, child);
	if (!child)
		_exit(-vfio_group_add_vm(&self->group));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(EINVAL, WEXITSTATUS(status));
	EXPECT_EQ(0, vfio_group_add_vm(&self->group));
}

TEST_HARNESS_MAIN
