// SPDX-License-Identifier: GPL-2.0-only
//! A full volume, and an inode whose blocks come back a moment after it was unlinked.

use std::vec;

use scoutfs_format::item::ROOT_INO;
use scoutfs_lock::LockName;

use super::*;
use crate::fs::testing::{FILE, Pair};

const CHUNK: usize = 256 << 10;

fn new_file(fs: &Fs, name: &[u8]) -> u64 {
    let ino = fs.create(ROOT_INO, name, &FILE).unwrap().ino;
    fs.forget(ino, 1);
    ino
}

/// Writes at the end of a file until there is no space.
fn fill(fs: &Fs, ino: u64) {
    let data = vec![7; CHUNK];
    loop {
        match fs.append(ino, &data) {
            Ok(_) => {}
            Err(Error::NoSpace) => return,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Who writes: the mount that has unlinked the large file, the one that has just looked it up, or another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Unlinks,
    LooksUp,
    Third,
}

/// The lock that the writer has is that of the large file, too, or not.
fn write_after_unlinking(writer: Writer, same_group: bool) {
    let pair = Pair::new();
    let (a, b, third) = (pair.a.fs(), pair.b.fs(), pair.third());
    let large = new_file(a, b"large");
    let rest = new_file(if same_group { a } else { b }, b"rest");
    assert_eq!(LockName::group_of(large) == LockName::group_of(rest), same_group);
    for _ in 0..32 {
        assert_eq!(a.append(large, &vec![7; CHUNK]).unwrap().1, CHUNK);
    }
    let writer = match writer {
        Writer::Unlinks => a,
        Writer::LooksUp => b,
        Writer::Third => third.fs(),
    };
    fill(writer, rest);
    for fs in [a, b, third.fs()] {
        fs.sync().unwrap();
    }
    assert_eq!(b.lookup(ROOT_INO, b"large").unwrap().ino, large);
    // Just now, however long it takes from here.
    b.table.get(large).unwrap().looked_up_at.store(u64::MAX, Ordering::Relaxed);
    a.unlink(ROOT_INO, b"large").unwrap();
    b.forget(large, 1);
    assert!(b.passing.keeps(), "it is not open in passing");
    let (_, written) = writer.append(rest, &vec![7; CHUNK]).expect("there is space, or will be in a moment");
    assert!(written > 0);
    third.unmount().unwrap();
}

/// Whoever deleted it need not wait for the space to come, nor ask for it twice.
#[test]
fn what_is_deleted_a_moment_late_is_no_reason_to_say_that_a_volume_is_full() {
    write_after_unlinking(Writer::Unlinks, false);
    write_after_unlinking(Writer::Unlinks, true);
    write_after_unlinking(Writer::LooksUp, false);
    write_after_unlinking(Writer::LooksUp, true);
    write_after_unlinking(Writer::Third, false);
}
