#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Mounts and unmounts, loads and unloads, and looks whether memory is lost, and whether a kernel takes a module that is not for it: rounds.sh MODULE SCOUTFS DEVICE ROUNDS. The module is not loaded
# before and after.
set -eu
module=$1
scoutfs=$2
device=$3
rounds=$4

# KiB that the kernel does not give back.
kept() {
    sync
    echo 3 > /proc/sys/vm/drop_caches
    sleep 1
    awk '/^(SUnreclaim|VmallocUsed|KernelStack|PageTables):/ { sum += $2 } END { print sum }' /proc/meminfo
}
# A round leaves something in the filesystem's and the network's hands.
round() {
    "$scoutfs" mount -o server_addr=127.0.0.1 "$device" /mnt/scoutfs
    echo "$1" > /mnt/scoutfs/file
    mkdir -p "/mnt/scoutfs/dir/$1"
    ls -lR /mnt/scoutfs > /dev/null
    rmdir "/mnt/scoutfs/dir/$1"
    umount /mnt/scoutfs
}
# fails NAME BEFORE AFTER ROUNDS: a round may keep 64 bytes, which is what measuring costs, and all together 512 KiB.
compare() {
    grown=$(($3 - $2))
    echo "$1: $2 KiB before, $3 KiB after $4 rounds"
    # A debug kernel keeps what was freed, and notes of everything. Its leak detector knows what is lost.
    [ ! -e /proc/lockdep_stats ] || return 0
    [ $grown -le $((512 + $4 / 16)) ] || {
        echo "FAILED: $1: $grown KiB are lost"
        exit 1
    }
}

# One that was built for another kernel is refused, and the log says why.
LC_ALL=C sed 's/vermagic=[0-9]/vermagic=0/' "$module" > /run/other.ko
if cmp -s "$module" /run/other.ko || insmod /run/other.ko 2> /dev/null; then
    echo "FAILED: a module for another kernel is loaded"
    exit 1
fi
dmesg | grep -q 'scoutfs: version magic .* should be'
rm /run/other.ko

insmod "$module"
n=0
while [ $n -lt 5 ]; do
    round warm-$n
    n=$((n + 1))
done
before=$(kept)
n=0
while [ $n -lt "$rounds" ]; do
    round $n
    n=$((n + 1))
    [ $((n % 100)) != 0 ] || echo "$n rounds: $(kept) KiB"
done
compare mounts "$before" "$(kept)" "$rounds"
rmmod scoutfs

loads=$((rounds / 10))
before=$(kept)
n=0
while [ $n -lt $loads ]; do
    insmod "$module"
    round load-$n
    rmmod scoutfs
    n=$((n + 1))
done
compare loads "$before" "$(kept)" $loads
