// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <limits.h>
#include <stdlib.h>

#include "hardware.h"
#include "sys.h"

bool on_hardware(void)
{
	const char *value = getenv("NVLINK2_HARDWARE");

	return value && !strcmp(value, "1");
}

const char *needs_model(const char *test)
{
	/* Of the line for all tests of the program that have none of their own. */
	static char rest[256], own[256];
	char path[PATH_MAX], line[512], program[64], name[128], why[256];
	const char *found = "hardware.tsv has no line for it";
	FILE *file;

	if (sys_beside("hardware.tsv", path, sizeof(path)))
		return "there is no hardware.tsv beside the program";
	file = fopen(path, "re");
	if (!file)
		return "hardware.tsv cannot be read";
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63[^#\t\n]\t%127[^\t]\t%255[^\n]", program, name, why) != 3 ||
		    strcmp(program, program_invocation_short_name))
			continue;
		if (!strcmp(name, test)) {
			snprintf(own, sizeof(own), "%s", why);
			found = strcmp(own, "runs") ? own : NULL;
			break;
		}
		if (!strcmp(name, "*")) {
			snprintf(rest, sizeof(rest), "%s", why);
			found = rest;
		}
	}
	fclose(file);
	return found;
}
