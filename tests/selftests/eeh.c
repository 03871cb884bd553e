// SPDX-License-Identifier: GPL-2.0
/*
 * Defect 16, with the resets of EEH: those that a user asserts and deactivates by
 * VFIO_EEH_PE_OP, in whatever order, and that of the host when it recovers the switch above the
 * GPU. While one of them lasts nobody reaches the GPU's RAM, and who tries to waits. None of them
 * waits for its own end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "npu.h"
#include "reset.h"
#include "sys.h"
#include "testbed.h"
#include "timeouts.h"
#include "toucher.h"

/* EEH_PE_CFG_BLOCKED of arch/powerpc/include/asm/eeh.h */
#define CFG_BLOCKED	4U
/* Seconds. Without an answer in configuration space the PCI core gives up after 60. */
#define PROMPT		(30 * time_factor())

static int eeh(const struct testbed *tb, __u32 op)
{
	struct vfio_eeh_pe_op arg = { .argsz = sizeof(arg), .op = op };
	int ret = ioctl(tb->group.container, VFIO_EEH_PE_OP, &arg);

	return ret < 0 ? -errno : ret;
}

/* Whether the kernel keeps everybody else from the GPU's configuration space. */
static bool blocked(const struct testbed *tb)
{
	unsigned int hardware, state = 0;
	char path[128], text[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/eeh_pe_state", tb->gpu->bdf);
	if (sys_read(path, text, sizeof(text)) < 0 || sscanf(text, "%x %x", &hardware, &state) != 2)
		return false;
	return state & CFG_BLOCKED;
}

/* Why the driver lets nobody at the GPU's RAM. */
static const char *closed(const struct testbed *tb)
{
	static char text[128];
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/debug/" DRIVER "/%s/closed", tb->gpu->bdf);
	return sys_read(path, text, sizeof(text)) < 0 ? "no such file" : text;
}

/* Opens a GPU and touches its RAM's first page, which holds 77 then. */
static int open_and_touch(struct testbed *tb, char **p)
{
	int ret;

	/* EEH says where it was told of an error. */
	kmsg_own_line = "EEH: Call Trace:";
	ret = testbed_open(tb, 0, false);
	if (ret)
		return ret;
	*p = vfio_map(tb->dev, tb->ram, 0, TOUCHER_PAGES * PAGE_64K);
	return !*p || try_write64(*p, 77) ? -EFAULT : 0;
}

FIXTURE(eeh)
{
	struct testbed tb;
	char *p;
};

FIXTURE_SETUP(eeh)
{
	ASSERT_EQ(0, open_and_touch(&self->tb, &self->p))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(eeh)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* For what is done by one kind of reset only. */
FIXTURE(one)
{
	struct testbed tb;
	char *p;
};

FIXTURE_SETUP(one)
{
	ASSERT_EQ(0, open_and_touch(&self->tb, &self->p))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(one)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

FIXTURE_VARIANT(eeh)
{
	__u32 op;
	/* The model is reset. */
	bool observed;
};

FIXTURE_VARIANT_ADD(eeh, hot)
{
	.op = VFIO_EEH_PE_RESET_HOT,
	.observed = true,
};

/*
 * OPAL switches the slot off and on, which it notices only if it has a power controller. The links
 * are down before in any case.
 */
FIXTURE_VARIANT_ADD(eeh, fundamental)
{
	.op = VFIO_EEH_PE_RESET_FUNDAMENTAL,
};

/* Whether the port above the GPU can switch its slot off. */
static bool slot_has_power(const struct testbed *tb)
{
	unsigned char config[256];
	unsigned int pos = PCI_CAPABILITY_LIST, left = 48;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/../config", tb->gpu->bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, config, sizeof(config)) != sizeof(config))
		memset(config, 0, sizeof(config));
	if (fd >= 0)
		close(fd);
	for (pos = config[pos]; pos && left--; pos = config[pos + PCI_CAP_LIST_NEXT]) {
		if (config[pos] == PCI_CAP_ID_EXP)
			return config[pos + PCI_EXP_SLTCAP] & PCI_EXP_SLTCAP_PCP;
	}
	return false;
}

/* "" if no page of the RAM can be had, touched before or not, nor the RAM be read. */
static const char *out_of_reach(const struct testbed *tb, char *p)
{
	__u64 value;

	if (try_read64(p, &value) != SIGBUS || try_write64(p, 1) != SIGBUS)
		return "the page that was touched is there";
	if (try_read64(p + 3 * PAGE_64K, &value) != SIGBUS)
		return "there is a new page";
	if (pread(tb->dev, &value, 8, tb->ram->offset) != -1 || errno != EIO)
		return "read() does not fail with EIO";
	return "";
}

/* How many faults have waited for a reset since the driver has the GPU, -1 if it does not say. */
static long faults_that_waited(const struct testbed *tb)
{
	char path[128], text[256], *line;

	snprintf(path, sizeof(path), DEBUGFS "/%s/faults", tb->gpu->bdf);
	if (sys_read(path, text, sizeof(text)) < 0)
		return -1;
	line = strstr(text, "waited ");
	return line ? strtol(line + strlen("waited "), NULL, 10) : -1;
}

/*
 * "" if a thread that touches a page of the RAM, touched before or not, waits until it is called
 * off, without a lock that others of the process need, and if the RAM cannot be read.
 */
static const char *has_to_wait(const struct testbed *tb, char *p)
{
	struct toucher t;
	unsigned int i;
	__u64 value;
	void *q;

	if (pread(tb->dev, &value, 8, tb->ram->offset) != -1 || errno != EIO)
		return "read() does not fail with EIO";
	for (i = 0; i < 2; i++) {
		long before = faults_that_waited(tb);

		if (before < 0)
			return "the driver does not count who waits";
		if (i)
			toucher_release(&t);
		else if (toucher_start(&t, p))
			return "no thread";
		while (faults_that_waited(tb) == before && !atomic_load(&t.done) &&
		       !atomic_load(&t.refused))
			usleep(1000);
		q = vfio_map(tb->dev, tb->ram, 0, PAGE_64K);
		if (q)
			munmap(q, PAGE_64K);
		toucher_hold(&t);
	}
	toucher_stop(&t);
	if (!q)
		return "nothing can be mapped";
	if (atomic_load(&t.done))
		return "a page is there";
	if (atomic_load(&t.refused))
		return "an access was refused";
	return atomic_load(&t.called_off) == 2 ? "" : "an access was not called off";
}

TEST_F_TIMEOUT(eeh, defect_16_eeh_reset, 120)
{
	const __u32 before = resets(&self->tb);

	ASSERT_EQ(0, eeh(&self->tb, variant->op));
	EXPECT_STREQ("reset 1", closed(&self->tb));
	EXPECT_STREQ("", has_to_wait(&self->tb, self->p));
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_STREQ("none", closed(&self->tb));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
	if (variant->observed || slot_has_power(&self->tb))
		EXPECT_LT(before, resets(&self->tb));
}

/*
 * Before a GPU is reset its links are fenced, or that were an error, and CPUs have nothing of its
 * memory in their caches.
 */
TEST_F_TIMEOUT(eeh, links_are_fenced_and_caches_purged, 120)
{
	__u64 l2, l3, l2_after, l3_after, fences[NUM_LINKS], trained[NUM_LINKS];
	unsigned int i;

	ASSERT_EQ(0, npu_purges(&l2, &l3));
	ASSERT_EQ(0, eeh(&self->tb, variant->op));
	ASSERT_EQ(0, npu_purges(&l2_after, &l3_after));
	EXPECT_LT(l2, l2_after);
	EXPECT_LT(l3, l3_after);
	ASSERT_EQ(0, npu_table("fences", fences, NUM_LINKS));
	ASSERT_EQ(0, npu_table("trained", trained, NUM_LINKS));
	for (i = 0; i < self->tb.gpu->num_links; i++) {
		const __u32 link = self->tb.gpu->link[i].link_index;

		EXPECT_LT(0, fences[link]);
		EXPECT_EQ(0, trained[link]);
	}
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
}

/* The page goes before the reset begins: no access is lost, whenever it comes. */
TEST_F_TIMEOUT(eeh, defect_16_eeh_race, 120)
{
	struct toucher t;
	int i;

	ASSERT_EQ(0, toucher_start(&t, self->p));
	for (i = 0; i < 3; i++) {
		const unsigned long done = atomic_load(&t.done);

		while (atomic_load(&t.done) < done + 20)
			usleep(100);
		ASSERT_EQ(0, eeh(&self->tb, variant->op));
		toucher_hold(&t);
		ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
		ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
		ASSERT_EQ(0, model_train(&self->tb.model));
		toucher_release(&t);
	}
	toucher_stop(&t);
	EXPECT_LT(0UL, atomic_load(&t.called_off));
	EXPECT_EQ(0UL, atomic_load(&t.refused));
	EXPECT_EQ(0U, lost_accesses(&self->tb));
}

/* Nobody else can end the reset of a user who leaves. The next one finds a GPU as any other. */
TEST_F_TIMEOUT(eeh, defect_16_eeh_close_in_reset, 120)
{
	const unsigned int gpu = self->tb.gpu - self->tb.topo.gpu;
	struct timespec from, to;
	__u64 value;

	ASSERT_EQ(0, eeh(&self->tb, variant->op));
	EXPECT_TRUE(blocked(&self->tb));
	ASSERT_EQ(0, munmap(self->p, TOUCHER_PAGES * PAGE_64K));
	clock_gettime(CLOCK_MONOTONIC, &from);
	EXPECT_EQ(0, testbed_close(&self->tb));
	clock_gettime(CLOCK_MONOTONIC, &to);
	EXPECT_GT(from.tv_sec + PROMPT, to.tv_sec);

	ASSERT_EQ(0, testbed_open(&self->tb, gpu, false))
		TH_LOG("%s", self->tb.why);
	EXPECT_FALSE(blocked(&self->tb));
	EXPECT_STREQ("none", closed(&self->tb));
	self->p = vfio_map(self->tb.dev, self->tb.ram, 0, TOUCHER_PAGES * PAGE_64K);
	ASSERT_NE(NULL, self->p);
	EXPECT_EQ(0, try_write64(self->p, 78));
	EXPECT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
	EXPECT_EQ(78ULL, value);
}

/* Ends that nothing began, and begins within each other, leave all other reasons as they are. */
TEST_F_TIMEOUT(eeh, defect_16_eeh_unbalanced, 120)
{
	__u64 value;

	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_STREQ("none", closed(&self->tb));
	EXPECT_EQ(0, try_read64(self->p, &value));
	EXPECT_EQ(77ULL, value);

	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, false));
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_STREQ("", out_of_reach(&self->tb, self->p));

	ASSERT_EQ(0, eeh(&self->tb, variant->op));
	ASSERT_EQ(0, eeh(&self->tb, variant->op));
	EXPECT_STREQ("reset 1", closed(&self->tb));
	EXPECT_STREQ("", has_to_wait(&self->tb, self->p));
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_STREQ("none", closed(&self->tb));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
}

/* Has the host recover from an error of the PE above the GPU's, the switch, in its own time. */
static int recover_switch(const struct testbed *tb)
{
	char path[128], text[64];
	unsigned int domain;
	__u64 pe;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/../eeh_pe_config_addr",
		 tb->gpu->bdf);
	if (sys_read_u64(path, &pe) || sscanf(tb->gpu->bdf, "%x:%*x", &domain) != 1)
		return -ENODEV;
	snprintf(text, sizeof(text), "%x:%llx", domain, (unsigned long long)pe);
	return sys_write("/sys/kernel/debug/powerpc/eeh_force_recover", text);
}

