#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs next_kernel, and that a GPU is bound as ever, in a kernel that is started by kexec: /files/vmlinux, with the root of
# this one, which begins with this command, too. How this kernel leaves GPUs is said by the argument, "guest" or "plain"
# (see kexec.c).

set -u
cd "$(dirname "$0")" || exit 1
line=$(cat /proc/cmdline)

case $line in
*' next_kernel') exec ./run.sh next_kernel lpar:bound_from_first_open_to_last_close ;;
esac

(
	cd / || exit
	# Links to busybox are made anew, and only where there is no other shell.
	find . -xdev \( -path ./tmp -o -path ./bin -o -path ./.emu/bin \) -prune -o -print |
		cpio -o -H newc >/tmp/initrd 2>/dev/null
)
./kexec "$1" /files/vmlinux /tmp/initrd "$line next_kernel"
echo "0 passed, 1 failed"
exit 1
