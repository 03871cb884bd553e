/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every test needs of the running kernel: small files, the kernel log, the
 * trace buffer and memory accesses that may raise a signal.
 *
 * Functions that return int give 0 or a negative errno unless they say otherwise.
 */
#ifndef NVLINK2_SELFTEST_SYS_H
#define NVLINK2_SELFTEST_SYS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* One page or more, whatever the kernel's size of pages; the largest page of a TCE. */
#define PAGE_64K	0x10000UL
/* The size of a page of this kernel. */
size_t host_page(void);

/* As kselftest.h has it, for those who do not include that. */
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#endif

/*
 * Reads at most @size - 1 bytes, always terminates, strips one trailing newline. Returns the
 * length.
 */
ssize_t sys_read(const char *path, char *buf, size_t size);
int sys_write(const char *path, const char *text);
/* Like sys_read() for a file that holds one number, decimal or with 0x. */
int sys_read_u64(const char *path, __u64 *value);
bool sys_exists(const char *path);
/* The path of the file @name in the running program's folder. */
int sys_beside(const char *name, char *path, size_t size);

/*
 * The kernel log from a moment on. kmsg_open() starts at the next line;
 * kmsg_count() consumes what came since and counts the lines that hold @needle.
 */
int kmsg_open(void);
int kmsg_count(int fd, const char *needle);
/* Part of lines that a test causes on purpose and that read like a splat; NULL: there are none. */
extern const char *kmsg_own_line;
/*
 * Lines since kmsg_open() that hold one of the strings of splats.txt, which is beside the program.
 * Prints them. -ENOENT without that file, and -EPIPE if lines were lost: either is a failure.
 */
int kmsg_splats(int fd);
/*
 * The same, but for what begins with a line that holds one of @known (NULL: none; the last is NULL)
 * and ends with a warning's or a report of memory's last line.
 */
int kmsg_splats_but(int fd, const char *const *known);

/*
 * An own trace instance with the module's events on, so that tests do not disturb
 * anybody else's tracing.
 */
int trace_start(const char *instance);
void trace_stop(const char *instance);
/* Counts events named @event whose line holds @needle (NULL: any). */
int trace_count(const char *instance, const char *event, const char *needle);

/* One access; returns 0, or the number of the signal that it raised. */
int try_read64(const void *addr, __u64 *value);
int try_write64(void *addr, __u64 value);

/* One load or store of device memory, neither split nor left out by the compiler. */
static inline __u64 load64(const void *addr)
{
	return __atomic_load_n((const __u64 *)addr, __ATOMIC_RELAXED);
}

static inline void store64(void *addr, __u64 value)
{
	__atomic_store_n((__u64 *)addr, value, __ATOMIC_RELAXED);
}

/*
 * Whether the mapping that starts at @addr is marked as device memory that nobody copies,
 * dumps, grows or inherits: "" if its VmFlags line in /proc/self/smaps has io, pf, dc, de
 * and dd, else the name of one that is missing.
 */
const char *vma_missing_flag(const void *addr);

/* Ordinary memory of the process at a multiple of PAGE_64K, NULL on failure. */
void *anonymous(size_t size);

/* @size bytes of addresses behind a multiple of @alignment, with nothing there. NULL on failure. */
void *reserve(size_t size, size_t alignment);

/* Value that depends on the address, so that a page in the wrong place shows. */
static inline __u64 pattern(__u64 offset, __u64 seed)
{
	return (offset + 0x9e3779b97f4a7c15ULL) * (seed | 1) ^ offset << 17;
}

#endif
