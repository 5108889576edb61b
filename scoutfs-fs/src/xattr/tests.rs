// SPDX-License-Identifier: GPL-2.0-only
//! What extended attributes promise.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;
use std::{format, vec};

use scoutfs_format::Key;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::item::name_hash;
use scoutfs_format::key::KIND_XATTR;

use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{TestFs, bytes};
use crate::store::LockMode;
use crate::xattr::{HiddenPosition, SetXattr, SetXattrMode};

/// By a privileged caller.
const PRIVILEGED: SetXattr = SetXattr { mode: SetXattrMode::Any, privileged: true, kill_sgid: false };

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
    fs.removexattr(ino, b"user.name", false).unwrap();
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
        fs.removexattr(ino, b"user.name", false).unwrap();
    }
}

#[test]
fn names_outside_the_namespaces_are_not_supported() {
    let fs = TestFs::new();
    let set = |name: &[u8]| fs.setxattr(ROOT_INO, name, b"v", SetXattrMode::Any);
    for name in [&b"user."[..], b"user", b"other.a", b"system.nfs4_acl", b"scoutfs.totl.a.1.2.3"] {
        assert!(matches!(set(name), Err(Error::NotSupported)), "{name:?}");
        assert!(matches!(fs.xattr(ROOT_INO, name), Err(Error::NotSupported)));
    }
    for name in [&b"user.a"[..], b"trusted.a", b"security.a"] {
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

#[test]
fn names_with_tags_are_changed_by_privileged_callers_only() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    for name in [&b"scoutfs.hide.a"[..], b"scoutfs.srch.a", b"scoutfs.srch.hide.a"] {
        assert!(matches!(fs.setxattr(ino, name, b"1", SetXattrMode::Any), Err(Error::NotPermitted)));
        assert!(matches!(fs.xattr(ino, name), Err(Error::NoAttribute)));
        fs.setxattr(ino, name, b"1", PRIVILEGED).unwrap();
        assert!(matches!(fs.setxattr(ino, name, b"2", SetXattrMode::Replace), Err(Error::NotPermitted)));
        assert!(matches!(fs.removexattr(ino, name, false), Err(Error::NotPermitted)));
        assert_eq!(fs.xattr(ino, name).unwrap(), b"1");
        fs.removexattr(ino, name, true).unwrap();
        assert!(matches!(fs.removexattr(ino, name, true), Err(Error::NoAttribute)));
    }
    // Privilege does not make a name.
    assert!(matches!(fs.setxattr(ino, b"scoutfs.hide.", b"1", PRIVILEGED), Err(Error::Invalid(_))));
    assert!(matches!(fs.setxattr(ino, b"scoutfs.indx.a", b"", PRIVILEGED), Err(Error::NotSupported)));
}

#[test]
fn hidden_names_are_listed_apart() {
    let mut fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let hidden: BTreeSet<Vec<u8>> = (0..200).map(|n| format!("scoutfs.hide.{n:x<n$}").into_bytes()).collect();
    for name in hidden.iter().map(|name| &name[..]).chain([&b"user.a"[..], b"scoutfs.srch.a"]) {
        fs.setxattr(ino, name, b"value", PRIVILEGED).unwrap();
    }
    fs.remount();
    assert_eq!(
        fs.xattr_names(ino).into_iter().collect::<BTreeSet<_>>(),
        [b"user.a".to_vec(), b"scoutfs.srch.a".to_vec()].into()
    );
    let listed = fs.hidden_names(ino);
    assert_eq!(listed.len(), hidden.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), hidden);
    // What does not fit ends a piece and is not passed over.
    let mut position = HiddenPosition::default();
    assert_eq!(fs.list_hidden_xattrs(ino, &mut position, &mut [0; 5]).unwrap(), 0);
    assert_eq!(position, HiddenPosition::default());
    assert!(matches!(fs.list_hidden_xattrs(ino + 77, &mut position, &mut [0; 300]), Err(Error::StaleHandle)));
}

