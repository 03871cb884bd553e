// SPDX-License-Identifier: GPL-2.0
/*
 * Goes to another kernel by kexec.
 *
 *   kexec plain|guest KERNEL INITRD COMMAND-LINE
 *
 * With "guest" this one leaves what kernels leave in the NPU: GPU 0 is bound to the LPAR of a guest
 * that still runs, GPU 1 is mapped to the host, as petitboot's kernel maps each, and GPU 2 to an
 * LPAR, as a kernel that crashes leaves it. Returns only if it fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "npu.h"
#include "scom.h"
#include "testbed.h"

/* As Linux 5.10 was seen to leave GPU @gpu, which has the BDF @bdfn: for LPID 0 */
static __u64 bdf_map(unsigned int gpu, __u16 bdfn)
{
	return 0xc000000001800000ULL | 0x0800000000000000ULL >> gpu | (__u64)bdfn << 32 | gpu << 12;
}

/* And the wildcard entry of that, MSR DR, HV and PR. Of a guest it is without HV. */
static __u64 pid_map(unsigned int gpu, bool guest)
{
	return (0xe000005a00000000ULL & ~(guest ? PID_MSR_HV : 0)) | (__u64)gpu << 20;
}

#define LPID			1

static int map(const struct dt_gpu *g, unsigned int n, unsigned int lpid)
{
	const struct dt_bridge *b = &g->link[0];
	int ret;

	ret = npu_write64(b->chip, b->xscom_base, XTS_PID_MAP(n), pid_map(n, lpid));
	return ret ?: npu_write64(b->chip, b->xscom_base, XTS_BDF_MAP(n),
				  bdf_map(n, bdfn(g->bdf)) | lpid);
}

static int leave_maps(struct testbed *tb)
{
	const struct dt_topology *topo = &tb->topo;
	int ret = testbed_open(tb, 0, true);

	if (!ret && topo->num_gpus < 3)
		ret = -ENODEV;
	ret = ret ?: map(&topo->gpu[1], 1, 0);
	return ret ?: map(&topo->gpu[2], 2, LPID);
}

static int go(const char *kernel, const char *initrd, const char *arguments)
{
	int k = open(kernel, O_RDONLY | O_CLOEXEC), i = open(initrd, O_RDONLY | O_CLOEXEC);

	if (k >= 0 && i >= 0 &&
	    !syscall(SYS_kexec_file_load, k, i, strlen(arguments) + 1, arguments, 0))
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			LINUX_REBOOT_CMD_KEXEC, 0);
	return -errno;
}

int main(int argc, char **argv)
{
	struct testbed tb = { .why = "" };
	int ret = 0;

	if (argc != 5) {
		fprintf(stderr, "usage: kexec plain|guest KERNEL INITRD COMMAND-LINE\n");
		return 2;
	}
	if (!strcmp(argv[1], "guest"))
		ret = leave_maps(&tb);
	ret = ret ?: go(argv[2], argv[3], argv[4]);
	fprintf(stderr, "kexec: %s %s\n", strerror(-ret), tb.why);
	return 1;
}
