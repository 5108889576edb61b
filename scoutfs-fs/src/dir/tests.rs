// SPDX-License-Identifier: GPL-2.0-only
//! What directories promise.

use std::collections::BTreeSet;
use std::string::String;
use std::thread;
use std::time::Duration;
use std::vec::Vec;
use std::{format, vec};

use scoutfs_format::item::{MAX_LINKS, ROOT_INO, name_hash};

use crate::dir::{NewInode, RenameFlags};
use crate::error::Error;
use crate::fs::testing::{DIR, FILE, TestFs, long_name};
use crate::inode::change::{Change, INODE_CHANGE_ITEMS, Touch};
use crate::store::{LockMode, Need};

const NONE: RenameFlags = RenameFlags::empty();

#[test]
fn names_with_the_same_hash_are_different_entries() {
    let (a, b) = (b"8yn0iYCKYHlIj4-BwPqk", b"GReLUrM4wMqfg9yzV3KQ");
    assert_eq!(name_hash(a), name_hash(b));
    let mut fs = TestFs::new();
    let first = fs.touch(ROOT_INO, core::str::from_utf8(a).unwrap());
    assert!(matches!(fs.lookup(ROOT_INO, b), Err(Error::NotFound)));
    let second = fs.touch(ROOT_INO, core::str::from_utf8(b).unwrap());
    fs.remount();
    for (name, ino) in [(a, first), (b, second)] {
        assert_eq!(fs.lookup(ROOT_INO, name).unwrap().ino, ino);
        fs.forget(ino, 1);
    }
    fs.rename(ROOT_INO, a, ROOT_INO, b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs.lookup(ROOT_INO, a).unwrap().ino, second);
    fs.forget(second, 1);
    fs.unlink(ROOT_INO, a).unwrap();
    assert_eq!(fs.names(ROOT_INO), [(b.to_vec(), first)]);
    fs.verify();
}

#[test]
fn positions_are_stable_and_never_reused() {
    let fs = TestFs::new();
    let positions = |fs: &TestFs| {
        let mut found = vec![];
        fs.readdir(ROOT_INO, 0, &mut |e| {
            found.push((e.pos, String::from_utf8(e.name.to_vec()).unwrap()));
            true
        })
        .unwrap();
        found
    };
    for n in 0..200 {
        fs.touch(ROOT_INO, &format!("{n}"));
    }
    let before = positions(&fs);
    assert_eq!(before[..3], [(0, ".".into()), (1, "..".into()), (2, "0".into())]);
    for n in (0..200).step_by(2) {
        fs.unlink(ROOT_INO, format!("{n}").as_bytes()).unwrap();
    }
    let kept = positions(&fs);
    assert!(kept.iter().all(|entry| before.contains(entry)));
    fs.touch(ROOT_INO, "new");
    assert_eq!(positions(&fs).last().unwrap().0, 202);
    // From each position on, the rest.
    for (i, (pos, _)) in kept.iter().enumerate() {
        let mut names = 0;
        fs.readdir(ROOT_INO, *pos, &mut |_| {
            names += 1;
            true
        })
        .unwrap();
        assert_eq!(names, kept.len() + 1 - i);
    }
}

#[test]
fn readdir_plus_takes_a_reference_of_each_entry_that_was_taken() {
    let fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let mut inos = BTreeSet::new();
    for n in 0..150 {
        inos.insert(fs.touch(dir, &format!("{n}")));
    }
    let mut taken = vec![];
    let mut pos = 0;
    // Seven at a time, as if the buffer were full then.
    loop {
        let mut room = 7;
        fs.readdir_plus(dir, pos, &mut |entry, attr| {
            if room == 0 {
                return false;
            }
            room -= 1;
            pos = entry.next_pos;
            assert_eq!(attr.is_none(), entry.pos < 2);
            if let Some(attr) = attr {
                assert_eq!(attr.ino, entry.ino);
                taken.push(entry.ino);
            }
            true
        })
        .unwrap();
        if room > 0 {
            break;
        }
    }
    assert_eq!(taken.len(), 150);
    assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), inos);
    for n in 0..150 {
        fs.unlink(dir, format!("{n}").as_bytes()).unwrap();
    }
    for ino in &taken {
        assert_eq!(fs.getattr(*ino).unwrap().nlink, 0);
        fs.forget(*ino, 1);
        assert!(fs.getattr(*ino).is_err());
    }
    fs.verify();
}

