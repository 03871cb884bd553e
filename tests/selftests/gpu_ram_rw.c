// SPDX-License-Identifier: GPL-2.0
/* pread() and pwrite() of the GPU RAM region. */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "npu.h"
#include "sys.h"
#include "testbed.h"

FIXTURE(gpu)
{
	struct testbed tb;
	/* As the machine was started. */
	const char *dead;
};

FIXTURE_SETUP(gpu)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->dead = npu_dead();
}

FIXTURE_TEARDOWN(gpu)
{
	EXPECT_EQ(0, npu_set("dead", self->dead));
	EXPECT_EQ(0, testbed_close(&self->tb));
}

#define BUF_SIZE (3 * PAGE_64K)

static ssize_t region_read(const struct testbed *tb, void *buf, size_t size, __u64 offset)
{
	return pread(tb->dev, buf, size, tb->ram->offset + offset);
}

static ssize_t region_write(const struct testbed *tb, const void *buf, size_t size, __u64 offset)
{
	return pwrite(tb->dev, buf, size, tb->ram->offset + offset);
}

static void fill(unsigned char *buf, size_t size, unsigned int seed)
{
	size_t i;

	for (i = 0; i < size; i++)
		buf[i] = (i * 131 + seed * 17) ^ (i >> 8);
}

/*
 * Every alignment and odd lengths, across page boundaries, against the GPU's own view;
 * neighbours untouched.
 */
TEST_F(gpu, any_offset_and_length)
{
	static const struct {
		__u64 offset;
		size_t size;
	} cases[] = {
		{ 0, 1 }, { 0, 8 }, { 1, 1 }, { 3, 2 }, { 5, 4 }, { 7, 8 }, { 1, 15 }, { 4, 4096 },
		{ 9, 777 }, { PAGE_64K - 1, 2 }, { PAGE_64K - 8, 16 }, { PAGE_64K - 3, 70000 },
		{ 2 * PAGE_64K, PAGE_64K }, { 12345, 2 * PAGE_64K },
	};
	unsigned char *model = malloc(BUF_SIZE + 32);
	unsigned char *wrote = malloc(BUF_SIZE);
	unsigned char *seen = malloc(BUF_SIZE);
	const __u64 base = 1 << 20;
	unsigned int i, j;

	ASSERT_TRUE(wrote && seen && model);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const __u64 offset = base + cases[i].offset;
		const size_t size = cases[i].size;

		memset(model, 0xee, size + 32);
		ASSERT_EQ(0, model_ram_write(&self->tb.model, offset - 16, model, size + 32));
		fill(wrote, size, i);
		ASSERT_EQ((ssize_t)size, region_write(&self->tb, wrote, size, offset))
			TH_LOG("offset %#lx size %zu: %s", offset, size, strerror(errno));
		memset(seen, 0, size);
		ASSERT_EQ((ssize_t)size, region_read(&self->tb, seen, size, offset));
		EXPECT_EQ(0, memcmp(wrote, seen, size))
			TH_LOG("offset %#lx size %zu: read back something else", offset, size);
		ASSERT_EQ(0, model_ram_read(&self->tb.model, offset - 16, model, size + 32));
		EXPECT_EQ(0, memcmp(wrote, model + 16, size))
			TH_LOG("offset %#lx size %zu: the GPU sees something else", offset, size);
		for (j = 0; j < 16; j++) {
			EXPECT_EQ(0xee, model[j])
				TH_LOG("offset %#lx: wrote before it", offset);
			EXPECT_EQ(0xee, model[16 + size + j])
				TH_LOG("offset %#lx size %zu: wrote behind it", offset, size);
		}
	}
	free(wrote);
	free(seen);
	free(model);
}

