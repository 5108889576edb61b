# SPDX-License-Identifier: GPL-2.0-only
# The second of two guests, with two nodes: one by the kernel, and one by FUSE over another disk of the same image.
m=/mnt/second
f=/mnt/fuse
join "$DISK_A" $m "server_addr=10.7.0.$NODE:7001"
join "$DISK_B" $f "server_addr=10.7.0.$NODE:7002,fuse"
mounted_as $m scoutfs
mounted_as $f fuseblk.scoutfs
say others-mounted

echo "second: what one makes the others see"
absent $m/dir || fail "there too early"
await made
for d in $m $f; do
    same "$(cat $d/dir/file)" hello "another node's data on $d"
    same "$(stat -c %h $d/dir/file)" 2 "another node's links on $d"
    same "$(readlink $d/dir/symlink)" file "another node's symbolic link on $d"
done
echo "the second's" > $m/dir/answer
same "$(cat $f/dir/answer)" "the second's" "the kernel's data over FUSE"
echo more >> $f/dir/file
chmod 640 $m/dir/file
same "$(stat -c %a $f/dir/file)" 640 "the kernel's mode over FUSE"
same "$(tail -n 1 $m/dir/file)" more "data over FUSE in the kernel"
say answered
await changed
for d in $m $f; do
    same "$(cat $d/dir/answer)" "the first's" "data that changed on $d"
    absent $d/dir/link || fail "$d: what was removed is there"
    absent $d/dir/symlink || fail "$d: what was renamed is there"
    same "$(readlink $d/moved)" file "what was renamed on $d"
    same "$(stat -c %h $d/dir/file)" 1 "links on $d"
    same "$(ls $d/dir | tr '\n' ' ')" "answer file " "entries on $d"
done
say gone-seen

echo "second: to and fro"
ping_pong $m/ball 1 60
await played

echo "second: appending together"
for d in $m $f; do
    (
        n=0
        while [ $n -lt 100 ]; do
            echo "$d $n" >> $d/log
            n=$((n + 1))
        done
    ) &
done
wait
await appended

echo "second: ioctls over FUSE"
# The daemon reads and writes the caller's memory. Nobody changes anything meanwhile: the first node waits, and has synced.
sync
[ "$("$SCOUTFS" walk-inodes meta_seq 0 -1 $f | wc -l)" -gt 3 ] || fail "an ioctl over FUSE tells little"
same "$("$SCOUTFS" walk-inodes data_seq 0 -1 $f)" "$("$SCOUTFS" walk-inodes data_seq 0 -1 $m)" "what an ioctl tells over FUSE"

echo "second: appended"
say others-appended
same "$(wc -l < $m/log)" 300 "lines of all"
cmp $m/log $f/log

echo "second: a tree"
cp -a "$TREE" $m/tree-of-second
await copied
say others-copied
for d in $m $f; do
    diff -r "$TREE" $d/tree-of-first
    diff -r "$TREE" $d/tree-of-second
done
await compared
say others-compared

echo "second: when the first is dead"
await first-dead
# What it had synced is there, and the volume goes on.
for d in $m $f; do
    while read -r n; do
        same "$(cat $d/synced-$n)" "$n" "what a dead node had synced, on $d"
    done < "$MEET/synced"
done
echo alive > $m/after
same "$(cat $f/after)" alive "data after a death"
rm -r $f/tree-of-first
absent $m/tree-of-first || fail "what was removed after a death is there"
say survived

# The first comes back.
await back
same "$(cat $m/back)" "from the dead" "data of a node that came back"
umount $f
umount $m
rmmod scoutfs
