// SPDX-License-Identifier: GPL-2.0-only
//! Data that a mount had asked the device to write land when it was fenced long ago, and others have its locks: design, section 9.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use common::{Own, Volume, WRITER, file};
use scoutfs_env::IoBuf;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::inode::SetAttr;
use scoutfs_fs::{Error, Fs};

const BLOCK: usize = 4096;

/// An address at which nobody listens.
fn address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.43.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn content(fs: &Fs, ino: u64) -> Vec<u8> {
    let mut bytes = vec![0; fs.getattr(ino).unwrap().size as usize];
    let read = fs.read(ino, 0, &mut bytes).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "waits for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Fills the volume with one file of `byte`. Gives it, and how many blocks that took.
fn fill(fs: &Fs, name: &[u8], byte: u8) -> (u64, usize) {
    let ino = fs.create(ROOT_INO, name, &file()).unwrap().ino;
    let (chunk, mut blocks) = (vec![byte; 64 * BLOCK], 0);
    loop {
        match fs.write(ino, (blocks * BLOCK) as u64, &chunk) {
            Ok(len) => blocks += len / BLOCK,
            Err(e) => {
                assert!(matches!(e, Error::NoSpace), "{e}");
                fs.sync().unwrap();
                return (ino, blocks);
            }
        }
    }
}

/// What others wrote there, or with the blocks that were freed there, stays; what nobody touched may be as before or as was asked; and
/// all space is there again when the death is confirmed.
#[test]
fn data_of_a_fenced_mount_that_land_late_harm_nothing() {
    let volume = Volume::new(64 << 20);
    let survivor = volume.node_that_knows(address());
    let own = Arc::new(Own::default());
    let sleeper = volume.try_client_with(&own).unwrap();
    let fs = survivor.fs();
    let names = ["overwritten", "in part", "removed", "punched", "cut", "grown", "prepared", "untouched"];
    let inos = names.map(|name| fs.create(ROOT_INO, name.as_bytes(), &file()).unwrap().ino);
    let [overwritten, in_part, removed, punched, cut, grown, prepared, untouched] = inos;
    let len = |ino| if ino == grown { 3 * BLOCK + 100 } else { 4 * BLOCK };
    for ino in inos {
        if ino == prepared {
            fs.fallocate(ino, AllocateMode::Allocate, false, 0, 4 * BLOCK as u64).unwrap();
        } else {
            fs.write(ino, 0, &vec![1; len(ino)]).unwrap();
        }
    }
    fs.sync().unwrap();
    thread::scope(|scope| {
        let late = own.late_data.write().unwrap();
        for ino in inos {
            let (fs, len) = (sleeper.fs(), len(ino));
            // It fails when it is done: the mount is fenced.
            let body = move || drop(fs.write(ino, 0, &vec![2; len]));
            thread::Builder::new().name(WRITER.into()).spawn_scoped(scope, body).unwrap();
        }
        wait_until("the writes to be on their way", || own.late.load(Ordering::Relaxed) == inos.len() as u64);
        // These wait until the mount that has the locks is fenced.
        fs.write(overwritten, 0, &vec![3; 4 * BLOCK]).unwrap();
        fs.write(in_part, BLOCK as u64 + 10, &[3; 20]).unwrap();
        fs.unlink(ROOT_INO, b"removed").unwrap();
        fs.forget(removed, 1);
        fs.fallocate(punched, AllocateMode::PunchHole, true, 100, 2 * BLOCK as u64).unwrap();
        fs.setattr(cut, &SetAttr { size: Some(BLOCK as u64 / 2), ..SetAttr::default() }).unwrap();
        fs.setattr(cut, &SetAttr { size: Some(2 * BLOCK as u64), ..SetAttr::default() }).unwrap();
        fs.write(grown, 4 * BLOCK as u64, &vec![3; BLOCK]).unwrap();
        fs.write(prepared, 0, &vec![3; 4 * BLOCK]).unwrap();
        fs.sync().unwrap();
        let (filler, filled) = fill(fs, b"filler", 4);
        // The blocks of what was overwritten, and what the sleeper had.
        assert!(fs.statfs().unwrap().quarantined_data > 20);
        // They land.
        drop(late);
        wait_until("the late writes", || own.late.load(Ordering::Relaxed) == 0);
        let crashed = volume.crash();
        for (after, volume) in [("at once", None), ("after a crash", Some(crashed))] {
            let mount = volume.as_ref().map(|volume| volume.mount());
            let fs = mount.as_ref().map_or(fs, |mount| mount.fs());
            assert_eq!(content(fs, overwritten), [3; 4 * BLOCK], "{after}");
            let bytes = content(fs, in_part);
            let own_block = &bytes[BLOCK..2 * BLOCK];
            assert_eq!(own_block[10..30], [3; 20], "{after}");
            // The rest of the block is what was there when it was copied.
            assert!(own_block[..10].iter().chain(&own_block[30..]).all(|byte| *byte == 1), "{after}");
            let bytes = content(fs, punched);
            assert!(bytes[..100].iter().all(|byte| *byte == 1), "{after}");
            assert!(bytes[100..2 * BLOCK + 100].iter().all(|byte| *byte == 0), "{after}");
            assert!(bytes[2 * BLOCK + 100..3 * BLOCK].iter().all(|byte| *byte == 1), "{after}");
            let bytes = content(fs, cut);
            assert!(bytes[..BLOCK / 2].iter().all(|byte| *byte == 1), "{after}");
            assert!(bytes[BLOCK / 2..].iter().all(|byte| *byte == 0), "{after}");
            let bytes = content(fs, grown);
            assert!(bytes[3 * BLOCK + 100..4 * BLOCK].iter().all(|byte| *byte == 0), "{after}");
            assert_eq!(bytes[4 * BLOCK..], [3; BLOCK], "{after}");
            assert_eq!(content(fs, prepared), [3; 4 * BLOCK], "{after}");
            assert!(content(fs, untouched).iter().all(|byte| [1, 2].contains(byte)), "{after}");
            assert_eq!(content(fs, filler).len(), filled * BLOCK);
            assert!(content(fs, filler).iter().all(|byte| *byte == 4), "{after}");
            if let (Some(mount), Some(volume)) = (mount, volume) {
                mount.unmount().unwrap();
                volume.check();
            }
        }
        fs.unlink(ROOT_INO, b"filler").unwrap();
        fs.forget(filler, 1);
        fs.sync().unwrap();
        // Another mount that comes makes the first known to be dead.
        let newest = volume.try_client().unwrap();
        newest.unmount().unwrap();
        // In blocks of 512 bytes.
        let used = inos.iter().filter(|ino| **ino != removed).map(|ino| fs.getattr(*ino).unwrap().blocks / 8);
        let used: u64 = used.sum();
        wait_until("all other space to be free again", || {
            let found = fs.statfs().unwrap();
            found.total_data - found.free_data == used && found.quarantined_data == 0
        });
    });
    drop(sleeper);
    survivor.unmount().unwrap();
    volume.check();
}

/// Pages that a program has changed are written on a volume that is full, whoever was fenced before they were changed or since.
#[test]
fn pages_that_are_prepared_need_no_block_after_a_fence() {
    const PAGES: usize = 8 * BLOCK;
    let volume = Volume::new(64 << 20);
    let survivor = volume.node_that_knows(address());
    let own = Arc::new(Own::default());
    let sleeper = volume.try_client_with(&own).unwrap();
    let (fs, late_fs) = (survivor.fs(), sleeper.fs());
    let kept = fs.create(ROOT_INO, b"kept", &file()).unwrap().ino;
    fs.write(kept, 0, &[1; PAGES]).unwrap();
    // Numbers of another batch: another lock.
    let taken = late_fs.create(ROOT_INO, b"taken", &file()).unwrap().ino;
    late_fs.write(taken, 0, &[1; 4 * BLOCK]).unwrap();
    late_fs.fallocate(taken, AllocateMode::Allocate, false, 4 * BLOCK as u64, 2 * BLOCK as u64).unwrap();
    late_fs.setattr(taken, &SetAttr { size: Some(PAGES as u64), ..SetAttr::default() }).unwrap();
    late_fs.sync().unwrap();
    fs.open(kept, true).unwrap();
    fs.open(taken, false).unwrap();
    let prepare = |ino| {
        for page in 0..PAGES / BLOCK {
            fs.prepare_pages(ino, (page * BLOCK) as u64, BLOCK as u64).unwrap();
        }
    };
    prepare(kept);
    thread::scope(|scope| {
        let late = own.late_data.write().unwrap();
        let body = move || drop(late_fs.write(taken, 0, &[2; 4 * BLOCK]));
        thread::Builder::new().name(WRITER.into()).spawn_scoped(scope, body).unwrap();
        wait_until("the write to be on its way", || own.late.load(Ordering::Relaxed) == 1);
        // Waits for the fence, and changes nothing.
        fs.open(taken, true).unwrap();
        prepare(taken);
        let bytes = content(fs, taken);
        assert!(
            bytes[..4 * BLOCK].iter().all(|byte| *byte == 1)
                && bytes[4 * BLOCK..].iter().all(|byte| *byte == 0)
        );
        fill(fs, b"filler", 4);
        let new = fs.create(ROOT_INO, b"new", &file()).unwrap().ino;
        assert!(matches!(fs.write(new, 0, &[5; BLOCK]), Err(Error::NoSpace)));
        let threes = IoBuf::from_slice(&[3; BLOCK]).unwrap();
        for ino in [kept, taken] {
            let before = fs.getattr(ino).unwrap();
            for page in (0..PAGES / BLOCK).rev() {
                fs.write_pages(ino, &[((page * BLOCK) as u64, &threes)], true).unwrap();
            }
            let after = fs.getattr(ino).unwrap();
            assert_eq!((before.size, before.blocks), (after.size, after.blocks));
        }
        fs.sync().unwrap();
        drop(late);
        wait_until("the late write", || own.late.load(Ordering::Relaxed) == 0);
        let crashed = volume.crash();
        let mount = crashed.mount();
        for fs in [fs, mount.fs()] {
            assert_eq!(content(fs, kept), [3; PAGES]);
            assert_eq!(content(fs, taken), [3; PAGES]);
        }
        mount.unmount().unwrap();
        crashed.check();
    });
    drop(sleeper);
    survivor.unmount().unwrap();
    volume.check();
}