/* mmap() and pread()/pwrite() meet beyond the 256 MiB that BAR1 shows. */
TEST_F(gpu, coherent_with_the_mapping)
{
	const __u64 offset = self->tb.model.ram_size - 4 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, offset, 4 * PAGE_64K);
	__u64 at, value;

	ASSERT_NE(NULL, p);
	for (at = 0; at < 4 * PAGE_64K; at += 4096 + 8) {
		ASSERT_EQ(0, try_write64(p + at, pattern(at, 3)));
		ASSERT_EQ(8, region_read(&self->tb, &value, 8, offset + at));
		EXPECT_EQ(pattern(at, 3), value);
		value = pattern(at, 4);
		ASSERT_EQ(8, region_write(&self->tb, &value, 8, offset + at));
		ASSERT_EQ(0, try_read64(p + at, &value));
		EXPECT_EQ(pattern(at, 4), value);
	}
}

/*
 * Defect 18: the original mapped the whole request at once. A request may be as long as the
 * region allows and is cut at the region's end.
 */
TEST_F(gpu, defect_18_bounds)
{
	const __u64 size = self->tb.ram->size;
	unsigned char buf[32] = {};

	EXPECT_EQ(-1, region_read(&self->tb, buf, 8, size));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, region_write(&self->tb, buf, 8, size));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, region_read(&self->tb, buf, 8, size + PAGE_64K));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, region_read(&self->tb, buf, 8, (1ULL << 40) - 8));
	EXPECT_EQ(EINVAL, errno);
	/* There is no RAM at the end of the region. */
	ASSERT_EQ(0, npu_set("dead", ALL_ONES));
	EXPECT_EQ(4, region_read(&self->tb, buf, 8, size - 4));
	EXPECT_EQ(16, region_read(&self->tb, buf, 32, size - 16));
	EXPECT_EQ(4, region_write(&self->tb, buf, 8, size - 4));
}

/* Longer than what the driver moves at a time. */
TEST_F(gpu, long_requests)
{
	const size_t length = 4 << 20;
	unsigned char *wrote = malloc(length), *seen = malloc(length);
	size_t done;
	ssize_t n;

	ASSERT_TRUE(wrote && seen);
	fill(wrote, length, 9);
	for (done = 0; done < length; done += n) {
		n = region_write(&self->tb, wrote + done, length - done, 5 + done);
		ASSERT_LT(0, n)
			TH_LOG("at %#zx: %s", done, strerror(errno));
	}
	ASSERT_EQ(0, model_ram_read(&self->tb.model, 5, seen, length));
	EXPECT_EQ(0, memcmp(wrote, seen, length));
	memset(seen, 0, length);
	for (done = 0; done < length; done += n) {
		n = region_read(&self->tb, seen + done, length - done, 5 + done);
		ASSERT_LT(0, n);
	}
	EXPECT_EQ(0, memcmp(wrote, seen, length));
	free(wrote);
	free(seen);
}

TEST_F(gpu, bad_user_buffer_gives_efault)
{
	char *p = anonymous(2 * PAGE_64K);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, munmap(p + PAGE_64K, PAGE_64K));
	EXPECT_EQ(-1, region_read(&self->tb, p + PAGE_64K, 8, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, region_write(&self->tb, p + PAGE_64K, 8, 0));
	EXPECT_EQ(EFAULT, errno);
}

/*
 * Pages of the user that are not there, and some that are, in whatever order: what is moved is
 * right, and no more than was asked for.
 */
