# SPDX-License-Identifier: GPL-2.0
#
# Tests of nvlink2-vfio-pci, for a machine whose GPUs are the V100 model of QEMU's powernv9.
noarg:
	$(MAKE) -C ../

LIB := @LIB@
TEST_GEN_PROGS := @TESTS@
# Needs a boot with the bad firmware that MUTATIONS in its environment names.
TEST_GEN_PROGS_EXTENDED := bad_firmware
# Beside the programs, which read them.
TEST_FILES := bad_firmware.tsv hardware.tsv splats.txt

top_srcdir = ../../../../..
include ../../lib.mk
include ../flags.mk

# kselftest_harness.h compares pointers and integers of any two types.
CFLAGS += -std=gnu11 -Wextra -Wno-sign-compare -isystem $(selfdir) -I. -Ilib
LDLIBS += -pthread

$(TEST_GEN_PROGS) $(TEST_GEN_PROGS_EXTENDED): $(LIB)
