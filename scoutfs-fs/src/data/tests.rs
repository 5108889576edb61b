// SPDX-License-Identifier: GPL-2.0-only
//! What file data promise.

use std::thread;
use std::vec::Vec;
use std::{format, vec};

use scoutfs_env::IoBuf;
use scoutfs_format::item::{MAX_FILE_BYTES, ROOT_INO};

use crate::data::AllocateMode::{Allocate, PunchHole, ZeroRange};
use crate::data::extent::MAX_BLOCK;
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{FILE, TestFs, bytes};
use crate::inode::SetAttr;
use crate::store::LockMode;

fn truncate(fs: &Fs, ino: u64, size: u64) {
    let attr = fs.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    assert_eq!(attr.size, size);
}

/// Invariant 32.
#[test]
fn what_a_file_grows_over_reads_as_zeros_whatever_was_there() {
    let mut fs = TestFs::new();
    let grow: [fn(&Fs, u64); 5] = [
        |fs, ino| truncate(fs, ino, 9000),
        |fs, ino| fs.fallocate(ino, Allocate, false, 0, 9000).unwrap(),
        |fs, ino| fs.fallocate(ino, ZeroRange, false, 8000, 1000).unwrap(),
        |fs, ino| assert_eq!(fs.write(ino, 8999, &[0]).unwrap(), 1),
        |fs, ino| {
            assert_eq!(fs.write(ino, 2000, &[0]).unwrap(), 1);
            truncate(fs, ino, 9000);
        },
    ];
    let mut inos = vec![];
    for (n, grow) in grow.iter().enumerate() {
        let ino = fs.touch(ROOT_INO, &format!("{n}"));
        inos.push(ino);
        fs.write(ino, 0, &bytes(1, 9000)).unwrap();
        truncate(&fs, ino, 1000);
        grow(&fs, ino);
        let mut want = bytes(1, 1000);
        want.resize(9000, 0);
        assert_eq!(fs.read_all(ino), want);
    }
    fs.remount();
    for ino in inos {
        let data = fs.read_all(ino);
        assert_eq!(data.len(), 9000);
        assert!(data[1000..].iter().all(|b| *b == 0));
    }
    fs.verify();
}

/// Invariant 38.
#[test]
fn block_counts_are_the_sum_of_the_extents_after_every_operation() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let blocks = || {
        let attr = fs.getattr(ino).unwrap();
        assert_eq!(attr.online_blocks, fs.extent_blocks(ino));
        assert_eq!((attr.offline_blocks, attr.blocks), (0, attr.online_blocks * 8));
        attr.online_blocks
    };
    fs.write(ino, 4096 * 10, &bytes(1, 4097)).unwrap();
    assert_eq!(blocks(), 2);
    fs.fallocate(ino, Allocate, true, 0, 4096 * 20).unwrap();
    assert_eq!(blocks(), 20);
    fs.fallocate(ino, PunchHole, true, 4095, 4096 * 3).unwrap();
    assert_eq!(blocks(), 18);
    fs.fallocate(ino, ZeroRange, true, 4096 * 10, 4096).unwrap();
    assert_eq!(blocks(), 18);
    truncate(&fs, ino, 4096 * 5);
    assert_eq!(blocks(), 3);
    truncate(&fs, ino, 0);
    assert_eq!(blocks(), 0);
}