/// Invariant 35.
#[test]
fn rename_updates_the_ctime_of_the_replaced_inode() {
    let fs = TestFs::new();
    let (a, b) = (fs.touch(ROOT_INO, "a"), fs.touch(ROOT_INO, "b"));
    fs.link(b, ROOT_INO, b"other").unwrap();
    let before = [a, b, ROOT_INO].map(|ino| fs.getattr(ino).unwrap());
    thread::sleep(Duration::from_millis(2));
    fs.rename(ROOT_INO, b"a", ROOT_INO, b"b", NONE).unwrap();
    let after = [a, b, ROOT_INO].map(|ino| fs.getattr(ino).unwrap());
    for (before, after) in before.iter().zip(&after) {
        assert!(before.ctime < after.ctime);
    }
    assert!(before[2].mtime < after[2].mtime);
    assert_eq!((before[1].nlink, after[1].nlink), (2, 1));
    assert_eq!((before[0].mtime, before[1].mtime), (after[0].mtime, after[1].mtime));
    fs.forget(b, 1);
    fs.verify();
}

/// Invariant 62.
#[test]
fn renames_into_the_root_directory_work_from_anywhere() {
    let fs = TestFs::new();
    let mut dir = ROOT_INO;
    for n in 0..20 {
        dir = fs.subdir(dir, &format!("d{n}"));
    }
    fs.touch(dir, "file");
    fs.subdir(dir, "sub");
    fs.rename(dir, b"file", ROOT_INO, b"file", NONE).unwrap();
    fs.rename(dir, b"sub", ROOT_INO, b"sub", NONE).unwrap();
    let upper = fs.ino("d0/d1/d2");
    fs.rename(upper, b"d3", ROOT_INO, b"d3", NONE).unwrap();
    assert_eq!(fs.lookup(fs.ino("d3"), b"..").unwrap().ino, ROOT_INO);
    fs.forget(ROOT_INO, 1);
    fs.verify();
}

#[test]
fn a_directory_does_not_go_below_itself() {
    let fs = TestFs::new();
    let a = fs.subdir(ROOT_INO, "a");
    let b = fs.subdir(a, "b");
    let c = fs.subdir(b, "c");
    for (dir, name) in [(a, b"x"), (b, b"x"), (c, b"x")] {
        let moved = fs.rename(ROOT_INO, b"a", dir, name, NONE);
        assert!(matches!(moved, Err(Error::Invalid(_))));
    }
    // The other way round it would, too.
    fs.touch(c, "file");
    let swapped = fs.rename(c, b"file", ROOT_INO, b"a", RenameFlags::EXCHANGE);
    assert!(matches!(swapped, Err(Error::Invalid(_))));
    let replaced = fs.rename(a, b"b", ROOT_INO, b"a", NONE);
    assert!(matches!(replaced, Err(Error::NotEmpty)));
    fs.verify();
}

#[test]
fn entries_of_a_set_group_id_directory_inherit_its_group() {
    let fs = TestFs::new();
    let dir = fs.mkdir(ROOT_INO, b"d", &NewInode { mode: 0o2755, gid: 77, ..DIR }).unwrap();
    assert_eq!(dir.mode, 0o042755);
    let file = fs.create(dir.ino, b"f", &FILE).unwrap();
    let sub = fs.mkdir(dir.ino, b"s", &DIR).unwrap();
    assert_eq!((file.gid, file.mode), (77, 0o100644));
    assert_eq!((sub.gid, sub.mode), (77, 0o042755));
}

#[test]
fn impossible_names_are_refused() {
    let fs = TestFs::new();
    let create = |name: &[u8]| fs.create(ROOT_INO, name, &FILE).map(|attr| fs.forget(attr.ino, 1));
    assert!(matches!(create(b""), Err(Error::Invalid(_))));
    assert!(matches!(create(b"."), Err(Error::Invalid(_))));
    assert!(matches!(create(b".."), Err(Error::Invalid(_))));
    assert!(matches!(create(b"a/b"), Err(Error::Invalid(_))));
    assert!(matches!(create(b"a\0"), Err(Error::Invalid(_))));
    assert!(matches!(create(&[b'a'; 256]), Err(Error::NameTooLong)));
    create(long_name("a", 255).as_bytes()).unwrap();
}

