// SPDX-License-Identifier: GPL-2.0
/*
 * For which LPAR the NPU translates addresses of a GPU, and launches shootdowns: of the virtual
 * machine that the GPU or a bridge of it is open for, and of nobody else at any other time. What
 * the NPU knows is read out of the emulator.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "npu.h"
#include "sys.h"
#include "testbed.h"

/* A GPU and its links. */
#define MAX_DEVICES	(1 + DT_MAX_LINKS)

#define ATSD_AVA	0x8

/* More SCOM accesses than an open makes. */
#define MANY		"100000"

/* The LPID that @g is mapped for, 0 if none; @entry gets its place in the BDF map. */
static unsigned int mapped_lpid(const struct npu *npu, const struct dt_gpu *g, unsigned int *entry)
{
	unsigned int i;

	for (i = 0; i < NUM_BDF_MAP; i++) {
		__u64 e = npu->bdf_map[i];

		if (e & BDF_VALID && BDF_OF(e) == bdfn(g->bdf)) {
			if (entry)
				*entry = i;
			return LPID_OF(e);
		}
	}
	return 0;
}

/*
 * Why @npu is not as it has to be while @g is bound to LPID @lpid; "" if it is. Whether anything
 * is translated: see translates().
 */
static const char *not_bound(const struct dt_gpu *g, unsigned int lpid)
{
	unsigned int i, entry = 0;
	struct npu npu;
	__u64 pid;

	if (npu_read(&npu))
		return "the emulator does not tell";
	if (!lpid || mapped_lpid(&npu, g, &entry) != lpid)
		return "BDF map";
	pid = npu.pid_map[BDF_LPARSHORT(npu.bdf_map[entry])];
	if (pid & PID_MSR_HV)
		return "MSR_HV";
	if (!(pid & PID_MSR_DR) || !(pid & PID_MSR_PR))
		return "MSR_DR, MSR_PR";
	for (i = 0; i < g->num_links; i++) {
		if (npu.atsd_lparid[g->link[i].link_index] != lpid)
			return "LPARID of an ATSD register";
	}
	return "";
}

/* Whether the NPU translates addresses for @g. */
static bool translates(const struct dt_gpu *g)
{
	unsigned int entry;
	struct npu npu;

	return !npu_read(&npu) && mapped_lpid(&npu, g, &entry) &&
	       npu.pid_map[BDF_LPARSHORT(npu.bdf_map[entry])] & PID_VALID_ATR;
}

/* What the driver says @bdf is bound to: "none" or an LPID. */
static const char *driver_lpar(const char *bdf)
{
	static char lpar[32];
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/%s/lpar", bdf);
	return sys_read(path, lpar, sizeof(lpar)) < 0 ? "?" : lpar;
}

static unsigned int driver_lpid(const char *bdf)
{
	return strtoul(driver_lpar(bdf), NULL, 10);
}

/* Module and bindings, and a group with a VM. */
struct bed {
	struct testbed tb;
	const struct dt_gpu *gpu;
	struct vfio_group group;
	/* The GPU is device 0, its links follow. */
	unsigned int num_devices;
	int dev[MAX_DEVICES];
};

FIXTURE(lpar)
{
	struct bed bed;
};

FIXTURE_SETUP(lpar)
{
	struct bed *bed = &self->bed;
	unsigned int i;

	for (i = 0; i < MAX_DEVICES; i++)
		bed->dev[i] = -1;
	ASSERT_EQ(0, testbed_bind(&bed->tb))
		TH_LOG("%s", bed->tb.why);
	bed->gpu = &bed->tb.topo.gpu[0];
	bed->num_devices = 1 + bed->gpu->num_links;
	ASSERT_EQ(0, vfio_group_open(&bed->group, pci_iommu_group(bed->gpu->bdf), true));
	ASSERT_STREQ("", npu_not_clear());
}

/* What a test of two GPUs is skipped for on a chip that has one. */
#define NO_OTHER "no other GPU is in the group: its socket is empty"

