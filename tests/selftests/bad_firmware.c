// SPDX-License-Identifier: GPL-2.0
/*
 * Defects 19-21: a device tree with one bad property. Boots of mutated trees are somebody else's business; this test
 * is told which mutation the machine runs with and what is expected, by environment variables:
 *
 *   MUTATION  its name, for messages
 *   DEVICE    the function (BDF) that has to be named in the message
 *   PROPERTY  the property that has to be named in it
 *   MESSAGE   a part of the message, optional
 *   OUTCOME   "plain": the function binds and shows no region of the driver's own; "unbound": it does not bind;
 *             "works": the mutation does no harm, and there is no message
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"

#include "bind.h"
#include "sys.h"
#include "vfio.h"
#include "dt.h"

FIXTURE(mutation)
{
	const char *name, *device, *property, *message, *outcome;
};

static const char *required(const char *name)
{
	const char *value = getenv(name);

	if (!value || !*value) {
		fprintf(stderr, "# %s is not set\n", name);
		exit(KSFT_FAIL);
	}
	return value;
}

FIXTURE_SETUP(mutation)
{
	self->name = required("MUTATION");
	self->device = required("DEVICE");
	self->outcome = required("OUTCOME");
	self->property = strcmp(self->outcome, "works") ? required("PROPERTY") : "";
	self->message = getenv("MESSAGE") ?: "";
	ASSERT_TRUE(!strcmp(self->outcome, "plain") || !strcmp(self->outcome, "unbound") ||
		    !strcmp(self->outcome, "works"))
		TH_LOG("OUTCOME %s", self->outcome);
}

FIXTURE_TEARDOWN(mutation)
{
}

/* Records of the driver about @device since the log was opened; @good of them name @property and hold @message. */
static int messages(int fd, const char *device, const char *property, const char *message, int *good)
{
	char buf[8192], *text;
	int count = 0;
	ssize_t n;

	*good = 0;
	while ((n = read(fd, buf, sizeof(buf) - 1)) > 0) {
		buf[n] = '\0';
		text = strchr(buf, ';');
		text = text ? text + 1 : buf;
		if (!strstr(text, DRIVER " ") || !strstr(text, device))
			continue;
		text[strcspn(text, "\n")] = '\0';
		fprintf(stderr, "# %s\n", text);
		count++;
		if (strstr(text, property) && strstr(text, message))
			(*good)++;
	}
	return count;
}

TEST_F_TIMEOUT(mutation, one_clear_message_and_no_harm, 60)
{
	int log, splats, ret, count, good, dev;
	struct vfio_region_info *info;
	struct vfio_group group;

	if (module_loaded())
		ASSERT_EQ(0, module_unload());
	log = kmsg_open();
	splats = kmsg_open();
	ASSERT_LE(0, log);
	ASSERT_LE(0, splats);

	ASSERT_EQ(0, driver_unbind(self->device));
	ASSERT_EQ(0, module_load());
	ret = driver_bind(self->device, DRIVER);
	count = messages(log, self->device, self->property, self->message, &good);

	if (!strcmp(self->outcome, "works")) {
		EXPECT_EQ(0, ret);
		EXPECT_EQ(0, count);
	} else {
		EXPECT_EQ(1, count)
			TH_LOG("%s: %d messages about %s", self->name, count, self->device);
		EXPECT_EQ(1, good)
			TH_LOG("%s: none names %s \"%s\"", self->name, self->property, self->message);
	}

	if (!strcmp(self->outcome, "unbound")) {
		EXPECT_NE(0, ret);
		EXPECT_TRUE(driver_is(self->device, ""));
		/* Still good for what it is without NVLink2. */
		EXPECT_EQ(0, driver_bind(self->device, "vfio-pci"));
	} else {
		EXPECT_EQ(0, ret);
	}

	ret = vfio_group_open(&group, pci_iommu_group(self->device), true);
	ASSERT_EQ(0, ret)
		TH_LOG("opening the group of %s: %s", self->device, strerror(-ret));
	dev = vfio_device_open(&group, self->device);
	ASSERT_LE(0, dev)
		TH_LOG("opening %s: %s", self->device, strerror(-dev));
	ret = vfio_region(dev, REGION_FIRST_OWN, &info);
	EXPECT_EQ(!strcmp(self->outcome, "works") ? 0 : -EINVAL, ret)
		TH_LOG("%s: region %d", self->device, REGION_FIRST_OWN);
	close(dev);
	vfio_group_close(&group);

	/* Opening says nothing new, and neither does another probe than what the first one said. */
	EXPECT_EQ(0, messages(log, self->device, self->property, self->message, &good));
	EXPECT_EQ(0, driver_unbind(self->device));
	EXPECT_EQ(0, module_unload());
	EXPECT_EQ(0, module_load());
	EXPECT_EQ(0, kmsg_splats(splats));
}

TEST_HARNESS_MAIN
