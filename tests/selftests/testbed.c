// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bind.h"
#include "sys.h"
#include "testbed.h"

#define FAIL(ret, fmt, ...) do { \
	int __ret = (ret); \
	snprintf(tb->why, sizeof(tb->why), fmt ": %s", ##__VA_ARGS__, strerror(-__ret)); \
	return __ret; \
} while (0)

static int bind_one(struct testbed *tb, const char *bdf)
{
	int ret = driver_bind(bdf, DRIVER);

	if (ret)
		FAIL(ret, "%s does not bind to " DRIVER, bdf);
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
		FAIL(tb->kmsg, "/dev/kmsg");
	ret = dt_read_topology(&tb->topo, tb->why, sizeof(tb->why));
	if (ret)
		return ret;
	if (!module_loaded()) {
		ret = module_load();
		if (ret)
			FAIL(ret, "loading " DRIVER);
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

int testbed_open(struct testbed *tb, unsigned int gpu, bool kvm)
{
	int ret = testbed_bind(tb);

	if (ret)
		return ret;
	if (gpu >= tb->topo.num_gpus)
		FAIL(-ENODEV, "GPU %u of %u", gpu, tb->topo.num_gpus);
	tb->gpu = &tb->topo.gpu[gpu];
	ret = pci_iommu_group(tb->gpu->bdf);
	if (ret < 0)
		FAIL(ret, "%s has no IOMMU group", tb->gpu->bdf);
	ret = vfio_group_open(&tb->group, ret, kvm);
	if (ret)
		FAIL(ret, "opening IOMMU group %d %s KVM", tb->group.id, kvm ? "with" : "without");
	tb->dev = vfio_device_open(&tb->group, tb->gpu->bdf);
	if (tb->dev < 0)
		FAIL(tb->dev, "opening %s", tb->gpu->bdf);
	ret = model_attach(&tb->model, tb->dev);
	if (ret)
		FAIL(ret, "%s is not the nvlink2-v100 model", tb->gpu->bdf);
	ret = model_train(&tb->model);
	if (ret)
		FAIL(ret, "training the links of %s", tb->gpu->bdf);
	ret = vfio_find_region(tb->dev, REGION_TYPE_GPU, VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM, &tb->ram);
	if (ret)
		FAIL(ret, "%s has no GPU RAM region", tb->gpu->bdf);
	return 0;
}

int testbed_close(struct testbed *tb)
{
	int splats;

	free(tb->ram);
	if (tb->dev >= 0)
		close(tb->dev);
	if (tb->group.container >= 0)
		vfio_group_close(&tb->group);
	splats = kmsg_splats(tb->kmsg);
	close(tb->kmsg);
	return splats;
}