/* For at most a minute; the reset itself takes some seconds. */
static bool becomes_closed(const struct testbed *tb, const char *why)
{
	unsigned int tries = 6000 * time_factor();

	while (strcmp(closed(tb), why)) {
		if (!tries--)
			return false;
		usleep(10000);
	}
	return true;
}

/*
 * The host resets the switch, and what is below, since no driver there but the GPU's says that
 * less would do. The GPU's user is told nothing, finds its PE frozen and its page gone, can
 * neither end the host's reset nor begin one of its own in it, and goes on when it has dealt with
 * what it found.
 */
TEST_F_TIMEOUT(one, defect_16_eeh_recovery, 180)
{
	const struct dt_topology *topo = &self->tb.topo;
	const __u32 before = resets(&self->tb);
	unsigned int i;
	int log;

	for (i = 0; i < topo->num_gpus; i++) {
		if (&topo->gpu[i] != self->tb.gpu)
			ASSERT_EQ(0, driver_unbind(topo->gpu[i].bdf));
	}
	log = kmsg_open();
	ASSERT_LE(0, log);
	ASSERT_EQ(0, recover_switch(&self->tb));
	ASSERT_TRUE(becomes_closed(&self->tb, "reset 1"));
	EXPECT_EQ(-EBUSY, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_EQ(-EBUSY, eeh(&self->tb, VFIO_EEH_PE_RESET_HOT));
	EXPECT_STREQ("reset 1", closed(&self->tb));
	EXPECT_STREQ("", has_to_wait(&self->tb, self->p));
	ASSERT_TRUE(becomes_closed(&self->tb, "none"));
	for (i = 0; i < 60 * time_factor() && !kmsg_count(log, "EEH: Recovery successful."); i++)
		sleep(1);
	ASSERT_GT(60 * time_factor(), i);
	close(log);
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_UNFREEZE_IO));
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_UNFREEZE_DMA));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
	EXPECT_LT(before, resets(&self->tb));
}

