// SPDX-License-Identifier: GPL-2.0
/*
 * A driver in the guest's kernel, nvlink_guest: what it finds when it is loaded, and that GPUs
 * follow the address spaces of processes without any help of theirs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kselftest_harness.h"

#include "driver/nvlink_guest.h"
#include "numa.h"
#include "nvlink.h"
#include "sys.h"

#define LIMIT	300
#define ATS	V100_ENGINE_PATH_ATS

/* The block that becomes memory of the kernel: behind that of guest_numa. */
#define OFFSET	(8ULL << 30)
#define PAGES	4

TEST(finds_what_the_device_tree_says)
{
	char report[4096], wanted[256], *line, *rest = report;
	unsigned int i, j, links = 0;
	struct nvlink nv;

	ASSERT_EQ(0, nvlink_read(&nv));
	ASSERT_LT(0, sys_read(NVLINK_GUEST_REPORT, report, sizeof(report)))
		TH_LOG("the module is not loaded");
	for (i = 0; i < nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &nv.gpu[i];
		__u32 node;

		ASSERT_EQ(0, numa_node(gpu, &node));
		/* The vendor's driver takes no other. */
		EXPECT_EQ(0, gpu->ram % (128ULL << 30));
		snprintf(wanted, sizeof(wanted), "gpu %s links %u memory %#llx %#llx node %u",
			 gpu->bdf, gpu->num_links, (unsigned long long)gpu->ram,
			 (unsigned long long)gpu->ram_size, node);
		line = strsep(&rest, "\n");
		EXPECT_STREQ(wanted, line ?: "nothing");
		for (j = 0; j < gpu->num_links; j++, links++) {
			const char *dn = gpu->link[j].node;
			__u32 speed;
			__u64 tgt;

			ASSERT_EQ(0, dt_u32(dn, "ibm,nvlink-speed", 0, &speed));
			ASSERT_EQ(0, dt_u64(dn, "ibm,device-tgt-addr", 0, &tgt));
			EXPECT_NE(0, speed);
			snprintf(wanted, sizeof(wanted),
				 "link %s gpu %s speed %u tgt %#llx memory %#llx",
				 gpu->link[j].bdf, gpu->bdf, speed, (unsigned long long)tgt,
				 (unsigned long long)gpu->ram);
			line = strsep(&rest, "\n");
			EXPECT_STREQ(wanted, line ?: "nothing");
		}
	}
	snprintf(wanted, sizeof(wanted), "atsd %u", links);
	line = strsep(&rest, "\n");
	EXPECT_STREQ(wanted, line ?: "nothing");
	EXPECT_EQ(NULL, rest);
}

FIXTURE(watched)
{
	struct nvlink nv;
	struct engine engine[NVLINK_MAX_GPUS];
	int file;
};

FIXTURE_SETUP(watched)
{
	unsigned int i;
	__u32 pasid;

	ASSERT_EQ(0, nvlink_read(&self->nv));
	ASSERT_EQ(0, nvlink_attach(&self->nv, self->engine));
	/* What GPUs know of processes with this number that are gone. */
	ASSERT_EQ(0, nvlink_forget(&self->nv));
	self->file = open(NVLINK_GUEST_DEVICE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, ioctl(self->file, NVLINK_GUEST_WATCH, &pasid));
	for (i = 0; i < self->nv.num_gpus; i++)
		self->engine[i].pasid = pasid;
}

FIXTURE_TEARDOWN(watched)
{
	close(self->file);
	EXPECT_TRUE(nvlink_detach(&self->nv, self->engine));
}

static __u64 ea(const void *p)
{
	return (uintptr_t)p;
}

/* The word at @p as the GPU sees it; all ones after a fault. */
static __u64 seen(const struct engine *e, const void *p)
{
	__u64 value;

	engine_read64(e, ATS, ea(p), &value);
	return value;
}

static __u32 launched(int file)
{
	__u32 count = 0;

	return ioctl(file, NVLINK_GUEST_LAUNCHED, &count) ? 0 : count;
}

/* GPUs know the process by the number that the kernel says. */
TEST_F_TIMEOUT(watched, number_of_the_process, LIMIT)
{
	const __u32 pasid = self->engine[0].pasid;
	__u32 found;

	ASSERT_EQ(0, nvlink_own_pasid(&self->nv, &self->engine[0], &found));
	EXPECT_EQ(pasid, found);
}

TEST_F_TIMEOUT(watched, page_that_is_exchanged, LIMIT)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	unsigned int i, j;

	for (i = 0; i < self->nv.num_gpus; i++) {
		struct engine *e = &self->engine[i];

		for (j = 0; j < self->nv.gpu[i].num_links; j++) {
			__u64 *page = anonymous(PAGE_64K), *new = anonymous(PAGE_64K);
			__u64 *away = anonymous(PAGE_64K);
			const __u32 before = launched(self->file);
			__u32 shootdowns;

			e->link = j;
			*page = 1;
			*new = 2;
			ASSERT_EQ(1, seen(e, page));
			shootdowns = engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS);
			ASSERT_NE(MAP_FAILED, mremap(page, PAGE_64K, PAGE_64K, flags, away));
			ASSERT_NE(MAP_FAILED, mremap(new, PAGE_64K, PAGE_64K, flags, page));
			EXPECT_EQ(2, seen(e, page));
			EXPECT_LT(before, launched(self->file));
			EXPECT_LT(shootdowns, engine_reg(e, V100_ENGINE_ATC_SHOOTDOWNS));
			munmap(page, PAGE_64K);
			munmap(away, PAGE_64K);
		}
	}
}

