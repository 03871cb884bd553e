// SPDX-License-Identifier: GPL-2.0
/*
 * What a GPU reaches by address translation services: the memory of processes of the guest
 * that it is bound to, as the guest's tables say, while it is bound, and nothing else.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "engine.h"
#include "guest.h"
#include "npu.h"
#include "sys.h"
#include "testbed.h"

#define ATS		V100_ENGINE_PATH_ATS
#define CAUSE(name)	V100_ENGINE_CAUSE_##name

#define PID		77
/* The vCPU leaves this page alone. */
#define UNTOUCHED	(GUEST_PAGES - 1)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define ATSD_LAUNCH	0x0
#define ATSD_AVA	0x8
#define ATSD_STATUS	0x10
/*
 * What to launch: process scoped, by page of 64 KiB, by PID; all of the LPAR, if bits 11 and 12
 * are IS of tlbie, and if bit 12 is "all addresses". The emulator may be told either (emu run
 * --atsd-is).
 */
#define ATSD_PROCESS	0x4000000000000ULL
#define ATSD_PAGE	(ATSD_PROCESS | 0x1400000000000ULL)
#define ATSD_PID	(ATSD_PROCESS | 0x8000000000000ULL)
#define ATSD_IS_LPAR	(ATSD_PROCESS | 0x10000000000000ULL)
#define ATSD_ALL	0x8000000000000ULL
#define ATSD_OF_PID(p)	((__u64)(p) << 25)

/* A GPU, and the guest that it works for. */
struct party {
	int dev;
	struct engine engine;
	struct guest guest;
};

static int start_guest(struct guest *guest, int vm, __u64 seed)
{
	int ret = guest_create(guest, vm, PID);
	unsigned int n;

	ret = ret ?: guest_touch_tables(guest);
	for (n = 0; n < GUEST_PAGES; n++) {
		if (!ret && n != UNTOUCHED)
			ret = guest_touch(guest, n);
		if (!ret)
			*(__u64 *)guest_page(guest, n) = pattern(n, seed);
	}
	return ret;
}

/* Opens @bdf for the VM of @group, starts that and trains the GPU. */
static int party_join(struct party *p, const struct vfio_group *group, const char *bdf, __u64 seed)
{
	struct model model;
	int ret;

	*p = (struct party){ .dev = -1, .guest.vcpu = -1 };
	ret = start_guest(&p->guest, group->vm, seed);
	if (ret)
		return ret;
	p->dev = vfio_device_open(group, bdf);
	if (p->dev < 0)
		return p->dev;
	ret = model_attach(&model, p->dev);
	ret = ret ?: model_train(&model);
	ret = ret ?: engine_attach(&p->engine, p->dev);
	p->engine.pasid = PID;
	return ret;
}

static void party_leave(struct party *p)
{
	engine_detach(&p->engine);
	guest_destroy(&p->guest);
	if (p->dev >= 0)
		close(p->dev);
	p->dev = -1;
}

/* The first word of page @n as the GPU sees it; all ones after a fault. */
static __u64 seen(const struct engine *e, unsigned int n)
{
	__u64 value;

	engine_read64(e, ATS, guest_ea(n), &value);
	return value;
}

/* A copy in direction @side faults at @ea with @cause. "" or what was different. */
static const char *refused(const struct engine *e, __u32 side, __u64 ea, __u32 cause)
{
	const __u32 was = engine_reg(e, V100_ENGINE_ATC_ENTRIES);
	static char text[160];
	struct engine_fault fault;
	__u64 value;

	if (side == V100_ENGINE_FAULT_SIDE_DST)
		engine_write64(e, ATS, ea, 0x5a5a5a5a5a5a5a5a);
	else
		engine_read64(e, ATS, ea, &value);
	engine_last_fault(e, &fault);
	if (fault.cause == cause && fault.addr == ea && fault.side == side && !fault.copied &&
	    engine_reg(e, V100_ENGINE_ATC_ENTRIES) == was)
		return "";
	snprintf(text, sizeof(text), "%s of %#lx: cause %u (not %u) at %#lx",
		 side == V100_ENGINE_FAULT_SIDE_DST ? "write" : "read", ea, fault.cause, cause,
		 fault.addr);
	return text;
}

static const char *both_refused(const struct engine *e, __u64 ea, __u32 cause)
{
	const char *why = refused(e, V100_ENGINE_FAULT_SIDE_SRC, ea, cause);

	return *why ? why : refused(e, V100_ENGINE_FAULT_SIDE_DST, ea, cause);
}

/*
 * Opens a bridge of the GPU of @e, and maps its ATSD register. NULL if that does not work.
 */
static char *atsd_map(const struct vfio_group *group, const char *bdf, const struct engine *e,
		      int *dev)
{
	struct vfio_region_info *info;
	char *p = NULL;

	*dev = vfio_device_open(group, bdf);
	if (*dev < 0)
		return NULL;
	if (!vfio_find_atsd(*dev, &info)) {
		p = vfio_map(*dev, info, 0, PAGE_64K);
		free(info);
	}
	engine_train(e);
	return p;
}

static void atsd_launch_one(char *atsd, __u64 launch, __u64 ea)
{
	store64(atsd + ATSD_AVA, htobe64(ea));
	store64(atsd + ATSD_LAUNCH, htobe64(launch));
	while (load64(atsd + ATSD_STATUS))
		;
}

/* What a launch names is gone after two more, of PID 0. */
static void atsd_launch(char *atsd, __u64 launch, __u64 ea)
{
	atsd_launch_one(atsd, launch, ea);
	atsd_launch_one(atsd, ATSD_PID, 0);
	atsd_launch_one(atsd, ATSD_PID, 0);
}

static void atsd_launch_lpar(char *atsd)
{
	atsd_launch(atsd, ATSD_IS_LPAR, 0);
	atsd_launch(atsd, ATSD_ALL, 0);
}

FIXTURE(ats)
{
	struct testbed tb;
	struct party p;
};

/* Of the GPU of the fixture. */
static const struct dt_bridge *first_link;

FIXTURE_SETUP(ats)
{
	ASSERT_EQ(0, testbed_bind(&self->tb))
		TH_LOG("%s", self->tb.why);
	self->tb.gpu = &self->tb.topo.gpu[0];
	first_link = &self->tb.gpu->link[0];
	ASSERT_EQ(0, vfio_group_open(&self->tb.group, pci_iommu_group(self->tb.gpu->bdf), true));
	ASSERT_EQ(0, party_join(&self->p, &self->tb.group, self->tb.gpu->bdf, 1));
}

