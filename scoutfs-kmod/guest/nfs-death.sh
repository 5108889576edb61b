#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A server of NFS is killed: nfs-death.sh PROGRAMS OPTIONS LIST. What it has answered is there in the next life, though nobody has synced it:
# LIST, a file of the machine's own, has the names. The module is loaded, the volume is on $DISK_A.
set -eu
. "$(dirname "$0")/words.sh"
programs=$1
options=$2
list=$3
served=/mnt/scoutfs
version=4.2
root=/
mount -i -t scoutfs -o "$options" "$DISK_A" $served
touch "$list"
while read -r name; do
    same "$(stat -c %a $served/moved-$name)" 751 "what was answered before the server died"
    same "$(readlink $served/moved-$name/link)" "$name" "what was answered before the server died"
done < "$list"
echo verified
. "$(dirname "$0")/nfs-server.sh"
exports ,fsid=0
joins $client ""
n=0
while :; do
    name=$(wc -l < "$list")
    mkdir $client/$name
    ln -s "$name" $client/$name/link
    chmod 751 $client/$name
    mv $client/$name $client/moved-$name
    echo "$name" >> "$list"
    n=$((n + 1))
    [ $n -lt 10 ] || echo killable
done
