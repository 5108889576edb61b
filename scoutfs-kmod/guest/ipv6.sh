#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Nodes that meet by IPv6 alone, two by the kernel and one by FUSE: ipv6.sh SCOUTFS. The module is loaded; $DISK_A, $DISK_B and
# $DISK_C are one disk.
set -eu
. "$(dirname "$0")/words.sh"
scoutfs=$1
first=/mnt/first
second=/mnt/second
third=/mnt/third
mkdir -p $first $second $third
ip -6 address add fd00::7/128 dev lo nodad

holds() {
    [ "$(cat "$1")" = "$2" ]
}
# connected ADDRESS: that somebody listens there, as the kernel writes addresses, and that somebody is connected.
connected() {
    awk -v address="$1" '$2 ~ address && $4 == "0A" { listens = 1 } $2 ~ address && $4 == "01" { connected = 1 }
        END { exit !(listens && connected) }' /proc/net/tcp6
}

echo "the address of this machine alone"
"$scoutfs" mount -o 'server_addr=[::1]' "$DISK_A" $first
"$scoutfs" mount -o 'server_addr=[fd00::7]:7301' "$DISK_B" $second
echo hello > $first/file
same "$(cat $second/file)" hello "another node's data"
echo more >> $second/file
same "$(tail -n 1 $first/file)" more "another node's data"
connected 00000000000000000000000001000000 || fail "nobody is connected to ::1"

echo "an address with a port"
umount $first
# The other is the server now.
echo alone > $second/file
"$scoutfs" mount -o server_addr=fd00::7 "$DISK_A" $first
"$scoutfs" mount -o fuse "$DISK_C" $third
for d in $first $third; do
    same "$(cat $d/file)" alone "the data of who became the server"
done
for d in $first $third; do
    echo $d > $d/file
    same "$(cat $second/file)" $d "another node's data"
done
connected 000000FD000000000000000007000000:1C85 || fail "nobody is connected to fd00::7, port 7301"
same "$(awk 'NR > 1 && $4 != "06"' /proc/net/tcp | wc -l)" 0 "sockets of IPv4"

echo "from one server to the next"
umount $second
echo last > $third/file
same "$(cat $first/file)" last "data after the server has left"
umount $third
umount $first
