/* SPDX-License-Identifier: GPL-2.0 */
/* What a GPU has been through, by the model's own counts, and whether its RAM is there again. */
#ifndef NVLINK2_SELFTEST_RESET_H
#define NVLINK2_SELFTEST_RESET_H

#include "testbed.h"

/*
 * Accesses of GPU RAM that nothing answered since testbed_open(), whatever was reset meanwhile; all
 * ones if the model does not say.
 */
__u32 lost_accesses(const struct testbed *tb);
/* Resets of the GPU since the machine was switched on. */
__u32 resets(const struct testbed *tb);
/*
 * The page at @p that was touched before a reset is not mapped after it: "" if it takes one new
 * fault, which brings it. The links have to be trained in between, which this does.
 */
const char *comes_back(const struct testbed *tb, char *p);

#endif
