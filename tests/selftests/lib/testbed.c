// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"

#include "bind.h"
#include "hardware.h"
#include "npu.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"
#include "timeouts.h"

/* Says what did not work, and that it was errno -@ret. */
static __printf(3, 4)
int fail(struct testbed *tb, int ret, const char *format, ...)
{
	va_list args;
	size_t len;

	va_start(args, format);
	vsnprintf(tb->why, sizeof(tb->why), format, args);
	va_end(args);
	len = strlen(tb->why);
	snprintf(tb->why + len, sizeof(tb->why) - len, ": %s", strerror(-ret));
	return ret;
}

static const char *driver_name(void)
{
	return getenv("DRIVER") ?: DRIVER;
}

static int bind_one(struct testbed *tb, const char *bdf)
{
	int ret = driver_bind(bdf, driver_name());

	if (ret)
		return fail(tb, ret, "%s does not bind to %s", bdf, driver_name());
	return 0;
}

int testbed_bind(struct testbed *tb)
{
	unsigned int i, j;
	int ret;

	memset(tb, 0, sizeof(*tb));
	tb->dev = -1;
	tb->group.container = -1;
	tb->kmsg = kmsg_open();
	if (tb->kmsg < 0)
		return fail(tb, tb->kmsg, "/dev/kmsg");
	ret = dt_read_topology(&tb->topo, tb->why, sizeof(tb->why));
	if (ret)
		return ret;
	npu_select(&tb->topo.gpu[0].link[0]);
	tb->torn_before = npu_torn(&tb->topo);
	if (tb->torn_before < 0)
		return fail(tb, (int)tb->torn_before, "the NPUs do not tell of torn links");
	if (!strcmp(driver_name(), DRIVER) && !module_loaded()) {
		ret = module_load();
		if (ret)
			return fail(tb, ret, "loading " DRIVER);
	}
	for (i = 0; i < tb->topo.num_gpus; i++) {
		const struct dt_gpu *g = &tb->topo.gpu[i];

		ret = bind_one(tb, g->bdf);
		for (j = 0; !ret && j < g->num_links; j++)
			ret = bind_one(tb, g->link[j].bdf);
		if (ret)
			return ret;
	}
	return 0;
}

/* What only the model lets a test do. */
static int train(struct testbed *tb)
{
	int ret;

	ret = model_attach(&tb->model, tb->dev);
	if (ret)
		return fail(tb, ret, "%s is not the nvlink2-v100 model", tb->gpu->bdf);
	ret = model_read32(&tb->model, V100_UNTRAINED_ACCESSES, &tb->lost_before);
	if (ret)
		return fail(tb, ret, "%s does not say what was lost", tb->gpu->bdf);
	ret = model_train(&tb->model);
	if (ret)
		return fail(tb, ret, "training the links of %s", tb->gpu->bdf);
	return 0;
}

int testbed_open(struct testbed *tb, unsigned int gpu, bool kvm)
{
	int ret = testbed_bind(tb);

	if (ret)
		return ret;
	if (gpu >= tb->topo.num_gpus)
		return fail(tb, -ENODEV, "GPU %u of %u", gpu, tb->topo.num_gpus);
	tb->gpu = &tb->topo.gpu[gpu];
	ret = pci_iommu_group(tb->gpu->bdf);
	if (ret < 0)
		return fail(tb, ret, "%s has no IOMMU group", tb->gpu->bdf);
	ret = vfio_group_open(&tb->group, ret, kvm);
	if (ret)
		return fail(tb, ret, "opening IOMMU group %d %s KVM", tb->group.id,
			    kvm ? "with" : "without");
	tb->dev = vfio_device_open(&tb->group, tb->gpu->bdf);
	if (tb->dev < 0)
		return fail(tb, tb->dev, "opening %s", tb->gpu->bdf);
	ret = on_hardware() ? 0 : train(tb);
	if (ret)
		return ret;
	ret = vfio_find_gpu_ram(tb->dev, &tb->ram);
	if (ret)
		return fail(tb, ret, "%s has no GPU RAM region", tb->gpu->bdf);
	return 0;
}

int testbed_close(struct testbed *tb)
{
	long torn;
	int splats;

	free(tb->ram);
	if (tb->dev >= 0)
		close(tb->dev);
	if (tb->group.container >= 0)
		vfio_group_close(&tb->group);
	splats = kmsg_splats(tb->kmsg);
	close(tb->kmsg);
	torn = npu_torn(&tb->topo);
	if (torn < 0) {
		fprintf(stderr, "# the NPUs do not tell of torn links: %s\n", strerror((int)-torn));
		return (int)torn;
	}
	torn -= tb->torn_before;
	if (torn)
		fprintf(stderr, "# %ld links were open when their GPU was reset\n", torn);
	return splats < 0 ? splats : splats + (int)torn;
}

static bool is_in_unbind(pid_t child)
{
	char path[64], stack[4096];

	snprintf(path, sizeof(path), "/proc/%d/stack", child);
	return sys_read(path, stack, sizeof(stack)) > 0 && strstr(stack, "unbind_store");
}

pid_t testbed_unbind_in_child(struct testbed *tb, const char *bdf)
{
	const unsigned int tries = 1000 * time_factor();
	pid_t child = fork();
	unsigned int i;

	if (child < 0)
		return -errno;
	if (!child) {
		if (tb->dev >= 0)
			close(tb->dev);
		vfio_group_close(&tb->group);
		_exit(!!driver_unbind(bdf));
	}
	for (i = 0; i < tries; i++) {
		if (waitpid(child, NULL, WNOHANG))
			return -ECHILD;
		if (is_in_unbind(child))
			return child;
		usleep(10000);
	}
	return -ETIMEDOUT;
}

int testbed_mappings(const struct testbed *tb, const void *p)
{
	char path[256], buf[65536], needle[32] = "0x", *line;
	int count = 0;

	if (p)
		snprintf(needle, sizeof(needle), "%lx", (unsigned long)p);
	snprintf(path, sizeof(path), DEBUGFS "/%s/mappings", tb->gpu->bdf);
	if (sys_read(path, buf, sizeof(buf)) < 0)
		return -1;
	for (line = strtok(buf, "\n"); line; line = strtok(NULL, "\n")) {
		if (strstr(line, needle))
			count++;
	}
	return count;
}

int testbed_tves_with(const struct testbed *tb, __u64 iova, __u64 tce)
{
	const struct dt_bridge *b = &tb->gpu->link[0];
	__u64 tve, seen;
	unsigned int pe;
	int count = 0, ret;

	for (pe = 0; pe < NPU_NUM_TVES; pe++) {
		ret = npu_read_tve(b->chip, b->xscom_base, pe, &tve);
		ret = ret ?: tve_lookup(tve, iova, &seen);
		if (ret == -ENOENT)
			continue;
		if (ret)
			return ret;
		if (seen != tce) {
			fprintf(stderr, "# PE %u: TCE of %#lx is %#lx, not %#lx\n", pe, iova,
				seen, tce);
			return -EBADMSG;
		}
		count++;
	}
	return count;
}
