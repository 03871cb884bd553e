// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the device tree of the guest, a line for each node and property: its path, and the value
 * as hexadecimal digits. Of long values it prints the length and a hash.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BASE	"/sys/firmware/devicetree/base"
#define SHORT	64

/* FNV-1a. */
static __u64 hash(const unsigned char *bytes, ssize_t n)
{
	__u64 sum = 0xcbf29ce484222325;

	while (n-- > 0)
		sum = (sum ^ *bytes++) * 0x100000001b3;
	return sum;
}

static int print(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	static unsigned char value[1 << 16];
	ssize_t n, i;
	int fd;

	(void)st;
	(void)ftw;
	if (type == FTW_D) {
		printf("%s/\n", path + sizeof(BASE) - 1);
		return 0;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, value, sizeof(value));
	if (fd >= 0)
		close(fd);
	if (n < 0 || n == sizeof(value)) {
		perror(path);
		return 1;
	}
	printf("%s=", path + sizeof(BASE) - 1);
	if (n > SHORT)
		printf("%zd bytes, hash %016lx", n, hash(value, n));
	for (i = 0; n <= SHORT && i < n; i++)
		printf("%02x", value[i]);
	putchar('\n');
	return 0;
}

int main(void)
{
	return nftw(BASE, print, 16, FTW_PHYS) ? EXIT_FAILURE : EXIT_SUCCESS;
}
