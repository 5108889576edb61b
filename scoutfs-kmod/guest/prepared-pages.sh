#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Programs change pages of files by mappings to memory; a node is fenced whose death nobody can confirm; the volume gets full; then
# the pages are written: prepared-pages.sh SCOUTFS. The module is loaded; DISK_A and DISK_B are one disk.
set -eu
. "$(dirname "$0")/words.sh"
scoutfs=$1
kernel=/mnt/kernel
fuse=/mnt/fuse

# sum OF_BYTES BYTE: what a file of so many bytes of one sort has.
sum() {
    head -c "$1" /dev/zero | tr '\0' "$2" | md5sum
}
holds() {
    [ "$(head -c "$2" "$1" | md5sum)" = "$(sum "$2" "$3")" ]
}

mkdir -p $kernel $fuse
"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $kernel
"$scoutfs" mount -f -o fuse "$DISK_B" $fuse &
daemon=$!
until_true grep -q " $fuse fuse" /proc/mounts
mkdir $kernel/ours $fuse/theirs
head -c 262144 /dev/zero | tr '\0' o > $kernel/ours/kept
sync $kernel/ours/kept
head -c 262144 /dev/zero | tr '\0' o > $fuse/theirs/taken
sync $fuse/theirs/taken

echo "pages that follow each other"
writes() {
    awk '$1 == "device_writes" { print $2 }' /sys/fs/scoutfs/*/counters
}
head -c 262144 /dev/zero > $kernel/ours/pieces
sync
echo 3 > /proc/sys/vm/drop_caches
before=$(writes)
# Page by page, so that each is a folio of its own.
xfs_io -c 'mmap -rw 0 262144' -c 'madvise -r 0 262144' -c 'mwrite -S 0x63 0 262144' -c 'msync -s 0 262144' $kernel/ours/pieces
writes=$(($(writes) - before))
echo "64 pages: $writes writes"
# What the mount writes by itself is among them.
[ $writes -le 32 ] || fail "they are not written together"
holds $kernel/ours/pieces 262144 c || fail "what was written together"

echo "a page of a file without others"
truncate -s 1M $kernel/ours/sparse
# The cache has it in folios as large as the kernel makes them.
holds $kernel/ours/sparse 1048576 '\0' || fail "a hole"
xfs_io -c 'mmap -rw 0 1048576' -c 'mwrite -S 0x64 524288 4096' -c 'msync -s 0 1048576' $kernel/ours/sparse
xfs_io -c 'pwrite -q -S 0x65 600000 10' -c fsync $kernel/ours/sparse
# A folio has 32 pages at most.
[ "$(stat -c %b $kernel/ours/sparse)" -le $((33 * 8)) ] || fail "too much has blocks: $(stat -c %b $kernel/ours/sparse)"
[ "$(tr -dc d < $kernel/ours/sparse | wc -c)" = 4096 ] || fail "what the page has"

echo "a page among others that nobody changes"
bytes() {
    awk '$1 == "device_write_bytes" { print $2 }' /sys/fs/scoutfs/*/counters
}
head -c 4194304 /dev/zero | tr '\0' w > $kernel/ours/whole
sync
echo 3 > /proc/sys/vm/drop_caches
holds $kernel/ours/whole 4194304 w || fail "a file"
before=$(bytes)
# One in each folio, however large the kernel makes them.
for page in $(seq 3 32 1023); do
    echo "pwrite -q -S 0x78 $((page * 4096 + 17)) 4"
done > /tmp/changes
echo fsync >> /tmp/changes
xfs_io $kernel/ours/whole < /tmp/changes > /dev/null
bytes=$(($(bytes) - before))
echo "32 pages: $bytes bytes"
# 128 KiB, and what the mount writes by itself; all folios have 4 MiB.
[ $bytes -lt 1500000 ] || fail "more is written than was changed"
[ "$(tr -dc x < $kernel/ours/whole | wc -c)" = 128 ] || fail "what the pages have"
rm $kernel/ours/sparse $kernel/ours/whole
sync

# A program for each file, which lives on: one changes pages before the fence, the other afterwards.
mkfifo /tmp/kept /tmp/taken
xfs_io $kernel/ours/kept < /tmp/kept > /tmp/kept.out 2>&1 &
keeper=$!
exec 4> /tmp/kept
printf 'mmap -rw 0 262144\nmwrite -S 0x61 0 262144\n' >&4
until_true holds $kernel/ours/kept 262144 a

echo "a node whose death nobody can confirm"
# It still has the lock of its file.
kill -KILL $daemon
wait $daemon || true
xfs_io $kernel/theirs/taken < /tmp/taken > /tmp/taken.out 2>&1 &
taker=$!
exec 5> /tmp/taken
printf 'mmap -rw 0 262144\nmwrite -S 0x62 0 262144\n' >&5
until_true holds $kernel/theirs/taken 262144 b

echo "a volume that is full"
dd if=/dev/zero of=$kernel/filler bs=1M 2> /dev/null && fail "it never got full"
sync
dd if=/dev/zero of=$kernel/more bs=4k count=1 2> /dev/null && fail "it is not full"
printf 'msync -s 0 262144\nfsync\nquit\n' >&4
printf 'msync -s 0 262144\nfsync\nquit\n' >&5
exec 4>&- 5>&-
wait $keeper || fail "the pages from before the fence are not written"
wait $taker || fail "the pages from after the fence are not written"
cat /tmp/kept.out /tmp/taken.out
! grep -q . /tmp/kept.out || fail "the pages from before the fence"
! grep -q . /tmp/taken.out || fail "the pages from after the fence"
umount -l $fuse
umount $kernel

"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $kernel
holds $kernel/ours/kept 262144 a || fail "what was changed before the fence is lost"
holds $kernel/ours/pieces 262144 c || fail "what was written together is lost"
holds $kernel/theirs/taken 262144 b || fail "what was changed after the fence is lost"
umount $kernel
