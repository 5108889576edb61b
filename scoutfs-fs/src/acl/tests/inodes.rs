// SPDX-License-Identifier: GPL-2.0-only
//! Lists of inodes: setting them, following the mode, handing them down.

use std::format;
use std::string::String;
use std::vec::Vec;

use scoutfs_format::item::ROOT_INO;

use super::super::{Acl, AclKind, Caller};
use super::{acl, list, text};
use crate::dir::NewInode;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::testing::{DIR, FILE, TestFs};
use crate::inode::SetAttr;
use crate::xattr::{SetXattr, SetXattrMode};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

fn set(fs: &Fs, ino: u64, name: &[u8], text: &str) -> Result<()> {
    fs.setxattr(ino, name, &list(text), SetXattrMode::Any)
}

/// An inode's list in short notation.
fn get(fs: &Fs, ino: u64, name: &[u8]) -> Option<String> {
    match fs.xattr(ino, name) {
        Ok(bytes) => Some(text(&Acl::parse(&bytes).unwrap().unwrap())),
        Err(Error::NoAttribute) => None,
        Err(e) => panic!("{e}"),
    }
}

fn mode(fs: &Fs, ino: u64) -> u32 {
    fs.getattr(ino).unwrap().mode & 0o7777
}

fn chmod(fs: &Fs, ino: u64, mode: u32) {
    fs.setattr(ino, &SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
}

#[test]
fn an_access_list_sets_the_mode_and_a_minimal_one_is_only_the_mode() {
    let mut fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    chmod(&fs, ino, 0o4711);
    let full = "u::6,u:5:7,g::4,g:9:2,m::5,o::1";
    set(&fs, ino, ACCESS, full).unwrap();
    assert_eq!(mode(&fs, ino), 0o4651);
    fs.remount();
    assert_eq!(get(&fs, ino, ACCESS).as_deref(), Some(full));
    assert_eq!(fs.xattr_names(ino), [ACCESS]);
    // A mask is something that a mode cannot say, even when nothing is behind it.
    set(&fs, ino, ACCESS, "u::6,g::7,m::4,o::0").unwrap();
    assert_eq!(mode(&fs, ino), 0o4640);
    assert!(get(&fs, ino, ACCESS).is_some());
    set(&fs, ino, ACCESS, "u::7,g::5,o::1").unwrap();
    assert_eq!((mode(&fs, ino), get(&fs, ino, ACCESS)), (0o4751, None));
    assert_eq!(fs.xattr_names(ino), Vec::<Vec<u8>>::new());
    // And where there was none.
    set(&fs, ino, ACCESS, "u::6,g::6,o::6").unwrap();
    assert_eq!((mode(&fs, ino), get(&fs, ino, ACCESS)), (0o4666, None));
}

#[test]
fn removing_an_access_list_leaves_the_mode() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let full = "u::6,u:5:7,g::4,m::7,o::0";
    set(&fs, ino, ACCESS, full).unwrap();
    fs.removexattr(ino, ACCESS, false).unwrap();
    assert_eq!((mode(&fs, ino), get(&fs, ino, ACCESS)), (0o670, None));
    // As on other filesystems.
    fs.removexattr(ino, ACCESS, false).unwrap();
    // A list without entries removes, too, and need not find one.
    set(&fs, ino, ACCESS, full).unwrap();
    for empty in [&[2, 0, 0, 0][..], &[]] {
        fs.setxattr(ino, ACCESS, empty, SetXattrMode::Any).unwrap();
        assert_eq!((mode(&fs, ino), get(&fs, ino, ACCESS)), (0o670, None));
    }
}

#[test]
fn an_access_list_of_who_is_not_of_the_group_takes_set_group_id() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let how = SetXattr { kill_sgid: true, ..SetXattrMode::Any.into() };
    for (text, kept) in [("u::7,u:5:7,g::5,m::7,o::0", true), ("u::7,g::7,o::0", false)] {
        chmod(&fs, ino, 0o6755);
        fs.setxattr(ino, ACCESS, &list(text), SetXattrMode::Any).unwrap();
        assert_eq!(mode(&fs, ino), 0o6770);
        fs.setxattr(ino, ACCESS, &list(text), how).unwrap();
        assert_eq!((mode(&fs, ino), get(&fs, ino, ACCESS).is_some()), (0o4770, kept));
    }
    // Other lists and attributes have nothing to do with it.
    let dir = fs.subdir(ROOT_INO, "dir");
    chmod(&fs, dir, 0o2755);
    fs.setxattr(dir, DEFAULT, &list("u::7,g::7,o::0"), how).unwrap();
    fs.setxattr(dir, b"user.a", b"", how).unwrap();
    assert_eq!(mode(&fs, dir), 0o2755);
}

