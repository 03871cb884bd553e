// SPDX-License-Identifier: GPL-2.0
/*
 * Time limits on a slow kernel. The harness waits for a test's process with poll(), and so does
 * whoever waits for the emulator's monitor: all their limits are multiplied by the environment's
 * NVLINK2_TIME_FACTOR, if it is set.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "timeouts.h"

unsigned int time_factor(void)
{
	const char *env = getenv("NVLINK2_TIME_FACTOR");
	long factor = env ? strtol(env, NULL, 10) : 1;

	return factor > 0 ? factor : 1;
}

/* Takes the place of libc's, which is ppoll() too. */
int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	long long ms = (long long)timeout * time_factor();
	struct timespec limit = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	return ppoll(fds, count, timeout < 0 ? NULL : &limit, NULL);
}
