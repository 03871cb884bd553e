// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "toucher.h"

static __thread sigjmp_buf env;
/* The thread is at its store. */
static __thread atomic_bool inside;

static void on_signal(int sig)
{
	if (atomic_load(&inside))
		siglongjmp(env, sig);
}

static void store(struct toucher *t)
{
	/* None is in a local variable: siglongjmp() may bring an old value back. */
	unsigned long page = atomic_fetch_add(&t->tried, 1) % TOUCHER_PAGES;

	atomic_store(&t->before, t->phase ? atomic_load(t->phase) : 1);
	switch (sigsetjmp(env, 1)) {
	case 0:
		atomic_store(&inside, true);
		store64(t->p + page * PAGE_64K, 1);
		atomic_store(&inside, false);
		atomic_fetch_add(&t->done, 1);
		break;
	case SIGBUS:
		atomic_store(&inside, false);
		atomic_fetch_add(&t->refused, 1);
		if (!(atomic_load(&t->before) & 1) &&
		    atomic_load(&t->before) == atomic_load(t->phase))
			atomic_fetch_add(&t->wrong, 1);
		break;
	default:
		atomic_store(&inside, false);
		atomic_fetch_add(&t->called_off, 1);
	}
}

static void *touch(void *arg)
{
	struct toucher *t = arg;

	while (!atomic_load(&t->stop)) {
		atomic_store(&t->held, atomic_load(&t->hold));
		if (!atomic_load(&t->held))
			store(t);
	}
	return NULL;
}

int toucher_start_with(struct toucher *t, char *p, const atomic_uint *phase)
{
	struct sigaction sa = { .sa_handler = on_signal };

	memset(t, 0, sizeof(*t));
	t->p = p;
	t->phase = phase;
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	return -pthread_create(&t->thread, NULL, touch, t);
}

int toucher_start(struct toucher *t, char *p)
{
	return toucher_start_with(t, p, NULL);
}

void toucher_stop(struct toucher *t)
{
	atomic_store(&t->stop, true);
	pthread_join(t->thread, NULL);
}

void toucher_hold(struct toucher *t)
{
	atomic_store(&t->hold, true);
	while (!atomic_load(&t->held)) {
		usleep(1000);
		pthread_kill(t->thread, SIGUSR1);
	}
}

void toucher_release(struct toucher *t)
{
	atomic_store(&t->hold, false);
}
