// SPDX-License-Identifier: GPL-2.0-only
//! Chosen attributes: what is read, what may be set, and what retention keeps from changing.

use core::mem::offset_of;
use std::vec::Vec;

use scoutfs_format::ioctl::*;
use scoutfs_format::item::{MAX_FILE_BYTES, ROOT_INO};
use scoutfs_format::key::KIND_DATA_SEQ;

use crate::data::AllocateMode;
use crate::dir::RenameFlags;
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{DIR, FILE, TestFs};
use crate::inode::{Attr, SetAttr};
use crate::xattr::SetXattrMode;

fn get(fs: &Fs, ino: u64, mask: u64) -> AttrX {
    let mut x = AttrX { x_mask: mask.into(), ..AttrX::default() };
    fs.get_attr_x(ino, &mut x).unwrap();
    x
}

fn set(fs: &Fs, ino: u64, mask: u64, fill: impl FnOnce(&mut AttrX)) -> Result<(), Error> {
    let mut x = AttrX { x_mask: mask.into(), ..AttrX::default() };
    fill(&mut x);
    fs.set_attr_x(ino, &x)
}

fn retain(fs: &Fs, ino: u64, retained: bool) -> Result<(), Error> {
    set(fs, ino, ATTR_RETENTION, |x| x.bits = u64::from(retained).into())
}

/// What an attempt that fails must not change.
fn state(fs: &Fs, ino: u64) -> (Attr, AttrX) {
    (fs.getattr(ino).unwrap(), get(fs, ino, ATTR_ALL))
}

#[test]
fn what_is_asked_for_is_filled_in_and_nothing_else() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    fs.write(ino, 0, b"data").unwrap();
    let attr = fs.getattr(ino).unwrap();
    let all = get(&fs, ino, ATTR_ALL);
    assert_eq!((all.meta_seq.get(), all.data_seq.get()), (attr.meta_seq, attr.data_seq));
    assert_eq!((all.data_version.get(), all.size.get()), (1, 4));
    assert_eq!((all.online_blocks.get(), all.offline_blocks.get()), (1, 0));
    assert_eq!((all.ctime_sec.get() as i64, all.ctime_nsec.get()), (attr.ctime.sec, attr.ctime.nsec));
    assert_eq!((all.crtime_sec.get() as i64, all.crtime_nsec.get()), (attr.crtime.sec, attr.crtime.nsec));
    assert_eq!((all.bits.get(), all.project_id.get()), (0, 0));
    let ends = [
        (ATTR_META_SEQ, offset_of!(AttrX, data_seq)),
        (ATTR_OFFLINE_BLOCKS, offset_of!(AttrX, ctime_sec)),
        (ATTR_CTIME, offset_of!(AttrX, crtime_nsec)),
        (ATTR_CRTIME, offset_of!(AttrX, size)),
        (ATTR_RETENTION | ATTR_META_SEQ, offset_of!(AttrX, project_id)),
        (ATTR_PROJECT_ID, size_of::<AttrX>()),
        (0, 0),
    ];
    for (mask, end) in ends {
        let before = AttrX { x_mask: mask.into(), ..fill_with(7) };
        let mut x = before;
        assert_eq!(fs.get_attr_x(ino, &mut x).unwrap(), end, "{mask:x}");
        if mask & ATTR_META_SEQ == 0 {
            assert_eq!(x.meta_seq, before.meta_seq, "{mask:x}");
        }
        assert_eq!(x.data_seq, before.data_seq, "{mask:x}");
    }
    for (mask, flags) in [(1 << 10, 0), (u64::MAX, 0), (ATTR_SIZE, 2)] {
        let mut x = AttrX { x_mask: mask.into(), x_flags: flags.into(), ..AttrX::default() };
        assert!(matches!(fs.get_attr_x(ino, &mut x), Err(Error::Invalid(_))));
        assert!(matches!(fs.set_attr_x(ino, &x), Err(Error::Invalid(_))));
    }
}

/// A structure without flags and with the same number everywhere else.
fn fill_with(n: u64) -> AttrX {
    let n64 = n.into();
    AttrX { meta_seq: n64, data_seq: n64, data_version: n64, size: n64, project_id: n64, ..AttrX::default() }
}

