// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "inject.h"
#include "sys.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define SITES		"/sys/kernel/debug/"

static const struct {
	const char *file, *value;
} settings[] = {
	{ SITES "failslab/ignore-gfp-wait", "N" },
	{ SITES "failslab/verbose", "0" },
	{ SITES "fail_page_alloc/ignore-gfp-wait", "N" },
	{ SITES "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ SITES "fail_page_alloc/min-order", "0" },
	{ SITES "fail_page_alloc/verbose", "0" },
	{ SITES "fail_usercopy/verbose", "0" },
};

bool inject_available(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		if (!sys_exists(settings[i].file))
			return false;
	}
	return sys_exists(FAIL_NTH);
}

int inject_setup(void)
{
	size_t i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		ret = sys_write(settings[i].file, settings[i].value);
		if (ret)
			return ret;
	}
	return 0;
}

/* Open all the time: opening it would be counted. */
static int fail_nth = -1;

int inject_begin(unsigned int nth)
{
	char text[16];
	int len;

	if (fail_nth < 0)
		fail_nth = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	if (fail_nth < 0)
		return -errno;
	len = snprintf(text, sizeof(text), "%u", nth);
	return pwrite(fail_nth, text, len, 0) == len ? 0 : -EIO;
}

/*
 * What is left to count is 0 after a failure. Reading that and writing 0 are copies, too: each may
 * be the one that fails, which is as good as a count that is left.
 */
bool inject_end(void)
{
	char left[16] = "";
	ssize_t n = pread(fail_nth, left, sizeof(left) - 1, 0);

	while (pwrite(fail_nth, "0", 1, 0) != 1)
		;
	return n > 0 && !strcmp(left, "0\n");
}