/* Another GPU of the group, which is on the same chip; NULL if there is none. */
static const struct dt_gpu *other_gpu(const struct bed *bed)
{
	const struct dt_topology *t = &bed->tb.topo;
	unsigned int i;

	for (i = 0; i < t->num_gpus; i++) {
		if (&t->gpu[i] != bed->gpu && pci_iommu_group(t->gpu[i].bdf) == bed->group.id)
			return &t->gpu[i];
	}
	return NULL;
}

static const char *device_bdf(const struct bed *bed, unsigned int i)
{
	return i ? bed->gpu->link[i - 1].bdf : bed->gpu->bdf;
}

/* 0 or a negative errno. */
static int device_open(struct bed *bed, unsigned int i)
{
	bed->dev[i] = vfio_device_open(&bed->group, device_bdf(bed, i));
	return bed->dev[i] < 0 ? bed->dev[i] : 0;
}

static void device_close(struct bed *bed, unsigned int i)
{
	if (bed->dev[i] >= 0)
		close(bed->dev[i]);
	bed->dev[i] = -1;
}

FIXTURE_TEARDOWN(lpar)
{
	struct bed *bed = &self->bed;
	unsigned int i;

	npu_set("inject-xts-full", "false");
	npu_set("inject-scom-error", "0");
	for (i = 0; i < MAX_DEVICES; i++)
		device_close(bed, i);
	vfio_group_close(&bed->group);
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_EQ(0, testbed_close(&bed->tb));
}

/* Whoever opens first binds, whoever closes last unbinds. */
TEST_F_TIMEOUT(lpar, bound_from_first_open_to_last_close, 900)
{
	struct bed *bed = &self->bed;
	/* The GPU, and its first and its last link. */
	const unsigned int last = bed->num_devices - 1;
	const unsigned int orders[][3] = {
		{ 0, 1, last }, { 0, last, 1 }, { 1, 0, last },
		{ 1, last, 0 }, { last, 0, 1 }, { last, 1, 0 },
	};
	unsigned int o, c, i, lpid = 0;

	ASSERT_LE(3, bed->num_devices);
	for (o = 0; o < ARRAY_SIZE(orders); o++) {
		for (c = 0; c < ARRAY_SIZE(orders); c++) {
			for (i = 0; i < 3; i++) {
				ASSERT_EQ(0, device_open(bed, orders[o][i]));
				if (i)
					continue;
				lpid = driver_lpid(bed->gpu->bdf);
				ASSERT_STREQ("", not_bound(bed->gpu, lpid))
					TH_LOG("opened %u first", orders[o][0]);
				/* A bridge alone is no reason: the GPU was not reset yet. */
				EXPECT_EQ(!orders[o][0], translates(bed->gpu));
			}
			EXPECT_TRUE(translates(bed->gpu));
			for (i = 0; i < bed->num_devices; i++)
				EXPECT_EQ(lpid, driver_lpid(device_bdf(bed, i)));
			for (i = 0; i < 2; i++)
				device_close(bed, orders[c][i]);
			ASSERT_STREQ("", not_bound(bed->gpu, lpid))
				TH_LOG("only %u is open, opened in order %u", orders[c][2], o);
			device_close(bed, orders[c][2]);
			ASSERT_STREQ("", npu_not_clear())
				TH_LOG("opened in order %u, closed in order %u", o, c);
			EXPECT_STREQ("none", driver_lpar(bed->gpu->bdf));
		}
	}
}

/* Defect 10: only the registers of the links of the GPU that is bound. */
TEST_F(lpar, defect_10_other_gpus_are_not_bound)
{
	struct bed *bed = &self->bed;
	const struct dt_gpu *other = other_gpu(bed);
	struct npu npu;
	unsigned int i;

	if (!other)
		SKIP(return, NO_OTHER);
	ASSERT_EQ(0, device_open(bed, 1));
	ASSERT_EQ(0, npu_read(&npu));
	EXPECT_EQ(0, mapped_lpid(&npu, other, NULL));
	for (i = 0; i < other->num_links; i++)
		EXPECT_EQ(0, npu.atsd_lparid[other->link[i].link_index]);
	EXPECT_STREQ("none", driver_lpar(other->bdf));
}

