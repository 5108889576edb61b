// SPDX-License-Identifier: GPL-2.0-only
//! Programs that are killed while they wait for a server, and mounts that are given up.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use scoutfs_env::thread::run_for;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::dir::RenameFlags;
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode, WantedLock};
use scoutfs_fs::{Cancel, Error, Fs, Mount, Result};

use common::{Volume, dir, file, name};

/// An address at which nobody listens.
fn address() -> SocketAddr {
    let free = TcpListener::bind("127.43.0.1:0").unwrap();
    free.local_addr().unwrap()
}

fn lock(ino: u64, mode: Mode) -> WantedLock {
    let range = ByteRange::ALL;
    WantedLock { ino, class: LockClass::Fcntl, owner: 7, file: 1, pid: 1, range, mode }
}

/// A mount that waits for voters who do not come ends when it is given up, and leaves nothing of itself.
#[test]
fn a_mount_that_waits_for_a_server_can_be_given_up() {
    let volume = Volume::with_quorum(64 << 20, 2);
    for runs_server in [true, false] {
        let cancel = Cancel::new().unwrap();
        thread::scope(|scope| {
            let mounting = scope.spawn(|| volume.node_until(address(), runs_server, &cancel));
            while volume.owned_voter_slots() < usize::from(runs_server) {
                thread::sleep(Duration::from_millis(10));
            }
            thread::sleep(Duration::from_millis(300));
            assert!(!mounting.is_finished());
            cancel.cancel();
            assert!(matches!(mounting.join().unwrap(), Err(Error::Interrupted)));
        });
        assert_eq!(volume.owned_voter_slots(), 0, "it has left the election");
    }
    // One that is given up before it begins does not begin.
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    assert!(matches!(volume.node_until(address(), true, &cancel), Err(Error::Interrupted)));
    volume.check();
    // One that has come to its end is not given up any more.
    let volume = Volume::new(64 << 20);
    let cancel = Cancel::new().unwrap();
    let mount = volume.node_until(address(), true, &cancel).unwrap();
    cancel.cancel();
    mount.fs().create(ROOT_INO, b"file", &file()).unwrap();
    mount.unmount().unwrap();
    volume.check();
}

/// Operations that wait for a server that is gone, as a program that is killed makes them: each ends, and nothing is left undone or held.
#[test]
fn who_was_killed_does_not_wait_for_a_server_that_is_gone() {
    type Op = fn(&Fs, u64, u64) -> Result<()>;
    let operations: [(&str, Op); 12] = [
        ("lookup", |fs, _, _| fs.lookup(ROOT_INO, b"directory").map(drop)),
        ("create", |fs, dir, _| fs.create(dir, b"new", &file()).map(drop)),
        ("mkdir", |fs, dir, _| fs.mkdir(dir, b"new-dir", &self::dir()).map(drop)),
        ("unlink", |fs, dir, _| fs.unlink(dir, &name(1))),
        ("rename", |fs, dir, _| fs.rename(dir, &name(2), ROOT_INO, b"moved", RenameFlags::empty())),
        ("getattr", |fs, _, ino| fs.getattr(ino).map(drop)),
        ("read", |fs, _, ino| fs.read(ino, 0, &mut [0; 10]).map(drop)),
        ("write", |fs, _, ino| fs.write(ino, 5000, &[1; 10_000]).map(drop)),
        ("fsync", |fs, _, ino| fs.fsync(ino)),
        ("sync", |fs, _, _| fs.sync()),
        ("lock", |fs, _, ino| fs.set_lock(&lock(ino, Mode::Write), Some(&|| false))),
        ("horizon", |fs, _, _| fs.walk_index(1, (0, 0), (u64::MAX, 0), 9, &mut |_, _| Ok(())).map(drop)),
    ];
    let volume = Volume::new(128 << 20);
    let server = volume.node(address(), true);
    let client = volume.try_client().unwrap();
    let fs = client.fs();
    let directory = server.fs().mkdir(ROOT_INO, b"directory", &dir()).unwrap().ino;
    let inos: Vec<_> =
        (0..4).map(|i| server.fs().create(directory, &name(i), &file()).unwrap().ino).collect();
    server.fs().write(inos[0], 0, b"data").unwrap();
    fs.create(ROOT_INO, b"own", &file()).unwrap();
    server.unmount().unwrap();
    // What is known may be used until the lease is over.
    while !fs.store().lease_left().is_zero() {
        thread::sleep(Duration::from_millis(50));
    }
    for (what, operation) in operations {
        let killed = StdArc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let running = scope.spawn(|| run_for(&killed, || operation(fs, directory, inos[0])));
            thread::sleep(Duration::from_millis(50));
            let waits = !running.is_finished();
            killed.store(true, Ordering::Release);
            fs.store().wake_killed();
            let done = running.join().unwrap();
            assert!(waits, "{what} did not wait: {done:?}");
            assert!(matches!(done, Err(Error::Interrupted)), "{what}: {done:?}");
        });
        assert!(fs.store().is_usable(), "{what} has shut the mount down");
    }
    // As a program that was killed closes its files: what it had asked for is given back.
    let killed = StdArc::new(AtomicBool::new(true));
    run_for(&killed, || fs.drop_fcntl_locks(inos[0], 7)).unwrap();

    let server = volume.node(address(), true);
    let mut read = [0; 4];
    assert_eq!((fs.read(inos[0], 0, &mut read).unwrap(), &read), (4, b"data"));
    fs.create(directory, b"new", &file()).unwrap();
    fs.unlink(directory, &name(1)).unwrap();
    fs.sync().unwrap();
    // Nobody has the lock, whatever the server heard when.
    server.fs().set_lock(&lock(inos[0], Mode::Write), None).unwrap();
    assert!(server.fs().lookup(ROOT_INO, b"own").is_ok());
    client.unmount().unwrap();
    server.unmount().unwrap();
    volume.check();
}

/// An unmount is not left halfway because the program that unmounts is killed: it waits for a server, for a while.
#[test]
fn an_unmount_is_not_given_up() {
    let volume = Volume::new(64 << 20);
    let server = volume.node(address(), true);
    let client: Mount = volume.try_client().unwrap();
    client.fs().create(ROOT_INO, b"file", &file()).unwrap();
    server.unmount().unwrap();
    while !client.fs().store().lease_left().is_zero() {
        thread::sleep(Duration::from_millis(50));
    }
    let killed = StdArc::new(AtomicBool::new(true));
    let server = thread::scope(|scope| {
        let leaving = scope.spawn(|| run_for(&killed, || client.unmount()));
        thread::sleep(Duration::from_millis(1500));
        assert!(!leaving.is_finished());
        let server = volume.node(address(), true);
        leaving.join().unwrap().unwrap();
        server
    });
    assert!(server.fs().lookup(ROOT_INO, b"file").is_ok());
    run_for(&killed, || server.unmount()).unwrap();
    volume.check();
}
