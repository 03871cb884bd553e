// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
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
#define PTE_READ_EXECUTE 0x5ULL

/* 64-bit, machine checks on, little endian; then problem state with translation. */
#define MSR_REAL	0x8000000000001001ULL
#define MSR_PROCESS	(MSR_REAL | 0x4030ULL)
/* Interrupts are taken in little endian as well. */
#define LPCR_ILE	0x2000000ULL
/* No hypercalls that KVM knows: all is well, or an interrupt was not expected. */
#define HCALL_DONE	0x7ff0
#define H_PUT_TCE	0x20
#define H_STUFF_TCE	0x138
#define H_PUT_TCE_INDIRECT	0x13c
/* As many as any of these has. */
#define HCALL_ARGS	4
#define HCALL_VECTOR(v)	(0x6000 | (v))

#define GPR_ADDRESS	20
#define GPR_LOADED	21
#define GPR_TO_STORE	22

#define LOAD		0xeab40000	/* ld	r21, 0(r20) */
#define STORE		0xfad40000	/* std	r22, 0(r20) */
#define STORE_BACK	0xfab40000	/* std	r21, 0(r20) */
#define SYSTEM_CALL	0x44000002	/* sc	0 */
#define SET_NUMBER(nr)	(0x38600000 | (nr))	/* li	r3, @nr */
#define HYPERCALL	0x44000022	/* sc	1 */

struct program {
	__u64 gpa;
	__u64 msr;
	__u32 code[4];
};

static const struct program touch = {
	0x0, MSR_REAL, { LOAD, STORE_BACK, SET_NUMBER(HCALL_DONE), HYPERCALL }
};

static const struct program load = { 0x100, MSR_REAL, { LOAD, SET_NUMBER(HCALL_DONE), HYPERCALL } };
static const struct program system_call = {
	0xc00, MSR_REAL, { SET_NUMBER(HCALL_DONE), HYPERCALL }
};

/* Problem state takes interrupts. lis r3, 0x7fff; mtdec r3; rfid */
static const struct program decrementer = {
	0x900, MSR_REAL, { 0x3c607fff, 0x7c7603a6, 0x4c000024 }
};

/* Whatever hypercall the registers are set for; mr r21, r3 */
static const struct program hypercall = {
	0x3000, MSR_REAL, { HYPERCALL, 0x7c751b78, SET_NUMBER(HCALL_DONE), HYPERCALL }
};

/* The process has its programs in one page of its own. */
#define PROGRAM_GPA	0x1000UL
#define PROGRAM_PAGE	GUEST_PAGES
static const struct program process_load = { PROGRAM_GPA, MSR_PROCESS, { LOAD, SYSTEM_CALL } };
static const struct program process_store = {
	PROGRAM_GPA + 0x100, MSR_PROCESS, { STORE, SYSTEM_CALL }
};

/*
 * Loads a doubleword at r20, r24 times in all, each r23 bytes behind the last. Then the hypercall
 * in r25, as for all routines.
 */
static const __u32 walk[] = {
	0x7f0903a6,	/* mtctr	r24 */
	0xeab40000,	/* 1: ld	r21, 0(r20) */
	0x7e94ba14,	/* add		r20, r20, r23 */
	0x4200fff8,	/* bdnz		1b */
	0x7f23cb78,	/* mr		r3, r25 */
	HYPERCALL,
};

/* Loads 64 bytes, r24 times, where the generator in r26 to r28 says: masked by r23, behind r20. */
static const __u32 wander[] = {
	0x7f0903a6,	/* mtctr	r24 */
	0x7f5ad9d2,	/* 1: mulld	r26, r26, r27 */
	0x7f5ae214,	/* add		r26, r26, r28 */
	0x7b5d0022,	/* srdi		r29, r26, 32 */
	0x7fbdb838,	/* and		r29, r29, r23 */
	0x7fbda214,	/* add		r29, r29, r20 */
	0xeabd0000,	/* ld		r21, 0(r29) */
	0xeabd0008,
	0xeabd0010,
	0xeabd0018,
	0xeabd0020,
	0xeabd0028,
	0xeabd0030,
	0xeabd0038,	/* ld		r21, 56(r29) */
	0x4200ffcc,	/* bdnz		1b */
	0x7f23cb78,	/* mr		r3, r25 */
	HYPERCALL,
};