/* Two GPUs of one VM: each has a binding of its own, to the same LPID. */
TEST_F(lpar, gpus_of_one_vm_are_bound_one_by_one)
{
	struct bed *bed = &self->bed;
	const struct dt_gpu *other = other_gpu(bed);
	unsigned int lpid;
	int dev;

	if (!other)
		SKIP(return, NO_OTHER);
	ASSERT_EQ(0, device_open(bed, 0));
	lpid = driver_lpid(bed->gpu->bdf);
	dev = vfio_device_open(&bed->group, other->bdf);
	ASSERT_LE(0, dev);
	EXPECT_STREQ("", not_bound(bed->gpu, lpid));
	EXPECT_STREQ("", not_bound(other, lpid));
	device_close(bed, 0);
	EXPECT_STREQ("", not_bound(other, lpid));
	EXPECT_STREQ("none", driver_lpar(bed->gpu->bdf));
	close(dev);
	EXPECT_STREQ("", npu_not_clear());
}

TEST_F(lpar, bound_until_a_killed_process_is_gone)
{
	struct bed *bed = &self->bed;
	unsigned int i, lpid = 0;
	int ready[2], status;
	pid_t child;

	/* The child has a group of its own. */
	vfio_group_close(&bed->group);
	ASSERT_EQ(0, pipe(ready));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		if (vfio_group_open(&bed->group, pci_iommu_group(bed->gpu->bdf), true))
			_exit(1);
		for (i = 0; i < bed->num_devices; i++) {
			if (device_open(bed, i))
				_exit(1);
		}
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	close(ready[1]);
	EXPECT_EQ(1, read(ready[0], &status, 1));
	close(ready[0]);
	lpid = driver_lpid(bed->gpu->bdf);
	EXPECT_STREQ("", not_bound(bed->gpu, lpid));
	ASSERT_EQ(0, kill(child, SIGKILL));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_STREQ("", npu_not_clear());
}

TEST_F(lpar, module_goes_only_when_nothing_is_bound)
{
	struct bed *bed = &self->bed;

	ASSERT_EQ(0, device_open(bed, 0));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	device_close(bed, 0);
	vfio_group_close(&bed->group);
	/* Whoever cannot load it again would leave the host without. */
	ASSERT_EQ(0, module_available());
	ASSERT_EQ(0, module_unload());
	EXPECT_STREQ("", npu_not_clear());
	ASSERT_EQ(0, module_load());
}

/* Defect 6: the LPID stays with a VM whose last descriptor is gone, as long as the NPU knows it. */
TEST_F(lpar, defect_6_lpid_is_not_reused_while_bound)
{
	struct bed *bed = &self->bed;
	const struct dt_gpu *other = other_gpu(bed);
	unsigned int first, second;
	int dev;

	if (!other)
		SKIP(return, NO_OTHER);
	ASSERT_EQ(0, device_open(bed, 0));
	first = driver_lpid(bed->gpu->bdf);
	vfio_group_drop_vm(&bed->group);
	EXPECT_STREQ("", not_bound(bed->gpu, first));

	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	dev = vfio_device_open(&bed->group, other->bdf);
	ASSERT_LE(0, dev);
	second = driver_lpid(other->bdf);
	EXPECT_NE(first, second);
	EXPECT_STREQ("", not_bound(other, second));
	EXPECT_STREQ("", not_bound(bed->gpu, first));
	close(dev);
	device_close(bed, 0);
	EXPECT_STREQ("", npu_not_clear());
}

/* One GPU cannot be two machines'. */
TEST_F(lpar, second_vm_is_refused)
{
	struct bed *bed = &self->bed;
	unsigned int first, second;

	ASSERT_EQ(0, device_open(bed, 0));
	first = driver_lpid(bed->gpu->bdf);
	vfio_group_drop_vm(&bed->group);
	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	EXPECT_EQ(-EBUSY, device_open(bed, 1));
	EXPECT_EQ(1, kmsg_count(bed->tb.kmsg, "close the GPU and its bridges first"));
	EXPECT_STREQ("", not_bound(bed->gpu, first));

	device_close(bed, 0);
	EXPECT_EQ(0, device_open(bed, 1));
	second = driver_lpid(bed->gpu->bdf);
	EXPECT_NE(0, second);
	EXPECT_STREQ("", not_bound(bed->gpu, second));
}

