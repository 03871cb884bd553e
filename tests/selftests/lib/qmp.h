/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The emulator's monitor, on the virtio-serial port "qmp": what a test wants to know of the
 * machine from outside. Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_QMP_H
#define NVLINK2_SELFTEST_QMP_H

#include <linux/types.h>
#include <stddef.h>

/*
 * Runs a command of the human monitor; @answer gets its output, with JSON's escapes left as
 * they are. -ENODEV without the port.
 */
int qmp_human(const char *command, char *answer, size_t size);

/* Eight bytes of physical memory as a big-endian number, and @count times eight, at most 32. */
int phys_read_be64(__u64 addr, __u64 *value);
int phys_read_be64s(__u64 addr, __u64 *values, unsigned int count);

#endif
