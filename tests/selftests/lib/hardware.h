/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which tests run on a machine whose GPUs are real (NVLINK2_HARDWARE=1), or do not say that they
 * are models. hardware.tsv beside the programs says it of each test, and nothing runs there of
 * which it does not. The headers of the harness come before this one.
 */
#ifndef NVLINK2_SELFTEST_HARDWARE_H
#define NVLINK2_SELFTEST_HARDWARE_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Whether the machine is not to be taken for the emulated one. */
bool on_hardware(void);
/* Why a test of this program needs the model; NULL if it does not. */
const char *needs_model(const char *test);

#ifdef __KSELFTEST_HARNESS_H

static inline void hardware_skip(struct __test_metadata *_metadata,
				 struct __fixture_variant_metadata *variant)
{
	(void)variant;
	SKIP(return, "needs the model: %s", needs_model(_metadata->name));
}

static inline int hardware_main(int argc, char **argv)
{
	const bool list = argc == 2 && !strcmp(argv[1], "--list-hardware");
	struct __fixture_metadata *f;
	struct __test_metadata *t;
	const char *why;

	for (f = __fixture_list; f; f = f->next) {
		for (t = f->tests; t; t = t->next) {
			why = needs_model(t->name);
			if (list)
				printf("%s\t%s.%s\t%s%s\n", program_invocation_short_name, f->name,
				       t->name, why ? "needs the model: " : "runs", why ?: "");
			/* Not even its fixture is set up then. */
			if (why && on_hardware())
				t->fn = hardware_skip;
		}
	}
	return list ? 0 : test_harness_run(argc, argv);
}

/* What TEST_HARNESS_MAIN calls. */
#define test_harness_run(argc, argv) hardware_main(argc, argv)

#endif
#endif
