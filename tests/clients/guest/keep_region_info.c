// SPDX-License-Identifier: GPL-2.0
/*
 * To be preloaded by QEMU 7.2, which frees a region's info although the "nvlink2-tgt" property
 * of the device reads its capabilities later (hw/vfio/pci-quirks.c): without this, its guest sees
 * random values, and mostly no NVLink nodes. Blocks that are such an info are not freed here; all
 * others are.
 */
#include <linux/vfio.h>
#include <malloc.h>
#include <stdlib.h>

#define VENDOR_TYPE(vendor)	(VFIO_REGION_TYPE_PCI_VENDOR_TYPE | (vendor))

static int is_nvlink2(const struct vfio_region_info *info, size_t size)
{
	const struct vfio_region_info_cap_type *type;

	if (size < sizeof(*info) + sizeof(*type) || info->argsz > size ||
	    info->argsz < sizeof(*info) + sizeof(*type) || info->cap_offset != sizeof(*info))
		return 0;
	type = (const void *)(info + 1);
	return type->header.id == VFIO_REGION_INFO_CAP_TYPE &&
	       (type->type == VENDOR_TYPE(0x10de) || type->type == VENDOR_TYPE(0x1014));
}

/* GLib's function of this name does no more than call free(). */
void g_free(void *block)
{
	if (block && !is_nvlink2(block, malloc_usable_size(block)))
		free(block);
}
