// SPDX-License-Identifier: GPL-2.0
/*
 * Each operation with its 1st, 2nd, ... allocation, copy or call of firmware failing, until it
 * comes through without one. What failed has to leave nothing behind that is in the way of the next
 * try, and no operation that gives something back (close, unmap, unbind) may keep it.
 *
 * The environment's NVLINK2_INJECT_STEP tries every so many sites only, for a first look at a
 * change.
 *
 * Leaks are found by who looks at the kernel as a whole, after the test: kmemleak on the debug
 * kernel.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "inject.h"
#include "npu.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"

/* More than the longest operation has; reached only by one that never gets through. */
#define MAX_SITES	5000

/*
 * An operation. @before makes what it starts from, @run is it, @after undoes what it did and
 * what @before did. 0 or a negative errno.
 */
struct operation {
	int (*before)(struct testbed *tb);
	int (*run)(struct testbed *tb);
	int (*after)(struct testbed *tb);
	/* What has to hold when it failed, before it is tried again. */
	int (*failed)(struct testbed *tb);
	/* An errno other than ENOMEM and EFAULT with which it may fail. */
	int also;
	/* What is in a warning that the kernel gives for want of memory, NULL if it gives none. */
	const char *warning;
};

/* Returns how many of its sites make the operation fail. */
static unsigned int fail_each(struct __test_metadata *_metadata, struct testbed *tb,
			      const struct operation *op)
{
	/* Without memory vmalloc() says where it was. */
	const char *const known[] = { "vmalloc error: size", op->warning, NULL };
	const char *env = getenv("NVLINK2_INJECT_STEP");
	unsigned int nth, step = env ? strtoul(env, NULL, 10) : 1, failures = 0, tried = 0;
	bool injected = true;
	int ret;

	ASSERT_LT(0U, step);
	for (nth = 1; injected; nth += step) {
		ASSERT_EQ(0, op->before ? op->before(tb) : 0)
			TH_LOG("site %u", nth);
		ASSERT_EQ(0, inject_begin(nth));
		ret = op->run(tb);
		injected = inject_end();
		tried += injected;
		if (ret) {
			failures++;
			EXPECT_TRUE(injected)
				TH_LOG("site %u: %s, with nothing injected", nth, strerror(-ret));
			EXPECT_TRUE(ret == -ENOMEM || ret == -EFAULT || ret == -op->also)
				TH_LOG("site %u: %s", nth, strerror(-ret));
			ASSERT_EQ(0, op->failed ? op->failed(tb) : 0)
				TH_LOG("site %u: it failed, and has an effect", nth);
			ASSERT_EQ(0, op->run(tb))
				TH_LOG("site %u: in order no more after it failed", nth);
		}
		ASSERT_EQ(0, op->after ? op->after(tb) : 0)
			TH_LOG("site %u", nth);
		ASSERT_EQ(0, kmsg_splats_but(tb->kmsg, known))
			TH_LOG("site %u", nth);
		ASSERT_GT(MAX_SITES, nth);
	}
	TH_LOG("%u sites, %u of them make it fail", tried, failures);
	return failures;
}

/* One GPU's group with everything closed, and every device bound. */
FIXTURE(fail)
{
	struct testbed tb;
};

/*
 * A probe runs on the device's NUMA node, for which the kernel hands it to a thread of its own:
 * nothing would be injected into that.
 */
static int probe_here(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", bdf);
	return sys_write(path, "-1");
}

FIXTURE_SETUP(fail)
{
	struct testbed *tb = &self->tb;
	unsigned int i, j;

	if (!inject_available())
		SKIP(return, "this kernel injects no failures");
	ASSERT_EQ(0, inject_setup());
	ASSERT_EQ(0, testbed_bind(tb))
		TH_LOG("%s", tb->why);
	tb->gpu = &tb->topo.gpu[0];
	for (i = 0; i < tb->topo.num_gpus; i++) {
		const struct dt_gpu *g = &tb->topo.gpu[i];

		ASSERT_EQ(0, probe_here(g->bdf));
		for (j = 0; j < g->num_links; j++)
			ASSERT_EQ(0, probe_here(g->link[j].bdf));
	}
}

