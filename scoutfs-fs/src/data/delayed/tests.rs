// SPDX-License-Identifier: GPL-2.0-only
//! What writes that are gathered promise.

use std::thread;
use std::time::Duration;
use std::vec::Vec;
use std::{format, vec};

use scoutfs_env::time::Timespec;
use scoutfs_format::item::ROOT_INO;

use super::MAX_BYTES;
use crate::data::AllocateMode::{Allocate, PunchHole, ZeroRange};
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{FILE, Pair, TestFs, bytes};
use crate::inode::{Drops, SetAttr, SetTime};
use crate::xattr::SetXattrMode;

fn append(fs: &Fs, ino: u64, data: &[u8]) -> u64 {
    let (at, len) = fs.write_later(ino, None, data, Drops::SetIdsToo).unwrap();
    assert_eq!(len, data.len());
    at
}

fn is_gathered(fs: &Fs, ino: u64) -> bool {
    fs.table.get(ino).is_some_and(|inode| inode.delayed.is_some())
}

/// Nothing is written by time.
fn stop_the_clock(fs: &Fs) {
    fs.delayed.queue.lock().delay = Duration::from_secs(3600);
}

fn quiet() -> TestFs {
    let fs = TestFs::new();
    stop_the_clock(&fs);
    fs
}

#[test]
fn small_writes_at_the_end_are_gathered_and_everybody_sees_them() {
    let fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    let all = bytes(1, 50_000);
    let mut version = fs.getattr(ino).unwrap().version;
    for (n, piece) in all.chunks(1000).enumerate() {
        assert_eq!(append(&fs, ino, piece), n as u64 * 1000);
        let attr = fs.getattr(ino).unwrap();
        let size = (n as u64 + 1) * 1000;
        assert_eq!((attr.size, attr.blocks), (size, size.div_ceil(4096) * 8));
        assert_eq!(attr, fs.lookup(ROOT_INO, b"file").unwrap());
        assert_eq!(attr, fs.lookup_ino(ino).unwrap());
        fs.forget(ino, 2);
        assert!(attr.version > version, "a change is a change");
        version = attr.version;
        assert!(is_gathered(&fs, ino));
    }
    assert_eq!(fs.extent_blocks(ino), 0, "nothing is written yet");
    assert_eq!(fs.read_all(ino), all);
    assert!(!is_gathered(&fs, ino));
    assert_eq!(fs.extents(ino), [(0, 13, true)]);
    assert!(fs.getattr(ino).unwrap().version >= version);
    fs.verify();
}

#[test]
fn what_was_synced_is_there_after_a_crash_and_the_rest_harms_nothing() {
    for all in [false, true] {
        let mut fs = quiet();
        let ino = fs.touch(ROOT_INO, "synced");
        let other = fs.touch(ROOT_INO, "other");
        let data = bytes(1, 10_000);
        append(&fs, ino, &data[..5000]);
        append(&fs, ino, &data[5000..]);
        append(&fs, other, &data[..100]);
        if all {
            fs.sync().unwrap()
        } else {
            fs.fsync(ino).unwrap()
        }
        append(&fs, ino, b"more");
        append(&fs, other, b"more");
        fs.crash();
        assert_eq!(fs.read_all(ino), data);
        // All that was done before.
        assert_eq!(fs.read_all(other), data[..100]);
        fs.verify();
    }
}

#[test]
fn unmounting_writes_what_is_gathered() {
    let mut fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    append(&fs, ino, &bytes(1, 5000));
    assert!(is_gathered(&fs, ino));
    fs.remount();
    assert_eq!(fs.read_all(ino), bytes(1, 5000));
}

#[test]
fn it_is_written_a_moment_later_by_itself_and_then_nothing_is_kept() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    append(&fs, ino, &bytes(1, 5000));
    while fs.extent_blocks(ino) == 0 || !fs.delayed.queue.lock().waiting.is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!is_gathered(&fs, ino));
    // The last reference goes, and the inode leaves the table.
    while fs.table.contains(ino) {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(fs.delayed.queue.lock().bytes, 0);
}

