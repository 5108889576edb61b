// SPDX-License-Identifier: GPL-2.0-only
//! Names, links, attributes and permissions, as POSIX and Linux promise them to programs.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags, accessat,
    getxattr, listxattr, mkdirat, mknodat, removexattr, renameat_with, setxattr, statx, utimensat,
};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::pattern::content;
use crate::run::{SOON, open_at, wait_until};
use crate::user::ask_as;
use crate::volume::{Mounted, Volume, by_kernel};

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn hard_links_share_one_inode_until_the_last_is_gone() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let (a, b) = (mounted.join("a"), mounted.join("dir/b"));
    fs::create_dir(mounted.join("dir")).unwrap();
    fs::write(&a, "content").unwrap();
    fs::hard_link(&a, &b).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().ino(), fs::metadata(&b).unwrap().ino());
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
    assert!(fs::hard_link(mounted.join("dir"), mounted.join("dir2")).is_err(), "no links to directories");
    assert_eq!(fs::hard_link(&a, &b).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    fs::remove_file(&a).unwrap();
    mounted.unmount();

    let mounted = volume.mount();
    assert!(!a.exists());
    assert_eq!(fs::read(&b).unwrap(), b"content");
    assert_eq!(fs::metadata(&b).unwrap().nlink(), 1);
    mounted.unmount();
}