FIXTURE_TEARDOWN(ats)
{
	npu_set("inject-atsd-busy", "0");
	party_leave(&self->p);
	EXPECT_STREQ("", npu_not_clear());
	EXPECT_EQ(0, testbed_close(&self->tb));
}

TEST_F(ats, reads_and_writes_memory_of_the_process)
{
	struct engine *e = &self->p.engine;
	unsigned int n;
	__u64 value;

	for (n = 0; n < UNTOUCHED; n++) {
		__u64 *page = guest_page(&self->p.guest, n);

		e->link = n % self->tb.gpu->num_links;
		page[3] = pattern(n, 2);
		EXPECT_EQ(0, engine_read64(e, ATS, guest_ea(n) + 24, &value));
		EXPECT_EQ(pattern(n, 2), value);
		EXPECT_EQ(0, engine_write64(e, ATS, guest_ea(n) + 24, pattern(n, 3)));
		EXPECT_EQ(pattern(n, 3), page[3]);

		/* The process runs, at the same addresses. */
		ASSERT_EQ(0, guest_process_store(&self->p.guest, n, pattern(n, 4)));
		EXPECT_EQ(pattern(n, 4), seen(e, n));
		EXPECT_EQ(0, engine_write64(e, ATS, guest_ea(n), pattern(n, 5)));
		ASSERT_EQ(0, guest_process_load(&self->p.guest, n, &value));
		EXPECT_EQ(pattern(n, 5), value);
	}
}

TEST_F(ats, other_pasids_are_other_processes)
{
	struct engine *e = &self->p.engine;
	unsigned int bit;

	for (bit = 0; bit < 20; bit++) {
		e->pasid = PID ^ 1 << bit;
		EXPECT_STREQ("", both_refused(e, guest_ea(0), CAUSE(PROCESS_ENTRY)))
			TH_LOG("PASID %u", e->pasid);
	}
	e->pasid = V100_ENGINE_PASID_MAX;
	EXPECT_STREQ("", both_refused(e, guest_ea(0), CAUSE(PROCESS_ENTRY)));
	e->pasid = V100_ENGINE_PASID_MAX + 1 + PID;
	EXPECT_EQ(CAUSE(PARAM), engine_write64(e, ATS, guest_ea(0), 0));
	EXPECT_EQ(pattern(0, 1), *(__u64 *)guest_page(&self->p.guest, 0));
}

TEST_F(ats, tables_of_the_process_are_obeyed)
{
	struct engine *e = &self->p.engine;
	struct guest *guest = &self->p.guest;
	unsigned int n;

	guest_map(guest, 0, 0, 0);
	guest_map(guest, 1, guest_gpa(1), GUEST_PTE_READ);
	guest_map(guest, 2, guest_gpa(2), GUEST_PTE_READ_WRITE | GUEST_PTE_PRIVILEGED);

	EXPECT_STREQ("", both_refused(e, guest_ea(0), CAUSE(RADIX)));
	EXPECT_STREQ("", both_refused(e, guest_ea(GUEST_PAGES + 1), CAUSE(RADIX)));
	EXPECT_STREQ("", both_refused(e, 0, CAUSE(RADIX)));
	/* Beyond the tree's 52 bits, quadrants 1 and 2, and 3: that is process 0's. */
	EXPECT_STREQ("", both_refused(e, guest_ea(3) | 0x10000000000000, CAUSE(RADIX)));
	EXPECT_STREQ("", both_refused(e, guest_ea(3) | 0x4000000000000000, CAUSE(RADIX)));
	EXPECT_STREQ("", both_refused(e, guest_ea(3) | 0x8000000000000000, CAUSE(RADIX)));
	EXPECT_STREQ("", both_refused(e, guest_ea(3) | 0xc000000000000000, CAUSE(PROCESS_ENTRY)));

	EXPECT_STREQ("", refused(e, V100_ENGINE_FAULT_SIDE_DST, guest_ea(1), CAUSE(PERMISSION)));
	EXPECT_EQ(pattern(1, 1), seen(e, 1));
	EXPECT_STREQ("", refused(e, V100_ENGINE_FAULT_SIDE_DST, guest_ea(1), CAUSE(PERMISSION)));
	EXPECT_STREQ("", both_refused(e, guest_ea(2), CAUSE(PERMISSION)));

	for (n = 0; n < GUEST_PAGES; n++)
		EXPECT_EQ(pattern(n, 1), *(__u64 *)guest_page(guest, n));
}

/* A guest real address reaches what the machine has there, never the host's memory. */
TEST_F(ats, memory_of_the_machine_is_the_limit)
{
	struct engine *e = &self->p.engine;
	struct guest *guest = &self->p.guest;
	struct engine_fault fault;
	__u64 *host, pa;
	__u64 gpa[3];
	size_t i;

	host = anonymous(PAGE_64K);
	ASSERT_NE(NULL, host);
	*host = 0xca;
	ASSERT_EQ(0, mlock(host, PAGE_64K));
	ASSERT_EQ(0, physical_address(host, &pa));

	gpa[0] = guest_gpa(GUEST_PAGES);
	gpa[1] = pa;
	gpa[2] = self->tb.gpu->aperture;
	for (i = 0; i < ARRAY_SIZE(gpa); i++) {
		guest_map(guest, i, gpa[i], GUEST_PTE_READ_WRITE);
		EXPECT_STREQ("", both_refused(e, guest_ea(i), CAUSE(PARTITION_RADIX)));
		engine_last_fault(e, &fault);
		EXPECT_EQ(gpa[i], fault.gpa);
	}
	EXPECT_EQ(0xca, *host);

	/* Nor has it what the host did not give it yet. */
	EXPECT_STREQ("", both_refused(e, guest_ea(UNTOUCHED), CAUSE(PARTITION_RADIX)));
	engine_last_fault(e, &fault);
	EXPECT_EQ(guest_gpa(UNTOUCHED), fault.gpa);
	ASSERT_EQ(0, guest_touch(guest, UNTOUCHED));
	EXPECT_EQ(pattern(UNTOUCHED, 1), seen(e, UNTOUCHED));
}

