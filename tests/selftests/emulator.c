// SPDX-License-Identifier: GPL-2.0
/*
 * What all other tests take for granted of the machine, and what an emulator may get wrong: a
 * processor that uses a device is not disturbed by another one that moves some other device's
 * BARs. It once was, in one of a few hundred boots.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "dt.h"
#include "hardware.h"
#include "nvlink2-v100-regs.h"
#include "sys.h"

#define PCI_DEVICES	"/sys/bus/pci/devices"
#define ROUNDS		300

/* Opens a file of @bdf in sysfs; -1 on failure. */
static int open_of(const char *bdf, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, name);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Gives @bdf no driver, and has it decode memory. */
static int prepare(const char *bdf)
{
	char path[128];
	int ret = driver_unbind(bdf);

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/enable", bdf);
	return ret ?: sys_write(path, "1");
}

struct mover {
	int config;
	atomic_bool stop;
	atomic_uint moves, failures;
};

/* Takes the BARs off the bus and puts them back. */
static void *move_bars(void *arg)
{
	struct mover *m = arg;
	__u16 on, off;

	if (pread(m->config, &on, sizeof(on), PCI_COMMAND) != sizeof(on)) {
		atomic_fetch_add(&m->failures, 1);
		return NULL;
	}
	off = on & ~htole16(PCI_COMMAND_MEMORY);
	/* Nothing would move. */
	if (off == on)
		atomic_fetch_add(&m->failures, 1);
	while (!atomic_load(&m->stop)) {
		if (pwrite(m->config, &off, sizeof(off), PCI_COMMAND) != sizeof(off) ||
		    pwrite(m->config, &on, sizeof(on), PCI_COMMAND) != sizeof(on))
			atomic_fetch_add(&m->failures, 1);
		atomic_fetch_add(&m->moves, 1);
	}
	return NULL;
}

/* Each call is a load from the device. */
static bool answers(const __u32 *id)
{
	return le32toh(__atomic_load_n(id, __ATOMIC_RELAXED)) == V100_MODEL_ID_MAGIC;
}

FIXTURE(two_gpus)
{
	struct mover mover;
	/* The first GPU's registers. */
	const __u32 *id;
	int kmsg;
};

FIXTURE_SETUP(two_gpus)
{
	struct dt_topology topo;
	char why[256];
	void *p;
	int bar;

	ASSERT_EQ(0, dt_read_topology(&topo, why, sizeof(why)))
		TH_LOG("%s", why);
	ASSERT_LE(2U, topo.num_gpus);
	self->kmsg = kmsg_open();
	ASSERT_LE(0, self->kmsg);
	ASSERT_EQ(0, prepare(topo.gpu[0].bdf));
	ASSERT_EQ(0, prepare(topo.gpu[1].bdf));
	bar = open_of(topo.gpu[0].bdf, "resource0");
	ASSERT_LE(0, bar);
	p = mmap(NULL, PAGE_64K, PROT_READ, MAP_SHARED, bar, V100_MODEL_BASE);
	ASSERT_NE(MAP_FAILED, p);
	close(bar);
	self->id = p;
	self->mover.config = open_of(topo.gpu[1].bdf, "config");
	ASSERT_LE(0, self->mover.config);
}

FIXTURE_TEARDOWN(two_gpus)
{
	EXPECT_EQ(0, kmsg_splats(self->kmsg));
	close(self->kmsg);
	close(self->mover.config);
	munmap((void *)self->id, PAGE_64K);
}

TEST_F_TIMEOUT(two_gpus, one_answers_while_the_bars_of_the_other_move, 120)
{
	struct mover *m = &self->mover;
	unsigned int wrong = 0, meanwhile = 0;
	pthread_t thread;

	ASSERT_TRUE(answers(self->id));
	ASSERT_EQ(0, pthread_create(&thread, NULL, move_bars, m));
	while (atomic_load(&m->moves) < ROUNDS && !atomic_load(&m->failures)) {
		wrong += !answers(self->id);
		/* Between the first move and the last. */
		meanwhile += atomic_load(&m->moves) != 0;
	}
	atomic_store(&m->stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0U, wrong);
	EXPECT_LT(0U, meanwhile);
	EXPECT_EQ(0U, atomic_load(&m->failures));
}

TEST_HARNESS_MAIN
