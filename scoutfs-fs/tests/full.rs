// SPDX-License-Identifier: GPL-2.0-only
//! A volume is filled and emptied ten times: with data, with empty files, and with both. Every block comes back.
//!
//! What a volume uses when it is empty again, and nobody has worked for a while, is the same to the block. A deletion that was
//! merged before it was sure that no log holds an older item stays in the fs tree for up to half a minute, until a sweep takes it
//! away. So this waits for the sweep, twice.

mod common;

use std::time::{Duration, Instant};

use common::{Volume, file, name};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::data::AllocateMode;
use scoutfs_fs::{Fs, Mount, Result};

/// Blocks of 4 KiB that hold something, or that the server works with.
fn used(fs: &Fs) -> u64 {
    let stat = fs.statfs().unwrap();
    (stat.total_meta - stat.free_meta) * 16 + stat.total_data - stat.free_data
}

/// Waits until nothing has changed for longer than a sweep may take to begin.
fn settle(fs: &Fs) {
    let (mut last, mut since) = (used(fs), Instant::now());
    while since.elapsed() < Duration::from_secs(40) {
        std::thread::sleep(Duration::from_millis(200));
        let now = used(fs);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Makes files, each with so many bytes, until there is no space. Gives how many there are.
fn fill(fs: &Fs, bytes: impl Fn(usize) -> usize) -> usize {
    let data = vec![7; 1 << 20];
    let make = |count: usize| -> Result<()> {
        let ino = fs.create(ROOT_INO, &name(count), &file())?.ino;
        let (len, mut done) = (bytes(count), 0);
        let mut written = Ok(());
        while done < len && written.is_ok() {
            written = fs.write(ino, done as u64, &data[done..len]).map(|n| done += n);
        }
        fs.forget(ino, 1);
        written
    };
    let mut count = 0;
    let full = loop {
        match make(count) {
            Ok(()) => count += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(full.errno(), 28, "{full}");
    // The last one may have been made without all of its data.
    count + usize::from(fs.lookup(ROOT_INO, &name(count)).map(|attr| fs.forget(attr.ino, 1)).is_ok())
}

/// What a volume is filled with, how many bytes each file has, and how many files there must be room for. How many
/// there is room for differs from round to round, by what is merged and swept when: about 15,000 empty files.
type Kind = (&'static str, fn(usize) -> usize, usize);

#[test]
fn ten_rounds_of_filling_and_emptying_give_every_block_back() {
    let volume = Volume::new(64 << 20);
    let mount = with_ballast(&volume, 44 << 20);
    let fs = mount.fs();
    let kinds: [Kind; 3] = [
        ("data", |_| 1 << 20, 6),
        ("empty files", |_| 0, 12_000),
        ("both", |n| if n % 50 == 0 { 100_000 } else { 0 }, 1_500),
    ];
    let mut first = None;
    for round in 0..10 {
        let (kind, bytes, at_least) = kinds[round % 3];
        let count = fill(fs, bytes);
        volume.crash().check();
        assert!(count >= at_least, "round {round}: full with {count} files, {kind}: {:?}", fs.statfs());
        empty(fs, count);
        // After one round of each kind, and after the last.
        if round == 2 || round == 9 {
            settle(fs);
            let used = volume.crash().check().used_blocks;
            let first = *first.get_or_insert(used);
            assert_eq!(used, first, "blocks in use after round {round}, {:?}", fs.statfs());
        }
    }
    mount.unmount().unwrap();
    volume.check();
}

/// Empties the volume of what [`fill`] made.
fn empty(fs: &Fs, count: usize) {
    for n in 0..count {
        fs.unlink(ROOT_INO, &name(n)).unwrap();
    }
    fs.sync().unwrap();
}

/// What stays makes a volume small, and filling it quick.
fn with_ballast(volume: &Volume, bytes: u64) -> Mount {
    let mount = volume.mount();
    let fs = mount.fs();
    let ballast = fs.create(ROOT_INO, b"ballast", &file()).unwrap().ino;
    fs.fallocate(ballast, AllocateMode::Allocate, false, 0, bytes).unwrap();
    fs.forget(ballast, 1);
    mount
}

#[test]
fn a_volume_is_not_full_of_files_while_a_zone_of_data_is_free() {
    let volume = Volume::new(64 << 20);
    let mount = with_ballast(&volume, 47 << 20);
    let fs = mount.fs();
    // The mount keeps data blocks when the files are gone.
    empty(fs, fill(fs, |_| 1 << 20));
    fill(fs, |_| 0);
    let zones = volume.crash().check().free_zones;
    assert_eq!((zones.data, zones.empty), (0, 0), "{zones:?}, {:?}", fs.statfs());
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn a_volume_that_was_full_of_files_holds_as_much_data_as_a_new_one() {
    let full_of_data = |filled_before: bool| {
        let volume = Volume::new(64 << 20);
        let mount = with_ballast(&volume, 44 << 20);
        let fs = mount.fs();
        if filled_before {
            empty(fs, fill(fs, |_| 0));
        }
        fill(fs, |_| 1 << 20);
        let zones = volume.crash().check().free_zones;
        assert_eq!(zones.data, 0, "{zones:?}, {:?}", fs.statfs());
        let stat = fs.statfs().unwrap();
        mount.unmount().unwrap();
        volume.check();
        stat.total_data / 256
    };
    let (new, after) = (full_of_data(false), full_of_data(true));
    assert!(after >= new, "{after} zones of data after files, {new} before");
}

/// A volume is not full because merging is slow: who waits for it waits as long as it goes on.
#[test]
fn slow_merges_are_no_reason_to_say_that_a_volume_is_full() {
    let room = |slow_ms| {
        let volume = Volume::new(64 << 20);
        let mount = with_ballast(&volume, 47 << 20);
        let fs = mount.fs();
        volume.slow_merges(slow_ms);
        let count = fill(fs, |_| 0);
        volume.slow_merges(0);
        mount.unmount().unwrap();
        volume.check();
        count
    };
    let (quick, slow) = (room(0), room(800));
    assert!(slow >= quick * 3 / 4, "room for {slow} files when merges are slow, for {quick} when not");
}
