// SPDX-License-Identifier: GPL-2.0-only
//! Entries and paths of inodes, against the tree as it is read from the root.

use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_format::Key;
use scoutfs_format::item::{BackrefItem, ROOT_INO, name_hash};
use zerocopy::IntoBytes;

use crate::dir::RenameFlags;
use crate::dir::entry::NAMES_NEED;
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{Content, Node, TestFs, long_name};
use crate::inode::kind::FileType;
use crate::store::{Hold, LockMode};

const PATH_MAX: usize = 4096;

/// All paths of an inode, and the (directory, position) of each.
fn paths(fs: &Fs, ino: u64) -> Vec<((u64, u64), String)> {
    let mut found = Vec::new();
    let mut from = (0, 0);
    while let Some(path) = fs.ino_path(ino, from.0, from.1, PATH_MAX).unwrap() {
        from = (path.dir, path.pos + 1);
        found.push(((path.dir, path.pos), String::from_utf8(path.path.to_vec()).unwrap()));
    }
    found
}

/// An entry: directory, position, type, name.
type Found = (u64, u64, FileType, Vec<u8>);

/// All entries of an inode.
fn entries(fs: &Fs, ino: u64) -> Vec<Found> {
    let mut found = Vec::new();
    let mut from = Some((0, 0));
    let mut last = false;
    while let Some((dir, pos)) = from
        && let Some(entry) = fs.next_referring(ino, dir, pos).unwrap()
    {
        assert!(!last, "an entry follows the last one of {ino}");
        (from, last) = (entry.after(), entry.last);
        found.push((entry.dir, entry.pos, entry.kind, entry.name.to_vec()));
    }
    assert_eq!(last, !found.is_empty(), "the last entry of {ino}");
    found
}

/// What is found from the inodes is what is found from the root.
fn compare(fs: &Fs, tree: &BTreeMap<u64, Node>) {
    let mut want: BTreeMap<u64, Vec<Found>> = BTreeMap::new();
    for dir in tree.iter().filter(|(_, n)| matches!(n.content, Content::Dir(_))).map(|(ino, _)| *ino) {
        fs.readdir(dir, 2, &mut |e| {
            want.entry(e.ino).or_default().push((dir, e.pos, e.kind, e.name.to_vec()));
            true
        })
        .unwrap();
    }
    let mut want_paths: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut todo = std::vec![(ROOT_INO, String::new())];
    while let Some((dir, prefix)) = todo.pop() {
        let Content::Dir(names) = &tree[&dir].content else { continue };
        for (name, ino) in names {
            let path = prefix.clone() + core::str::from_utf8(name).unwrap();
            want_paths.entry(*ino).or_default().insert(path.clone());
            todo.push((*ino, path + "/"));
        }
    }
    for ino in tree.keys() {
        let mut want = want.remove(ino).unwrap_or_default();
        want.sort_by_key(|(dir, pos, ..)| (*dir, *pos));
        let found = entries(fs, *ino);
        assert_eq!(found, want, "entries of {ino}");
        let found = paths(fs, *ino);
        assert!(found.iter().map(|(at, _)| *at).eq(want.iter().map(|(dir, pos, ..)| (*dir, *pos))));
        let found: Vec<String> = found.into_iter().map(|(_, path)| path).collect();
        let set: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(set.len(), found.len());
        assert_eq!(set, want_paths.remove(ino).unwrap_or_default(), "paths of {ino}");
    }
    for nobody in [0, 99, u64::MAX] {
        assert_eq!((entries(fs, nobody).len(), paths(fs, nobody).len()), (0, 0));
    }
}

#[derive(Clone, Debug)]
enum Op {
    File(u8, u8),
    Dir(u8, u8),
    Link(u8, u8, u8),
    Rename(u8, u8, u8, u8, bool),
    Remove(u8, u8),
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = || 0u8..5;
    let d = any::<u8>;
    prop_oneof![
        3 => (d(), n()).prop_map(|(d, n)| Op::File(d, n)),
        4 => (d(), n()).prop_map(|(d, n)| Op::Dir(d, n)),
        6 => (d(), d(), n()).prop_map(|(f, d, n)| Op::Link(f, d, n)),
        6 => (d(), n(), d(), n(), any::<bool>()).prop_map(|(d, n, e, m, x)| Op::Rename(d, n, e, m, x)),
        2 => (d(), n()).prop_map(|(d, n)| Op::Remove(d, n)),
    ]
}

fn name(n: u8) -> Vec<u8> {
    if n == 4 { long_name("long", 255).into_bytes() } else { std::vec![b'a' + n] }
}

