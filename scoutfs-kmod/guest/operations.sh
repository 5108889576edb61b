#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Operations on a mounted volume, in a guest: operations.sh DIRECTORY SOURCE COOKIE. Fails at the first that does not do what it should.
# Leaves SOURCE's copy in DIRECTORY/tree. COOKIE is a module of the tests.
set -eu
. "$(dirname "$0")/words.sh"
cd "$1"
source=$2
cookie=$3

refused() {
    if "$@" 2>/dev/null; then fail "not refused: $*"; fi
}

echo "names"
mkdir dir
echo hello > dir/file
same "$(cat dir/file)" hello content
same "$(stat -c %s dir/file)" 6 size
ln dir/file link
same "$(stat -c %h dir/file)" 2 links
ln -s dir/file symlink
same "$(readlink symlink)" dir/file target
same "$(cat symlink)" hello "content through a symbolic link"
mv link dir/moved
refused stat link
same "$(stat -c %i dir/file)" "$(stat -c %i dir/moved)" inode
refused rmdir dir
refused mkdir dir
mkfifo fifo
mknod null c 1 3
same "$(stat -c %t:%T null)" 1:3 device
echo lost > null
echo other > other
mv other dir/moved
same "$(cat dir/moved)" other "a name that was replaced"
rm dir/file dir/moved symlink fifo null
rmdir dir
refused stat dir

echo "attributes"
echo x > file
chmod 4750 file
same "$(stat -c %a file)" 4750 mode
chown 12:34 file
same "$(stat -c %u:%g file)" 12:34 owner
touch -d '2001-02-03 04:05:06.123456789 UTC' file
same "$(stat -c %.9Y file)" 981173106.123456789 mtime
echo more >> file
same "$(cat file)" "x
more" appended
truncate -s 100000 file
same "$(stat -c %s file)" 100000 size
same "$(tail -c 99993 file | tr -d '\000' | wc -c)" 0 zeros
truncate -s 1 file
truncate -s 10 file
same "$(od -An -c file | tr -d ' \n')" 'x\0\0\0\0\0\0\0\0\0' "what was cut off does not come back"
rm file

echo "data"
head -c 3000000 /dev/urandom > /tmp/random
cp /tmp/random data
cmp data /tmp/random
dd if=/tmp/random of=data bs=777 seek=1000 conv=notrunc status=none
dd if=/tmp/random of=/tmp/random.2 bs=3000000 count=1 status=none
dd if=/tmp/random of=/tmp/random.2 bs=777 seek=1000 conv=notrunc status=none
cmp data /tmp/random.2
dd if=data of=/tmp/direct bs=65536 iflag=direct status=none
cmp /tmp/direct /tmp/random.2
dd if=/tmp/random of=direct bs=65536 oflag=direct conv=fsync status=none
cmp direct /tmp/random
echo 3 > /proc/sys/vm/drop_caches
cmp direct /tmp/random
cmp data /tmp/random.2
fallocate -p -o 4096 -l 100000 direct
same "$(dd if=direct bs=1 skip=4096 count=100000 status=none | tr -d '\000' | wc -c)" 0 "a hole"
cmp -n 4096 direct /tmp/random
fallocate -l 5000000 preallocated
same "$(stat -c %s preallocated)" 5000000 "a size"
[ "$(stat -c %b preallocated)" -ge 9000 ] || fail "too few blocks"
truncate -s 1000000000 sparse
echo end >> sparse
same "$(stat -c %s sparse)" 1000000004 "a size"
[ "$(stat -c %b sparse)" -le 16 ] || fail "a sparse file has blocks"
rm data direct preallocated sparse

echo "where data are"
head -c 1000000 /dev/urandom > mapped
truncate -s 3000000 mapped
head -c 1000 /dev/urandom >> mapped
fallocate -n -o 4000000 -l 100000 mapped
# The VFS's own call. Extents and what they hold: written data at both ends of a hole, and blocks that wait for data.
filefrag -v -s mapped > /tmp/map
same "$(awk '$1 ~ /^[0-9]+:$/ { sum += $6 } END { print sum + 0 }' /tmp/map)" $((245 + 1 + 25)) "blocks that are mapped"
same "$(awk '$1 == "0:" { print $2 }' /tmp/map)" 0.. "the first block"
same "$(grep -c unwritten /tmp/map)" 1 "extents without data"
same "$(grep -c last /tmp/map)" 1 "last extents"
same "$(tail -n 2 /tmp/map | head -n 1 | grep -c 'last,unwritten\|unwritten,last')" 1 "the last extent"
refused filefrag -v symlink
rm mapped

