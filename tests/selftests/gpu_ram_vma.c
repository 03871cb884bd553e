// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of a mapping of GPU RAM, and of what the driver keeps about it, when the
 * address space changes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"
#include "testbed.h"

FIXTURE(gpu)
{
	struct testbed tb;
};

FIXTURE_SETUP(gpu)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
}

FIXTURE_TEARDOWN(gpu)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/* Defect 12: a second mmap() after munmap() gave EPERM for ever. */
TEST_F(gpu, defect_12_map_unmap_map)
{
	__u64 value;
	void *p;
	int i;

	for (i = 0; i < 20; i++) {
		p = vfio_map(self->tb.dev, self->tb.ram, 0, 16 * PAGE_64K);
		ASSERT_NE(NULL, p)
			TH_LOG("round %d: %s", i, strerror(errno));
		ASSERT_EQ(0, try_write64(p, i));
		ASSERT_EQ(0, try_read64(p, &value));
		EXPECT_EQ((__u64)i, value);
		EXPECT_EQ(1, testbed_mappings(&self->tb, p));
		EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p, 16 * PAGE_64K));
		EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, 16 * PAGE_64K));
		ASSERT_EQ(0, munmap(p, 16 * PAGE_64K));
		EXPECT_EQ(0, testbed_mappings(&self->tb, p));
	}
}

/* Defect 12: so did one that failed. */
TEST_F(gpu, defect_12_mmap_works_after_one_that_failed)
{
	void *p;

	EXPECT_EQ(NULL, vfio_map(self->tb.dev, self->tb.ram, self->tb.ram->size, PAGE_64K));
	EXPECT_EQ(NULL, vfio_map(self->tb.dev, self->tb.ram, 0, self->tb.ram->size + PAGE_64K));
	p = vfio_map(self->tb.dev, self->tb.ram, 0, self->tb.ram->size);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, try_write64(p, 1));
	EXPECT_EQ(0, munmap(p, self->tb.ram->size));
}

/* Several ranges at a time, also of the same memory. */
TEST_F(gpu, several_mappings_live_side_by_side)
{
	__u64 value;
	char *p[4];
	int i;

	for (i = 0; i < 4; i++) {
		p[i] = vfio_map(self->tb.dev, self->tb.ram, (i & 1) * PAGE_64K, 2 * PAGE_64K);
		ASSERT_NE(NULL, p[i])
			TH_LOG("mapping %d: %s", i, strerror(errno));
	}
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, try_write64(p[i] + (i & 1 ? 0 : PAGE_64K), i));
		ASSERT_EQ(0, try_read64(p[0] + PAGE_64K, &value));
		EXPECT_EQ((__u64)i, value);
	}
	ASSERT_EQ(0, munmap(p[0], 2 * PAGE_64K));
	ASSERT_EQ(0, munmap(p[2], 2 * PAGE_64K));
	EXPECT_EQ(0, testbed_mappings(&self->tb, p[0]));
	EXPECT_EQ(0, try_write64(p[1], 9));
	EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p[3], 2 * PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p[3], 2 * PAGE_64K));
}

/* Defect 17: a child has no access, and its death leaves the parent's mapping as it is. */
TEST_F(gpu, defect_17_child_has_no_mapping)
{
	__u64 value;
	int status;
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);
	pid_t child;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, 7));
	child = fork();
	ASSERT_LE(0, child);
	if (!child)
		_exit(try_read64(p, &value));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(SIGSEGV, WEXITSTATUS(status));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(7ULL, value);
	EXPECT_EQ(1, testbed_mappings(&self->tb, p));
	EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, PAGE_64K));
}

/* A child may map for itself: the registration goes into its own address space and with it. */
TEST_F(gpu, child_maps_for_itself)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);
	int status;
	pid_t child;

	ASSERT_NE(NULL, p);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		void *q = vfio_map(self->tb.dev, self->tb.ram, PAGE_64K, PAGE_64K);

		_exit(!q || try_write64(q, 11));
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, try_write64(p, 12));
	EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, PAGE_64K));
}

