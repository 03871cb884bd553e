// SPDX-License-Identifier: GPL-2.0
/*
 * To be preloaded by QEMU, whose guests get the host's timebase with it and not one of their own.
 *
 * For a guest with a timebase of its own, KVM moves the processor's with TBU40, which leaves the
 * lower 24 bits alone, and corrects what they carry once (kvmhv_vcpu_entry_p9() and its end). No
 * processor needs more; an emulated one does that is not run for 33 ms in between, as on a busy
 * machine. Then its timebase is behind by a multiple of that for good, and the vDSO, which takes a
 * timebase behind the last one it saw for one far ahead, says that 18 minutes have passed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/ioctl.h>

int ioctl(int file, unsigned long request, ...)
{
	static int (*next)(int file, unsigned long request, ...);
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	/* QEMU's requests are of type int, and negative: the kernel looks at 32 bits, too. */
	if ((unsigned int)request == KVM_SET_ONE_REG &&
	    ((const struct kvm_one_reg *)argument)->id == KVM_REG_PPC_TB_OFFSET)
		return 0;
	/* Several threads may find it at once, and find the same. */
	if (!next)
		next = dlsym(RTLD_NEXT, "ioctl");
	return next(file, request, argument);
}
