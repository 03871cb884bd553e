/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the guest's module nvlink_guest has for test programs.
 *
 * /proc/nvlink_guest has what it found when it was loaded, a line each, links behind their GPU:
 *
 *   gpu BDF links NUMBER memory ADDRESS SIZE node NODE
 *   link BDF gpu BDF speed CODE tgt ADDRESS memory ADDRESS
 *   atsd NUMBER
 *
 * Numbers are decimal, addresses and sizes hexadecimal with 0x.
 */
#ifndef NVLINK_GUEST_H
#define NVLINK_GUEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define NVLINK_GUEST_REPORT	"/proc/nvlink_guest"
#define NVLINK_GUEST_DEVICE	"/dev/nvlink_guest"

/*
 * From here to the close of the file GPUs are told what changes in the address space of the
 * process that calls. The argument receives the number by which GPUs know it (PASID).
 */
#define NVLINK_GUEST_WATCH	_IOR('N', 0, __u32)
/* How many shootdowns were launched for the address space since then. */
#define NVLINK_GUEST_LAUNCHED	_IOR('N', 1, __u32)

#endif
