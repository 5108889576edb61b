#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Works on a volume while the debug kernel lets the module's allocations or requests fail, in a guest: failures.sh SCOUTFS TREE KIND
# RATE..., where KIND is slab, page or io, and RATE says how many of a thousand fail. The module is loaded, the volume is on DISK_A. What
# a program is told of failures is its own matter; nothing may hang, and afterwards all is well.
set -eu
scoutfs=$1
tree=$2
kind=$3
shift 3
m=/mnt/scoutfs
debug=/sys/kernel/debug

fail() {
    echo "FAILED: $*"
    exit 1
}
mount -t debugfs debug $debug
case $kind in
    slab) where=$debug/failslab ;;
    page) where=$debug/fail_page_alloc ;;
    io) where=$debug/fail_make_request ;;
esac
set_to() {
    echo "$2" > $where/$1
}
# fail_of_thousand N
fail_of_thousand() {
    if [ "$1" -gt 10 ]; then
        set_to interval 1
        set_to probability $(($1 / 10))
    else
        set_to interval $(($1 > 0 ? 10 / $1 : 1))
        set_to probability $(($1 > 0))
    fi
}
# How many have failed since this was asked last.
failed() {
    echo $((MANY - $(cat $where/times)))
    set_to times $MANY
}
MANY=1000000000
set_to probability 0
set_to verbose 0
set_to times $MANY
set_to space 0
if [ $kind = io ]; then
    echo 1 > "/sys/block/${DISK_A#/dev/}/make-it-fail"
else
    # Also of those that may wait; all that are made in calls of the module's, by whichever thread.
    set_to ignore-gfp-wait N
    start=$(awk '$1 == "scoutfs" { print $6 }' /proc/modules)
    size=$(awk '$1 == "scoutfs" { print $2 }' /proc/modules)
    set_to require-start "$start"
    # Numbers of all 64 bits, which not every shell adds.
    set_to require-end "$(bash -c 'printf 0x%x $(($1 + $2))' - "$start" "$size")"
    if [ $kind = page ]; then
        set_to min-order 0
        set_to ignore-gfp-highmem N
    fi
fi

mounts() {
    "$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $m
}
# One program after the other, whose failure does not matter.
work() {
    for folder in $m/a; do
        mkdir $folder
        cp -a "$tree" $folder/tree
        sync $folder/tree
        dd if=/dev/zero of=$folder/data bs=100k count=10 conv=fsync
        dd if=$folder/data of=$folder/direct bs=64k oflag=direct
        xfs_io -f -c 'truncate 200k' -c 'mmap -rw 0 200k' -c 'mwrite -S 0x61 0 200k' -c 'msync -s 0 200k' $folder/mapped
        setfattr -n user.name -v value $folder/data
        setfacl -m u:77:rw $folder/data
        ln $folder/data $folder/link
        mv $folder/link $folder/moved
        mv $folder/moved $folder/direct
        truncate -s 1000 $folder/data
        fallocate -l 2m $folder/space
        fallocate -p -o 100k -l 1m $folder/space
        flock $folder/data true
        find $folder -type f | xargs cat
        ls -lR $m
        "$scoutfs" walk-inodes meta_seq 0 -1 $m
        df $m
        sync
        echo 3 > /proc/sys/vm/drop_caches
        grep -r nothing $folder
        rm -r $folder
    done > /dev/null 2>&1
    mkdir $m/kept
    n=0
    while [ $n -lt 50 ]; do
        echo $n > $m/kept/$n
        n=$((n + 1))
    done 2> /dev/null
    return 0
}
# What is listed is there, and what is not there is not listed.
names_are_true() {
    find $m | while read -r name; do
        [ -e "$name" ] || fail "$name is listed and not there"
    done
    [ ! -e $m/kept ] || ls $m/kept > /tmp/kept
    n=0
    while [ $n -lt 50 ]; do
        [ ! -e $m/kept/$n ] || grep -qx $n /tmp/kept || fail "kept/$n is there and not listed"
        n=$((n + 1))
    done
    rm -rf $m/kept
}
for rate in "$@"; do
    mounts
    if [ "$rate" = "$1" ]; then
        # Lockdep knows the core's locks.
        [ "$(grep -c 'scoutfs-[a-z]*/src/.*:' /proc/lockdep)" -gt 20 ] || fail "lockdep knows few of the core's locks"
    fi
    echo "$rate of a thousand fail"
    fail_of_thousand "$rate"
    set +e
    work
    set -e
    if [ $kind = io ]; then
        # The mount may have ended. It lets go with and without failures.
        umount $m
        fail_of_thousand 0
    else
        fail_of_thousand 0
        names_are_true
        echo "alive $rate" > $m/alive
        sync $m/alive
        umount $m
        mounts
        [ "$(cat $m/alive)" = "alive $rate" ] || fail "what was synced is lost"
        umount $m
    fi
    echo "mounts that fail or not"
    fail_of_thousand "$rate"
    n=0
    while [ $n -lt 4 ]; do
        # A mount that was made may wait for what it had no memory for.
        if timeout -s KILL 30 "$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $m 2> /dev/null; then
            echo "mounted" > $m/file 2> /dev/null || true
            umount $m
        fi
        n=$((n + 1))
    done
    fail_of_thousand 0
    failed=$(failed)
    echo "$failed have failed"
    [ "$failed" -gt 0 ] || fail "nothing has failed"
done
mounts
rm -rf $m/a
cp -a "$tree" $m/tree
diff -r "$tree" $m/tree
rm -r $m/tree
umount $m
umount $debug