/// Does what is possible; what is not changes nothing.
fn run(fs: &Fs, op: &Op) {
    let tree = fs.tree();
    let of_kind = |want_dir: bool| -> Vec<u64> {
        tree.iter()
            .filter(|(_, n)| matches!(n.content, Content::Dir(_)) == want_dir)
            .map(|(i, _)| *i)
            .collect()
    };
    let dirs = of_kind(true);
    let dir = |pick: u8| dirs[usize::from(pick) % dirs.len()];
    match *op {
        Op::File(d, n) => {
            drop(fs.create(dir(d), &name(n), &crate::fs::testing::FILE).map(|a| fs.forget(a.ino, 1)))
        }
        Op::Dir(d, n) => {
            drop(fs.mkdir(dir(d), &name(n), &crate::fs::testing::DIR).map(|a| fs.forget(a.ino, 1)))
        }
        Op::Link(f, d, n) => {
            let files = of_kind(false);
            if let Some(ino) = files.get(usize::from(f) % files.len().max(1)) {
                drop(fs.link(*ino, dir(d), &name(n)).map(|a| fs.forget(a.ino, 1)));
            }
        }
        Op::Rename(d, n, e, m, exchange) => {
            let flags = if exchange { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
            drop(fs.rename(dir(d), &name(n), dir(e), &name(m), flags));
        }
        Op::Remove(d, n) => drop(fs.unlink(dir(d), &name(n)).or_else(|_| fs.rmdir(dir(d), &name(n)))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn entries_and_paths_are_those_of_the_tree_after_any_links_and_renames(
        ops in prop::collection::vec(any_op(), 1..80),
    ) {
        let mut fs = TestFs::new();
        for op in &ops {
            run(&fs, op);
        }
        let tree = fs.verify();
        compare(&fs, &tree);
        fs.remount();
        compare(&fs, &tree);
    }
}

#[test]
fn a_path_that_is_too_long_is_an_error_and_one_that_just_fits_is_found() {
    let fs = TestFs::new();
    let mut dir = ROOT_INO;
    let mut want = String::new();
    for _ in 0..40 {
        let name = long_name("d", 255);
        dir = fs.subdir(dir, &name);
        want += &(name + "/");
    }
    let file = fs.touch(dir, "file");
    want += "file";
    assert!(matches!(fs.ino_path(file, 0, 0, want.len() - 1), Err(Error::NameTooLong)));
    assert_eq!(*fs.ino_path(file, 0, 0, want.len()).unwrap().unwrap().path, *want.as_bytes());
    assert!(matches!(fs.ino_path(file, 0, 0, 0), Err(Error::NameTooLong)));
}

#[test]
fn an_unlinked_file_that_is_open_has_no_entries_and_no_paths() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    fs.open(ino, false).unwrap();
    fs.unlink(ROOT_INO, b"file").unwrap();
    assert_eq!((entries(&fs, ino).len(), paths(&fs, ino).len()), (0, 0));
    fs.release(ino, false);
}

#[test]
fn a_directory_without_a_way_to_the_root_is_an_error_and_not_a_path_less() {
    let fs = TestFs::new();
    let upper = fs.subdir(ROOT_INO, "upper");
    let lower = fs.subdir(upper, "lower");
    let file = fs.touch(lower, "file");
    let key = Key::backref(upper, ROOT_INO, 2);
    let value = BackrefItem { name_hash: name_hash(b"upper").into() };
    let change = |change: &dyn Fn(&Hold<'_>) -> Result<(), Error>| {
        let inos = [(upper, LockMode::Write), (file, LockMode::Write)];
        let locks = fs.store().lock(&inos).unwrap();
        change(&locks.hold(NAMES_NEED).unwrap()).unwrap();
    };
    change(&|hold| hold.delete(key));
    for ino in [file, lower] {
        assert!(matches!(fs.ino_path(ino, 0, 0, PATH_MAX), Err(Error::Corrupt { .. })));
    }
    // A back reference to an entry of another inode, and to none.
    for wrong in [Key::backref(file, upper, 2), Key::backref(file, upper, 99)] {
        change(&|hold| hold.create(wrong, &[value.as_bytes()]));
        assert!(matches!(fs.next_referring(file, upper, 0), Err(Error::Corrupt { .. })));
        change(&|hold| hold.delete(wrong));
    }
    change(&|hold| hold.create(key, &[value.as_bytes()]));
    assert_eq!(paths(&fs, file).len(), 1);
}

#[test]
fn a_file_below_a_directory_that_moves_always_has_one_of_its_two_paths() {
    let fs = TestFs::new();
    let (left, right) = (fs.subdir(ROOT_INO, "left"), fs.subdir(ROOT_INO, "right"));
    let moving = fs.subdir(left, "moving");
    let file = fs.touch(moving, "file");
    let stop = AtomicBool::new(false);
    let mut seen = BTreeSet::new();
    thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (from, to) in [(left, right), (right, left)] {
                    fs.rename(from, b"moving", to, b"moving", RenameFlags::empty()).unwrap();
                }
            }
        });
        for _ in 0..2000 {
            let found = fs.ino_path(file, 0, 0, PATH_MAX).map(|found| found.map(|f| f.path.to_vec()));
            match found {
                Ok(Some(path)) => drop(seen.insert(String::from_utf8(path).unwrap())),
                other => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{other:?}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    for path in seen {
        assert!(path == "left/moving/file" || path == "right/moving/file", "{path}");
    }
}
