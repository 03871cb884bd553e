/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The emulated GPU's test engine (tests/qemu/include/nvlink2-v100-regs.h): what a GPU
 * reaches when it is told to, on PCIe, on NVLink through the NPU's TCEs, and on NVLink with
 * addresses of a guest's process.
 *
 * An engine is driven through VFIO while the GPU is open, or by the host through sysfs when
 * nobody has it. Functions that return int give 0 or a negative errno; those that start a
 * copy give its cause, V100_ENGINE_CAUSE_NONE if it went well.
 */
#ifndef NVLINK2_SELFTEST_ENGINE_H
#define NVLINK2_SELFTEST_ENGINE_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "nvlink2-v100-regs.h"

struct engine {
	/* BAR0 from V100_MODEL_BASE on, and the start of BAR1: the GPU's RAM. PAGE_64K each. */
	void *regs;
	void *ram;
	/* Of the copies to come: what V100_ENGINE_PASID and V100_ENGINE_LINK are set to. */
	__u32 pasid;
	__u32 link;
};

/* What a copy left in the registers. */
struct engine_fault {
	__u32 cause;
	__u32 side;	/* V100_ENGINE_FAULT_SIDE_* */
	__u32 copied;	/* bytes */
	__u64 addr;
	__u64 gpa;
};

/* The GPU behind @dev, an open VFIO device. Switches bus mastering on. */
int engine_attach(struct engine *e, int dev);
/*
 * The GPU @bdf, which is not open: memory space is switched on, bus mastering as @master
 * says, and the links are trained.
 */
int engine_attach_host(struct engine *e, const char *bdf, bool master);
/* Undoes an attach; the host's GPU loses memory space and bus mastering, too. */
void engine_detach(struct engine *e);
void engine_detach_host(struct engine *e, const char *bdf);

/* Trains all links: a reset of the GPU or of a link, as by open and close, undoes it. */
void engine_train(const struct engine *e);

/* Only the GPU's own ends of its links are up, or down: the NPU's are firmware's business. */
void engine_gpu_ends(const struct engine *e, bool up);

/* How many links the GPU has. */
__u32 engine_links(const struct engine *e);

__u32 engine_reg(const struct engine *e, __u32 reg);
/* Any copy; @paths is V100_ENGINE_PATHS(). */
__u32 engine_copy(const struct engine *e, __u32 paths, __u64 src, __u64 dst, __u32 len);
void engine_last_fault(const struct engine *e, struct engine_fault *fault);

/*
 * The GPU reads @len bytes at @addr of V100_ENGINE_PATH_@path into @buf, or writes them. At
 * most PAGE_64K, a multiple of 8. The first @len bytes of the GPU's RAM are lost. @buf is all
 * ones after a fault.
 */
__u32 engine_read(const struct engine *e, __u32 path, __u64 addr, void *buf, size_t len);
__u32 engine_write(const struct engine *e, __u32 path, __u64 addr, const void *buf, size_t len);
__u32 engine_read64(const struct engine *e, __u32 path, __u64 addr, __u64 *value);
__u32 engine_write64(const struct engine *e, __u32 path, __u64 addr, __u64 value);

/*
 * Physical address of a page of this process that was touched. -ENOENT if there is none.
 */
int physical_address(const void *va, __u64 *pa);

#endif
