# SPDX-License-Identifier: GPL-2.0-only
# The first of two guests: one mount by the kernel. It is killed in the end. TREE is a folder to copy.
m=/mnt/first
join "$DISK_A" $m "server_addr=10.7.0.$NODE"
mounted_as $m scoutfs

echo "first: what one makes the others see"
await others-mounted
mkdir $m/dir
echo hello > $m/dir/file
ln $m/dir/file $m/dir/link
ln -s file $m/dir/symlink
say made
await answered
same "$(cat $m/dir/answer)" "the second's" "another node's file"
same "$(stat -c %a $m/dir/file)" 640 "another node's mode"
same "$(cat $m/dir/file)" "hello
more" "another node's data"
echo "the first's" > $m/dir/answer
rm $m/dir/link
mv $m/dir/symlink $m/moved
say changed
await gone-seen

echo "first: to and fro"
ping_pong $m/ball 0 60
say played

echo "first: appending together"
n=0
while [ $n -lt 100 ]; do
    echo "first $n" >> $m/log
    n=$((n + 1))
done
sync
say appended
await others-appended
same "$(grep -c first $m/log)" 100 "own lines"
same "$(wc -l < $m/log)" 300 "lines of all"

echo "first: a tree"
cp -a "$TREE" $m/tree-of-first
say copied
await others-copied
diff -r "$TREE" $m/tree-of-second
same "$(find $m/tree-of-first | wc -l)" "$(find "$TREE" | wc -l)" "entries"
say compared
await others-compared

echo "first: until it dies"
n=0
while :; do
    echo $n > $m/synced-$n
    sync $m/synced-$n
    echo $n >> "$MEET/synced"
    n=$((n + 1))
    [ $n -lt 20 ] || echo killable
done
