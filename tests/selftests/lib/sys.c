// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

#define INSTANCES "/sys/kernel/tracing/instances/"

ssize_t sys_read(const char *path, char *buf, size_t size)
{
	ssize_t done = 0, n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while ((size_t)done < size - 1) {
		n = read(fd, buf + done, size - 1 - done);
		if (n < 0) {
			n = -errno;
			close(fd);
			return n;
		}
		if (!n)
			break;
		done += n;
	}
	close(fd);
	if (done && buf[done - 1] == '\n')
		done--;
	buf[done] = '\0';
	return done;
}

int sys_read_u64(const char *path, __u64 *value)
{
	char buf[64], *end;
	ssize_t n = sys_read(path, buf, sizeof(buf));

	if (n < 0)
		return n;
	errno = 0;
	*value = strtoull(buf, &end, 0);
	if (end == buf || errno)
		return -EINVAL;
	return 0;
}

int sys_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;
	int ret = 0;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	if (n < 0)
		ret = -errno;
	else if ((size_t)n != strlen(text))
		ret = -EIO;
	close(fd);
	return ret;
}

bool sys_exists(const char *path)
{
	return !access(path, F_OK);
}

int sys_beside(const char *name, char *path, size_t size)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return -errno;
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	return (size_t)snprintf(path, size, "%s/%s", self, name) < size ? 0 : -ENAMETOOLONG;
}

int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (lseek(fd, 0, SEEK_END) < 0) {
		close(fd);
		return -EIO;
	}
	return fd;
}

/*
 * Next record, without its prefix; 0 at the end. A record lost to overflow is an error: it
 * may be the one looked for.
 */
static int kmsg_next(int fd, char *buf, size_t size, char **text)
{
	ssize_t n = read(fd, buf, size - 1);

	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	buf[n] = '\0';
	*text = strchr(buf, ';');
	*text = *text ? *text + 1 : buf;
	return 1;
}

int kmsg_count(int fd, const char *needle)
{
	char buf[8192], *text = NULL;
	int count = 0, ret;

	while ((ret = kmsg_next(fd, buf, sizeof(buf), &text)) > 0) {
		if (strstr(text, needle))
			count++;
	}
	return ret < 0 ? ret : count;
}

/* What splats.txt says, once it was read. */
static struct {
	unsigned int count;
	char line[64][64];
} splats;

/* 0 or a negative errno, and why on standard error. */
static int read_splats(void)
{
	char path[PATH_MAX], line[sizeof(splats.line[0])];
	int ret = sys_beside("splats.txt", path, sizeof(path));
	FILE *f;

	if (splats.count || ret)
		return ret;
	f = fopen(path, "re");
	if (!f) {
		ret = -errno;
		fprintf(stderr, "# %s: %s. It says what a splat is, and has to be there\n", path,
			strerror(-ret));
		return ret;
	}
	while (fgets(line, sizeof(line), f) && splats.count < ARRAY_SIZE(splats.line)) {
		line[strcspn(line, "\n")] = '\0';
		/* An empty string is in every line. */
		if (*line)
			memcpy(splats.line[splats.count++], line, sizeof(line));
	}
	if (!feof(f) || !splats.count) {
		fprintf(stderr, "# %s: %s\n", path, splats.count ? "too long" : "empty");
		splats.count = 0;
		ret = -EINVAL;
	}
	fclose(f);
	return ret;
}

static bool has_any_of(const char *text, const char *const *needles)
{
	for (; needles && *needles; needles++) {
		if (strstr(text, *needles))
			return true;
	}
	return false;
}

const char *kmsg_own_line;

static bool is_splat(const char *text)
{
	unsigned int i;

	if (kmsg_own_line && strstr(text, kmsg_own_line))
		return false;
	for (i = 0; i < splats.count; i++) {
		if (strstr(text, splats.line[i]))
			return true;
	}
	return false;
}

int kmsg_splats(int fd)
{
	return kmsg_splats_but(fd, NULL);
}

