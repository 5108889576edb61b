// SPDX-License-Identifier: GPL-2.0-only
//! Pages of a kernel that programs change, and that are written later.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Volume, counter, file};
use scoutfs_env::IoBuf;
use scoutfs_env::time::Timespec;
use scoutfs_format::ioctl::{ATTR_DATA_VERSION, AttrX};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::data::{AllocateMode, Copied};
use scoutfs_fs::inode::{Attr, Drops, SetAttr, SetTime};
use scoutfs_fs::{Error, Fs, Mount};
use zerocopy::FromZeros as _;

const BLOCK: usize = 4096;

/// A file of eight blocks of ones, open for writing, durable.
fn ones(mount: &Mount) -> u64 {
    let fs = mount.fs();
    let ino = fs.create(ROOT_INO, b"file", &file()).unwrap().ino;
    fs.write(ino, 0, &[1; 8 * BLOCK]).unwrap();
    fs.open(ino, true).unwrap();
    fs.sync().unwrap();
    ino
}

/// What a change of pages that nobody has read gives.
fn copied(bytes: usize) -> Copied {
    Copied { bytes, may_be_read: false }
}

/// Memory as pages are.
fn pages(byte: u8, len: usize) -> IoBuf {
    IoBuf::from_slice(&vec![byte; len]).unwrap()
}