#[test]
fn an_inode_that_is_forgotten_is_written_and_one_that_is_unlinked_is_gone_at_once() {
    let fs = quiet();
    let (kept, gone) = (fs.touch(ROOT_INO, "kept"), fs.touch(ROOT_INO, "gone"));
    let before = fs.used_data();
    for ino in [kept, gone] {
        append(&fs, ino, &bytes(1, 5000));
    }
    fs.unlink(ROOT_INO, b"gone").unwrap();
    assert!(!fs.table.contains(gone) && fs.table.contains(kept));
    assert_eq!(fs.delayed.queue.lock().waiting.len(), 1);
    fs.stop_delaying();
    assert_eq!(fs.delayed.queue.lock().bytes, 0);
    assert_eq!(fs.read_all(kept), bytes(1, 5000));
    assert!(matches!(fs.getattr(gone), Err(Error::StaleHandle)));
    fs.drop_reservations();
    assert_eq!(fs.used_data(), before + 2);
}

#[test]
fn writes_that_do_not_go_on_at_the_end_are_written_after_what_is_gathered() {
    let fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    let mut want = bytes(1, 3000);
    append(&fs, ino, &want);
    // In the middle, behind a hole, large, and of nothing.
    for (at, len) in [(1000, 500), (20_000, 10), (20_010, 100_000), (5, 0)] {
        let data = bytes(at, len);
        assert_eq!(fs.write_later(ino, Some(at), &data, Drops::Nothing).unwrap(), (at, len));
        let end = at as usize + len;
        want.resize(want.len().max(end), 0);
        want[at as usize..end].copy_from_slice(&data);
        append(&fs, ino, b"and on");
        want.extend(b"and on");
    }
    assert!(is_gathered(&fs, ino));
    assert_eq!(fs.read_all(ino), want);
    fs.verify();
}

#[test]
fn a_long_stream_of_small_writes_lies_as_if_it_were_one_write() {
    let fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    let all = bytes(1, 3 * MAX_BYTES + 12_345);
    for (n, piece) in all.chunks(777).enumerate() {
        assert_eq!(append(&fs, ino, piece), n as u64 * 777);
    }
    assert_eq!(fs.read_all(ino), all);
    let other = TestFs::new();
    let whole = other.touch(ROOT_INO, "file");
    assert_eq!(other.write(whole, 0, &all).unwrap(), all.len());
    assert_eq!(fs.extents(ino), other.extents(whole));
    fs.verify();
}

/// As after attempts for which there was no memory: they have used up a part of the blocks.
#[test]
fn blocks_that_are_not_there_any_more_are_replaced() {
    for left in 0..4 {
        let fs = quiet();
        let ino = fs.touch(ROOT_INO, "file");
        let data = bytes(1, 15_000);
        append(&fs, ino, &data[..9000]);
        append(&fs, ino, &data[9000..]);
        {
            let pin = fs.pin(ino).unwrap();
            let mut state = pin.data.write();
            let mut run = state.gathered.as_mut().unwrap().run.take().unwrap();
            if left > 0 {
                state.gathered.as_mut().unwrap().run = Some(run.split_off_front(left));
            }
            fs.store().unreserve_data(run);
        }
        assert_eq!(fs.read_all(ino), data);
        fs.verify();
    }
}

#[test]
fn times_are_those_of_the_writes_unless_others_were_set_since() {
    let fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    append(&fs, ino, b"one");
    let shown = fs.getattr(ino).unwrap();
    thread::sleep(Duration::from_millis(5));
    fs.fsync(ino).unwrap();
    let written = fs.getattr(ino).unwrap();
    assert_eq!((written.mtime, written.ctime), (shown.mtime, shown.ctime));
    append(&fs, ino, b"two");
    let past = Timespec { sec: 1_000_000, nsec: 5 };
    let set = SetAttr { mtime: Some(SetTime::At(past)), ..SetAttr::default() };
    let attr = fs.setattr(ino, &set).unwrap();
    assert!(is_gathered(&fs, ino), "no need to wait for the device");
    assert_eq!((attr.size, attr.mtime), (6, past));
    assert!(attr.version > written.version);
    fs.fsync(ino).unwrap();
    let after = fs.getattr(ino).unwrap();
    assert_eq!((after.size, after.mtime, after.ctime), (6, past, attr.ctime));
    assert!(after.version >= attr.version);
    append(&fs, ino, b"three");
    assert!(fs.getattr(ino).unwrap().mtime > past);
}