/// Pairs of hidden names whose hashes share the high half, those with the lower hash first.
fn colliding_names() -> Vec<[Vec<u8>; 2]> {
    let mut hashes: Vec<(u64, u32)> =
        (0..1 << 19).map(|n: u32| (name_hash(format!("scoutfs.hide.{n}").as_bytes()), n)).collect();
    hashes.sort_unstable();
    let name = |n: u32| format!("scoutfs.hide.{n}").into_bytes();
    let pairs = hashes.windows(2).filter(|w| w[0].0 >> 32 == w[1].0 >> 32);
    pairs.map(|w| [name(w[0].1), name(w[1].1)]).collect()
}

#[test]
fn hidden_names_with_one_half_of_a_hash_are_listed_once_each() {
    let fs = TestFs::new();
    let pairs = colliding_names();
    assert!(pairs.len() >= 4, "only {}", pairs.len());
    let (first, second) = (fs.touch(ROOT_INO, "first"), fs.touch(ROOT_INO, "second"));
    for [low, high] in &pairs {
        for (ino, names) in [(first, [low, high]), (second, [high, low])] {
            for name in names {
                fs.setxattr(ino, name, b"", PRIVILEGED).unwrap();
            }
        }
    }
    let names: BTreeSet<&[u8]> = pairs.iter().flatten().map(|name| &name[..]).collect();
    for ino in [first, second] {
        for (most, room) in [(1, 300), (1, 30), (2, 30), (64, 300)] {
            let (mut position, mut listed) = (HiddenPosition::default(), vec![]);
            let mut buf = vec![0; room];
            loop {
                let before = position;
                let len = fs.list_hidden(ino, &mut position, &mut buf, most).unwrap();
                if len == 0 {
                    break;
                }
                assert!(before < position);
                listed.extend(buf[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec));
            }
            assert_eq!(listed.len(), names.len(), "{most} {room}");
            assert_eq!(listed.iter().map(|name| &name[..]).collect::<BTreeSet<_>>(), names);
        }
    }
}

#[test]
fn a_search_finds_what_has_the_attribute_and_nothing_else() {
    let mut fs = TestFs::new();
    let name = b"scoutfs.srch.color";
    let inos: Vec<u64> = (0..300).map(|n| fs.touch(ROOT_INO, &format!("{n}"))).collect();
    for (n, ino) in inos.iter().enumerate() {
        fs.setxattr(*ino, b"scoutfs.srch.other", b"", PRIVILEGED).unwrap();
        if n % 3 != 0 {
            fs.setxattr(*ino, name, b"green", PRIVILEGED).unwrap();
        }
        if n % 3 == 2 {
            fs.removexattr(*ino, name, true).unwrap();
        }
    }
    let with: Vec<u64> = inos.iter().copied().skip(1).step_by(3).collect();
    assert_eq!(fs.search(name), with);
    assert_eq!(fs.search(b"scoutfs.srch.other"), inos);
    assert_eq!(fs.search(b"scoutfs.srch.none"), []);
    // In pieces, and from and to anywhere.
    let piece = |first, last, max| {
        let mut found = vec![];
        let end = fs.search_xattrs(name, first, last, max, &mut |ino| {
            found.push(ino);
            Ok(())
        });
        (found, end.unwrap())
    };
    assert_eq!(piece(0, u64::MAX, 7), (with[..7].to_vec(), false));
    assert_eq!(piece(with[6] + 1, u64::MAX, 93), (with[7..].to_vec(), true));
    assert_eq!(piece(with[3], with[5], 3), (with[3..6].to_vec(), true));
    assert_eq!(piece(with[3], with[5], 2), (with[3..5].to_vec(), false));
    assert_eq!(piece(with[5] + 1, with[5], 3), (vec![], true));
    assert_eq!(piece(0, u64::MAX, 0), (vec![], false));
    for wrong in [&b"user.color"[..], b"scoutfs.hide.color", b"scoutfs.srch.", &[b'a'; 300]] {
        let searched = fs.search_xattrs(wrong, 0, u64::MAX, 1, &mut |_| Ok(()));
        assert!(matches!(searched, Err(Error::Invalid(_))));
    }
    // The caller's own error ends it.
    let failed = fs.search_xattrs(name, 0, u64::MAX, 9, &mut |_| Err(Error::Interrupted));
    assert!(matches!(failed, Err(Error::Interrupted)));
    fs.crash();
    assert_eq!(fs.search(name), with);
}