FIXTURE_TEARDOWN(fail)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Loading the module probes all devices: driver_override is kept. */

static int unload(struct testbed *tb)
{
	char path[PATH_MAX];

	(void)tb;
	return module_path(path, sizeof(path)) ?: (module_loaded() ? module_unload() : 0);
}

static int load(struct testbed *tb)
{
	(void)tb;
	return module_loaded() ? 0 : module_load();
}

/* A probe that failed is made up for. */
static int two_bound(struct testbed *tb)
{
	return driver_bind(tb->gpu->bdf, DRIVER) ?: driver_bind(tb->gpu->link[0].bdf, DRIVER);
}

static int nobodys(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", bdf);
	return driver_unbind(bdf) ?: sys_write(path, "\n");
}

/* With one function of each kind: the others' probes have the same sites again. */
TEST_F_TIMEOUT(fail, module_load, 1200)
{
	const struct operation op = {
		.before = unload, .run = load, .after = two_bound,
		/* Of module_add_driver(), without memory for the module's folder of drivers. */
		.also = EINVAL,
		/* Of the tracing core, once. */
		.warning = "at event_define_fields",
	};
	struct testbed again;
	unsigned int i, j;

	for (i = 0; i < self->tb.topo.num_gpus; i++) {
		const struct dt_gpu *g = &self->tb.topo.gpu[i];

		if (g != self->tb.gpu)
			ASSERT_EQ(0, nobodys(g->bdf));
		for (j = g == self->tb.gpu; j < g->num_links; j++)
			ASSERT_EQ(0, nobodys(g->link[j].bdf));
	}
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
	EXPECT_EQ(0, testbed_bind(&again))
		TH_LOG("%s", again.why);
	testbed_close(&again);
}

/* A probe that failed takes its files in debugfs along, or the next could not make its own. */
static int no_files(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/%s", bdf);
	return sys_exists(path) && !driver_is(bdf, DRIVER) ? -EEXIST : 0;
}

static int unbind_gpu(struct testbed *tb)
{
	return driver_unbind(tb->gpu->bdf);
}

static int bind_gpu(struct testbed *tb)
{
	return driver_bind(tb->gpu->bdf, DRIVER);
}

static int no_files_of_gpu(struct testbed *tb)
{
	return no_files(tb->gpu->bdf);
}