fn content(fs: &Fs, ino: u64) -> Vec<u8> {
    let mut bytes = vec![0; 9 * BLOCK];
    let len = fs.read(ino, 0, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// All that a program sees of it.
fn seen(attr: &Attr) -> impl PartialEq + std::fmt::Debug {
    (
        attr.version,
        attr.data_version,
        attr.data_seq,
        attr.mtime.sec,
        attr.mtime.nsec,
        attr.ctime.nsec,
        attr.blocks,
    )
}

#[test]
fn a_file_changes_when_a_program_writes_to_its_pages_and_not_once_more_when_they_are_written() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = ones(&mount);
    let before = fs.getattr(ino).unwrap();
    let mut page = pages(1, BLOCK);
    let mut calls = 0;
    let changed = fs.change_pages(ino, (2 * BLOCK + 100) as u64, 50, &mut || {
        page[100..150].fill(2);
        calls += 1;
        copied(50)
    });
    assert_eq!(changed.unwrap(), Some(50));
    assert_eq!(calls, 1);
    let shown = fs.getattr(ino).unwrap();
    assert_eq!((shown.version, shown.data_version), (before.version + 1, before.data_version));
    assert!((shown.mtime.sec, shown.mtime.nsec) > (before.mtime.sec, before.mtime.nsec));
    assert_eq!(content(fs, ino), [1; 8 * BLOCK], "the device has it already");
    // Neither the change nor its data are on the volume before the pages are.
    fs.sync().unwrap();
    let crashed = volume.crash();
    let after_crash = crashed.mount();
    assert_eq!(seen(&after_crash.fs().getattr(ino).unwrap()), seen(&before));
    after_crash.unmount().unwrap();
    crashed.check();
    fs.setattr(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    let shown = Attr { ctime: fs.getattr(ino).unwrap().ctime, version: shown.version + 1, ..shown };
    assert_eq!(seen(&fs.getattr(ino).unwrap()), seen(&shown));
    // One that is changed by a mapping, and two that are not, at one time.
    fs.write_pages(ino, &[((2 * BLOCK) as u64, &page), ((6 * BLOCK) as u64, &pages(3, 2 * BLOCK))], false)
        .unwrap();
    let durable = fs.getattr(ino).unwrap();
    let want = Attr { data_version: before.data_version + 1, data_seq: durable.data_seq, ..shown };
    assert_eq!(seen(&durable), seen(&want));
    fs.write_pages(ino, &[((2 * BLOCK) as u64, &page)], false).unwrap();
    assert_eq!(seen(&fs.getattr(ino).unwrap()), seen(&durable));
    fs.fsync(ino).unwrap();
    let crashed = volume.crash();
    let after_crash = crashed.mount();
    assert_eq!(seen(&after_crash.fs().getattr(ino).unwrap()), seen(&durable));
    after_crash.unmount().unwrap();
    let mut want = vec![1; 8 * BLOCK];
    want[2 * BLOCK + 100..2 * BLOCK + 150].fill(2);
    want[6 * BLOCK..].fill(3);
    assert_eq!(content(fs, ino), want);
    fs.write_pages(ino, &[(0, &pages(4, BLOCK))], true).unwrap();
    let mapped = fs.getattr(ino).unwrap();
    assert_eq!((mapped.version, mapped.data_version), (durable.version + 1, durable.data_version + 1));
    // A time that somebody sets stays, and a later write's is newer than what was shown before.
    assert!(fs.change_pages(ino, 0, 1, &mut || copied(1)).unwrap().is_some());
    let mtime = Some(SetTime::At(Timespec { sec: 77, nsec: 7 }));
    fs.setattr(ino, &SetAttr { mtime, ..SetAttr::default() }).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().mtime.sec, 77);
    fs.write_pages(ino, &[(0, &pages(4, BLOCK))], false).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().mtime.sec, 77);
    let shorter = SetAttr { size: Some(8 * BLOCK as u64), ..SetAttr::default() };
    let newer: [&dyn Fn(); 4] = [
        &|| assert_eq!(fs.write(ino, 5, b"x").unwrap(), 1),
        &|| assert_eq!(fs.write_later(ino, None, b"y", Drops::Nothing).unwrap().1, 1),
        &|| fs.fallocate(ino, AllocateMode::Allocate, true, 0, 1).unwrap(),
        &|| assert_eq!(fs.setattr(ino, &shorter).unwrap().size, 8 * BLOCK as u64),
    ];
    for newer in newer {
        assert!(fs.change_pages(ino, 0, 1, &mut || copied(1)).unwrap().is_some());
        let first = fs.getattr(ino).unwrap();
        newer();
        let second = fs.getattr(ino).unwrap();
        let time = |attr: &Attr| (attr.mtime.sec, attr.mtime.nsec);
        assert!(time(&second) > time(&first) && second.version > first.version);
        fs.write_pages(ino, &[(0, &pages(4, BLOCK))], false).unwrap();
        let third = fs.getattr(ino).unwrap();
        assert_eq!((third.version, time(&third)), (second.version, time(&second)));
    }
    fs.release(ino, true);
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn pages_are_changed_where_the_file_has_room_and_are_written_in_place() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = ones(&mount);
    fs.fallocate(ino, AllocateMode::PunchHole, true, BLOCK as u64, BLOCK as u64).unwrap();
    fs.fallocate(ino, AllocateMode::ZeroRange, true, (3 * BLOCK) as u64, BLOCK as u64).unwrap();
    let before = fs.getattr(ino).unwrap();
    let never = &mut || panic!("it is not changed so");
    // The end of the file, and beyond.
    for (at, len) in [(8 * BLOCK - 1, 2), (20 * BLOCK, 1)] {
        assert_eq!(fs.change_pages(ino, at as u64, len as u64, never).unwrap(), None, "{at} {len}");
    }
    assert_eq!(seen(&fs.getattr(ino).unwrap()), seen(&before));
    // A hole, between data and what is allocated and not written: it has blocks from then on, and data later.
    let all = 2 * BLOCK + 2;
    assert_eq!(fs.change_pages(ino, (BLOCK - 1) as u64, all as u64, &mut || copied(all)).unwrap(), Some(all));
    let changed = fs.getattr(ino).unwrap();
    assert_eq!(changed.online_blocks, before.online_blocks + 1);
    assert!(changed.mtime > before.mtime);
    assert_eq!(content(fs, ino)[BLOCK..2 * BLOCK], [0; BLOCK]);
    let fours = pages(4, BLOCK);
    let some: Vec<(u64, &[u8])> = [0, 1, 2, 3].map(|block| ((block * BLOCK) as u64, &fours[..])).to_vec();
    fs.write_pages(ino, &some, false).unwrap();
    assert_eq!(content(fs, ino)[..4 * BLOCK], [4; 4 * BLOCK]);
    let written = fs.getattr(ino).unwrap();
    assert_eq!((written.online_blocks, written.mtime), (changed.online_blocks, changed.mtime));
    assert!(written.data_version > changed.data_version);
    fs.fallocate(ino, AllocateMode::PunchHole, true, BLOCK as u64, BLOCK as u64).unwrap();
    fs.fallocate(ino, AllocateMode::ZeroRange, true, (3 * BLOCK) as u64, BLOCK as u64).unwrap();
    // What is gathered at the end is written before, and all of it is data then.
    fs.write_later(ino, None, &[5; 100], Drops::Nothing).unwrap();
    assert_eq!(fs.change_pages(ino, (8 * BLOCK + 50) as u64, 50, &mut || copied(50)).unwrap(), Some(50));
    let all = 4 * BLOCK + 100;
    assert_eq!(fs.change_pages(ino, (4 * BLOCK) as u64, all as u64, &mut || copied(7)).unwrap(), Some(7));
    // Nothing could be copied: nothing has happened.
    let before = fs.getattr(ino).unwrap();
    assert_eq!(fs.change_pages(ino, 0, 1, &mut || copied(0)).unwrap(), Some(0));
    assert_eq!(seen(&fs.getattr(ino).unwrap()), seen(&before));
    // A page that ends behind the file, and one that lies there, write nothing behind it.
    let last: &[(u64, &[u8])] =
        &[((8 * BLOCK) as u64, &pages(6, BLOCK)), ((9 * BLOCK) as u64, &pages(7, BLOCK))];
    fs.write_pages(ino, last, false).unwrap();
    let after = fs.getattr(ino).unwrap();
    assert_eq!((after.size, after.online_blocks), ((8 * BLOCK + 100) as u64, 8));
    fs.setattr(ino, &SetAttr { size: Some((9 * BLOCK) as u64), ..Default::default() }).unwrap();
    let bytes = content(fs, ino);
    assert!(bytes[8 * BLOCK..8 * BLOCK + 100].iter().all(|byte| *byte == 6));
    assert!(bytes[8 * BLOCK + 100..].iter().all(|byte| *byte == 0));
    // In a hole, as a mapping changes it: what has no data gets some.
    fs.write_pages(ino, &[(0, &pages(8, 3 * BLOCK))], true).unwrap();
    assert_eq!(content(fs, ino)[..3 * BLOCK], [8; 3 * BLOCK]);
    // What is allocated and not written, between and beside what is.
    fs.fallocate(ino, AllocateMode::ZeroRange, true, (5 * BLOCK) as u64, BLOCK as u64).unwrap();
    let before = fs.getattr(ino).unwrap();
    let nines = pages(9, BLOCK);
    let some: Vec<(u64, &[u8])> = [2, 3, 5].map(|block| ((block * BLOCK) as u64, &nines[..])).to_vec();
    fs.write_pages(ino, &some, true).unwrap();
    let after = fs.getattr(ino).unwrap();
    assert_eq!((after.blocks, after.online_blocks), (before.blocks, before.online_blocks));
    assert!(after.data_version > before.data_version);
    let bytes = content(fs, ino);
    for (block, byte) in [(1, 8), (2, 9), (3, 9), (4, 1), (5, 9), (6, 1)] {
        assert_eq!(bytes[block * BLOCK..][..BLOCK], [byte; BLOCK], "block {block}");
        assert!(fs.change_pages(ino, (block * BLOCK) as u64, 1, &mut || copied(1)).unwrap().is_some());
    }
    fs.release(ino, true);
    mount.unmount().unwrap();
    volume.check();
}

