// SPDX-License-Identifier: GPL-2.0-only
//! What is said of blocks that are not what they should be.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use common::{Own, READER, Volume, file};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Error;
use scoutfs_lock::LockName;

/// Files of more than one node of a tree and of more than one lock.
const FILES: usize = 5000;

fn address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.47.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A mount begins to read a file and the device takes its time. When the blocks are read they are another's. Gives the error as it is,
/// and what is said of it.
fn read_what_is_not_there_any_more(is_fenced_meanwhile: bool) -> (Error, Error) {
    let volume = Volume::new(64 << 20);
    let alone = volume.mount();
    let inos: Vec<u64> = (0..FILES)
        .map(|n| {
            let ino = alone.fs().create(ROOT_INO, &common::name(n), &file()).unwrap().ino;
            alone.fs().forget(ino, 1);
            ino
        })
        .collect();
    alone.unmount().unwrap();
    let ino = *inos.last().unwrap();
    let first = volume.node(address(), true);
    let own = Arc::<Own>::default();
    let second = volume.try_client_with(&own).unwrap();
    // The lock is there, and what was committed under it is known: what is read from here on is the file's own node.
    let group = LockName::group_of(ino);
    let near = *inos.iter().find(|ino| LockName::group_of(**ino) == group).unwrap();
    second.fs().getattr(near).unwrap();
    let error = thread::scope(|scope| {
        let late = own.late_reads.write().unwrap();
        let look = || second.fs().getattr(ino);
        let reading = thread::Builder::new().name(READER.into()).spawn_scoped(scope, look).unwrap();
        let start = Instant::now();
        while own.reading.load(Ordering::Relaxed) == 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing is read");
            thread::yield_now();
        }
        if is_fenced_meanwhile {
            // Nobody else may change it before.
            first.fs().write(ino, 0, b"changed").unwrap();
        }
        volume.lose_zones();
        drop(late);
        reading.join().unwrap().unwrap_err()
    });
    let said = second.fs().store().verdict(error.clone());
    (error, said)
}

#[test]
fn blocks_that_are_not_what_they_should_be_are_damage() {
    let (error, said) = read_what_is_not_there_any_more(false);
    assert!(error.is_damage(), "{error}");
    assert_eq!(error.to_string(), said.to_string());
}

/// Whoever is held up for longer than its lease reads what others have made of its blocks meanwhile.
#[test]
fn a_mount_that_was_fenced_while_it_was_reading_speaks_of_no_damage() {
    let (error, said) = read_what_is_not_there_any_more(true);
    assert!(error.is_damage(), "{error}");
    assert!(matches!(said, Error::Shutdown(_)), "{said}");
    assert_eq!(said.errno(), error.errno());
}

/// Its locks may go to others before it hears of their end.
#[test]
fn a_mount_that_has_failed_speaks_of_no_damage() {
    let volume = Volume::new(64 << 20);
    let own = Arc::<Own>::default();
    let mount = volume.node_with(address(), &own);
    let store = mount.fs().store();
    let damage = Error::Corrupt { ino: ROOT_INO, what: "a mistake of a test" };
    assert!(matches!(store.verdict(damage.clone()), Error::Corrupt { .. }));
    mount.fs().create(ROOT_INO, b"file", &file()).unwrap();
    own.no_records.store(true, Ordering::Relaxed);
    mount.fs().sync().unwrap_err();
    assert!(matches!(store.verdict(damage), Error::Shutdown(_)));
    // What is no damage is what it is.
    assert!(matches!(store.verdict(Error::NoSpace), Error::NoSpace));
    assert!(mount.unmount().is_err());
}
