// SPDX-License-Identifier: GPL-2.0
/*
 * What a driver of NVLink2 functions leaves behind in the NPU, in page tables and in the kernel
 * log, as an ordinary user of VFIO provokes it. Not a test: it judges nothing, so that it runs on
 * the original driver too (Linux up to 5.12, inside of vfio-pci) and the two can be compared.
 *
 * One line an observation, "defects | what is looked at | what is seen". The driver is $DRIVER, or
 * the one under test if the running kernel has it, or vfio-pci. An argument names the firmware
 * that the machine was booted with, if it is bad: "no-atsd", "bad-links", see the scenes.
 *
 * Every scene runs in a process of its own: what kills one is an observation too. Those that
 * a kernel may not survive come last.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"

#include "bind.h"
#include "dt.h"
#include "model.h"
#include "npu.h"
#include "qmp.h"
#include "scom.h"
#include "sys.h"
#include "vfio.h"

#define SCENE_SECONDS	30

#define ATSD_AVA	0x8
#define SHIFT_16M	24
#define TCE_16M		0x1000000UL

static struct dt_topology topo;
/* GPU 0 and its links, which most scenes are about. */
static const struct dt_gpu *gpu;

static __printf(3, 4)
void saw(const char *defect, const char *what, const char *format, ...)
{
	va_list args;

	printf("%s | %s | ", defect, what);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

/* Of a call that returns 0 or a negative errno. */
static const char *outcome(int ret, const char *success)
{
	return ret < 0 ? strerrorname_np(-ret) : success;
}

/* Of an access by try_read64(). */
static const char *access_outcome(int sig)
{
	return sig ? sigabbrev_np(sig) : "answered";
}

static void inject(const char *property, const char *value)
{
	if (npu_set(property, value))
		printf("# %s cannot be set\n", property);
}

/* For whom the NPU translates addresses of @g. */
static void lpar_of(const struct dt_gpu *g, char *text, size_t size)
{
	__u64 bdf_map[NUM_BDF_MAP], pid_map[NUM_PID_MAP];
	unsigned int i;

	snprintf(text, size, "nobody");
	if (npu_table("xts-bdf-map", bdf_map, NUM_BDF_MAP) ||
	    npu_table("xts-pid-map", pid_map, NUM_PID_MAP)) {
		snprintf(text, size, "?");
		return;
	}
	for (i = 0; i < NUM_BDF_MAP; i++) {
		__u64 e = bdf_map[i];

		if (!(e & BDF_VALID) || BDF_OF(e) != bdfn(g->bdf))
			continue;
		if (pid_map[BDF_LPARSHORT(e)] & PID_MSR_HV)
			snprintf(text, size, "the host (LPID %lu, HV)", LPID_OF(e));
		else
			snprintf(text, size, "LPID %lu", LPID_OF(e));
	}
}

/* For whom the ATSD registers of links @from to @to launch shootdowns. */
static void atsd_of(unsigned int from, unsigned int to, char *text, size_t size)
{
	__u64 lparid[NUM_ATSD];
	size_t len = 0;
	unsigned int i;

	if (npu_table("atsd-lparid", lparid, NUM_ATSD)) {
		snprintf(text, size, "?");
		return;
	}
	for (i = from; i <= to; i++) {
		const char *gap = i == from ? "" : ", ";

		if (LPID_OF(lparid[i]))
			len += snprintf(text + len, size - len, "%s%lu", gap, LPID_OF(lparid[i]));
		else
			len += snprintf(text + len, size - len, "%s%s", gap,
					lparid[i] ? "host" : "none");
	}
}

/* Both of the above; @when goes into what is looked at. */
static void saw_npu(const char *defect, const char *when)
{
	char what[128], seen[64], other[64], registers[64];

	lpar_of(gpu, seen, sizeof(seen));
	lpar_of(&topo.gpu[1], other, sizeof(other));
	snprintf(what, sizeof(what), "%s: the NPU translates addresses of GPUs 0 and 1 for", when);
	if (strcmp(seen, other))
		saw(defect, what, "%s; %s", seen, other);
	else
		saw(defect, what, "%s", seen);
	atsd_of(0, DT_MAX_LINKS - 1, registers, sizeof(registers));
	snprintf(what, sizeof(what), "%s: LPARIDs of the ATSD registers of links 0 to 5", when);
	saw("10", what, "%s", registers);
}

/* What a scene starts from. It does not close it: that is the end of its process. */
struct user {
	struct vfio_group group;
	int dev;
	struct model model;
	struct vfio_region_info *ram;
};

static void user_group(struct user *u, bool kvm)
{
	int ret = vfio_group_open(&u->group, pci_iommu_group(gpu->bdf), kvm);

	if (ret) {
		printf("# opening the group: %s\n", strerror(-ret));
		exit(1);
	}
}

/* GPU 0 with its links trained, in a group with a window and some memory registered. */
static void user_open(struct user *u, bool kvm)
{
	int ret;

	user_group(u, kvm);
	ret = vfio_dma_register(&u->group, anonymous(PAGE_64K), PAGE_64K);
	u->dev = vfio_device_open(&u->group, gpu->bdf);
	ret = ret ?: u->dev < 0 ? u->dev : 0;
	ret = ret ?: model_attach(&u->model, u->dev);
	ret = ret ?: model_train(&u->model);
	ret = ret ?: vfio_find_gpu_ram(u->dev, &u->ram);
	if (ret) {
		printf("# opening %s: %s\n", gpu->bdf, strerror(-ret));
		exit(1);
	}
}

static void *user_map(const struct user *u, __u64 offset, size_t size)
{
	void *p = vfio_map(u->dev, u->ram, offset, size);

	if (!p) {
		printf("# mapping GPU RAM: %s\n", strerror(errno));
		exit(1);
	}
	return p;
}

/* 0, or the negative errno, of a mapping that is removed at once. */
static int map_outcome(const struct user *u, __u64 offset, size_t size)
{
	void *p = vfio_map(u->dev, u->ram, offset, size);

	if (!p)
		return -errno;
	munmap(p, size);
	return 0;
}

/* Of a load from a page of GPU RAM that was loaded from before: is that mapping still there? */
static const char *load_again(const void *addr)
{
	struct rusage before, after;
	__u64 value;
	int sig;

	getrusage(RUSAGE_SELF, &before);
	sig = try_read64(addr, &value);
	getrusage(RUSAGE_SELF, &after);
	if (sig)
		return sigabbrev_np(sig);
	return after.ru_minflt == before.ru_minflt ? "answered, the page was still mapped" :
						     "answered, after a page fault";
}

static void without_kvm(void)
{
	struct vfio_region_info *info;
	struct user u;
	int bridge;
	char lparid[32];

	user_group(&u, false);
	u.dev = vfio_device_open(&u.group, gpu->bdf);
	bridge = vfio_device_open(&u.group, gpu->link[0].bdf);
	saw_npu("8", "GPU 0 open without a VM");
	if (vfio_find_atsd(bridge, &info) || !info->size) {
		saw("10", "LPARID of the ATSD register a user without a VM can map", "no register");
		return;
	}
	atsd_of(gpu->link[0].link_index, gpu->link[0].link_index, lparid, sizeof(lparid));
	saw("10", "LPARID of the ATSD register a user without a VM can map", "%s", lparid);
}

static void with_kvm(void)
{
	struct vfio_region_info *info;
	struct user u;
	char lparid[32];
	int bridge;

	user_group(&u, true);
	u.dev = vfio_device_open(&u.group, gpu->bdf);
	bridge = vfio_device_open(&u.group, gpu->link[1].bdf);
	saw_npu("10", "GPU 0 open for a VM");
	if (vfio_find_atsd(bridge, &info) || !vfio_map(bridge, info, 0, PAGE_64K))
		snprintf(lparid, sizeof(lparid), "no register");
	else
		atsd_of(gpu->link[1].link_index, gpu->link[1].link_index, lparid, sizeof(lparid));
	saw("10", "LPARID of the ATSD register that the bridge of link 1 lets the VM map", "%s",
	    lparid);
}

static void killed(void)
{
	struct user u;

	user_open(&u, true);
	raise(SIGKILL);
}

static void vm_goes_first(void)
{
	char first[64], second[64];
	struct user u;
	int ret;

	user_group(&u, true);
	u.dev = vfio_device_open(&u.group, gpu->bdf);
	lpar_of(gpu, first, sizeof(first));
	vfio_group_drop_vm(&u.group);
	lpar_of(gpu, second, sizeof(second));
	saw("6", "GPU 0 open, the VM's descriptors closed: the NPU translates its addresses for",
	    "%s (was %s)", second, first);
	ret = vfio_group_add_vm(&u.group);
	ret = ret ?: vfio_device_open(&u.group, topo.gpu[1].bdf);
	lpar_of(gpu, first, sizeof(first));
	lpar_of(&topo.gpu[1], second, sizeof(second));
	saw("6", "then GPU 1 open for a new VM: GPU 0 and GPU 1 reach", "%s and %s%s%s", first,
	    second, ret < 0 ? ", " : "", ret < 0 ? strerrorname_np(-ret) : "");
}

static void bounds(void)
{
	struct user u;

	user_open(&u, false);
	saw("1", "mapping one page at offset = size of the region", "%s",
	    outcome(map_outcome(&u, u.ram->size, PAGE_64K), "mapped"));
}

static void dma_offset(void)
{
	const __u64 offset = 37 * PAGE_64K, iova = 5 * PAGE_64K;
	__u64 tvt[NPU_NUM_TVES], tce;
	const char *seen = "no TCE";
	struct user u;
	char text[64];
	unsigned int i;
	void *p;
	int ret;

	user_open(&u, false);
	p = user_map(&u, offset, PAGE_64K);
	ret = vfio_dma_map(&u.group, p, iova, PAGE_64K);
	if (!ret)
		ret = npu_table("tvt", tvt, NPU_NUM_TVES);
	if (ret)
		seen = outcome(ret, "");
	for (i = 0; !ret && i < NPU_NUM_TVES; i++) {
		if (tve_lookup(tvt[i], iova, &tce) || (tce & TCE_READ_WRITE) != TCE_READ_WRITE)
			continue;
		snprintf(text, sizeof(text), "GPU RAM + %#lx",
			 (unsigned long)((tce & ~TCE_READ_WRITE) - gpu->aperture));
		seen = text;
	}
	saw("4", "page at GPU RAM + 0x250000, mapped and given to DMA: the TCE holds", "%s", seen);
	vfio_dma_unmap(&u.group, iova, PAGE_64K);
}

static void map_again(void)
{
	struct user u;

	user_open(&u, false);
	munmap(user_map(&u, 0, PAGE_64K), PAGE_64K);
	saw("12", "map, unmap, map again", "%s", outcome(map_outcome(&u, 0, PAGE_64K), "mapped"));
}

/* Addresses that the container has registered already cannot become GPU RAM. */
static void map_after_failure(void)
{
	struct user u;
	void *p, *q;
	int ret;

	user_open(&u, false);
	p = anonymous(PAGE_64K);
	ret = vfio_dma_register(&u.group, p, PAGE_64K);
	q = mmap(p, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, u.dev,
		 u.ram->offset);
	if (ret || q != MAP_FAILED)
		printf("# the mapping was not refused\n");
	/* Lest the next one gets the same place. */
	mmap(p, PAGE_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	saw("12", "map after a mapping that was refused", "%s",
	    outcome(map_outcome(&u, 0, PAGE_64K), "mapped"));
}

static void vma_flags(void)
{
	static const char * const wanted[] = { "pf", "io", "de", "dd", "dc" };
	struct vfio_region_info *info;
	unsigned long start, end;
	char line[512], seen[64];
	bool inside = false;
	int status, bridge;
	struct user u;
	__u64 value;
	pid_t child;
	size_t i;
	void *p;
	FILE *f;

	user_open(&u, true);
	p = user_map(&u, 0, PAGE_64K);
	snprintf(seen, sizeof(seen), "?");
	f = fopen("/proc/self/smaps", "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			inside = start == (unsigned long)p;
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			seen[0] = '\0';
			for (i = 0; i < ARRAY_SIZE(wanted); i++) {
				if (strstr(line + 8, wanted[i]))
					strcat(strcat(seen, seen[0] ? " " : ""), wanted[i]);
			}
		}
	}
	saw("17", "flags of a mapping of GPU RAM (of pf io de dd dc)", "%s", seen);

	child = fork();
	if (!child)
		_exit(try_read64(p, &value));
	waitpid(child, &status, 0);
	saw("17", "a forked child reads through its parent's mapping", "%s",
	    access_outcome(WEXITSTATUS(status)));

	bridge = vfio_device_open(&u.group, gpu->link[0].bdf);
	if (vfio_find_atsd(bridge, &info))
		return;
	p = vfio_map(bridge, info, 0, PAGE_64K);
	child = p ? fork() : -1;
	if (!child)
		_exit(try_read64((char *)p + ATSD_AVA, &value));
	if (child < 0)
		return;
	waitpid(child, &status, 0);
	saw("17", "the same with the ATSD register", "%s", access_outcome(WEXITSTATUS(status)));
}

static void atsd_access(void)
{
	struct vfio_region_info *info;
	struct user u;
	int bridge;
	char buf[16];
	ssize_t n;

	user_group(&u, true);
	bridge = vfio_device_open(&u.group, gpu->link[0].bdf);
	if (vfio_find_atsd(bridge, &info))
		return;
	n = pread(bridge, buf, 3, info->offset + ATSD_AVA + 1);
	if (n < 0)
		saw("18", "read of 3 bytes inside of an ATSD register", "%s",
		    strerrorname_np(errno));
	else
		saw("18", "read of 3 bytes inside of an ATSD register", "%zd bytes", n);
}

static void memory_off(void)
{
	struct vfio_region_info *info;
	struct user u;
	__u64 value;
	int bridge;
	char *p;

	user_open(&u, true);
	p = user_map(&u, 0, PAGE_64K);
	try_read64(p, &value);
	load_again(p);
	vfio_set_memory(u.dev, false);
	saw("16", "load from a page of GPU RAM once the GPU's memory space is off", "%s",
	    load_again(p));
	saw("16", "read() of GPU RAM meanwhile", "%s",
	    pread(u.dev, &value, sizeof(value), u.ram->offset) < 0 ? strerrorname_np(errno) :
								    "answered");

	bridge = vfio_device_open(&u.group, gpu->link[0].bdf);
	if (vfio_find_atsd(bridge, &info))
		return;
	p = vfio_map(bridge, info, 0, PAGE_64K);
	if (!p)
		return;
	try_read64(p + ATSD_AVA, &value);
	vfio_set_memory(bridge, false);
	saw("16", "load from an ATSD register once the bridge's memory space is off", "%s",
	    access_outcome(try_read64(p + ATSD_AVA, &value)));
}

/* The links are trained again before the load, or it would fence them. */
static void after_reset(void)
{
	struct user u;
	__u64 value;
	char *p;

	user_open(&u, false);
	p = user_map(&u, 0, PAGE_64K);
	try_read64(p, &value);
	load_again(p);
	if (ioctl(u.dev, VFIO_DEVICE_RESET) || vfio_set_memory(u.dev, true) ||
	    model_train(&u.model))
		printf("# no reset\n");
	saw("16", "load from a page of GPU RAM after a reset of the GPU", "%s", load_again(p));
}

static void hash_guest(void)
{
	struct kvm_ppc_mmuv3_cfg hash = { .flags = 0 };
	struct user u;
	char lpar[64];
	int ret;

	user_group(&u, true);
	if (ioctl(u.group.vm, KVM_PPC_CONFIGURE_V3_MMU, &hash)) {
		saw("11", "GPU opened for a VM with the hash MMU", "KVM has none: %s",
		    strerrorname_np(errno));
		return;
	}
	ret = vfio_device_open(&u.group, gpu->bdf);
	lpar_of(gpu, lpar, sizeof(lpar));
	saw("11", "GPU opened for a VM with the hash MMU", "%s; the NPU translates for %s",
	    outcome(ret, "opened"), lpar);
}

static void full_table(void)
{
	struct user u;
	char lpar[64];
	int ret;

	user_group(&u, true);
	inject("inject-xts-full", "true");
	ret = vfio_device_open(&u.group, gpu->bdf);
	inject("inject-xts-full", "false");
	lpar_of(gpu, lpar, sizeof(lpar));
	saw("7", "GPU opened for a VM while OPAL finds no room in the XTS table",
	    "%s; the NPU translates for %s", outcome(ret, "opened"), lpar);
}

/* The TCE goes with the window, after the device. */
static void live_tce(void)
{
	int kmsg = kmsg_open();
	struct user u;
	void *p;

	user_open(&u, false);
	p = user_map(&u, 0, PAGE_64K);
	if (vfio_dma_map(&u.group, p, 0, PAGE_64K))
		printf("# no TCE\n");
	munmap(p, PAGE_64K);
	close(u.dev);
	saw("14", "warnings when a GPU is closed with a TCE to its RAM", "%d",
	    kmsg_count(kmsg, "WARNING:"));
}

/* A TCE larger than a page over GPU RAM that is aligned to a page only. */
static void large_tce(void)
{
	struct vfio_iommu_spapr_tce_create create = {
		.argsz = sizeof(create),
		.page_shift = SHIFT_16M,
		.window_size = 1ULL << 31,
		.levels = 1,
	};
	struct vfio_iommu_spapr_tce_remove remove = { .argsz = sizeof(remove) };
	const char *what = "16 MiB TCE over GPU RAM at an address aligned to 64 KiB";
	struct user u;
	char *p, *at;
	int ret;

	user_open(&u, false);
	remove.start_addr = u.group.window_start;
	ioctl(u.group.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove);
	if (ioctl(u.group.container, VFIO_IOMMU_SPAPR_TCE_CREATE, &create)) {
		saw("3", what, "no such window: %s", strerrorname_np(errno));
		return;
	}
	p = anonymous(4 * TCE_16M);
	at = p + TCE_16M - ((unsigned long)p & (TCE_16M - 1)) + PAGE_64K;
	at = mmap(at, 2 * TCE_16M, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, u.dev,
		  u.ram->offset);
	if (at == MAP_FAILED) {
		saw("3", what, "mmap: %s", strerrorname_np(errno));
		return;
	}
	ret = vfio_dma_map(&u.group, at + TCE_16M - PAGE_64K, create.start_addr, TCE_16M);
	saw("3", what, "%s", outcome(ret, "mapped"));
}

/* npu0-atsd-missing */
static void no_register(void)
{
	const char *what = "no ibm,mmio-atsd: mapping a page of a bridge's ATSD region";
	const __u64 somewhere = 0x100;
	struct vfio_region_info *info;
	struct user u;
	__u64 value;
	int bridge;
	char *p;

	user_group(&u, true);
	bridge = vfio_device_open(&u.group, gpu->link[0].bdf);
	if (vfio_find_atsd(bridge, &info)) {
		saw("2", what, "no region");
		return;
	}
	p = vfio_map(bridge, info, 0, PAGE_64K);
	if (!p)
		saw("2", what, "%s", strerrorname_np(errno));
	else if (!try_read64(p + somewhere, &value) && !phys_read_be64(somewhere, &value) &&
		 value && value == be64toh(load64(p + somewhere)))
		saw("2", what, "mapped, physical address 0");
	else
		saw("2", what, "mapped");
}

/* npu0-atsd-short */
static void one_register(void)
{
	static const char * const what[] = {
		NULL,
		"ibm,mmio-atsd for link 0 only: what the bridge of link 1 maps",
		"ibm,mmio-atsd for link 0 only: what a bridge of GPU 1 maps",
	};
	const char * const bdf[] = {
		gpu->link[0].bdf, gpu->link[1].bdf, topo.gpu[1].link[0].bdf,
	};
	const __u64 ava = htobe64(0x12345000);
	struct vfio_region_info *info;
	char *map[ARRAY_SIZE(bdf)] = { NULL };
	struct user u;
	int bridge;
	size_t i;

	user_group(&u, true);
	for (i = 0; i < ARRAY_SIZE(bdf); i++) {
		bridge = vfio_device_open(&u.group, bdf[i]);
		if (!vfio_find_atsd(bridge, &info))
			map[i] = vfio_map(bridge, info, 0, PAGE_64K);
	}
	for (i = 1; i < ARRAY_SIZE(bdf); i++) {
		if (!map[0] || !map[i]) {
			saw("10", what[i], "no register");
			continue;
		}
		store64(map[0] + ATSD_AVA, 0);
		store64(map[i] + ATSD_AVA, ava);
		saw("10", what[i], "%s",
		    load64(map[0] + ATSD_AVA) == ava ? "link 0's register" : "its own");
	}
}

/* bridge3-tgt-missing */
static void no_target(void)
{
	const char *what = "a bridge of GPU 1 lacks ibm,device-tgt-addr: GPU 1";
	struct vfio_region_info *info;
	struct user u;
	int ret;

	user_group(&u, true);
	ret = vfio_device_open(&u.group, topo.gpu[1].bdf);
	if (ret < 0)
		saw("19", what, "does not open: %s", strerrorname_np(-ret));
	else
		saw("19", what, "opens, %s GPU RAM",
		    vfio_find_gpu_ram(ret, &info) ? "without" : "with");
}

/* bridge4-nvlink-missing */
static void no_link(void)
{
	int kmsg = kmsg_open();
	struct user u;
	unsigned int i;

	user_group(&u, true);
	for (i = 0; i < 3; i++)
		close(vfio_device_open(&u.group, topo.gpu[1].link[1].bdf));
	saw("19", "a bridge lacks ibm,nvlink: warnings when it is opened three times", "%d",
	    kmsg_count(kmsg, "WARNING:"));
}

static const struct scene {
	void (*run)(void);
	const char *name;
	/* If set, what the NPU holds after it is looked at, as evidence of this defect. */
	const char *after;
	/* Bad firmware it needs; the tests' mutations that make it are named above. */
	const char *firmware;
} scenes[] = {
	{ without_kvm, "GPU 0 closed, without a VM", "8", NULL },
	{ with_kvm, "GPU 0 closed, with a VM", "8", NULL },
	{ killed, "process with GPU 0 and a VM killed", "8", NULL },
	{ vm_goes_first, "GPUs closed after their VM", "6, 8", NULL },
	{ bounds, "bounds", NULL, NULL },
	{ dma_offset, "DMA", NULL, NULL },
	{ map_again, "map again", NULL, NULL },
	{ map_after_failure, "map after a failure", NULL, NULL },
	{ vma_flags, "flags", NULL, NULL },
	{ atsd_access, "ATSD accesses", NULL, NULL },
	{ memory_off, "memory space off", NULL, NULL },
	{ after_reset, "reset", NULL, NULL },
	{ hash_guest, "hash guest", NULL, NULL },
	{ full_table, "full XTS table", NULL, NULL },
	{ no_register, "no ATSD register", NULL, "no-atsd" },
	{ one_register, "one ATSD register", NULL, "one-atsd" },
	{ no_target, "no target address", NULL, "bad-links" },
	{ no_link, "no link", NULL, "no-link" },
	{ live_tce, "live TCE", NULL, NULL },
	{ large_tce, "large TCE", NULL, NULL },
};

static void play(const struct scene *s)
{
	pid_t child = fork();
	int status;

	if (!child) {
		alarm(SCENE_SECONDS);
		s->run();
		exit(0);
	}
	waitpid(child, &status, 0);
	if (WIFSIGNALED(status) && s->run != killed)
		printf("# %s: died of SIG%s\n", s->name, sigabbrev_np(WTERMSIG(status)));
	if (s->after)
		saw_npu(s->after, s->name);
}

static int bind_all(const char *driver)
{
	unsigned int i, j;

	for (i = 0; i < topo.num_gpus; i++) {
		const struct dt_gpu *g = &topo.gpu[i];
		int ret = driver_bind(g->bdf, driver);

		for (j = 0; !ret && j < g->num_links; j++)
			ret = driver_bind(g->link[j].bdf, driver);
		if (ret) {
			fprintf(stderr, "binding %s and its links to %s: %s\n", g->bdf, driver,
				strerror(-ret));
			return ret;
		}
	}
	return 0;
}

/* Bad firmware does not tell which bridges are a GPU's: three by three, as a Redbud has them. */
static void topology_by_number(void)
{
	static const struct {
		const char *gpu, *link[3];
	} bdf[] = {
		{ "0004:04:00.0", { "0006:00:00.0", "0006:00:00.1", "0006:00:00.2" } },
		{ "0004:05:00.0", { "0006:00:01.0", "0006:00:01.1", "0006:00:01.2" } },
	};
	size_t i, j;

	topo.num_gpus = ARRAY_SIZE(bdf);
	for (i = 0; i < ARRAY_SIZE(bdf); i++) {
		struct dt_gpu *g = &topo.gpu[i];

		snprintf(g->bdf, sizeof(g->bdf), "%s", bdf[i].gpu);
		g->num_links = ARRAY_SIZE(bdf[i].link);
		for (j = 0; j < g->num_links; j++)
			snprintf(g->link[j].bdf, sizeof(g->link[j].bdf), "%s",
				 bdf[i].link[j]);
	}
}

static void play_all(const char *firmware)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(scenes); i++) {
		const char *needs = scenes[i].firmware;

		if (firmware ? needs && !strcmp(needs, firmware) : !needs)
			play(&scenes[i]);
	}
}

