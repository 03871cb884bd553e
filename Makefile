# SPDX-License-Identifier: GPL-2.0
#
# make demo    show the driver at work on an emulated host
# make check   every test and every lint
# make docs    the documents: HTML, manual pages
# make compare what the original C driver leaves behind, and what this one does
# make KDIR=<build tree of a Linux 7.3 with the series> modules modules_install
#
# All but the last build what they need (scripts/emu), and none needs POWER hardware.

KDIR ?= /lib/modules/$(shell uname -r)/build
EMU := scripts/emu

.DEFAULT_GOAL := help
.PHONY: help setup demo check docs compare modules modules_install clean distclean

help:
	@sed -n 's/^# \(make.*\)/  \1/p' Makefile

setup:
	$(EMU) setup

demo:
	$(EMU) setup demo
	$(EMU) run --file "$$($(EMU) product demo)" -- /files/nvlink2-demo

check:
	scripts/check

docs:
	$(EMU) setup docs
	@echo "$$($(EMU) product docs)"

compare:
	$(EMU) compare

modules modules_install clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

distclean:
	$(EMU) clean