/* What a user has of the GPUs of one group. */
struct all {
	unsigned int count;
	int dev[DT_MAX_GPUS];
};

/* Opens the other GPUs of the group of @tb. 0 or a negative errno. */
static int open_others(const struct testbed *tb, struct all *all)
{
	const struct dt_topology *topo = &tb->topo;
	unsigned int i;

	all->count = 0;
	for (i = 0; i < topo->num_gpus; i++) {
		const char *bdf = topo->gpu[i].bdf;
		int dev;

		if (&topo->gpu[i] == tb->gpu || pci_iommu_group(bdf) != tb->group.id)
			continue;
		dev = vfio_device_open(&tb->group, bdf);
		if (dev < 0)
			return dev;
		all->dev[all->count++] = dev;
	}
	return all->count ? 0 : -ENODEV;
}

static void close_others(struct all *all)
{
	while (all->count)
		close(all->dev[--all->count]);
}

/* Resets of one of the others. */
static __u32 resets_of(int dev)
{
	struct model model;
	__u32 count = 0;

	if (model_attach(&model, dev) || model_read32(&model, V100_RESETS, &count))
		return ~0U;
	return count;
}

/* To the guest its GPUs are one PE: what it does is done to each of them. */
TEST_F_TIMEOUT(one, resets_all_gpus_of_the_group, 120)
{
	__u32 before[DT_MAX_GPUS], first = resets(&self->tb);
	struct all all;
	unsigned int i;

	ASSERT_EQ(0, open_others(&self->tb, &all));
	for (i = 0; i < all.count; i++)
		before[i] = resets_of(all.dev[i]);
	EXPECT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_HOT));
	EXPECT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_EQ(VFIO_EEH_PE_STATE_NORMAL, eeh(&self->tb, VFIO_EEH_PE_GET_STATE));
	EXPECT_STREQ("", comes_back(&self->tb, self->p));
	EXPECT_LT(first, resets(&self->tb));
	for (i = 0; i < all.count; i++) {
		EXPECT_EQ(0, vfio_set_memory(all.dev[i], true));
		EXPECT_LT(before[i], resets_of(all.dev[i]))
			TH_LOG("GPU %u of the others", i);
	}
	close_others(&all);
}

