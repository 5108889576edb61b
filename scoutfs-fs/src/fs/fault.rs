// SPDX-License-Identifier: GPL-2.0-only
//! Every allocation of every operation fails once: the operation fails and leaves everything as it was, or
//! succeeds. Where it cannot go back any more (blocks that are to be used or freed), the mount shuts down
//! instead, and the next one finds everything as it was.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use scoutfs_env::alloc_fault;
use scoutfs_format::ioctl::{ATTR_CRTIME, ATTR_PROJECT_ID, AttrX};
use scoutfs_format::item::ROOT_INO;

use super::testing::{DIR, FILE, Node, TestFs, bytes};
use crate::acl::tests::list;
use crate::data::AllocateMode;
use crate::dir::RenameFlags;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::SetAttr;
use crate::xattr::{SetXattr, SetXattrMode};

type Tree = BTreeMap<u64, Node>;

const SRCH: &[u8] = b"scoutfs.srch.a";
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const PRIVILEGED: SetXattr = SetXattr { mode: SetXattrMode::Any, privileged: true, kill_sgid: false };

/// Gets the cluster locks of all inodes: what is tested here is the operations.
fn warm_up(fs: &Fs) {
    for ino in fs.tree().keys() {
        fs.setattr(*ino, &SetAttr::default()).unwrap();
    }
    drop(fs.store().lock_rename(&[]).unwrap());
}

/// Runs `op` with its first allocation failing, then its second, and so on, until it succeeds.
fn fail_each(fs: &mut TestFs, what: &str, op: &dyn Fn(&Fs) -> Result<()>) {
    fs.sync().unwrap();
    let before: Tree = fs.tree();
    for n in 0.. {
        alloc_fault::fail_after(n);
        let result = op(fs);
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        match result {
            Ok(()) if fs.sync().is_ok() => {
                assert!(n > 0 || !tripped, "{what}: nothing failed");
                // It was done in spite of the failure, or there was none. An inode that should be gone, too, may have
                // been left for a scan.
                fs.scan_orphans().unwrap();
                fs.verify();
                return;
            }
            Err(Error::NoMemory) if fs.sync().is_ok() => assert!(tripped, "{what}: {n}"),
            Ok(()) | Err(Error::NoMemory | Error::Shutdown(_)) => {
                fs.crash();
                warm_up(fs);
            }
            Err(e) => panic!("{what}: {n}: {e}"),
        }
        // Too much to print.
        assert!(fs.tree() == before, "{what}: allocation {n}");
        fs.verify();
    }
}