/* Broadcast, of the process in r22, as r20 says; RIC 2, process scoped, radix. */
static const __u32 flush[] = {
	0x7ecba264,	/* tlbie	r20, r22, 2, 1, 1 */
	0x7c0006ac,	/* eieio */
	0x7c00046c,	/* tlbsync */
	0x7c4004ac,	/* ptesync */
	0x7f23cb78,	/* mr		r3, r25 */
	HYPERCALL,
};

#define TLBIE_OF_PID	0x400UL
#define FLUSH_GPA	0x2200UL
#define WALK_GPA	0x2000UL
#define WANDER_GPA	0x2100UL

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

static void make_programs(struct guest *g)
{
	static const struct program * const programs[] = {
		&touch, &load, &decrementer, &system_call, &process_load, &process_store,
		&hypercall,
	};
	unsigned int vector;
	size_t i;

	for (vector = 0x200; vector < 0x1000; vector += 0x80) {
		const __u32 code[] = { SET_NUMBER(HCALL_VECTOR(vector)), HYPERCALL };

		memcpy(g->memory + vector, code, sizeof(code));
	}
	for (i = 0; i < ARRAY_SIZE(programs); i++)
		memcpy(g->memory + programs[i]->gpa, programs[i]->code, sizeof(programs[i]->code));
	memcpy(g->memory + WALK_GPA, walk, sizeof(walk));
	memcpy(g->memory + WANDER_GPA, wander, sizeof(wander));
	memcpy(g->memory + FLUSH_GPA, flush, sizeof(flush));
	guest_map(g, PROGRAM_PAGE, PROGRAM_GPA, PTE_READ_EXECUTE);
}

static void make_tables(struct guest *g)
{
	unsigned int n;

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

	char *p = anonymous(2 * GUEST_MEMORY_SIZE);
	const size_t before = -(uintptr_t)p % GUEST_MEMORY_SIZE;

	if (!p)
		return -ENOMEM;
	g->memory = p + before;
	munmap(g->memory + GUEST_MEMORY_SIZE, GUEST_MEMORY_SIZE - before);
	if (before)
		munmap(p, before);
	/* A huge page would bring pages into the partition's tree that were not touched. */
	if (madvise(g->memory, GUEST_MEMORY_SIZE, MADV_NOHUGEPAGE))
		return -errno;
	slot.userspace_addr = (uintptr_t)g->memory;
	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

static int one_reg(const struct guest *g, unsigned long request, __u64 id, __u64 *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)value };

	return ioctl(g->vcpu, request, &reg) ? -errno : 0;
}

static int make_vcpu(struct guest *g, int vm)
{
	struct kvm_enable_cap papr = { .cap = KVM_CAP_PPC_PAPR };
	__u64 pid = g->pid, lpcr;
	int ret;

	g->vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		return -errno;
	if (ioctl(g->vcpu, KVM_ENABLE_CAP, &papr))
		return -errno;
	ret = one_reg(g, KVM_SET_ONE_REG, KVM_REG_PPC_PID, &pid);
	ret = ret ?: one_reg(g, KVM_GET_ONE_REG, KVM_REG_PPC_LPCR_64, &lpcr);
	lpcr |= LPCR_ILE;
	ret = ret ?: one_reg(g, KVM_SET_ONE_REG, KVM_REG_PPC_LPCR_64, &lpcr);
	if (ret)
		return ret;
	g->run = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED) {
		g->run = NULL;
		return -errno;
	}
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
		make_programs(g);
		ret = ioctl(vm, KVM_PPC_CONFIGURE_V3_MMU, &radix) ? -errno : make_vcpu(g, vm);
	}
	if (ret)
		guest_destroy(g);
	return ret;
}

