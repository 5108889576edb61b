// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls as a program that knows only their description calls them, with arguments that make sense.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::raw_ioctl::*;
use crate::volume::{Volume, by_kernel};

#[test]
fn stat_and_walk_tell_what_changed() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), [1; 5000]).unwrap();
    fs::create_dir(mounted.join("dir")).unwrap();
    mounted.sync();
    let file = open(mounted.join("file"));
    // What is there is overwritten, to its end.
    let mut stat = StatMore { pad: [7; 4], ..StatMore::default() };
    assert_eq!(call(&file, STAT_MORE, &mut stat), Ok(0));
    assert_eq!((stat.online, stat.offline, stat.pad), (2, 0, [0; 4]));
    assert!(stat.data_seq > 0 && stat.meta_seq >= stat.data_seq && stat.data_version > 0);
    assert_eq!(stat.crtime_sec as i64, fs::metadata(mounted.join("file")).unwrap().ctime());
    let mut statfs = [0u64; 6];
    assert_eq!(call(&file, STATFS_MORE, &mut statfs), Ok(0));
    assert!(statfs[0] != 0 && statfs[1] != 0 && statfs[2] >= stat.meta_seq);

    let mut entries = [WalkEntry { pad: [7; 4], minor: 7, ..WalkEntry::default() }; 8];
    let all = WalkEntry { major: u64::MAX, ino: u64::MAX, minor: u32::MAX, pad: [0; 4] };
    let mut walk = Walk { last: all, entries: entries.as_mut_ptr() as u64, nr: 8, ..Walk::default() };
    assert_eq!(call(&file, WALK_INODES, &mut walk), Ok(3));
    let entry = |ino, major| WalkEntry { major, ino, ..WalkEntry::default() };
    assert!(entries[..3].contains(&entry(ino(mounted.join("file")), stat.meta_seq)), "{entries:?}");
    assert!(entries[..3].is_sorted_by_key(|e| (e.major, e.ino)) && entries[3].pad == [7; 4]);
    walk.index = 1;
    assert_eq!(call(&file, WALK_INODES, &mut walk), Ok(1));
    assert_eq!(entries[0], entry(ino(mounted.join("file")), stat.data_seq));
    for (first, last, want) in [(all, all, 0), (all, WalkEntry::default(), 0)] {
        let mut walk = Walk { first, last, ..walk };
        assert_eq!(call(&file, WALK_INODES, &mut walk), Ok(want));
    }
    let mut space = [[7u8; 24]; 16];
    let mut room = Room { entries: space.as_mut_ptr() as u64, nr: 16 };
    let stores = call(&file, ALLOC_DETAIL, &mut room).unwrap() as usize;
    assert!((1..16).contains(&stores));
    assert!(space[..stores].iter().all(|entry| entry[18..] == [0; 6]) && space[stores] == [7; 24]);
    drop(file);
    mounted.unmount();
}

/// An archiver asks for the version, reads, and has the content of that version or of a newer one.
#[test]
fn who_sees_a_version_reads_no_older_content() {
    const WRITES: u64 = 1500;
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    fs::write(&path, [0; 4096]).unwrap();
    mounted.sync();
    let version_of = |file: &File| {
        let mut stat = StatMore::default();
        assert_eq!(call(file, STAT_MORE, &mut stat), Ok(0));
        stat.data_version
    };
    let done = AtomicBool::new(false);
    let (written, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let file = open(&path);
            let mut seen = vec![];
            while !done.load(Ordering::Relaxed) {
                let version = version_of(&file);
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, 0).unwrap();
                seen.push((version, u64::from_le_bytes(bytes)));
            }
            seen
        });
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let write = |n: u64| {
            file.write_all_at(&n.to_le_bytes(), 0).unwrap();
            version_of(&file)
        };
        let written: Vec<u64> = (1..=WRITES).map(write).collect();
        done.store(true, Ordering::Relaxed);
        (written, reader.join().unwrap())
    });
    assert!(written.is_sorted_by(|a, b| a < b));
    for (version, content) in seen {
        // How many of the writes had such a version, or a lower one.
        let least = written.partition_point(|of_write| *of_write <= version) as u64;
        assert!(content >= least, "version {version} is that of write {least}, and {content} was read");
    }
    mounted.unmount();
}