TEST_F_TIMEOUT(watched, page_that_changes, LIMIT)
{
	unsigned int i;
	__u64 value;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct engine *e = &self->engine[i];
		__u64 *page = anonymous(PAGE_64K);

		*page = 1;
		EXPECT_EQ(0, engine_write64(e, ATS, ea(page), 2));
		EXPECT_EQ(2, load64(page));
		/* Its permissions ... */
		ASSERT_EQ(0, mprotect(page, PAGE_64K, PROT_READ));
		EXPECT_EQ(V100_ENGINE_CAUSE_PERMISSION, engine_write64(e, ATS, ea(page), 3));
		EXPECT_EQ(2, seen(e, page));
		ASSERT_EQ(0, mprotect(page, PAGE_64K, PROT_READ | PROT_WRITE));
		/* ... its content, by another page in its place ... */
		ASSERT_EQ(0, madvise(page, PAGE_64K, MADV_DONTNEED));
		store64(page, 4);
		EXPECT_EQ(4, seen(e, page));
		/* ... and that it is there. */
		ASSERT_EQ(0, munmap(page, PAGE_64K));
		EXPECT_EQ(V100_ENGINE_CAUSE_RADIX, engine_read64(e, ATS, ea(page), &value));
	}
}

/* Who writes to a page that a child has, too, gets a new one. */
TEST_F_TIMEOUT(watched, page_that_is_copied, LIMIT)
{
	unsigned int i;

	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct engine *e = &self->engine[i];
		__u64 *page = anonymous(PAGE_64K);
		int status, wait[2];
		pid_t child;
		char byte;

		ASSERT_EQ(0, pipe(wait));
		*page = 1;
		EXPECT_EQ(0, engine_write64(e, ATS, ea(page), 2));
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			close(wait[1]);
			_exit(read(wait[0], &byte, 1) || load64(page) != 2);
		}
		close(wait[0]);
		/* The page is read-only now, for the GPU as well. */
		EXPECT_EQ(V100_ENGINE_CAUSE_PERMISSION, engine_write64(e, ATS, ea(page), 3));
		EXPECT_EQ(2, seen(e, page));
		store64(page, 4);
		EXPECT_EQ(4, seen(e, page));
		close(wait[1]);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_EQ(0, status);
		munmap(page, PAGE_64K);
	}
}

/* Nobody reaches memory of a process that has ended. */
TEST_F_TIMEOUT(watched, process_that_ends, LIMIT)
{
	unsigned int i;

	for (i = 0; i < self->nv.num_gpus; i++) {
		struct engine e = self->engine[i];
		int status, wait[2], tell[2];
		struct { __u32 pasid; __u64 address; } what = { 0, 0 };
		pid_t child;
		__u64 value;

		ASSERT_EQ(0, pipe(wait));
		ASSERT_EQ(0, pipe(tell));
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			int file = open(NVLINK_GUEST_DEVICE, O_RDWR | O_CLOEXEC);
			__u64 *page = anonymous(PAGE_64K);

			close(wait[1]);
			*page = 5;
			what.address = ea(page);
			if (ioctl(file, NVLINK_GUEST_WATCH, &what.pasid) ||
			    write(tell[1], &what, sizeof(what)) != sizeof(what))
				_exit(1);
			_exit(read(wait[0], &what, 1));
		}
		close(wait[0]);
		close(tell[1]);
		ASSERT_EQ(sizeof(what), read(tell[0], &what, sizeof(what)));
		close(tell[0]);
		EXPECT_NE(e.pasid, what.pasid);
		e.pasid = what.pasid;
		EXPECT_EQ(0, engine_read64(&e, ATS, what.address, &value));
		EXPECT_EQ(5, value);
		close(wait[1]);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_EQ(0, status);
		EXPECT_NE(0, engine_read64(&e, ATS, what.address, &value));
	}
}

/* Memory of the process that is in the RAM of a GPU, by addresses of the process. */
TEST_F_TIMEOUT(watched, memory_in_gpu_ram, LIMIT)
{
	unsigned int i, j, n;
	__u64 block_size;
	char block[96];

	ASSERT_EQ(0, numa_block_size(&block_size));
	for (i = 0; i < self->nv.num_gpus; i++) {
		const struct nvlink_gpu *gpu = &self->nv.gpu[i];
		const __u64 start = gpu->ram + OFFSET;
		__u64 *memory, address;
		__u32 node;

		ASSERT_EQ(0, numa_node(gpu, &node));
		ASSERT_EQ(0, numa_online(start, block, sizeof(block)));
		memory = numa_memory(node, PAGES * PAGE_64K);
		ASSERT_NE(NULL, memory)
			TH_LOG("node %u: %s", node, strerror(errno));
		for (n = 0; n < PAGES; n++) {
			__u64 *word = memory + n * PAGE_64K / sizeof(*word);

			store64(word, pattern(n, i));
			ASSERT_EQ(0, physical_address(word, &address));
			ASSERT_LE(start, address);
			ASSERT_GT(start + block_size, address);
			/* All GPUs of the guest reach it, each by its own links. */
			for (j = 0; j < self->nv.num_gpus; j++) {
				const struct engine *e = &self->engine[j];

				EXPECT_EQ(pattern(n, i), seen(e, word));
				EXPECT_EQ(0, engine_write64(e, ATS, ea(word), ~pattern(n, i)));
				EXPECT_EQ(~pattern(n, i), load64(word));
				store64(word, pattern(n, i));
			}
		}
		munmap(memory, PAGES * PAGE_64K);
		ASSERT_EQ(0, numa_offline(block));
	}
}

TEST_HARNESS_MAIN
