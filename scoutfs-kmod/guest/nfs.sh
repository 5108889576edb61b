#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A volume is exported by the kernel's NFS server and mounted by its client, while another node changes it, too: nfs.sh SCOUTFS PROGRAMS
# TREE COOKIE. PROGRAMS is a folder where those of NFS are, as in a root; COOKIE is a module of the tests. The module is loaded;
# $DISK_A and $DISK_B are one disk.
set -eu
. "$(dirname "$0")/words.sh"
scoutfs=$1
programs=$2
tree=$3
cookie=$4
served=/mnt/served
other=/mnt/other
second=/mnt/second-client
mkdir -p $served $other $second
. "$(dirname "$0")/nfs-server.sh"

refused() {
    if "$@" 2> /dev/null; then fail "not refused: $*"; fi
}
holds() {
    [ "$(cat "$1" 2> /dev/null)" = "$2" ]
}
absent() {
    [ ! -e "$1" ]
}
# is WHAT FORMAT FILE: what stat tells.
is() {
    [ "$(stat -c "$2" "$3")" = "$1" ]
}
# has COUNT DIRECTORY
has() {
    [ "$(ls "$2" | wc -l)" = "$1" ]
}
is_empty() {
    [ -z "$(ls -A "$1")" ]
}
mounts() {
    "$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_A" $served
}
# When the server is done with it.
unmounts() {
    umount $served 2> /dev/null
}

# How often an inode has changed, as the client knows it.
changes() {
    insmod "$cookie" path="$1" 2> /dev/null || true
    dmesg | sed -n 's/.*scoutfs_cookie: cookie //p' | tail -n 1
}
other_than() {
    [ "$(changes "$2")" != "$1" ]
}

# Locks a file as fcntl does and runs a program meanwhile: by_fcntl HOW FILE PROGRAM... HOW is 6, or 7 to wait for others; 3 when it is locked.
by_fcntl() {
    perl -e '
        my ($how, $file, @program) = @ARGV;
        open(my $f, "+<", $file) or die "$file: $!";
        my $lock = pack("s s x4 q q l x4", 1, 0, 0, 0, 0);
        fcntl($f, $how, $lock) or exit 3;
        system(@program);
    ' "$@"
}
fcntl_lock() {
    by_fcntl 7 "$@"
}
# is_locked FILE: by anybody, for who asks by fcntl.
is_locked() {
    code=0
    by_fcntl 6 "$1" true || code=$?
    [ $code = 3 ]
}
is_free() {
    by_fcntl 6 "$1" true
}

names() {
    echo "names"
    mkdir $client/dir
    echo hello > $client/dir/file
    same "$(cat $served/dir/file)" hello "content on the server"
    ln $client/dir/file $client/link
    same "$(stat -c %h $client/dir/file)" 2 links
    same "$(stat -c %h $served/link)" 2 "links on the server"
    same "$(stat -c %i $client/link)" "$(stat -c %i $served/dir/file)" inode
    ln -s dir/file $client/symlink
    same "$(cat $client/symlink)" hello "content through a symbolic link"
    mv $client/link $client/dir/moved
    refused stat $client/link
    refused rmdir $client/dir
    refused mkdir $client/dir
    refused sh -c "set -C; echo > $client/dir/file"
    mkfifo $client/fifo
    mknod $client/null c 1 3
    same "$(stat -c %t:%T $served/null)" 1:3 device
    echo other > $client/other
    mv $client/other $client/dir/moved
    same "$(cat $served/dir/moved)" other "a name that was replaced"
    mkdir $client/to
    mv $client/dir $client/to/dir
    same "$(ls $served/to/dir | tr '\n' ' ')" "file moved " "what was moved"
    chmod 4750 $client/to/dir/file
    chown 12:34 $client/to/dir/file
    touch -d '2001-02-03 04:05:06.123456789 UTC' $client/to/dir/file
    same "$(stat -c %a:%u:%g:%.9Y $served/to/dir/file)" "$(stat -c %a:%u:%g:%.9Y $client/to/dir/file)" attributes
    same "$(stat -c %u:%g:%.9Y $client/to/dir/file)" 12:34:981173106.123456789 attributes
    rm -r $client/to $client/symlink $client/fifo $client/null
    same "$(ls -A $served)" "" "what is left on the server"
}