TEST_F(gpu, buffers_that_nobody_touched)
{
	const size_t size = 8 * PAGE_64K;
	unsigned char *wrote = malloc(size), *p;
	unsigned int i, j;

	ASSERT_NE(NULL, wrote);
	fill(wrote, size, 5);
	ASSERT_EQ(0, model_ram_write(&self->tb.model, 40, wrote, size));
	for (i = 0; i < 4; i++) {
		p = anonymous(size + PAGE_64K);
		ASSERT_NE(NULL, p);
		for (j = 0; j < 8; j += i + 1)
			p[j * PAGE_64K] = 0xee;
		ASSERT_EQ((ssize_t)size, region_read(&self->tb, p + 24, size, 40));
		EXPECT_EQ(0, memcmp(wrote, p + 24, size));
		EXPECT_EQ(0, p[24 + size]);
		ASSERT_EQ(0, munmap(p, size + PAGE_64K));
		/* Reads of what was never written give zeros. */
		p = anonymous(size);
		ASSERT_NE(NULL, p);
		for (j = 0; j < 8; j += i + 1)
			p[j * PAGE_64K] = i + 1;
		ASSERT_EQ((ssize_t)size, region_write(&self->tb, p, size, 1 << 20));
		ASSERT_EQ(0, munmap(p, size));
		p = malloc(size);
		ASSERT_NE(NULL, p);
		ASSERT_EQ(0, model_ram_read(&self->tb.model, 1 << 20, p, size));
		for (j = 0; j < 8; j++) {
			EXPECT_EQ(j % (i + 1) ? 0 : i + 1, p[j * PAGE_64K]);
			EXPECT_EQ(0, p[j * PAGE_64K + 1]);
		}
		free(p);
	}
	free(wrote);
}

/* A buffer that ends: what was moved until then counts. */
TEST_F(gpu, part_of_a_buffer)
{
	char *p = anonymous(2 * PAGE_64K);
	__u64 before = 0x1234, after;

	ASSERT_NE(NULL, p);
	memset(p, 0x77, PAGE_64K);
	ASSERT_EQ(0, munmap(p + PAGE_64K, PAGE_64K));
	ASSERT_EQ(0, model_ram_write(&self->tb.model, 2 * PAGE_64K, &before, 8));
	EXPECT_EQ((ssize_t)PAGE_64K, region_read(&self->tb, p, 2 * PAGE_64K, 0));
	EXPECT_EQ((ssize_t)PAGE_64K, region_write(&self->tb, p, 2 * PAGE_64K, PAGE_64K));
	/* What the user does not have is not taken for zeros. */
	ASSERT_EQ(0, model_ram_read(&self->tb.model, 2 * PAGE_64K, &after, 8));
	EXPECT_EQ(before, after);
}

/* The user's buffer is what is read: its pages must not be needed while the RAM is in use. */
TEST_F(gpu, buffer_in_the_ram_itself)
{
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, 4 * PAGE_64K);
	unsigned char *seen = malloc(PAGE_64K), *wrote = malloc(PAGE_64K);

	ASSERT_NE(NULL, p);
	ASSERT_TRUE(seen && wrote);
	fill(wrote, PAGE_64K, 3);
	ASSERT_EQ(0, model_ram_write(&self->tb.model, 0, wrote, PAGE_64K));
	EXPECT_EQ((ssize_t)PAGE_64K, region_read(&self->tb, p, PAGE_64K, 0));
	EXPECT_EQ((ssize_t)PAGE_64K, region_read(&self->tb, p + PAGE_64K, PAGE_64K, 0));
	EXPECT_EQ((ssize_t)PAGE_64K, region_write(&self->tb, p, PAGE_64K, 2 * PAGE_64K));
	EXPECT_EQ((ssize_t)PAGE_64K, region_write(&self->tb, p + 3 * PAGE_64K, PAGE_64K,
						  3 * PAGE_64K));
	ASSERT_EQ(0, model_ram_read(&self->tb.model, 0, seen, PAGE_64K));
	EXPECT_EQ(0, memcmp(wrote, seen, PAGE_64K));
	ASSERT_EQ(0, model_ram_read(&self->tb.model, PAGE_64K, seen, PAGE_64K));
	EXPECT_EQ(0, memcmp(wrote, seen, PAGE_64K));
	ASSERT_EQ(0, model_ram_read(&self->tb.model, 2 * PAGE_64K, seen, PAGE_64K));
	EXPECT_EQ(0, memcmp(wrote, seen, PAGE_64K));
	free(seen);
	free(wrote);
}