/* The machine's memory that the host lets nobody write. */
TEST_F(ats, memory_that_is_read_only_to_the_machine)
{
	struct engine *e = &self->p.engine;
	struct guest *guest = &self->p.guest;
	struct engine_fault fault;

	ASSERT_EQ(0, mprotect(guest_page(guest, UNTOUCHED), PAGE_64K, PROT_READ));
	ASSERT_EQ(0, guest_touch_tables(guest));
	ASSERT_EQ(0, guest_load(guest, UNTOUCHED));
	EXPECT_STREQ("", refused(e, V100_ENGINE_FAULT_SIDE_DST, guest_ea(UNTOUCHED),
				 CAUSE(PARTITION_PERMISSION)));
	engine_last_fault(e, &fault);
	EXPECT_EQ(guest_gpa(UNTOUCHED), fault.gpa);
	EXPECT_EQ(pattern(UNTOUCHED, 1), seen(e, UNTOUCHED));
	EXPECT_EQ(pattern(UNTOUCHED, 1), *(__u64 *)guest_page(guest, UNTOUCHED));
}

/*
 * Page @n, which the GPU has just used and the machine has lost, is out of reach. The machine gets
 * the tables back, which it loses if the host takes all of a huge page's range away from it.
 */
static const char *lost(struct party *p, unsigned int n)
{
	struct engine_fault fault;
	const char *why;

	if (guest_touch_tables(&p->guest))
		return "guest_touch_tables()";
	why = both_refused(&p->engine, guest_ea(n), CAUSE(PARTITION_RADIX));
	engine_last_fault(&p->engine, &fault);
	return *why || fault.gpa == guest_gpa(n) ? why : "another page is missing";
}

/* Page @n is the machine's, also after the host took others away. */
static int touch_again(struct guest *guest, unsigned int n)
{
	int ret = guest_touch_tables(guest);

	return ret ?: guest_touch(guest, n);
}

/* Has the GPU remember where page @n is. */
static const char *remembered(const struct party *p, unsigned int n)
{
	const __u32 hits = engine_reg(&p->engine, V100_ENGINE_ATC_HITS);

	if (seen(&p->engine, n) != pattern(n, 1) || seen(&p->engine, n) != pattern(n, 1))
		return "the GPU does not see the page";
	return engine_reg(&p->engine, V100_ENGINE_ATC_HITS) > hits ? "" : "nothing is remembered";
}

/* Pages that leave the machine are out of reach, though the GPU knows where they were. */
TEST_F(ats, defect_24_memory_that_the_machine_loses)
{
	struct guest *guest = &self->p.guest;
	unsigned int n;

	for (n = 0; n < 4; n++)
		ASSERT_STREQ("", remembered(&self->p, n));
	ASSERT_EQ(0, madvise(guest_page(guest, 0), PAGE_64K, MADV_DONTNEED));
	EXPECT_STREQ("", lost(&self->p, 0));
	ASSERT_EQ(0, mprotect(guest_page(guest, 1), PAGE_64K, PROT_NONE));
	EXPECT_STREQ("", lost(&self->p, 1));
	ASSERT_NE(MAP_FAILED, mremap(guest_page(guest, 2), PAGE_64K, PAGE_64K,
				     MREMAP_MAYMOVE | MREMAP_FIXED, anonymous(PAGE_64K)));
	EXPECT_STREQ("", lost(&self->p, 2));
	ASSERT_EQ(0, munmap(guest_page(guest, 3), PAGE_64K));
	EXPECT_STREQ("", lost(&self->p, 3));

	EXPECT_EQ(0ULL, *(__u64 *)guest_page(guest, 0));
	ASSERT_EQ(0, guest_touch(guest, 4));
	EXPECT_EQ(pattern(4, 1), seen(&self->p.engine, 4));
}

/* Where a page was replaced the GPU sees the new one. */
TEST_F(ats, memory_that_the_machine_gets_anew)
{
	struct guest *guest = &self->p.guest;

	ASSERT_STREQ("", remembered(&self->p, 0));
	ASSERT_EQ(0, madvise(guest_page(guest, 0), PAGE_64K, MADV_DONTNEED));
	*(__u64 *)guest_page(guest, 0) = pattern(0, 2);
	ASSERT_EQ(0, guest_touch(guest, 0));
	EXPECT_EQ(pattern(0, 2), seen(&self->p.engine, 0));
	EXPECT_EQ(0, engine_write64(&self->p.engine, ATS, guest_ea(0), pattern(0, 3)));
	EXPECT_EQ(pattern(0, 3), *(__u64 *)guest_page(guest, 0));
}

/* The process gets a copy of a page that it writes after fork(), its child keeps the page. */
TEST_F(ats, memory_that_is_copied_on_write)
{
	struct guest *guest = &self->p.guest;
	int go[2], status;
	pid_t child;
	char c;

	ASSERT_EQ(0, pipe(go));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		close(go[1]);
		_exit(read(go[0], &c, 1));
	}
	close(go[0]);
	ASSERT_EQ(0, guest_touch_tables(guest));
	ASSERT_EQ(0, guest_load(guest, 0));
	ASSERT_STREQ("", remembered(&self->p, 0));
	*(__u64 *)guest_page(guest, 0) = pattern(0, 2);
	EXPECT_STREQ("", lost(&self->p, 0));
	ASSERT_EQ(0, guest_load(guest, 0));
	EXPECT_EQ(pattern(0, 2), seen(&self->p.engine, 0));
	close(go[1]);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
}