#[test]
fn another_name_tells_of_what_is_gathered() {
    let fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    append(&fs, ino, &bytes(1, 5000));
    let attr = fs.link(ino, ROOT_INO, b"other").unwrap();
    fs.forget(ino, 1);
    assert!(is_gathered(&fs, ino));
    assert_eq!((attr.size, attr.blocks, attr.nlink), (5000, 16, 2));
    assert_eq!(attr, fs.getattr(ino).unwrap());
}

#[test]
fn what_a_write_takes_away_goes_again_when_it_was_given_meanwhile() {
    let fs = quiet();
    let ino = fs.touch(ROOT_INO, "file");
    let capability = b"security.capability";
    let give = |n: u32| {
        if n.is_multiple_of(2) {
            fs.setattr(ino, &SetAttr { mode: Some(0o6755), ..SetAttr::default() }).unwrap();
        } else {
            fs.setxattr(ino, capability, b"cap", SetXattrMode::Any).unwrap();
        }
    };
    append(&fs, ino, b"first");
    for n in 0..4 {
        give(n);
        fs.write_delayed_of(ino).unwrap();
        let is_given = || fs.getattr(ino).unwrap().mode & 0o6000 != 0 || fs.xattr(ino, capability).is_ok();
        assert!(is_given(), "{n}: the writes were before");
        append(&fs, ino, b"a");
        give(n);
        assert!(is_given());
        append(&fs, ino, b"more");
        assert!(!is_given(), "{n}");
    }
}

#[test]
fn truncating_allocating_and_retaining_see_what_is_gathered() {
    let fs = quiet();
    let data = bytes(1, 6000);
    let start = |name: &str| {
        let ino = fs.touch(ROOT_INO, name);
        append(&fs, ino, &data[..100]);
        append(&fs, ino, &data[100..]);
        assert!(is_gathered(&fs, ino));
        ino
    };
    for size in [0, 50, 5000, 6000, 9000] {
        let ino = start(&format!("cut at {size}"));
        let attr = fs.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
        assert_eq!(attr.size, size);
        append(&fs, ino, b"on");
        let mut want = data.clone();
        want.resize(size as usize, 0);
        want.extend(b"on");
        assert_eq!(fs.read_all(ino), want);
    }
    for mode in [Allocate, PunchHole, ZeroRange] {
        let ino = start(&format!("{mode:?}"));
        fs.fallocate(ino, mode, false, 0, 8192).unwrap();
        append(&fs, ino, b"on");
        let mut want = if mode == Allocate { data.clone() } else { vec![0; 6000] };
        want.resize(if mode == PunchHole { 6000 } else { 8192 }, 0);
        want.extend(b"on");
        assert_eq!(fs.read_all(ino), want, "{mode:?}");
    }
    // Blocks that the file has behind its end, at once and after a hole.
    for at in [0, 6000, 8192, 20_000] {
        let ino = start(&format!("blocks ahead at {at}"));
        fs.fallocate(ino, Allocate, true, at, 100_000).unwrap();
        append(&fs, ino, &bytes(2, 20_000));
        assert_eq!(fs.read_all(ino)[6000..], bytes(2, 20_000));
    }
    fs.verify();
}