void guest_destroy(struct guest *g)
{
	if (g->run)
		munmap(g->run, PAGE_64K);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->memory)
		munmap(g->memory, GUEST_MEMORY_SIZE);
	*g = (struct guest){ .vcpu = -1 };
}

/* Runs from @regs on, which are replaced, to the hypercall that says all is well. */
static int run_until_done(struct guest *g, struct kvm_regs *regs)
{
	if (ioctl(g->vcpu, KVM_SET_REGS, regs))
		return -errno;
	if (ioctl(g->vcpu, KVM_RUN, 0))
		return -errno;
	if (g->run->exit_reason != KVM_EXIT_PAPR_HCALL || g->run->papr_hcall.nr != HCALL_DONE)
		return -EPROTO;
	return ioctl(g->vcpu, KVM_GET_REGS, regs) ? -errno : 0;
}

/*
 * Runs @program, which is at @pc for the vCPU, to its hypercall, for the word at @address.
 * @value is stored and replaced by what was loaded, by programs that do so.
 */
static int run(struct guest *g, const struct program *program, __u64 pc, __u64 address,
	       __u64 *value)
{
	struct kvm_regs regs;
	int ret;

	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		return -errno;
	regs.pc = pc;
	regs.msr = program->msr;
	regs.gpr[GPR_ADDRESS] = address;
	regs.gpr[GPR_TO_STORE] = *value;
	ret = run_until_done(g, &regs);
	*value = regs.gpr[GPR_LOADED];
	return ret;
}

static int run_real(struct guest *g, const struct program *program, __u64 gpa)
{
	__u64 unused = 0;

	return run(g, program, program->gpa, gpa, &unused);
}

static int run_process(struct guest *g, const struct program *program, unsigned int n,
		       __u64 *value)
{
	return run(g, program, guest_ea(PROGRAM_PAGE) + program->gpa % GUEST_PAGE_SIZE,
		   guest_ea(n), value);
}

int guest_touch_tables(struct guest *g)
{
	__u64 gpa;
	int ret = 0;

	for (gpa = PROCESS_TABLE; !ret && gpa < DATA_GPA; gpa += host_page())
		ret = run_real(g, &touch, gpa);
	return ret;
}

int guest_touch(struct guest *g, unsigned int n)
{
	return run_real(g, &touch, guest_gpa(n));
}

int guest_load(struct guest *g, unsigned int n)
{
	return run_real(g, &load, guest_gpa(n));
}

int guest_process_load(struct guest *g, unsigned int n, __u64 *value)
{
	return run_process(g, &process_load, n, value);
}

int guest_process_store(struct guest *g, unsigned int n, __u64 value)
{
	return run_process(g, &process_store, n, &value);
}

int guest_flush(struct guest *g)
{
	struct kvm_regs regs;

	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		return -errno;
	regs.pc = FLUSH_GPA;
	regs.msr = MSR_REAL;
	regs.gpr[GPR_ADDRESS] = TLBIE_OF_PID;
	regs.gpr[GPR_TO_STORE] = (__u64)g->pid << 32;
	regs.gpr[25] = HCALL_DONE;
	return run_until_done(g, &regs);
}

int guest_walk(struct guest *g, __u64 gpa, __u64 step, __u64 count)
{
	struct kvm_regs regs;

	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		return -errno;
	regs.pc = WALK_GPA;
	regs.msr = MSR_REAL;
	regs.gpr[20] = gpa;
	regs.gpr[23] = step;
	regs.gpr[24] = count;
	regs.gpr[25] = HCALL_DONE;
	return run_until_done(g, &regs);
}