/* Small pages that the kernel puts together to a huge one, and frees. */
TEST_F(ats, memory_that_is_collapsed)
{
	struct guest *guest = &self->p.guest;
	unsigned int n;

	for (n = 0; n < UNTOUCHED; n++)
		ASSERT_STREQ("", remembered(&self->p, n));
	ASSERT_EQ(0, madvise(guest->memory, GUEST_MEMORY_SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, madvise(guest->memory, GUEST_MEMORY_SIZE, MADV_COLLAPSE));
	for (n = 0; n < UNTOUCHED; n++)
		EXPECT_STREQ("", both_refused(&self->p.engine, guest_ea(n),
					      CAUSE(PARTITION_RADIX)));
	ASSERT_EQ(0, guest_touch_tables(guest));
	for (n = 0; n < UNTOUCHED; n++) {
		ASSERT_EQ(0, guest_touch(guest, n));
		EXPECT_EQ(pattern(n, 1), seen(&self->p.engine, n));
	}
}

/* What the driver counts of shootdowns of the machine that @bdf is bound to; -1 if it does not. */
static long counted(const char *bdf, const char *what)
{
	char path[128], text[256], *at;

	snprintf(path, sizeof(path), DEBUGFS "/%s/shootdowns", bdf);
	if (sys_read(path, text, sizeof(text)) < 0)
		return -1;
	at = strstr(text, what);
	return at ? atol(at + strlen(what)) : -1;
}

/* IS = 2, bit 12 without PRS, two flushes: what is right however LAUNCH is read. */
#define LAUNCHES	4

/* One sequence is enough for all GPUs of an NPU that the machine has. */
TEST_F(ats, gpus_of_one_npu_are_told_at_once)
{
	const struct dt_gpu *gpu = &self->tb.topo.gpu[1];
	struct engine other;
	__u64 value;
	int dev;

	dev = vfio_device_open(&self->tb.group, gpu->bdf);
	ASSERT_LE(0, dev);
	ASSERT_EQ(0, model_train(&(struct model){ .dev = dev }));
	ASSERT_EQ(0, engine_attach(&other, dev));
	other.pasid = PID;
	ASSERT_STREQ("", remembered(&self->p, 0));
	EXPECT_EQ(pattern(0, 1), seen(&other, 0));

	const long before = npu_launches(), shootdowns = counted(gpu->bdf, "shootdowns ");

	ASSERT_LE(0, shootdowns);
	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 0), PAGE_64K));
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	EXPECT_EQ(shootdowns + 1, counted(gpu->bdf, "shootdowns "));
	EXPECT_EQ(shootdowns + 1, counted(self->tb.gpu->bdf, "shootdowns "));
	EXPECT_EQ((shootdowns + 1) * LAUNCHES, counted(gpu->bdf, "launches "));
	EXPECT_STREQ("", lost(&self->p, 0));
	EXPECT_EQ(CAUSE(PARTITION_RADIX), engine_read64(&other, ATS, guest_ea(0), &value));
	engine_detach(&other);
	close(dev);

	/* The other one is told as before. */
	ASSERT_EQ(0, touch_again(&self->p.guest, 1));
	ASSERT_STREQ("", remembered(&self->p, 1));
	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 1), PAGE_64K));
	EXPECT_STREQ("", lost(&self->p, 1));
}

/* Memory of the process that is not the machine's is nothing to the GPU. */
TEST_F(ats, memory_beside_the_machine)
{
	const unsigned int times = 1000;
	long before, spared;
	unsigned int n;

	ASSERT_STREQ("", remembered(&self->p, 0));
	before = npu_launches();
	spared = counted(self->tb.gpu->bdf, "spared ");
	ASSERT_EQ(0, trace_start("selftest-ats"));
	for (n = 0; n < times; n++) {
		__u64 *p = anonymous(PAGE_64K);

		ASSERT_NE(NULL, p);
		*p = n;
		ASSERT_EQ(0, munmap(p, PAGE_64K));
	}
	EXPECT_EQ(before, npu_launches());
	EXPECT_LE(spared + times, counted(self->tb.gpu->bdf, "spared "));
	EXPECT_EQ(0, trace_count("selftest-ats", "nvlink2_lpar_invalidate", NULL));

	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 0), PAGE_64K));
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	EXPECT_EQ(1, trace_count("selftest-ats", "nvlink2_lpar_invalidate", NULL));
	EXPECT_EQ(1, trace_count("selftest-ats", "nvlink2_lpar_invalidate",
				 "launches=4 result=0"));
	trace_stop("selftest-ats");
	EXPECT_STREQ("", lost(&self->p, 0));
}

/*
 * Memory that a machine does not have any more is still known to the GPU: KVM tells nobody that a
 * slot goes.
 */
TEST_F(ats, memory_that_the_machine_had)
{
	const __u64 gpa = GUEST_MEMORY_SIZE;
	struct engine *e = &self->p.engine;
	struct guest *guest = &self->p.guest;
	__u64 *memory = anonymous(PAGE_64K);
	struct engine_fault fault;

	ASSERT_NE(NULL, memory);
	*memory = pattern(9, 1);
	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, gpa, memory, PAGE_64K));
	ASSERT_EQ(0, guest_walk(guest, gpa, 8, 1));
	guest_map(guest, 0, gpa, GUEST_PTE_READ_WRITE);
	EXPECT_EQ(pattern(9, 1), seen(e, 0));
	ASSERT_EQ(0, guest_set_memory(self->tb.group.vm, gpa, memory, 0));
	ASSERT_EQ(0, munmap(memory, PAGE_64K));
	EXPECT_STREQ("", both_refused(e, guest_ea(0), CAUSE(PARTITION_RADIX)));
	engine_last_fault(e, &fault);
	EXPECT_EQ(gpa, fault.gpa);
}

/* OPAL has the NPU tell a GPU by its first link, which may be down while it uses another one. */
TEST_F(ats, memory_that_is_lost_while_a_link_is_down)
{
	char brick[8];

	snprintf(brick, sizeof(brick), "%u", self->tb.gpu->link[0].link_index);
	ASSERT_STREQ("", remembered(&self->p, 0));
	ASSERT_EQ(0, npu_set("inject-fence", brick));
	self->p.engine.link = 1;
	ASSERT_STREQ("", remembered(&self->p, 0));
	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 0), PAGE_64K));
	EXPECT_STREQ("", lost(&self->p, 0));
	ASSERT_EQ(0, touch_again(&self->p.guest, 1));
	EXPECT_EQ(pattern(1, 1), seen(&self->p.engine, 1));
	EXPECT_EQ(0, counted(self->tb.gpu->bdf, "failed "));
}

/* Whether the GPU gets page @n again, which the kernel may make it wait for. */
static bool translates(const struct engine *e, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < 200; i++) {
		if (seen(e, n) == pattern(n, 1))
			return true;
		usleep(10000);
	}
	return false;
}

/* A GPU that is reset forgets. Nobody waits for it to say so, and then it works as before. */
TEST_F(ats, memory_that_is_lost_while_links_are_untrained)
{
	struct guest *guest = &self->p.guest;
	const long before = npu_launches();

	ASSERT_STREQ("", remembered(&self->p, 0));
	ASSERT_EQ(0, ioctl(self->p.dev, VFIO_DEVICE_RESET));
	/* It forgot before its links went down: a launch to none that is up is not counted. */
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	ASSERT_EQ(0, munmap(guest_page(guest, 0), PAGE_64K));
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	EXPECT_EQ(0, counted(self->tb.gpu->bdf, "failed "));
	ASSERT_EQ(0, vfio_set_memory(self->p.dev, true));
	ASSERT_EQ(0, model_train(&(struct model){ .dev = self->p.dev }));
	ASSERT_EQ(0, touch_again(guest, 1));
	EXPECT_TRUE(translates(&self->p.engine, 1));
	EXPECT_STREQ("", lost(&self->p, 0));
	ASSERT_STREQ("", remembered(&self->p, 1));
	ASSERT_EQ(0, munmap(guest_page(guest, 1), PAGE_64K));
	EXPECT_STREQ("", lost(&self->p, 1));
}

