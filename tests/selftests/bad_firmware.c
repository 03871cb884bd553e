// SPDX-License-Identifier: GPL-2.0
/*
 * Defects 2 and 19-21: a device tree in which one property per GPU is bad. The machine was booted
 * with "machine.py shim --mutate $MUTATIONS"; what the driver must make of each mutation is in
 * bad_firmware.tsv beside this program.
 *
 * Every function of a chip of a Redbud is looked at, also those that no mutation concerns: either
 * it works as if nothing had happened, without a message, or there is exactly one message that
 * names the function and the property, and it is a vfio-pci device without a region of ours.
 * Addresses are constants here, since the device tree is not to be trusted.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "dt.h"
#include "hardware.h"
#include "sys.h"
#include "vfio.h"

/* The columns: mutation, who, outcome, property, problem. */
#define ROW	"%95[^\t\n]\t%15[^\t\n]\t%15[^\t\n]\t%63[^\t\n]\t%63[^\t\n]"

#define NUM_GPUS	2
#define NUM_LINKS	3
/* A GPU and its bridges. */
#define NUM_ROLES	(1 + NUM_LINKS)

/* A register of each ATSD block that keeps what is written. */
#define ATSD_AVA	0x8

struct expectation {
	/* What a message has to name and to say; "" if there must be none. */
	char property[64], problem[64];
	/* The function has no region of the driver's own. */
	bool plain;
	/* Its region is the one of another link of its GPU. */
	bool shared;
	/* Why it cannot be opened for a virtual machine, 0 if it can. */
	int refused;
};

/* As long as nothing is entered, a function has to work. */
static struct expectation expected[NUM_GPUS][NUM_ROLES];

/* Role 0 is the GPU, the others its bridges. */
static void bdf_of(unsigned int gpu, unsigned int role, char bdf[BDF_LEN])
{
	if (!role)
		snprintf(bdf, BDF_LEN, "0004:%02x:00.0", 4 + gpu);
	else
		snprintf(bdf, BDF_LEN, "0006:00:%02x.%u", gpu, role - 1);
}

/*
 * Whether @who of a row means a function, given the GPU and the link of it that was mutated; the
 * words are explained in bad_firmware.tsv. -EINVAL if there is no such word.
 */
static int concerns(const char *who, unsigned int gpu, unsigned int link, unsigned int g,
		    unsigned int role)
{
	const bool first = !g && role == 1;

	if (!strcmp(who, "gpu"))
		return g == gpu && !role;
	if (!strcmp(who, "link"))
		return g == gpu && role == 1 + link;
	if (!strcmp(who, "other"))
		return g == gpu && role && role != 1 + link;
	if (!strcmp(who, "links"))
		return g == gpu && role;
	if (!strcmp(who, "above"))
		return g + 1 == gpu;
	if (!strcmp(who, "higher"))
		return g < gpu;
	if (!strcmp(who, "neighbour"))
		return g == (gpu ? gpu - 1 : 1);
	if (!strcmp(who, "every-gpu"))
		return !role;
	if (!strcmp(who, "every-link"))
		return !!role;
	if (!strcmp(who, "first-link"))
		return first;
	if (!strcmp(who, "later-links"))
		return role && !first;
	return -EINVAL;
}

/* Enters a row of the table. */
static int expect(const char *who, unsigned int gpu, unsigned int link,
		  const struct expectation *e)
{
	unsigned int g, role;
	int ret;

	for (g = 0; g < NUM_GPUS; g++) {
		for (role = 0; role < NUM_ROLES; role++) {
			ret = concerns(who, gpu, link, g, role);
			if (ret < 0)
				return ret;
			if (ret)
				expected[g][role] = *e;
		}
	}
	return 0;
}

/* All rows of the table for one mutation, "<device><number>-<property>-<defect>". */
static int look_up(const char *mutation)
{
	char path[PATH_MAX], line[512], device[16], defect[64], kind[96];
	char who[16], outcome[16];
	unsigned int number, gpu, link = 0;
	struct expectation e;
	int rows = 0;
	FILE *table;

	if (sscanf(mutation, "%15[a-z]%u-%63s", device, &number, defect) != 3 ||
	    sys_beside("bad_firmware.tsv", path, sizeof(path)))
		return -EINVAL;
	snprintf(kind, sizeof(kind), "%s-%s", device, defect);
	gpu = number;
	if (!strcmp(device, "bridge")) {
		gpu = number / NUM_LINKS;
		link = number % NUM_LINKS;
	}
	table = fopen(path, "re");
	if (!table)
		return -errno;
	while (fgets(line, sizeof(line), table)) {
		char name[96];

		memset(&e, 0, sizeof(e));
		if (sscanf(line, ROW, name, who, outcome, e.property, e.problem) < 3 ||
		    strcmp(name, kind))
			continue;
		rows++;
		e.plain = !strcmp(outcome, "plain");
		e.shared = !strcmp(outcome, "shared");
		e.refused = strcmp(outcome, "no-lpar") ? 0 : -ENXIO;
		if ((!e.plain && !e.shared && !e.refused && strcmp(outcome, "region")) ||
		    expect(who, gpu, link, &e)) {
			rows = -EINVAL;
			break;
		}
	}
	fclose(table);
	return rows ?: -ENOENT;
}

