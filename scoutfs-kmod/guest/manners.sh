#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What administrators do to a mount, in a guest: it is frozen, and mounted elsewhere with owners mapped: manners.sh SCOUTFS IDMAP. The
# module is loaded; DISK_A and DISK_B are one disk. IDMAP is the program of idmap.c.
set -eu
. "$(dirname "$0")/words.sh"
scoutfs=$1
idmap=$2
first=/mnt/first
second=/mnt/second
mapped=/mnt/mapped
mkdir -p $first $second $mapped
"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $first
"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_B" $second

refused() {
    if "$@" 2> /dev/null; then fail "not refused: $*"; fi
}
# refused_because TEXT COMMAND: the last that it says ends so.
refused_because() {
    text=$1
    shift
    if said=$("$@" 2>&1); then fail "not refused: $*"; fi
    case $said in
        *"$text") ;;
        *) fail "$*: '$said' where '$text' should be" ;;
    esac
}
# Runs a program that waits for the thaw.
waiting=
waits() {
    "$@" &
    waiting="$waiting $!"
}
size() {
    stat -c %s "$1"
}
# holds FILE BYTES BYTE: so many bytes of one sort, and no others.
holds() {
    [ "$(tr -dc "$3" < "$1" | wc -c)" = "$2" ] && [ "$(size "$1")" = "$2" ]
}
has_grown() {
    [ "$(size "$1")" -gt "$2" ]
}

echo "frozen"
for name in read written removed theirs attributes; do
    echo $name > $first/$name
done
head -c 65536 /dev/zero > $first/memory
# One program writes all the time, another has written to memory.
sh -c "while :; do echo line >> $first/log; done" &
writer=$!
mkfifo /tmp/commands
xfs_io $first/memory < /tmp/commands > /dev/null &
mapper=$!
exec 4> /tmp/commands
printf 'mmap -rw 0 65536\nmwrite -S 0x61 0 65536\n' >&4
until_true holds $first/memory 65536 a
until_true has_grown $first/log 100
fsfreeze -f $first
refused_because "Device or resource busy" fsfreeze -f $first
before=$(size $first/log)
printf 'mwrite -S 0x62 0 65536\n' >&4
waits touch $first/new
waits mkdir $first/new-dir
waits rm $first/removed
waits ln -s target $first/new-link
waits dd if=/dev/zero of=$first/written bs=4k count=1 conv=notrunc status=none
waits fallocate -l 100000 $first/written
waits chmod 600 $first/attributes
waits setfattr -n user.a -v b $first/attributes
waits "$scoutfs" set-attr-x --project_id 7 $first/attributes
sleep 1
for pid in $writer $mapper $waiting; do
    if ended "$pid"; then fail "a program did not wait: $pid"; fi
done
same "$(size $first/log)" "$before" "the size of what is written all the time"
holds $first/memory 65536 a || fail "a program has changed memory"
same "$(cat $first/read)" read "what is read"
same "$(ls $first | wc -l)" 7 names
sync $first/read
df $first > /dev/null
# Another node is not frozen, and gets the locks.
same "$(cat $second/log | wc -c)" "$before" "what another node reads"
echo changed > $second/theirs
echo made > $second/made
rm $second/read
same "$(cat $first/theirs)" changed "what another node has changed"
same "$(cat $first/made)" made "what another node has made"
refused stat $first/read
holds $second/memory 65536 a || fail "memory, on another node"

echo "thawed"
fsfreeze -u $first
for pid in $waiting; do
    wait "$pid" || fail "what had waited failed"
done
until_true has_grown $first/log "$before"
kill $writer
wait $writer || true
until_true holds $first/memory 65536 b
printf 'quit\n' >&4
exec 4>&-
wait $mapper
same "$(sort -u $second/log)" line "what was written all the time"
same "$(size $second/written)" 100000 "what another node sees"
same "$(stat -c %a $second/attributes)" 600 "what another node sees"
same "$("$scoutfs" get-attr-x --project_id $second/attributes)" 7 "what another node sees"
refused stat $second/removed
refused fsfreeze -u $first

echo "unmounted while it is frozen"
fsfreeze -f $first
umount $first
"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $first
# It is the mount from before.
waits touch $first/after
sleep 0.5
[ ! -e $first/after ] || fail "a mount from before is not frozen"
fsfreeze -u $first
until_true [ -e $first/after ]

echo "owners are mapped"
as() {
    id=$1
    shift
    setpriv --reuid "$id" --regid "$id" --clear-groups "$@"
}
# as_member ID GROUP
as_member() {
    id=$1
    group=$2
    shift 2
    setpriv --reuid "$id" --regid "$id" --groups "$group" "$@"
}
# owners NAME HERE THERE: on the volume, and by the mount that maps.
owners() {
    same "$(stat -c %u:%g $first/ids/"$1")" "$2" "owners of $1"
    same "$(stat -c %u:%g $mapped/"$1")" "$3" "owners of $1, mapped"
    same "$(stat -c %u:%g $second/ids/"$1")" "$2" "owners of $1, on another node"
}
too_large="Value too large for defined data type"
denied="Permission denied"
no="Operation not permitted"
mkdir $first/ids $first/ids/open
chown 1000:1000 $first/ids $first/ids/open
chmod 777 $first/ids/open
echo root > $first/ids/root
chmod 600 $first/ids/root
echo old > $first/ids/old
chown 1000:1001 $first/ids/old
chmod 600 $first/ids/old
"$idmap" 1000 2000 10 $first/ids $mapped
owners old 1000:1001 2000:2001
owners root 0:0 65534:65534
owners . 1000:1000 2000:2000

