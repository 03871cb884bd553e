#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# nvlink2ctl on a host with GPUs, as root; prints TAP. What it says is compared with sysfs and
# the device tree, read here without its help.
#
# run.sh NVLINK2CTL RECORDINGS GPUS: the host has so many GPUs, and RECORDINGS <GPUS>-gpus.json and -bound.json.

set -u
ctl=$1
recordings=$2
wanted_gpus=$3
driver=nvlink2-vfio-pci
devices=/sys/bus/pci/devices
tmp=$(mktemp -d) || exit 1
count=0
planned=26

# Reports the test named $1 by the exit status of the command before; the details are in $tmp/log.
report() {
	status=$?
	count=$((count + 1))
	if [ $status = 0 ]; then
		echo "ok $count $1"
	else
		echo "not ok $count $1"
		sed 's/^/# /' "$tmp/log"
	fi
	: >"$tmp/log"
}

log() {
	echo "$*" >>"$tmp/log"
}

# Runs nvlink2ctl and expects the exit status $1.
expect() {
	wanted=$1
	shift
	"$ctl" "$@" >"$tmp/out" 2>&1
	got=$?
	[ $got = "$wanted" ] && return
	log "nvlink2ctl $*: exit status $got, not $wanted"
	cat "$tmp/out" >>"$tmp/log"
	return 1
}

# The driver of a function, or nothing.
driver_of() {
	[ -d "$devices/$1" ] || { echo "(no device)"; return; }
	link=$(readlink "$devices/$1/driver") && basename "$link"
}

# A property of a function's node in hexadecimal, without spaces.
hex() {
	hexdump -v -e '1/1 "%02x"' "$devices/$1/of_node/$2"
}

# The value that 'show' has for $2, which may have spaces in it.
shown() {
	"$ctl" show "$1" | sed -n "s/^ $2  *//p"
}

# All functions with their drivers and reservations: what must be the same after a rollback.
state() {
	for bdf in $all; do
		echo "$bdf $(driver_of "$bdf") $(cat "$devices/$bdf/driver_override")"
	done
}

