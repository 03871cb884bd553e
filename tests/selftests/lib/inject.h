/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's fault injection (Documentation/fault-injection): the n-th of a task's slab
 * allocations, page allocations, copies to or from user memory and calls of firmware fails. Such a
 * call is not made, and the kernel sees OPAL_HARDWARE. Functions that return int give 0 or a
 * negative errno.
 */
#ifndef NVLINK2_SELFTEST_INJECT_H
#define NVLINK2_SELFTEST_INJECT_H

#include <stdbool.h>

/* Whether this kernel has all of it. */
bool inject_available(void);
/* Allocations that may sleep, of any size, may fail, too, and no report is made of it. */
int inject_setup(void);
/* The @nth (from 1) fault site that this thread comes by from now on fails. */
int inject_begin(unsigned int nth);
/* No more failures; says whether there was one. */
bool inject_end(void);
/* All calls of @function, one of OPAL's, that this thread makes from now on fail, and no others. */
int inject_all(const char *function);
/* No more do. */
int inject_nothing(void);

#endif
