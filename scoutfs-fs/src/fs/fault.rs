// SPDX-License-Identifier: GPL-2.0-only
//! Every allocation of every operation fails once: the operation fails and leaves everything as it was, or
//! succeeds, and the mount goes on working. The same of what makes things durable: what a failed commit was to
//! write is written by the next one, and a crash before that loses no more than any other crash.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::vec::Vec;

use scoutfs_btree::space::SpaceKind;
use scoutfs_env::alloc_fault;
use scoutfs_format::Key;
use scoutfs_format::ioctl::{ATTR_CRTIME, ATTR_PROJECT_ID, AttrX};
use scoutfs_format::item::ROOT_INO;

use super::testing::{DIR, FILE, Node, TestFs, bytes};
use crate::acl::tests::list;
use crate::data::AllocateMode;
use crate::dir::RenameFlags;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::SetAttr;
use crate::store::Wish;
use crate::xattr::{SetXattr, SetXattrMode};

/// So many crashes leave more to be taken back than the smallest volume has room for at once.
const ROOMY: u64 = 512 << 20;

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

/// Runs `op` with its first allocation failing, then its second, and so on, until none fails any more.
fn fail_each(fs: &mut TestFs, what: &str, op: &dyn Fn(&Fs) -> Result<()>) {
    fs.sync().unwrap();
    let before: Tree = fs.tree();
    for n in 0.. {
        alloc_fault::fail_after(n);
        let result = op(fs);
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        match result {
            Ok(()) if !tripped => {
                assert!(n > 0, "{what}: nothing failed");
                break;
            }
            Ok(()) => {
                // It was done in spite of the failure. Once more from the start, for what comes after it.
                fs.store().trans.check().unwrap();
                fs.tree();
                fs.crash();
                warm_up(fs);
            }
            Err(Error::NoMemory) => assert!(tripped, "{what}: {n}"),
            Err(e) => panic!("{what}: {n}: {e}"),
        }
        // Too much to print.
        assert!(fs.tree() == before, "{what}: allocation {n}");
        if n % 4 == 0 {
            fs.verify();
        }
    }
    // An inode that should be gone, too, may have been left for a scan.
    fs.scan_orphans().unwrap();
    fs.verify();
    let after = fs.tree();
    fs.crash();
    warm_up(fs);
    assert!(fs.tree() == after, "{what}: what was synced is gone");
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
        ("punch", Box::new(|fs: &Fs| fs.fallocate(file, AllocateMode::PunchHole, true, 4096, 4096))),
        ("tmpfile", Box::new(|fs: &Fs| fs.tmpfile(dir, &FILE, true).map(|a| forget(fs, a)))),
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

/// Operations that only read, of a mount that knows nothing yet.
#[test]
fn reading_that_runs_out_of_memory_can_be_repeated() {
    let fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let file = fs.touch(dir, "file");
    fs.write(file, 0, &bytes(1, 20_000)).unwrap();
    fs.setxattr(file, b"user.x", &bytes(1, 9000), SetXattrMode::Any).unwrap();
    fs.sync().unwrap();
    warm_up(&fs);
    fs.sync().unwrap();
    type Op<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);
    let ops: Vec<Op<'_>> = std::vec![
        ("lookup", Box::new(|| fs.lookup(dir, b"file").map(|a| fs.forget(a.ino, 1)))),
        ("getattr", Box::new(|| fs.getattr(file).map(|_| ()))),
        ("readdir", Box::new(|| fs.readdir(dir, 0, &mut |_| true))),
        ("read", Box::new(|| fs.read(file, 100, &mut [0; 15_000]).map(|_| ()))),
        ("seek", Box::new(|| fs.seek_hole(file, 0).map(|_| ()))),
        ("getxattr", Box::new(|| fs.getxattr(file, b"user.x", &mut [0; 9000]).map(|_| ()))),
        ("listxattr", Box::new(|| fs.listxattr(file, &mut [0; 100]).map(|_| ()))),
        ("open", Box::new(|| fs.open(file, false).map(|()| fs.release(file, false)))),
        ("statfs", Box::new(|| fs.statfs().map(|_| ()))),
        ("fsync", Box::new(|| fs.fsync(file))),
    ];
    for (what, op) in &ops {
        for n in 0.. {
            fs.store().items.invalidate(Key::MIN, Key::MAX).unwrap();
            alloc_fault::fail_after(n);
            let result = op();
            let tripped = alloc_fault::tripped();
            alloc_fault::clear();
            match result {
                Ok(()) if !tripped => break,
                Ok(()) => {}
                Err(Error::NoMemory) => assert!(tripped, "{what}: {n}"),
                Err(e) => panic!("{what}: {n}: {e}"),
            }
            op().unwrap_or_else(|e| panic!("{what} after allocation {n}: {e}"));
        }
    }
    fs.verify();
}

