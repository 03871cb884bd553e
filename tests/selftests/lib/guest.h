/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The smallest radix guest: memory, one process, and one vCPU that runs a handful of
 * instructions, in real mode or as that process. The test writes all of it, tables too.
 *
 * Memory is in pages of 64 KiB, as the host's. The process has pages of 4 KiB, the first of
 * each of the memory's data pages: page n is at guest_ea(n).
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_GUEST_H
#define NVLINK2_SELFTEST_GUEST_H

#include <linux/kvm.h>
#include <linux/types.h>

#define GUEST_PAGE_SIZE	0x1000UL
#define GUEST_PAGES	8
/* Entries of the process table. */
#define GUEST_PIDS	4096

/* Of PTEs of the process, as Power ISA 3.0 numbers them from the right. */
#define GUEST_PTE_READ		0x4ULL
#define GUEST_PTE_READ_WRITE	0x6ULL
#define GUEST_PTE_PRIVILEGED	0x8ULL

/* What a list of TCEs has at most. */
#define GUEST_TCES	512

/* Of the memory where the host has it, as long and aligned as a huge page. */
#define GUEST_MEMORY_SIZE	0x200000UL

/* Where guest_wander() goes: bits 32 and up of x = x * multiplier + increment, from x = 1. */
#define RANDOM_MULTIPLIER	6364136223846793005UL
#define RANDOM_INCREMENT	1442695040888963407UL

struct guest {
	/* All memory, where the host has it; the guest sees the start. */
	char *memory;
	int vcpu;
	struct kvm_run *run;
	/* The process. */
	__u32 pid;
};

/*
 * Makes VM @vm, which has neither memory nor vCPUs, such a guest, with process @pid whose
 * pages are all mapped read and write. The vCPU has touched nothing yet.
 */
int guest_create(struct guest *g, int vm, __u32 pid);
/* The VM itself is the caller's. */
void guest_destroy(struct guest *g);

/* The vCPU loads and stores the first word of what the NPU needs: tables, and page @n. */
int guest_touch_tables(struct guest *g);
int guest_touch(struct guest *g, unsigned int n);
/* Loads only. */
int guest_load(struct guest *g, unsigned int n);

/* The process loads or stores the first word of page @n. */
int guest_process_load(struct guest *g, unsigned int n, __u64 *value);
int guest_process_store(struct guest *g, unsigned int n, __u64 value);

/*
 * The guest has changed entries of its process' tables, and has units that cache them forget these.
 * GPUs have caches of their own.
 */
int guest_flush(struct guest *g);

/*
 * The guest sets the TCE of @ioba, as PAPR has it: 0 is H_SUCCESS. -ENOTSUP if KVM leaves that to
 * userspace, which this one does not do; the vCPU can go on to something else then.
 */
int guest_put_tce(struct guest *g, __u64 liobn, __u64 ioba, __u64 tce);
/* Without this KVM leaves the following two to userspace. */
int guest_enable_tce_ranges(int vm);
/*
 * The same for @count TCEs from @ioba on: those that guest_write_tce() has put into page @page, or
 * all of them @tce. H_PARAMETER and the like are -EIO.
 */
int guest_put_tces(struct guest *g, __u64 liobn, __u64 ioba, unsigned int page, unsigned int count);
int guest_stuff_tces(struct guest *g, __u64 liobn, __u64 ioba, __u64 tce, __u64 count);
/* TCE number @i of those in @page, of which there are at most GUEST_TCES. */
void guest_write_tce(struct guest *g, unsigned int page, unsigned int i, __u64 tce);

/*
 * Gives the guest @size bytes of @memory at @gpa, or takes them away (@size 0). There is one such
 * memory at a time.
 */
int guest_set_memory(int vm, __u64 gpa, void *memory, __u64 size);
/* The vCPU loads a doubleword in real mode, @count times, at @gpa and each @step behind it. */
int guest_walk(struct guest *g, __u64 gpa, __u64 step, __u64 count);
/* It loads 64 bytes, @count times, anywhere in the @size bytes (a power of two) behind @gpa. */
int guest_wander(struct guest *g, __u64 gpa, __u64 size, __u64 count);
/*
 * How many entries the partition's tree has for the @size bytes behind @gpa; with @page, those of
 * pages of that size only. The process has one VM.
 */
long guest_host_pages(__u64 gpa, __u64 size, __u64 page);

__u64 guest_ea(unsigned int n);
/* Guest real address of page @n, and where the host has it. */
__u64 guest_gpa(unsigned int n);
void *guest_page(const struct guest *g, unsigned int n);
/* Has the process see @gpa as page @n, with GUEST_PTE_@permissions; 0 unmaps it. */
void guest_map(struct guest *g, unsigned int n, __u64 gpa, __u64 permissions);

#endif