#[test]
fn a_project_is_inherited_at_creation_and_only_then() {
    let mut fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let old = fs.touch(dir, "old");
    let before = fs.getattr(dir).unwrap();
    set(&fs, dir, ATTR_PROJECT_ID, |x| x.project_id = u64::MAX.into()).unwrap();
    let after = fs.getattr(dir).unwrap();
    // The change is in the index, and nothing else changed.
    assert_eq!((after.ctime, after.mtime, after.data_version), (before.ctime, before.mtime, 0));
    let inos = [
        fs.touch(dir, "file"),
        fs.subdir(dir, "sub"),
        fs.symlink(dir, b"link", b"target", &FILE).unwrap().ino,
        fs.tmpfile(dir, &FILE, true).unwrap().ino,
    ];
    fs.link(inos[3], dir, b"named").unwrap();
    let grandchild = fs.touch(inos[1], "file");
    fs.rename(dir, b"file", ROOT_INO, b"moved", RenameFlags::empty()).unwrap();
    fs.remount();
    let project = |ino| get(&fs, ino, ATTR_PROJECT_ID).project_id.get();
    for ino in inos.into_iter().chain([dir, grandchild]) {
        assert_eq!(project(ino), u64::MAX, "{ino}");
    }
    assert_eq!((project(old), project(ROOT_INO)), (0, 0));
}

/// Invariant 35: times that are restored, too.
#[test]
fn an_archived_file_is_restored_with_its_size_version_and_times() {
    let mut fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let mask = ATTR_DATA_VERSION | ATTR_SIZE | ATTR_CTIME | ATTR_CRTIME | ATTR_PROJECT_ID;
    set(&fs, ino, mask, |x| {
        x.data_version = 77.into();
        x.size = 10_001.into();
        x.x_flags = ATTR_FLAG_SIZE_OFFLINE.into();
        (x.ctime_sec, x.ctime_nsec) = ((-5i64 as u64).into(), 999_999_999.into());
        (x.crtime_sec, x.crtime_nsec) = (1234.into(), 5.into());
        x.project_id = 3.into();
    })
    .unwrap();
    fs.remount();
    let attr = fs.getattr(ino).unwrap();
    assert_eq!((attr.data_version, attr.size, attr.blocks), (77, 10_001, 24));
    assert_eq!((attr.online_blocks, attr.offline_blocks), (0, 3));
    assert_eq!((attr.ctime.sec, attr.ctime.nsec), (-5, 999_999_999));
    assert_eq!((attr.crtime.sec, attr.crtime.nsec), (1234, 5));
    assert_eq!(attr.data_seq, attr.meta_seq);
    let mut found = Vec::new();
    fs.sync().unwrap();
    fs.walk_index(KIND_DATA_SEQ, (0, 0), (u64::MAX, u64::MAX), 10, &mut |_, ino| {
        found.push(ino);
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [ino]);
    // Nothing brings the data back yet, so nothing may pretend to.
    let mut buf = [0; 10];
    assert!(matches!(fs.read(ino, 0, &mut buf), Err(Error::NotSupported)));
    assert!(matches!(fs.write(ino, 5, b"x"), Err(Error::NotSupported)));
    assert!(matches!(fs.fallocate(ino, AllocateMode::PunchHole, true, 5, 5), Err(Error::NotSupported)));
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    assert!(matches!(fs.setattr(ino, &size(20_000)), Err(Error::NotSupported)));
    assert_eq!(fs.getattr(ino).unwrap(), attr);
    // Whole blocks can be given up.
    fs.fallocate(ino, AllocateMode::PunchHole, true, 4096, 4096).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().offline_blocks, 2);
    fs.setattr(ino, &size(4096)).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().offline_blocks, 1);
    fs.setattr(ino, &size(0)).unwrap();
    fs.write(ino, 0, b"new").unwrap();
    assert_eq!((fs.getattr(ino).unwrap().offline_blocks, fs.read_all(ino)), (0, b"new".to_vec()));
    fs.verify();
}

