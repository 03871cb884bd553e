// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <unistd.h>

#include "procedures.h"
#include "sys.h"
#include "timeouts.h"

#define STATUS		0x4
#define   COMPLETE		0x40000000U
#define   RESULT		0xfU
#define CONTROL		0x8

/* Firmware ends each after a second. */
#define POLL_US		1000
#define POLLS		5000

int procedures_find(struct procedures *p, int fd, __u64 config)
{
	unsigned int guard = 48;
	__u8 at[2];

	/* The pointer, and after that each capability's number and pointer. */
	if (pread(fd, &at[1], 1, config + PCI_CAPABILITY_LIST) != 1)
		return -EIO;
	while (at[1] && guard--) {
		const __u64 cap = config + at[1];

		if (pread(fd, at, sizeof(at), cap) != sizeof(at))
			return -EIO;
		if (at[0] == PCI_CAP_ID_VNDR) {
			*p = (struct procedures){ .fd = fd, .cap = cap };
			return 0;
		}
	}
	return -ENOENT;
}

int procedure_run(const struct procedures *p, __u32 number, __u32 *status)
{
	const unsigned int polls = POLLS * time_factor();
	__u32 value = htole32(number);
	unsigned int i;

	if (pwrite(p->fd, &value, sizeof(value), p->cap + CONTROL) != sizeof(value))
		return -EIO;
	for (i = 0; i < polls; i++) {
		if (pread(p->fd, &value, sizeof(value), p->cap + STATUS) != sizeof(value))
			return -EIO;
		value = le32toh(value);
		if (value & COMPLETE) {
			*status = value & RESULT;
			return 0;
		}
		usleep(POLL_US);
	}
	return -ETIMEDOUT;
}

static int run_on_all(const struct procedures *p, unsigned int count, enum procedure number)
{
	unsigned int i;
	__u32 status;
	int ret;

	for (i = 0; i < count; i++) {
		ret = procedure_run(&p[i], number, &status);
		if (ret)
			return ret;
		if (status != PROCEDURE_OK) {
			fprintf(stderr, "# procedure %u of link %u ends with %u\n", number, i,
				status);
			return -EIO;
		}
	}
	return 0;
}

int procedures_reset(const struct procedures *p, unsigned int count)
{
	return run_on_all(p, count, PROCEDURE_RESET_NTL);
}

int procedures_train(const struct procedures *p, unsigned int count)
{
	static const enum procedure order[] = {
		PROCEDURE_PHY_RESET, PROCEDURE_PHY_TX_ZCAL, PROCEDURE_PHY_RX_DCCAL,
		PROCEDURE_PHY_ENABLE_TX_RXCAL, PROCEDURE_PHY_RX_TRAINING,
		PROCEDURE_PHY_DISABLE_TX_RXCAL, PROCEDURE_CHECK_CREDITS,
	};
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < ARRAY_SIZE(order); i++)
		ret = run_on_all(p, count, order[i]);
	return ret;
}
