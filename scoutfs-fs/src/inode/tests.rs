// SPDX-License-Identifier: GPL-2.0-only
//! What inodes promise: attributes, the change index, life and death.

use std::sync::Barrier;
use std::thread;
use std::vec::Vec;

use scoutfs_env::time::Timespec;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};

use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{FILE, TestFs, bytes};
use crate::inode::{SetAttr, SetTime};

fn index(fs: &Fs, kind: u8) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    fs.walk_index(kind, (0, 0), (u64::MAX, u64::MAX), usize::MAX, &mut |seq, ino| {
        found.push((seq, ino));
        Ok(())
    })
    .unwrap();
    found
}

fn orphan(fs: &Fs) -> Option<u64> {
    fs.sync().unwrap();
    fs.store().next_orphan(0).unwrap()
}

/// Invariant 35.
#[test]
fn times_keep_nanoseconds() {
    let mut fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let time = |sec, nsec| Timespec { sec, nsec };
    let set = SetAttr {
        atime: Some(SetTime::At(time(-5, 999_999_999))),
        mtime: Some(SetTime::At(time(1 << 40, 1))),
        ctime: Some(time(7, 123_456_789)),
        ..SetAttr::default()
    };
    fs.setattr(ino, &set).unwrap();
    fs.remount();
    let attr = fs.getattr(ino).unwrap();
    assert_eq!(attr.atime, time(-5, 999_999_999));
    assert_eq!(attr.mtime, time(1 << 40, 1));
    assert_eq!(attr.ctime, time(7, 123_456_789));
    let bad = SetAttr { mtime: Some(SetTime::At(time(0, 1_000_000_000))), ..SetAttr::default() };
    assert!(matches!(fs.setattr(ino, &bad), Err(Error::Invalid(_))));
}