#[test]
fn symlinks_and_special_files_are_what_they_were_made() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let long = "x/".repeat(2000);
    symlink("target", mounted.join("short")).unwrap();
    symlink(&long, mounted.join("long")).unwrap();
    fs::write(mounted.join("target"), "through").unwrap();
    let make = |name: &str, kind, major, minor| {
        let device = rustix::fs::makedev(major, minor);
        mknodat(CWD, mounted.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    make("fifo", FileType::Fifo, 0, 0);
    make("socket", FileType::Socket, 0, 0);
    make("null", FileType::CharacterDevice, 1, 3);
    make("block", FileType::BlockDevice, 259, 70_000);
    let look = || {
        assert_eq!(fs::read_link(mounted.join("short")).unwrap(), Path::new("target"));
        assert_eq!(fs::read_link(mounted.join("long")).unwrap(), Path::new(&long));
        assert_eq!(fs::symlink_metadata(mounted.join("long")).unwrap().len(), 4000);
        assert_eq!(fs::read(mounted.join("short")).unwrap(), b"through");
        let metadata = |name: &str| fs::symlink_metadata(mounted.join(name)).unwrap();
        assert!(metadata("fifo").file_type().is_fifo());
        assert!(metadata("socket").file_type().is_socket());
        assert!(metadata("null").file_type().is_char_device());
        assert_eq!(metadata("null").rdev(), rustix::fs::makedev(1, 3));
        assert!(metadata("block").file_type().is_block_device());
        assert_eq!(metadata("block").rdev(), rustix::fs::makedev(259, 70_000));
    };
    look();
    // A fifo carries data between two threads of ours.
    thread::scope(|scope| {
        scope.spawn(|| fs::write(mounted.join("fifo"), "piped").unwrap());
        assert_eq!(fs::read(mounted.join("fifo")).unwrap(), b"piped");
    });
    mounted.unmount();
    let mounted = volume.mount();
    let metadata = fs::symlink_metadata(mounted.join("block")).unwrap();
    assert_eq!(metadata.rdev(), rustix::fs::makedev(259, 70_000));
    assert_eq!(fs::read_link(mounted.join("long")).unwrap(), Path::new(&long));
    mounted.unmount();
}

#[test]
fn rename_replaces_exchanges_and_refuses_as_asked() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let at = |name: &str| mounted.join(name);
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    for (name, text) in [("a", "a"), ("b", "b")] {
        fs::write(at(name), text).unwrap();
    }
    for dir in ["d1", "d2", "d1/inner", "full"] {
        fs::create_dir(at(dir)).unwrap();
    }
    fs::write(at("full/file"), "").unwrap();
    // Over a file, and over an empty directory.
    fs::rename(at("a"), at("b")).unwrap();
    assert_eq!(fs::read(at("b")).unwrap(), b"a");
    fs::rename(at("d1"), at("d2")).unwrap();
    assert_eq!(names(&at("d2")), ["inner".to_owned()].into());
    assert_eq!(errno(fs::rename(at("d2"), at("full"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(at("b"), at("full"))), libc::EISDIR);
    assert_eq!(errno(fs::rename(at("full"), at("b"))), libc::ENOTDIR);
    assert_eq!(errno(fs::rename(at("d2"), at("d2/inner/below"))), libc::EINVAL);
    assert_eq!(errno(fs::rename(at("none"), at("b"))), libc::ENOENT);
    // Between directories: `..` and the link counts follow.
    fs::rename(at("d2/inner"), at("full/inner")).unwrap();
    assert_eq!(fs::metadata(at("d2")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(at("full")).unwrap().nlink(), 3);
    assert_eq!(fs::metadata(at("full/inner/..")).unwrap().ino(), fs::metadata(at("full")).unwrap().ino());
    // Linux's own.
    fs::write(at("c"), "c").unwrap();
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, at(from), CWD, at(to), flags);
    assert_eq!(rename("c", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("c", "full", RenameFlags::EXCHANGE).unwrap();
    assert!(at("c").is_dir() && fs::read(at("full")).unwrap() == b"c");
    mounted.unmount();

    let mounted = volume.mount();
    assert_eq!(names(mounted.path()), ["b", "c", "d2", "full"].map(String::from).into());
    assert_eq!(names(&mounted.join("c")), ["file", "inner"].map(String::from).into());
    mounted.unmount();
}

fn xattr(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65_536];
    let len = getxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

#[test]
fn extended_attributes_of_all_kinds_and_sizes_are_kept() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = mounted.join("file");
    File::create(&file).unwrap();
    let values = [
        ("user.empty", 0),
        ("user.small", 5),
        ("trusted.middle", 3000),
        ("security.other", 4097),
        ("user.largest", 65_535),
    ];
    for (seed, (name, len)) in values.iter().enumerate() {
        setxattr(&file, *name, &content(seed as u64, *len), XattrFlags::empty()).unwrap();
    }
    assert_eq!(setxattr(&file, "user.none", &[0; 65_536], XattrFlags::empty()), Err(Errno::TOOBIG));
    assert_eq!(setxattr(&file, "user.small", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&file, "user.none", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
    // Shorter and longer in place of what was there.
    setxattr(&file, "trusted.middle", b"short", XattrFlags::REPLACE).unwrap();
    setxattr(&file, "user.small", &content(9, 60_000), XattrFlags::REPLACE).unwrap();
    setxattr(&file, "user.gone", b"gone", XattrFlags::empty()).unwrap();
    removexattr(&file, "user.gone").unwrap();
    assert_eq!(removexattr(&file, "user.gone"), Err(Errno::NODATA));
    let look = || {
        assert_eq!(xattr(&file, "user.empty").unwrap(), b"");
        assert!(xattr(&file, "user.small").unwrap() == content(9, 60_000));
        assert_eq!(xattr(&file, "trusted.middle").unwrap(), b"short");
        assert!(xattr(&file, "security.other").unwrap() == content(3, 4097));
        assert!(xattr(&file, "user.largest").unwrap() == content(4, 65_535));
        assert_eq!(xattr(&file, "user.gone"), Err(Errno::NODATA));
        let mut list = vec![0u8; 4096];
        let len = listxattr(&file, &mut list[..]).unwrap();
        let listed: BTreeSet<&[u8]> = list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        assert_eq!(listed, values.iter().map(|(name, _)| name.as_bytes()).collect());
    };
    look();
    mounted.unmount();
    let mounted = volume.mount();
    look();
    mounted.unmount();
}

#[test]
fn permissions_hold_for_other_users() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    for (name, mode) in [("private", 0o600), ("readable", 0o644), ("set_id", 0o6777)] {
        fs::write(mounted.join(name), "content").unwrap();
        fs::set_permissions(mounted.join(name), Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(mounted.join("sticky")).unwrap();
    fs::set_permissions(mounted.join("sticky"), Permissions::from_mode(0o1777)).unwrap();
    fs::write(mounted.join("sticky/of_root"), "").unwrap();
    let root = File::open(mounted.path()).unwrap();
    // Only this thread becomes someone else, and reaches the volume through the directory alone, whatever lies above.
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(4711), Gid::from_raw(4712));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            let open =
                |path: &str, flags| open_at(&root, path, flags, Mode::from_raw_mode(0o666)).map(File::from);
            assert_eq!(open("private", OFlags::RDONLY).unwrap_err(), Errno::ACCESS);
            let mut text = String::new();
            open("readable", OFlags::RDONLY).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "content");
            assert_eq!(open("readable", OFlags::WRONLY).unwrap_err(), Errno::ACCESS);
            assert_eq!(open("new", OFlags::WRONLY | OFlags::CREATE).unwrap_err(), Errno::ACCESS);
            assert_eq!(mkdirat(&root, "dir", Mode::from_raw_mode(0o777)), Err(Errno::ACCESS));
            assert_eq!(rustix::fs::unlinkat(&root, "readable", AtFlags::empty()), Err(Errno::ACCESS));
            assert_eq!(
                rustix::fs::chmodat(&root, "readable", Mode::from_raw_mode(0o777), AtFlags::empty()),
                Err(Errno::PERM)
            );
            assert_eq!(rustix::fs::unlinkat(&root, "sticky/of_root", AtFlags::empty()), Err(Errno::PERM));
            drop(open("sticky/mine", OFlags::WRONLY | OFlags::CREATE).unwrap());
            // Whoever writes takes the power away.
            open("set_id", OFlags::WRONLY).unwrap().write_all(b"other").unwrap();
        });
        other.join().unwrap();
    });
    let mine = fs::metadata(mounted.join("sticky/mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (4711, 4712));
    assert_eq!(
        fs::metadata(mounted.join("set_id")).unwrap().mode() & 0o6000,
        0,
        "set-id bits survive a write"
    );
    drop(root);
    mounted.unmount();
    let mounted = volume.mount();
    assert_eq!(fs::metadata(mounted.join("private")).unwrap().mode(), libc::S_IFREG | 0o600);
    assert_eq!(fs::metadata(mounted.join("sticky")).unwrap().mode(), libc::S_IFDIR | 0o1777);
    mounted.unmount();
}

#[test]
fn directories_of_a_set_gid_directory_inherit_its_group() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let dir = mounted.join("dir");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, None, Some(77)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o2755)).unwrap();
    File::create(dir.join("file")).unwrap();
    fs::create_dir(dir.join("inner")).unwrap();
    assert_eq!(fs::metadata(dir.join("file")).unwrap().gid(), 77);
    let inner = fs::metadata(dir.join("inner")).unwrap();
    assert_eq!((inner.gid(), inner.mode() & 0o2000), (77, 0o2000));
    mounted.unmount();
}

