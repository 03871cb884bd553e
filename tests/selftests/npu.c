// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npu.h"
#include "qmp.h"

#define NPU	"/machine/chip[0]/npu"

int npu_table(const char *name, __u64 *values, unsigned int count)
{
	static char answer[8192];
	char command[64], *text = answer;
	unsigned int i;
	int ret;

	snprintf(command, sizeof(command), "qom-get " NPU " %s", name);
	ret = qmp_human(command, answer, sizeof(answer));
	if (ret)
		return ret;
	for (i = 0; i < count; i++) {
		text += strcspn(text, "0123456789");
		if (!*text)
			return -EPROTO;
		values[i] = strtoull(text, &text, 10);
	}
	return 0;
}

int npu_set(const char *property, const char *value)
{
	char command[96], answer[256];
	int ret;

	snprintf(command, sizeof(command), "qom-set " NPU " %s %s", property, value);
	ret = qmp_human(command, answer, sizeof(answer));
	if (!ret && strstr(answer, "Error"))
		ret = -EOPNOTSUPP;
	return ret;
}

__u16 bdfn(const char *bdf)
{
	unsigned int domain, bus, device, function;

	if (sscanf(bdf, "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4)
		return 0;
	return bus << 8 | device << 3 | function;
}
