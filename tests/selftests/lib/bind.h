/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Drivers of PCI functions, and the module under test. Functions that return int give 0 or a
 * negative errno.
 */
#ifndef NVLINK2_SELFTEST_BIND_H
#define NVLINK2_SELFTEST_BIND_H

#include <stdbool.h>
#include <stddef.h>

#define DRIVER		"nvlink2-vfio-pci"
#define MODULE		"nvlink2_vfio_pci"
#define DEBUGFS		"/sys/kernel/debug/" DRIVER

/* The name of the driver of @bdf, "" if it has none. */
void driver_of(const char *bdf, char *name, size_t size);
bool driver_is(const char *bdf, const char *driver);
/* Takes @bdf from its driver, if it has one. */
int driver_unbind(const char *bdf);
/*
 * Makes @driver (by driver_override) the one that may have @bdf, and has it probed. -ENODEV
 * if it did not bind.
 */
int driver_bind(const char *bdf, const char *driver);

/* The .ko file, from $NVLINK2_KO or below /files and the kernel's folder in /lib/modules. */
int module_path(char *path, size_t size);
/* 0 if the module can be loaded: there is a .ko file, or modprobe finds one that is packed. */
int module_available(void);
/* With parameters as modprobe takes them, separated by blanks. */
int module_load_with(const char *parameters);
/* With those of $NVLINK2_PARAMETERS, if it is set. */
int module_load(void);
/* -EWOULDBLOCK while in use. */
int module_unload(void);
bool module_loaded(void);

#endif