#[test]
fn only_directories_have_default_lists_and_links_have_none() {
    let fs = TestFs::new();
    let file = fs.touch(ROOT_INO, "file");
    let fifo = fs.create(ROOT_INO, b"fifo", &NewInode { mode: 0o010644, ..FILE }).unwrap().ino;
    let link = fs.symlink(ROOT_INO, b"link", b"file", &FILE).unwrap().ino;
    let dir = fs.subdir(ROOT_INO, "dir");
    let minimal = "u::7,g::5,o::0";
    for ino in [file, fifo] {
        assert!(matches!(set(&fs, ino, DEFAULT, minimal), Err(Error::AccessDenied)));
        fs.setxattr(ino, DEFAULT, &[], SetXattrMode::Any).unwrap();
    }
    for name in [ACCESS, DEFAULT] {
        assert!(matches!(set(&fs, link, name, minimal), Err(Error::NotSupported)));
    }
    set(&fs, fifo, ACCESS, "u::7,u:1:2,g::5,m::5,o::0").unwrap();
    // A default list may say no more than a mode, and leaves the directory's own mode alone.
    set(&fs, dir, DEFAULT, minimal).unwrap();
    assert_eq!((get(&fs, dir, DEFAULT).as_deref(), mode(&fs, dir)), (Some(minimal), 0o755));
    fs.removexattr(dir, DEFAULT, false).unwrap();
    assert_eq!(get(&fs, dir, DEFAULT), None);
    for ino in [fifo, link] {
        fs.forget(ino, 1);
    }
}

#[test]
fn what_is_no_list_is_refused_and_changes_nothing() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let full = "u::6,u:5:7,g::4,m::5,o::1";
    set(&fs, ino, ACCESS, full).unwrap();
    let before = fs.getattr(ino).unwrap();
    let mut other_version = list(full);
    other_version[0] = 3;
    for (bytes, errno) in [
        (other_version, 95),
        (list(full)[..30].to_vec(), 22),
        (std::vec![1, 2, 3], 22),
        ([list(full), list(full)[4..].to_vec()].concat(), 22),
        (std::vec![0; 65_535], 95),
        (std::vec![0; 65_536], 7),
    ] {
        let refused = fs.setxattr(ino, ACCESS, &bytes, SetXattrMode::Any).unwrap_err();
        assert_eq!(refused.errno(), errno, "{refused}");
    }
    assert_eq!(fs.getattr(ino).unwrap(), before);
    assert_eq!(get(&fs, ino, ACCESS).as_deref(), Some(full));
}

#[test]
fn a_list_follows_the_mode() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    set(&fs, ino, ACCESS, "u::6,u:5:7,g::4,m::5,o::1").unwrap();
    chmod(&fs, ino, 0o1732);
    assert_eq!(get(&fs, ino, ACCESS).as_deref(), Some("u::7,u:5:7,g::4,m::3,o::2"));
    assert_eq!(mode(&fs, ino), 0o1732);
    // With a new size, as kernels do when a write takes set-user-ID, and as they may.
    fs.write(ino, 0, b"content").unwrap();
    let both = SetAttr { mode: Some(0o640), size: Some(3), uid: Some(7), ..SetAttr::default() };
    let attr = fs.setattr(ino, &both).unwrap();
    assert_eq!((attr.mode & 0o7777, attr.size, attr.uid), (0o640, 3, 7));
    assert_eq!(get(&fs, ino, ACCESS).as_deref(), Some("u::6,u:5:7,g::4,m::4,o::0"));
    assert_eq!(fs.read_all(ino), b"con");
    // A directory's default list is for others.
    let dir = fs.subdir(ROOT_INO, "dir");
    set(&fs, dir, DEFAULT, "u::6,u:5:7,g::4,m::5,o::1").unwrap();
    chmod(&fs, dir, 0o700);
    assert_eq!(get(&fs, dir, DEFAULT).as_deref(), Some("u::6,u:5:7,g::4,m::5,o::1"));
}

