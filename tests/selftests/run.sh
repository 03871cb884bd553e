#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the selftests beside this file as root in the emulated host, all or the named ones (PROGRAM, or PROGRAM:TEST...
# for just these of its tests), and prints their TAP lines. With NVLINK2_HARDWARE=1 it is a machine whose GPUs are no
# models: tests that need these are skipped, with the reason. --list prints which do, and runs nothing.
# The last line is "N passed, N failed, N skipped"; the status is 0 only if nothing failed and a test of a program passed.

set -u
cd "$(dirname "$0")" || exit 1
if [ $# -eq 0 ]; then
	# shellcheck disable=SC2046 # a list
	set -- $(sed -n 's/^\([a-z_]*\) .*\<host\>.*/\1/p' programs.txt)
	if [ $# -eq 0 ]; then
		echo "run.sh: no programs.txt beside it that lists tests: 'make -C tests/selftests' puts it there" >&2
		exit 1
	fi
fi
if [ "$1" = --list ]; then
	sed -n 's/^\([a-z_]*\) .*/\1/p' programs.txt | while read -r test; do
		"./$test" --list-hardware </dev/null || exit 1
	done
	exit
fi
# Without it grep would fail below, which reads as if it had found nothing.
if [ ! -s splats.txt ]; then
	echo "run.sh: no splats.txt beside it, which says what a splat is: 'make -C tests/selftests' puts it there" >&2
	exit 1
fi

passed=0
failed=0
skipped=0
out=$(mktemp) || exit 1
log=$(mktemp) || exit 1
trap 'rm -f "$out" "$log"' EXIT

for dir in /sys/kernel/debug /sys/kernel/tracing; do
	[ -n "$(ls "$dir" 2>/dev/null)" ] && continue
	case $dir in
	*debug) mount -t debugfs debugfs "$dir" ;;
	*) mount -t tracefs tracefs "$dir" ;;
	esac
done
# Loaded by hand where the caller did not: there is no udev here.
for module in kvm-hv vfio-pci vfio-iommu-spapr-tce; do
	modprobe -q "$module" 2>/dev/null || true
done

# Nothing that an earlier run left may count for this one, nor may it be lost.
begin="run.sh: process $$ begins"
echo "$begin" >/dev/kmsg

for choice in "$@"; do
	test=${choice%%:*}
	if [ ! -x "./$test" ]; then
		echo "not ok - $test: no such test"
		failed=$((failed + 1))
		continue
	fi
	echo "# $test"
	start=$(cut -d. -f1 /proc/uptime)
	# A test's name has no blanks.
	# shellcheck disable=SC2046
	"./$test" $(echo "$choice" | sed 's/^[^:]*//; s/:/ -t /g') >"$out" 2>&1
	status=$?
	cat "$out"
	echo "# $test took $(($(cut -d. -f1 /proc/uptime) - start)) s"
	p=$(grep -c '^ok [0-9]' "$out")
	f=$(grep -c '^not ok [0-9]' "$out")
	s=$(grep -c '^ok [0-9].*# SKIP' "$out")
	planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$out")
	passed=$((passed + p - s))
	failed=$((failed + f))
	skipped=$((skipped + s))
	# A test program that died, or ran fewer cases than it planned.
	if [ "$((p + f))" -ne "${planned:-0}" ] || [ "$((p + f))" -eq 0 ] ||
	   { [ "$status" -ne 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ]; }; then
		echo "not ok - $test: exit status $status after $((p + f)) of ${planned:-no} planned"
		failed=$((failed + 1))
	fi
done
# What follows is said of each run, and shows nothing if all tests were skipped.
if [ "$passed" -eq 0 ]; then
	echo "not ok - no test passed"
	failed=$((failed + 1))
fi

# Of a log that cannot be read there is nothing to complain: this line has to be in it.
echo "run.sh: $passed passed" >/dev/kmsg
dmesg >"$log"
if grep -q "$begin" "$log"; then
	sed -i "1,/$begin/d" "$log"
fi
if ! grep -q "run.sh: $passed passed" "$log"; then
	echo "not ok - kernel log could not be read"
	failed=$((failed + 1))
fi
# Where fault_injection has them fail vmalloc() says where it was, and the tracing core warns: no splats there, and
# only there. scripts/emulib/checks/debug_tests.py knows them, too.
case " $* " in
*' fault_injection '* | *' fault_injection:'*)
	awk '/vmalloc error: size|at event_define_fields/ { own = 1 } !own; /Mem-Info:|end trace/ { own = 0 }' "$log" >"$out"
	;;
*) cp "$log" "$out" ;;
esac
# EEH says where it was told of an error, which is no splat, and which only the test "eeh" has it do.
case " $* " in *' eeh '* | *' eeh:'*) sed -i '/EEH: Call Trace:/d' "$out" ;; esac
if grep -F -f splats.txt "$out"; then
	echo "not ok - kernel log"
	failed=$((failed + 1))
else
	echo "ok - kernel log has no splat"
	passed=$((passed + 1))
fi

# What a debug kernel has found and no message tells. Lockdep says that it gives up, but what comes after that it does
# not see; kmemleak says nothing before it is asked.
if [ -e /proc/lockdep_stats ]; then
	if grep -q 'debug_locks: *1$' /proc/lockdep_stats; then
		echo "ok - lockdep watched to the end"
		passed=$((passed + 1))
	else
		echo "not ok - lockdep switched itself off"
		failed=$((failed + 1))
	fi
fi
leaks=/sys/kernel/debug/kmemleak
if [ -e $leaks ]; then
	# What is younger than 5 s is no suspect, nor what changed between two scans.
	sleep 6
	if echo scan >$leaks && sleep 1 && echo scan >$leaks && [ -z "$(cat $leaks)" ]; then
		echo "ok - no memory leaked"
		passed=$((passed + 1))
	else
		cat $leaks
		echo "not ok - memory leaked, or kmemleak switched itself off"
		failed=$((failed + 1))
	fi
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