#[test]
fn nothing_is_made_in_a_removed_directory() {
    let fs = TestFs::new();
    let dir = fs.mkdir(ROOT_INO, b"d", &DIR).unwrap().ino;
    fs.touch(ROOT_INO, "file");
    fs.rmdir(ROOT_INO, b"d").unwrap();
    assert!(matches!(fs.create(dir, b"x", &FILE), Err(Error::NotFound)));
    assert!(matches!(fs.tmpfile(dir, &FILE, true), Err(Error::NotFound)));
    assert!(matches!(fs.rename(ROOT_INO, b"file", dir, b"x", NONE), Err(Error::NotFound)));
    assert!(fs.names(dir).is_empty());
    fs.forget(dir, 1);
    fs.verify();
}

/// A generator of small random numbers that a seed repeats.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn many_who_change_the_same_directories_at_once_leave_them_whole() {
    let fs = TestFs::new();
    let dirs: Vec<u64> = (0..4).map(|n| fs.subdir(ROOT_INO, &format!("d{n}"))).collect();
    thread::scope(|s| {
        for thread in 1..5u64 {
            let (fs, dirs) = (&fs, &dirs);
            s.spawn(move || {
                let mut state = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..1500 {
                    let r = next(&mut state);
                    let (from, to) = (dirs[(r >> 8) as usize % 4], dirs[(r >> 16) as usize % 4]);
                    let (a, b) = ([b'a' + (r >> 24) as u8 % 6], [b'a' + (r >> 32) as u8 % 6]);
                    let done = match r % 8 {
                        0 | 1 => fs.create(from, &a, &FILE).map(|attr| fs.forget(attr.ino, 1)),
                        2 => fs.mkdir(from, &a, &DIR).map(|attr| fs.forget(attr.ino, 1)),
                        3 => fs.unlink(from, &a),
                        4 => fs.rmdir(from, &a),
                        5 => fs.rename(from, &a, to, &b, RenameFlags::EXCHANGE),
                        6 => fs.lookup(from, &a).and_then(|attr| {
                            let linked = fs.link(attr.ino, to, &b).map(|attr| fs.forget(attr.ino, 1));
                            fs.forget(attr.ino, 1);
                            linked
                        }),
                        _ => fs.rename(from, &a, to, &b, NONE),
                    };
                    if let Err(e) = done {
                        assert_ne!(e.errno(), 5, "{e}");
                    }
                }
            });
        }
    });
    fs.verify();
}

/// Names are found before their inodes are locked, and the inodes may be in use then.
#[test]
fn names_are_removed_and_renamed_as_soon_as_their_inodes_are_free() {
    let fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let a = fs.touch(dir, "a");
    let b = fs.touch(dir, "b");
    let (fs, busy) = (&fs, Duration::from_millis(50));
    let works: [&(dyn Fn() + Sync); 3] = [
        &|| fs.rename(dir, b"a", dir, b"b", RenameFlags::EXCHANGE).unwrap(),
        &|| fs.rename(dir, b"b", ROOT_INO, b"a", NONE).unwrap(),
        &|| fs.unlink(dir, b"a").unwrap(),
    ];
    for work in works {
        let pins = [fs.pin(a).unwrap(), fs.pin(b).unwrap()];
        let guards = (pins[0].data.write(), pins[1].data.read());
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            thread::sleep(busy);
            assert!(!worker.is_finished(), "it changes an inode that is in use");
            drop(guards);
        });
    }
    assert!(fs.names(dir).is_empty());
    assert_eq!(fs.lookup(ROOT_INO, b"a").unwrap().ino, a);
    fs.forget(a, 1);
    assert!(fs.getattr(b).is_err(), "it has lost its last link");
}

