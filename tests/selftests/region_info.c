// SPDX-License-Identifier: GPL-2.0
/* VFIO_DEVICE_GET_REGION_INFO: what every function says about its regions. */
#define _GNU_SOURCE
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "sys.h"
#include "testbed.h"

#define RWM (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP)

/* The answers as they lie in memory. */
struct gpu_answer {
	struct vfio_region_info info;
	struct vfio_region_info_cap_type type;
	struct vfio_region_info_cap_nvlink2_ssatgt ssatgt;
};

struct bridge_answer {
	struct vfio_region_info info;
	struct vfio_region_info_cap_type type;
	struct vfio_region_info_cap_nvlink2_ssatgt ssatgt;
	struct vfio_region_info_cap_nvlink2_lnkspd lnkspd;
};

static struct gpu_answer gpu_answer(__u64 size, __u64 tgt)
{
	struct gpu_answer a = {
		.info = {
			.argsz = sizeof(a),
			.flags = RWM | VFIO_REGION_INFO_FLAG_CAPS,
			.index = REGION_FIRST_OWN,
			.cap_offset = offsetof(struct gpu_answer, type),
			.size = size,
			.offset = REGION_OFFSET(REGION_FIRST_OWN),
		},
		.type = {
			.header = {
				.id = VFIO_REGION_INFO_CAP_TYPE, .version = 1,
				.next = offsetof(struct gpu_answer, ssatgt),
			},
			.type = REGION_TYPE_GPU,
			.subtype = VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM,
		},
		.ssatgt = {
			.header = { .id = VFIO_REGION_INFO_CAP_NVLINK2_SSATGT, .version = 1 },
			.tgt = tgt,
		},
	};

	return a;
}

static struct bridge_answer bridge_answer(__u64 tgt, __u32 speed)
{
	struct bridge_answer a = {
		.info = {
			.argsz = sizeof(a),
			.flags = RWM | VFIO_REGION_INFO_FLAG_CAPS,
			.index = REGION_FIRST_OWN,
			.cap_offset = offsetof(struct bridge_answer, type),
			.size = PAGE_64K,
			.offset = REGION_OFFSET(REGION_FIRST_OWN),
		},
		.type = {
			.header = {
				.id = VFIO_REGION_INFO_CAP_TYPE, .version = 1,
				.next = offsetof(struct bridge_answer, ssatgt),
			},
			.type = REGION_TYPE_NPU,
			.subtype = VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD,
		},
		.ssatgt = {
			.header = {
				.id = VFIO_REGION_INFO_CAP_NVLINK2_SSATGT, .version = 1,
				.next = offsetof(struct bridge_answer, lnkspd),
			},
			.tgt = tgt,
		},
		.lnkspd = {
			.header = { .id = VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD, .version = 1 },
			.link_speed = speed,
		},
	};

	return a;
}

/* Prints where two answers differ, in 32-bit words. */
static int differences(const char *bdf, const void *expected, const void *seen, size_t size)
{
	const __u32 *e = expected, *s = seen;
	size_t i;
	int count = 0;

	for (i = 0; i < size / sizeof(*e); i++) {
		if (e[i] == s[i])
			continue;
		fprintf(stderr, "# %s: word at %#zx is %#x, not %#x\n", bdf, i * sizeof(*e), s[i],
			e[i]);
		count++;
	}
	return count;
}

/*
 * Opens a function and compares what it says about its own region with @expected: how many
 * words differ, or a negative errno.
 */
static int compare(const struct vfio_group *group, const char *bdf, const void *expected,
		   size_t size)
{
	union {
		struct vfio_region_info info;
		struct gpu_answer gpu;
		struct bridge_answer bridge;
	} seen = { .info = { .argsz = size, .index = REGION_FIRST_OWN } };
	int ret, dev = vfio_device_open(group, bdf);

	if (dev < 0)
		return dev;
	if (ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, &seen))
		ret = -errno;
	else
		ret = differences(bdf, expected, &seen, size);
	close(dev);
	return ret;
}

FIXTURE(region)
{
	struct testbed tb;
	struct vfio_group group;
};

FIXTURE_VARIANT(region)
{
	bool kvm;
};

FIXTURE_VARIANT_ADD(region, without_kvm)
{
	.kvm = false,
};

FIXTURE_VARIANT_ADD(region, with_kvm)
{
	.kvm = true,
};

FIXTURE_SETUP(region)
{
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, vfio_group_open(&self->group, pci_iommu_group(self->tb.topo.gpu[0].bdf),
				     variant->kvm));
}