/* Without a KVM everything else works. */
TEST_F(lpar, defect_9_without_kvm_nothing_is_bound)
{
	struct bed *bed = &self->bed;
	struct vfio_region_info *info;

	vfio_group_drop_vm(&bed->group);
	ASSERT_EQ(0, device_open(bed, 1));
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_EQ(-ENOENT, vfio_find_atsd(bed->dev[1], &info));
	ASSERT_EQ(0, device_open(bed, 0));
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_STREQ("none", driver_lpar(bed->gpu->bdf));
	ASSERT_EQ(0, vfio_find_gpu_ram(bed->dev[0], &info));
	free(info);

	device_close(bed, 0);

	/* A KVM that comes later counts for those who open later. */
	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	EXPECT_STREQ("", npu_not_clear());
	ASSERT_EQ(0, device_open(bed, 2));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	ASSERT_EQ(0, vfio_find_atsd(bed->dev[2], &info));
	free(info);
	EXPECT_EQ(-ENOENT, vfio_find_atsd(bed->dev[1], &info));
	device_close(bed, 2);
	EXPECT_STREQ("", npu_not_clear());
}

/*
 * A GPU keeps translations until it is reset, so they would outlive a binding that begins and ends
 * while the GPU is open without a virtual machine, and the next machine with that LPID would have
 * its memory reached through them.
 */
TEST_F(lpar, gpu_open_without_kvm_is_not_bound_by_a_bridge)
{
	struct bed *bed = &self->bed;

	vfio_group_drop_vm(&bed->group);
	ASSERT_EQ(0, device_open(bed, 0));
	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	EXPECT_EQ(-EBUSY, device_open(bed, 1));
	EXPECT_STREQ("", npu_not_clear());
	device_close(bed, 0);

	ASSERT_EQ(0, device_open(bed, 1));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	vfio_group_drop_vm(&bed->group);
	EXPECT_EQ(-EBUSY, device_open(bed, 0));
	device_close(bed, 1);
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_EQ(0, device_open(bed, 0));
}

/* A binding that was revoked is nobody's: the GPU may be open without a machine, and stays so. */
TEST_F(lpar, gpu_open_without_kvm_after_a_revocation)
{
	struct bed *bed = &self->bed;
	struct vfio_region_info *info;
	__u64 value, ava;

	ASSERT_EQ(0, device_open(bed, 1));
	ASSERT_EQ(0, vfio_find_atsd(bed->dev[1], &info));
	ava = info->offset + ATSD_AVA;
	free(info);
	ASSERT_EQ(sizeof(value), pread(bed->dev[1], &value, sizeof(value), ava));
	ASSERT_EQ(0, driver_unbind(bed->gpu->bdf));
	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, DRIVER));

	vfio_group_drop_vm(&bed->group);
	ASSERT_EQ(0, device_open(bed, 0));
	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	EXPECT_EQ(-EBUSY, device_open(bed, 2));
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_EQ(-1, pread(bed->dev[1], &value, sizeof(value), ava));
	EXPECT_EQ(EIO, errno);
	device_close(bed, 0);

	/* What was the last machine's is not the next one's. */
	ASSERT_EQ(0, device_open(bed, 2));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	EXPECT_EQ(-1, pread(bed->dev[1], &value, sizeof(value), ava));
	EXPECT_EQ(EIO, errno);
	device_close(bed, 1);
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
}

/* Defect 11. */
TEST_F(lpar, defect_11_hash_guest_is_refused)
{
	struct bed *bed = &self->bed;
	struct kvm_ppc_mmuv3_cfg hash = { .flags = 0 };

	if (!ioctl(bed->group.vm, KVM_CHECK_EXTENSION, KVM_CAP_PPC_MMU_HASH_V3))
		SKIP(return, "this host runs no hash guests");
	ASSERT_EQ(0, ioctl(bed->group.vm, KVM_PPC_CONFIGURE_V3_MMU, &hash));
	EXPECT_EQ(-EOPNOTSUPP, device_open(bed, 0));
	EXPECT_EQ(-EOPNOTSUPP, device_open(bed, 1));
	EXPECT_EQ(2, kmsg_count(bed->tb.kmsg, "start it with the radix MMU"));
	EXPECT_STREQ("", npu_not_clear());

	vfio_group_drop_vm(&bed->group);
	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	EXPECT_EQ(0, device_open(bed, 0));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
}

