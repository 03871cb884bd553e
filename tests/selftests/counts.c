// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "counts.h"
#include "sys.h"

#define SLAB "/sys/kernel/slab"

/*
 * The files that shrink a cache, by its name. They stay open, as opening them makes the objects
 * that are to be counted.
 */
static struct {
	char name[64];
	int fd;
} shrinkers[COUNTS_CACHES];
static unsigned int num_shrinkers;

static int add_shrinker(const char *name)
{
	char path[512];
	unsigned int i;

	for (i = 0; i < num_shrinkers; i++) {
		if (!strcmp(shrinkers[i].name, name))
			return 0;
	}
	if (num_shrinkers == COUNTS_CACHES)
		return -ENOSPC;
	snprintf(path, sizeof(path), SLAB "/%s/shrink", name);
	snprintf(shrinkers[i].name, sizeof(shrinkers[i].name), "%s", name);
	shrinkers[i].fd = open(path, O_WRONLY | O_CLOEXEC);
	if (shrinkers[i].fd < 0)
		return -errno;
	num_shrinkers++;
	return 0;
}

/* Caches come with modules; a file of one that has gone only fails. */
static int find_shrinkers(void)
{
	struct dirent *e;
	DIR *d = opendir(SLAB);
	int ret = 0;

	if (!d)
		return -errno;
	while (!ret && (e = readdir(d))) {
		if (e->d_name[0] != '.')
			ret = add_shrinker(e->d_name);
	}
	closedir(d);
	return ret;
}

/* Frees what the caches keep for the next allocation, so that objects in use are what is left. */
static void shrink_slabs(void)
{
	unsigned int i;

	for (i = 0; i < num_shrinkers; i++)
		pwrite(shrinkers[i].fd, "1", 1, 0);
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
		snprintf(c->cache[i].name, sizeof(c->cache[i].name), "%s", name);
		c->cache[i].objects = objects;
		c->num_caches++;
	}
	if (objects < c->cache[i].objects)
		c->cache[i].objects = objects;
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

static int slabs(struct counts *c)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	char line[512], name[64];
	long objects;
	int ret = 0;

	if (!f)
		return -errno;
	while (!ret && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", name, &objects) == 2 && !is_lazy(name))
			ret = lower(c, name, objects);
	}
	fclose(f);
	return ret ?: c->num_caches ? 0 : -ENODATA;
}

int counts_take(struct counts *c)
{
	int i, j, ret = find_shrinkers();
	long pages;

	c->num_caches = 0;
	c->free_pages = 0;
	/*
	 * An allocation by whoever runs takes a whole sheaf of objects (60 of the smallest) to a
	 * processor, and all of them count as in use. Hence the lowest of some readings.
	 */
	for (i = 0; !ret && i < 5; i++) {
		/* What was used since the last time is only marked as unused by the first. */
		for (j = 0; !ret && j < 5; j++)
			ret = sys_write("/proc/sys/vm/drop_caches", "3");
		/* Longer than a grace period, and than what the module tries again by itself. */
		sleep(2);
		shrink_slabs();
		ret = ret ?: slabs(c);
		ret = ret ?: free_pages(&pages);
		if (!ret && pages > c->free_pages)
			c->free_pages = pages;
	}
	return ret;
}

static long objects_of(const struct counts *c, const char *name)
{
	unsigned int i = cache_of(c, name);

	return i < c->num_caches ? c->cache[i].objects : 0;
}

unsigned int counts_grown(const struct counts *before, const struct counts *after, long limit)
{
	long grown = before->free_pages - after->free_pages;
	unsigned int i, count = 0;

	if (grown >= limit) {
		printf("# %ld pages are gone, %ld were free\n", grown, before->free_pages);
		count++;
	}
	for (i = 0; i < after->num_caches; i++) {
		grown = after->cache[i].objects - objects_of(before, after->cache[i].name);
		if (grown >= limit) {
			printf("# %s: %ld objects more, %ld in all\n", after->cache[i].name, grown,
			       after->cache[i].objects);
			count++;
		}
	}
	return count;
}
