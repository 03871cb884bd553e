# SPDX-License-Identifier: GPL-2.0
#
# make setup   build what the rest needs
# make demo    show the driver at work on an emulated host
# make check   the tests and lints of every day
# make check-all  these and the long ones, of which some follow: it takes a night; scripts/check --list says more
# make check-bad-firmware-all  boots with each kind of bad firmware; make check has a few
# make check-clients  more guests, also with Linux 5.10, of our QEMU 10.0 and of QEMU 7.2; libvirt of today and 9.0
# make check-intree  builds of the kernel with the driver in its tree
# make check-debug  the selftests on a debug kernel (KASAN, lockdep, ...), and every allocation failing once
# make check-load  1000 cycles of use, 100 resets, 50 unbinds under load: no memory may be gone
# make check-orders  all selftests with pages of GPU RAM of 64 KiB and of 2 MiB only
# make check-newest  the one-chip selftests on the newest Linux 7.3.N, QEMU 10.0.N and rustc that archives have today
# make check-packages  install the Debian packages and use them
# make docs    the documents: HTML, manual pages
# make rustdoc the documentation of the module's code
# make deb     Debian packages
# make kernel-deb [CONFIG=file] [PAGES=4k|64k]  Debian packages of a kernel with the series and the driver
# make trial   what somebody with the hardware runs first: a bundle of static programs
# make intree DIR=<Linux 7.3>  put the driver into a kernel source tree
# make series OUT=<new folder>  the whole as sets of patches, in the order to send
# make qemu-series OUT=<new folder>  the patches for QEMU 10.0
# make rust-analyzer  rust-project.json, from which an editor knows the module
# make bench   what mapping and using GPU RAM costs; bench-peer: beside the original C driver
# make fuzz [OPS=n] [SEED=s] [GPUS=2|3|4|6]  random operations of a hostile user; a failure is reduced
# make fuzz-pure [SECONDS=n]  coverage-guided fuzzing of the module's kernel-free parts and of what nvlink2ctl reads
# make mutate [ONLY=text] [PART=k/n]  take checks out of driver and kernel, one at a time: a test has to notice each;
#              every n-th of them beginning with the k-th
# make compare what the original C driver leaves behind, and what this one does
# make distclean  remove all that was built, of all checkouts, but for inputs that fuzzing has found
# make KDIR=<build tree of a Linux 7.3 with the series> modules install
#
# All but the last build what they need (scripts/emu), and none needs POWER hardware.

KDIR ?= /lib/modules/$(shell uname -r)/build
EMU := scripts/emu

.DEFAULT_GOAL := help
.PHONY: help setup demo check check-all docs rustdoc deb kernel-deb trial
.PHONY: intree series qemu-series rust-analyzer compare bench bench-peer fuzz fuzz-pure mutate modules modules_install install clean distclean

help:
	@sed -n 's/^# \(make.*\)/  \1/p' Makefile

setup:
	$(EMU) setup

demo:
	$(EMU) setup demo qemu initrd
	$(EMU) run --file "$$($(EMU) product demo)" -- /files/nvlink2-demo

check:
	scripts/check

check-all:
	scripts/check --all

check-%:
	scripts/check $*

docs rustdoc:
	$(EMU) setup $@
	@$(EMU) product $@

deb:
	$(EMU) setup packages
	@ls "$$($(EMU) product packages)"/*.deb

kernel-deb:
	scripts/dist kernel-deb $(if $(CONFIG),--config "$(CONFIG)") $(if $(PAGES),--pages "$(PAGES)")

trial:
	$(EMU) setup trial
	@ls "$$($(EMU) product trial).tar.gz"

intree:
	scripts/dist intree "$(DIR)"

series:
	scripts/dist series "$(OUT)"

qemu-series:
	scripts/dist qemu-series "$(OUT)"

rust-analyzer:
	scripts/dist $@

compare:
	$(EMU) compare

bench:
	$(EMU) bench

bench-peer:
	$(EMU) bench --peer

fuzz:
	$(EMU) fuzz --minimise --ops $(or $(OPS),20000) --seed $(or $(SEED),0) --gpus $(or $(GPUS),4)

fuzz-pure:
	$(EMU) fuzz-pure --seconds $(or $(SECONDS),60)

mutate:
	$(EMU) mutate --only "$(ONLY)" --part "$(PART)"

# A folder that is not a system's root has nothing that depmod could look at.
modules modules_install clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(DESTDIR) $(if $(DESTDIR),DEPMOD=true) $@

install: modules_install
	install -D -m 644 scripts/debian/nvlink2-vfio.udev $(DESTDIR)/usr/lib/udev/rules.d/60-nvlink2-vfio.rules

distclean:
	$(EMU) clean
