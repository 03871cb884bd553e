/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Firmware's procedures for training a link, which a driver of a GPU runs by a bridge's vendor
 * specific capability (skiboot, hw/npu2-hw-procedures.c): a number is written to its control
 * register, and the status register is read until the procedure is complete.
 *
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_PROCEDURES_H
#define NVLINK2_SELFTEST_PROCEDURES_H

#include <linux/types.h>

enum procedure {
	PROCEDURE_STOP,
	PROCEDURE_NOP,
	PROCEDURE_PHY_RESET = 4,
	PROCEDURE_PHY_TX_ZCAL,
	PROCEDURE_PHY_RX_DCCAL,
	PROCEDURE_PHY_ENABLE_TX_RXCAL,
	PROCEDURE_PHY_DISABLE_TX_RXCAL,
	PROCEDURE_PHY_RX_TRAINING,
	PROCEDURE_RESET_NTL,
	PROCEDURE_CHECK_CREDITS = 13,
};

/* What the status register says of a procedure that is complete. */
#define PROCEDURE_OK		0
#define PROCEDURE_FAILED	2
#define PROCEDURE_ABORTED	3
#define PROCEDURE_UNSUPPORTED	4

/* A bridge's capability, in a file with configuration space. */
struct procedures {
	int fd;
	__u64 cap;
};

/* Of the configuration space that begins at @config of @fd; -ENOENT without the capability. */
int procedures_find(struct procedures *p, int fd, __u64 config);
/* Runs @number to its end, and says how it ended. -ETIMEDOUT if there is none. */
int procedure_run(const struct procedures *p, __u32 number, __u32 *status);
/* Takes all links down and into reset; fails with -EIO if one procedure does. */
int procedures_reset(const struct procedures *p, unsigned int count);
/*
 * Trains links that are in reset, once the GPU has its ends up, and lets accesses through; fails
 * with -EIO if one procedure does.
 */
int procedures_train(const struct procedures *p, unsigned int count);

#endif