/// Invariant 39.
#[test]
fn data_version_changes_with_contents_and_size_and_with_nothing_else() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let changes = |f: &dyn Fn()| {
        let before = fs.getattr(ino).unwrap();
        f();
        let after = fs.getattr(ino).unwrap();
        assert_eq!(before.data_version != after.data_version, after.data_seq == after.meta_seq);
        fs.sync().unwrap();
        before.data_version != after.data_version
    };
    assert!(changes(&|| assert_eq!(fs.write(ino, 0, b"data").unwrap(), 4)));
    assert!(changes(&|| assert_eq!(fs.write(ino, 0, b"data").unwrap(), 4)));
    assert!(changes(&|| fs.fallocate(ino, Allocate, false, 0, 10_000).unwrap()));
    assert!(!changes(&|| fs.fallocate(ino, Allocate, true, 0, 30_000).unwrap()));
    assert!(changes(&|| fs.fallocate(ino, PunchHole, true, 0, 1).unwrap()));
    assert!(changes(&|| fs.fallocate(ino, ZeroRange, true, 5000, 1).unwrap()));
    assert!(changes(&|| truncate(&fs, ino, 20_000)));
    assert!(changes(&|| truncate(&fs, ino, 100)));
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert!(!changes(&|| assert_eq!(fs.setattr(ino, &mode).unwrap().size, 100)));
}

#[test]
fn a_truncation_of_many_extents_takes_many_transactions_and_frees_all() {
    let fs = TestFs::new();
    let before = fs.used_data();
    let ino = fs.touch(ROOT_INO, "file");
    for n in 0..500 {
        fs.write(ino, n * 8192, &bytes(n, 4096)).unwrap();
    }
    assert_eq!(fs.extents(ino).len(), 500);
    truncate(&fs, ino, 8192 * 250 + 1);
    assert_eq!(fs.extents(ino).len(), 251);
    fs.verify();
    truncate(&fs, ino, 8192 * 200);
    assert_eq!(fs.read_all(ino)[8192 * 199..8192 * 199 + 4096], bytes(199, 4096));
    fs.unlink(ROOT_INO, b"file").unwrap();
    fs.verify();
    assert_eq!(fs.used_data(), before);
}

#[test]
fn a_truncation_that_a_crash_cut_short_is_finished_by_the_next_open_or_change() {
    let finish: [fn(&Fs, u64); 4] = [
        |fs, ino| {
            fs.open(ino, false).unwrap();
            fs.release(ino, false);
        },
        |fs, ino| truncate(fs, ino, 8192 * 400),
        |fs, ino| assert_eq!(fs.write(ino, 8192 * 400 - 1, &[0]).unwrap(), 1),
        |fs, ino| fs.fallocate(ino, Allocate, false, 8192 * 400 - 1, 1).unwrap(),
    ];
    for finish in finish {
        let mut fs = TestFs::new();
        let ino = fs.touch(ROOT_INO, "file");
        for n in 0..400 {
            fs.write(ino, n * 8192, &bytes(n, 4096)).unwrap();
        }
        {
            // Its first transaction only.
            let locks = fs.store().lock(&[(ino, LockMode::Write)]).unwrap();
            let mut inode = fs.load_file(&locks, ino).unwrap();
            let next = fs.free_extents(&locks, &mut inode, 2, MAX_BLOCK, |inode, more| {
                assert!(more);
                inode.item.size.set(8192);
                inode.set_truncate_pending(true);
            });
            assert!(next.unwrap().is_some());
        }
        fs.sync().unwrap();
        fs.crash();
        assert!(fs.extents(ino).len() > 200);
        assert_eq!(fs.read_all(ino).len(), 8192);
        finish(&fs, ino);
        let mut want = bytes(0, 4096);
        want.resize(fs.getattr(ino).unwrap().size as usize, 0);
        assert!(fs.extents(ino).len() <= 2);
        assert_eq!(fs.read_all(ino), want);
        fs.verify();
    }
}

/// Invariant 34.
#[test]
fn a_file_written_piece_by_piece_lies_in_one_piece() {
    let fs = TestFs::with_bytes(1 << 30);
    let one = fs.touch(ROOT_INO, "one");
    for _ in 0..300 {
        fs.append(one, &bytes(1, 1000)).unwrap();
    }
    assert_eq!(fs.extents(one).len(), 1);
    // Two that grow at the same time.
    let two = fs.touch(ROOT_INO, "two");
    let three = fs.touch(ROOT_INO, "three");
    for n in 0..500 {
        for ino in [two, three] {
            fs.append(ino, &bytes(n, 4096)).unwrap();
        }
    }
    for ino in [two, three] {
        let extents = fs.extents(ino);
        assert!(extents.len() < 40, "{extents:?}");
    }
    for ino in [two, three] {
        let data = fs.read_all(ino);
        assert!((0..500).all(|n| data[n * 4096..][..4096] == bytes(n as u64, 4096)));
    }
    fs.verify();
}

