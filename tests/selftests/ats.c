// SPDX-License-Identifier: GPL-2.0
/*
 * What a GPU reaches by address translation services: the memory of processes of the guest
 * that it is bound to, as the guest's tables say, while it is bound, and nothing else.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "engine.h"
#include "guest.h"
#include "sys.h"
#include "testbed.h"

#define ATS		V100_ENGINE_PATH_ATS
#define CAUSE(name)	V100_ENGINE_CAUSE_##name

#define PID		77

FIXTURE(ats)
{
	struct testbed tb;
	struct engine engine;
	struct guest guest;
};

FIXTURE_SETUP(ats)
{
	unsigned int i;

	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	ASSERT_EQ(0, guest_create(&self->guest, self->tb.group.vm, PID));
	ASSERT_EQ(0, guest_touch_tables(&self->guest));
	for (i = 0; i < GUEST_PAGES; i++)
		ASSERT_EQ(0, guest_touch(&self->guest, i));
	ASSERT_EQ(0, engine_attach(&self->engine, self->tb.dev));
	self->engine.pasid = PID;
}

FIXTURE_TEARDOWN(ats)
{
	engine_detach(&self->engine);
	guest_destroy(&self->guest);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

TEST_F(ats, reads_and_writes_memory_of_the_process)
{
	struct engine *e = &self->engine;
	unsigned int n;
	__u64 value;

	for (n = 0; n < GUEST_PAGES; n++) {
		__u64 *page = guest_page(&self->guest, n);

		e->link = n & 1;
		page[3] = pattern(n, 1);
		EXPECT_EQ(0, engine_read64(e, ATS, guest_ea(n) + 24, &value));
		EXPECT_EQ(pattern(n, 1), value);
		EXPECT_EQ(0, engine_write64(e, ATS, guest_ea(n) + 24, pattern(n, 2)));
		EXPECT_EQ(pattern(n, 2), page[3]);
	}
}

TEST_HARNESS_MAIN
