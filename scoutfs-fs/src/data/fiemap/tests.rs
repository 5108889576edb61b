// SPDX-License-Identifier: GPL-2.0-only
//! What FIEMAP tells is what the extents are.

use scoutfs_format::ioctl::*;
use scoutfs_format::item::{MAX_FILE_BYTES, ROOT_INO};
use std::vec::Vec;

use crate::data::AllocateMode::{Allocate, PunchHole};
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::TestFs;

const BLOCK: u64 = 4096;

/// Logical block, length in blocks, flags.
fn map(fs: &Fs, ino: u64, start: u64, end: u64, max: usize) -> Vec<(u64, u64, u32)> {
    let extents = fs.fiemap(ino, start, end, max).unwrap();
    let parts = extents.iter().map(|e| {
        assert_eq!((e.reserved64, e.reserved), Default::default());
        assert_eq!(e.physical.get() == 0, e.flags.get() & FIEMAP_EXTENT_UNKNOWN != 0);
        (e.logical.get() / BLOCK, e.length.get() / BLOCK, e.flags.get())
    });
    parts.collect()
}

#[test]
fn extents_have_their_places_and_kinds() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    assert_eq!(map(&fs, ino, 0, u64::MAX, 10), []);
    fs.write(ino, 2 * BLOCK + 1, b"x").unwrap();
    fs.fallocate(ino, Allocate, true, 8 * BLOCK, 4 * BLOCK).unwrap();
    let (last, unwritten) = (FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_UNWRITTEN);
    assert_eq!(map(&fs, ino, 0, u64::MAX, 10), [(2, 1, 0), (8, 4, unwritten | last)]);
    // Extents come whole, when any byte of them is asked for.
    assert_eq!(map(&fs, ino, 0, 2 * BLOCK, 10), []);
    assert_eq!(map(&fs, ino, 0, 2 * BLOCK + 1, 10), [(2, 1, 0)]);
    assert_eq!(map(&fs, ino, 3 * BLOCK - 1, 8 * BLOCK, 10), [(2, 1, 0)]);
    assert_eq!(map(&fs, ino, 3 * BLOCK, 8 * BLOCK + 1, 10), [(8, 4, unwritten | last)]);
    assert_eq!(map(&fs, ino, 11 * BLOCK, u64::MAX, 10), [(8, 4, unwritten | last)]);
    assert_eq!(map(&fs, ino, 12 * BLOCK, u64::MAX, 10), []);
    assert_eq!(map(&fs, ino, 0, u64::MAX, 1), [(2, 1, 0)]);
    assert_eq!(map(&fs, ino, 0, u64::MAX, 0), []);
    fs.write(ino, 9 * BLOCK, b"x").unwrap();
    let all = map(&fs, ino, 0, u64::MAX, 10);
    assert_eq!(all, [(2, 1, 0), (8, 1, unwritten), (9, 1, 0), (10, 2, unwritten | last)]);
    // They lie where the data are: what is on the device there is what the file reads.
    let extents = fs.fiemap(ino, 9 * BLOCK, 9 * BLOCK + 1, 1).unwrap();
    let mut block = scoutfs_env::IoBuf::zeroed(BLOCK as usize).unwrap();
    fs.store().device().read(extents[0].physical.get(), &mut block).unwrap();
    assert_eq!(block[0], b'x');
}

#[test]
fn a_file_written_in_one_piece_is_one_extent() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    for n in 0..50 {
        fs.write(ino, n * 10_000, &[1; 10_000]).unwrap();
    }
    assert_eq!(map(&fs, ino, 0, u64::MAX, 10), [(0, 123, FIEMAP_EXTENT_LAST)]);
    for n in (1..123).step_by(2) {
        fs.fallocate(ino, PunchHole, true, n * BLOCK, BLOCK).unwrap();
    }
    let extents = map(&fs, ino, 0, u64::MAX, 100);
    assert_eq!(extents.len(), 62);
    assert!(extents.iter().enumerate().all(|(n, e)| (e.0, e.1) == (2 * n as u64, 1)));
    assert_eq!(extents.iter().map(|e| e.2).sum::<u32>(), FIEMAP_EXTENT_LAST);
}

#[test]
fn archived_data_have_no_place() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let set = AttrX {
        x_mask: (ATTR_SIZE | ATTR_DATA_VERSION).into(),
        x_flags: ATTR_FLAG_SIZE_OFFLINE.into(),
        size: 9000.into(),
        data_version: 1.into(),
        ..AttrX::default()
    };
    fs.set_attr_x(ino, &set).unwrap();
    assert_eq!(map(&fs, ino, 0, u64::MAX, 10), [(0, 3, FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_LAST)]);
    // They are data, not a hole.
    assert_eq!((fs.seek_data(ino, 0).unwrap(), fs.seek_hole(ino, 0).unwrap()), (0, 9000));
}

#[test]
fn what_is_no_file_or_too_far_is_refused() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    assert!(matches!(fs.fiemap(ROOT_INO, 0, 1, 1), Err(Error::NotSupported)));
    assert!(matches!(fs.fiemap(ino, MAX_FILE_BYTES + 1, u64::MAX, 1), Err(Error::FileTooBig)));
    assert_eq!(map(&fs, ino, MAX_FILE_BYTES, u64::MAX, 1), []);
    assert!(matches!(fs.fiemap(12_345, 0, 1, 1), Err(Error::StaleHandle)));
}