/* What was a radix guest when the device was opened stays one while the NPU translates for it. */
TEST_F(lpar, defect_11_bound_guest_keeps_its_mmu)
{
	struct bed *bed = &self->bed;
	struct kvm_ppc_mmuv3_cfg hash = { .flags = 0 };
	__u32 order = 24;

	if (!ioctl(bed->group.vm, KVM_CHECK_EXTENSION, KVM_CAP_PPC_MMU_HASH_V3))
		SKIP(return, "this host runs no hash guests");
	ASSERT_EQ(0, device_open(bed, 0));
	EXPECT_EQ(-1, ioctl(bed->group.vm, KVM_PPC_CONFIGURE_V3_MMU, &hash));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(-1, ioctl(bed->group.vm, KVM_PPC_ALLOCATE_HTAB, &order));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	device_close(bed, 0);
	EXPECT_EQ(0, ioctl(bed->group.vm, KVM_PPC_CONFIGURE_V3_MMU, &hash));
}

TEST_F(lpar, binding_is_traced)
{
	struct bed *bed = &self->bed;
	char bound[128];

	ASSERT_EQ(0, trace_start("selftest-lpar"));
	ASSERT_EQ(0, device_open(bed, 1));
	ASSERT_EQ(0, device_open(bed, 0));
	snprintf(bound, sizeof(bound), "gpu=%s lpid=%s result=0", bed->gpu->bdf,
		 driver_lpar(bed->gpu->bdf));
	device_close(bed, 1);
	EXPECT_EQ(0, trace_count("selftest-lpar", "nvlink2_lpar_unbind", NULL));
	device_close(bed, 0);
	EXPECT_EQ(1, trace_count("selftest-lpar", "nvlink2_lpar_bind", NULL));
	EXPECT_EQ(1, trace_count("selftest-lpar", "nvlink2_lpar_bind", bound));
	EXPECT_EQ(1, trace_count("selftest-lpar", "nvlink2_lpar_unbind", NULL));
	EXPECT_EQ(1, trace_count("selftest-lpar", "nvlink2_lpar_unbind", bound));
	trace_stop("selftest-lpar");
}

/* The registers of a bridge are the guest's no longer once its GPU has gone. */
TEST_F(lpar, unbound_gpu_takes_the_binding_with_it)
{
	struct bed *bed = &self->bed;
	struct vfio_region_info *info;
	__u64 value;
	char *p;

	ASSERT_EQ(0, device_open(bed, 1));
	ASSERT_EQ(0, vfio_find_atsd(bed->dev[1], &info));
	p = vfio_map(bed->dev[1], info, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_read64(p + ATSD_AVA, &value));

	ASSERT_EQ(0, driver_unbind(bed->gpu->bdf));
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_STREQ("none", driver_lpar(device_bdf(bed, 1)));
	EXPECT_EQ(SIGBUS, try_read64(p + ATSD_AVA, &value));
	EXPECT_EQ(-1, pread(bed->dev[1], &value, 8, info->offset + ATSD_AVA));
	EXPECT_EQ(EIO, errno);

	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, DRIVER));
	ASSERT_EQ(0, device_open(bed, 0));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	EXPECT_EQ(SIGBUS, try_read64(p + ATSD_AVA, &value));
	munmap(p, PAGE_64K);
	device_close(bed, 1);
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));

	ASSERT_EQ(0, device_open(bed, 1));
	p = vfio_map(bed->dev[1], info, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, try_read64(p + ATSD_AVA, &value));
	munmap(p, PAGE_64K);
	free(info);
}