FIXTURE_TEARDOWN(region)
{
	vfio_group_close(&self->group);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Whether GPU number @i is in the group that is open. */
static bool in_group(const struct testbed *tb, unsigned int i, const struct vfio_group *g)
{
	return pci_iommu_group(tb->topo.gpu[i].bdf) == g->id;
}

TEST_F(region, gpu_says_what_the_device_tree_says)
{
	unsigned int i, compared = 0;

	for (i = 0; i < self->tb.topo.num_gpus; i++) {
		const struct dt_gpu *g = &self->tb.topo.gpu[i];
		struct gpu_answer expected = gpu_answer(g->aperture_size, g->tgt);

		if (!in_group(&self->tb, i, &self->group))
			continue;
		EXPECT_EQ(0, compare(&self->group, g->bdf, &expected, sizeof(expected)))
			TH_LOG("%s", g->bdf);
		compared++;
	}
	/* The other sockets of the chip may be empty. */
	EXPECT_LE(on_hardware() ? 1U : 2U, compared);
}

TEST_F(region, bridge_says_what_the_device_tree_says_if_it_has_a_kvm)
{
	struct vfio_device_info device = { .argsz = sizeof(device) };
	struct vfio_region_info *info;
	unsigned int i, j, compared = 0;
	int dev;

	for (i = 0; i < self->tb.topo.num_gpus; i++) {
		if (!in_group(&self->tb, i, &self->group))
			continue;
		for (j = 0; j < self->tb.topo.gpu[i].num_links; j++) {
			const struct dt_bridge *b = &self->tb.topo.gpu[i].link[j];
			struct bridge_answer expected = bridge_answer(b->tgt, b->speed);

			compared++;
			if (variant->kvm) {
				EXPECT_EQ(0, compare(&self->group, b->bdf, &expected,
						     sizeof(expected)))
					TH_LOG("%s", b->bdf);
				continue;
			}
			/* No region at all: QEMU 7.2 asserts on one of size 0. */
			dev = vfio_device_open(&self->group, b->bdf);
			ASSERT_LE(0, dev)
				TH_LOG("%s: %s", b->bdf, strerror(-dev));
			EXPECT_EQ(0, ioctl(dev, VFIO_DEVICE_GET_INFO, &device));
			EXPECT_EQ((__u32)REGION_FIRST_OWN, device.num_regions);
			EXPECT_EQ(-EINVAL, vfio_region(dev, REGION_FIRST_OWN, &info));
			close(dev);
		}
	}
	EXPECT_LE(on_hardware() ? 2U : 4U, compared);
}

/* What the machines say, in numbers: those of chip 0 are what Linux 5.10 answered there. */
struct in_numbers {
	const char *gpu, *link[3];
	__u64 tgt;
};

static const struct in_numbers redbud[] = {
	{ "0004:04:00.0", { "0006:00:00.0", "0006:00:00.1", "0006:00:00.2" }, 0x3e000000000 },
	{ "0004:05:00.0", { "0006:00:01.0", "0006:00:01.1", "0006:00:01.2" }, 0x3c000000000 },
	{ "0035:03:00.0", { "0007:00:00.0", "0007:00:00.1", "0007:00:00.2" }, 0xbe000000000 },
	{ "0035:04:00.0", { "0007:00:01.0", "0007:00:01.1", "0007:00:01.2" }, 0xbc000000000 },
};

static const struct in_numbers sequoia[] = {
	{ "0004:04:00.0", { "0006:00:00.0", "0006:00:00.1" }, 0x3e000000000 },
	{ "0004:05:00.0", { "0006:00:01.0", "0006:00:01.1" }, 0x3c000000000 },
	{ "0004:06:00.0", { "0006:00:02.0", "0006:00:02.1" }, 0x3a000000000 },
	{ "0035:03:00.0", { "0007:00:00.0", "0007:00:00.1" }, 0xbe000000000 },
	{ "0035:04:00.0", { "0007:00:01.0", "0007:00:01.1" }, 0xbc000000000 },
	{ "0035:05:00.0", { "0007:00:02.0", "0007:00:02.1" }, 0xba000000000 },
};

static const struct in_numbers *numbers_of(const char *bdf, bool is_redbud)
{
	const struct in_numbers *all = is_redbud ? redbud : sequoia;
	const size_t count = is_redbud ? ARRAY_SIZE(redbud) : ARRAY_SIZE(sequoia);
	size_t i;

	for (i = 0; i < count; i++) {
		if (!strcmp(all[i].gpu, bdf))
			return &all[i];
	}
	return NULL;
}

TEST_F(region, answers_are_byte_identical_to_the_original)
{
	const struct dt_topology *t = &self->tb.topo;
	const bool is_redbud = t->gpu[0].num_links == 3;
	unsigned int i, j;

	for (i = 0; i < t->num_gpus; i++) {
		const struct in_numbers *n = numbers_of(t->gpu[i].bdf, is_redbud);
		struct bridge_answer bridge;
		struct gpu_answer gpu;

		ASSERT_NE(NULL, n)
			TH_LOG("%s", t->gpu[i].bdf);
		if (!in_group(&self->tb, i, &self->group))
			continue;
		gpu = gpu_answer(0x2000000000, n->tgt);
		bridge = bridge_answer(n->tgt, is_redbud ? 8 : 9);
		EXPECT_EQ(0, compare(&self->group, n->gpu, &gpu, sizeof(gpu)));
		EXPECT_EQ(is_redbud ? 3U : 2U, t->gpu[i].num_links);
		for (j = 0; j < t->gpu[i].num_links; j++) {
			EXPECT_STREQ(n->link[j], t->gpu[i].link[j].bdf);
			if (!variant->kvm)
				continue;
			EXPECT_EQ(0, compare(&self->group, n->link[j], &bridge, sizeof(bridge)))
				TH_LOG("%s", n->link[j]);
		}
	}
}

/* Whatever room the caller gives, nothing beyond it is written and what is needed is said. */
TEST_F(region, argsz_is_respected)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	const __u32 full = sizeof(struct gpu_answer);
	const __u32 bare = sizeof(struct vfio_region_info);
	const __u32 sizes[] = { bare, bare + 16, full - 1, full, full + 64 };
	union {
		struct vfio_region_info info;
		unsigned char bytes[512];
	} buf;
	unsigned int i, j;
	__u32 size;
	int dev = vfio_device_open(&self->group, g->bdf);

	ASSERT_LE(0, dev);
	for (size = 0; size < sizeof(struct vfio_region_info); size++) {
		memset(&buf, 0xa5, sizeof(buf));
		buf.info.argsz = size;
		buf.info.index = REGION_FIRST_OWN;
		EXPECT_EQ(-1, ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, &buf))
			TH_LOG("argsz %u", size);
		EXPECT_EQ(EINVAL, errno);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(&buf, 0xa5, sizeof(buf));
		buf.info.argsz = sizes[i];
		buf.info.index = REGION_FIRST_OWN;
		ASSERT_EQ(0, ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, &buf))
			TH_LOG("argsz %u: %s", sizes[i], strerror(errno));
		EXPECT_EQ(RWM | VFIO_REGION_INFO_FLAG_CAPS, buf.info.flags);
		EXPECT_EQ(g->aperture_size, buf.info.size);
		if (sizes[i] < full) {
			EXPECT_EQ(full, buf.info.argsz);
			EXPECT_EQ(0U, buf.info.cap_offset);
			j = sizeof(struct vfio_region_info);
		} else {
			EXPECT_EQ(sizes[i], buf.info.argsz);
			EXPECT_EQ((__u32)sizeof(struct vfio_region_info), buf.info.cap_offset);
			j = full;
		}
		for (; j < sizeof(buf); j++) {
			ASSERT_EQ(0xa5, buf.bytes[j])
				TH_LOG("argsz %u: byte %u was written", sizes[i], j);
		}
	}
	close(dev);
}

