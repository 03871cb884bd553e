// SPDX-License-Identifier: GPL-2.0
/*
 * How the tables of the host and of a guest map GPU RAM and ATSD registers. Of the former a
 * processor may have copies in its caches; access in another way is an error of the hardware. With
 * the latter it is the other way round. The emulator takes no notice, so the entries are looked at
 * in memory.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "engine.h"
#include "guest.h"
#include "qmp.h"
#include "sys.h"
#include "testbed.h"

#define KPTR	"/proc/sys/kernel/kptr_restrict"

/* Where the guest has what is looked at, behind its memory. */
#define GUEST_ADDRESS	0x40000000UL

/* Of an entry of a radix table, bits from the right as in a number. */
#define VALID		0x8000000000000000ULL
#define LEAF		0x4000000000000000ULL
#define NEXT		0x0fffffffffffff00ULL
#define NEXT_BITS	0x1fULL
#define RPN		0x01fffffffffff000ULL
#define ATTRIBUTES	0x30ULL
/* What the attributes are of normal memory, and of what has effects when it is read. */
#define CACHED		0x00ULL
#define NOT_IDEMPOTENT	0x20ULL

/* Of the partition table and of the process table: two words each. */
#define ENTRY_SIZE	16
#define TABLE_BASE	0x0ffffffffffff000ULL
/* Of an effective address what tables are looked up by. */
#define EFFECTIVE	0x000fffffffffffffULL

/* Numbers of processes of a host begin there, if guests have those below, or at 1. */
#define FIRST_PID	0x80000U
#define PIDS		512
#define PIDS_AT_ONCE	16

/* The word of the partition table for @lpid. */
static int partition_word(unsigned int lpid, unsigned int word, __u64 *value)
{
	char answer[64];
	__u64 ptcr;
	int ret = qmp_human("qom-get /machine/chip[0]/nmmu ptcr", answer, sizeof(answer));

	if (ret)
		return ret;
	ptcr = strtoull(answer, NULL, 10);
	return phys_read_be64((ptcr & TABLE_BASE) + lpid * ENTRY_SIZE + word * 8, value);
}

/* The entry for @address in the tree with the root @root, which says how many bits it looks at. */
static int leaf(__u64 root, __u64 address, __u64 *pte)
{
	/* The root's word has the size of the tree in two parts. */
	unsigned int shift = ((root >> 61 & 3) << 3 | (root >> 5 & 7)) + 31;
	__u64 entry = root;
	unsigned int level;
	int ret;

	for (level = 0; level < 5; level++) {
		const unsigned int bits = entry & NEXT_BITS;

		if (bits > shift)
			return -EPROTO;
		shift -= bits;
		ret = phys_read_be64((entry & NEXT) +
				     8 * (address >> shift & ((1ULL << bits) - 1)), &entry);
		if (ret)
			return ret;
		if (!(entry & VALID))
			return -ENOENT;
		if (entry & LEAF) {
			*pte = entry;
			return 0;
		}
	}
	return -EPROTO;
}

static int process_root(unsigned int pid, __u64 *root)
{
	__u64 table;
	int ret = partition_word(0, 1, &table);

	return ret ?: phys_read_be64((table & TABLE_BASE) + pid * ENTRY_SIZE, root);
}

/* The root of this process's tree: the one that has @page, which is touched, where it is. */
static int own_root(const void *page, __u64 *root)
{
	const unsigned int first[] = { FIRST_PID, 1 };
	__u64 pa, pte;
	__u64 table, entries[PIDS_AT_ONCE][2];
	unsigned int i, n, k;

	if (physical_address(page, &pa) || partition_word(0, 1, &table))
		return -ENOENT;
	table &= TABLE_BASE;
	for (i = 0; i < ARRAY_SIZE(first); i++) {
		for (n = 0; n < PIDS; n += PIDS_AT_ONCE) {
			if (phys_read_be64s(table + (first[i] + n) * ENTRY_SIZE, entries[0],
					    2 * PIDS_AT_ONCE))
				return -EIO;
			for (k = 0; k < PIDS_AT_ONCE; k++) {
				*root = entries[k][0];
				if (*root && !leaf(*root, (__u64)page & EFFECTIVE, &pte) &&
				    (pte & RPN & ~(PAGE_64K - 1)) == (pa & ~(PAGE_64K - 1)))
					return 0;
			}
		}
	}
	return -ENOENT;
}

FIXTURE(tables)
{
	struct testbed tb;
	struct guest guest;
	int bridge;
	struct vfio_region_info *atsd;
	/* Both mapped and touched: an aligned part of GPU RAM, and ATSD registers. */
	char *ram;
	char *registers;
	__u64 root;
};