static void fence_all_links(struct __test_metadata *_metadata, const struct dt_gpu *gpu)
{
	unsigned int link;
	char brick[8];

	for (link = 0; link < gpu->num_links; link++) {
		snprintf(brick, sizeof(brick), "%u", gpu->link[link].link_index);
		ASSERT_EQ(0, npu_set("inject-fence", brick));
	}
}

/*
 * Links that are down for an error come back without a reset of the GPU, which knows what it knew,
 * and uses it without asking the NPU until that was made up for, which is soon.
 */
TEST_F(ats, memory_that_is_lost_while_all_links_are_down)
{
	struct party *p = &self->p;
	const long before = npu_launches();
	unsigned int i;
	__u64 value;

	ASSERT_STREQ("", remembered(p, 0));
	fence_all_links(_metadata, self->tb.gpu);
	ASSERT_EQ(0, munmap(guest_page(&p->guest, 0), PAGE_64K));
	EXPECT_EQ(before, npu_launches());
	ASSERT_EQ(0, touch_again(&p->guest, 1));
	engine_train(&p->engine);
	for (i = 0; i < 100 && npu_launches() == before; i++)
		usleep(10000);
	EXPECT_NE(0, engine_read64(&p->engine, ATS, guest_ea(0), &value));
	EXPECT_TRUE(translates(&p->engine, 1));
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	EXPECT_STREQ("", lost(p, 0));
	EXPECT_EQ(0, counted(self->tb.gpu->bdf, "failed "));
}

/* What the GPU knows is shot down while it can be, and not when it is being reset. */
TEST_F(ats, end_of_a_binding_is_before_the_reset)
{
	struct party *p = &self->p;
	const long before = npu_launches();

	ASSERT_STREQ("", remembered(p, 0));
	engine_detach(&p->engine);
	close(p->dev);
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	/* It has not been trained. */
	p->dev = vfio_device_open(&self->tb.group, self->tb.gpu->bdf);
	ASSERT_LE(0, p->dev);
	close(p->dev);
	EXPECT_EQ(before + LAUNCHES, npu_launches());
	p->dev = vfio_device_open(&self->tb.group, self->tb.gpu->bdf);
	ASSERT_LE(0, p->dev);
	ASSERT_EQ(0, engine_attach(&p->engine, p->dev));
}

/* Whether @bdf lost its binding, which takes the driver a while. */
static bool revoked(const char *bdf)
{
	char path[128], text[64];
	unsigned int n;

	snprintf(path, sizeof(path), DEBUGFS "/%s/lpar", bdf);
	for (n = 0; n < 500; n++) {
		if (sys_read(path, text, sizeof(text)) >= 0 && !strncmp(text, "none", 4))
			return true;
		usleep(10000);
	}
	return false;
}

/* Whether the GPU has forgotten all, for which a reset of it takes the host some seconds. */
static bool knows_nothing(struct engine *e)
{
	unsigned int n;

	for (n = 0; n < 2000; n++) {
		if (!engine_reg(e, V100_ENGINE_ATC_ENTRIES))
			return true;
		usleep(10000);
	}
	return false;
}

/*
 * Nothing more is translated for the GPU at once, it knows nothing any more soon, as the driver
 * resets it, and nobody binds it before it was closed.
 */
static void check_given_up(struct __test_metadata *_metadata, struct testbed *tb, struct party *p,
			   unsigned int n)
{
	struct engine *e = &p->engine;
	__u64 value;

	for (e->link = 0; e->link < tb->gpu->num_links; e->link++)
		EXPECT_NE(0, engine_read64(e, ATS, guest_ea(n + 1), &value));
	e->link = 0;
	EXPECT_TRUE(revoked(tb->gpu->bdf));
	EXPECT_TRUE(knows_nothing(e));
	engine_train(e);
	for (e->link = 0; e->link < tb->gpu->num_links; e->link++)
		EXPECT_NE(0, engine_read64(e, ATS, guest_ea(n), &value));
	e->link = 0;
	EXPECT_EQ(1, kmsg_count(tb->kmsg, "nothing is translated for it any more"));
	EXPECT_EQ(-EBUSY, vfio_device_open(&tb->group, tb->gpu->link[0].bdf));
	engine_detach(e);
	close(p->dev);
	p->dev = vfio_device_open(&tb->group, tb->gpu->bdf);
	ASSERT_LE(0, p->dev);
	ASSERT_EQ(0, model_train(&(struct model){ .dev = p->dev }));
	ASSERT_EQ(0, engine_attach(e, p->dev));
	e->pasid = PID;
	ASSERT_EQ(0, touch_again(&p->guest, n + 1));
	ASSERT_STREQ("", remembered(p, n + 1));
	ASSERT_EQ(0, munmap(guest_page(&p->guest, n + 1), PAGE_64K));
	EXPECT_STREQ("", lost(p, n + 1));
}

/* A launch that never ends takes the GPU away, at once, and not from the next user. */
TEST_F(ats, gpu_that_does_not_answer)
{
	ASSERT_STREQ("", remembered(&self->p, 0));
	kmsg_count(self->tb.kmsg, "");
	ASSERT_EQ(0, npu_set("inject-atsd-busy", "1"));
	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 0), PAGE_64K));
	check_given_up(_metadata, &self->tb, &self->p, 0);
	/* The registers that wait for it are used again when they do not. */
	ASSERT_EQ(0, npu_set("inject-atsd-busy", "0"));
	ASSERT_EQ(0, touch_again(&self->p.guest, 2));
	ASSERT_STREQ("", remembered(&self->p, 2));
	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 2), PAGE_64K));
	EXPECT_STREQ("", lost(&self->p, 2));
}