#[test]
fn paths_and_entries_are_found_from_the_inode() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::create_dir_all(mounted.join("a/b")).unwrap();
    fs::write(mounted.join("a/b/file"), "content").unwrap();
    for name in ["link", "a/other", "a/b/x"] {
        fs::hard_link(mounted.join("a/b/file"), mounted.join(name)).unwrap();
    }
    symlink("target", mounted.join("a/symlink")).unwrap();
    let root = open(mounted.path());
    let paths = |ino: u64| {
        let mut found = Vec::new();
        let (mut dir_ino, mut dir_pos) = (0, 0);
        loop {
            let mut result = [7u8; 300];
            let result_at = result.as_mut_ptr() as u64;
            let mut get = InoPath { ino, dir_ino, dir_pos, result: result_at, bytes: 300, pad: [0; 6] };
            match call(&root, INO_PATH, &mut get) {
                Ok(0) => {}
                Err(libc::ENOENT) => break,
                other => panic!("{other:?}"),
            }
            let len = u16::from_ne_bytes([result[16], result[17]]) as usize;
            assert_eq!((&result[18..24], result[24 + len - 1], result[24 + len]), (&[0; 6][..], 0, 7));
            found.push(String::from_utf8(result[24..24 + len - 1].to_vec()).unwrap());
            (dir_ino, dir_pos) = (u64_at(&result, 0), u64_at(&result, 8) + 1);
        }
        found
    };
    let mut found = paths(ino(mounted.join("link")));
    // By directory and position; the root is the first directory.
    assert_eq!(found[0], "link");
    found.sort();
    assert_eq!(found, ["a/b/file", "a/b/x", "a/other", "link"]);
    assert_eq!(paths(ino(mounted.join("a/b"))), ["a/b"]);
    assert_eq!(paths(ino(mounted.join("a/symlink"))), ["a/symlink"]);
    assert_eq!(paths(ino(mounted.path())), [""; 0]);

    let pages = Pages::new();
    let target = ino(mounted.join("link"));
    let mut get =
        Referring { ino: target, entries: pages.start(), bytes: 2 * PAGE as u64, ..Referring::default() };
    assert_eq!(call(&root, GET_REFERRING_ENTRIES, &mut get), Ok(4));
    let (mut at, mut names) = (0, Vec::new());
    for n in 0..4 {
        let entry = &pages.bytes()[at..];
        assert_eq!((u64_at(entry, 16), entry[26], entry[27]), (target, u8::from(n == 3), libc::DT_REG));
        let (bytes, len) = (u16::from_ne_bytes([entry[24], entry[25]]) as usize, entry[28] as usize);
        assert_eq!(bytes, (29 + len + 1).next_multiple_of(16));
        assert!(entry[29 + len..bytes].iter().all(|b| *b == 0));
        names.push(String::from_utf8(entry[29..29 + len].to_vec()).unwrap());
        at += bytes;
    }
    names.sort();
    assert_eq!(names, ["file", "link", "other", "x"]);
    let dir = ino(mounted.join("a"));
    let mut get = Referring { ino: dir, ..get };
    assert_eq!(call(&root, GET_REFERRING_ENTRIES, &mut get), Ok(1));
    assert_eq!(pages.bytes()[27], libc::DT_DIR);

    // Removed and open: no names are left.
    let open_file = open(mounted.join("link"));
    for name in ["link", "a/other", "a/b/x", "a/b/file"] {
        fs::remove_file(mounted.join(name)).unwrap();
    }
    assert_eq!(paths(target), [""; 0]);
    let mut get = Referring { ino: target, ..get };
    assert_eq!(call(&open_file, GET_REFERRING_ENTRIES, &mut get), Ok(0));
    let mut inos = [0u64; 1024];
    let mut get = Allocated { start: target, inos: inos.as_mut_ptr() as u64, bytes: 8 };
    assert_eq!((call(&root, GET_ALLOCATED_INOS, &mut get), inos[0]), (Ok(1), target));
    drop(open_file);
    drop(root);
    mounted.unmount();
}