int kmsg_splats_but(int fd, const char *const *known)
{
	static const char *const ends[] = { "Mem-Info:", "end trace", NULL };
	char buf[8192], *text = NULL;
	bool in_known = false;
	int count = 0, ret;

	ret = read_splats();
	if (ret)
		return ret;
	while ((ret = kmsg_next(fd, buf, sizeof(buf), &text)) > 0) {
		if (has_any_of(text, known))
			in_known = true;
		if (!in_known && is_splat(text)) {
			fprintf(stderr, "# kernel log: %s", text);
			count++;
		}
		if (has_any_of(text, ends))
			in_known = false;
	}
	if (ret < 0)
		fprintf(stderr, "# kernel log: %s: lines of it were lost\n", strerror(-ret));
	return ret < 0 ? ret : count;
}

int trace_start(const char *instance)
{
	char path[256];

	snprintf(path, sizeof(path), INSTANCES "%s", instance);
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	snprintf(path, sizeof(path), INSTANCES "%s/trace", instance);
	truncate(path, 0);
	snprintf(path, sizeof(path), INSTANCES "%s/events/nvlink2_vfio/enable", instance);
	return sys_write(path, "1");
}

void trace_stop(const char *instance)
{
	char path[256];

	snprintf(path, sizeof(path), INSTANCES "%s/events/nvlink2_vfio/enable", instance);
	sys_write(path, "0");
	snprintf(path, sizeof(path), INSTANCES "%s", instance);
	rmdir(path);
}

int trace_count(const char *instance, const char *event, const char *needle)
{
	char path[256], line[512], name[96];
	int count = 0;
	FILE *f;

	snprintf(path, sizeof(path), INSTANCES "%s/trace", instance);
	snprintf(name, sizeof(name), " %s: ", event);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || !strstr(line, name))
			continue;
		if (!needle || strstr(line, needle))
			count++;
	}
	fclose(f);
	return count;
}

static sigjmp_buf fault_env;

static void on_fault(int sig)
{
	siglongjmp(fault_env, sig);
}

/*
 * Both signals: a page that the fault handler refuses gives SIGBUS, one that is not mapped
 * at all SIGSEGV.
 */
static void catch_faults(struct sigaction *old_bus, struct sigaction *old_segv)
{
	struct sigaction sa = { .sa_handler = on_fault };

	sigaction(SIGBUS, &sa, old_bus);
	sigaction(SIGSEGV, &sa, old_segv);
}

static void restore_faults(const struct sigaction *old_bus, const struct sigaction *old_segv)
{
	sigaction(SIGBUS, old_bus, NULL);
	sigaction(SIGSEGV, old_segv, NULL);
}

int try_read64(const void *addr, __u64 *value)
{
	struct sigaction bus, segv;
	int sig;

	catch_faults(&bus, &segv);
	sig = sigsetjmp(fault_env, 1);
	if (!sig)
		*value = load64(addr);
	restore_faults(&bus, &segv);
	return sig;
}

int try_write64(void *addr, __u64 value)
{
	struct sigaction bus, segv;
	int sig;

	catch_faults(&bus, &segv);
	sig = sigsetjmp(fault_env, 1);
	if (!sig)
		store64(addr, value);
	restore_faults(&bus, &segv);
	return sig;
}

size_t host_page(void)
{
	return sysconf(_SC_PAGESIZE);
}

void *anonymous(size_t size)
{
	const size_t room = size + PAGE_64K - host_page();
	char *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t before = -(uintptr_t)p % PAGE_64K;

	if (p == MAP_FAILED)
		return NULL;
	if (before)
		munmap(p, before);
	if (room - before > size)
		munmap(p + before + size, room - before - size);
	return p + before;
}

void *reserve(size_t size, size_t alignment)
{
	char *p = mmap(NULL, size + alignment, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	return p + (alignment - (uintptr_t)p % alignment) % alignment;
}

const char *vma_missing_flag(const void *addr)
{
	static const char * const wanted[] = { "io", "pf", "dc", "de", "dd" };
	unsigned long start, end;
	bool inside = false;
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "re");
	const char *missing = "VmFlags";
	size_t i;

	if (!f)
		return "smaps";
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			inside = start == (unsigned long)addr;
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			missing = "";
			for (i = 0; i < ARRAY_SIZE(wanted); i++) {
				if (!strstr(line + 8, wanted[i]))
					missing = wanted[i];
			}
			break;
		}
	}
	fclose(f);
	return missing;
}
