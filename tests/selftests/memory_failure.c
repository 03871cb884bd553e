// SPDX-License-Identifier: GPL-2.0
/*
 * An error in GPU RAM that the hardware cannot correct is told to those who map the page, and is
 * no concern of the host.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#include "kselftest_harness.h"

#include "sys.h"
#include "testbed.h"

/* Has the kernel handle an error at a physical address, as its machine check handler does. */
#define POISON	"/sys/devices/system/memory/hard_offline_page"

#define NOT_BUILT "needs CONFIG_MEMORY_FAILURE and CONFIG_MEMORY_HOTPLUG"

static sigjmp_buf env;
static atomic_int code;
static atomic_uintptr_t where;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	atomic_store(&code, info->si_code);
	atomic_store(&where, (uintptr_t)info->si_addr);
	siglongjmp(env, sig);
}

/* The signal that an error at @pa gives this process, 0 if none; @code and @where tell more. */
static int poison(__u64 pa)
{
	char text[32];

	atomic_store(&code, 0);
	atomic_store(&where, 0);
	snprintf(text, sizeof(text), "%#lx", (unsigned long)pa);
	if (sigsetjmp(env, 1))
		return SIGBUS;
	return sys_write(POISON, text) ? -1 : 0;
}

FIXTURE(gpu)
{
	struct testbed tb;
	char *p;
};

FIXTURE_SETUP(gpu)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->p = vfio_map(self->tb.dev, self->tb.ram, PAGE_64K, 4 * PAGE_64K);
	ASSERT_NE(NULL, self->p);
	ASSERT_EQ(0, sigaction(SIGBUS, &sa, NULL));
}

FIXTURE_TEARDOWN(gpu)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

TEST_F(gpu, who_maps_the_page_is_told)
{
	unsigned int n;
	__u64 value;

	if (!sys_exists(POISON))
		SKIP(return, NOT_BUILT);
	for (n = 0; n < 4; n++) {
		store64(self->p + n * PAGE_64K, n);
		EXPECT_EQ(SIGBUS, poison(self->tb.gpu->aperture + (n + 1) * PAGE_64K));
		EXPECT_EQ(BUS_MCEERR_AR, atomic_load(&code));
		EXPECT_EQ((uintptr_t)(self->p + n * PAGE_64K), atomic_load(&where));
	}
	/* The host is well, and so is the rest of the GPU's RAM. */
	EXPECT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset + 8 * PAGE_64K));
}

/* Pages of a mapping that was moved, or that only parts are left of. */
TEST_F(gpu, mappings_are_followed)
{
	char *room = mmap(NULL, PAGE_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!sys_exists(POISON))
		SKIP(return, NOT_BUILT);
	ASSERT_EQ(room, mremap(self->p + PAGE_64K, PAGE_64K, PAGE_64K,
			       MREMAP_MAYMOVE | MREMAP_FIXED, room));
	ASSERT_EQ(0, munmap(self->p + 2 * PAGE_64K, PAGE_64K));
	EXPECT_EQ(SIGBUS, poison(self->tb.gpu->aperture + 2 * PAGE_64K));
	EXPECT_EQ((uintptr_t)room, atomic_load(&where));
	EXPECT_EQ(0, poison(self->tb.gpu->aperture + 3 * PAGE_64K));
	EXPECT_EQ(SIGBUS, poison(self->tb.gpu->aperture + 4 * PAGE_64K));
	EXPECT_EQ((uintptr_t)(self->p + 3 * PAGE_64K), atomic_load(&where));
}

TEST_F(gpu, who_does_not_map_the_page_is_not_told)
{
	const struct dt_gpu *other = &self->tb.topo.gpu[1];

	if (!sys_exists(POISON))
		SKIP(return, NOT_BUILT);
	EXPECT_EQ(0, poison(self->tb.gpu->aperture));
	EXPECT_EQ(0, poison(self->tb.gpu->aperture + 5 * PAGE_64K));
	/* Nobody has this one open. */
	EXPECT_EQ(-1, poison(other->aperture));
	EXPECT_EQ(0, munmap(self->p, 4 * PAGE_64K));
	EXPECT_EQ(0, poison(self->tb.gpu->aperture + PAGE_64K));
}

TEST_HARNESS_MAIN
