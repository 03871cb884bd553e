// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"
#include "sys.h"

/*
 * Guest real addresses. The tables are those of Linux with pages of 4 KiB: 13, 9, 9 and 9
 * bits of a 52-bit address.
 */
#define CODE_GPA	0x0UL
#define PROCESS_TABLE	0x10000UL
#define PGD_GPA		0x20000UL
#define PUD_GPA		0x30000UL
#define PMD_GPA		0x31000UL
#define PTE_GPA		0x32000UL
#define DATA_GPA	0x40000UL
#define MEMORY_SIZE	(DATA_GPA + GUEST_PAGES * PAGE_64K)

#define EA_BASE		0x12345600000UL
#define PGD_INDEX	(EA_BASE >> 39)
#define PUD_INDEX	(EA_BASE >> 30 & 0x1ff)
#define PMD_INDEX	(EA_BASE >> 21 & 0x1ff)

/* Process table: guest radix; its size is 1 << (12 + PRTS) bytes. */
#define PATB_GR		0x8000000000000000ULL
#define PRTS		4ULL
/* Root of a tree of 52 bits, whose first table has 1 << 13 entries. */
#define ROOT_52_BITS	(0x2ULL << 61 | 0x5ULL << 5)
#define ROOT_PGD	13ULL
/* Entries of a tree. */
#define PTE_VALID	0x8000000000000000ULL
#define PTE_LEAF	0x4000000000000000ULL
#define PTE_REFERENCED	0x100ULL
#define PTE_CHANGED	0x80ULL
#define TABLE_512	9ULL

/* 64-bit, machine checks on, little endian; no translation, no problem state. */
#define MSR_REAL	0x8000000000001001ULL
/* No hypercall that KVM knows. */
#define HCALL_DONE	0x7ff0

#define GPR_ADDRESS	20

/* GPR_ADDRESS is the address to touch. */
static const __u32 code_load_store[] = {
	0xeab40000,		/* ld	r21, 0(r20) */
	0xfab40000,		/* std	r21, 0(r20) */
	0x38600000 | HCALL_DONE,	/* li	r3, HCALL_DONE */
	0x44000022,		/* sc	1 */
	0x48000000,		/* b	. */
};

static const __u32 code_load[] = {
	0xeab40000,		/* ld	r21, 0(r20) */
	0x38600000 | HCALL_DONE,	/* li	r3, HCALL_DONE */
	0x44000022,		/* sc	1 */
	0x48000000,		/* b	. */
};

#define CODE_LOAD_STORE	CODE_GPA
#define CODE_LOAD	(CODE_GPA + 0x100)

static void store_be64(struct guest *g, __u64 gpa, __u64 value)
{
	store64(g->memory + gpa, htobe64(value));
}

__u64 guest_ea(unsigned int n)
{
	return EA_BASE + n * GUEST_PAGE_SIZE;
}

__u64 guest_gpa(unsigned int n)
{
	return DATA_GPA + n * PAGE_64K;
}

void *guest_page(const struct guest *g, unsigned int n)
{
	return g->memory + guest_gpa(n);
}

void guest_map(struct guest *g, unsigned int n, __u64 gpa, __u64 permissions)
{
	__u64 pte = 0;

	if (permissions)
		pte = PTE_VALID | PTE_LEAF | PTE_REFERENCED | PTE_CHANGED | gpa | permissions;
	store_be64(g, PTE_GPA + n * sizeof(pte), pte);
}

static void make_tables(struct guest *g)
{
	unsigned int n;

	memcpy(g->memory + CODE_LOAD_STORE, code_load_store, sizeof(code_load_store));
	memcpy(g->memory + CODE_LOAD, code_load, sizeof(code_load));
	store_be64(g, PROCESS_TABLE + g->pid * 16UL, ROOT_52_BITS | PGD_GPA | ROOT_PGD);
	store_be64(g, PGD_GPA + PGD_INDEX * 8, PTE_VALID | PUD_GPA | TABLE_512);
	store_be64(g, PUD_GPA + PUD_INDEX * 8, PTE_VALID | PMD_GPA | TABLE_512);
	store_be64(g, PMD_GPA + PMD_INDEX * 8, PTE_VALID | PTE_GPA | TABLE_512);
	for (n = 0; n < GUEST_PAGES; n++)
		guest_map(g, n, guest_gpa(n), GUEST_PTE_READ_WRITE);
}

static int make_memory(struct guest *g, int vm)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY_SIZE };

	g->memory = anonymous(MEMORY_SIZE);
	if (!g->memory)
		return -ENOMEM;
	/* A huge page would bring pages into the partition's tree that were not touched. */
	if (madvise(g->memory, MEMORY_SIZE, MADV_NOHUGEPAGE))
		return -errno;
	slot.userspace_addr = (uintptr_t)g->memory;
	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

static int make_vcpu(struct guest *g, int vm)
{
	struct kvm_enable_cap papr = { .cap = KVM_CAP_PPC_PAPR };
	int kvm_run_size;

	g->vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		return -errno;
	if (ioctl(g->vcpu, KVM_ENABLE_CAP, &papr))
		return -errno;
	kvm_run_size = PAGE_64K;
	g->run = mmap(NULL, kvm_run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED) {
		g->run = NULL;
		return -errno;
	}
	g->run_size = kvm_run_size;
	return 0;
}

int guest_create(struct guest *g, int vm, __u32 pid)
{
	struct kvm_ppc_mmuv3_cfg radix = {
		.flags = KVM_PPC_MMUV3_RADIX | KVM_PPC_MMUV3_GTSE,
		.process_table = PATB_GR | PROCESS_TABLE | PRTS,
	};
	int ret;

	*g = (struct guest){ .vcpu = -1, .pid = pid };
	ret = pid < GUEST_PIDS ? make_memory(g, vm) : -EINVAL;
	if (!ret) {
		make_tables(g);
		ret = ioctl(vm, KVM_PPC_CONFIGURE_V3_MMU, &radix) ? -errno : make_vcpu(g, vm);
	}
	if (ret)
		guest_destroy(g);
	return ret;
}

void guest_destroy(struct guest *g)
{
	if (g->run)
		munmap(g->run, g->run_size);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->memory)
		munmap(g->memory, MEMORY_SIZE);
	*g = (struct guest){ .vcpu = -1 };
}

/* Runs @code for the address @gpa to its hypercall. */
static int run(struct guest *g, __u64 code, __u64 gpa)
{
	struct kvm_regs regs = { .pc = code, .msr = MSR_REAL };

	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		return -errno;
	regs.pc = code;
	regs.msr = MSR_REAL;
	regs.gpr[GPR_ADDRESS] = gpa;
	if (ioctl(g->vcpu, KVM_SET_REGS, &regs))
		return -errno;
	if (ioctl(g->vcpu, KVM_RUN, 0))
		return -errno;
	if (g->run->exit_reason != KVM_EXIT_PAPR_HCALL || g->run->papr_hcall.nr != HCALL_DONE)
		return -EPROTO;
	return 0;
}

int guest_touch_tables(struct guest *g)
{
	int ret = run(g, CODE_LOAD_STORE, PROCESS_TABLE);

	ret = ret ?: run(g, CODE_LOAD_STORE, PGD_GPA);
	return ret ?: run(g, CODE_LOAD_STORE, PUD_GPA);
}

int guest_touch(struct guest *g, unsigned int n)
{
	return run(g, CODE_LOAD_STORE, guest_gpa(n));
}

int guest_load(struct guest *g, unsigned int n)
{
	return run(g, CODE_LOAD, guest_gpa(n));
}