/// Invariant 35.
#[test]
fn times_keep_their_nanoseconds() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = mounted.join("file");
    let before = std::time::SystemTime::now();
    File::create(&file).unwrap();
    let born = statx(CWD, &file, AtFlags::empty(), rustix::fs::StatxFlags::BTIME).unwrap().stx_btime;
    let since_epoch = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((since_epoch - 1..since_epoch + 60).contains(&born.tv_sec));
    let times = Timestamps {
        last_access: Timespec { tv_sec: -5, tv_nsec: 123_456_789 },
        last_modification: Timespec { tv_sec: 1 << 33, tv_nsec: 987_654_321 },
    };
    utimensat(CWD, &file, &times, AtFlags::empty()).unwrap();
    let look = || {
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (-5, 123_456_789));
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1 << 33, 987_654_321));
    };
    look();
    mounted.unmount();
    let mounted = volume.mount();
    look();
    // Content changes mtime and ctime, an attribute ctime alone.
    let old = fs::metadata(&file).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let changed = fs::metadata(&file).unwrap();
    assert_eq!(changed.mtime(), old.mtime());
    assert!((changed.ctime(), changed.ctime_nsec()) > (old.ctime(), old.ctime_nsec()));
    fs::write(&file, "content").unwrap();
    assert!(fs::metadata(&file).unwrap().mtime() < 1 << 33);
    let again = statx(CWD, &file, AtFlags::empty(), rustix::fs::StatxFlags::BTIME).unwrap().stx_btime;
    assert_eq!((again.tv_sec, again.tv_nsec), (born.tv_sec, born.tv_nsec));
    mounted.unmount();
}

/// The available bytes when the mount has the metadata space that it needs to work; that is taken from what is available.
fn warmed_up(mounted: &Mounted<'_>) -> u64 {
    let path = mounted.join("warm-up");
    fs::write(&path, content(0, 16 << 20)).unwrap();
    mounted.sync();
    fs::remove_file(&path).unwrap();
    wait_until("the space of the deleted file is back", SOON, || {
        mounted.sync();
        mounted.available_bytes() >= 48 << 20
    });
    mounted.available_bytes()
}

#[test]
fn an_unlinked_open_file_lives_until_it_is_closed() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let available = warmed_up(&mounted);
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
    let size = 16 << 20;
    file.write_all_at(&content(1, size), 0).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    mounted.sync();
    assert!(mounted.available_bytes() + (size as u64) <= available);
    file.write_all_at(b"changed", 8 << 20).unwrap();
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[8 << 20..][..7], b"changed");
    assert!(bytes[..8 << 20] == content(1, size)[..8 << 20]);
    drop(file);
    wait_until("the space of the deleted file is back", SOON, || {
        mounted.sync();
        mounted.available_bytes() + (1 << 20) >= available
    });
    mounted.unmount();
}