/* The same with a GPU that is pulled out, and comes back. */
TEST_F(lpar, unplugged_gpu_takes_the_binding_with_it)
{
	struct bed *bed = &self->bed;
	struct vfio_region_info *info;
	char path[128];
	__u64 value;
	char *p;

	ASSERT_EQ(0, device_open(bed, 1));
	ASSERT_EQ(0, vfio_find_atsd(bed->dev[1], &info));
	p = vfio_map(bed->dev[1], info, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", bed->gpu->bdf);
	ASSERT_EQ(0, sys_write(path, "1"));
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_EQ(SIGBUS, try_read64(p + ATSD_AVA, &value));
	munmap(p, PAGE_64K);
	free(info);

	/* Another of its bridges: there is nothing to bind. */
	EXPECT_EQ(-ENODEV, device_open(bed, 2));
	EXPECT_EQ(1, kmsg_count(bed->tb.kmsg, "rescan the bus"));

	ASSERT_EQ(0, sys_write("/sys/bus/pci/rescan", "1"));
	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, DRIVER));
	ASSERT_EQ(0, device_open(bed, 0));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	EXPECT_EQ(0, device_open(bed, 2));
	device_close(bed, 0);
	device_close(bed, 1);
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(device_bdf(bed, 2))));
}

/*
 * Defect 20: no reference to a GPU is kept when it goes. The kernel gives its PE back then, and
 * sets it up anew when the GPU is found again.
 */
TEST_F(lpar, defect_20_unplugged_gpu_is_let_go)
{
	struct bed *bed = &self->bed;
	char path[128];
	unsigned int i;

	for (i = 0; i < bed->num_devices; i++)
		ASSERT_EQ(0, device_open(bed, i));
	for (i = 0; i < bed->num_devices; i++)
		device_close(bed, i);
	kmsg_count(bed->tb.kmsg, "");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", bed->gpu->bdf);
	ASSERT_EQ(0, sys_write(path, "1"));
	ASSERT_EQ(0, sys_write("/sys/bus/pci/rescan", "1"));
	EXPECT_EQ(1, kmsg_count(bed->tb.kmsg, "Configured PE#"))
		TH_LOG("the GPU's PE was still there");
	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, DRIVER));
}

/*
 * Nobody tells this driver about a GPU that is another's: its memory may be unmapped, and it may be
 * unplugged, without the binding's end.
 */
TEST_F(lpar, bridges_of_a_gpu_with_another_driver_are_refused)
{
	struct bed *bed = &self->bed;
	struct vfio_region_info *info;
	char path[128];

	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, "vfio-pci"));
	EXPECT_EQ(-ENODEV, device_open(bed, 1));
	EXPECT_EQ(1, kmsg_count(bed->tb.kmsg, DRIVER " does not have the GPU"));
	EXPECT_STREQ("", npu_not_clear());

	/* Nothing is mapped that unplugging the GPU would take away. */
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", bed->gpu->bdf);
	ASSERT_EQ(0, sys_write(path, "1"));
	EXPECT_EQ(-ENODEV, device_open(bed, 1));
	ASSERT_EQ(0, sys_write("/sys/bus/pci/rescan", "1"));
	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, "vfio-pci"));
	EXPECT_EQ(-ENODEV, device_open(bed, 1));

	/* Without a virtual machine the bridge is an ordinary device. */
	vfio_group_drop_vm(&bed->group);
	ASSERT_EQ(0, device_open(bed, 1));
	EXPECT_EQ(-ENOENT, vfio_find_atsd(bed->dev[1], &info));
	device_close(bed, 1);

	ASSERT_EQ(0, driver_bind(bed->gpu->bdf, DRIVER));
	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	ASSERT_EQ(0, device_open(bed, 1));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
}

/* Defect 7: what firmware refuses fails the open, and leaves nothing behind. */
TEST_F(lpar, defect_7_full_table_fails_the_open)
{
	struct bed *bed = &self->bed;
	unsigned int i;

	ASSERT_EQ(0, npu_set("inject-xts-full", "true"));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(-ENOSPC, device_open(bed, i));
		EXPECT_STREQ("", npu_not_clear());
		EXPECT_STREQ("none", driver_lpar(bed->gpu->bdf));
	}
	EXPECT_EQ(2, kmsg_count(bed->tb.kmsg, "no free entry in the NPU's XTS table"));
	ASSERT_EQ(0, npu_set("inject-xts-full", "false"));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, device_open(bed, i));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
}

