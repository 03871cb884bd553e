// SPDX-License-Identifier: GPL-2.0
/* The driver comes and goes: unbind, rebind, unload, also while somebody uses a device. */
#define _GNU_SOURCE
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"
#include "testbed.h"

FIXTURE(binding)
{
	struct testbed tb;
};

FIXTURE_SETUP(binding)
{
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(binding)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

static bool has_debugfs(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/%s/role", bdf);
	return sys_exists(path);
}

static void use_gpu(struct __test_metadata *_metadata, unsigned int gpu)
{
	struct testbed tb;
	__u64 value;
	void *p;

	ASSERT_EQ(0, testbed_open(&tb, gpu, false))
		TH_LOG("%s", tb.why);
	p = vfio_map(tb.dev, tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, try_write64(p, 123));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(123ULL, value);
	EXPECT_EQ(0, munmap(p, PAGE_64K));
	EXPECT_EQ(0, testbed_close(&tb));
}

static void unbind_and_rebind(struct __test_metadata *_metadata, const char *bdf)
{
	ASSERT_TRUE(driver_is(bdf, DRIVER));
	EXPECT_TRUE(has_debugfs(bdf))
		TH_LOG("%s", bdf);
	ASSERT_EQ(0, driver_unbind(bdf));
	EXPECT_TRUE(driver_is(bdf, ""));
	EXPECT_FALSE(has_debugfs(bdf))
		TH_LOG("%s", bdf);
	ASSERT_EQ(0, driver_bind(bdf, DRIVER));
}

/* What a module's file says it is for, as "alias=vfio_pci:..." one behind the other. */
static int read_aliases(char *all, size_t size)
{
	static const char key[] = "alias=vfio_pci:";
	static char file[16 << 20];
	char path[PATH_MAX], *at = file;
	ssize_t n = -ENOENT;
	int count = 0;
	FILE *f;

	if (module_path(path, sizeof(path)))
		return -ENOENT;
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fread(file, 1, sizeof(file) - 1, f);
	fclose(f);
	*all = '\0';
	while ((at = memmem(at, file + n - at, key, strlen(key)))) {
		if (strlen(all) + strlen(at) + 2 > size)
			return -E2BIG;
		strcat(strcat(all, at), " ");
		at += strlen(at);
		count++;
	}
	return count;
}

/* The alias of an id that the driver has for whatever subsystem and class. */
static const char *alias_of(const char *bdf)
{
	static char alias[128];
	char path[128], modalias[256];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/modalias", bdf);
	if (sys_read(path, modalias, sizeof(modalias)) < 0)
		return "no modalias";
	/* "pci:v000010DEd00001DB1sv..." */
	snprintf(alias, sizeof(alias), "alias=vfio_pci:%.18ssv*sd*bc*sc*i* ", modalias + 4);
	return alias;
}

/*
 * libvirt takes the driver whose alias fits best, and no other if that one refuses a function: so
 * there are aliases for what is on NVLink2, and for nothing else.
 */
TEST_F(binding, aliases_are_of_gpus_and_bridges_only)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	char aliases[1024];

	ASSERT_EQ(3, read_aliases(aliases, sizeof(aliases)))
		TH_LOG("%s", aliases);
	EXPECT_NE(NULL, strstr(aliases, alias_of(g->bdf)))
		TH_LOG("%s is not in %s", alias_of(g->bdf), aliases);
	EXPECT_NE(NULL, strstr(aliases, alias_of(g->link[0].bdf)))
		TH_LOG("%s is not in %s", alias_of(g->link[0].bdf), aliases);
	EXPECT_NE(NULL, strstr(aliases, "v000010DEd00001DB5"));
}

TEST_F_TIMEOUT(binding, unbind_and_rebind_each, 120)
{
	const struct dt_topology *t = &self->tb.topo;
	unsigned int i, j;

	for (i = 0; i < t->num_gpus; i++) {
		for (j = 0; j < t->gpu[i].num_links; j++)
			unbind_and_rebind(_metadata, t->gpu[i].link[j].bdf);
		unbind_and_rebind(_metadata, t->gpu[i].bdf);
		use_gpu(_metadata, i);
	}
}

/* What the driver left behind would show in vfio-pci, and the other way round. */
TEST_F_TIMEOUT(binding, vfio_pci_takes_over_and_gives_back, 120)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	struct vfio_region_info *info;
	struct vfio_group group;
	int dev;

	ASSERT_EQ(0, driver_bind(g->bdf, "vfio-pci"));
	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(g->bdf), false));
	dev = vfio_device_open(&group, g->bdf);
	ASSERT_LE(0, dev);
	EXPECT_EQ(-EINVAL, vfio_region(dev, REGION_FIRST_OWN, &info));
	close(dev);
	vfio_group_close(&group);
	ASSERT_EQ(0, driver_bind(g->bdf, DRIVER));
	use_gpu(_metadata, 0);
}

/*
 * Addresses that suit the driver's pages are the driver's affair: a user of any other can move
 * several mappings at once, as always.
 */