/* A PE of which no device is open may go with its devices at any time: nothing is done to it. */
TEST_F(one, nothing_is_done_without_an_open_device)
{
	EXPECT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_ENABLE));
	ASSERT_EQ(0, munmap(self->p, TOUCHER_PAGES * PAGE_64K));
	ASSERT_EQ(0, close(self->tb.dev));
	self->tb.dev = -1;
	EXPECT_EQ(-ENODEV, eeh(&self->tb, VFIO_EEH_PE_ENABLE));
	EXPECT_EQ(-ENODEV, eeh(&self->tb, VFIO_EEH_PE_GET_STATE));
	EXPECT_EQ(-ENODEV, eeh(&self->tb, VFIO_EEH_PE_RESET_HOT));
	EXPECT_EQ(-ENODEV, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
}

/* A thread that asserts a hot reset, which takes seconds, once. */
struct asserter {
	const struct testbed *tb;
	int ret;
	atomic_bool done;
	pthread_t thread;
};

static void *assert_reset(void *arg)
{
	struct asserter *a = arg;

	a->ret = eeh(a->tb, VFIO_EEH_PE_RESET_HOT);
	atomic_store(&a->done, true);
	return NULL;
}

/* A thread that deactivates resets, whoever asserted them, again and again. */
struct ender {
	const struct testbed *tb;
	atomic_ulong failed;
	/* It is about to deactivate one, or waits for that. */
	atomic_bool trying;
	atomic_bool stop;
	pthread_t thread;
};

