# SPDX-License-Identifier: GPL-2.0-only
# The first guest after it was killed: the same machine, booted since, so its former mount is known to be dead.
m=/mnt/first
join "$DISK_A" $m "server_addr=10.7.0.$NODE"
while read -r n; do
    same "$(cat $m/synced-$n)" "$n" "what it had synced before it died"
done < "$MEET/synced"
same "$(cat $m/after)" alive "data that another node wrote meanwhile"
echo "from the dead" > $m/back
sync
say back
umount $m
rmmod scoutfs