/* The registrations of @size bytes at @p, and nothing else, can be used for DMA. */
static const char *usable_for_dma(const struct testbed *tb, void *p, size_t size)
{
	if (vfio_dma_register(&tb->group, p, size))
		return "it is not registered";
	if (vfio_dma_map(&tb->group, p, 0, size))
		return "no TCE maps it";
	if (vfio_dma_unmap(&tb->group, 0, size))
		return "vfio_dma_unmap()";
	return vfio_dma_unregister(&tb->group, p, size) ? "vfio_dma_unregister()" : "";
}

/* Ordinary memory, so that the container lets anything be mapped at all. */
static void *register_something(const struct testbed *tb)
{
	void *ram = anonymous(PAGE_64K);

	return ram && !vfio_dma_register(&tb->group, ram, PAGE_64K) ? ram : NULL;
}

/* Defect 12: the registration moves with the mapping. */
TEST_F(gpu, defect_12_mremap)
{
	const size_t size = 4 * PAGE_64K;
	void *room = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *p = vfio_map(self->tb.dev, self->tb.ram, PAGE_64K, size);
	__u64 value;
	char *q;

	ASSERT_NE(MAP_FAILED, room);
	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, register_something(&self->tb));
	ASSERT_EQ(0, try_write64(p, 21));
	/* Growing could reach past what was registered. */
	EXPECT_EQ(MAP_FAILED, mremap(p, size, 2 * size, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(p, size, 2 * size, 0));
	EXPECT_EQ(MAP_FAILED, mremap(p, 0, size, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, size));

	q = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	ASSERT_EQ(room, q);
	EXPECT_EQ(0, try_read64(q, &value));
	EXPECT_EQ(21ULL, value);
	EXPECT_EQ(0, try_write64(q + 3 * PAGE_64K, 22));
	EXPECT_EQ(SIGSEGV, try_read64(p, &value));
	EXPECT_STREQ("", usable_for_dma(&self->tb, q, size));
	EXPECT_NE(0, vfio_dma_map(&self->tb.group, p, 0, size))
		TH_LOG("the old address can be mapped for DMA");
	EXPECT_EQ(0, testbed_mappings(&self->tb, p));

	/* A part of it, and less. */
	ASSERT_EQ(p, mremap(q + PAGE_64K, PAGE_64K, PAGE_64K, MREMAP_MAYMOVE | MREMAP_FIXED, p));
	ASSERT_EQ(q + 2 * PAGE_64K, mremap(q + 2 * PAGE_64K, 2 * PAGE_64K, PAGE_64K, 0));
	EXPECT_EQ(3, testbed_mappings(&self->tb, NULL));
	EXPECT_STREQ("", usable_for_dma(&self->tb, q, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, q + 2 * PAGE_64K, PAGE_64K));
	EXPECT_NE(0, vfio_dma_map(&self->tb.group, q + PAGE_64K, 0, PAGE_64K));
	EXPECT_NE(0, vfio_dma_map(&self->tb.group, q + 3 * PAGE_64K, 0, PAGE_64K));
	EXPECT_EQ(0, try_write64(p, 23));
	EXPECT_EQ(0, munmap(p, PAGE_64K));
	EXPECT_EQ(0, munmap(q, size));
	EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));

	/* And the range can be mapped anew. */
	p = vfio_map(self->tb.dev, self->tb.ram, 2 * PAGE_64K, PAGE_64K);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(23ULL, value);
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, PAGE_64K));
}

/* Defect 12: no address outside a living mapping may be used for DMA, each in one may. */
TEST_F(gpu, defect_12_partial_munmap)
{
	const size_t size = 4 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, size);
	__u64 value;

	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, register_something(&self->tb));
	ASSERT_EQ(0, try_write64(p, 31));
	ASSERT_EQ(0, munmap(p + PAGE_64K, PAGE_64K));
	EXPECT_EQ(2, testbed_mappings(&self->tb, NULL));
	EXPECT_EQ(SIGSEGV, try_read64(p + PAGE_64K, &value));
	EXPECT_NE(0, vfio_dma_map(&self->tb.group, p + PAGE_64K, 0, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p + 2 * PAGE_64K, 2 * PAGE_64K));
	EXPECT_NE(0, vfio_dma_register(&self->tb.group, p, size));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(31ULL, value);
	EXPECT_EQ(0, try_write64(p + 2 * PAGE_64K, 32));
	EXPECT_EQ(0, munmap(p, size));
	EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));
	EXPECT_NE(0, vfio_dma_map(&self->tb.group, p, 0, PAGE_64K));
	EXPECT_NE(0, vfio_dma_map(&self->tb.group, p + 2 * PAGE_64K, 0, PAGE_64K));
	p = vfio_map(self->tb.dev, self->tb.ram, 0, size);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(31ULL, value);
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, size));
}