/*
 * Registers that stop answering in the middle of an open. Firmware sees a full table if all are
 * silent, and does not notice a few: the GPU then goes without translation until the next open.
 */
TEST_F_TIMEOUT(lpar, defect_7_register_errors_leave_nothing_behind, 180)
{
	struct bed *bed = &self->bed;
	unsigned int n;
	char count[16];
	int ret = 0;

	for (n = 1; n <= 64; n *= 2) {
		snprintf(count, sizeof(count), "%u", n);
		ASSERT_EQ(0, npu_set("inject-scom-error", count));
		ret = device_open(bed, 1);
		ASSERT_EQ(0, npu_set("inject-scom-error", "0"));
		device_close(bed, 1);
		EXPECT_STREQ("", npu_not_clear())
			TH_LOG("open with %u errors: %s", n, strerror(-ret));
		EXPECT_STREQ("none", driver_lpar(bed->gpu->bdf));
		EXPECT_EQ(0, device_open(bed, 1));
		EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)))
			TH_LOG("after an open with %u errors", n);
		device_close(bed, 1);
	}
	EXPECT_EQ(-ENOSPC, ret);
}

/*
 * A link is fenced until the guest's driver trains it, so a fence is nothing that an open could
 * fail for: the LPAR is bound, and unbound, as ever.
 */
TEST_F(lpar, fenced_brick_is_no_obstacle)
{
	struct bed *bed = &self->bed;
	__u64 fences[1];

	ASSERT_EQ(0, npu_set("inject-fence", "0"));
	ASSERT_EQ(0, npu_table("fences", fences, 1));
	ASSERT_NE(0, fences[0]);
	EXPECT_EQ(0, device_open(bed, 1));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
	device_close(bed, 1);
	EXPECT_STREQ("", npu_not_clear());
}

/*
 * Defects 6 and 8: an LPID that firmware fails to take back stays with its VM, and the GPU is
 * nobody's, until firmware succeeds.
 */
TEST_F(lpar, defect_8_failed_unmap_is_made_up_for)
{
	struct bed *bed = &self->bed;
	const struct dt_gpu *other = &bed->tb.topo.gpu[1];
	char retained[48];
	unsigned int lpid;
	struct npu npu;
	int dev;

	ASSERT_EQ(0, device_open(bed, 0));
	lpid = driver_lpid(bed->gpu->bdf);
	snprintf(retained, sizeof(retained), "%u retained", lpid);
	ASSERT_EQ(0, npu_set("inject-scom-error", MANY));
	device_close(bed, 0);
	EXPECT_STREQ(retained, driver_lpar(bed->gpu->bdf));
	/* The reason for all this. */
	ASSERT_EQ(0, npu_read(&npu));
	EXPECT_EQ(lpid, mapped_lpid(&npu, bed->gpu, NULL));
	EXPECT_EQ(-EIO, device_open(bed, 1));
	EXPECT_EQ(-EIO, device_open(bed, 0));
	vfio_group_drop_vm(&bed->group);
	EXPECT_EQ(-EIO, device_open(bed, 0));
	EXPECT_STREQ(retained, driver_lpar(bed->gpu->bdf));
	ASSERT_EQ(0, npu_set("inject-scom-error", "0"));

	ASSERT_EQ(0, vfio_group_add_vm(&bed->group));
	dev = vfio_device_open(&bed->group, other->bdf);
	ASSERT_LE(0, dev);
	EXPECT_NE(lpid, driver_lpid(other->bdf));
	close(dev);

	EXPECT_EQ(0, device_open(bed, 1));
	EXPECT_NE(lpid, driver_lpid(bed->gpu->bdf));
	EXPECT_STREQ("", not_bound(bed->gpu, driver_lpid(bed->gpu->bdf)));
}

TEST_HARNESS_MAIN