/* A load that nobody answers may be a machine check; the kernel survives it, and tells. */
TEST_F(gpu, machine_checks_give_eio)
{
	const size_t size = 2 * PAGE_64K;
	char *buf = malloc(size), *p;
	int pipes[2];
	unsigned int i;

	ASSERT_NE(NULL, buf);
	memset(buf, 0, size);
	p = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, 1));
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(0, npu_set("dead", MACHINE_CHECK));

	/* The RAM ends, and with it what can be read. That fences the link. */
	EXPECT_EQ((ssize_t)PAGE_64K,
		  region_read(&self->tb, buf, size, self->tb.model.ram_size - PAGE_64K));
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(-1, region_read(&self->tb, buf, size - i, i << 16 | i));
		EXPECT_EQ(EIO, errno);
		EXPECT_EQ(-1, region_write(&self->tb, buf, size - i, i << 16 | i));
		EXPECT_EQ(EIO, errno);
	}
	/* The same on any other way by which the kernel reads what a user has mapped. */
	EXPECT_EQ(-1, write(pipes[1], p, 8));
	EXPECT_EQ(EFAULT, errno);

	ASSERT_EQ(0, model_train(&self->tb.model));
	EXPECT_EQ(8, region_read(&self->tb, buf, 8, 0));
	free(buf);
	close(pipes[0]);
	close(pipes[1]);
}

/* Or it is all ones; then nobody can tell it from what the RAM has. */
TEST_F(gpu, ones_are_read_as_they_are)
{
	const __u64 end = self->tb.model.ram_size;
	__u64 buf[2] = { 0, 0 };

	ASSERT_EQ(0, npu_set("dead", ALL_ONES));
	ASSERT_EQ((ssize_t)sizeof(buf), region_write(&self->tb, buf, sizeof(buf), end - 16));
	EXPECT_EQ((ssize_t)sizeof(buf), region_read(&self->tb, buf, sizeof(buf), end - 8));
	EXPECT_EQ(0ULL, buf[0]);
	EXPECT_EQ(~0ULL, buf[1]);
	EXPECT_EQ(8, region_write(&self->tb, buf, 8, end));
	ASSERT_EQ(0, model_train(&self->tb.model));
	EXPECT_EQ(8, region_read(&self->tb, buf, 8, end - 8));
	EXPECT_EQ(0ULL, buf[0]);
}

static sigjmp_buf away;
static atomic_int code;
static atomic_uintptr_t where;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	atomic_store(&code, info->si_code);
	atomic_store(&where, (uintptr_t)info->si_addr);
	siglongjmp(away, sig);
}

/*
 * A load of a user's that nobody answers gives him SIGBUS, with the address that he loaded from and
 * not that of the instruction.
 */
TEST_F(gpu, machine_checks_tell_the_address)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO }, old;
	const __u64 end = self->tb.model.ram_size;
	char *p = vfio_map(self->tb.dev, self->tb.ram, end - PAGE_64K, 2 * PAGE_64K);
	unsigned int i;
	cpu_set_t first;

	ASSERT_NE(NULL, p);
	/* tests/known-noise.txt has what this CPU says. */
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(first), &first));
	ASSERT_EQ(0, sigaction(SIGBUS, &sa, &old));
	ASSERT_EQ(0, npu_set("dead", MACHINE_CHECK));
	for (i = 0; i < 3; i++) {
		/* The RAM ends with the first page. After that the link is fenced. */
		char *at = i < 2 ? p + PAGE_64K + i * 8 : p + 16;

		atomic_store(&code, 0);
		if (!sigsetjmp(away, 1)) {
			load64(at);
			EXPECT_EQ(0, 1)
				TH_LOG("%p can be read", at);
		}
		EXPECT_EQ(BUS_MCEERR_AR, atomic_load(&code));
		EXPECT_EQ((uintptr_t)at, atomic_load(&where));
	}
	ASSERT_EQ(0, sigaction(SIGBUS, &old, NULL));
	ASSERT_EQ(0, model_train(&self->tb.model));
	EXPECT_EQ(0, munmap(p, 2 * PAGE_64K));
}

TEST_HARNESS_MAIN