#[test]
fn an_operation_that_runs_out_of_memory_changes_nothing() {
    let mut fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let file = fs.touch(ROOT_INO, "file");
    let other = fs.touch(dir, "other");
    fs.subdir(dir, "empty");
    fs.write(file, 0, &bytes(1, 20_000)).unwrap();
    fs.setxattr(file, b"user.x", &bytes(1, 9000), SetXattrMode::Any).unwrap();

    // Made before anything fails.
    let (full, minimal) = (list("u::7,u:1:7,g::7,m::7,o::7"), list("u::6,g::6,o::6"));
    let forget = |fs: &Fs, attr: crate::inode::Attr| fs.forget(attr.ino, 1);
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    type Op<'a> = (&'static str, Box<dyn Fn(&Fs) -> Result<()> + 'a>);
    let ops: Vec<Op<'_>> = std::vec![
        ("create", Box::new(|fs: &Fs| fs.create(dir, b"new", &FILE).map(|a| forget(fs, a)))),
        ("mkdir", Box::new(|fs: &Fs| fs.mkdir(dir, b"newdir", &DIR).map(|a| forget(fs, a)))),
        ("symlink", Box::new(|fs: &Fs| fs.symlink(dir, b"l", b"target", &FILE).map(|a| forget(fs, a)))),
        // Before anything shuts the mount down: a new mount makes directories under locks that it does not have yet.
        ("default acl", Box::new(|fs: &Fs| fs.setxattr(dir, DEFAULT, &full, PRIVILEGED))),
        ("inherit", Box::new(|fs: &Fs| fs.mkdir(dir, b"heir", &DIR).map(|a| forget(fs, a)))),
        ("link", Box::new(|fs: &Fs| fs.link(file, dir, b"link").map(|a| forget(fs, a)))),
        ("write", Box::new(|fs: &Fs| fs.write(file, 30_000, &bytes(2, 10_000)).map(|_| ()))),
        // What is overwritten in place is overwritten, so with the same.
        ("overwrite", Box::new(|fs: &Fs| fs.write(file, 0, &bytes(1, 10)).map(|_| ()))),
        ("append", Box::new(|fs: &Fs| fs.append(file, b"more").map(|_| ()))),
        ("allocate", Box::new(|fs: &Fs| fs.fallocate(file, AllocateMode::Allocate, false, 0, 90_000))),
        (
            "chmod",
            Box::new(|fs: &Fs| {
                fs.setattr(file, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).map(|_| ())
            })
        ),
        (
            "set attributes",
            Box::new(|fs: &Fs| {
                let mask = (ATTR_PROJECT_ID | ATTR_CRTIME).into();
                fs.set_attr_x(file, &AttrX { x_mask: mask, project_id: 1.into(), ..AttrX::default() })
            })
        ),
        ("path", Box::new(|fs: &Fs| fs.ino_path(other, 0, 0, 4096).map(|path| assert!(path.is_some())))),
        (
            "extents",
            Box::new(|fs: &Fs| fs.fiemap(file, 0, u64::MAX, 99).map(|found| assert!(!found.is_empty())))
        ),
        ("truncate", Box::new(|fs: &Fs| fs.setattr(file, &size(10_000)).map(|_| ()))),
        ("grow", Box::new(|fs: &Fs| fs.setattr(file, &size(15_000)).map(|_| ()))),
        ("setxattr", Box::new(|fs: &Fs| fs.setxattr(dir, b"user.y", b"v", SetXattrMode::Any))),
        (
            "grow xattr",
            Box::new(|fs: &Fs| { fs.setxattr(file, b"user.x", &bytes(2, 30_000), SetXattrMode::Any) })
        ),
        (
            "shrink xattr",
            Box::new(|fs: &Fs| { fs.setxattr(file, b"user.x", &bytes(3, 100), SetXattrMode::Any) })
        ),
        ("set srch", Box::new(|fs: &Fs| fs.setxattr(file, SRCH, &bytes(4, 100), PRIVILEGED))),
        ("grow srch", Box::new(|fs: &Fs| fs.setxattr(file, SRCH, &bytes(5, 9000), PRIVILEGED))),
        ("remove srch", Box::new(|fs: &Fs| fs.removexattr(file, SRCH, true))),
        ("set srch again", Box::new(|fs: &Fs| fs.setxattr(file, SRCH, &bytes(6, 9000), PRIVILEGED))),
        ("set acl", Box::new(|fs: &Fs| fs.setxattr(file, ACCESS, &full, PRIVILEGED))),
        (
            "chmod with acl",
            Box::new(|fs: &Fs| {
                fs.setattr(file, &SetAttr { mode: Some(0o640), ..SetAttr::default() }).map(|_| ())
            })
        ),
        ("minimal acl", Box::new(|fs: &Fs| fs.setxattr(file, ACCESS, &minimal, PRIVILEGED))),
        ("removexattr", Box::new(|fs: &Fs| fs.removexattr(file, b"user.x", false))),
        ("rename", Box::new(|fs: &Fs| { fs.rename(ROOT_INO, b"file", dir, b"moved", RenameFlags::empty()) })),
        (
            "exchange",
            Box::new(|fs: &Fs| {
                fs.rename(dir, b"moved", ROOT_INO, b"dir", RenameFlags::EXCHANGE).or_else(|e| match e {
                    Error::Invalid(_) => Ok(()),
                    e => Err(e),
                })
            })
        ),
        ("swap", Box::new(|fs: &Fs| fs.rename(dir, b"moved", dir, b"newdir", RenameFlags::EXCHANGE))),
        ("replace", Box::new(|fs: &Fs| fs.rename(dir, b"new", dir, b"other", RenameFlags::empty()))),
        ("rmdir", Box::new(|fs: &Fs| fs.rmdir(dir, b"empty"))),
        // That is the file with an attribute in the index by now.
        ("unlink", Box::new(|fs: &Fs| fs.unlink(dir, b"newdir"))),
    ];
    warm_up(&fs);
    for (what, op) in &ops {
        fail_each(&mut fs, what, op);
    }
    assert!(fs.getattr(other).is_err());
}