/// Everything that can be made in a directory, by name and mode; gives the inode, which has a reference.
fn make_all(fs: &Fs, dir: u64, umask: u32) -> Vec<(&'static str, u64)> {
    let new = |mode: u32| NewInode { mode, umask, ..FILE };
    std::vec![
        ("file", fs.create(dir, b"file", &new(0o104666)).unwrap().ino),
        ("fifo", fs.create(dir, b"fifo", &new(0o010666)).unwrap().ino),
        ("dir", fs.mkdir(dir, b"dir", &new(0o1777)).unwrap().ino),
        ("link", fs.symlink(dir, b"link", b"target", &new(0o777)).unwrap().ino),
        ("tmpfile", fs.tmpfile(dir, &new(0o100640), true).unwrap().ino),
    ]
}

/// Invariant 53: inheritance is right for each way to make something.
#[test]
fn what_is_made_in_a_directory_inherits_its_default_list_instead_of_the_umask() {
    let mut fs = TestFs::new();
    let plain = fs.subdir(ROOT_INO, "plain");
    let modes = |made: &[(&'static str, u64)], fs: &Fs| -> Vec<(&'static str, u32)> {
        made.iter().map(|(name, ino)| (*name, mode(fs, *ino))).collect()
    };
    let made = make_all(&fs, plain, 0o027);
    assert_eq!(
        modes(&made, &fs),
        [("file", 0o4640), ("fifo", 0o640), ("dir", 0o1750), ("link", 0o777), ("tmpfile", 0o640)]
    );
    for (_, ino) in &made {
        assert_eq!(fs.xattr_names(*ino), Vec::<Vec<u8>>::new());
        fs.forget(*ino, 1);
    }

    let default = "u::7,u:5:6,g::5,g:9:7,m::6,o::4";
    let dir = fs.subdir(ROOT_INO, "dir");
    set(&fs, dir, DEFAULT, default).unwrap();
    let made = make_all(&fs, dir, 0o777);
    assert_eq!(
        modes(&made, &fs),
        [("file", 0o4664), ("fifo", 0o664), ("dir", 0o1764), ("link", 0o777), ("tmpfile", 0o640)]
    );
    // The temporary file gets a name, and keeps its list.
    let tmpfile = made[4].1;
    fs.link(tmpfile, dir, b"tmpfile").unwrap();
    fs.forget(tmpfile, 2);
    for (_, ino) in &made[..4] {
        fs.forget(*ino, 1);
    }
    fs.remount();
    let lists = |name: &str| {
        let ino = fs.ino(&format!("dir/{name}"));
        (get(&fs, ino, ACCESS), get(&fs, ino, DEFAULT))
    };
    let some = |text: &str| Some(String::from(text));
    assert_eq!(lists("file"), (some("u::6,u:5:6,g::5,g:9:7,m::6,o::4"), None));
    assert_eq!(lists("fifo"), (some("u::6,u:5:6,g::5,g:9:7,m::6,o::4"), None));
    assert_eq!(lists("dir"), (some("u::7,u:5:6,g::5,g:9:7,m::6,o::4"), some(default)));
    assert_eq!(lists("link"), (None, None));
    assert_eq!(lists("tmpfile"), (some("u::6,u:5:6,g::5,g:9:7,m::4,o::0"), None));
}

#[test]
fn a_minimal_default_list_is_handed_down_as_a_mode() {
    let fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    set(&fs, dir, DEFAULT, "u::7,g::5,o::0").unwrap();
    let file = fs.create(dir, b"file", &NewInode { mode: 0o100666, umask: 0o777, ..FILE }).unwrap();
    assert_eq!((file.mode, get(&fs, file.ino, ACCESS)), (0o100640, None));
    let sub = fs.mkdir(dir, b"sub", &NewInode { umask: 0o777, ..DIR }).unwrap();
    assert_eq!((sub.mode & 0o7777, get(&fs, sub.ino, ACCESS)), (0o750, None));
    assert_eq!(get(&fs, sub.ino, DEFAULT).as_deref(), Some("u::7,g::5,o::0"));
    fs.forget(file.ino, 1);
    fs.forget(sub.ino, 1);
}

/// The longest lists fill several parts of their attributes.
#[test]
fn the_longest_lists_are_set_followed_and_handed_down() {
    let mut fs = TestFs::new();
    let users: Vec<String> = (0..507).map(|id| format!("u:{id}:7")).collect();
    let longest = format!("u::7,{},g::7,m::7,o::7", users.join(","));
    let dir = fs.subdir(ROOT_INO, "dir");
    for name in [ACCESS, DEFAULT] {
        set(&fs, dir, name, &longest).unwrap();
    }
    let sub = fs.mkdir(dir, b"sub", &NewInode { mode: 0o777, ..DIR }).unwrap().ino;
    fs.forget(sub, 1);
    chmod(&fs, sub, 0o750);
    fs.remount();
    assert_eq!(get(&fs, sub, DEFAULT), Some(longest.clone()));
    assert_eq!(get(&fs, sub, ACCESS), Some(longest.replace("m::7,o::7", "m::5,o::0")));
    set(&fs, sub, ACCESS, "u::7,u:1:7,g::7,m::7,o::7").unwrap();
    assert_eq!(get(&fs, sub, ACCESS).as_deref(), Some("u::7,u:1:7,g::7,m::7,o::7"));
}

/// Invariant 53: a list that another mount has not switched on is still true to the mode there.
#[test]
fn with_lists_off_they_are_not_offered_but_follow_the_mode() {
    let mut fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let default = "u::7,u:5:6,g::5,m::7,o::4";
    set(&fs, dir, ACCESS, "u::7,u:5:6,g::5,m::7,o::5").unwrap();
    set(&fs, dir, DEFAULT, default).unwrap();
    fs.acls = false;
    fs.remount();
    for name in [ACCESS, DEFAULT] {
        assert!(matches!(fs.xattr(dir, name), Err(Error::NotSupported)));
        assert!(matches!(set(&fs, dir, name, default), Err(Error::NotSupported)));
        assert!(matches!(fs.removexattr(dir, name, false), Err(Error::NotSupported)));
    }
    assert_eq!(fs.xattr_names(dir), Vec::<Vec<u8>>::new());
    let made = fs.create(dir, b"file", &NewInode { mode: 0o100666, umask: 0o022, ..FILE }).unwrap();
    assert_eq!(made.mode, 0o100644);
    fs.forget(made.ino, 1);
    chmod(&fs, dir, 0o710);
    fs.acls = true;
    fs.remount();
    assert_eq!(get(&fs, dir, ACCESS).as_deref(), Some("u::7,u:5:6,g::5,m::1,o::0"));
    assert_eq!(get(&fs, dir, DEFAULT).as_deref(), Some(default));
    assert_eq!(get(&fs, made.ino, ACCESS), None);
}

#[test]
fn who_may_read_an_inode_is_what_its_list_or_mode_says() {
    let mut fs = TestFs::new();
    let file = fs.touch(ROOT_INO, "file");
    fn caller(uid: u32, groups: &[u32]) -> Caller<'_> {
        Caller { uid, groups, reads_all: false }
    }
    let readable = |fs: &Fs, uid: u32, groups: &[u32]| match fs.check_readable(file, &caller(uid, groups)) {
        Ok(()) => true,
        Err(Error::AccessDenied) => false,
        Err(e) => panic!("{e}"),
    };
    for (mode, who) in
        [(0o400, [true, false, false]), (0o040, [false, true, false]), (0o004, [false, false, true])]
    {
        chmod(&fs, file, mode);
        let asked = [readable(&fs, 1000, &[1000]), readable(&fs, 5, &[7, 1000]), readable(&fs, 5, &[7])];
        assert_eq!(asked, who, "{mode:o}");
    }
    set(&fs, file, ACCESS, "u::2,u:5:4,g::0,g:9:6,m::4,o::0").unwrap();
    assert!(!readable(&fs, 1000, &[9]));
    assert!(readable(&fs, 5, &[]) && readable(&fs, 6, &[9]));
    assert!(!readable(&fs, 6, &[1000]) && !readable(&fs, 6, &[]));
    chmod(&fs, file, 0o200);
    assert!(!readable(&fs, 5, &[]));
    fs.check_readable(file, &Caller { reads_all: true, ..caller(6, &[]) }).unwrap();
    // Off, only the mode counts.
    chmod(&fs, file, 0o040);
    fs.acls = false;
    fs.remount();
    assert!(!readable(&fs, 5, &[]) && readable(&fs, 5, &[1000]));
}

#[test]
fn names_of_the_attributes_are_those_of_linux() {
    assert_eq!((AclKind::Access.xattr_name(), AclKind::Default.xattr_name()), (ACCESS, DEFAULT));
    assert!(acl("u::0,g::0,o::0").is_minimal() && !acl("u::0,g::0,m::0,o::0").is_minimal());
}