TEST_F_TIMEOUT(binding, mappings_of_vfio_pci_move_together, 120)
{
	const struct dt_gpu *g = &self->tb.topo.gpu[0];
	struct vfio_region_info *info = NULL;
	char *from = reserve(2 * PAGE_64K, PAGE_64K), *to = reserve(2 * PAGE_64K, PAGE_64K);
	struct vfio_group group;
	__u64 value = 0;
	int dev;

	ASSERT_NE(NULL, from);
	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, driver_bind(g->bdf, "vfio-pci"));
	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(g->bdf), false));
	dev = vfio_device_open(&group, g->bdf);
	ASSERT_LE(0, dev);
	ASSERT_EQ(0, vfio_region(dev, VFIO_PCI_BAR1_REGION_INDEX, &info));
	ASSERT_EQ(from, vfio_map_at(dev, info, 0, PAGE_64K, from));
	/* Not what follows, or it would be one mapping. */
	ASSERT_EQ(from + PAGE_64K, vfio_map_at(dev, info, 2 * PAGE_64K, PAGE_64K, from + PAGE_64K));
	EXPECT_EQ(0, try_write64(from + PAGE_64K, 11));
	EXPECT_EQ(to, mremap(from, 2 * PAGE_64K, 2 * PAGE_64K, MREMAP_MAYMOVE | MREMAP_FIXED, to))
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(0, try_read64(to + PAGE_64K, &value));
	EXPECT_EQ(11ULL, value);
	munmap(from, 2 * PAGE_64K);
	munmap(to, 2 * PAGE_64K);
	free(info);
	close(dev);
	vfio_group_close(&group);
	ASSERT_EQ(0, driver_bind(g->bdf, DRIVER));
}

/* driver_override is kept, so that loading alone binds every device again. */
TEST_F_TIMEOUT(binding, unload_and_load, 120)
{
	const struct dt_topology *t = &self->tb.topo;
	unsigned int i, j;
	int round;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, module_unload());
		ASSERT_FALSE(module_loaded());
		EXPECT_FALSE(sys_exists(DEBUGFS));
		for (i = 0; i < t->num_gpus; i++) {
			EXPECT_TRUE(driver_is(t->gpu[i].bdf, ""))
				TH_LOG("%s", t->gpu[i].bdf);
		}
		ASSERT_EQ(0, module_load());
		for (i = 0; i < t->num_gpus; i++) {
			EXPECT_TRUE(driver_is(t->gpu[i].bdf, DRIVER))
				TH_LOG("%s", t->gpu[i].bdf);
			for (j = 0; j < t->gpu[i].num_links; j++) {
				EXPECT_TRUE(driver_is(t->gpu[i].link[j].bdf, DRIVER))
					TH_LOG("%s", t->gpu[i].link[j].bdf);
			}
		}
		use_gpu(_metadata, 0);
	}
}

TEST_F_TIMEOUT(binding, unload_while_open_is_refused, 120)
{
	struct testbed tb;
	__u64 value;
	void *p;

	ASSERT_EQ(0, testbed_open(&tb, 0, false))
		TH_LOG("%s", tb.why);
	p = vfio_map(tb.dev, tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	EXPECT_EQ(0, try_write64(p, 9));
	/* The mapping alone is use enough. */
	close(tb.dev);
	tb.dev = -1;
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(9ULL, value);
	EXPECT_EQ(0, munmap(p, PAGE_64K));
	EXPECT_EQ(0, testbed_close(&tb));
	EXPECT_EQ(0, module_unload());
	EXPECT_EQ(0, module_load());
}

/* Unbinding waits for the user to go, whom it names, and takes nothing from him meanwhile. */
TEST_F_TIMEOUT(binding, unbind_while_open_waits, 120)
{
	struct testbed tb;
	int kmsg, status;
	char line[256];
	pid_t child;
	void *p;

	ASSERT_EQ(0, testbed_open(&tb, 0, false))
		TH_LOG("%s", tb.why);
	kmsg = kmsg_open();
	ASSERT_LE(0, kmsg);
	p = vfio_map(tb.dev, tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	child = testbed_unbind_in_child(&tb, tb.gpu->bdf);
	ASSERT_LT(0, child)
		TH_LOG("%s", strerror(-child));
	sleep(2);
	EXPECT_EQ(0, waitpid(child, &status, WNOHANG));
	snprintf(line, sizeof(line),
		 DRIVER " %s: unbinding waits for process %d (driver_binding)", tb.gpu->bdf,
		 getpid());
	EXPECT_EQ(1, kmsg_count(kmsg, line));
	close(kmsg);
	EXPECT_EQ(0, try_write64(p, 17));
	EXPECT_EQ(0, munmap(p, PAGE_64K));
	EXPECT_EQ(0, testbed_close(&tb));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(driver_is(tb.gpu->bdf, ""));
	EXPECT_EQ(0, driver_bind(tb.gpu->bdf, DRIVER));
	use_gpu(_metadata, 0);
}

/* Opened and closed often: nothing is left over that a later open would trip on. */
TEST_F_TIMEOUT(binding, open_and_close_often, 120)
{
	int i;

	for (i = 0; i < 10; i++)
		use_gpu(_metadata, i % self->tb.topo.num_gpus);
}

TEST_HARNESS_MAIN