/* Binding writes driver_override, too, unless that says it already. */
TEST_F_TIMEOUT(fail, probe_of_a_gpu, 600)
{
	const struct operation op = {
		.before = unbind_gpu, .run = bind_gpu, .failed = no_files_of_gpu, .also = ENODEV,
	};

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

static int unbind_bridge(struct testbed *tb)
{
	return driver_unbind(tb->gpu->link[0].bdf);
}

static int bind_bridge(struct testbed *tb)
{
	return driver_bind(tb->gpu->link[0].bdf, DRIVER);
}

static int no_files_of_bridge(struct testbed *tb)
{
	return no_files(tb->gpu->link[0].bdf);
}

TEST_F_TIMEOUT(fail, probe_of_a_bridge, 600)
{
	const struct operation op = {
		.before = unbind_bridge, .run = bind_bridge, .failed = no_files_of_bridge,
		.also = ENODEV,
	};

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

TEST_F_TIMEOUT(fail, unbinding, 300)
{
	const struct operation gpu = { .run = unbind_gpu, .after = bind_gpu };
	const struct operation bridge = { .run = unbind_bridge, .after = bind_bridge };

	fail_each(_metadata, &self->tb, &gpu);
	fail_each(_metadata, &self->tb, &bridge);
}

/* With a group, with or without a KVM, and nothing of it open. */
FIXTURE(fail_group)
{
	struct testbed tb;
};

FIXTURE_VARIANT(fail_group)
{
	bool kvm;
};

FIXTURE_VARIANT_ADD(fail_group, without_kvm) { .kvm = false };
FIXTURE_VARIANT_ADD(fail_group, with_kvm) { .kvm = true };

FIXTURE_SETUP(fail_group)
{
	struct testbed *tb = &self->tb;

	if (!inject_available())
		SKIP(return, "this kernel injects no failures");
	ASSERT_EQ(0, inject_setup());
	ASSERT_EQ(0, testbed_bind(tb))
		TH_LOG("%s", tb->why);
	tb->gpu = &tb->topo.gpu[0];
	ASSERT_EQ(0, vfio_group_open(&tb->group, pci_iommu_group(tb->gpu->bdf), variant->kvm));
}

FIXTURE_TEARDOWN(fail_group)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static int open_group(struct testbed *tb)
{
	return vfio_group_open(&tb->group, tb->group.id, false);
}

static int open_group_with_kvm(struct testbed *tb)
{
	return vfio_group_open(&tb->group, tb->group.id, true);
}

static int close_group(struct testbed *tb)
{
	vfio_group_close(&tb->group);
	return 0;
}

TEST_F_TIMEOUT(fail_group, group, 1800)
{
	const struct operation op = {
		.before = close_group, .run = variant->kvm ? open_group_with_kvm : open_group,
		/* Of firmware, for the window. */
		.also = EIO,
	};

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

/* Windows and bypass go back to the host's, as far as firmware does it. */
TEST_F_TIMEOUT(fail_group, close_of_a_group, 1800)
{
	const struct operation op = {
		.before = variant->kvm ? open_group_with_kvm : open_group, .run = close_group,
	};

	close_group(&self->tb);
	EXPECT_EQ(0, fail_each(_metadata, &self->tb, &op));
}

static int open_bdf(struct testbed *tb, const char *bdf)
{
	tb->dev = vfio_device_open(&tb->group, bdf);
	return tb->dev < 0 ? tb->dev : 0;
}

static int open_gpu(struct testbed *tb)
{
	return open_bdf(tb, tb->gpu->bdf);
}

static int open_bridge(struct testbed *tb)
{
	return open_bdf(tb, tb->gpu->link[0].bdf);
}

static int close_device(struct testbed *tb)
{
	int ret = close(tb->dev);

	tb->dev = -1;
	return ret;
}

TEST_F_TIMEOUT(fail_group, open_of_a_gpu, 600)
{
	const struct operation op = { .run = open_gpu, .after = close_device, .also = EIO };

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

TEST_F_TIMEOUT(fail_group, open_of_a_bridge, 600)
{
	const struct operation op = { .run = open_bridge, .after = close_device, .also = EIO };

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

/* Whatever fails, the last close unbinds, or the next open would find that it did not. */
TEST_F_TIMEOUT(fail_group, close_of_a_gpu, 300)
{
	const struct operation op = { .before = open_gpu, .run = close_device };

	EXPECT_EQ(0, fail_each(_metadata, &self->tb, &op));
}

TEST_F_TIMEOUT(fail_group, close_of_a_bridge, 300)
{
	const struct operation op = { .before = open_bridge, .run = close_device };

	EXPECT_EQ(0, fail_each(_metadata, &self->tb, &op));
}

/* With a GPU open, with or without KVM. */
FIXTURE(fail_gpu)
{
	struct testbed tb;
};

FIXTURE_VARIANT(fail_gpu)
{
	bool kvm;
};

FIXTURE_VARIANT_ADD(fail_gpu, without_kvm) { .kvm = false };
FIXTURE_VARIANT_ADD(fail_gpu, with_kvm) { .kvm = true };

/* The mapping under test, its registration's ordinary companion, and a bridge's region. */
static struct {
	char *ram, *ordinary, *atsd;
	int bridge;
	struct vfio_region_info *atsd_info;
} use;

#define MAP_SIZE	(4 * PAGE_64K)

FIXTURE_SETUP(fail_gpu)
{
	struct testbed *tb = &self->tb;

	if (!inject_available())
		SKIP(return, "this kernel injects no failures");
	ASSERT_EQ(0, inject_setup());
	ASSERT_EQ(0, testbed_open(tb, 0, variant->kvm))
		TH_LOG("%s", tb->why);
	use.ordinary = anonymous(PAGE_64K);
	ASSERT_NE(NULL, use.ordinary);
	/* A container accepts no mapping before something was registered. */
	ASSERT_EQ(0, vfio_dma_register(&tb->group, use.ordinary, PAGE_64K));
	use.bridge = vfio_device_open(&tb->group, tb->gpu->link[0].bdf);
	ASSERT_LE(0, use.bridge);
	if (variant->kvm)
		ASSERT_EQ(0, vfio_find_atsd(use.bridge, &use.atsd_info));
	ASSERT_EQ(0, model_train(&tb->model));
}

FIXTURE_TEARDOWN(fail_gpu)
{
	close(use.bridge);
	free(use.atsd_info);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static int region_info(struct testbed *tb)
{
	struct vfio_region_info *info;
	int ret = vfio_region(tb->dev, REGION_FIRST_OWN, &info);

	if (!ret)
		free(info);
	return ret;
}

TEST_F_TIMEOUT(fail_gpu, region_info, 300)
{
	const struct operation op = { .run = region_info };

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

static int map_ram(struct testbed *tb)
{
	use.ram = vfio_map(tb->dev, tb->ram, 0, MAP_SIZE);
	return use.ram ? 0 : -errno;
}

static int unmap_ram(struct testbed *tb)
{
	(void)tb;
	return munmap(use.ram, MAP_SIZE) ? -errno : 0;
}

TEST_F_TIMEOUT(fail_gpu, mmap_of_gpu_ram, 600)
{
	const struct operation map = { .run = map_ram, .after = unmap_ram };
	const struct operation unmap = { .before = map_ram, .run = unmap_ram };

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &map));
	fail_each(_metadata, &self->tb, &unmap);
}

static int touch_ram(struct testbed *tb)
{
	__u64 value;
	int sig;

	(void)tb;
	sig = try_write64(use.ram + PAGE_64K, 42) ?: try_read64(use.ram + PAGE_64K, &value);
	return sig || value != 42 ? -EIO : 0;
}

/* A fault that lacks memory is tried again by the kernel. */
TEST_F_TIMEOUT(fail_gpu, fault_in_gpu_ram, 600)
{
	const struct operation op = { .before = map_ram, .run = touch_ram, .after = unmap_ram };

	EXPECT_EQ(0, fail_each(_metadata, &self->tb, &op));
}

static char buffer[3 * PAGE_64K];

/* A transfer that stops in the middle says how far it came. */
static int whole(ssize_t n)
{
	if (n == sizeof(buffer))
		return 0;
	return n < 0 ? -errno : -EFAULT;
}

static int read_ram(struct testbed *tb)
{
	return whole(pread(tb->dev, buffer, sizeof(buffer), tb->ram->offset));
}

static int write_ram(struct testbed *tb)
{
	return whole(pwrite(tb->dev, buffer, sizeof(buffer), tb->ram->offset));
}

TEST_F_TIMEOUT(fail_gpu, read_and_write_of_gpu_ram, 300)
{
	const struct operation read = { .run = read_ram };
	const struct operation write = { .run = write_ram };

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &read));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &write));
}

static int register_ram(struct testbed *tb)
{
	return vfio_dma_register(&tb->group, use.ram, MAP_SIZE);
}

static int unregister_ram(struct testbed *tb)
{
	return vfio_dma_unregister(&tb->group, use.ram, MAP_SIZE);
}

static int dma_map(struct testbed *tb)
{
	return vfio_dma_map(&tb->group, use.ram, 0, MAP_SIZE);
}

static int dma_unmap(struct testbed *tb)
{
	return vfio_dma_unmap(&tb->group, 0, MAP_SIZE);
}

TEST_F_TIMEOUT(fail_gpu, container_map_of_gpu_ram, 600)
{
	const struct operation registration = { .run = register_ram, .after = unregister_ram };
	const struct operation map = { .run = dma_map, .after = dma_unmap };
	const struct operation unmap = { .before = dma_map, .run = dma_unmap };

	ASSERT_EQ(0, map_ram(&self->tb));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &registration));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &map));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &unmap));
	EXPECT_EQ(0, unmap_ram(&self->tb));
}