#[test]
fn an_inode_with_two_names_of_one_hash_is_found_once() {
    let fs = TestFs::new();
    let (one, two) = (fs.touch(ROOT_INO, "one"), fs.touch(ROOT_INO, "two"));
    let name = b"scoutfs.srch.a";
    for ino in [one, two] {
        fs.setxattr(ino, name, b"", PRIVILEGED).unwrap();
    }
    // As if of another attribute: what a collision of hashes would leave.
    let other = |write: &dyn Fn(&crate::store::Hold<'_>, Key)| {
        let locks = fs.store().lock(&[(one, LockMode::Write)]).unwrap();
        let hold = locks.hold(crate::store::Need { items: 1, bytes: 0, privileged: false }).unwrap();
        write(&hold, Key::srch(name_hash(name), one, 99));
    };
    other(&|hold, key| hold.create_force(key, &[]).unwrap());
    assert_eq!(fs.search(name), [one, two]);
    let mut found = vec![];
    let end = fs.search_xattrs(name, 0, u64::MAX, 1, &mut |ino| {
        found.push(ino);
        Ok(())
    });
    assert_eq!((end.unwrap(), found), (false, vec![one]));
    assert!(fs.search_xattrs(name, one, one, 1, &mut |_| Ok(())).unwrap());
    other(&|hold, key| hold.delete_force(key).unwrap());
    assert_eq!(fs.search(name), [one, two]);
}

/// Invariant 54: attributes of one inode wait for nobody who works on another, and readers not for each other.
#[test]
fn attributes_of_different_inodes_and_readers_of_one_do_not_wait_for_each_other() {
    let fs = TestFs::new();
    let (one, two) = (fs.touch(ROOT_INO, "one"), fs.touch(ROOT_INO, "two"));
    fs.setxattr(one, b"user.a", b"value", SetXattrMode::Any).unwrap();
    let in_time = |what: &str, work: &(dyn Fn() + Sync)| {
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                work();
                done.send(()).unwrap();
            });
            // Only so that a failure is one, and does not hang.
            let finished = wait.recv_timeout(std::time::Duration::from_secs(60)).is_ok();
            if !finished {
                std::eprintln!("{what} waits");
                std::process::abort();
            }
        });
    };
    let pin = fs.pin(one).unwrap();
    let locks = fs.store().lock(&[(one, LockMode::Write)]).unwrap();
    let state = pin.data.write();
    in_time("another inode", &|| {
        fs.setxattr(two, b"user.a", &bytes(1, 9000), SetXattrMode::Any).unwrap();
        fs.setxattr(two, b"scoutfs.srch.a", b"", PRIVILEGED).unwrap();
        assert_eq!(fs.xattr(two, b"user.a").unwrap().len(), 9000);
        assert_eq!(fs.xattr_names(two).len(), 2);
    });
    drop((state, locks));
    let state = pin.data.read();
    in_time("another reader", &|| {
        assert_eq!(fs.xattr(one, b"user.a").unwrap(), b"value");
        assert_eq!(fs.hidden_names(one).len(), 0);
    });
    drop(state);
}

