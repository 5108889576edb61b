#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What the scripts of a guest that is a node of several begin with: NODE is its number, MODULE, SCOUTFS and MEET are paths. Guests meet by
# files in MEET, which all see.
set -eu

# Tells the others that something was done.
say() {
    : > "$MEET/$1"
}
await() {
    until_true [ -e "$MEET/$1" ]
}
holds() {
    [ "$(cat "$1" 2> /dev/null)" = "$2" ]
}
absent() {
    [ ! -e "$1" ]
}

# A machine of its own, for the volume too.
hostname "node$NODE"
busybox ifconfig "$WIRE" "10.7.0.$NODE" netmask 255.255.255.0 up
insmod "$MODULE"

# join DEVICE DIRECTORY OPTIONS
join() {
    mkdir -p "$2"
    "$SCOUTFS" mount -o "$3" "$1" "$2"
}
mounted_as() {
    grep -q " $1 $2 " /proc/mounts || fail "$1 is not mounted as $2"
}

# Numbers go to and fro between two nodes by one file: who has parity PARITY writes the next after each of the other's.
ping_pong() {
    ball=$1 parity=$2 rounds=$3 n=0
    while [ $n -lt "$rounds" ]; do
        if [ $((n % 2)) = "$parity" ]; then
            echo $n > "$ball"
        else
            until_true holds "$ball" $n
        fi
        n=$((n + 1))
    done
}
