/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that stores to 16 pages in turn, whatever happens to them: it counts SIGBUS, and
 * goes on. A store that waits in the kernel can be called off.
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
	/* Odd while accesses may be refused; NULL: they always may. */
	const atomic_uint *phase;
	/*
	 * Accesses that were begun, that were answered, that ended in SIGBUS, of those the ones
	 * that should not, and that were called off.
	 */
	atomic_ulong tried, done, refused, wrong, called_off;
	/* The thread's. */
	pthread_t thread;
	atomic_bool stop, hold, held;
	atomic_uint before;
};

/* Handles SIGBUS and SIGUSR1 of the whole process from now on. */
int toucher_start(struct toucher *t, char *p);
int toucher_start_with(struct toucher *t, char *p, const atomic_uint *phase);
void toucher_stop(struct toucher *t);
/* Keeps the thread away from the pages, also if it waits for one; when this returns it is. */
void toucher_hold(struct toucher *t);
void toucher_release(struct toucher *t);

#endif