#[test]
fn a_changed_inode_moves_to_the_end_of_the_index_and_stays_there_once() {
    let fs = TestFs::new();
    let (one, two) = (fs.touch(ROOT_INO, "one"), fs.touch(ROOT_INO, "two"));
    fs.sync().unwrap();
    fs.setattr(one, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    fs.setattr(one, &SetAttr { mode: Some(0o640), ..SetAttr::default() }).unwrap();
    fs.sync().unwrap();
    let inos: Vec<_> = index(&fs, KIND_META_SEQ).into_iter().map(|(_, ino)| ino).collect();
    assert_eq!(inos, [ROOT_INO, two, one]);
    assert_eq!(index(&fs, KIND_DATA_SEQ), []);
    fs.write(two, 0, b"data").unwrap();
    fs.sync().unwrap();
    let attr = fs.getattr(two).unwrap();
    assert_eq!(attr.meta_seq, attr.data_seq);
    assert_eq!(index(&fs, KIND_DATA_SEQ), [(attr.data_seq, two)]);
    assert_eq!(index(&fs, KIND_META_SEQ).last(), Some(&(attr.meta_seq, two)));
    fs.unlink(ROOT_INO, b"two").unwrap();
    fs.verify();
}

/// Invariant 41: it is not deleted while it is used.
#[test]
fn an_unlinked_inode_lives_until_its_last_reference_and_open_file_are_gone() {
    let fs = TestFs::new();
    let ino = fs.create(ROOT_INO, b"file", &FILE).unwrap().ino;
    fs.open(ino, false).unwrap();
    fs.write(ino, 0, b"data").unwrap();
    fs.unlink(ROOT_INO, b"file").unwrap();
    assert_eq!(orphan(&fs), Some(ino));
    fs.write(ino, 4, b" and more").unwrap();
    fs.forget(ino, 1);
    assert_eq!(fs.read_all(ino), b"data and more");
    fs.scan_orphans().unwrap();
    assert_eq!(fs.getattr(ino).unwrap().nlink, 0);
    fs.release(ino, false);
    assert!(matches!(fs.getattr(ino), Err(Error::StaleHandle)));
    assert_eq!(orphan(&fs), None);
    fs.verify();
}

/// Invariant 43.
#[test]
fn a_handle_does_not_revive_an_unlinked_inode() {
    let fs = TestFs::new();
    let ino = fs.create(ROOT_INO, b"file", &FILE).unwrap().ino;
    assert_eq!(fs.lookup_ino(ino).unwrap().ino, ino);
    fs.forget(ino, 1);
    fs.unlink(ROOT_INO, b"file").unwrap();
    assert!(matches!(fs.lookup_ino(ino), Err(Error::StaleHandle)));
    assert!(matches!(fs.link(ino, ROOT_INO, b"again"), Err(Error::NotFound)));
    fs.forget(ino, 1);
    assert!(matches!(fs.lookup_ino(ino), Err(Error::StaleHandle)));
    fs.verify();
}

/// Invariant 41: it is an orphan exactly as long as it has no links.
#[test]
fn a_temporary_file_is_an_orphan_until_it_gets_a_name() {
    let fs = TestFs::new();
    let ino = fs.tmpfile(ROOT_INO, &FILE, true).unwrap().ino;
    assert_eq!(orphan(&fs), Some(ino));
    let attr = fs.link(ino, ROOT_INO, b"name").unwrap();
    assert_eq!((attr.ino, attr.nlink), (ino, 1));
    assert_eq!(orphan(&fs), None);
    fs.forget(ino, 2);
    fs.verify();
    // Not twice, and not when that was not wanted.
    let ino = fs.lookup(ROOT_INO, b"name").unwrap().ino;
    fs.unlink(ROOT_INO, b"name").unwrap();
    assert!(matches!(fs.link(ino, ROOT_INO, b"name"), Err(Error::NotFound)));
    fs.forget(ino, 1);
    let ino = fs.tmpfile(ROOT_INO, &FILE, false).unwrap().ino;
    assert!(matches!(fs.link(ino, ROOT_INO, b"name"), Err(Error::NotFound)));
    fs.forget(ino, 1);
    fs.verify();
}

#[test]
fn leftovers_of_a_crash_are_deleted_at_the_next_mount() {
    let mut fs = TestFs::new();
    let mut inos = Vec::new();
    for name in [b"a", b"b"] {
        let ino = fs.create(ROOT_INO, name, &FILE).unwrap().ino;
        fs.write(ino, 0, &bytes(1, 100_000)).unwrap();
        fs.setxattr(ino, b"user.x", &bytes(2, 10_000), crate::xattr::SetXattrMode::Any).unwrap();
        fs.unlink(ROOT_INO, name).unwrap();
        inos.push(ino);
    }
    fs.sync().unwrap();
    fs.crash();
    for ino in inos {
        assert!(matches!(fs.getattr(ino), Err(Error::StaleHandle)));
    }
    fs.verify();
}

/// Invariants 30, 41.
#[test]
fn one_of_many_who_let_go_at_once_deletes_the_inode_and_frees_its_blocks_once() {
    const THREADS: usize = 4;
    let fs = TestFs::new();
    let used = || {
        fs.sync().unwrap();
        let statfs = fs.statfs().unwrap();
        (statfs.total_data - statfs.free_data, statfs.inodes)
    };
    let before = used();
    for round in 0..50 {
        let ino = fs.create(ROOT_INO, b"file", &FILE).unwrap().ino;
        fs.write(ino, 0, &bytes(round, 50_000)).unwrap();
        for _ in 0..THREADS - 1 {
            fs.lookup(ROOT_INO, b"file").unwrap();
        }
        fs.unlink(ROOT_INO, b"file").unwrap();
        let start = Barrier::new(THREADS + 1);
        thread::scope(|s| {
            // One who has no reference, only the number.
            s.spawn(|| {
                start.wait();
                for mode in 0..500 {
                    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                    if let Err(e) = fs.setattr(ino, &set) {
                        assert!(matches!(e, Error::StaleHandle), "{e}");
                        break;
                    }
                }
            });
            for _ in 0..THREADS {
                s.spawn(|| {
                    start.wait();
                    // Those that come too late find nothing; all the others find the file whole.
                    match fs.setattr(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }) {
                        Ok(_) | Err(Error::StaleHandle) => {}
                        Err(e) => panic!("{e}"),
                    }
                    fs.forget(ino, 1);
                });
            }
        });
        assert!(matches!(fs.getattr(ino), Err(Error::StaleHandle)));
    }
    fs.verify();
    assert_eq!(used(), before);
}
