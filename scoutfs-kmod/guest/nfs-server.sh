# SPDX-License-Identifier: GPL-2.0-only
# Starts the kernel's NFS server in a guest, and has words for it: $programs is a folder with its programs, as in a root; what is mounted on
# $served will be served, of the protocol's $version, by the name $root.
client=/mnt/client
PATH=$programs/usr/sbin:$programs/sbin:$programs/usr/bin:$PATH
LD_LIBRARY_PATH=$programs/usr/lib/$(uname -m)-linux-gnu
export PATH LD_LIBRARY_PATH

# What the programs write is the guest's own.
private() {
    mkdir -p "/mnt/own$1"
    mount -t tmpfs own "/mnt/own$1"
    [ -z "${2-}" ] || cp -a "$1/." "/mnt/own$1"
    mount --bind "/mnt/own$1" "$1"
}
private /etc copy
private /run
private /var/lib
printf '_rpc:x:31:31::/:/bin/false\nstatd:x:32:32::/var/lib/nfs:/bin/false\n' >> /etc/passwd
printf '_rpc:x:31:\nstatd:x:32:\n' >> /etc/group
mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/rpc_pipefs /var/lib/nfs/nfsdcld $client
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /etc/exports
mount -t nfsd nfsd /proc/fs/nfsd
mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
rpcbind
rpc.statd
nfsdcld
echo 10 > /proc/fs/nfsd/nfsv4leasetime
echo 10 > /proc/fs/nfsd/nfsv4gracetime
serves() {
    rpc.nfsd --nfs-version 3 --nfs-version 4.0 --nfs-version 4.1 --nfs-version 4.2 4
}
serves
rpc.mountd

# exports OPTIONS
exports() {
    exportfs -o "rw,sync,no_root_squash,no_subtree_check$1" 127.0.0.1:$served
}
# joins DIRECTORY OPTIONS
joins() {
    mount.nfs "127.0.0.1:$root" "$1" -o "vers=$version,proto=tcp,hard,actimeo=1$2"
}
