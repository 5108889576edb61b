// SPDX-License-Identifier: GPL-2.0-only
//! Reading for which nobody waits: it gives what reading gives, holds no lock meanwhile, and is not believed when it is not certain.
//! Here, and not beside the core, because memory that is lent is looked at again.

#[path = "../../scoutfs-fs/tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{Own, READER, Volume, file};
use scoutfs_env::{IoBuf, Vec as FallibleVec, try_box};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Fs;
use scoutfs_fs::data::AllocateMode::{Allocate, PunchHole};
use scoutfs_fs::inode::{Drops, SetAttr};

const PAGE: usize = 4096;

/// Memory as a kernel has it in its folios, which a request fills.
struct Folios {
    places: Vec<(*const u8, usize)>,
    ended: Receiver<Option<usize>>,
}

impl Folios {
    /// Begins to read into folios of so many pages.
    fn read(fs: &Fs, ino: u64, offset: usize, pages: &[usize]) -> scoutfs_fs::Result<Folios> {
        let mut memory = FallibleVec::new();
        let mut places = vec![];
        for pages in pages {
            let mut buf = IoBuf::zeroed(pages * PAGE).unwrap();
            buf.fill(0xee);
            // Small, and never given back.
            let folio: &'static mut [u8] = &mut Box::leak(Box::new(buf))[..];
            places.push((&raw const folio[0], folio.len()));
            memory.push(folio).unwrap();
        }
        let (end, ended) = channel();
        let done = try_box(move |valid: Option<usize>| end.send(valid).unwrap()).unwrap();
        fs.read_ahead(ino, offset as u64, memory, done)?;
        Ok(Folios { places, ended })
    }

    /// What was read, when it has ended; none where it was not.
    fn bytes(self) -> Option<Vec<u8>> {
        // It may have been dropped.
        let valid = self.ended.recv().ok()??;
        let mut all = vec![];
        for (memory, len) in self.places {
            // SAFETY: the memory is never given back, and who filled it has said that it is through.
            all.extend_from_slice(unsafe { std::slice::from_raw_parts(memory, len) });
        }
        all.truncate(valid);
        Some(all)
    }
}

fn read(fs: &Fs, ino: u64, offset: usize, len: usize) -> Vec<u8> {
    let mut buf = vec![0xcc; len];
    let read = fs.read(ino, offset as u64, &mut buf).unwrap();
    buf.truncate(read);
    buf
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251 + seed) as u8).collect()
}

/// Files of all kinds of blocks.
fn files(fs: &Fs) -> Vec<u64> {
    let new = |n: &str| fs.create(ROOT_INO, n.as_bytes(), &file()).unwrap().ino;
    let (empty, whole, tail, holes, cut, gathered, pieces) =
        (new("empty"), new("whole"), new("tail"), new("holes"), new("cut"), new("gathered"), new("pieces"));
    fs.write(whole, 0, &pattern(1, 40 * PAGE)).unwrap();
    fs.write(tail, 0, &pattern(2, 9 * PAGE + 77)).unwrap();
    fs.write(holes, 3 * PAGE as u64, &pattern(3, 5 * PAGE + 100)).unwrap();
    fs.fallocate(holes, Allocate, false, 12 * PAGE as u64, 4 * PAGE as u64).unwrap();
    fs.write(holes, 14 * PAGE as u64, &pattern(4, 10)).unwrap();
    fs.fallocate(holes, PunchHole, true, 4 * PAGE as u64, PAGE as u64).unwrap();
    // Something is left behind the end.
    fs.write(cut, 0, &pattern(5, 3 * PAGE)).unwrap();
    fs.setattr(cut, &SetAttr { size: Some(5000), ..SetAttr::default() }).unwrap();
    fs.write_later(gathered, Some(0), &pattern(6, 5000), Drops::Nothing).unwrap();
    for n in (0..16).rev() {
        fs.write(pieces, (n * PAGE) as u64, &pattern(n, PAGE)).unwrap();
        fs.write(tail, (n % 4 * PAGE) as u64, &pattern(n, 50)).unwrap();
    }
    vec![empty, whole, tail, holes, cut, gathered, pieces]
}

#[test]
fn what_is_read_ahead_is_what_reading_gives() {
    let volume = Volume::new(128 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    for ino in files(fs) {
        for pages in [&[1][..], &[4, 1, 2], &[16, 16, 16], &[1; 20]] {
            for first in [0, 1, 3, 4, 9, 13, 60] {
                let offset = first * PAGE;
                let want = read(fs, ino, offset, pages.iter().sum::<usize>() * PAGE);
                let found = Folios::read(fs, ino, offset, pages).unwrap().bytes().unwrap();
                assert!(found == want, "inode {ino}, {pages:?} pages from {first} on");
            }
        }
    }
}

#[test]
fn nobody_waits_for_it() {
    let volume = Volume::new(128 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = files(fs)[1];
    volume.hold_ahead();
    let folios = Folios::read(fs, ino, 0, &[8]).unwrap();
    // It is of other blocks.
    fs.write(ino, 100 * PAGE as u64, &pattern(9, PAGE)).unwrap();
    fs.setattr(ino, &SetAttr { size: Some(50 * PAGE as u64), ..SetAttr::default() }).unwrap();
    fs.sync().unwrap();
    assert!(folios.ended.try_recv().is_err());
    assert_eq!(volume.read_held(), 1);
    assert_eq!(folios.bytes().unwrap(), pattern(1, 8 * PAGE));
}

#[test]
fn what_cannot_be_read_is_not_there() {
    let volume = Volume::new(128 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let (files, dir) = (files(fs), ROOT_INO);
    fs.sync().unwrap();
    assert!(Folios::read(fs, dir, 0, &[1]).is_err());
    assert!(Folios::read(fs, files[1], 100, &[1]).is_err(), "not at a block");
    volume.hold_ahead();
    let folios = Folios::read(fs, files[1], 0, &[8]).unwrap();
    volume.die_after(0);
    assert_eq!(volume.read_held(), 1);
    assert_eq!(folios.bytes(), None);
}

fn end_lease(volume: &Volume, fs: &Fs) {
    volume.refuse_writes();
    while !fs.store().lease_left().is_zero() {
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_the_device_gave_when_the_lease_was_over_is_not_believed() {
    let volume = Volume::new(128 << 20);
    let mount = volume.mount_with_lease(1000);
    let fs = mount.fs();
    let ino = files(fs)[1];
    fs.sync().unwrap();
    for over in [false, true] {
        volume.hold_ahead();
        let folios = Folios::read(fs, ino, 0, &[8]).unwrap();
        if over {
            end_lease(&volume, fs);
        }
        assert_eq!(volume.read_held(), 1);
        assert_eq!(folios.bytes().is_none(), over);
    }
}

#[test]
fn nor_does_reading_give_it() {
    let volume = Volume::new(128 << 20);
    let own = Arc::new(Own::default());
    let mount = volume.mount_with_lease_by(1000, &own);
    let fs = mount.fs();
    let ino = files(fs)[1];
    fs.sync().unwrap();
    let late = own.late_reads.write().unwrap();
    thread::scope(|scope| {
        let body = || fs.read(ino, 0, &mut [0; 8 * PAGE]);
        let reader = thread::Builder::new().name(READER.into()).spawn_scoped(scope, body).unwrap();
        while own.reading.load(Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        end_lease(&volume, fs);
        drop(late);
        assert!(reader.join().unwrap().is_err());
    });
}
