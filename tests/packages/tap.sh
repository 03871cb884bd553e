#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the tests of packages share, for them to read: TAP, and what drives a function. They set $planned, the number of tests.

n=0
echo "1..${planned:?}"

# is WHAT COMMAND...: one test, which passes if the command does.
is() {
	what=$1
	shift
	n=$((n + 1))
	if "$@" >/tmp/said 2>&1; then
		echo "ok $n $what"
	else
		echo "not ok $n $what"
		sed 's/^/# /' /tmp/said
	fi
}

driver() {
	[ -d "/sys/bus/pci/devices/$1" ] || { echo "(no device)"; return; }
	link=$(readlink "/sys/bus/pci/devices/$1/driver") || return
	echo "${link##*/}"
}

bound() {
	for device in $1; do
		[ "$(driver "$device")" = "$2" ] || { echo "$device: driver '$(driver "$device")'"; return 1; }
	done
}

# A test that was left out has failed.
finish() {
	if [ "$n" -ne "$planned" ]; then
		echo "not ok $((n + 1)) $n of $planned tests were run"
		exit 1
	fi
}