#[test]
fn an_unlinked_open_file_is_gone_after_a_crash() {
    let volume = Volume::new(64);
    let mut mounted = volume.mount_child();
    let available = warmed_up(&mounted);
    let file = File::create(mounted.join("file")).unwrap();
    file.write_all_at(&content(1, 16 << 20), 0).unwrap();
    fs::remove_file(mounted.join("file")).unwrap();
    mounted.sync();
    mounted.kill_daemon();
    drop(file);
    mounted.bury();
    let mounted = volume.mount();
    wait_until("the space of the orphan is back", SOON, || {
        mounted.sync();
        mounted.available_bytes() + (2 << 20) >= available
    });
    mounted.unmount();
}

#[test]
fn listing_while_deleting_neither_skips_nor_repeats_what_stays() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let dir = mounted.join("dir");
    fs::create_dir(&dir).unwrap();
    let count = 3000;
    for i in 0..count {
        File::create(dir.join(format!("{i}"))).unwrap();
    }
    // Each third entry that is seen is deleted with its predecessor, and new ones appear meanwhile.
    let mut seen = Vec::new();
    let mut deleted = BTreeSet::new();
    for (n, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("new") {
            continue;
        }
        assert!(!seen.contains(&name), "{name} twice");
        seen.push(name);
        if n % 3 == 2 {
            for name in seen.iter().rev().take(2) {
                if deleted.insert(name.clone()) {
                    fs::remove_file(dir.join(name)).unwrap();
                }
            }
            if n < 1000 {
                File::create(dir.join(format!("new{n}"))).unwrap();
            }
        }
    }
    assert_eq!(seen.len(), count, "entries were skipped");
    let left: BTreeSet<String> = names(&dir).into_iter().filter(|n| !n.starts_with("new")).collect();
    assert_eq!(left, seen.into_iter().filter(|n| !deleted.contains(n)).collect());
    fs::remove_dir_all(&dir).unwrap();
    assert!(!dir.exists());
    mounted.unmount();
}

#[test]
fn names_have_limits_and_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let longest = "n".repeat(255);
    File::create(mounted.join(&longest)).unwrap();
    let error = File::create(mounted.join("n".repeat(256))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    let odd = OsStr::from_bytes(b"\xff\xfe\n\x01 odd");
    File::create(mounted.join(odd)).unwrap();
    mounted.unmount();
    let mounted = volume.mount();
    let listed: BTreeSet<_> = fs::read_dir(mounted.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(listed, [longest.into(), odd.to_owned()].into());
    mounted.unmount();
}

/// What a thread may do counts, whatever copies of attributes others are making: who asks for them must not bring old ones back.
#[test]
fn a_mode_counts_at_once_whoever_asks_for_attributes_meanwhile() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = mounted.join("file");
    fs::write(&file, "x").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    fs::metadata(&file).unwrap();
                }
            });
            // They lose the processor at any place of what they do.
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    std::hint::spin_loop();
                }
            });
        }
        let changer = scope.spawn(|| {
            ask_as(4711);
            for n in 0..3000 {
                let readable = n % 2 == 1;
                let mode = if readable { 0o644 } else { 0o600 };
                fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
                let may = accessat(CWD, &file, Access::READ_OK, AtFlags::empty());
                let wanted = if readable { Ok(()) } else { Err(Errno::ACCESS) };
                if may != wanted {
                    return Err(format!("round {n}: {may:?}"));
                }
            }
            Ok(())
        });
        let changed = changer.join();
        done.store(true, SeqCst);
        changed.unwrap().unwrap();
    });
    mounted.unmount();
}

/// One call sets two times, and nobody sees only one of them.
#[test]
fn attributes_that_are_set_together_are_seen_together() {
    if !by_kernel() {
        // FUSE's part of the kernel answers from what it keeps, which it changes piece by piece.
        return;
    }
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = mounted.join("file");
    fs::write(&file, "x").unwrap();
    let set = |n: i64| {
        let time = Timespec { tv_sec: n, tv_nsec: n };
        utimensat(CWD, &file, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty())
            .unwrap();
    };
    set(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = [(), ()].map(|()| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let m = fs::metadata(&file).unwrap();
                    let times = [m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec()];
                    if times.iter().any(|time| *time != times[0]) {
                        return Err(format!("{times:?}"));
                    }
                }
                Ok(())
            })
        });
        (1..2000).for_each(set);
        done.store(true, SeqCst);
        for reader in readers {
            reader.join().unwrap().unwrap();
        }
    });
    mounted.unmount();
}