/// Invariant 36: a restored file without length is as good as any other.
#[test]
fn attributes_of_a_restored_file_without_length_can_be_set() {
    let mut fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    set(&fs, ino, ATTR_DATA_VERSION | ATTR_SIZE | ATTR_CTIME, |x| {
        (x.data_version, x.size) = (77.into(), 0.into());
        (x.ctime_sec, x.ctime_nsec) = (5.into(), 6.into());
    })
    .unwrap();
    let attr = fs.getattr(ino).unwrap();
    assert_eq!((attr.data_version, attr.size, attr.online_blocks, attr.offline_blocks), (77, 0, 0, 0));
    let set = SetAttr { mode: Some(0o100_600), uid: Some(7), size: Some(0), ..SetAttr::default() };
    let after = fs.setattr(ino, &set).unwrap();
    assert_eq!((after.mode & 0o7777, after.uid, after.size), (0o600, 7, 0));
    fs.remount();
    fs.setattr(ino, &SetAttr { size: Some(10_000), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.read_all(ino), [0; 10_000]);
    fs.write(ino, 3, b"new").unwrap();
    fs.setattr(ino, &SetAttr { size: Some(6), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.read_all(ino), b"\0\0\0new");
    fs.verify();
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let fs = TestFs::new();
    let new = fs.touch(ROOT_INO, "new");
    let written = fs.touch(ROOT_INO, "written");
    fs.write(written, 0, b"data").unwrap();
    let allocated = fs.touch(ROOT_INO, "allocated");
    fs.fallocate(allocated, AllocateMode::Allocate, true, 0, 4096).unwrap();
    let dir = fs.subdir(ROOT_INO, "dir");
    type Fill = fn(&mut AttrX);
    let offline: Fill = |x| {
        x.x_flags = ATTR_FLAG_SIZE_OFFLINE.into();
        (x.size, x.data_version) = (5.into(), 1.into());
    };
    let version: Fill = |x| x.data_version = 1.into();
    let size: Fill = |x| x.size = 5.into();
    let cases: [(u64, u64, Fill); 14] = [
        (new, ATTR_DATA_VERSION, |_| ()),
        (new, ATTR_SIZE, size),
        (new, ATTR_SIZE | ATTR_DATA_VERSION, |x| {
            (x.size, x.data_version) = ((MAX_FILE_BYTES + 1).into(), 1.into())
        }),
        (new, ATTR_DATA_VERSION, offline),
        (new, ATTR_PROJECT_ID, offline),
        (new, ATTR_SIZE, |x| x.x_flags = ATTR_FLAG_SIZE_OFFLINE.into()),
        (new, ATTR_CTIME | ATTR_PROJECT_ID, |x| x.ctime_nsec = 1_000_000_000.into()),
        (new, ATTR_CRTIME | ATTR_PROJECT_ID, |x| x.crtime_nsec = u32::MAX.into()),
        (written, ATTR_DATA_VERSION, version),
        (written, ATTR_SIZE, |_| ()),
        (allocated, ATTR_SIZE | ATTR_DATA_VERSION, offline),
        (dir, ATTR_DATA_VERSION, version),
        (dir, ATTR_SIZE, |_| ()),
        (dir, ATTR_RETENTION | ATTR_PROJECT_ID, |x| x.bits = 1.into()),
    ];
    for (n, (ino, mask, fill)) in cases.into_iter().enumerate() {
        let before = state(&fs, ino);
        let got = set(&fs, ino, mask, |x| {
            x.project_id = 9.into();
            fill(x);
        });
        assert!(matches!(got, Err(Error::Invalid(_))), "{n}: {got:?}");
        assert_eq!(state(&fs, ino), before, "{n}");
    }
    // What cannot be set is passed over, as is a call for nothing.
    let before = state(&fs, new);
    set(&fs, new, 0, |x| x.x_flags = u64::MAX.into()).unwrap();
    assert_eq!(state(&fs, new), before);
    set(&fs, new, ATTR_META_SEQ | ATTR_ONLINE_BLOCKS, |x| x.online_blocks = 5.into()).unwrap();
    assert_eq!(fs.getattr(new).unwrap().online_blocks, 0);
    assert!(matches!(set(&fs, 999_999, ATTR_PROJECT_ID, |_| ()), Err(Error::StaleHandle)));
    fs.verify();
}

#[test]
fn nothing_of_a_retained_file_changes_but_attributes_outside_user() {
    let mut fs = TestFs::new();
    let dir = fs.mkdir(ROOT_INO, b"dir", &DIR).unwrap().ino;
    let ino = fs.create(dir, b"file", &FILE).unwrap().ino;
    let other = fs.create(dir, b"other", &FILE).unwrap().ino;
    fs.write(ino, 0, b"content").unwrap();
    fs.setxattr(ino, b"user.a", b"1", SetXattrMode::Any).unwrap();
    retain(&fs, ino, true).unwrap();
    fs.remount();
    let before = state(&fs, ino);
    let none = RenameFlags::empty();
    let size = SetAttr { size: Some(3), ..SetAttr::default() };
    // It changes the mode: owner 6, group 0, others 0.
    let mut list = std::vec![2, 0, 0, 0];
    for (tag, perm) in [(1u8, 6u8), (4, 0), (32, 0)] {
        list.extend([tag, 0, perm, 0, 255, 255, 255, 255]);
    }
    let attempts: Vec<(&str, Result<(), Error>)> = std::vec![
        ("write", fs.write(ino, 0, b"x").map(|_| ())),
        ("append", fs.append(ino, b"x").map(|_| ())),
        ("truncate", fs.setattr(ino, &size).map(|_| ())),
        ("chmod", fs.setattr(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).map(|_| ())),
        ("allocate", fs.fallocate(ino, AllocateMode::Allocate, true, 0, 9000)),
        ("punch", fs.fallocate(ino, AllocateMode::PunchHole, true, 0, 9000)),
        ("zero", fs.fallocate(ino, AllocateMode::ZeroRange, false, 0, 9000)),
        ("link", fs.link(ino, dir, b"link").map(|_| ())),
        ("unlink", fs.unlink(dir, b"file")),
        ("rename", fs.rename(dir, b"file", ROOT_INO, b"moved", none)),
        ("replace", fs.rename(dir, b"other", dir, b"file", none)),
        ("exchange", fs.rename(dir, b"other", dir, b"file", RenameFlags::EXCHANGE)),
        ("exchange back", fs.rename(dir, b"file", dir, b"other", RenameFlags::EXCHANGE)),
        ("set user.", fs.setxattr(ino, b"user.a", b"2", SetXattrMode::Any)),
        ("remove user.", fs.removexattr(ino, b"user.a", true)),
        ("list of access", fs.setxattr(ino, b"system.posix_acl_access", &list, SetXattrMode::Any)),
        ("project", set(&fs, ino, ATTR_PROJECT_ID, |x| x.project_id = 1.into())),
        ("again", retain(&fs, ino, true)),
    ];
    for (what, result) in attempts {
        assert!(matches!(result, Err(Error::NotPermitted)), "{what}: {result:?}");
    }
    assert_eq!(state(&fs, ino), before);
    assert_eq!((fs.read_all(ino), fs.xattr(ino, b"user.a").unwrap()), (b"content".to_vec(), b"1".to_vec()));
    for name in [&b"trusted.a"[..], b"security.a"] {
        fs.setxattr(ino, name, b"2", SetXattrMode::Any).unwrap();
        fs.removexattr(ino, name, true).unwrap();
    }
    // The directory above may move, and others may change.
    fs.rename(ROOT_INO, b"dir", ROOT_INO, b"moved", none).unwrap();
    fs.write(other, 0, b"x").unwrap();
    // Ending it may come with other changes.
    set(&fs, ino, ATTR_RETENTION | ATTR_PROJECT_ID, |x| x.project_id = 5.into()).unwrap();
    assert_eq!(get(&fs, ino, ATTR_PROJECT_ID | ATTR_RETENTION).project_id.get(), 5);
    fs.write(ino, 0, b"x").unwrap();
    fs.unlink(dir, b"file").unwrap();
    fs.verify();
}