/// Invariant 34: what is taken ahead for a file that grows goes back when it does not.
#[test]
fn a_small_file_takes_the_blocks_that_it_fills() {
    let fs = TestFs::new();
    let before = fs.used_data();
    for n in 1..=100 {
        let ino = fs.touch(ROOT_INO, &format!("{n}"));
        for _ in 0..n % 4 + 1 {
            fs.append(ino, &bytes(n, 4000)).unwrap();
        }
        let blocks = ((n % 4 + 1) * 4000).div_ceil(4096);
        assert_eq!(fs.extents(ino).iter().map(|e| e.1).sum::<u64>(), blocks);
    }
    let filled: u64 = (1..=100u64).map(|n| ((n % 4 + 1) * 4000).div_ceil(4096)).sum();
    fs.drop_reservations();
    assert_eq!(fs.used_data() - before, filled);
    fs.verify();
}

#[test]
fn aligned_memory_and_any_other_give_the_same_bytes() {
    let fs = TestFs::new();
    let len = 1 << 20;
    let mut data = IoBuf::zeroed(len).unwrap();
    data.copy_from_slice(&bytes(3, len));
    let cases =
        [(0, 0, len), (4096, 0, len - 4096), (0, 1, len - 1), (4095, 3, 300_000), (8192, 4096, 200_001)];
    for (n, (offset, from, len)) in cases.into_iter().enumerate() {
        let ino = fs.touch(ROOT_INO, &format!("{n}"));
        let part = &data[from..from + len];
        assert_eq!(fs.write(ino, offset, part).unwrap(), len);
        let mut back = IoBuf::zeroed(1 << 21).unwrap();
        for to in [0, 1, 4096] {
            back.fill(0xee);
            assert_eq!(fs.read(ino, offset, &mut back[to..]).unwrap(), len);
            assert!(back[to..to + len] == *part);
            assert!(back[to + len..].iter().all(|b| *b == 0xee));
        }
    }
    fs.verify();
}

#[test]
fn data_and_holes_are_found() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    fs.write(ino, 4096 * 3 + 10, b"x").unwrap();
    fs.fallocate(ino, Allocate, false, 4096 * 8, 4096).unwrap();
    let size = 4096 * 9;
    assert_eq!(fs.seek_data(ino, 0).unwrap(), 4096 * 3);
    assert_eq!(fs.seek_data(ino, 4096 * 3 + 5).unwrap(), 4096 * 3 + 5);
    assert!(matches!(fs.seek_data(ino, 4096 * 4), Err(Error::NoSuchOffset)));
    assert_eq!(fs.seek_hole(ino, 0).unwrap(), 0);
    assert_eq!(fs.seek_hole(ino, 4096 * 3).unwrap(), 4096 * 4);
    assert_eq!(fs.seek_hole(ino, size - 1).unwrap(), size - 1);
    assert!(matches!(fs.seek_hole(ino, size), Err(Error::NoSuchOffset)));
}

#[test]
fn the_largest_file_has_an_end() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    assert_eq!(fs.write(ino, MAX_FILE_BYTES - 3, b"12345").unwrap(), 3);
    assert!(matches!(fs.write(ino, MAX_FILE_BYTES, b"1"), Err(Error::FileTooBig)));
    assert!(matches!(fs.append(ino, b"1"), Err(Error::FileTooBig)));
    assert!(matches!(fs.fallocate(ino, Allocate, false, MAX_FILE_BYTES, 1), Err(Error::FileTooBig)));
    let set = SetAttr { size: Some(MAX_FILE_BYTES + 1), ..SetAttr::default() };
    assert!(matches!(fs.setattr(ino, &set), Err(Error::FileTooBig)));
    let mut back = [0; 8];
    assert_eq!(fs.read(ino, MAX_FILE_BYTES - 4, &mut back).unwrap(), 4);
    assert_eq!(back, *b"\x00123\0\0\0\0");
    truncate(&fs, ino, 0);
    assert_eq!(fs.extents(ino), []);
}