#[test]
fn attributes_are_set_and_seen_at_once() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    // So that the kernel keeps a copy of what is changed next.
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let mut set = AttrX {
        mask: 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9,
        flags: 1,
        data_version: 9,
        size: 100_000,
        ctime_sec: 77,
        ctime_nsec: 5,
        crtime_sec: 66,
        crtime_nsec: 4,
        project: 12,
        ..AttrX::default()
    };
    assert_eq!(call(&file, SET_ATTR_X, &mut set), Ok(0));
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.len(), stat.ctime(), stat.ctime_nsec(), stat.blocks()), (100_000, 77, 5, 25 * 8));
    let mut get = AttrX { mask: (1 << 10) - 1, ..AttrX::default() };
    assert_eq!(call(&file, GET_ATTR_X, &mut get), Ok(0));
    assert!(get.meta_seq > 0 && get.data_seq == get.meta_seq);
    let mut want = set;
    (want.mask, want.flags, want.meta_seq, want.data_seq, want.offline) =
        ((1 << 10) - 1, 0, get.meta_seq, get.data_seq, 25);
    assert_eq!(get, want);
    // Only what is asked for, and nothing behind it.
    let mut get = AttrX { mask: 1 << 2, size: 7, project: 7, ..AttrX::default() };
    assert_eq!(call(&file, GET_ATTR_X, &mut get), Ok(0));
    assert_eq!(get, AttrX { mask: 1 << 2, data_version: 9, size: 7, project: 7, ..AttrX::default() });

    fs::create_dir(mounted.join("dir")).unwrap();
    let dir = open(mounted.join("dir"));
    let mut set = AttrX { mask: 1 << 9, project: 34, ..AttrX::default() };
    assert_eq!(call(&dir, SET_ATTR_X, &mut set), Ok(0));
    fs::write(mounted.join("dir/file"), "content").unwrap();
    let mut get = AttrX { mask: 1 << 9, ..AttrX::default() };
    assert_eq!((call(&open(mounted.join("dir/file")), GET_ATTR_X, &mut get), get.project), (Ok(0), 34));
    drop((file, dir));
    mounted.unmount();

    let mounted = volume.mount();
    assert_eq!((call(&open(mounted.join("dir/file")), GET_ATTR_X, &mut get), get.project), (Ok(0), 34));
    assert_eq!(fs::metadata(mounted.join("file")).unwrap().len(), 100_000);
    mounted.unmount();
}

#[test]
fn a_read_only_mount_tells_everything_and_sets_nothing() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.unmount();
    let mounted = volume.mount_options("ro,server_addr=127.0.0.1");
    let file = File::open(mounted.join("file")).unwrap();
    let mut get = AttrX { mask: 1 << 7 | 1 << 9, ..AttrX::default() };
    assert_eq!((call(&file, GET_ATTR_X, &mut get), get.size, get.project), (Ok(0), 7, 0));
    for mask in [0, 1 << 8, 1 << 9] {
        let mut set = AttrX { mask, bits: 1, project: 1, ..AttrX::default() };
        assert_eq!(call(&file, SET_ATTR_X, &mut set), Err(libc::EROFS), "{mask:x}");
    }
    let mut map = Fiemap { length: 1, ..Fiemap::default() };
    assert_eq!((call(&file, FIEMAP, &mut map), map.mapped), (Ok(0), 1));
    let mut result = [0u8; 100];
    let result_at = result.as_mut_ptr() as u64;
    let mut get =
        InoPath { ino: ino(mounted.join("file")), result: result_at, bytes: 100, ..InoPath::default() };
    assert_eq!(call(&file, INO_PATH, &mut get), Ok(0));
    assert_eq!(result[24..29], *b"file\0");
    drop(file);
    mounted.unmount();
}

#[test]
fn a_retained_file_cannot_be_changed_by_anybody() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    fs::write(&path, "content").unwrap();
    let mut opened = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut retain = AttrX { mask: 1 << 8, bits: 1, ..AttrX::default() };
    assert_eq!(call(&opened, SET_ATTR_X, &mut retain), Ok(0));
    let errno = |e: std::io::Error| e.raw_os_error().unwrap();
    let eperm = Err(libc::EPERM);
    assert_eq!(opened.write_all(b"x").map_err(errno), eperm);
    assert_eq!(opened.set_len(2).map_err(errno), eperm);
    assert_eq!(File::create(&path).map(|_| ()).map_err(errno), eperm);
    assert_eq!(fs::remove_file(&path).map_err(errno), eperm);
    assert_eq!(fs::rename(&path, mounted.join("moved")).map_err(errno), eperm);
    assert_eq!(fs::hard_link(&path, mounted.join("link")).map_err(errno), eperm);
    fs::write(mounted.join("other"), "other").unwrap();
    assert_eq!(fs::rename(mounted.join("other"), &path).map_err(errno), eperm);
    let flags = rustix::fs::XattrFlags::empty();
    assert_eq!(rustix::fs::setxattr(&path, "user.x", b"1", flags), Err(rustix::io::Errno::PERM));
    rustix::fs::setxattr(&path, "trusted.x", b"1", flags).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"content");
    drop(opened);
    mounted.unmount();

    let mounted = volume.mount();
    assert_eq!(fs::remove_file(&path).map_err(errno), eperm);
    let mut end = AttrX { mask: 1 << 8, ..AttrX::default() };
    assert_eq!(call(&open(&path), SET_ATTR_X, &mut end), Ok(0));
    fs::write(&path, "new").unwrap();
    fs::remove_file(&path).unwrap();
    mounted.unmount();
}