/* The same when the launch is made up for as links come back, and no memory is lost then. */
TEST_F(ats, gpu_that_does_not_answer_later)
{
	ASSERT_STREQ("", remembered(&self->p, 0));
	kmsg_count(self->tb.kmsg, "");
	fence_all_links(_metadata, self->tb.gpu);
	ASSERT_EQ(0, munmap(guest_page(&self->p.guest, 0), PAGE_64K));
	ASSERT_EQ(0, npu_set("inject-atsd-busy", "1"));
	engine_train(&self->p.engine);
	check_given_up(_metadata, &self->tb, &self->p, 0);
}

/* A GPU that hangs is reset as ever, and its guest keeps it: it has lost nothing. */
TEST_F(ats, reset_of_a_gpu_that_does_not_answer)
{
	struct party *p = &self->p;

	ASSERT_STREQ("", remembered(p, 0));
	ASSERT_EQ(0, npu_set("inject-atsd-busy", "1"));
	ASSERT_EQ(0, ioctl(p->dev, VFIO_DEVICE_RESET));
	ASSERT_EQ(0, npu_set("inject-atsd-busy", "0"));
	ASSERT_EQ(0, vfio_set_memory(p->dev, true));
	ASSERT_EQ(0, model_train(&(struct model){ .dev = p->dev }));
	EXPECT_TRUE(translates(&p->engine, 0));
	EXPECT_EQ(0, kmsg_count(self->tb.kmsg, "nothing is translated for it any more"));
	ASSERT_EQ(0, munmap(guest_page(&p->guest, 0), PAGE_64K));
	EXPECT_STREQ("", lost(p, 0));
}

/* Where all registers of the host wait, a GPU that has to be told is given up like those before. */
TEST_F(ats, no_registers_are_left)
{
	struct party *p = &self->p;
	unsigned int n;

	for (n = 0; n < 2; n++) {
		ASSERT_STREQ("", remembered(p, n));
		ASSERT_EQ(0, npu_set("inject-atsd-busy", "1"));
		ASSERT_EQ(0, munmap(guest_page(&p->guest, n), PAGE_64K));
		ASSERT_TRUE(revoked(self->tb.gpu->bdf));
		engine_detach(&p->engine);
		close(p->dev);
		p->dev = vfio_device_open(&self->tb.group, self->tb.gpu->bdf);
		ASSERT_LE(0, p->dev);
		ASSERT_EQ(0, model_train(&(struct model){ .dev = p->dev }));
		ASSERT_EQ(0, engine_attach(&p->engine, p->dev));
		p->engine.pasid = PID;
		ASSERT_EQ(0, touch_again(&p->guest, n + 1));
	}
	ASSERT_STREQ("", remembered(p, 2));
	kmsg_count(self->tb.kmsg, "");
	ASSERT_EQ(0, munmap(guest_page(&p->guest, 2), PAGE_64K));
	ASSERT_EQ(0, npu_set("inject-atsd-busy", "0"));
	check_given_up(_metadata, &self->tb, p, 2);
}

/* What a process made that shares descriptors with this one. */
struct shared {
	struct vfio_group group;
	struct party p;
	int bridge;
	int ret;
};

static int share_machine(struct shared *s, const struct dt_gpu *gpu)
{
	int ret = vfio_group_open(&s->group, pci_iommu_group(gpu->bdf), true);

	ret = ret ?: party_join(&s->p, &s->group, gpu->bdf, 1);
	s->bridge = ret ? -1 : vfio_device_open(&s->group, gpu->link[0].bdf);
	engine_train(&s->p.engine);
	return ret ?: s->bridge < 0 ? s->bridge : 0;
}

/*
 * A machine's process is killed, and its memory freed, while another process has all of the
 * descriptors and drives the GPU on. If the links are not @up by then the GPU cannot be told.
 */
