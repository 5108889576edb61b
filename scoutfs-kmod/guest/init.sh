#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The first process of a guest, whose root is the host's (hostfs or 9p): runs the script that run= names on the kernel's command line, puts
# its exit code into the file that result= names, lets a debug kernel say what it has found, and powers off. folder= names the folder
# that can be written to, where the root can not; end=reboot is for a machine that ends when it starts again.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs mnt /mnt
# Namespaces of the network have names there.
mount -t tmpfs run /run
# The project may be there.
project=${0%/scoutfs-kmod/guest/init.sh}
case $project in
    /tmp/*)
        mkdir /mnt/project
        mount --bind "$project" /mnt/project
        mount -t tmpfs tmp /tmp
        mkdir -p "$project"
        mount --move /mnt/project "$project"
        rmdir /mnt/project
        ;;
    *) mount -t tmpfs tmp /tmp ;;
esac
mkdir -p /mnt/scoutfs
busybox ifconfig lo up
run=
result=
folder=
end=poweroff
read -r line < /proc/cmdline
for word in $line; do
    case $word in
        run=*) run=${word#run=} ;;
        result=*) result=${word#result=} ;;
        folder=*) folder=${word#folder=} ;;
        end=*) end=${word#end=} ;;
        patience=*) export PATIENCE="${word#patience=}" ;;
    esac
done
[ -z "$folder" ] || mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 folder "$folder"
# What scripts have: DISK_A, DISK_B, and so on; WIRE; PATIENCE, how much slower than others this machine is.
for disk in /sys/block/ubd? /sys/block/vd?; do
    [ -e "$disk" ] || continue
    name=${disk##*/}
    case $name in
        ubd*) letter=${name#ubd} ;;
        *) letter=$(cat "$disk/serial") ;;
    esac
    export "DISK_$(echo "$letter" | tr a-z A-Z)=/dev/$name"
done
for card in vec0 eth0; do
    [ ! -e /sys/class/net/$card ] || export WIRE=$card
done
sh "$run"
code=$?
# After its first report lockdep looks for nothing more.
if [ -e /proc/lockdep_stats ] && ! grep -q 'debug_locks: *1$' /proc/lockdep_stats; then
    echo "lockdep is off"
fi
leaks=/sys/kernel/debug/kmemleak
if mount -t debugfs debug /sys/kernel/debug 2> /dev/null && [ -e $leaks ]; then
    # What is younger than five seconds is not looked at, and what has changed since the last time is not told of.
    sleep 6
    echo scan > $leaks
    sleep 1
    echo scan > $leaks
    cat $leaks
fi
echo $code > "$result"
busybox $end -f
