#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Programs that wait for a server that is gone are killed, in a guest: killed-programs.sh SCOUTFS. The module is loaded; DISK_A and
# DISK_B are one disk. One mount runs the server, the other can not.
set -eu
. "$(dirname "$0")/words.sh"
scoutfs=$1
server=/mnt/server
client=/mnt/client

holds() {
    [ "$(cat "$1")" = "$2" ]
}
# Runs a program that waits.
pids=
waits() {
    "$@" > /dev/null 2>&1 &
    pids="$pids $!"
}

mkdir -p $server $client
"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $server
"$scoutfs" mount "$DISK_B" $client
mkdir $server/dir
for name in read written locked removed mapped renamed; do
    echo $name > $server/dir/$name
done
echo open > $client/open
exec 3>> $client/open
# A program writes to memory, and wants it on the device when the server is gone.
mkfifo /tmp/commands
xfs_io $client/dir/mapped < /tmp/commands > /dev/null &
mapper=$!
exec 4> /tmp/commands
printf 'mmap -rw 0 7\nmwrite -S 0x61 0 6\n' >&4
until_true holds $client/dir/mapped aaaaaa
umount $server

echo "a server that is gone"
# Until the lease is over what is known may be used.
sleep 8
printf 'msync -s 0 7\n' >&4
pids="$pids $mapper"
waits cat $client/dir/read
waits ls -l $client/dir
waits touch $client/new
waits mkdir $client/new-dir
waits rm $client/dir/removed
waits mv $client/dir/renamed $client/moved
waits dd if=/dev/zero of=$client/dir/written bs=64k count=1
waits sync $client/open
waits flock $client/open true
waits sh -c "echo more >&3"
waits df $client/dir
waits "$scoutfs" walk-inodes meta_seq 0 -1 $client
waits setfattr -n user.a -v b $client/open
sleep 2
for pid in $pids; do
    if ended "$pid"; then
        # What can be said without a server.
        echo "process $pid does not wait"
    fi
done
waiting=0
for pid in $pids; do
    ended "$pid" || waiting=$((waiting + 1))
done
[ $waiting -ge 9 ] || fail "only $waiting programs wait"
# Those that hold what others wait for go last.
for pid in $pids; do
    kill -KILL "$pid" 2> /dev/null || true
done
for pid in $pids; do
    until_true ended "$pid"
done
wait
echo "all are gone"

"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $server
for d in $server $client; do
    same "$(cat $d/dir/read)" read "what was there on $d"
    same "$(cat $d/dir/locked)" locked "what was there on $d"
done
# What was written to memory is not lost with who wrote it.
sync
same "$(cat $server/dir/mapped)" aaaaaa "what was written to memory"
flock $client/open true
echo last > $client/open
same "$(cat $server/open)" last "what is written afterwards"
exec 3>&-
umount $client
umount $server