static void check_killed(struct __test_metadata *_metadata, struct testbed *tb, struct party *p,
			 bool up)
{
	const struct dt_gpu *gpu = tb->gpu;
	struct vfio_region_info *info;
	struct shared *s;
	struct engine e;
	int go[2], status;
	pid_t child;
	__u64 value;
	char *atsd;

	party_leave(p);
	vfio_group_close(&tb->group);
	s = mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, s);
	ASSERT_EQ(0, pipe(go));
	child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	ASSERT_LE(0, child);
	if (!child) {
		s->ret = share_machine(s, gpu);
		if (write(go[1], "", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	ASSERT_EQ(1, read(go[0], &status, 1));
	tb->group = s->group;
	p->dev = s->p.dev;
	ASSERT_EQ(0, s->ret);
	ASSERT_EQ(0, engine_attach(&e, s->p.dev));
	e.pasid = PID;
	ASSERT_EQ(0, vfio_find_atsd(s->bridge, &info));
	atsd = vfio_map(s->bridge, info, 0, PAGE_64K);
	ASSERT_NE(NULL, atsd);
	EXPECT_EQ(0, try_read64(atsd + ATSD_AVA, &value));
	EXPECT_EQ(pattern(0, 1), seen(&e, 0));
	EXPECT_EQ(pattern(1, 1), seen(&e, 1));
	EXPECT_NE(0, engine_reg(&e, V100_ENGINE_ATC_ENTRIES));

	if (!up)
		fence_all_links(_metadata, gpu);
	ASSERT_EQ(0, kill(child, SIGKILL));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, engine_reg(&e, V100_ENGINE_ATC_ENTRIES));
	EXPECT_EQ(!up, kmsg_count(tb->kmsg, "reset, as it could not be told to forget"));
	engine_train(&e);
	for (e.link = 0; e.link < gpu->num_links; e.link++) {
		EXPECT_STREQ("", both_refused(&e, guest_ea(0), CAUSE(XTS_BDF_MISS)));
		EXPECT_STREQ("", both_refused(&e, guest_ea(1), CAUSE(XTS_BDF_MISS)));
		EXPECT_STREQ("", both_refused(&e, guest_ea(2), CAUSE(XTS_BDF_MISS)));
	}
	EXPECT_EQ(SIGBUS, try_read64(atsd + ATSD_AVA, &value));
	/* Nobody gets a binding to a machine without memory. */
	munmap(atsd, PAGE_64K);
	close(s->bridge);
	EXPECT_EQ(-ESRCH, vfio_device_open(&tb->group, gpu->link[0].bdf));
	engine_detach(&e);
	close(s->p.dev);
	close(s->p.guest.vcpu);
	vfio_group_close(&tb->group);
	free(info);

	ASSERT_EQ(0, vfio_group_open(&tb->group, pci_iommu_group(gpu->bdf), true));
	ASSERT_EQ(0, party_join(p, &tb->group, gpu->bdf, 1));
	EXPECT_EQ(pattern(0, 1), seen(&p->engine, 0));
}

TEST_F(ats, memory_of_a_killed_process)
{
	check_killed(_metadata, &self->tb, &self->p, true);
}

TEST_F(ats, memory_of_a_killed_process_whose_links_are_down)
{
	check_killed(_metadata, &self->tb, &self->p, false);
}

/* All of it, from first open to last close, though machine and GPU live on both sides of that. */
TEST_F(ats, nothing_without_a_binding)
{
	const struct dt_gpu *gpu = self->tb.gpu;
	struct engine e;
	unsigned int link;
	int bridge;

	bridge = vfio_device_open(&self->tb.group, gpu->link[1].bdf);
	ASSERT_LE(0, bridge);
	engine_detach(&self->p.engine);
	close(self->p.dev);
	self->p.dev = -1;

	/* The bridge keeps the binding. */
	ASSERT_EQ(0, engine_attach_host(&e, gpu->bdf, false));
	e.pasid = PID;
	EXPECT_EQ(pattern(0, 1), seen(&e, 0));
	close(bridge);
	engine_train(&e);
	for (link = 0; link < gpu->num_links; link++) {
		e.link = link;
		EXPECT_STREQ("", both_refused(&e, guest_ea(0), CAUSE(XTS_BDF_MISS)));
		EXPECT_STREQ("", both_refused(&e, guest_ea(1), CAUSE(XTS_BDF_MISS)));
	}
	EXPECT_NE(0, engine_write64(&e, V100_ENGINE_PATH_TCE, guest_ea(0), 0));
	EXPECT_EQ(1, npu_thaw(&gpu->link[0]));
	EXPECT_NE(0, engine_write64(&e, V100_ENGINE_PATH_PCI, guest_ea(0), 0));
	engine_detach_host(&e, gpu->bdf);
	EXPECT_EQ(pattern(0, 1), *(__u64 *)guest_page(&self->p.guest, 0));

	self->p.dev = vfio_device_open(&self->tb.group, gpu->bdf);
	ASSERT_LE(0, self->p.dev);
	ASSERT_EQ(0, model_train(&(struct model){ .dev = self->p.dev }));
	ASSERT_EQ(0, engine_attach(&self->p.engine, self->p.dev));
	self->p.engine.pasid = PID;
	EXPECT_EQ(pattern(0, 1), seen(&self->p.engine, 0));
}

TEST_F(ats, defect_9_nothing_without_kvm)
{
	struct engine *e = &self->p.engine;

	party_leave(&self->p);
	vfio_group_close(&self->tb.group);
	ASSERT_EQ(0, testbed_close(&self->tb));
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, engine_attach(e, self->tb.dev));
	for (e->pasid = 0; e->pasid < 2 * PID; e->pasid += PID)
		EXPECT_STREQ("", both_refused(e, guest_ea(0), CAUSE(XTS_BDF_MISS)));
}

/* @what with its PID, or all of the LPAR if it is 0. */
static void launch_any(char *atsd, __u64 what)
{
	if (what)
		atsd_launch(atsd, what | ATSD_OF_PID(PID), guest_ea(0));
	else
		atsd_launch_lpar(atsd);
}

/* What the GPU remembers of a translation goes with a launch, from any of its links. */
TEST_F(ats, atsd_removes_stale_translations)
{
	/* 0: of the LPAR. */
	static const __u64 launches[] = { ATSD_PAGE, ATSD_PID, 0 };
	/* Page 0 is mapped to pages below it in turn, and it to itself. */
	const unsigned int bystander = 6;
	struct engine *e = &self->p.engine;
	unsigned int link, n = 0;
	size_t i;

	for (link = 0; link < self->tb.gpu->num_links; link++) {
		int bridge;
		char *atsd = atsd_map(&self->tb.group, self->tb.gpu->link[link].bdf, e, &bridge);

		ASSERT_NE(NULL, atsd);
		for (i = 0; i < ARRAY_SIZE(launches); i++, n = (n + 1) % bystander) {
			const unsigned int to = (n + 1) % UNTOUCHED;

			guest_map(&self->p.guest, 0, guest_gpa(n), GUEST_PTE_READ_WRITE);
			EXPECT_EQ(pattern(n, 1), seen(e, 0));
			EXPECT_EQ(pattern(bystander, 1), seen(e, bystander));
			guest_map(&self->p.guest, 0, guest_gpa(to), GUEST_PTE_READ_WRITE);
			ASSERT_EQ(0, guest_flush(&self->p.guest));
			EXPECT_EQ(pattern(n, 1), seen(e, 0))
				TH_LOG("the engine has no cache, nothing is tested");

			/* None of these is about it. */
			atsd_launch(atsd, ATSD_PAGE | ATSD_OF_PID(PID), guest_ea(0) + PAGE_64K);
			atsd_launch(atsd, ATSD_PAGE | ATSD_OF_PID(PID + 1), guest_ea(0));
			atsd_launch(atsd, ATSD_PID | ATSD_OF_PID(PID + 1), guest_ea(0));
			EXPECT_EQ(pattern(n, 1), seen(e, 0));

			launch_any(atsd, launches[i]);
			EXPECT_EQ(pattern(to, 1), seen(e, 0))
				TH_LOG("launch %#lx on link %u", launches[i], link);
			guest_map(&self->p.guest, 0, 0, 0);
			ASSERT_EQ(0, guest_flush(&self->p.guest));
			launch_any(atsd, launches[i]);
			EXPECT_STREQ("", both_refused(e, guest_ea(0), CAUSE(RADIX)));
		}
		munmap(atsd, PAGE_64K);
		close(bridge);
	}
}

/* All kinds of launches, stored in all places of a bridge's registers. */
static void atsd_launch_anything(char *atsd)
{
	static const __u64 values[] = {
		~0ULL, 0, ATSD_IS_LPAR | ATSD_OF_PID(PID), ATSD_PID | ATSD_OF_PID(PID),
		ATSD_IS_LPAR, ATSD_ALL, ATSD_PAGE | ATSD_OF_PID(PID), ~ATSD_PAGE,
	};
	unsigned int offset;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		for (offset = 0; offset < PAGE_64K; offset += offset < 0x100 ? 8 : 0x1000)
			store64(atsd + offset, htobe64(values[i]));
		atsd_launch(atsd, values[i], guest_ea(0));
	}
}