#[test]
fn a_full_volume_takes_part_of_a_write_and_deleting_makes_room() {
    let fs = TestFs::new();
    let buf = IoBuf::zeroed(1 << 20).unwrap();
    let (mut n, mut wrote) = (0, vec![]);
    'full: loop {
        let name = format!("{n}");
        let ino = match fs.create(ROOT_INO, name.as_bytes(), &FILE) {
            Ok(attr) => attr.ino,
            Err(Error::NoSpace) => break,
            Err(e) => panic!("{e}"),
        };
        fs.forget(ino, 1);
        wrote.push(name);
        n += 1;
        for _ in 0..4 {
            match fs.append(ino, &buf) {
                Ok((_, len)) if len == buf.len() => {}
                // The part that there was room for.
                Ok((at, len)) => assert_eq!(fs.getattr(ino).unwrap().size, at + len as u64),
                Err(Error::NoSpace) => break 'full,
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(n > 4, "only {n} files of 4 MiB fit");
    // What is there can be overwritten.
    assert_eq!(fs.write(fs.ino("0"), 0, &buf).unwrap(), buf.len());
    for name in &wrote {
        fs.unlink(ROOT_INO, name.as_bytes()).unwrap();
    }
    fs.verify();
    let ino = fs.touch(ROOT_INO, "again");
    for _ in 0..16 {
        assert_eq!(fs.append(ino, &buf).unwrap().1, buf.len());
    }
    fs.verify();
}

#[test]
fn readers_see_a_write_as_a_whole() {
    const LEN: usize = 40_000;
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    fs.write(ino, 0, &[1; LEN]).unwrap();
    thread::scope(|s| {
        for writer in 1..3u8 {
            let fs = &fs;
            s.spawn(move || {
                for n in 0..100 {
                    fs.write(ino, 0, &[writer * 100 + n % 50; LEN]).unwrap();
                }
            });
        }
        for _ in 0..2 {
            s.spawn(|| {
                let mut data = vec![0; LEN];
                for _ in 0..100 {
                    assert_eq!(fs.read(ino, 0, &mut data).unwrap(), LEN);
                    assert!(data.iter().all(|b| *b == data[0]));
                }
            });
        }
    });
    fs.verify();
}

#[test]
fn appends_of_many_do_not_overwrite_each_other() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    thread::scope(|s| {
        for writer in 1..4u8 {
            let fs = &fs;
            s.spawn(move || {
                for _ in 0..200 {
                    assert_eq!(fs.append(ino, &[writer; 100]).unwrap().1, 100);
                }
            });
        }
    });
    let data = fs.read_all(ino);
    let mut counts = [0; 4];
    for piece in data.chunks(100) {
        assert!(piece.iter().all(|b| *b == piece[0]));
        counts[usize::from(piece[0])] += 1;
    }
    assert_eq!(counts, [0, 200, 200, 200]);
}

#[test]
fn what_was_synced_survives_a_crash() {
    let mut fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let data: Vec<u8> = bytes(9, 70_000);
    fs.write(ino, 0, &data).unwrap();
    fs.fsync(ino).unwrap();
    fs.crash();
    assert_eq!(fs.read_all(fs.ino("file")), data);
    // After a load, fsync still knows whether there is something to make durable.
    fs.append(ino, b"more").unwrap();
    fs.forget(ino, 1);
    fs.fsync(ino).unwrap();
    fs.crash();
    assert_eq!(fs.read_all(ino).len(), 70_004);
    fs.verify();
}
