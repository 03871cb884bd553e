// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qmp.h"
#include "sys.h"

#define PORT_NAMES "/sys/class/virtio-ports/*/name"
/* While all wait, time goes faster than the emulator that answers. */
#define ANSWER_TIMEOUT_MS 60000
#define HUMAN_MONITOR \
	"\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"%s\"}"

static int qmp_open(void)
{
	char name[32], path[64];
	int fd = -ENODEV;
	glob_t found;
	size_t i;

	if (glob(PORT_NAMES, 0, NULL, &found))
		return -ENODEV;
	for (i = 0; i < found.gl_pathc; i++) {
		if (sys_read(found.gl_pathv[i], name, sizeof(name)) < 0 || strcmp(name, "qmp"))
			continue;
		/* /sys/class/virtio-ports/<device>/name */
		snprintf(path, sizeof(path), "/dev/%.16s",
			 found.gl_pathv[i] + strlen("/sys/class/virtio-ports/"));
		*strchrnul(path + strlen("/dev/"), '/') = '\0';
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	globfree(&found);
	return fd;
}

/* One line of JSON, without its end. */
static int read_line(int fd, char *line, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t len = 0;

	while (len < size - 1) {
		if (poll(&p, 1, ANSWER_TIMEOUT_MS) != 1)
			return -ETIMEDOUT;
		if (read(fd, line + len, 1) != 1)
			return -EIO;
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = '\0';
	return 0;
}

/*
 * Sends one command and waits for the answer with its id; greetings, events and answers to
 * commands of those who used the port before pass by.
 */
static int qmp_command(int fd, const char *command, char *answer, size_t size)
{
	static unsigned int serial;
	char line[1024], id[64];
	int len, ret;

	snprintf(id, sizeof(id), "\"id\": \"%d-%u\"", getpid(), ++serial);
	len = snprintf(line, sizeof(line), "{%s, %s}\n", command, id);
	if (len >= (int)sizeof(line))
		return -E2BIG;
	if (write(fd, line, len) != len)
		return -EIO;
	do {
		ret = read_line(fd, answer, size);
	} while (!ret && !strstr(answer, id));
	return ret;
}

int qmp_human(const char *command, char *answer, size_t size)
{
	static char reply[16384];
	char line[512], *text, *end;
	int fd = qmp_open(), ret;

	if (fd < 0)
		return fd;
	/* Refused when somebody negotiated before: the connection lasts as long as the machine. */
	ret = qmp_command(fd, "\"execute\": \"qmp_capabilities\"", reply, sizeof(reply));
	if (!ret) {
		snprintf(line, sizeof(line), HUMAN_MONITOR, command);
		ret = qmp_command(fd, line, reply, sizeof(reply));
	}
	close(fd);
	if (ret)
		return ret;
	text = strstr(reply, "\"return\": \"");
	if (!text)
		return -EPROTO;
	text += strlen("\"return\": \"");
	end = strchr(text, '"');
	if (end)
		*end = '\0';
	snprintf(answer, size, "%s", text);
	return 0;
}

int phys_read_be64s(__u64 addr, __u64 *values, unsigned int count)
{
	char command[64], answer[8192], *text;
	unsigned int i, byte;
	int ret;

	/* Bytes, so that no idea of the emulator's about endianness gets in. */
	snprintf(command, sizeof(command), "xp /%uxb 0x%lx", count * 8, addr);
	ret = qmp_human(command, answer, sizeof(answer));
	if (ret)
		return ret;
	/* A line for each eight, which begins with their address. */
	text = answer;
	for (i = 0; i < count; i++) {
		text = strchr(text, ':');
		values[i] = 0;
		for (byte = 0; byte < 8; byte++) {
			text = text ? strstr(text, "0x") : NULL;
			if (!text)
				return -EPROTO;
			values[i] = values[i] << 8 | strtoul(text, &text, 16);
		}
	}
	return 0;
}

int phys_read_be64(__u64 addr, __u64 *value)
{
	return phys_read_be64s(addr, value, 1);
}