/* @theirs keeps its translations whatever is stored to @atsd, which is another machine's. */
static const char *launches_reach(char *atsd, const struct engine *theirs)
{
	const __u32 hits = engine_reg(theirs, V100_ENGINE_ATC_HITS);
	const __u32 shootdowns = engine_reg(theirs, V100_ENGINE_ATC_SHOOTDOWNS);

	seen(theirs, 0);
	atsd_launch_anything(atsd);
	if (engine_reg(theirs, V100_ENGINE_ATC_SHOOTDOWNS) != shootdowns)
		return "a launch of another machine arrives";
	seen(theirs, 0);
	if (engine_reg(theirs, V100_ENGINE_ATC_HITS) <= hits)
		return "a translation was lost";
	return "";
}

/* What a refused DMA without translation has stopped is let go on. */
static bool links_go_on(__u32 path)
{
	return path != V100_ENGINE_PATH_TCE || npu_thaw(first_link) == 1;
}

/* Any answer at all is one too many. */
static const char *reaches_at(struct engine *e, __u32 path, __u64 addr)
{
	static const __u32 pasids[] = { PID, 0, PID - 1 };
	const __u32 links = engine_links(e);
	static char text[128];
	__u64 value;
	size_t i;

	for (i = 0; i < (path == ATS ? ARRAY_SIZE(pasids) : 1); i++) {
		for (e->link = 0; e->link < links; e->link++) {
			e->pasid = pasids[i];
			if (engine_read64(e, path, addr, &value) && links_go_on(path) &&
			    engine_write64(e, path, addr, 0) && links_go_on(path))
				continue;
			snprintf(text, sizeof(text), "path %u, %#lx, PASID %u", path, addr,
				 e->pasid);
			return text;
		}
	}
	return "";
}

/*
 * @e is told to reach @theirs, memory of another machine, in all ways there are. "" or the way
 * it could.
 */
static const char *reaches(struct engine *e, struct guest *mine, const struct guest *theirs)
{
	static const __u32 paths[] = { V100_ENGINE_PATH_PCI, V100_ENGINE_PATH_TCE, ATS };
	const void *page = guest_page(theirs, 1);
	unsigned int bit;
	const char *why;
	__u64 pa;
	size_t i;

	if (physical_address(page, &pa))
		return "physical_address()";
	/* As the guest real address of a page of its own process. */
	guest_map(mine, 1, pa, GUEST_PTE_READ_WRITE);
	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		for (bit = 47; bit <= 64; bit++) {
			const __u64 flag = bit < 64 ? 1ULL << bit : 0;

			/* This sends interrupts. */
			if (paths[i] == V100_ENGINE_PATH_PCI && bit == 60)
				continue;
			why = reaches_at(e, paths[i], pa | flag);
			if (!*why)
				why = reaches_at(e, paths[i], guest_gpa(1) | flag);
			if (!*why)
				why = reaches_at(e, paths[i], guest_ea(1) | flag);
			if (*why)
				return why;
		}
	}
	return *(__u64 *)page == pattern(1, 2) ? "" : "memory changed";
}

/* Two machines that have all numbers but the LPID in common see themselves only. */
static void check_apart(struct __test_metadata *_metadata, struct party *a, struct party *b)
{
	unsigned int n;

	for (n = 2; n < UNTOUCHED; n++) {
		EXPECT_EQ(pattern(n, 1), seen(&a->engine, n));
		EXPECT_EQ(pattern(n, 2), seen(&b->engine, n));
		EXPECT_EQ(0, engine_write64(&a->engine, ATS, guest_ea(n), pattern(n, 3)));
		EXPECT_EQ(pattern(n, 2), seen(&b->engine, n));
		EXPECT_EQ(pattern(n, 3), *(__u64 *)guest_page(&a->guest, n));
		EXPECT_EQ(pattern(n, 2), *(__u64 *)guest_page(&b->guest, n));
	}
	EXPECT_STREQ("", reaches(&a->engine, &a->guest, &b->guest));
}

TEST_F_TIMEOUT(ats, machines_on_one_npu_are_kept_apart, 120)
{
	const struct dt_gpu *gpu = &self->tb.topo.gpu[1];
	struct party other;
	int bridge, bridge2;
	char *mine, *theirs;

	mine = atsd_map(&self->tb.group, self->tb.gpu->link[0].bdf, &self->p.engine, &bridge);
	ASSERT_NE(NULL, mine);
	vfio_group_drop_vm(&self->tb.group);
	ASSERT_EQ(0, vfio_group_add_vm(&self->tb.group));
	ASSERT_EQ(0, party_join(&other, &self->tb.group, gpu->bdf, 2));
	theirs = atsd_map(&self->tb.group, gpu->link[0].bdf, &other.engine, &bridge2);
	ASSERT_NE(NULL, theirs);

	EXPECT_STREQ("", launches_reach(mine, &other.engine));
	EXPECT_STREQ("", launches_reach(theirs, &self->p.engine));
	check_apart(_metadata, &self->p, &other);
	party_leave(&other);
	munmap(mine, PAGE_64K);
	munmap(theirs, PAGE_64K);
	close(bridge);
	close(bridge2);
}

TEST_F_TIMEOUT(ats, machines_on_two_chips_are_kept_apart, 120)
{
	const struct dt_topology *t = &self->tb.topo;
	const struct dt_gpu *gpu = NULL;
	struct vfio_group group;
	struct party other;
	unsigned int i;
	char *mine;
	int bridge;

	for (i = 0; i < t->num_gpus && !gpu; i++) {
		if (pci_iommu_group(t->gpu[i].bdf) != self->tb.group.id)
			gpu = &t->gpu[i];
	}
	if (!gpu)
		SKIP(return, "one chip only (boot with --chips 2)");

	ASSERT_EQ(0, vfio_group_open(&group, pci_iommu_group(gpu->bdf), true));
	ASSERT_EQ(0, party_join(&other, &group, gpu->bdf, 2));
	mine = atsd_map(&self->tb.group, self->tb.gpu->link[0].bdf, &self->p.engine, &bridge);
	ASSERT_NE(NULL, mine);
	EXPECT_STREQ("", launches_reach(mine, &other.engine));
	check_apart(_metadata, &self->p, &other);
	munmap(mine, PAGE_64K);
	close(bridge);
	party_leave(&other);
	vfio_group_close(&group);
}

TEST_HARNESS_MAIN
