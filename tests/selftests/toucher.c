// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "toucher.h"

static __thread sigjmp_buf env;

static void on_sigbus(int sig)
{
	siglongjmp(env, sig);
}

static void *touch(void *arg)
{
	struct toucher *t = arg;

	while (!atomic_load(&t->stop)) {
		atomic_store(&t->held, atomic_load(&t->hold));
		if (atomic_load(&t->held))
			continue;
		/* Not in a local variable: siglongjmp() may bring an old value back. */
		atomic_fetch_add(&t->tried, 1);
		if (!sigsetjmp(env, 1)) {
			store64(t->p + atomic_load(&t->tried) % TOUCHER_PAGES * PAGE_64K, 1);
			atomic_fetch_add(&t->done, 1);
		} else {
			atomic_fetch_add(&t->refused, 1);
		}
	}
	return NULL;
}

int toucher_start(struct toucher *t, char *p)
{
	struct sigaction sa = { .sa_handler = on_sigbus };

	memset(t, 0, sizeof(*t));
	t->p = p;
	sigaction(SIGBUS, &sa, NULL);
	return -pthread_create(&t->thread, NULL, touch, t);
}

void toucher_stop(struct toucher *t)
{
	atomic_store(&t->stop, true);
	pthread_join(t->thread, NULL);
}

void toucher_hold(struct toucher *t)
{
	atomic_store(&t->hold, true);
	while (!atomic_load(&t->held))
		usleep(100);
}

void toucher_release(struct toucher *t)
{
	atomic_store(&t->hold, false);
}