FIXTURE(firmware)
{
	int log, splats;
};

FIXTURE_SETUP(firmware)
{
	const char *names = getenv("MUTATIONS");
	char copy[1024], *name;

	ASSERT_TRUE(names && *names)
		TH_LOG("MUTATIONS does not say what this machine was booted with");
	snprintf(copy, sizeof(copy), "%s", names);
	for (name = strtok(copy, ","); name; name = strtok(NULL, ",")) {
		ASSERT_LT(0, look_up(name))
			TH_LOG("%s is not in bad_firmware.tsv", name);
	}
	if (module_loaded()) {
		ASSERT_EQ(0, module_unload())
			TH_LOG("%s", strerror(errno));
	}
	self->log = kmsg_open();
	self->splats = kmsg_open();
	ASSERT_LE(0, self->log);
	ASSERT_LE(0, self->splats);
}

FIXTURE_TEARDOWN(firmware)
{
	EXPECT_EQ(0, kmsg_splats(self->splats));
	close(self->splats);
	close(self->log);
}

/* Warnings and errors (levels 0 to 4) of the driver, as "<function>: <text>" one per line. */
static void read_complaints(int fd, char *all, size_t size)
{
	const char *prefix = DRIVER " ";
	char record[8192], *text;
	size_t len = 0;
	ssize_t n;

	all[0] = '\0';
	while ((n = read(fd, record, sizeof(record) - 1)) > 0) {
		record[n] = '\0';
		text = strchr(record, ';');
		if (!text || (atoi(record) & 7) > 4 || strncmp(text + 1, prefix, strlen(prefix)))
			continue;
		text += 1 + strlen(prefix);
		text[strcspn(text, "\n")] = '\0';
		fprintf(stderr, "# %s\n", text);
		if (len < size)
			len += snprintf(all + len, size - len, "%s\n", text);
	}
	/* What was lost may be what nobody must have said. */
	if (n < 0 && errno != EAGAIN && len < size)
		snprintf(all + len, size - len, "reading the kernel log: %s\n", strerror(errno));
}

/* Lines about @bdf; @good of them name the property and what is wrong with it. */
static int count_complaints(const char *all, const char *bdf, const struct expectation *e,
			    int *good)
{
	const char *line, *end;
	int count = 0;

	*good = 0;
	for (line = all; *line; line = end + 1) {
		end = strchr(line, '\n');
		if (strncmp(line, bdf, strlen(bdf)))
			continue;
		count++;
		if (memmem(line, end - line, e->property, strlen(e->property)) &&
		    memmem(line, end - line, e->problem, strlen(e->problem)))
			(*good)++;
	}
	return count;
}

/* Opening the function for a virtual machine fails, and says so in one line. */
static void check_refusal(struct __test_metadata *_metadata, int log, const char *bdf, int error)
{
	const struct expectation not_bound = { .property = "LPID", .problem = "not bound" };
	struct vfio_group group;
	char all[8192];
	int good, ret;

	ret = vfio_group_open(&group, pci_iommu_group(bdf), true);
	ASSERT_EQ(0, ret)
		TH_LOG("opening the group of %s: %s", bdf, strerror(-ret));
	EXPECT_EQ(error, vfio_device_open(&group, bdf))
		TH_LOG("opening %s", bdf);
	vfio_group_close(&group);
	read_complaints(log, all, sizeof(all));
	EXPECT_EQ(1, count_complaints(all, bdf, &not_bound, &good) ?:
		  count_complaints(all, "", &not_bound, &good));
	EXPECT_EQ(1, good);
}