bytes() {
    echo "data"
    [ -e /tmp/random ] || head -c 3000000 /dev/urandom > /tmp/random
    cp /tmp/random $client/data
    cmp $served/data /tmp/random
    cp /tmp/random /tmp/expected
    for file in $client/data /tmp/expected; do
        dd if=/tmp/random of=$file bs=777 seek=1000 conv=notrunc status=none
        echo appended >> $file
        truncate -s 2000000 $file
        truncate -s 2500000 $file
    done
    cmp $client/data /tmp/expected
    cmp $served/data /tmp/expected
    echo 3 > /proc/sys/vm/drop_caches
    cmp $client/data /tmp/expected
    dd if=/tmp/random of=$client/direct bs=65536 oflag=direct status=none
    dd if=$client/direct bs=65536 iflag=direct status=none | cmp - /tmp/random
    truncate -s 1000000000 $client/sparse
    echo end >> $client/sparse
    same "$(stat -c %s $served/sparse)" 1000000004 "a size"
    [ "$(stat -c %b $served/sparse)" -le 16 ] || fail "a sparse file has blocks"
    xfs_io -f -c 'truncate 200k' -c 'mmap -rw 0 200k' -c 'mwrite -S 0x61 0 200k' -c 'msync -s 0 200k' $client/mapped
    same "$(tr -d a < $served/mapped | wc -c)" 0 "what was written to memory"
    if [ $version = 4.2 ]; then
        fallocate -l 5000000 $client/space
        same "$(stat -c %s $served/space)" 5000000 "a size"
        fallocate -p -o 4096 -l 100000 $client/direct
        same "$(dd if=$served/direct bs=1 skip=4096 count=100000 status=none | tr -d '\000' | wc -c)" 0 "a hole"
        xfs_io -f -c "copy_range $client/data" $client/copied > /dev/null
        cmp $served/copied /tmp/expected
        same "$(xfs_io -c 'seek -d 0' $client/sparse | tail -n 1 | awk '{ print $2 }')" 999997440 "where data begin"
    fi
    rm $client/*
    cp -a "$tree" $client/tree
    diff -r "$tree" $served/tree
    echo 3 > /proc/sys/vm/drop_caches
    diff -r "$tree" $client/tree
    rm -r $client/tree
}

large_directory() {
    echo "a large directory"
    mkdir $served/many
    (cd $served/many && seq -f 'a-name-of-some-length-%.0f' 3000 | xargs touch)
    ls -U $client/many > /tmp/listed
    same "$(sort /tmp/listed | uniq | wc -l)" 3000 names
    same "$(wc -l < /tmp/listed)" 3000 entries
    same "$(ls -l $client/many | grep -c name)" 3000 "entries with attributes"
    find $client/many -name '*[02468]' -delete
    until_true has 1500 $client/many
    has 1500 $served/many || fail "what is left on the server"
    rm -r $client/many
    absent $served/many || fail "the directory is there"
}

unlinked() {
    echo "unlinked and open"
    echo alive > $client/open
    exec 3< $client/open
    rm $client/open
    same "$(cat <&3)" alive content
    exec 3<&-
    # The client removes it when it has time.
    until_true is_empty $served
}

locks() {
    echo "locks"
    echo x > $client/locked
    joins $second ,nosharecache
    for hold in flock fcntl_lock; do
        mkfifo /tmp/hold
        $hold $client/locked sh -c ': < /tmp/hold' &
        # By another client, on the server, and on another node.
        for d in $second $served $other; do
            until_true is_locked $d/locked
        done
        refused flock -n $second/locked true
        : > /tmp/hold
        wait
        rm /tmp/hold
        for d in $second $served $other; do
            until_true is_free $d/locked
        done
        flock -n $second/locked true
    done
    mkfifo /tmp/hold
    fcntl_lock $other/locked sh -c ': < /tmp/hold' &
    until_true is_locked $client/locked
    # Who waits gets it.
    flock $client/locked echo locked > /tmp/waited &
    sleep 1
    [ ! -s /tmp/waited ] || fail "two have one lock"
    : > /tmp/hold
    wait
    holds /tmp/waited locked || fail "who has waited for a lock"
    rm /tmp/hold /tmp/waited $client/locked
    umount $second
}

attributes() {
    echo "extended attributes and access control lists"
    echo x > $client/file
    case $version in
        3)
            setfacl -m u:77:rw $client/file
            same "$(getfacl -cpn $served/file | grep ^user:77:)" user:77:rw- "a list on the server"
            setfacl -m u:78:r $other/file
            until_true sh -c "getfacl -cpn $client/file | grep -q ^user:78:r"
            chmod 600 $client/file
            same "$(getfacl -cpn $client/file | grep ^mask)" mask::--- "the mask follows the mode"
            ;;
        4.2)
            setfattr -n user.one -v first $client/file
            same "$(getfattr --absolute-names --only-values -n user.one $served/file)" first "a value on the server"
            setfattr -n user.two -v second $other/file
            same "$(getfattr --absolute-names --only-values -n user.two $client/file)" second "another node's value"
            setfattr -x user.one $client/file
            refused getfattr -n user.one $served/file
            ;;
    esac
    rm $client/file
}

another_node() {
    echo "what another node changes"
    mkdir $client/dir
    echo first > $client/dir/file
    holds $other/dir/file first || fail "what the client has written"
    has 1 $client/dir
    exec 3< $client/dir/file
    before=$(changes $client/dir/file)
    folder=$(changes $client/dir)
    # differs WHAT FILE FOLDER: what the client sees of the changes, at the latest when it does not believe its memory any more.
    differs() {
        [ $version != 3 ] || return 0
        [ -n "$before" ] || fail "no version"
        [ -z "$2" ] || until_true other_than "$before" $client/dir/file
        [ -z "$3" ] || until_true other_than "$folder" $client/dir
        before=$(changes $client/dir/file)
        folder=$(changes $client/dir)
        echo "$1 is seen"
    }
    echo other > $other/dir/file
    same "$(dd if=$client/dir/file iflag=direct status=none)" other "what the server reads after another node's write"
    until_true holds $client/dir/file other
    differs "a write" file ''
    echo more >> $other/dir/file
    is 11 %s $served/dir/file || fail "the size on the server"
    until_true holds $client/dir/file "other
more"
    differs "an append" file ''
    until_true sh -c "dd if=/proc/self/fd/3 bs=1k status=none | grep -q more" 3<&3
    truncate -s 3 $other/dir/file
    until_true holds $client/dir/file oth
    differs "a truncation" file ''
    chmod 640 $other/dir/file
    until_true is 640 %a $client/dir/file
    differs "a mode" file ''
    setfattr -n user.name -v value $other/dir/file
    differs "an attribute" file ''
    ln $other/dir/file $other/dir/link
    until_true has 2 $client/dir
    differs "a link" file folder
    mv $other/dir/link $other/dir/moved
    until_true holds $client/dir/moved oth
    until_true absent $client/dir/link
    differs "a name" '' folder
    rm $other/dir/moved
    until_true absent $client/dir/moved
    until_true has 1 $client/dir
    differs "a removal" file folder
    mkdir $other/dir/sub
    until_true has 2 $client/dir
    differs "a directory" '' folder
    exec 3<&-
    rm -r $client/dir
    absent $other/dir || fail "what the client has removed is there"

    echo "together in one directory"
    mkdir $client/dir
    (
        n=0
        while [ $n -lt 150 ]; do
            echo $n > $other/dir/other-$n
            n=$((n + 1))
        done
    ) &
    n=0
    while [ $n -lt 150 ]; do
        echo $n > $client/dir/client-$n
        [ $((n % 10)) != 0 ] || ls $client/dir > /dev/null
        n=$((n + 1))
    done
    wait
    until_true has 300 $client/dir
    for d in $served $other; do
        has 300 $d/dir || fail "names in $d"
    done
    rm -r $client/dir
}

handles() {
    echo "handles outlive the mount"
    mkdir -p $client/deep/er
    for name in kept removed open; do
        echo $name > $client/deep/er/$name
    done
    cat $client/deep/er/* > /dev/null
    (
        cd $client/deep/er
        # The kernel forgets, and the handle finds it again, its folders, too.
        echo 3 > /proc/sys/vm/drop_caches
        same "$(cat kept)" kept "what a handle finds"
        exportfs -f
        until_true unmounts
        rm $other/deep/er/removed
        mv $other/deep/er $other/deep/moved
        mounts
        exportfs -f
        same "$(cat kept)" kept "what a handle finds after another mount"
        sleep 1
        refused cat removed
        echo new > new
        holds $served/deep/moved/new new || fail "what is made by a handle of a folder that was moved"
    )
    exec 3< $client/deep/moved/open 4< $client/deep/moved/kept
    exec 5<> $client/deep/moved/new
    # A lock of version 3 would be taken again when statd is told so.
    [ $version = 3 ] || flock 5
    # The server ends and begins again, as when another machine takes its place.
    rpc.nfsd 0
    until_true unmounts
    rm $other/deep/moved/open
    mounts
    serves
    # The client takes its locks again.
    same "$(dd bs=1k iflag=fullblock status=none <&4)" kept "an open file after another mount"
    cat <&3 > /tmp/stale 2>&1 && fail "a file that is removed is read: $(cat /tmp/stale)"
    # Of version 4 it could not be opened again, for which clients have errors of their own.
    [ $version != 3 ] || grep -qi stale /tmp/stale || fail "a handle of what is removed: $(cat /tmp/stale)"
    [ $version = 3 ] || until_true is_locked $other/deep/moved/new
    exec 3<&- 4<&- 5<&-
    rm -r $client/deep
    absent $served/deep || fail "what was removed is there"
}

mounts
# It is the server of the volume when the first is away.
"$scoutfs" mount -o server_addr=127.0.0.1 "$DISK_B" $other
for version in 3 4.0 4.2; do
    echo "NFS $version"
    # Of version 4 it is the root of all that is served, since the machine's own root cannot be.
    case $version in
        3) root=$served options= ;;
        *) root=/ options=,fsid=0 ;;
    esac
    exports "$options"
    joins $client ""
    grep -q " $client nfs.*vers=$version" /proc/mounts || fail "it is not mounted as $version"
    names
    bytes
    large_directory
    unlinked
    locks
    attributes
    another_node
    handles
    umount $client
    exportfs -u 127.0.0.1:$served
done
rpc.nfsd 0
umount $other
until_true unmounts
echo "all done"
