#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The first process of a guest, whose root is the host's (hostfs): runs the script that run= names on the kernel's command line, puts
# its exit code into the file that result= names, and powers off.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs mnt /mnt
mkdir -p /mnt/scoutfs
busybox ifconfig lo up
run=
result=
read -r line < /proc/cmdline
for word in $line; do
    case $word in
        run=*) run=${word#run=} ;;
        result=*) result=${word#result=} ;;
    esac
done
sh "$run"
echo $? > "$result"
busybox poweroff -f
