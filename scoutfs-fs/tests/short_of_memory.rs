// SPDX-License-Identifier: GPL-2.0-only
//! Mounts that have no memory just when another server takes over. A file of its own: what fails is the process's.

mod common;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{Volume, file};
use scoutfs_env::alloc_fault;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Error;
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode, WantedLock};

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(120);
/// So many allocations fail in a row.
const FAILURES: u64 = 5;

/// An address at which nobody listens.
fn address() -> SocketAddr {
    std::net::TcpListener::bind("127.43.0.1:0").unwrap().local_addr().unwrap()
}

/// One server after the other leaves, and the threads that tell the next one what their mounts have run out of memory meanwhile, each
/// time at another place.
fn servers_follow_each_other() {
    let volume = Volume::with_quorum(256 << 20, 1);
    let mut leader = volume.node(address(), true);
    let client = volume.try_client().unwrap();
    let ino = client.fs().create(ROOT_INO, b"locked", &file()).unwrap().ino;
    let wanted = |owner, start, mode| {
        let range = ByteRange::new(start, start).unwrap();
        WantedLock { ino, class: LockClass::Fcntl, owner, file: 0, pid: 1, range, mode }
    };
    client.fs().set_lock(&wanted(1, 0, Mode::Write), None).unwrap();
    let every = std::env::var("SCOUTFS_FAIL_EVERY").map_or(9, |n| n.parse().expect("a number"));
    let (mut after, mut tried) = (0, u64::MAX);
    while after < tried.min(120) {
        let next = volume.node(address(), true);
        next.fs().set_lock(&wanted(1, 1, Mode::Write), None).unwrap();
        leader.fs().set_lock(&wanted(1, 2, Mode::Write), None).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| next.fs().set_lock(&wanted(1, 2, Mode::Write), Some(&|| false)));
            alloc_fault::fail_on("scoutfs-recv", after, FAILURES);
            leader.unmount().unwrap();
            waits.join().unwrap().unwrap();
        });
        let name = format!("after {after}");
        client.fs().create(ROOT_INO, name.as_bytes(), &file()).unwrap();
        next.fs().lookup(ROOT_INO, name.as_bytes()).unwrap();
        tried = alloc_fault::clear_on();
        for (node, others) in [(&next, 0), (&client, 1)] {
            let taken = node.fs().set_lock(&wanted(9, others, Mode::Read), None);
            assert!(matches!(taken, Err(Error::Locked)), "{after}: {taken:?}");
        }
        next.fs().set_lock(&wanted(1, 1, Mode::Null), None).unwrap();
        client.fs().set_lock(&wanted(9, 1, Mode::Write), None).unwrap();
        client.fs().set_lock(&wanted(9, 1, Mode::Null), None).unwrap();
        leader = next;
        after += every;
    }
    assert!(after > 3 * every, "hardly anything failed: {tried}");
    client.unmount().unwrap();
    leader.unmount().unwrap();
    volume.check();
}

/// A mount begins a session to its end, and once: what a server must know before it goes on it is told when there is memory for that.
/// Otherwise the server waits for it, and all other mounts with it, as long as the mount renews its lease.
#[test]
fn a_mount_without_memory_tells_the_next_server_what_it_has() {
    let (told, done) = channel();
    thread::spawn(move || {
        servers_follow_each_other();
        told.send(()).unwrap();
    });
    done.recv_timeout(LONG).expect("it fails, or hangs");
}
