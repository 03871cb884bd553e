// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "counts.h"
#include "sys.h"

#define SLAB "/sys/kernel/slab"

/*
 * The files of a cache that shrink it and say its objects in use. They stay open, as opening them
 * makes the objects that are to be counted.
 */
static struct {
	char name[64];
	int shrink, objects;
} caches[COUNTS_CACHES];
static unsigned int num_caches;

static int open_file_of(const char *cache, const char *file, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), SLAB "/%s/%s", cache, file);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int add_cache(const char *name)
{
	int shrink, objects;
	unsigned int i;

	for (i = 0; i < num_caches; i++) {
		if (!strcmp(caches[i].name, name))
			return 0;
	}
	if (num_caches == COUNTS_CACHES)
		return -ENOSPC;
	shrink = open_file_of(name, "shrink", O_WRONLY);
	objects = open_file_of(name, "objects", O_RDONLY);
	if (shrink < 0 || objects < 0) {
		/* At worst the other is -1, which is no file. */
		close(shrink);
		close(objects);
		return shrink < 0 ? shrink : objects;
	}
	snprintf(caches[i].name, sizeof(caches[i].name), "%s", name);
	caches[i].shrink = shrink;
	caches[i].objects = objects;
	num_caches++;
	return 0;
}

/*
 * vfree() frees the pages, which are counted, but leaves the area to be unmapped later, together
 * with thousands of others. kmemleak has objects for each area, as it has for all that is counted
 * in other caches.
 */
static bool is_lazy(const char *name)
{
	return !strcmp(name, "vmap_area") || !strncmp(name, "kmemleak_", strlen("kmemleak_"));
}

/* Caches come with modules. Of those that were merged, one name is found. */
static int find_caches(void)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	char line[512], name[64];
	long objects;
	int ret = 0;

	if (!f)
		return -errno;
	while (!ret && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", name, &objects) == 2 && !is_lazy(name))
			ret = add_cache(name);
	}
	fclose(f);
	return ret ?: num_caches ? 0 : -ENODATA;
}

/* nr_free_pages of all zones and what is on the lists of their processors. */
static int free_pages(long *pages)
{
	FILE *f = fopen("/proc/zoneinfo", "re");
	char line[256];
	long n;

	if (!f)
		return -errno;
	*pages = 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " pages free %ld", &n) == 1 ||
		    sscanf(line, " count: %ld", &n) == 1)
			*pages += n;
	}
	fclose(f);
	return *pages ? 0 : -ENODATA;
}

/* Where a cache is, @c->num_caches if it is nowhere. */
static unsigned int cache_of(const struct counts *c, const char *name)
{
	unsigned int i = 0;

	while (i < c->num_caches && strcmp(c->cache[i].name, name))
		i++;
	return i;
}

/* Lowers what is known of a cache to @objects. */
static int lower(struct counts *c, const char *name, long objects)
{
	unsigned int i = cache_of(c, name);

	if (i == COUNTS_CACHES)
		return -ENOSPC;
	if (i == c->num_caches) {
		snprintf(c->cache[i].name, sizeof(c->cache[i].name), "%.63s", name);
		c->cache[i].objects = objects;
		c->num_caches++;
	}
	if (objects < c->cache[i].objects)
		c->cache[i].objects = objects;
	return 0;
}

/*
 * Each is shrunk just before it is read: an allocation by whoever runs takes a whole sheaf of
 * objects (60 of the smallest) to a processor, and all of them count as in use.
 */
static int slabs(struct counts *c)
{
	char text[64], *end;
	unsigned int i;
	long objects;
	int ret = 0;

	for (i = 0; !ret && i < num_caches; i++) {
		ssize_t length;

		pwrite(caches[i].shrink, "1", 1, 0);
		length = pread(caches[i].objects, text, sizeof(text) - 1, 0);
		/* A cache that has gone with its module has no objects. */
		if (length <= 0)
			continue;
		text[length] = 0;
		objects = strtol(text, &end, 10);
		ret = end != text ? lower(c, caches[i].name, objects) : -EIO;
	}
	return ret;
}

int counts_take(struct counts *c)
{
	int i, j, ret = find_caches();
	long pages;

	c->num_caches = 0;
	c->free_pages = 0;
	for (i = 0; !ret && i < 5; i++) {
		/* What was used since the last time is only marked as unused by the first. */
		for (j = 0; !ret && j < 5; j++)
			ret = sys_write("/proc/sys/vm/drop_caches", "3");
		/* Longer than a grace period, and than what the module tries again by itself. */
		sleep(2);
		ret = ret ?: slabs(c);
		ret = ret ?: free_pages(&pages);
		if (!ret && pages > c->free_pages)
			c->free_pages = pages;
	}
	return ret;
}

unsigned int counts_grown(const struct counts *before, struct counts *after, long objects,
			  long pages)
{
	long grown = before->free_pages - after->free_pages;
	unsigned int i, at, most;

	after->pages_grew = grown >= pages ? before->pages_grew + 1 : 0;
	most = after->pages_grew;
	if (most)
		printf("# %ld pages are gone, %ld were free\n", grown, before->free_pages);
	for (i = 0; i < after->num_caches; i++) {
		at = cache_of(before, after->cache[i].name);
		/* What is not there comes with a module, and is not in use then. */
		grown = after->cache[i].objects -
			(at < before->num_caches ? before->cache[at].objects : 0);
		after->cache[i].grew = 0;
		if (grown < objects)
			continue;
		after->cache[i].grew = 1 + (at < before->num_caches ? before->cache[at].grew : 0);
		if (after->cache[i].grew > most)
			most = after->cache[i].grew;
		printf("# %s: %ld objects more, %ld in all\n", after->cache[i].name, grown,
		       after->cache[i].objects);
	}
	return most;
}