/* Defect 12: a part that is protected otherwise has a registration of its own. */
TEST_F(gpu, defect_12_mprotect)
{
	const size_t size = 4 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, size);
	__u64 value;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, try_write64(p, 41));
	ASSERT_EQ(0, mprotect(p, size, PROT_READ));
	EXPECT_EQ(SIGSEGV, try_write64(p, 42));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(41ULL, value);
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, size));
	EXPECT_STREQ("", vma_missing_flag(p));

	ASSERT_EQ(0, mprotect(p + PAGE_64K, PAGE_64K, PROT_READ | PROT_WRITE));
	EXPECT_EQ(SIGSEGV, try_write64(p, 43));
	EXPECT_EQ(0, try_write64(p + PAGE_64K, 44));
	EXPECT_EQ(SIGSEGV, try_write64(p + 2 * PAGE_64K, 45));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p + PAGE_64K, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p + 2 * PAGE_64K, 2 * PAGE_64K));
	ASSERT_EQ(0, mprotect(p, size, PROT_NONE));
	EXPECT_EQ(SIGSEGV, try_read64(p, &value));
	ASSERT_EQ(0, mprotect(p, size, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, try_read64(p + PAGE_64K, &value));
	EXPECT_EQ(44ULL, value);
	EXPECT_EQ(0, munmap(p, size));
	EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));
}

/* Defect 12: what a TCE or a container needs stays as it is, and so does the mapping. */
TEST_F(gpu, defect_12_in_use)
{
	const size_t size = 2 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, size);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, p, size));
	EXPECT_EQ(-1, munmap(p, PAGE_64K));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(-1, mprotect(p, PAGE_64K, PROT_READ));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(MAP_FAILED, mremap(p, size, PAGE_64K, 0));
	EXPECT_EQ(EBUSY, errno);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, size));
	EXPECT_EQ(-1, munmap(p, PAGE_64K));
	EXPECT_EQ(EBUSY, errno);
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, size));
	ASSERT_EQ(0, vfio_dma_unregister(&self->tb.group, p, size));
	EXPECT_EQ(0, try_write64(p, 51));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, size));
	EXPECT_EQ(0, munmap(p, PAGE_64K));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p + PAGE_64K, PAGE_64K));
}

/*
 * mremap() asks whether the mapping may be split, and fails later: the process has something else
 * registered at the new place. Nothing was split by the question.
 */
TEST_F(gpu, question_whether_to_split_splits_nothing)
{
	const size_t size = 4 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, size);
	void *taken = register_something(&self->tb);
	__u64 value;

	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, taken);
	ASSERT_EQ(0, try_write64(p + PAGE_64K, 61));
	EXPECT_EQ(MAP_FAILED, mremap(p + PAGE_64K, PAGE_64K, PAGE_64K,
				     MREMAP_MAYMOVE | MREMAP_FIXED, taken));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, try_read64(p + PAGE_64K, &value));
	EXPECT_EQ(61ULL, value);
	EXPECT_EQ(1, testbed_mappings(&self->tb, NULL));
	EXPECT_STREQ("", usable_for_dma(&self->tb, p, size));
}

#define SPLITS	4000

struct tce_mapper {
	const struct testbed *tb;
	void *page;
	atomic_bool stop;
	unsigned int mapped;
	int ret;
};

static void *map_a_tce(void *arg)
{
	struct tce_mapper *m = arg;

	while (!m->ret && !atomic_load(&m->stop)) {
		m->ret = vfio_dma_map(&m->tb->group, m->page, 0, PAGE_64K) ?:
			 vfio_dma_unmap(&m->tb->group, 0, PAGE_64K);
		m->mapped++;
	}
	return NULL;
}