#[test]
fn extents_are_told_by_an_ioctl_of_our_own_and_the_same_by_that_of_linux() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    file.write_at(&[1; 4096], 8192).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 20_480, 8192).unwrap();
    // What the kernel asks no FUSE filesystem.
    let mut map = Fiemap { length: u64::MAX, ..Fiemap::default() };
    let asked = call(&file, FS_IOC_FIEMAP, &mut map);
    let expected = if by_kernel() { (Ok(0), 2) } else { (Err(libc::EOPNOTSUPP), 0) };
    assert_eq!((asked, map.mapped), expected);
    map.mapped = 0;
    for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE] {
        let mode = rustix::fs::FallocateFlags::from_bits_retain(mode as u32);
        assert_eq!(rustix::fs::fallocate(&file, mode, 0, 4096), Err(rustix::io::Errno::OPNOTSUPP));
    }
    assert_eq!((call(&file, FIEMAP, &mut map), map.mapped), (Ok(0), 2));
    #[repr(C)]
    struct WithRoom {
        head: Fiemap,
        extents: [[u64; 7]; 3],
    }
    let mut room = WithRoom { head: Fiemap { count: 3, mapped: 0, ..map }, extents: [[7; 7]; 3] };
    assert_eq!(raw(file.as_raw_fd(), FIEMAP, ptr::from_mut(&mut room) as u64), Ok(0));
    let [written, unwritten, rest] = room.extents;
    assert_eq!((room.head.mapped, written[0], written[2], rest), (2, 8192, 4096, [7; 7]));
    assert_eq!(written[3..], [0; 4]);
    assert_eq!(unwritten[..1], [20_480]);
    assert_eq!(unwritten[2..], [8192, 0, 0, 0x801, 0]);
    if by_kernel() {
        let ours = (room.head.mapped, room.extents);
        room = WithRoom { head: Fiemap { count: 3, mapped: 0, ..map }, extents: [[7; 7]; 3] };
        assert_eq!(raw(file.as_raw_fd(), FS_IOC_FIEMAP, ptr::from_mut(&mut room) as u64), Ok(0));
        assert_eq!((room.head.mapped, room.extents), ours);
        // As many as there is room for.
        room = WithRoom { head: Fiemap { count: 1, mapped: 0, ..map }, extents: [[7; 7]; 3] };
        assert_eq!(raw(file.as_raw_fd(), FS_IOC_FIEMAP, ptr::from_mut(&mut room) as u64), Ok(0));
        assert_eq!((room.head.mapped, room.extents), (1, [ours.1[0], [7; 7], [7; 7]]));
    }
    // The place on the device is where the data are.
    mounted.sync();
    let image = open(volume.image());
    let mut block = [0; 4096];
    image.read_exact_at(&mut block, written[1]).unwrap();
    assert_eq!(block, [1; 4096]);
    drop(file);
    mounted.unmount();
}

#[test]
fn counters_count_what_is_done() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let root = open(mounted.path());
    let read = |name: &str| {
        let mut entries = vec![[7u8; 40]; 200];
        let mut room = Room { entries: entries.as_mut_ptr() as u64, nr: 200 };
        let n = call(&root, GET_COUNTERS, &mut room).unwrap() as usize;
        assert!((1..200).contains(&n) && entries[n] == [7; 40]);
        let padded = |entry: &&[u8; 40]| {
            entry.starts_with(name.as_bytes()) && entry[name.len()..32].iter().all(|b| *b == 0)
        };
        entries[..n].iter().find(padded).map(|entry| u64_at(entry, 32)).unwrap_or_else(|| panic!("no {name}"))
    };
    let before = (read("op_create"), read("data_write_bytes"), read("device_flushes"));
    fs::write(mounted.join("file"), [1; 10_000]).unwrap();
    mounted.sync();
    let after = (read("op_create"), read("data_write_bytes"), read("device_flushes"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 10_000));
    assert!(after.2 > before.2);
    drop(root);
    mounted.unmount();
}