static void *end_resets(void *arg)
{
	struct ender *e = arg;

	while (!atomic_load(&e->stop)) {
		atomic_store(&e->trying, true);
		if (eeh(e->tb, VFIO_EEH_PE_RESET_DEACTIVATE))
			atomic_fetch_add(&e->failed, 1);
		atomic_store(&e->trying, false);
		usleep(1000);
	}
	return NULL;
}

/*
 * "" if the RAM was closed while @a asserted the reset, and @e tried to end that. Once it is
 * asserted others may deactivate it, a moment before the thread of @a has said so.
 */
static const char *kept_closed(const struct testbed *tb, struct asserter *a, struct ender *e)
{
	unsigned int tries = 100 * time_factor();
	bool begun = false, tried = false;

	for (; !atomic_load(&a->done); usleep(1000)) {
		if (strcmp("none", closed(tb))) {
			begun = true;
			tried = tried || atomic_load(&e->trying);
		} else if (begun) {
			break;
		}
	}
	if (!begun)
		return "the reset did not close the RAM";
	if (!tried)
		return "nobody tried to end the reset";
	while (!atomic_load(&a->done)) {
		if (!tries--)
			return "it was opened while the reset was asserted";
		usleep(10000);
	}
	return "";
}

/* A reset that another thread is asserting, which takes seconds, can't be deactivated. */
TEST_F_TIMEOUT(one, defect_16_eeh_end_while_it_begins, 120)
{
	struct asserter a = { .tb = &self->tb };
	struct ender e = { .tb = &self->tb };
	__u64 value = 0;

	ASSERT_EQ(0, pthread_create(&e.thread, NULL, end_resets, &e));
	ASSERT_EQ(0, pthread_create(&a.thread, NULL, assert_reset, &a));
	EXPECT_STREQ("", kept_closed(&self->tb, &a, &e));
	pthread_join(a.thread, NULL);
	atomic_store(&e.stop, true);
	pthread_join(e.thread, NULL);
	EXPECT_EQ(0, a.ret);
	EXPECT_EQ(0UL, atomic_load(&e.failed));
	ASSERT_EQ(0, eeh(&self->tb, VFIO_EEH_PE_RESET_DEACTIVATE));
	EXPECT_STREQ("none", closed(&self->tb));
	ASSERT_EQ(0, vfio_set_memory(self->tb.dev, true));
	ASSERT_EQ(0, model_train(&self->tb.model));
	EXPECT_EQ(0, try_write64(self->p, 80));
	EXPECT_EQ(0, try_read64(self->p, &value));
	EXPECT_EQ(80ULL, value);
}

/*
 * Whoever unbinds the GPU has its lock until it is closed. A reset does not wait for that, or who
 * is to close it would wait for himself.
 */
TEST_F_TIMEOUT(one, defect_16_eeh_reset_while_unbinding, 120)
{
	struct asserter a = { .tb = &self->tb };
	struct timespec limit;
	int late, status;
	pid_t child;

	child = testbed_unbind_in_child(&self->tb, self->tb.gpu->bdf);
	ASSERT_LT(0, child)
		TH_LOG("%s", strerror(-child));
	sleep(2);
	EXPECT_EQ(0, waitpid(child, &status, WNOHANG));
	ASSERT_EQ(0, pthread_create(&a.thread, NULL, assert_reset, &a));
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20 * time_factor();
	late = pthread_timedjoin_np(a.thread, NULL, &limit);
	EXPECT_EQ(0, late)
		TH_LOG("the reset waits");

	/* Nobody waits any longer then, or a test that failed could not even be killed. */
	EXPECT_EQ(0, munmap(self->p, TOUCHER_PAGES * PAGE_64K));
	EXPECT_EQ(0, close(self->tb.dev));
	self->tb.dev = -1;
	if (late)
		pthread_join(a.thread, NULL);
	EXPECT_EQ(-EAGAIN, a.ret);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(driver_is(self->tb.gpu->bdf, ""));
	EXPECT_EQ(0, driver_bind(self->tb.gpu->bdf, DRIVER));
}

TEST_HARNESS_MAIN
