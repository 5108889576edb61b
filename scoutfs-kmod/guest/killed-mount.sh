#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A mount that waits for voters who do not come is killed, in a guest: killed-mount.sh DEVICE. The module is loaded. Both ways to mount,
# and one that can be no voter.
set -eu
. "$(dirname "$0")/words.sh"
device=$1

# waits_until_killed OPTIONS SIGNAL
waits_until_killed() {
    echo "a mount with $1"
    mount -i -t scoutfs -o "$1" "$device" /mnt/scoutfs &
    pid=$!
    sleep 3
    if ended $pid; then fail "it does not wait"; fi
    kill -$2 $pid
    tries=0
    until ended $pid; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || fail "killed, it waits"
        sleep 0.1
    done
    if wait $pid; then fail "killed, it has mounted"; fi
    if grep -q scoutfs /proc/mounts; then fail "it is mounted"; fi
}
waits_until_killed server_addr=127.0.0.1 KILL
# By a signal that the program does not catch.
waits_until_killed server_addr=127.0.0.1,ro TERM
waits_until_killed noacl KILL
