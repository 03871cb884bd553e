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
	{ SITES "fail_function/verbose", "0" },
};

/* The calls of OPAL that users of VFIO cause. */
static const char * const functions[] = {
	"opal_pci_map_pe_dma_window",
	"opal_pci_map_pe_dma_window_real",
	"opal_npu_map_lpar",
	"opal_npu_init_context",
	"opal_npu_destroy_context",
};

#define FUNCTIONS	SITES "fail_function"
/* OPAL_HARDWARE */
#define FIRMWARE_ERROR	"0xfffffffffffffffa"

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
	char path[128];
	size_t i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		ret = sys_write(settings[i].file, settings[i].value);
		if (ret)
			return ret;
	}
	/* Takes all functions off the list, where another test has put them. */
	ret = sys_write(FUNCTIONS "/inject", "\n");
	for (i = 0; !ret && i < ARRAY_SIZE(functions); i++) {
		snprintf(path, sizeof(path), FUNCTIONS "/%s/retval", functions[i]);
		ret = sys_write(FUNCTIONS "/inject", functions[i]) ?:
		      sys_write(path, FIRMWARE_ERROR);
	}
	return ret;
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

int inject_all(const char *function)
{
	char path[128];

	snprintf(path, sizeof(path), FUNCTIONS "/%s/retval", function);
	return sys_write(FUNCTIONS "/inject", "\n") ?:
	       sys_write(FUNCTIONS "/inject", function) ?:
	       sys_write(path, FIRMWARE_ERROR) ?:
	       sys_write(FUNCTIONS "/times", "-1") ?:
	       sys_write(FUNCTIONS "/task-filter", "Y") ?:
	       sys_write(FUNCTIONS "/probability", "100") ?:
	       sys_write("/proc/thread-self/make-it-fail", "1");
}

int inject_nothing(void)
{
	return sys_write("/proc/thread-self/make-it-fail", "0") ?:
	       sys_write(FUNCTIONS "/probability", "0") ?: inject_setup();
}