gpus=
bridges=
for folder in "$devices"/*; do
	bdf=$(basename "$folder")
	[ -e "$folder/of_node/ibm,npu" ] && gpus="$gpus $bdf"
	[ -e "$folder/of_node/ibm,gpu" ] && bridges="$bridges $bdf"
done
all="$gpus $bridges"
number=$(echo "$gpus" | wc -w)
first=$(echo "$gpus" | awk '{ print $1 }')
last=$(echo "$bridges" | awk '{ print $NF }')
group=$(basename "$(readlink "$devices/$first/iommu_group")")
# A chip has six links: of a Redbud's GPU there are three, of a Sequoia's two.
links=$(($(wc -c <"$devices/$first/of_node/ibm,npu") / 4))
per_chip=$((6 / links))
chips=$((number / per_chip))

# The functions of the first GPU: itself, and the bridges that have its tgt.
tgt_of_first() {
	for bdf in $bridges; do
		[ "$(hex "$bdf" ibm,gpu)" = "$(hex "$first" phandle)" ] && hex "$bdf" ibm,device-tgt-addr && return
	done
}
family=$first
for bdf in $bridges; do
	[ "$(hex "$bdf" ibm,device-tgt-addr)" = "$(tgt_of_first)" ] && family="$family $bdf"
done

echo "1..$planned"

# All that follows goes over these lists: of none of them there would be nothing wrong.
host_is_the_one_that_was_asked_for() {
	log "GPUs: $gpus; bridges: $bridges; $wanted_gpus GPUs are wanted, with $links bridges each, on $chips chips"
	[ "$number" = "$wanted_gpus" ] && [ "$number" = $((chips * per_chip)) ] &&
		[ "$(echo "$bridges" | wc -w)" = $((chips * 6)) ] &&
		[ "$(echo "$family" | wc -w)" = $((1 + links)) ] && [ -n "$group" ]
}
host_is_the_one_that_was_asked_for
report host_is_the_one_that_was_asked_for

list_names_what_is_there() {
	"$ctl" list >"$tmp/list" || return
	[ "$(grep -c ' GPU ' "$tmp/list")" = "$number" ] || return
	[ "$(grep -c ' bridge ' "$tmp/list")" = "$(echo "$bridges" | wc -w)" ] || return
	for bdf in $all; do
		grep -q "^ $bdf " "$tmp/list" || return
	done
}
list_names_what_is_there
report list_names_what_is_there

# The rate of a lane for a code of ibm,nvlink-speed.
rate() {
	case $1 in
	00000008) echo "25.78125 Gb/s" ;;
	00000009) echo "25 Gb/s" ;;
	esac
}

show_says_what_the_device_tree_says() {
	for bdf in $bridges; do
		gpu=$(shown "$bdf" GPU)
		[ "$(printf '%016x' "$(shown "$bdf" tgt)")" = "$(hex "$bdf" ibm,device-tgt-addr)" ] || return
		[ "$(hex "$gpu" phandle)" = "$(hex "$bdf" ibm,gpu)" ] || return
		[ -n "$(shown "$bdf" speed)" ] && [ "$(shown "$bdf" speed)" = "$(rate "$(hex "$bdf" ibm,nvlink-speed)")" ] || return
		[ "$(shown "$bdf" 'IOMMU group')" = "$(basename "$(readlink "$devices/$bdf/iommu_group")")" ] || return
		# The ATSD register of link N is entry N of the NPU's list.
		link=$(shown "$bdf" link)
		atsd=$(hexdump -v -s $((link * 8)) -n 8 -e '1/1 "%02x"' "$devices/$bdf/of_node/../ibm,mmio-atsd")
		[ "$(printf '%016x' "$(shown "$bdf" 'ATSD registers')")" = "$atsd" ] || return
		# The memory node of a GPU's aperture is named after its address.
		base=$(shown "$gpu" aperture | cut -d, -f1)
		[ "$(hexdump -v -e '1/1 "%02x"' "/sys/firmware/devicetree/base/memory@${base#0x}/phandle")" = "$(hex "$bdf" memory-region)" ] || return
		log "$bdf is as it should be"
	done
}
show_says_what_the_device_tree_says
report show_says_what_the_device_tree_says

topology_counts_links() {
	"$ctl" topology --dot >"$tmp/dot" || return
	cat "$tmp/dot" >>"$tmp/log"
	# Each chip has six links to its GPUs, and each pair of these has as many as one of them has.
	[ "$(grep -c ' -- ' "$tmp/dot")" = $((chips * (6 + links * per_chip * (per_chip - 1) / 2))) ] || return
	[ "$(grep -c 'shape = box' "$tmp/dot")" = $((number + chips)) ]
}
topology_counts_links
report topology_counts_links

is_bridge_is_libvirts_rule() {
	for folder in "$devices"/*; do
		wanted=0
		for name in ibm,gpu ibm,nvlink ibm,nvlink-speed memory-region; do
			[ -e "$folder/of_node/$name" ] || wanted=1
		done
		expect $wanted is-bridge "$(basename "$folder")" || return
	done
	expect 2 is-bridge ffff:ff:1f.7
}
is_bridge_is_libvirts_rule
report is_bridge_is_libvirts_rule

recording_is_what_is_there() {
	"$ctl" --json list >"$tmp/live" || return
	"$ctl" --json --sysfs "$recordings/$number-$1.json" list >"$tmp/recorded" || return
	if ! diff "$tmp/live" "$tmp/recorded" >>"$tmp/log"; then
		log "$number-$1.json differs. If this change is meant: scripts/record nvlink2ctl"
		return 1
	fi
	# A new recording reads as the host does.
	"$ctl" record -o "$tmp/recording" || return
	"$ctl" --json --sysfs "$tmp/recording" list | diff "$tmp/live" - >>"$tmp/log" || return
	"$ctl" --json doctor >"$tmp/live"
	"$ctl" --json --sysfs "$tmp/recording" doctor | diff "$tmp/live" - >>"$tmp/log"
}
recording_is_what_is_there gpus
report recording_of_the_host_without_driver

# Writes the XML of a guest that has the functions $@.
write_guest() {
	cat >"$tmp/guest.xml" <<-END
		<domain type='kvm'>
		  <memory unit='GiB'>1</memory>
		  <os><type arch='ppc64' machine='pseries'>hvm</type></os>
		  <devices>
		    $(for bdf in "$@"; do "$ctl" libvirt-xml "$bdf" 2>>"$tmp/log"; done)
		  </devices>
		</domain>
	END
	cat "$tmp/guest.xml" >>"$tmp/log"
}

memlock_looks_host_devices_up() {
	write_guest "$1"
	expect 0 memlock --domain "$tmp/guest.xml" && grep -q "^$2 bytes$" "$tmp/out"
}
memlock_looks_host_devices_up "$first" 550863110144
report memlock_of_a_gpu_with_bridges
memlock_looks_host_devices_up "$last" 550863110144
report memlock_of_a_bridge

check_domain_answers() {
	write_guest "$first"
	expect 0 check-domain "$tmp/guest.xml" && ! grep -q FAILED "$tmp/out" || return
	# The same device twice is what libvirt would not define.
	write_guest "$first" "$first"
	expect 1 check-domain "$tmp/guest.xml" && grep -q "^FAILED  definition: .*PCI function $first" "$tmp/out"
}
check_domain_answers
report check_domain_answers

doctor_names_the_remedy() {
	expect 1 doctor && grep -q "^FAILED  binding: no GPU belongs" "$tmp/out" &&
		grep -q "'nvlink2ctl bind --all'" "$tmp/out" && [ "$(grep -c ^FAILED "$tmp/out")" = 1 ]
}
doctor_names_the_remedy
report doctor_names_the_remedy

belong_to() {
	wanted=$1
	shift
	for bdf in "$@"; do
		[ "$(driver_of "$bdf")" = "$wanted" ] && continue
		log "$bdf has the driver '$(driver_of "$bdf")', not '$wanted'"
		return 1
	done
}

bind_takes_a_gpu_with_its_bridges() {
	expect 0 bind "$first" || return
	# shellcheck disable=SC2086 # a list
	belong_to $driver $family || return
	for bdf in $all; do
		case " $family " in
		*" $bdf "*) ;;
		*) belong_to "" "$bdf" || return ;;
		esac
	done
	expect 0 doctor && grep -q '^note *binding' "$tmp/out"
}
bind_takes_a_gpu_with_its_bridges
report bind_takes_a_gpu_with_its_bridges

bind_takes_a_group() {
	expect 0 bind --group "$group" || return
	for bdf in $all; do
		if [ "$(basename "$(readlink "$devices/$bdf/iommu_group")")" = "$group" ]; then
			belong_to $driver "$bdf" || return
		else
			belong_to "" "$bdf" || return
		fi
	done
}
bind_takes_a_group
report bind_takes_a_group

# shellcheck disable=SC2086 # a list
bind_takes_all() {
	expect 0 bind --all && belong_to $driver $all
}
bind_takes_all
report bind_takes_all

recording_is_what_is_there bound
report recording_of_the_host_with_driver

doctor_is_content() {
	expect 0 doctor && ! grep -q FAILED "$tmp/out" && grep -q "This host is ready" "$tmp/out"
}
doctor_is_content
report doctor_is_content

list_shows_driver_and_lpar() {
	"$ctl" list >"$tmp/list"
	cat "$tmp/list" >>"$tmp/log"
	[ "$(grep -c " $driver *none " "$tmp/list")" = "$(echo "$all" | wc -w)" ]
}
list_shows_driver_and_lpar
report list_shows_driver_and_lpar

# An open group is in use by whoever opens it.
refuses_devices_in_use() {
	state >"$tmp/before"
	# shellcheck disable=SC2217 # it holds the file and reads nothing
	sleep 1000 <"/dev/vfio/$group" &
	user=$!
	expect 4 "$@" && grep -q "sleep (process $user) has /dev/vfio/$group open" "$tmp/out"
	result=$?
	kill $user
	wait $user 2>/dev/null
	state | diff "$tmp/before" - >>"$tmp/log" && return $result
}
refuses_devices_in_use unbind --all
report unbind_refuses_devices_in_use
refuses_devices_in_use bind --driver vfio-pci "$first"
report bind_refuses_devices_in_use

# A file in place of driver_override: the driver of the last function can't be changed, and the kernel says so.
rolls_back() {
	state >"$tmp/before"
	cat "$devices/$last/driver_override" >"$tmp/override"
	mount -o bind "$tmp/override" "$devices/$last/driver_override" || return
	expect 5 "$@" && grep -q "$last could not be" "$tmp/out"
	result=$?
	umount "$devices/$last/driver_override"
	state | diff "$tmp/before" - >>"$tmp/log" && return $result
}
rolls_back bind --driver vfio-pci --all
report bind_to_another_driver_rolls_back

refuses_a_missing_driver() {
	expect 4 bind --driver nvlink3 --all && grep -q "there is no driver nvlink3" "$tmp/out" &&
		belong_to $driver "$first"
}
refuses_a_missing_driver
report bind_refuses_a_missing_driver

# shellcheck disable=SC2086 # lists
unbind_gives_back() {
	expect 0 unbind "$first" || return
	belong_to "" $family || return
	expect 0 unbind --all || return
	belong_to "" $all || return
	for bdf in $all; do
		[ "$(cat "$devices/$bdf/driver_override")" = "(null)" ] || return
	done
}
unbind_gives_back
report unbind_gives_back

rolls_back bind --all
report bind_rolls_back

torn_gpu_is_found() {
	expect 0 bind "$first" && expect 0 unbind "${family##* }" || return
	expect 1 doctor && grep -q "^FAILED  binding: not all bridges of $first" "$tmp/out" || return
	expect 0 unbind "$first"
}
torn_gpu_is_found
report doctor_finds_a_gpu_without_a_bridge

# The function of a link goes away, as by an error of the link; the device tree keeps it.
lost_link_is_refused() {
	lost=${family##* }
	echo 1 >"$devices/$lost/remove" || return
	expect 4 bind "$first" && grep -q "$first: Linux has no PCI function for its bridge" "$tmp/out" &&
		expect 4 libvirt-xml "$first" && expect 4 qemu-args "$first" &&
		expect 1 doctor && grep -q "^FAILED  NVLink2 bridges: $first" "$tmp/out"
	result=$?
	echo 1 >/sys/bus/pci/rescan
	expect 0 bind "$first" && expect 0 unbind "$first" && return $result
}
lost_link_is_refused
report lost_link_is_refused

unloaded_driver_is_found() {
	rmmod nvlink2_vfio_pci || return
	expect 1 doctor && grep -q "^FAILED  driver: $driver is not loaded" "$tmp/out" || return
	expect 4 bind --all && grep -q "modprobe $driver" "$tmp/out" || return
	modprobe $driver
}
unloaded_driver_is_found
report unloaded_driver_is_found

json_of_every_command() {
	for command in list "show $first" topology "is-bridge $last" "memlock --memory 1GiB" "bind --all --dry-run" \
		"unbind --all --dry-run" "qemu-args --all" "libvirt-xml --all" doctor; do
		# shellcheck disable=SC2086 # words of a command
		"$ctl" --json $command >"$tmp/out" 2>"$tmp/err"
		# There is nothing here that parses it: who reads this does.
		echo "# json $command: $(tr '\n' ' ' <"$tmp/out")"
		[ ! -s "$tmp/err" ] || return
	done
	# Errors are JSON, too.
	expect 2 --json show ffff:00:00.0 && grep -q '"status": 2' "$tmp/out" &&
		echo "# json show ffff:00:00.0: $(tr '\n' ' ' <"$tmp/out")"
}
json_of_every_command
report json_of_every_command

# A test that was left out has failed.
if [ "$count" -ne "$planned" ]; then
	echo "not ok $((count + 1)) $count of $planned tests were run"
	exit 1
fi