/* What the NPU's TVEs were with one window. */
static __u64 one_window[NPU_NUM_TVES];

static int remember_tves(struct testbed *tb)
{
	(void)tb;
	return npu_table("tvt", one_window, NPU_NUM_TVES);
}

static int tves_as_remembered(struct testbed *tb)
{
	__u64 tvt[NPU_NUM_TVES];
	int ret = npu_table("tvt", tvt, NPU_NUM_TVES);

	(void)tb;
	return ret ?: memcmp(tvt, one_window, sizeof(tvt)) ? -EBADMSG : 0;
}

/* All that had the first window have the second one, and nobody else has. */
static int tves_moved(struct testbed *tb)
{
	__u64 tvt[NPU_NUM_TVES], tce;
	unsigned int i, moved = 0;
	int ret = npu_table("tvt", tvt, NPU_NUM_TVES);

	(void)tb;
	for (i = 0; !ret && i < NPU_NUM_TVES; i++) {
		bool had = !tve_lookup(one_window[i], 0, &tce);
		bool changed = tvt[i] != one_window[i];

		if (had != changed)
			return -EBADMSG;
		moved += had;
	}
	return ret ?: moved ? 0 : -ENODATA;
}

static __u64 second_window;

static int create_window(struct testbed *tb)
{
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create), .page_shift = 16, .window_size = 1ULL << 30, .levels = 1,
	};

	if (ioctl(tb->group.container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create))
		return -errno;
	second_window = create.start_addr;
	return 0;
}