/// Another mount has the file as it is.
#[test]
fn a_lock_that_goes_back_takes_what_is_gathered_along() {
    let pair = Pair::new();
    let (a, b) = (pair.a.fs(), pair.b.fs());
    for fs in [a, b] {
        stop_the_clock(fs);
    }
    let ino = a.create(ROOT_INO, b"file", &FILE).unwrap().ino;
    b.lookup(ROOT_INO, b"file").unwrap();
    let mut want = Vec::new();
    for turn in 0..50_u64 {
        let (here, there) = if turn.is_multiple_of(2) { (a, b) } else { (b, a) };
        for n in 0..3 {
            let data = bytes(turn * 3 + n, 700);
            assert_eq!(append(here, ino, &data), want.len() as u64);
            want.extend(data);
        }
        assert!(is_gathered(here, ino) && !is_gathered(there, ino));
        if turn % 3 == 0 {
            assert_eq!(there.getattr(ino).unwrap().size, want.len() as u64);
        }
        if turn % 5 == 0 {
            assert_eq!(there.read_all(ino), want);
        }
    }
    assert_eq!(a.read_all(ino), want);
    assert_eq!(b.read_all(ino), want);
    for fs in [a, b] {
        fs.forget(ino, 1);
    }
}

/// It is deleted by the other one, after its last close there.
#[test]
fn what_was_written_to_an_unlinked_file_is_there_for_a_mount_that_has_it_open() {
    let pair = Pair::new();
    let (a, b) = (pair.a.fs(), pair.b.fs());
    a.delayed.queue.lock().delay = Duration::from_secs(3600);
    let ino = a.create(ROOT_INO, b"file", &FILE).unwrap().ino;
    b.lookup(ROOT_INO, b"file").unwrap();
    b.open(ino, false).unwrap();
    append(a, ino, b"for whoever has it open");
    a.unlink(ROOT_INO, b"file").unwrap();
    assert!(is_gathered(a, ino));
    a.forget(ino, 1);
    assert!(!a.table.contains(ino));
    assert_eq!(b.read_all(ino), b"for whoever has it open");
    b.release(ino, false);
    b.forget(ino, 1);
}

/// Any operations on two files, against a vector of bytes for each; what was synced last survives crashes.
#[test]
fn files_are_as_if_nothing_were_gathered() {
    for seed in 0..30_u64 {
        let mut fs = TestFs::new();
        if seed.is_multiple_of(2) {
            stop_the_clock(&fs);
        }
        // As programs write with a small buffer, or with a large one.
        let largest = if seed.is_multiple_of(3) { 400_000 } else { 6000 };
        let mut random = seed + 1;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let inos = ["x", "y"].map(|name| fs.touch(ROOT_INO, name));
        let mut files: [Vec<u8>; 2] = Default::default();
        fs.sync().unwrap();
        for step in 0..150 {
            let n = next(2) as usize;
            let (ino, file) = (inos[n], &mut files[n]);
            match next(12) {
                0..5 => {
                    let data = bytes(step, 1 + next(largest) as usize);
                    assert_eq!(append(&fs, ino, &data), file.len() as u64);
                    file.extend(data);
                }
                5 => {
                    let at = next(file.len() as u64 + 5000) as usize;
                    let data = bytes(step, 1 + next(9000) as usize);
                    fs.write_later(ino, Some(at as u64), &data, Drops::Nothing).unwrap();
                    file.resize(file.len().max(at + data.len()), 0);
                    file[at..at + data.len()].copy_from_slice(&data);
                }
                6 => {
                    let size = next(file.len() as u64 + 3000);
                    fs.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
                    file.resize(size as usize, 0);
                }
                7 => {
                    let (at, len) = (next(file.len() as u64 + 1), 1 + next(9000));
                    fs.fallocate(ino, PunchHole, true, at, len).unwrap();
                    let end = file.len().min((at + len) as usize);
                    file[at as usize..end].fill(0);
                }
                8 => {
                    let mode = Some(0o600 + next(64) as u32);
                    let attr = fs.setattr(ino, &SetAttr { mode, ..SetAttr::default() }).unwrap();
                    assert_eq!(attr.size, file.len() as u64);
                }
                9 => assert_eq!(fs.read_all(ino), *file),
                10 => assert_eq!(fs.getattr(ino).unwrap().size, file.len() as u64),
                _ => fs.fsync(ino).unwrap(),
            }
        }
        if next(2) == 0 {
            fs.sync().unwrap();
            fs.crash();
        } else {
            fs.remount();
        }
        for (ino, file) in inos.iter().zip(&files) {
            assert_eq!(fs.read_all(*ino), *file, "seed {seed}");
        }
        fs.verify();
    }
}