int main(int argc, char **argv)
{
	int kmsg = kmsg_open(), log = kmsg_open(), splats;
	const char *firmware = argc > 1 ? argv[1] : NULL;
	const char *driver = getenv("DRIVER");
	struct utsname host;
	char why[256];

	if (firmware) {
		topology_by_number();
	} else if (dt_read_topology(&topo, why, sizeof(why))) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	gpu = &topo.gpu[0];
	if (!driver)
		driver = sys_exists("/sys/bus/pci/drivers/" DRIVER) ? DRIVER : "vfio-pci";
	if (bind_all(driver))
		return 1;
	uname(&host);
	printf("# %s on Linux %s\n", driver, host.release);
	fflush(stdout);
	if (!firmware)
		saw_npu("8", "Before anybody opens anything");
	play_all(firmware);
	if (firmware)
		return 0;
	saw("8", "\"Failed to destroy context\" in the kernel log, in all", "%d",
	    kmsg_count(kmsg, "Failed to destroy context"));
	/* How many depends on when the kernel drops the last reference to an address space. */
	splats = kmsg_splats(log);
	saw("14", "warnings, bugs or oopses in the kernel log", "%s",
	    splats < 0 ? strerrorname_np(-splats) : splats ? "yes" : "no");
	return 0;
}