FIXTURE_SETUP(tables)
{
	char *page;

	ASSERT_EQ(0, testbed_open(&self->tb, 0, true))
		TH_LOG("%s", self->tb.why);
	self->bridge = vfio_device_open(&self->tb.group, self->tb.gpu->link[0].bdf);
	ASSERT_LE(0, self->bridge);
	ASSERT_EQ(0, vfio_find_atsd(self->bridge, &self->atsd));
	ASSERT_EQ(0, model_train(&self->tb.model));
	self->ram = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);
	ASSERT_NE(NULL, self->ram);
	ASSERT_EQ(0, try_write64(self->ram, 1));
	self->registers = vfio_map(self->bridge, self->atsd, 0, PAGE_64K);
	ASSERT_NE(NULL, self->registers);
	(void)load64(self->registers);
	page = anonymous(PAGE_64K);
	ASSERT_NE(NULL, page);
	ASSERT_EQ(0, mlock(page, PAGE_64K));
	ASSERT_EQ(0, own_root(page, &self->root))
		TH_LOG("no process has the tables of this one");
}

FIXTURE_TEARDOWN(tables)
{
	munmap(self->registers, PAGE_64K);
	munmap(self->ram, PAGE_64K);
	free(self->atsd);
	close(self->bridge);
	EXPECT_EQ(0, testbed_close(&self->tb));
}

TEST_F(tables, of_the_user)
{
	__u64 pte;

	ASSERT_EQ(0, leaf(self->root, (__u64)self->ram & EFFECTIVE, &pte));
	EXPECT_EQ(self->tb.gpu->aperture, pte & RPN);
	EXPECT_EQ(CACHED, pte & ATTRIBUTES);
	ASSERT_EQ(0, leaf(self->root, (__u64)self->registers & EFFECTIVE, &pte));
	EXPECT_EQ(self->tb.gpu->link[0].atsd & ~(PAGE_64K - 1), pte & RPN);
	EXPECT_EQ(NOT_IDEMPOTENT, pte & ATTRIBUTES);
}

/* Where the kernel has mapped the physical address @pa, 0 if it has not. */
static __u64 kernel_address(__u64 pa)
{
	FILE *f = fopen("/proc/vmallocinfo", "re");
	char wanted[32], line[512];
	__u64 address = 0;

	if (!f)
		return 0;
	snprintf(wanted, sizeof(wanted), "phys=0x%016lx", (unsigned long)pa);
	while (!address && fgets(line, sizeof(line), f)) {
		if (strstr(line, wanted))
			address = strtoull(line, NULL, 16);
	}
	fclose(f);
	return address;
}

TEST_F(tables, of_the_kernel)
{
	__u64 root, pte, value, address;

	ASSERT_EQ(8, pread(self->tb.dev, &value, 8, self->tb.ram->offset));
	/* Or addresses are not what they are. */
	ASSERT_EQ(0, sys_write(KPTR, "1"));
	address = kernel_address(self->tb.gpu->aperture);
	EXPECT_EQ(0, sys_write(KPTR, "0"));
	ASSERT_NE(0, address);
	ASSERT_EQ(0, process_root(0, &root));
	ASSERT_EQ(0, leaf(root, address & EFFECTIVE, &pte));
	EXPECT_EQ(self->tb.gpu->aperture, pte & RPN);
	EXPECT_EQ(CACHED, pte & ATTRIBUTES);
}

/* The LPID of the machine that the GPU is bound to. */
static unsigned int lpid(const struct testbed *tb)
{
	char path[128], text[64];

	snprintf(path, sizeof(path), DEBUGFS "/%s/lpar", tb->gpu->bdf);
	return sys_read(path, text, sizeof(text)) < 0 ? 0 : strtoul(text, NULL, 0);
}

TEST_F(tables, of_a_guest)
{
	const int vm = self->tb.group.vm;
	const unsigned int id = lpid(&self->tb);
	__u64 root, pte;

	ASSERT_NE(0, id);
	ASSERT_EQ(0, guest_create(&self->guest, vm, 1));
	ASSERT_EQ(0, guest_set_memory(vm, GUEST_ADDRESS, self->ram, PAGE_64K));
	ASSERT_EQ(0, guest_walk(&self->guest, GUEST_ADDRESS, 8, 1));
	ASSERT_EQ(0, partition_word(id, 0, &root));
	ASSERT_EQ(0, leaf(root, GUEST_ADDRESS, &pte));
	EXPECT_EQ(self->tb.gpu->aperture, pte & RPN);
	EXPECT_EQ(CACHED, pte & ATTRIBUTES);

	ASSERT_EQ(0, guest_set_memory(vm, GUEST_ADDRESS, self->ram, 0));
	ASSERT_EQ(0, guest_set_memory(vm, GUEST_ADDRESS, self->registers, PAGE_64K));
	ASSERT_EQ(0, guest_walk(&self->guest, GUEST_ADDRESS, 8, 1));
	ASSERT_EQ(0, leaf(root, GUEST_ADDRESS, &pte));
	EXPECT_EQ(self->tb.gpu->link[0].atsd & ~(PAGE_64K - 1), pte & RPN);
	EXPECT_EQ(NOT_IDEMPOTENT, pte & ATTRIBUTES);
	ASSERT_EQ(0, guest_set_memory(vm, GUEST_ADDRESS, self->registers, 0));
	guest_destroy(&self->guest);
}

TEST_HARNESS_MAIN