/// Such a change may have been committed long before its pages are written: no commit makes them durable then.
#[test]
fn fsync_makes_pages_durable_also_when_there_is_nothing_to_commit() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = ones(&mount);
    let other = fs.create(ROOT_INO, b"other", &file()).unwrap().ino;
    fs.sync().unwrap();
    let counts = || (counter(fs, "commits"), counter(fs, "device_flushes"));
    let of = |body: &dyn Fn()| {
        let before = counts();
        body();
        let after = counts();
        (after.0 - before.0, after.1 - before.1)
    };
    let write = || fs.write_pages(ino, &[(0, &pages(2, BLOCK))], false).unwrap();
    write();
    assert_eq!(of(&|| fs.fsync(ino).unwrap()), (0, 1));
    assert_eq!(of(&|| fs.fsync(ino).unwrap()), (0, 0));
    write();
    assert_eq!(of(&|| fs.fsync(other).unwrap()), (0, 0), "it is another's");
    assert_eq!(of(&|| fs.sync().unwrap()), (0, 1));
    assert_eq!(of(&|| fs.fsync(ino).unwrap()), (0, 0));
    // Nobody remembers of an inode that was not in use meanwhile.
    write();
    fs.release(ino, true);
    fs.forget(ino, 1);
    assert_eq!(fs.lookup(ROOT_INO, b"file").unwrap().ino, ino);
    assert_eq!(of(&|| fs.fsync(ino).unwrap()), (0, 1));
    // What a commit has flushed along.
    write();
    fs.setattr(ino, &SetAttr { mode: Some(0o600), ..Default::default() }).unwrap();
    let (commits, _) = of(&|| fs.fsync(ino).unwrap());
    assert_eq!(commits, 1);
    assert_eq!(of(&|| fs.fsync(ino).unwrap()), (0, 0));
    mount.unmount().unwrap();
    volume.check();
}