/// Invariant 8, with the index: a replaced attribute keeps its id and its entry.
#[test]
fn a_replaced_xattr_keeps_its_id_and_its_index_entry() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    fs.setxattr(ino, b"user.first", b"", SetXattrMode::Any).unwrap();
    let name = b"scoutfs.hide.srch.long";
    fs.setxattr(ino, name, b"1", PRIVILEGED).unwrap();
    let ids = |fs: &Fs| parts(fs, ino).into_iter().map(|(id, ..)| id).collect::<BTreeSet<_>>();
    let before = ids(&fs);
    for len in [60_000, 0, 5000, 10] {
        fs.setxattr(ino, name, &bytes(1, len), PRIVILEGED).unwrap();
        assert_eq!(ids(&fs), before);
        assert_eq!(fs.search(name), [ino]);
    }
    fs.removexattr(ino, name, true).unwrap();
    assert_eq!(fs.search(name), []);
    fs.setxattr(ino, name, b"again", PRIVILEGED).unwrap();
    assert_ne!(ids(&fs), before);
    assert_eq!(fs.search(name), [ino]);
}

/// Invariant 52, as it applies to the search index: deleting a file removes the index entries of its attributes, each by its
/// own id.
#[test]
fn a_deleted_file_leaves_no_index_entry() {
    let mut fs = TestFs::new();
    let (file, other) = (fs.touch(ROOT_INO, "file"), fs.touch(ROOT_INO, "other"));
    let name = |n: usize| format!("scoutfs.srch.{n}").into_bytes();
    for n in 0..200 {
        // Ids that are not in the order of names, some used before, values of several parts between.
        fs.setxattr(file, &name(n * 77 % 200), &bytes(1, n * 50), PRIVILEGED).unwrap();
        if n % 3 == 0 {
            fs.removexattr(file, &name(n * 77 % 200), true).unwrap();
            fs.setxattr(file, &name(n * 77 % 200), b"again", PRIVILEGED).unwrap();
        }
    }
    fs.setxattr(other, &name(0), b"", PRIVILEGED).unwrap();
    assert_eq!(fs.search(&name(5)), [file]);
    fs.unlink(ROOT_INO, b"file").unwrap();
    for n in 1..200 {
        assert_eq!(fs.search(&name(n)), []);
    }
    assert_eq!(fs.search(&name(0)), [other]);
    // And when a crash comes between unlinking and deleting: the scan at the next mount goes on.
    let ino = fs.create(ROOT_INO, b"file", &crate::fs::testing::FILE).unwrap().ino;
    for n in 0..50 {
        fs.setxattr(ino, &name(n), &bytes(1, 9000), PRIVILEGED).unwrap();
    }
    fs.unlink(ROOT_INO, b"file").unwrap();
    assert_eq!(fs.search(&name(7)), [ino]);
    fs.crash();
    assert_eq!(fs.search(&name(7)), []);
    assert_eq!(fs.search(&name(0)), [other]);
}

/// Attributes and their entries agree whatever was durable when the mount died: proven by the check after the crash, and by searches.
#[test]
fn after_a_crash_at_any_time_the_index_and_the_attributes_agree() {
    let mut fs = TestFs::new();
    let names: Vec<Vec<u8>> = (0..4).map(|n| format!("scoutfs.srch.{n}").into_bytes()).collect();
    let mut random = 1u64;
    let mut pick = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let mut inos = BTreeMap::new();
    for round in 0..40 {
        for _ in 0..pick(30) {
            let file = format!("{}", pick(8));
            let ino = *inos.entry(file.clone()).or_insert_with(|| fs.touch(ROOT_INO, &file));
            match pick(6) {
                0 => {
                    fs.unlink(ROOT_INO, file.as_bytes()).unwrap();
                    inos.remove(&file);
                }
                1 => drop(fs.removexattr(ino, &names[pick(4)], true)),
                2 if pick(4) == 0 => fs.sync().unwrap(),
                _ => fs.setxattr(ino, &names[pick(4)], &bytes(round, pick(9000)), PRIVILEGED).unwrap(),
            }
        }
        fs.crash();
        inos = fs
            .names(ROOT_INO)
            .into_iter()
            .map(|(n, i)| (std::string::String::from_utf8(n).unwrap(), i))
            .collect();
        for name in &names {
            let with: BTreeSet<u64> =
                inos.values().copied().filter(|ino| fs.xattr(*ino, name).is_ok()).collect();
            assert_eq!(fs.search(name).into_iter().collect::<BTreeSet<_>>(), with);
        }
    }
}
