// SPDX-License-Identifier: GPL-2.0
/*
 * An iommufd as the container of a group: TCE tables are none of its page tables, so that no device
 * can be had by it. What was tried leaves the GPU for the next user, and nothing in the NPU.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "npu.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"

/* Whether iommufd may have devices whose interrupts are not isolated from those of others. */
#define ALLOW_UNSAFE	"/sys/module/iommufd/parameters/allow_unsafe_interrupts"

FIXTURE(iommufd)
{
	struct testbed tb;
	const struct dt_gpu *gpu;
	/* With the iommufd as container. */
	struct vfio_group group;
};

FIXTURE_VARIANT(iommufd)
{
	bool kvm;
	const char *allow_unsafe;
	int error;
};

/* Refused before the driver is asked ... */
FIXTURE_VARIANT_ADD(iommufd, isolated)
{
	.allow_unsafe = "N",
	.error = EPERM,
};

FIXTURE_VARIANT_ADD(iommufd, isolated_kvm)
{
	.kvm = true,
	.allow_unsafe = "N",
	.error = EPERM,
};

/* ... and after it has opened the device. */
FIXTURE_VARIANT_ADD(iommufd, unsafe)
{
	.allow_unsafe = "Y",
	.error = EOPNOTSUPP,
};

FIXTURE_VARIANT_ADD(iommufd, unsafe_kvm)
{
	.kvm = true,
	.allow_unsafe = "Y",
	.error = EOPNOTSUPP,
};

FIXTURE_SETUP(iommufd)
{
	struct vfio_group *g = &self->group;
	char path[32];

	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
	self->gpu = &self->tb.topo.gpu[0];
	ASSERT_EQ(0, sys_write(ALLOW_UNSAFE, variant->allow_unsafe));
	*g = (struct vfio_group){
		.id = pci_iommu_group(self->gpu->bdf),
		.kvm = -1,
		.vm = -1,
		.kvm_vfio = -1,
		.kvm_table = -1,
	};
	g->container = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, g->container);
	snprintf(path, sizeof(path), "/dev/vfio/%d", g->id);
	g->group = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, g->group);
	ASSERT_EQ(0, ioctl(g->group, VFIO_GROUP_SET_CONTAINER, &g->container));
	if (variant->kvm)
		ASSERT_EQ(0, vfio_group_make_vm(g));
}

FIXTURE_TEARDOWN(iommufd)
{
	vfio_group_close(&self->group);
	EXPECT_EQ(0, sys_write(ALLOW_UNSAFE, "N"));
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* What the driver says @bdf is bound to: "none" or an LPID. */
static const char *driver_lpar(const char *bdf)
{
	static char lpar[32];
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/%s/lpar", bdf);
	return sys_read(path, lpar, sizeof(lpar)) < 0 ? "?" : lpar;
}

TEST_F(iommufd, opens_no_device)
{
	const struct dt_gpu *gpu = self->gpu;
	unsigned int i;

	for (i = 0; i <= gpu->num_links; i++) {
		const char *bdf = i ? gpu->link[i - 1].bdf : gpu->bdf;

		errno = 0;
		EXPECT_EQ(-1, ioctl(self->group.group, VFIO_GROUP_GET_DEVICE_FD, bdf));
		EXPECT_EQ(variant->error, errno)
			TH_LOG("%s", bdf);
		EXPECT_STREQ("none", driver_lpar(bdf));
	}
	EXPECT_STREQ("", npu_not_clear());
}

/* With TCEs the group, whose container it was, gives the GPU, its RAM, and its LPAR. */
TEST_F(iommufd, leaves_the_group_to_tces)
{
	struct testbed *tb = &self->tb;
	__u64 value;
	char *p;

	EXPECT_EQ(-1, ioctl(self->group.group, VFIO_GROUP_GET_DEVICE_FD, self->gpu->bdf));
	vfio_group_close(&self->group);
	ASSERT_EQ(0, testbed_close(tb));
	ASSERT_EQ(0, testbed_open(tb, 0, variant->kvm))
		TH_LOG("%s", tb->why);
	EXPECT_EQ(!variant->kvm, !strcmp("none", driver_lpar(self->gpu->bdf)));
	p = vfio_map(tb->dev, tb->ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, try_write64(p, 42));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(42, value);
	EXPECT_EQ(0, vfio_dma_register(&tb->group, p, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_map(&tb->group, p, 0, PAGE_64K));
	EXPECT_LT(0, testbed_tves_with(tb, 0, self->gpu->aperture | TCE_READ_WRITE));
	EXPECT_EQ(0, vfio_dma_unmap(&tb->group, 0, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unregister(&tb->group, p, PAGE_64K));
	EXPECT_EQ(0, munmap(p, PAGE_64K));
}

TEST_HARNESS_MAIN
