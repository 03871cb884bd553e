// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>

#include "reset.h"
#include "sys.h"

__u32 lost_accesses(const struct testbed *tb)
{
	__u32 count;

	if (model_read32(&tb->model, V100_UNTRAINED_ACCESSES, &count))
		return ~0U;
	return count - tb->lost_before;
}

__u32 resets(const struct testbed *tb)
{
	__u32 count = 0;

	model_read32(&tb->model, V100_RESETS, &count);
	return count;
}

const char *comes_back(const struct testbed *tb, char *p)
{
	static char text[80];
	__u64 value;
	int faults;

	if (vfio_set_memory(tb->dev, true) || model_train(&tb->model))
		return "the links cannot be trained";
	if (lost_accesses(tb))
		return "an access was lost";
	if (trace_start("selftest-reset"))
		return "no trace";
	if (try_write64(p, 79) || try_read64(p, &value) || value != 79) {
		trace_stop("selftest-reset");
		return "no access";
	}
	faults = trace_count("selftest-reset", "vfio_pci_nvgpu_mmap_fault", NULL);
	trace_stop("selftest-reset");
	snprintf(text, sizeof(text), "%d faults", faults);
	return faults == 1 ? "" : text;
}
