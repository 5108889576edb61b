// SPDX-License-Identifier: GPL-2.0-only
//! Writes that are answered before the device has the data: nobody sees that they are not done, and nothing counts as durable
//! before they are.

mod common;

use std::sync::Arc as StdArc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use common::{Own, Volume, WRITER, file};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::inode::Drops;

const LEN: usize = 1 << 20;

/// Runs in another thread; the result comes when it is done.
fn start<'scope, R: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> R + Send + 'scope,
) -> Receiver<R> {
    let (done, result) = channel();
    // Nobody may listen any more when the test has failed.
    let body = move || drop(done.send(work()));
    thread::Builder::new().name(WRITER.into()).spawn_scoped(scope, body).unwrap();
    result
}

fn is_waiting<R>(result: &Receiver<R>) -> bool {
    matches!(result.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout))
}

fn write_behind(
    fs: &Fs,
    ino: u64,
    offset: Option<u64>,
    data: &[u8],
    answer: &mut dyn FnMut(usize),
) -> scoutfs_fs::Result<usize> {
    fs.write_for_kernel(ino, offset, data, Drops::Capability, Some(answer))
}

/// The size that a listing of the root with attributes shows.
fn listed_size(fs: &Fs, ino: u64) -> u64 {
    let mut size = None;
    fs.readdir_plus(ROOT_INO, 0, &mut |_, attr| {
        size = attr.filter(|attr| attr.ino == ino).map(|attr| attr.size).or(size);
        true
    })
    .unwrap();
    size.unwrap()
}

#[test]
fn who_looks_waits_for_what_was_answered() {
    let volume = Volume::new(128 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"stream", &file()).unwrap().ino;
    fs.sync().unwrap();
    let data = vec![5; LEN];
    let (answered, answer) = channel();
    thread::scope(|scope| {
        let hung = volume.hang();
        let written = start(scope, || {
            let answer = &mut |len| answered.send(len).unwrap();
            write_behind(fs, ino, Some(0), &data, answer).unwrap()
        });
        assert_eq!(answer.recv(), Ok(LEN));
        let read = start(scope, || {
            let mut buf = vec![0; LEN];
            fs.read(ino, 0, &mut buf).unwrap();
            buf
        });
        let stat = start(scope, || fs.getattr(ino).unwrap().size);
        let found = start(scope, || fs.lookup(ROOT_INO, b"stream").unwrap().size);
        let found_by_number = start(scope, || fs.lookup_ino(ino).unwrap().size);
        let listed = start(scope, || listed_size(fs, ino));
        let appended = start(scope, || fs.append(ino, b"end").unwrap());
        let synced = start(scope, || fs.fsync(ino));
        let all_synced = start(scope, || fs.sync());
        assert!(is_waiting(&written) && is_waiting(&read) && is_waiting(&stat) && is_waiting(&found));
        assert!(is_waiting(&found_by_number) && is_waiting(&listed) && is_waiting(&appended));
        assert!(is_waiting(&synced) && is_waiting(&all_synced));
        drop(hung);
        assert_eq!(written.recv(), Ok(LEN));
        assert_eq!(read.recv().unwrap(), vec![5; LEN]);
        assert_eq!(appended.recv(), Ok((LEN as u64, 3)));
        for size in [stat, found, found_by_number, listed] {
            assert!(size.recv().unwrap() >= LEN as u64);
        }
        synced.recv().unwrap().unwrap();
        all_synced.recv().unwrap().unwrap();
    });
    // What was answered and then synced is there after a crash.
    let crashed = volume.crash();
    let after = crashed.mount();
    assert!(after.fs().lookup(ROOT_INO, b"stream").unwrap().size >= LEN as u64);
    after.unmount().unwrap();
    crashed.check();
    fs.forget(ino, 4);
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn a_write_that_is_lost_after_it_was_answered_is_told_of() {
    let volume = Volume::new(128 << 20);
    let own = StdArc::<Own>::default();
    let mount = volume.node_with("127.77.0.1:7011".parse().unwrap(), &own);
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"stream", &file()).unwrap().ino;
    fs.write(ino, 0, &[1; 4096]).unwrap();
    own.no_data.store(true, Ordering::Relaxed);
    let data = vec![5; LEN];
    thread::scope(|scope| {
        let lost = start(scope, || {
            let mut answered = 0;
            let written = write_behind(fs, ino, Some(4096), &data, &mut |len| answered = len);
            (answered, written.map_err(|e| e.errno()))
        });
        assert_eq!(lost.recv().unwrap(), (LEN, Err(5)));
    });
    assert_eq!(fs.lost_writes(ino), (1, 5));
    fs.fsync(ino).unwrap();
    // Once.
    assert_eq!(fs.sync().map_err(|e| e.errno()), Err(5));
    fs.sync().unwrap();
    assert_eq!(fs.getattr(ino).unwrap().size, 4096);
    own.no_data.store(false, Ordering::Relaxed);
    let mut answered = 0;
    assert_eq!(write_behind(fs, ino, None, &data, &mut |len| answered = len).unwrap(), LEN);
    assert_eq!((answered, fs.lost_writes(ino)), (LEN, (1, 5)));
    fs.sync().unwrap();
    assert_eq!(fs.getattr(ino).unwrap().size, 4096 + LEN as u64);
    fs.forget(ino, 1);
    mount.unmount().unwrap();
    volume.check();
}

/// What may still fail for want of space is answered when it is done.
#[test]
fn nothing_that_the_volume_has_no_room_for_is_answered() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"big", &file()).unwrap().ino;
    let data = vec![7; LEN];
    let mut size = 0u64;
    let full = loop {
        let mut answered = None;
        match write_behind(fs, ino, Some(size), &data, &mut |len| answered = Some(len)) {
            Ok(written) => {
                assert!(answered.is_none_or(|len| len == written), "{answered:?} of {written}");
                size += written as u64;
            }
            Err(e) => {
                assert_eq!(answered, None);
                break e;
            }
        }
    };
    assert_eq!(full.errno(), 28, "{full}");
    assert!(size > 30 << 20, "only {size} bytes fit");
    fs.sync().unwrap();
    assert_eq!((fs.getattr(ino).unwrap().size, fs.lost_writes(ino)), (size, (0, 0)));
    fs.unlink(ROOT_INO, b"big").unwrap();
    fs.forget(ino, 1);
    mount.unmount().unwrap();
    volume.check();
}
