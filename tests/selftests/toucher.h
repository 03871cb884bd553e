/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that stores to 16 pages in turn, whatever happens to them: it counts SIGBUS, and
 * goes on.
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_TOUCHER_H
#define NVLINK2_SELFTEST_TOUCHER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "sys.h"

#define TOUCHER_PAGES	16

struct toucher {
	/* TOUCHER_PAGES pages of PAGE_64K. */
	char *p;
	/* Accesses that were begun, that were answered, and that ended in SIGBUS. */
	atomic_ulong tried, done, refused;
	/* The thread's. */
	pthread_t thread;
	atomic_bool stop, hold, held;
};

/* Handles SIGBUS of the whole process from now on. */
int toucher_start(struct toucher *t, char *p);
void toucher_stop(struct toucher *t);
/* Keeps the thread away from the pages; when this returns it is. */
void toucher_hold(struct toucher *t);
void toucher_release(struct toucher *t);

#endif