/* Of the links of a GPU, the first with ATSD registers of its own; 0 if none has. */
static unsigned int first_with_registers(unsigned int gpu)
{
	unsigned int role;

	for (role = 1; role < NUM_ROLES; role++) {
		const struct expectation *e = &expected[gpu][role];

		if (!e->plain && !e->shared && !e->refused)
			return role;
	}
	return 0;
}

/* What one bridge of a GPU writes to its register arrives at that of the one whose it is. */
static void check_shared(struct __test_metadata *_metadata, const struct vfio_group *group,
			 int dev, unsigned int gpu)
{
	const __u64 ava = 0x0000c0de00010000 + gpu;
	struct vfio_region_info *info[2];
	char bdf[BDF_LEN];
	__u64 seen = 0;
	int other;

	ASSERT_NE(0U, first_with_registers(gpu));
	bdf_of(gpu, first_with_registers(gpu), bdf);
	other = vfio_device_open(group, bdf);
	ASSERT_LE(0, other)
		TH_LOG("opening %s: %s", bdf, strerror(-other));
	ASSERT_EQ(0, vfio_find_atsd(dev, &info[0]));
	ASSERT_EQ(0, vfio_find_atsd(other, &info[1]));
	EXPECT_EQ(8, pwrite(dev, &ava, 8, info[0]->offset + ATSD_AVA));
	EXPECT_EQ(8, pread(other, &seen, 8, info[1]->offset + ATSD_AVA));
	EXPECT_EQ(ava, seen);
	free(info[0]);
	free(info[1]);
	close(other);
}

/* The kernel may have left a GPU with a bad tree in a group of its own. */
static void check(struct __test_metadata *_metadata, int log, const char *all, unsigned int gpu,
		  unsigned int role)
{
	const struct expectation *e = &expected[gpu][role];
	struct vfio_region_info *info;
	int good, count, dev, ret;
	struct vfio_group group;
	char bdf[BDF_LEN];

	bdf_of(gpu, role, bdf);
	count = count_complaints(all, bdf, e, &good);
	EXPECT_EQ(e->property[0] ? 1 : 0, count)
		TH_LOG("%s: %d messages", bdf, count);
	EXPECT_EQ(count, good)
		TH_LOG("%s: no message names %s and says \"%s\"", bdf, e->property, e->problem);

	if (e->refused)
		check_refusal(_metadata, log, bdf, e->refused);
	ret = vfio_group_open(&group, pci_iommu_group(bdf), !e->refused);
	ASSERT_EQ(0, ret)
		TH_LOG("opening the group of %s: %s", bdf, strerror(-ret));
	dev = vfio_device_open(&group, bdf);
	ASSERT_LE(0, dev)
		TH_LOG("opening %s: %s", bdf, strerror(-dev));
	ret = vfio_region(dev, REGION_FIRST_OWN, &info);
	/* Without a virtual machine a bridge has none. */
	EXPECT_EQ(e->plain || (e->refused && role) ? -EINVAL : 0, ret)
		TH_LOG("%s: region %d: %d", bdf, REGION_FIRST_OWN, ret);
	/* Defect 2: what has no region has nothing to map. */
	if (ret) {
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_64K, PROT_READ | PROT_WRITE, MAP_SHARED, dev,
					   REGION_OFFSET(REGION_FIRST_OWN)));
		EXPECT_EQ(EINVAL, errno);
	} else {
		free(info);
	}
	if (e->shared)
		check_shared(_metadata, &group, dev, gpu);
	close(dev);
	vfio_group_close(&group);
}

TEST_F_TIMEOUT(firmware, defect_19_one_clear_message_and_no_harm, 120)
{
	char all[8192], later[1024], bdf[BDF_LEN];
	unsigned int i, role;

	ASSERT_EQ(0, module_load());
	for (i = 0; i < NUM_GPUS; i++) {
		for (role = 0; role < NUM_ROLES; role++) {
			bdf_of(i, role, bdf);
			ASSERT_EQ(0, driver_bind(bdf, DRIVER))
				TH_LOG("%s", bdf);
		}
	}
	read_complaints(self->log, all, sizeof(all));

	for (i = 0; i < NUM_GPUS; i++) {
		for (role = 0; role < NUM_ROLES; role++) {
			struct expectation *e = &expected[i][role];

			/* A bridge is bound with its GPU, or not at all. */
			if (role && !e->plain && expected[i][0].plain)
				e->refused = -ENODEV;
			check(_metadata, self->log, all, i, role);
		}
	}

	/* Said once, not at every open. */
	read_complaints(self->log, later, sizeof(later));
	EXPECT_STREQ("", later);
}

TEST_HARNESS_MAIN
