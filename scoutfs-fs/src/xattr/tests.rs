// SPDX-License-Identifier: GPL-2.0-only
//! What extended attributes promise.

use std::vec::Vec;

use scoutfs_format::Key;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::KIND_XATTR;

use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{TestFs, bytes};
use crate::store::LockMode;
use crate::xattr::SetXattrMode;

/// Ids and parts of an inode's attributes, with the bytes of each part.
fn parts(fs: &Fs, ino: u64) -> Vec<(u64, u8, usize)> {
    let locks = fs.store().lock(&[(ino, LockMode::Read)]).unwrap();
    let mut from = Key::kind_first(ino, KIND_XATTR);
    let mut found = Vec::new();
    while let Some((key, len)) =
        locks.next(from, Key::kind_last(ino, KIND_XATTR), |key, value| (key, value.len())).unwrap()
    {
        found.push((key.third, key.fourth, len));
        from = key.saturating_next();
    }
    found
}

/// Invariant 8.
#[test]
fn replacing_an_xattr_keeps_its_id_and_leaves_no_part_behind() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    fs.setxattr(ino, b"user.other", b"1", SetXattrMode::Any).unwrap();
    fs.setxattr(ino, b"user.name", b"first", SetXattrMode::Create).unwrap();
    let others: Vec<_> = parts(&fs, ino).into_iter().collect();
    let id = others.iter().map(|(id, ..)| *id).max().unwrap();
    // Header and name are 17 bytes, so these fill their last part, go over by one, and so on.
    let lens = [0, 1, 4078, 4079, 4080, 8174, 8175, 8176, 30_000, 65_535];
    for from in lens {
        for to in lens {
            for len in [from, to] {
                let value = bytes(len as u64, len);
                fs.setxattr(ino, b"user.name", &value, SetXattrMode::Replace).unwrap();
                assert_eq!(fs.xattr(ino, b"user.name").unwrap(), value);
                let parts: Vec<_> = parts(&fs, ino).into_iter().filter(|(i, ..)| *i == id).collect();
                assert_eq!(parts.iter().map(|(.., len)| len).sum::<usize>(), 8 + 9 + len);
                assert_eq!(parts.len(), (8 + 9 + len).div_ceil(4096));
            }
        }
    }
    fs.removexattr(ino, b"user.name").unwrap();
    assert_eq!(parts(&fs, ino).len(), 1);
    fs.verify();
}

#[test]
fn an_id_is_not_given_out_twice() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let mut last = None;
    for _ in 0..3 {
        fs.setxattr(ino, b"user.name", b"v", SetXattrMode::Create).unwrap();
        let [(id, ..)] = parts(&fs, ino)[..] else { panic!("one part") };
        assert!(last < Some(id));
        last = Some(id);
        fs.removexattr(ino, b"user.name").unwrap();
    }
}

#[test]
fn names_outside_the_namespaces_are_not_supported() {
    let fs = TestFs::new();
    let set = |name: &[u8]| fs.setxattr(ROOT_INO, name, b"v", SetXattrMode::Any);
    for name in [&b"user."[..], b"user", b"other.a", b"system.nfs4_acl", b"scoutfs.hide.x"] {
        assert!(matches!(set(name), Err(Error::NotSupported)), "{name:?}");
        assert!(matches!(fs.xattr(ROOT_INO, name), Err(Error::NotSupported)));
    }
    for name in [&b"user.a"[..], b"trusted.a", b"security.a", b"system.posix_acl_access"] {
        set(name).unwrap();
        assert_eq!(fs.xattr(ROOT_INO, name).unwrap(), b"v");
    }
    assert!(matches!(set(&[b'a'; 256]), Err(Error::Range)));
}

#[test]
fn a_short_buffer_is_an_error_and_an_empty_one_asks_for_the_length() {
    let fs = TestFs::new();
    fs.setxattr(ROOT_INO, b"user.a", b"12345", SetXattrMode::Any).unwrap();
    assert_eq!(fs.getxattr(ROOT_INO, b"user.a", &mut []).unwrap(), 5);
    assert!(matches!(fs.getxattr(ROOT_INO, b"user.a", &mut [0; 4]), Err(Error::Range)));
    assert!(matches!(fs.listxattr(ROOT_INO, &mut [0; 6]), Err(Error::Range)));
    assert_eq!(fs.listxattr(ROOT_INO, &mut [0; 7]).unwrap(), 7);
}