/// Changes the first page, in one go with writing it.
fn overwrite(fs: &Fs, ino: u64, byte: u8, may_be_read: bool) {
    let changed = fs.change_pages(ino, 0, BLOCK as u64, &mut || Copied { bytes: BLOCK, may_be_read });
    assert_eq!(changed.unwrap(), Some(BLOCK));
    fs.write_pages(ino, &[(0, &pages(byte, BLOCK))], false).unwrap();
}

/// Overwrites so that the item does not change: soon after it has, when nobody has looked since.
fn overwrite_unseen(fs: &Fs, ino: u64, byte: u8) {
    let commits = || counter(fs, "commits");
    for _ in 0..1000 {
        overwrite(fs, ino, byte, true);
        fs.fsync(ino).unwrap();
        let (before, flushes) = (commits(), counter(fs, "device_flushes"));
        overwrite(fs, ino, byte, false);
        fs.fsync(ino).unwrap();
        assert_eq!(counter(fs, "device_flushes"), flushes + 1);
        if commits() == before {
            return;
        }
        // More than the longest tick has passed.
    }
    panic!("it has changed each time");
}

/// The file as it is after a crash: what it begins with, and its attributes.
fn after_crash(volume: &Volume, ino: u64) -> (u8, Attr) {
    let crashed = volume.crash();
    let mount = crashed.mount();
    let found = (content(mount.fs(), ino)[0], mount.fs().getattr(ino).unwrap());
    mount.unmount().unwrap();
    crashed.check();
    found
}

