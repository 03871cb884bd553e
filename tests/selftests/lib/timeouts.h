/* SPDX-License-Identifier: GPL-2.0 */
/* How long tests wait on a slow kernel. */
#ifndef NVLINK2_SELFTEST_TIMEOUTS_H
#define NVLINK2_SELFTEST_TIMEOUTS_H

/* What limits of time are to be multiplied by: the environment's NVLINK2_TIME_FACTOR, or 1. */
unsigned int time_factor(void);

#endif