echo "how often an inode has changed"
version() {
    insmod "$cookie" path="$PWD/$1" 2> /dev/null || true
    dmesg | sed -n 's/.*scoutfs_cookie: cookie //p' | tail -n 1
}
# changed WHAT: that the file has, since it was asked last.
changed() {
    now=$(version counted)
    [ "$now" -gt "$before" ] || fail "$1 does not count: $before, then $now"
    before=$now
}
: > counted
before=$(version counted)
[ -n "$before" ] || fail "no version"
echo more > counted
changed "a write"
truncate -s 100 counted
changed "a truncation"
chmod 600 counted
changed "a mode"
setfattr -n user.one -v first counted
changed "an attribute"
ln counted counted-too
changed "a link"
cat counted > /dev/null
same "$(version counted)" "$before" "a version when nothing changed"
before=$(version .)
rm counted counted-too
now=$(version .)
[ "$now" -gt "$before" ] || fail "names do not count in their directory"

echo "unlinked and open"
echo alive > open
exec 3< open
rm open
same "$(cat <&3)" alive content
exec 3<&-

echo "extended attributes"
echo x > file
setfattr -n user.one -v first file
setfattr -n user.two -v second file
same "$(getfattr --only-values -n user.one file)" first value
setfattr -x user.one file
refused getfattr -n user.one file
same "$(getfattr -d file 2>/dev/null | grep -c user.)" 1 "attributes"
setfacl -m u:77:rw file
same "$(getfacl -cn file 2>/dev/null | grep ^user:77:)" user:77:rw- "access control list"
same "$(stat -c %a file)" 664 "mode with a list"
chmod 600 file
same "$(getfacl -cn file 2>/dev/null | grep ^mask)" mask::--- "the mask follows the mode"
setfacl -b file
rm file

echo "a tree"
cp -a "$source" tree
diff -r "$source" tree
mkdir many
i=0
while [ $i -lt 500 ]; do
    : > "many/file-$i"
    i=$((i + 1))
done
same "$(ls many | wc -l)" 500 "entries"
find many -name 'file-*[02468]' -delete
same "$(ls many | wc -l)" 250 "entries"
rm -r many
sync
echo 2 > /proc/sys/vm/drop_caches
diff -r "$source" tree
df . | tail -1

echo "what the kernel tells of the mount"
folder=$(echo /sys/fs/scoutfs/*)
same "${folder##*/}" "$(cat "$folder/fsid").$(cat "$folder/rid")" "the folder's name"
[ "$(awk '$1 == "op_create" { print $2 }' "$folder/counters")" -ge 500 ] || fail "too few creates were counted"
[ "$(cat "$folder/lease_ms")" -gt 0 ] || fail "no lease"
same "$(grep -c . "$folder/quorum")" 3 "lines about the leader"
grep -qx 'role leader' "$folder/quorum" || fail "it does not lead: $(cat "$folder/quorum")"
grep -qx "server_addr=$(cat "$folder/server_addr")" "$folder/options" || fail "options are $(cat "$folder/options")"
shown=$(awk -v at="$PWD" 'index(at, $2) == 1 && $3 == "scoutfs" { print $4 }' /proc/mounts | tail -1)
for option in $(cat "$folder/options"); do
    case ",$shown," in *",$option,"*) ;; *) fail "$option is not in $shown" ;; esac
done

echo "memory is given back"
count() {
    awk -v name=$1 '$1 == name { print $2 }' "$folder/counters"
}
find . -type f | xargs stat > /dev/null
items=$(count item_cache_bytes)
blocks=$(count block_cache_blocks)
[ "$items" -gt 50000 ] || fail "few items are kept: $items bytes"
[ "$blocks" -gt 2 ] || fail "few blocks are kept: $blocks"
sync
# Twice: what was used lately is spared once.
echo 2 > /proc/sys/vm/drop_caches
echo 2 > /proc/sys/vm/drop_caches
[ "$(count item_cache_bytes)" -lt $((items / 4)) ] || fail "items are kept: $(count item_cache_bytes) of $items bytes"
[ "$(count block_cache_blocks)" -lt "$blocks" ] || fail "blocks are kept: $(count block_cache_blocks) of $blocks"
diff -r "$source" tree
echo "all done"