echo "who may do what"
same "$(as 2000 cat $mapped/old)" old "what its owner reads"
same "$(as 1000 cat $first/ids/old)" old "what its owner reads"
refused_because "$denied" as 1000 cat $mapped/old
refused_because "$denied" as 2000 cat $first/ids/old
refused_because "$denied" cat $mapped/root
cp "$scoutfs" /tmp/scoutfs
as 2000 /tmp/scoutfs list-hidden-xattrs $mapped/old
refused_because "$no" as 1000 chmod 644 $mapped/old
as 2000 chmod 640 $mapped/old
same "$(stat -c %a $first/ids/old)" 640 mode
same "$(as_member 3000 2001 cat $mapped/old)" old "what its group reads"
refused_because "$denied" as_member 3000 1001 cat $mapped/old
as 2000 touch -d '2001-02-03 04:05:06 UTC' $mapped/old
as 2000 setfattr -n user.a -v b $mapped/old
refused_because "$denied" as 1000 setfattr -n user.a -v c $mapped/old
as 2000 truncate -s 2 $mapped/old
same "$(cat $first/ids/old)" ol content

echo "whose what is new is"
as 2000 sh -c "cd $mapped && echo new > new && mkdir dir && ln -s new symlink && mkfifo fifo && ln new link && mv new moved"
as 2000 xfs_io -T -c "flink $mapped/unnamed" $mapped
as 2001 xfs_io -f -c quit $mapped/open/theirs
for name in moved dir symlink fifo link unnamed; do
    owners $name 1000:1000 2000:2000
done
owners open/theirs 1001:1001 2001:2001
for who in 1000 0 3000; do
    refused_because "$too_large" as $who touch $mapped/open/new
    refused_because "$too_large" as $who mkdir $mapped/open/new
    refused_because "$too_large" as $who ln -s target $mapped/open/new
    refused_because "$too_large" as $who mkfifo $mapped/open/new
    refused_because "$too_large" as $who xfs_io -T -c quit $mapped/open
done
refused stat $first/ids/open/new
# On the volume itself they may.
as 2000 touch $first/ids/open/unmapped
owners open/unmapped 2000:2000 65534:65534

echo "giving away"
chown 2003:2004 $mapped/moved
owners moved 1003:1004 2003:2004
chown 2005 $mapped/moved
owners moved 1005:1004 2005:2004
chown 1006:1007 $first/ids/moved
owners moved 1006:1007 2006:2007
refused_because "$too_large" chown 1000 $mapped/moved
refused_because "$too_large" chgrp 0 $mapped/moved
refused chown 2000 $mapped/root
refused_because "$no" as 2006 chown 2000 $mapped/moved
refused_because "$no" as 2006 chgrp 2001 $mapped/moved
as_member 2006 2001 chgrp 2001 $mapped/moved
owners moved 1006:1001 2006:2001

echo "set-group-ID"
as_member 2006 2001 chmod 2755 $mapped/moved
same "$(stat -c %a $first/ids/moved)" 2755 "mode by a member"
as 2006 chmod 2711 $mapped/moved
same "$(stat -c %a $first/ids/moved)" 711 "mode by who is none"
for who in 2001 1001; do
    setfacl -b $first/ids/moved
    chmod 2755 $first/ids/moved
    as_member 2006 $who setfacl -m u:2002:r $mapped/moved
    case $who in
        2001) same "$(stat -c %a $first/ids/moved)" 2755 "mode after a list by a member" ;;
        *) same "$(stat -c %a $first/ids/moved)" 755 "mode after a list by who is none" ;;
    esac
done
mkdir $first/ids/group
chown 1000:1001 $first/ids/group
chmod 2777 $first/ids/group
as 2003 touch $mapped/group/file
as 2003 mkdir $mapped/group/dir
owners group/file 1003:1001 2003:2001
owners group/dir 1003:1001 2003:2001
same "$(stat -c %a $first/ids/group/dir)" 2755 "a new directory's mode"
as 2003 sh -c "umask 0; xfs_io -f -m 02775 -c quit $mapped/group/runs"
same "$(stat -c %a $first/ids/group/runs)" 775 "a new file's mode by who is no member"
as_member 2003 2001 sh -c "umask 0; xfs_io -f -m 02775 -c quit $mapped/group/runs-too"
same "$(stat -c %a $first/ids/group/runs-too)" 2775 "a new file's mode by a member"

echo "access control lists"
listed() {
    getfacl -cnp "$1" | grep "$2" || true
}
echo list > $first/ids/list
chown 1000:1000 $first/ids/list
chmod 600 $first/ids/list
as 2000 setfacl -m u:2005:r,g:2006:rw $mapped/list
same "$(listed $first/ids/list ^user:1)" user:1005:r-- "a list"
same "$(listed $first/ids/list ^group:1)" group:1006:rw- "a list"
same "$(listed $mapped/list ^user:2)" user:2005:r-- "a list, mapped"
same "$(listed $second/ids/list ^user:1)" user:1005:r-- "a list, on another node"
same "$(as 2005 cat $mapped/list)" list "what who is in the list reads"
same "$(as 1005 cat $first/ids/list)" list "what who is in the list reads"
refused_because "$denied" as 1005 cat $mapped/list
refused_because "$denied" as 2005 sh -c "echo > $mapped/list"
as_member 3000 2006 sh -c "echo more >> $mapped/list"
refused setfacl -m u:1005:r $mapped/list
setfacl -m u:1005:r $first/ids/root
refused_because "$no" as 2001 setfacl -b $mapped/list
setfacl -d -m u:1007:rwx $first/ids/dir
same "$(listed $mapped/dir ^default:user:2)" default:user:2007:rwx "a default list, mapped"
as 2000 touch $mapped/dir/heir
same "$(listed $first/ids/dir/heir ^user:1)" "user:1007:rwx	#effective:rw-" "a list that is handed down"
umount $mapped
umount $first
umount $second
