// SPDX-License-Identifier: GPL-2.0-only
//! Writes that are gathered in memory: nobody sees that they are not done, they are durable when somebody synced them, and who is told
//! that there is room finds it.

mod common;

use std::sync::Arc as StdArc;
use std::sync::atomic::Ordering;
use std::thread;

use common::{Own, Volume, WRITER, counter, file, name};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::inode::Drops;

fn write(fs: &Fs, ino: u64, data: &[u8]) -> scoutfs_fs::Result<u64> {
    let (at, len) = fs.write_later(ino, None, data, Drops::Nothing)?;
    assert_eq!(len, data.len());
    Ok(at)
}

#[test]
fn who_writes_piece_by_piece_waits_for_no_device() {
    let volume = Volume::new(128 << 20);
    let own = StdArc::<Own>::default();
    let mount = volume.node_with("127.77.0.2:7013".parse().unwrap(), &own);
    let fs = mount.fs();
    let inos: Vec<u64> = (0..20).map(|n| fs.create(ROOT_INO, &name(n), &file()).unwrap().ino).collect();
    // What a file needs first may have to be read.
    for ino in &inos {
        write(fs, *ino, b"-").unwrap();
    }
    fs.sync().unwrap();
    let write_all = || {
        for ino in &inos {
            for n in 0..50 {
                write(fs, *ino, &[n; 600]).unwrap();
            }
            assert_eq!(fs.getattr(*ino).unwrap().size, 50 * 600 + 1);
        }
    };
    thread::scope(|scope| {
        let hung = own.late_data.write().unwrap();
        let writer = thread::Builder::new().name(WRITER.into()).spawn_scoped(scope, write_all).unwrap();
        while !writer.is_finished() {
            assert_eq!(own.late.load(Ordering::Relaxed), 0, "it writes to the device");
            thread::yield_now();
        }
        drop(hung);
    });
    fs.sync().unwrap();
    let crashed = volume.crash();
    let after = crashed.mount();
    for n in 0..inos.len() {
        let attr = after.fs().lookup(ROOT_INO, &name(n)).unwrap();
        let mut data = vec![0; 30_001];
        assert_eq!(after.fs().read(attr.ino, 0, &mut data).unwrap(), data.len());
        assert!(data[1..].chunks(600).enumerate().all(|(n, piece)| piece.iter().all(|b| *b == n as u8)));
        after.fs().forget(attr.ino, 1);
    }
    after.unmount().unwrap();
    crashed.check();
    inos.iter().for_each(|ino| fs.forget(*ino, 1));
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn what_cannot_be_written_is_told_of_by_fsync_once() {
    let volume = Volume::new(128 << 20);
    let own = StdArc::<Own>::default();
    let mount = volume.node_with("127.77.0.2:7012".parse().unwrap(), &own);
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"file", &file()).unwrap().ino;
    write(fs, ino, b"good").unwrap();
    fs.fsync(ino).unwrap();
    // Whoever writes it: the mount may be about to commit for reasons of its own.
    let block = fs.fiemap(ino, 0, 4, 1).unwrap()[0].physical;
    own.bad.store(block.get(), Ordering::Relaxed);
    // Nothing is gathered while it is, and then the program is told.
    while write(fs, ino, b"lost").is_err() {}
    fs.fsync(ino).unwrap();
    assert_eq!((fs.lost_writes(ino), fs.getattr(ino).unwrap().size), ((1, 5), 4));
    assert_eq!(fs.sync().map_err(|e| e.errno()), Err(5));
    own.bad.store(0, Ordering::Relaxed);
    write(fs, ino, b" again").unwrap();
    fs.sync().unwrap();
    assert_eq!((fs.lost_writes(ino), fs.getattr(ino).unwrap().size), ((1, 5), 10));
    fs.forget(ino, 1);
    mount.unmount().unwrap();
    volume.check();
}

/// Small files and streams, several at once, until the volume is full; what was written is there, all of it, and is made durable.
#[test]
fn on_a_full_volume_what_was_written_finds_its_place() {
    for size in [3_000, 40_000, 2_000_000] {
        let volume = Volume::new(64 << 20);
        let mount = volume.mount();
        let fs = mount.fs();
        let written: Vec<(u64, usize)> = thread::scope(|scope| {
            let worker = |me: usize| {
                move || {
                    let mut files = Vec::new();
                    for n in 0.. {
                        let Ok(attr) = fs.create(ROOT_INO, &name(me * 1_000_000 + n), &file()) else { break };
                        let mut len = 0;
                        let full = loop {
                            if len >= size {
                                break None;
                            }
                            let piece = vec![(attr.ino % 251) as u8; 1 + (n * 577 + len) % 5_000];
                            match fs.write_later(attr.ino, None, &piece, Drops::Nothing) {
                                Ok((at, done)) => {
                                    assert_eq!(at as usize, len);
                                    len += done;
                                }
                                Err(e) => break Some(e),
                            }
                        };
                        files.push((attr.ino, len));
                        if let Some(e) = full {
                            assert_eq!(e.errno(), 28, "{e}");
                            break;
                        }
                    }
                    files
                }
            };
            let workers: Vec<_> = (0..3).map(|me| scope.spawn(worker(me))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert!(counter(fs, "delayed_writes") > 0);
        fs.sync().unwrap();
        let crashed = volume.crash();
        let after = crashed.mount();
        for &(ino, len) in &written {
            assert_eq!(fs.lost_writes(ino), (0, 0));
            let mut data = vec![0; len + 1];
            assert_eq!(after.fs().read(ino, 0, &mut data).unwrap(), len, "inode {ino}");
            assert!(data[..len].iter().all(|b| *b == (ino % 251) as u8));
        }
        after.unmount().unwrap();
        crashed.check();
        written.iter().for_each(|(ino, _)| fs.forget(*ino, 1));
        mount.unmount().unwrap();
        volume.check();
    }
}