static int remove_window(struct testbed *tb)
{
	struct vfio_iommu_spapr_tce_remove remove = {
		.argsz = sizeof(remove), .start_addr = second_window,
	};

	return ioctl(tb->group.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove) ? -errno : 0;
}

static int both_windows(struct testbed *tb)
{
	return tves_moved(tb) ?: remove_window(tb) ?: tves_as_remembered(tb);
}

static int window_again(struct testbed *tb)
{
	return create_window(tb) ?: both_windows(tb);
}

/* A window is there for all devices of the group or for none, and a failure is no success. */
TEST_F_TIMEOUT(fail_gpu, defect_22_windows, 600)
{
	const struct operation create = {
		.run = create_window, .failed = tves_as_remembered, .after = both_windows,
		.also = EIO,
	};
	/* What firmware does not take away cannot be taken away: the next window replaces it. */
	const struct operation remove = {
		.before = create_window, .run = remove_window, .after = window_again,
	};

	ASSERT_EQ(0, remember_tves(&self->tb));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &create));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &remove));
}

static int map_for_dma(struct testbed *tb)
{
	return map_ram(tb) ?: dma_map(tb);
}

static int nothing_is_registered(struct testbed *tb)
{
	char path[128], text[4096];
	int i, ret;

	snprintf(path, sizeof(path), DEBUGFS "/%s/mappings", tb->gpu->bdf);
	for (i = 0; i < 100; i++) {
		ret = sys_read(path, text, sizeof(text));
		if (ret <= 0)
			return ret;
		usleep(100000);
	}
	return -ETIMEDOUT;
}

static int dma_unmap_and_wait(struct testbed *tb)
{
	return dma_unmap(tb) ?: nothing_is_registered(tb);
}

/* What stays for a live TCE goes when that has gone, even if remembering it was hard. */
TEST_F_TIMEOUT(fail_gpu, munmap_with_a_live_tce, 600)
{
	const struct operation op = {
		.before = map_for_dma, .run = unmap_ram, .after = dma_unmap_and_wait,
	};

	fail_each(_metadata, &self->tb, &op);
}

static int unmap_lower_half(struct testbed *tb)
{
	(void)tb;
	return munmap(use.ram, MAP_SIZE / 2) ? -errno : 0;
}

static int unmap_upper_half(struct testbed *tb)
{
	char *upper = use.ram + MAP_SIZE / 2;

	return munmap(upper + MAP_SIZE / 4, MAP_SIZE / 4) || munmap(upper, MAP_SIZE / 4) ?
	       -errno : nothing_is_registered(tb);
}