#[test]
fn an_overwrite_that_nobody_has_looked_at_is_durable_without_a_record_and_recorded_when_somebody_looks() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = ones(&mount);
    let commits = || counter(fs, "commits");
    overwrite_unseen(fs, ino, 2);
    let (byte, durable) = after_crash(&volume, ino);
    assert_eq!(byte, 2);
    // Each change is shown, with its time, and what was shown is durable with the next one.
    let shown = fs.getattr(ino).unwrap();
    assert_eq!(shown.version, durable.version + 1);
    assert!((shown.mtime.sec, shown.mtime.nsec) > (durable.mtime.sec, durable.mtime.nsec));
    assert_eq!(seen(&fs.getattr(ino).unwrap()), seen(&shown));
    let before = commits();
    fs.fsync(ino).unwrap();
    assert_eq!(commits(), before + 1);
    let (_, durable) = after_crash(&volume, ino);
    assert_eq!((durable.version, durable.mtime), (shown.version, shown.mtime));
    assert!(durable.data_version > shown.data_version);
    // Who has looked finds another version when there is other content: by each way to look.
    let data_version = || fs.stat_more(ino).unwrap().data_version.get();
    let looks: [(&str, &dyn Fn()); 4] = [
        ("getattr", &|| assert!(fs.getattr(ino).is_ok())),
        ("lookup", &|| {
            fs.lookup(ROOT_INO, b"file").unwrap();
            fs.forget(ino, 1);
        }),
        ("stat_more", &|| assert!(data_version() > 0)),
        ("attr_x", &|| {
            let mut x = AttrX { x_mask: ATTR_DATA_VERSION.into(), ..AttrX::new_zeroed() };
            fs.get_attr_x(ino, &mut x).unwrap();
        }),
    ];
    for (way, look) in looks {
        overwrite_unseen(fs, ino, 3);
        look();
        let (before, seen) = (commits(), fs.getattr(ino).unwrap().version);
        overwrite(fs, ino, 4, false);
        fs.fsync(ino).unwrap();
        assert_eq!(commits(), before + 1, "{way}");
        let (byte, durable) = after_crash(&volume, ino);
        assert_eq!((byte, durable.version), (4, seen + 1), "{way}");
    }
    // Who has read past the core is noticed by who writes.
    overwrite_unseen(fs, ino, 5);
    let before = commits();
    overwrite(fs, ino, 6, true);
    fs.fsync(ino).unwrap();
    assert_eq!(commits(), before + 1);
    // An archiver learns of it, also when nobody syncs.
    overwrite_unseen(fs, ino, 7);
    let first = data_version();
    assert_eq!(data_version(), first);
    overwrite(fs, ino, 8, false);
    assert!(data_version() > first);
    fs.release(ino, true);
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn what_a_file_shows_of_unseen_overwrites_is_recorded_by_sync_by_the_last_close_and_when_the_lock_goes() {
    let volume = Volume::new(64 << 20);
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mount = volume.node(address, true);
    let other = volume.try_client().unwrap();
    let fs = mount.fs();
    let ino = ones(&mount);
    overwrite_unseen(fs, ino, 2);
    fs.sync().unwrap();
    let (_, durable) = after_crash(&volume, ino);
    let shown = fs.getattr(ino).unwrap();
    assert_eq!((durable.version, durable.mtime), (shown.version, shown.mtime));
    overwrite_unseen(fs, ino, 3);
    fs.release(ino, true);
    fs.forget(ino, 1);
    fs.sync().unwrap();
    let (_, durable) = after_crash(&volume, ino);
    let shown = fs.lookup(ROOT_INO, b"file").unwrap();
    assert!(durable.version > shown.version - 1 && durable.mtime == shown.mtime);
    fs.open(ino, true).unwrap();
    overwrite_unseen(fs, ino, 4);
    let (_, durable) = after_crash(&volume, ino);
    // It goes by the lock for reading, and what another has read is not changed unseen.
    let elsewhere = other.fs().getattr(ino).unwrap();
    assert_eq!(elsewhere.version, durable.version + 1);
    assert_eq!(seen(&fs.getattr(ino).unwrap()), seen(&elsewhere));
    overwrite(fs, ino, 5, false);
    fs.fsync(ino).unwrap();
    let (byte, durable) = after_crash(&volume, ino);
    assert_eq!((byte, durable.version), (5, elsewhere.version + 1));
    overwrite_unseen(fs, ino, 6);
    let before = fs.getattr(ino).unwrap().version;
    overwrite_unseen(fs, ino, 7);
    // By the lock for writing.
    other.fs().setattr(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    assert!(other.fs().getattr(ino).unwrap().version > before + 2);
    assert_eq!(content(other.fs(), ino)[0], 7);
    fs.release(ino, true);
    other.unmount().unwrap();
    mount.unmount().unwrap();
    volume.check();
}

/// Pages here and there in space without data need items when they are written. What the mount cannot promise is not changed so.
#[test]
fn pages_that_a_program_changed_in_space_without_data_are_written_when_the_volume_is_full() {
    const PAGES: usize = 100_000;
    const VOLUME: u64 = 1 << 30;
    for mapped in [false, true] {
        let volume = Volume::new(VOLUME);
        let mount = volume.mount();
        let fs = mount.fs();
        let ino = fs.create(ROOT_INO, b"file", &file()).unwrap().ino;
        fs.open(ino, true).unwrap();
        let at = |page: usize| (2 * page * BLOCK) as u64;
        fs.fallocate(ino, AllocateMode::Allocate, false, 0, at(PAGES)).unwrap();
        // Little is left for metadata.
        let other = fs.create(ROOT_INO, b"other", &file()).unwrap().ino;
        let mut end = 0;
        while fs.fallocate(other, AllocateMode::Allocate, false, end, 4 << 20).is_ok() {
            end += 4 << 20;
        }
        let mut files = 0;
        let mut fill = |most: u64| {
            for _ in 0..most {
                match fs.create(ROOT_INO, format!("a file with a long name {files:0200}").as_bytes(), &file())
                {
                    Ok(attr) => fs.forget(attr.ino, 1),
                    Err(Error::NoSpace) => return false,
                    Err(e) => panic!("{e}"),
                }
                files += 1;
            }
            true
        };
        // Some while there is room, and some as it gets less.
        let (mut changed, mut full) = (Vec::new(), false);
        for page in 0..PAGES {
            let done = match mapped {
                true => match fs.prepare_pages(ino, at(page), BLOCK as u64) {
                    Ok(()) => true,
                    Err(Error::NoSpace) => false,
                    Err(e) => panic!("{e}"),
                },
                false => fs.change_pages(ino, at(page), 1, &mut || copied(1)).unwrap().is_some(),
            };
            match done {
                true => changed.push(page),
                false if full => break,
                false => {}
            }
            if page % 1000 == 0 && !full {
                full = !fill(200);
            }
        }
        assert!(full);
        assert!((100..PAGES).contains(&changed.len()), "of {PAGES} pages {} were changed", changed.len());
        let byte = pages(7, BLOCK);
        assert!(counter(fs, "owed_bytes") > 0);
        for page in &changed {
            fs.write_pages(ino, &[(at(*page), &byte)], mapped).unwrap();
        }
        fs.fsync(ino).unwrap();
        let crashed = volume.crash();
        let after = crashed.mount();
        let mut bytes = vec![0; BLOCK];
        for page in changed {
            assert_eq!(after.fs().read(ino, at(page), &mut bytes).unwrap(), BLOCK);
            assert_eq!(bytes, byte[..], "page {page}");
        }
        after.unmount().unwrap();
        // What was promised is not kept for ever.
        fs.release(ino, true);
        assert_eq!(counter(fs, "owed_bytes"), 0);
        mount.unmount().unwrap();
        crashed.check();
    }
}

#[test]
fn what_is_written_here_and_there_into_a_hole_is_in_order_on_the_device() {
    const BLOCKS: usize = 512;
    let volume = Volume::new(1 << 30);
    let mount = volume.mount();
    let fs = mount.fs();
    for later in [false, true] {
        let ino = fs.create(ROOT_INO, if later { b"later" } else { b"at_once" }, &file()).unwrap().ino;
        let set = SetAttr { size: Some((BLOCKS * BLOCK) as u64), ..SetAttr::default() };
        fs.setattr(ino, &set).unwrap();
        fs.open(ino, true).unwrap();
        let other = fs.create(ROOT_INO, if later { b"other later" } else { b"other" }, &file()).unwrap().ino;
        let byte = pages(5, BLOCK);
        for i in 0..BLOCKS {
            let at = (i * 211 % BLOCKS * BLOCK) as u64;
            match later {
                true => assert_eq!(
                    fs.change_pages(ino, at, BLOCK as u64, &mut || copied(BLOCK)).unwrap(),
                    Some(BLOCK)
                ),
                false => assert_eq!(fs.write(ino, at, &byte).unwrap(), BLOCK),
            }
            // Others find place elsewhere.
            assert_eq!(fs.append(other, &byte).unwrap().1, BLOCK);
        }
        let all = pages(5, BLOCKS * BLOCK);
        if later {
            fs.write_pages(ino, &[(0, &all)], false).unwrap();
        }
        let extents = fs.fiemap(ino, 0, u64::MAX, 100).unwrap();
        assert_eq!(extents.len(), 1, "later: {later}");
        fs.release(ino, true);
    }
    mount.unmount().unwrap();
    volume.check();
}

#[test]
fn a_version_never_goes_back_while_the_item_takes_over_what_was_shown() {
    let volume = Volume::new(64 << 20);
    let mount = volume.mount();
    let fs = mount.fs();
    let ino = ones(&mount);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let (mut last, mut changes) = (fs.getattr(ino).unwrap(), 0);
            while !done.load(Ordering::Relaxed) {
                let now = fs.getattr(ino).unwrap();
                assert!(now.version >= last.version && now.mtime >= last.mtime, "{last:?} and then {now:?}");
                changes += u32::from(now.version > last.version);
                last = now;
            }
            changes
        });
        for i in 0..20_000 {
            overwrite(fs, ino, i as u8, false);
            fs.fsync(ino).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(looks.join().unwrap() > 0);
    });
    fs.release(ino, true);
    mount.unmount().unwrap();
    volume.check();
}