/* What stays mapped can be mapped by a TCE at any time, also while the rest is cut off. */
TEST_F_TIMEOUT(gpu, tces_are_mapped_while_another_thread_splits, 120)
{
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, (SPLITS + 1) * PAGE_64K);
	struct tce_mapper m = { .tb = &self->tb, .page = p };
	unsigned int busy = 0;
	pthread_t thread;
	int i;

	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, register_something(&self->tb));
	ASSERT_EQ(0, pthread_create(&thread, NULL, map_a_tce, &m));
	for (i = SPLITS; i; i--) {
		while (munmap(p + i * PAGE_64K, PAGE_64K)) {
			ASSERT_EQ(EBUSY, errno);
			busy++;
		}
	}
	atomic_store(&m.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, m.ret)
		TH_LOG("after %u TCEs: %s", m.mapped, strerror(-m.ret));
	/* They did meet. */
	EXPECT_LT(0U, busy);
	EXPECT_EQ(1, testbed_mappings(&self->tb, NULL));
	EXPECT_EQ(0, munmap(p, PAGE_64K));
	EXPECT_EQ(0, testbed_mappings(&self->tb, NULL));
}

#define MAPS	200

struct mapper {
	const struct testbed *tb;
	/* Where all wait for each other, so that they map at once. */
	pthread_barrier_t *start;
	unsigned int mapped;
};

static void *map_and_unmap(void *arg)
{
	struct mapper *m = arg;
	int i;

	pthread_barrier_wait(m->start);
	for (i = 0; i < MAPS; i++) {
		void *p = vfio_map(m->tb->dev, m->tb->ram, 0, 2 * PAGE_64K);

		m->mapped += p && !munmap(p, 2 * PAGE_64K);
	}
	return NULL;
}

/* Defect 13: two threads at once leaked an mm and a registration. */
TEST_F_TIMEOUT(gpu, defect_13_threads_map_at_once, 120)
{
	pthread_barrier_t start;
	struct mapper m[4];
	pthread_t thread[4];
	char path[256], before[4096], after[4096];
	unsigned int i;
	void *p;

	snprintf(path, sizeof(path), DEBUGFS "/%s/mappings", self->tb.gpu->bdf);
	ASSERT_LE(0, sys_read(path, before, sizeof(before)));
	ASSERT_EQ(0, pthread_barrier_init(&start, NULL, ARRAY_SIZE(m)));
	for (i = 0; i < ARRAY_SIZE(m); i++) {
		m[i] = (struct mapper){ .tb = &self->tb, .start = &start };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, map_and_unmap, &m[i]));
	}
	for (i = 0; i < ARRAY_SIZE(m); i++) {
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
		EXPECT_EQ(MAPS, m[i].mapped);
	}
	ASSERT_LE(0, sys_read(path, after, sizeof(after)));
	EXPECT_STREQ(before, after);
	p = vfio_map(self->tb.dev, self->tb.ram, 0, self->tb.ram->size);
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p, self->tb.ram->size));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, self->tb.ram->size));
}

/*
 * Defect 5: the mapping outlives the registration of other devices' regions and the
 * descriptor that made it.
 */
TEST_F(gpu, defect_5_mapping_outlives_the_descriptor)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, 2 * PAGE_64K);
	__u64 value;
	int bridge;

	ASSERT_NE(NULL, p);
	bridge = vfio_device_open(&self->tb.group, self->tb.gpu->link[0].bdf);
	ASSERT_LE(0, bridge);
	close(bridge);
	/* Opening and closing the bridge reset its link. */
	ASSERT_EQ(0, model_train(&self->tb.model));
	ASSERT_EQ(0, try_write64(p, 51));
	/* The mapping holds the file: the device stays open and the RAM readable. */
	close(self->tb.dev);
	self->tb.dev = -1;
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(51ULL, value);
	EXPECT_EQ(0, try_write64((char *)p + PAGE_64K, 52));
	EXPECT_EQ(0, munmap(p, 2 * PAGE_64K));
}

TEST_HARNESS_MAIN