#[test]
fn directories_that_many_move_at_once_never_form_a_circle() {
    let fs = TestFs::new();
    let dirs: Vec<u64> = (0..5).map(|n| fs.subdir(ROOT_INO, &format!("{n}"))).collect();
    // A directory's name stays its own; it goes into one of the others or the root.
    thread::scope(|s| {
        for thread in 1..4u64 {
            let (fs, dirs) = (&fs, &dirs);
            s.spawn(move || {
                let mut state = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..600 {
                    let r = next(&mut state);
                    let place = |n: u64| if n == 5 { ROOT_INO } else { dirs[n as usize] };
                    let name = format!("{}", (r >> 8) % 5);
                    let (from, to) = (place((r >> 16) % 6), place((r >> 24) % 6));
                    match fs.rename(from, name.as_bytes(), to, name.as_bytes(), RenameFlags::NOREPLACE) {
                        Err(Error::NotFound | Error::Invalid(_) | Error::Exists) | Ok(()) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    // All are still below the root.
    assert_eq!(fs.verify().len(), 6);
}

/// Gives an inode a number of links that it does not have.
fn plant_links(fs: &TestFs, ino: u64, links: u32) {
    let locks = fs.store().lock(&[(ino, LockMode::Write)]).unwrap();
    let mut inode = fs.load(&locks, ino).unwrap();
    let hold = locks.hold(Need { items: INODE_CHANGE_ITEMS, bytes: 256, privileged: false }).unwrap();
    let mut change = Change::new(&hold);
    change.inode(&mut inode, Touch::Meta).unwrap();
    inode.item.nlink.set(links);
    change.finish(&[&inode]);
}

#[test]
fn an_inode_has_as_many_links_as_fit_and_no_more() {
    let fs = TestFs::new();
    let file = fs.touch(ROOT_INO, "file");
    let dir = fs.subdir(ROOT_INO, "dir");
    let other = fs.subdir(ROOT_INO, "other");
    fs.subdir(other, "inner");
    let links = |ino| fs.getattr(ino).unwrap().nlink;

    plant_links(&fs, file, MAX_LINKS - 1);
    fs.link(file, dir, b"last").unwrap();
    assert_eq!(links(file), MAX_LINKS);
    assert!(matches!(fs.link(file, dir, b"more"), Err(Error::TooManyLinks)));
    assert_eq!(fs.names(dir), [(b"last".to_vec(), file)], "a refused link leaves no entry");
    // Renaming over it and away from it needs no link more.
    fs.rename(dir, b"last", dir, b"renamed", NONE).unwrap();
    fs.unlink(dir, b"renamed").unwrap();
    assert_eq!(links(file), MAX_LINKS - 1);
    fs.link(file, dir, b"again").unwrap();
    fs.unlink(dir, b"again").unwrap();
    plant_links(&fs, file, 1);

    // A directory's links are its subdirectories.
    plant_links(&fs, dir, MAX_LINKS);
    assert!(matches!(fs.mkdir(dir, b"sub", &DIR), Err(Error::TooManyLinks)));
    assert!(matches!(fs.rename(other, b"inner", dir, b"inner", NONE), Err(Error::TooManyLinks)));
    assert_eq!((links(dir), links(other)), (MAX_LINKS, 3));
    assert!(fs.names(dir).is_empty());
    fs.touch(dir, "a file is no link of its directory");
    plant_links(&fs, dir, 2);
    fs.rename(other, b"inner", dir, b"inner", NONE).unwrap();
    assert_eq!((links(dir), links(other)), (3, 2));
    fs.verify();
}

#[test]
fn directories_change_places_between_parents_that_are_full() {
    let fs = TestFs::new();
    let parents = ["a", "b"].map(|name| fs.subdir(ROOT_INO, name));
    let inner = parents.map(|parent| fs.subdir(parent, "inner"));
    for parent in parents {
        plant_links(&fs, parent, MAX_LINKS);
    }
    fs.rename(parents[0], b"inner", parents[1], b"inner", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs.names(parents[0]), [(b"inner".to_vec(), inner[1])]);
    assert_eq!(fs.names(parents[1]), [(b"inner".to_vec(), inner[0])]);
    for parent in parents {
        assert_eq!(fs.getattr(parent).unwrap().nlink, MAX_LINKS);
        plant_links(&fs, parent, 3);
    }
    fs.verify();
}