/*
 * Without memory the parts of a mapping that is split share what is registered, and go on doing so
 * when one of them is split again: it ends with the last of them.
 */
TEST_F_TIMEOUT(fail_gpu, munmap_in_pieces, 600)
{
	const struct operation op = {
		.before = map_ram, .run = unmap_lower_half, .after = unmap_upper_half,
	};

	EXPECT_LT(0, fail_each(_metadata, &self->tb, &op));
}

static int reset_gpu(struct testbed *tb)
{
	return ioctl(tb->dev, VFIO_DEVICE_RESET) ? -errno : 0;
}

static int works_after_reset(struct testbed *tb)
{
	int ret = vfio_set_memory(tb->dev, true);

	return ret ?: model_train(&tb->model) ?: touch_ram(tb);
}

TEST_F_TIMEOUT(fail_gpu, reset, 600)
{
	const struct operation op = { .run = reset_gpu, .after = works_after_reset };

	ASSERT_EQ(0, map_ram(&self->tb));
	EXPECT_EQ(0, fail_each(_metadata, &self->tb, &op));
	EXPECT_EQ(0, unmap_ram(&self->tb));
}

/*
 * Firmware that does not fence the links keeps the GPU from being reset. Nobody takes it for one
 * that was: neither who resets it, nor who opens it next.
 */
TEST_F_TIMEOUT(fail_gpu, reset_without_a_fence, 120)
{
	static const char fence[] = "opal_pci_config_write_half_word";
	struct testbed *tb = &self->tb;

	ASSERT_EQ(0, inject_all(fence));
	EXPECT_EQ(-EIO, reset_gpu(tb));
	ASSERT_EQ(0, inject_nothing());
	ASSERT_EQ(0, close_device(tb));
	ASSERT_EQ(0, inject_all(fence));
	EXPECT_EQ(-EIO, open_gpu(tb));
	ASSERT_EQ(0, inject_nothing());
	EXPECT_EQ(1, kmsg_count(tb->kmsg, "not opened: it could not be reset"));
	EXPECT_EQ(0, open_gpu(tb));
}

static int map_atsd(struct testbed *tb)
{
	(void)tb;
	use.atsd = vfio_map(use.bridge, use.atsd_info, 0, PAGE_64K);
	return use.atsd ? 0 : -errno;
}

static int unmap_atsd(struct testbed *tb)
{
	(void)tb;
	return munmap(use.atsd, PAGE_64K) ? -errno : 0;
}

static int touch_atsd(struct testbed *tb)
{
	__u64 value;

	(void)tb;
	return try_read64(use.atsd + 0x10, &value) ? -EIO : 0;
}

static int read_atsd(struct testbed *tb)
{
	__u64 value;
	ssize_t n = pread(use.bridge, &value, sizeof(value), use.atsd_info->offset + 0x10);

	(void)tb;
	return n == sizeof(value) ? 0 : n < 0 ? -errno : -EFAULT;
}

static int write_atsd(struct testbed *tb)
{
	const __u64 value = 0;
	/* The address that the next launch is about. */
	ssize_t n = pwrite(use.bridge, &value, sizeof(value), use.atsd_info->offset + 8);

	(void)tb;
	return n == sizeof(value) ? 0 : n < 0 ? -errno : -EFAULT;
}

TEST_F_TIMEOUT(fail_gpu, atsd, 600)
{
	const struct operation map = { .run = map_atsd, .after = unmap_atsd };
	const struct operation touch = {
		.before = map_atsd, .run = touch_atsd, .after = unmap_atsd,
	};
	const struct operation read = { .run = read_atsd };
	const struct operation write = { .run = write_atsd };

	if (!variant->kvm) {
		ASSERT_EQ(-ENOENT, vfio_find_atsd(use.bridge, &use.atsd_info));
		return;
	}
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &map));
	EXPECT_EQ(0, fail_each(_metadata, &self->tb, &touch));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &read));
	EXPECT_LT(0, fail_each(_metadata, &self->tb, &write));
}

TEST_HARNESS_MAIN