TEST_F(region, indices_beyond_the_last_are_refused)
{
	static const __u32 beyond[] = {
		REGION_FIRST_OWN + 1, REGION_FIRST_OWN + 2, 0x7fffffff, 0xffffffff,
	};
	struct vfio_device_info device = { .argsz = sizeof(device) };
	struct vfio_region_info *info;
	unsigned int i;
	int dev = vfio_device_open(&self->group, self->tb.topo.gpu[0].bdf);

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, ioctl(dev, VFIO_DEVICE_GET_INFO, &device));
	EXPECT_EQ(REGION_FIRST_OWN + 1U, device.num_regions);
	EXPECT_EQ((__u32)VFIO_DEVICE_FLAGS_PCI, device.flags & VFIO_DEVICE_FLAGS_PCI);
	for (i = 0; i < ARRAY_SIZE(beyond); i++) {
		EXPECT_EQ(-EINVAL, vfio_region(dev, beyond[i], &info))
			TH_LOG("index %#x", beyond[i]);
	}
	close(dev);
}

/* The ordinary regions stay vfio-pci's. */
TEST_F(region, bars_are_the_ones_sysfs_shows)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	const char * const bdf[] = { g->bdf, g->link[0].bdf };
	struct vfio_region_info *info;
	__u64 start, end, size;
	unsigned int i, bar;

	for (i = 0; i < ARRAY_SIZE(bdf); i++) {
		int dev = vfio_device_open(&self->group, bdf[i]);
		unsigned int with_size = 0;

		ASSERT_LE(0, dev);
		for (bar = VFIO_PCI_BAR0_REGION_INDEX; bar <= VFIO_PCI_BAR5_REGION_INDEX; bar++) {
			ASSERT_EQ(0, vfio_region(dev, bar, &info));
			ASSERT_EQ(0, pci_resource(bdf[i], bar, &start, &end));
			size = end ? end - start + 1 : 0;
			EXPECT_EQ(size, info->size)
				TH_LOG("%s BAR%u", bdf[i], bar);
			EXPECT_EQ(REGION_OFFSET(bar), info->offset);
			with_size += !!size;
			free(info);
		}
		/* GPU: BAR0, 1, 3; bridge: BAR0 (NTL) and 2 (GENID). */
		EXPECT_EQ(i ? 2U : 3U, with_size);
		close(dev);
	}
}

TEST_HARNESS_MAIN