int guest_wander(struct guest *g, __u64 gpa, __u64 size, __u64 count)
{
	struct kvm_regs regs;

	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		return -errno;
	regs.pc = WANDER_GPA;
	regs.msr = MSR_REAL;
	regs.gpr[20] = gpa;
	regs.gpr[23] = (size - 1) & ~63UL;
	regs.gpr[24] = count;
	regs.gpr[25] = HCALL_DONE;
	regs.gpr[26] = 1;
	regs.gpr[27] = RANDOM_MULTIPLIER;
	regs.gpr[28] = RANDOM_INCREMENT;
	return run_until_done(g, &regs);
}

/* A hypercall: 0 if it succeeds, -EIO if it does not, -ENOTSUP if KVM leaves it to userspace. */
static int run_hypercall(struct guest *g, __u64 nr, const __u64 args[HCALL_ARGS])
{
	struct kvm_regs regs;
	unsigned int i;
	int ret;

	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		return -errno;
	regs.pc = hypercall.gpa;
	regs.msr = hypercall.msr;
	regs.gpr[3] = nr;
	/* What ended the last run is a hypercall, of which KVM takes these for the results. */
	g->run->papr_hcall.ret = nr;
	for (i = 0; i < HCALL_ARGS; i++) {
		regs.gpr[4 + i] = args[i];
		g->run->papr_hcall.args[i] = args[i];
	}
	ret = run_until_done(g, &regs);
	if (ret == -EPROTO && g->run->exit_reason == KVM_EXIT_PAPR_HCALL &&
	    g->run->papr_hcall.nr == nr)
		return -ENOTSUP;
	return ret ?: regs.gpr[GPR_LOADED] ? -EIO : 0;
}

int guest_put_tce(struct guest *g, __u64 liobn, __u64 ioba, __u64 tce)
{
	const __u64 args[HCALL_ARGS] = { liobn, ioba, tce };

	return run_hypercall(g, H_PUT_TCE, args);
}

int guest_enable_tce_ranges(int vm)
{
	static const __u64 calls[] = { H_PUT_TCE_INDIRECT, H_STUFF_TCE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		struct kvm_enable_cap cap = {
			.cap = KVM_CAP_PPC_ENABLE_HCALL, .args = { calls[i], 1 },
		};

		if (ioctl(vm, KVM_ENABLE_CAP, &cap))
			return -errno;
	}
	return 0;
}

void guest_write_tce(struct guest *g, unsigned int page, unsigned int i, __u64 tce)
{
	store_be64(g, guest_gpa(page) + i * sizeof(tce), tce);
}

int guest_put_tces(struct guest *g, __u64 liobn, __u64 ioba, unsigned int page, unsigned int count)
{
	const __u64 args[HCALL_ARGS] = { liobn, ioba, guest_gpa(page), count };

	return run_hypercall(g, H_PUT_TCE_INDIRECT, args);
}

int guest_stuff_tces(struct guest *g, __u64 liobn, __u64 ioba, __u64 tce, __u64 count)
{
	const __u64 args[HCALL_ARGS] = { liobn, ioba, tce, count };

	return run_hypercall(g, H_STUFF_TCE, args);
}

int guest_set_memory(int vm, __u64 gpa, void *memory, __u64 size)
{
	struct kvm_userspace_memory_region slot = {
		.slot = 1,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

long guest_host_pages(__u64 gpa, __u64 size, __u64 page)
{
	char path[256], line[128];
	unsigned long at, pte;
	unsigned int shift;
	long count = 0;
	glob_t found;
	FILE *f;

	/* The kernel names the folder after the process and the VM's file; 5.10, the process. */
	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/{%d-*,vm%d}/radix", getpid(), getpid());
	if (glob(path, GLOB_BRACE, NULL, &found))
		return -ENOENT;
	f = fopen(found.gl_pathv[0], "re");
	globfree(&found);
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %lx: %lx %u", &at, &pte, &shift) == 3 && at - gpa < size &&
		    (!page || page == 1UL << shift))
			count++;
	}
	fclose(f);
	return count;
}
