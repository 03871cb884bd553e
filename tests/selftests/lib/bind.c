// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bind.h"
#include "sys.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

void driver_of(const char *bdf, char *name, size_t size)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver", bdf);
	n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	snprintf(name, size, "%s", n < 0 ? "" : strrchr(target, '/') + 1);
}

bool driver_is(const char *bdf, const char *driver)
{
	char name[NAME_MAX];

	driver_of(bdf, name, sizeof(name));
	return !strcmp(name, driver);
}

int driver_unbind(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver/unbind", bdf);
	if (!sys_exists(path))
		return 0;
	return sys_write(path, bdf);
}

int driver_bind(const char *bdf, const char *driver)
{
	char path[PATH_MAX];
	int ret;

	if (driver_is(bdf, driver))
		return 0;
	ret = driver_unbind(bdf);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver_override", bdf);
	ret = sys_write(path, driver);
	if (ret)
		return ret;
	/*
	 * The write may fail, with EINVAL whatever the reason, or succeed where probe refused; who
	 * has the device then is what counts.
	 */
	ret = sys_write("/sys/bus/pci/drivers_probe", bdf);
	if (driver_is(bdf, driver))
		return 0;
	return ret && ret != -EINVAL ? ret : -ENODEV;
}

static char module_file[PATH_MAX];

static int match_module(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	if (type != FTW_F || strcmp(path + ftw->base, DRIVER ".ko"))
		return 0;
	snprintf(module_file, sizeof(module_file), "%s", path);
	return 1;
}

static bool find_module(void)
{
	const char *env = getenv("NVLINK2_KO");
	struct utsname system;
	char folder[PATH_MAX];

	if (env)
		snprintf(module_file, sizeof(module_file), "%s", env);
	/* Another kernel's does not load. */
	if (uname(&system))
		return env;
	snprintf(folder, sizeof(folder), "/lib/modules/%s", system.release);
	return env || nftw(folder, match_module, 16, FTW_PHYS) == 1 ||
	       nftw("/files", match_module, 16, FTW_PHYS) == 1;
}

int module_path(char *path, size_t size)
{
	/* Looked for once: not while failures are injected. */
	if (!*module_file && !find_module())
		return -ENOENT;
	snprintf(path, size, "%s", module_file);
	return 0;
}

/* For a module that is packed (.ko.xz), which modprobe knows how to find and to unpack. */
static int run_tool(const char *options, const char *parameters)
{
	char command[512];

	snprintf(command, sizeof(command), "modprobe %s " DRIVER " %s", options, parameters);
	return system(command) ? -ENOENT : 0;
}

int module_available(void)
{
	char path[PATH_MAX];

	return module_path(path, sizeof(path)) ? run_tool("-n -q", "") : 0;
}

int module_load_with(const char *parameters)
{
	char path[PATH_MAX];
	int fd, ret = module_path(path, sizeof(path));

	if (ret == -ENOENT)
		return run_tool("", parameters);
	if (ret)
		return ret;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = syscall(SYS_finit_module, fd, parameters, 0) ? -errno : 0;
	close(fd);
	return ret;
}

int module_load(void)
{
	const char *env = getenv("NVLINK2_PARAMETERS");

	return module_load_with(env ?: "");
}

int module_unload(void)
{
	return syscall(SYS_delete_module, MODULE, O_NONBLOCK) ? -errno : 0;
}

bool module_loaded(void)
{
	return sys_exists("/sys/module/" MODULE);
}