/// What makes things durable, with each allocation failing once. Before each try `prepare` makes changes.
///
/// After a failure the mount either crashes before it could try again, and has all of the changes or none, or goes on:
/// more is changed and synced, and is there after a crash.
fn commit_fails_each(
    fs: &mut TestFs,
    what: &str,
    prepare: &dyn Fn(&Fs, u64),
    commit: &dyn Fn(&Fs) -> Result<()>,
) {
    let mut failed = 0;
    // Tries in a row in which nothing was left to fail. One says little: the worker may have committed first.
    let mut unharmed = 0;
    for (n, crash) in (0..).flat_map(|n| [(n, false), (n, true)]) {
        fs.sync().unwrap();
        let before = fs.tree();
        prepare(fs, 2 * n + u64::from(crash));
        let changed = fs.tree();
        alloc_fault::fail_after(n);
        let result = commit(fs);
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        match result {
            Ok(()) if !tripped && unharmed == 5 => break,
            Ok(()) if !tripped => {
                unharmed += 1;
                continue;
            }
            Ok(()) => unharmed = 0,
            Err(Error::NoMemory) => {
                assert!(tripped, "{what}: {n}");
                (failed, unharmed) = (failed + 1, 0);
            }
            Err(ref e) => panic!("{what}: {n}: {e}"),
        }
        fs.store().trans.check().unwrap_or_else(|e| panic!("{what}: allocation {n}: {e}"));
        assert!(fs.tree() == changed, "{what}: allocation {n}: changes are not seen");
        if crash {
            fs.crash();
            let found = fs.tree();
            assert!(found == changed || (result.is_err() && found == before), "{what}: allocation {n}");
            warm_up(fs);
            continue;
        }
        fs.touch(ROOT_INO, &format!("{what} {n}"));
        fs.sync().unwrap_or_else(|e| panic!("{what}: sync after allocation {n}: {e}"));
        if n % 3 == 0 {
            let changed = fs.tree();
            fs.crash();
            assert!(fs.tree() == changed, "{what}: allocation {n}: what was synced is gone");
            warm_up(fs);
        }
    }
    fs.verify();
    assert!(failed > 0, "{what}: nothing failed");
}

#[test]
fn a_commit_that_runs_out_of_memory_is_finished_later() {
    let mut fs = TestFs::with_bytes(ROOMY);
    let file = fs.touch(ROOT_INO, "file");
    warm_up(&fs);
    let small = |fs: &Fs, n: u64| {
        let mode = Some(0o600 + n as u32 % 8);
        fs.setattr(file, &SetAttr { mode, ..SetAttr::default() }).unwrap();
        fs.write(file, n * 8192, &bytes(n, 5000)).unwrap();
    };
    let large = |fs: &Fs, n: u64| {
        for i in 0..4 {
            let name = format!("user.{i}");
            fs.setxattr(file, name.as_bytes(), &bytes(n, 40_000), SetXattrMode::Any).unwrap();
        }
    };
    commit_fails_each(&mut fs, "fsync", &small, &|fs| fs.fsync(file));
    commit_fails_each(&mut fs, "checkpoint", &large, &|fs| fs.sync());
    let finalize = Wish { finalize: true, ..Wish::default() };
    commit_fails_each(&mut fs, "finalize", &small, &|fs| fs.store().commit(finalize).map(|_| ()));
    commit_fails_each(&mut fs, "merged", &small, &|fs| fs.store().logs_merged());
}

#[test]
fn space_that_comes_and_goes_without_memory_is_not_lost() {
    let mut fs = TestFs::with_bytes(ROOMY);
    let file = fs.touch(ROOT_INO, "file");
    warm_up(&fs);
    let small = |fs: &Fs, n: u64| {
        fs.write(file, n * 8192, &bytes(n, 5000)).unwrap();
    };
    commit_fails_each(&mut fs, "request", &small, &|fs| {
        fs.store().request_space(SpaceKind::Data, 1)?;
        fs.sync()
    });
    commit_fails_each(&mut fs, "give", &small, &|fs| {
        fs.store().give_back(SpaceKind::Data, 256)?;
        fs.sync()
    });
    commit_fails_each(&mut fs, "tell", &small, &|fs| {
        fs.sync()?;
        fs.store().tell_server()
    });
    commit_fails_each(&mut fs, "refill", &small, &|fs| {
        fs.sync()?;
        fs.store().prefetch_seq()?;
        fs.store().refill()
    });
}

/// Locks are asked for and given out whatever fails: nobody waits for ever.
#[test]
fn a_lock_that_there_was_no_memory_for_is_asked_for_again() {
    let fs = TestFs::new();
    for n in 0..60 {
        // An inode that is not there, in a group of inodes whose lock nobody has asked for.
        let far = (n + 1) << 32;
        alloc_fault::fail_after(n % 30);
        let result = fs.getattr(far);
        alloc_fault::clear();
        match result {
            Err(Error::NotFound | Error::NoMemory | Error::StaleHandle) => {}
            other => panic!("{n}: {other:?}"),
        }
        match fs.getattr(far) {
            Err(Error::NotFound | Error::StaleHandle) => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    fs.verify();
}

#[test]
fn unmounting_waits_for_memory() {
    let mut fs = TestFs::new();
    let file = fs.touch(ROOT_INO, "file");
    for n in 0.. {
        fs.write(file, n * 8192, &bytes(n, 5000)).unwrap();
        let changed = fs.tree();
        alloc_fault::fail_after(n);
        let mut tripped = false;
        fs.remount_then(&mut || {
            tripped = alloc_fault::tripped();
            alloc_fault::clear();
        });
        assert!(fs.tree() == changed, "allocation {n}");
        if !tripped {
            break;
        }
    }
}
