// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls with hostile arguments, on files that are not ours, and by callers without rights: each is refused with the right
//! errno, and nothing is lost.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::ptr;

use crate::raw_ioctl::*;
use crate::run::{program, run};
use crate::volume::{Mounted, Volume};

/// What a mount is like after hostile calls: as before.
fn assert_untouched(mounted: &Mounted<'_>) {
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"content");
    let mut get = AttrX { mask: (1 << 10) - 1, ..AttrX::default() };
    assert_eq!(call(&open(mounted.join("file")), GET_ATTR_X, &mut get), Ok(0));
    assert_eq!((get.project, get.bits, get.size, get.data_version, get.offline), (0, 0, 7, 1, 0));
    fs::write(mounted.join("alive"), "alive").unwrap();
    assert_eq!(fs::read(mounted.join("alive")).unwrap(), b"alive");
    run(program("rm", [mounted.join("alive")]));
}

#[test]
fn hostile_addresses_are_faults_and_harm_nothing() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.sync();
    let file = open(mounted.join("file"));
    let fd = file.as_raw_fd();
    let pages = Pages::new();
    for (cmd, size) in ALL {
        for address in
            [0, 1, 8, pages.end(), pages.end() - size as u64 + 1, u64::MAX, u64::MAX - 200, 1 << 63]
        {
            assert_eq!(raw(fd, cmd, address), Err(libc::EFAULT), "{cmd:x} {address:x}");
        }
    }
    // Results go nowhere, over the end of memory, and where nothing can be written.
    let read_only = Pages::new();
    read_only.read_only();
    let far = 1u64 << 60;
    let last = WalkEntry { major: u64::MAX, ino: u64::MAX, ..WalkEntry::default() };
    for address in [0, 16, pages.end(), pages.end() - 16, read_only.start(), u64::MAX - 15, far] {
        let mut walk = Walk { last, entries: address, nr: u32::MAX, ..Walk::default() };
        assert_eq!(call(&file, WALK_INODES, &mut walk), Err(libc::EFAULT), "{address:x}");
        let target = ino(mounted.join("file"));
        let mut get = InoPath { ino: target, result: address, bytes: u16::MAX, ..InoPath::default() };
        assert_eq!(call(&file, INO_PATH, &mut get), Err(libc::EFAULT), "{address:x}");
        let mut room = Room { entries: address, nr: u64::MAX };
        assert_eq!(call(&file, ALLOC_DETAIL, &mut room), Err(libc::EFAULT), "{address:x}");
        assert_eq!(call(&file, GET_COUNTERS, &mut room), Err(libc::EFAULT), "{address:x}");
        let mut get = Referring { ino: target, entries: address, bytes: u64::MAX, ..Referring::default() };
        let aligned = address.is_multiple_of(16);
        let want = if aligned { libc::EFAULT } else { libc::EINVAL };
        assert_eq!(call(&file, GET_REFERRING_ENTRIES, &mut get), Err(want), "{address:x}");
        // Two are in use: they need 16 bytes.
        if address != pages.end() - 16 {
            let mut get = Allocated { start: 1, inos: address, bytes: u64::MAX };
            let want = if address.is_multiple_of(8) { libc::EFAULT } else { libc::EINVAL };
            assert_eq!(call(&file, GET_ALLOCATED_INOS, &mut get), Err(want), "{address:x}");
        }
    }
    // The argument itself cannot be written to.
    for cmd in [STAT_MORE, STATFS_MORE, FIEMAP] {
        let want = if cmd == FIEMAP { libc::EINVAL } else { libc::EFAULT };
        assert_eq!(raw(fd, cmd, read_only.start()), Err(want), "{cmd:x}");
    }
    let fill = Pages::new();
    // SAFETY: the pages are ours and long enough.
    unsafe { ptr::write(fill.0.cast(), AttrX { mask: 1, ..AttrX::default() }) };
    // SAFETY: as before.
    unsafe { ptr::write(fill.0.add(PAGE).cast(), Fiemap { length: 1 << 40, ..Fiemap::default() }) };
    fill.read_only();
    assert_eq!(raw(fd, GET_ATTR_X, fill.start()), Err(libc::EFAULT));
    assert_eq!(raw(fd, FIEMAP, fill.start() + PAGE as u64), Err(libc::EFAULT));
    // Extents have no room where the memory ends.
    let end = Pages::new();
    let at = end.end() - 32 - 55;
    // SAFETY: 32 bytes before the end of pages that are ours.
    unsafe {
        ptr::write_unaligned(at as *mut Fiemap, Fiemap { length: 1 << 40, count: 1, ..Fiemap::default() })
    };
    assert_eq!(raw(fd, FIEMAP, at), Err(libc::EFAULT));
    assert_untouched(&mounted);
    drop(file);
    mounted.unmount();
}

#[test]
fn hostile_lengths_masks_and_flags_are_refused_and_harm_nothing() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.sync();
    let file = open(mounted.join("file"));
    let target = ino(mounted.join("file"));
    let pages = Pages::new();
    let last = WalkEntry { major: u64::MAX, ino: u64::MAX, ..WalkEntry::default() };
    let walk = Walk { last, entries: pages.start(), nr: 10, ..Walk::default() };
    assert_eq!(call(&file, WALK_INODES, &mut Walk { nr: 0, ..walk }), Ok(0));
    assert_eq!(call(&file, WALK_INODES, &mut Walk { nr: 1, ..walk }), Ok(1));
    for index in [2, 3, 255] {
        assert_eq!(call(&file, WALK_INODES, &mut Walk { index, ..walk }), Err(libc::EINVAL));
    }
    let path = InoPath { ino: target, result: pages.start(), ..InoPath::default() };
    for bytes in [0, 1, 24, 28] {
        assert_eq!(call(&file, INO_PATH, &mut InoPath { bytes, ..path }), Err(libc::ENAMETOOLONG), "{bytes}");
    }
    assert_eq!(call(&file, INO_PATH, &mut InoPath { bytes: 29, ..path }), Ok(0));
    for nobody in [0, 1 << 40, u64::MAX] {
        let mut get = InoPath { ino: nobody, bytes: 4000, ..path };
        assert_eq!(call(&file, INO_PATH, &mut get), Err(libc::ENOENT));
        let mut get = Referring { ino: nobody, entries: pages.start(), bytes: 64, ..Referring::default() };
        assert_eq!(call(&file, GET_REFERRING_ENTRIES, &mut get), Ok(0));
        let mut get = Allocated { start: nobody.max(1 << 30), inos: pages.start(), bytes: 64 };
        assert_eq!(call(&file, GET_ALLOCATED_INOS, &mut get), Ok(0));
    }
    let entries = Referring { ino: target, entries: pages.start(), ..Referring::default() };
    for (bytes, shift, want) in [(0, 0, 22), (1, 0, 22), (47, 0, 22), (64, 8, 22), (64, 1, 22)] {
        let mut get = Referring { bytes, entries: pages.start() + shift, ..entries };
        assert_eq!(call(&file, GET_REFERRING_ENTRIES, &mut get), Err(want), "{bytes} {shift}");
    }
    assert_eq!(call(&file, GET_REFERRING_ENTRIES, &mut Referring { bytes: 48, ..entries }), Ok(1));
    for (bytes, shift) in [(0, 0), (7, 0), (64, 4)] {
        let mut get = Allocated { start: 1, inos: pages.start() + shift, bytes };
        assert_eq!(call(&file, GET_ALLOCATED_INOS, &mut get), Err(libc::EINVAL), "{bytes} {shift}");
    }
    for nr in [0, 1] {
        let mut room = Room { entries: pages.start(), nr };
        assert_eq!(call(&file, ALLOC_DETAIL, &mut room), Err(libc::EOVERFLOW));
        assert_eq!(call(&file, GET_COUNTERS, &mut room), Err(libc::EOVERFLOW));
    }
    for (mask, flags) in [(1 << 10, 0), (u64::MAX, 0), (1, 2), (1, u64::MAX)] {
        for cmd in [GET_ATTR_X, SET_ATTR_X] {
            let mut x = AttrX { mask, flags, ..AttrX::default() };
            assert_eq!(call(&file, cmd, &mut x), Err(libc::EINVAL), "{cmd:x} {mask:x} {flags:x}");
        }
    }
    // A file that has data is not new.
    for mut x in [
        AttrX { mask: 1 << 2, data_version: 5, ..AttrX::default() },
        AttrX { mask: 1 << 7, ..AttrX::default() },
        AttrX { mask: 1 << 5 | 1 << 9, ctime_nsec: u32::MAX, project: 5, ..AttrX::default() },
        AttrX { mask: 1 << 9, flags: 1, project: 5, ..AttrX::default() },
    ] {
        assert_eq!(call(&file, SET_ATTR_X, &mut x), Err(libc::EINVAL), "{x:?}");
    }
    assert_eq!(call(&file, SET_ATTR_X, &mut AttrX { flags: u64::MAX, ..AttrX::default() }), Ok(0));
    let map = Fiemap { length: 1 << 40, ..Fiemap::default() };
    for (map, want) in [
        (Fiemap { length: 0, ..map }, libc::EINVAL),
        (Fiemap { flags: 2, ..map }, libc::EBADR),
        (Fiemap { count: u32::MAX, ..map }, libc::EINVAL),
        (Fiemap { start: u64::MAX, ..map }, libc::EFBIG),
    ] {
        assert_eq!(call(&file, FIEMAP, &mut { map }), Err(want));
    }
    // Sizes and numbers that are not ours.
    for cmd in [ioc(W, 1, 71), ioc(R, 1, 72), ioc(W, 0, 0), ioc(W, 99, 8), ioc(W | R, 255, 4096)] {
        assert_eq!(raw(file.as_raw_fd(), cmd, pages.start()), Err(libc::ENOTTY), "{cmd:x}");
    }
    assert_untouched(&mounted);
    drop(file);
    mounted.unmount();
}

#[test]
fn ioctls_on_what_is_no_file_of_ours_are_refused() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    run(program("mkfifo", [mounted.join("fifo")]));
    symlink("file", mounted.join("symlink")).unwrap();
    let mut options = OpenOptions::new();
    let fifo = options.read(true).custom_flags(libc::O_NONBLOCK).open(mounted.join("fifo")).unwrap();
    let path_flags = libc::O_PATH | libc::O_NOFOLLOW;
    let link = OpenOptions::new().read(true).custom_flags(path_flags).open(mounted.join("symlink")).unwrap();
    let elsewhere = open(volume.image());
    let root = open(mounted.path());
    let pages = Pages::new();
    for (cmd, _) in ALL {
        assert_eq!(raw(fifo.as_raw_fd(), cmd, pages.start()), Err(libc::ENOTTY), "{cmd:x}");
        assert_eq!(raw(link.as_raw_fd(), cmd, pages.start()), Err(libc::EBADF), "{cmd:x}");
        assert_eq!(raw(-1, cmd, pages.start()), Err(libc::EBADF), "{cmd:x}");
        let other = raw(elsewhere.as_raw_fd(), cmd, pages.start());
        assert!(matches!(other, Err(libc::ENOTTY | libc::EOPNOTSUPP)), "{cmd:x}: {other:?}");
    }
    // Those of the volume work on directories, too; extents and retention are of files.
    let mut stat = StatMore::default();
    assert_eq!((call(&root, STAT_MORE, &mut stat), stat.data_seq), (Ok(0), 0));
    let mut map = Fiemap { length: 1, ..Fiemap::default() };
    assert_eq!(call(&root, FIEMAP, &mut map), Err(libc::EOPNOTSUPP));
    let mut retain = AttrX { mask: 1 << 8, bits: 1, ..AttrX::default() };
    assert_eq!(call(&root, SET_ATTR_X, &mut retain), Err(libc::EINVAL));
    // Any file will do for them, opened for anything.
    let write_only = OpenOptions::new().write(true).open(mounted.join("file")).unwrap();
    assert_eq!(call(&write_only, STAT_MORE, &mut stat), Ok(0));
    drop((fifo, link, root, write_only));
    mounted.unmount();
}

/// Runs `child` in a process of its own, with no open file but `fd`, and gives what it returned.
///
/// `child` may only make system calls and use memory that is there: it runs in a copy of a process whose other threads,
/// and the locks that they held, stand still.
fn in_child(fd: i32, child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls only, and ends by one.
    match unsafe { libc::fork() } {
        0 => {
            // Other tests' files among them, whose mounts must not be kept.
            for (first, last) in [(0, fd - 1), (fd + 1, i32::MAX)] {
                // SAFETY: a system call on this process alone, in which nothing uses those files.
                unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            }
            let result = child();
            // SAFETY: it ends this process and nothing else.
            unsafe { libc::_exit(result) }
        }
        pid => {
            assert!(pid > 0);
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status), "{status:x}");
            libc::WEXITSTATUS(status)
        }
    }
}

/// Makes this process one of somebody without rights. Only for a child.
fn drop_rights() -> bool {
    // SAFETY: system calls that change this process alone; no groups are read from the null pointer.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) == 0
            && libc::syscall(libc::SYS_setresgid, 65534, 65534, 65534) == 0
            && libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) == 0
    }
}

#[test]
fn who_has_no_rights_gets_what_anybody_may_see() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.sync();
    let file = open(mounted.join("file"));
    let fd = file.as_raw_fd();
    let pages = Pages::new();
    let room = pages.start() + PAGE as u64;
    let target = ino(mounted.join("file"));
    let last = WalkEntry { major: u64::MAX, ino: u64::MAX, ..WalkEntry::default() };
    let mut walk = Walk { last, entries: room, nr: 10, ..Walk::default() };
    let mut path = InoPath { ino: target, result: room, bytes: 4000, ..InoPath::default() };
    let mut entries = Referring { ino: target, entries: room, bytes: 4000, ..Referring::default() };
    let mut inos = Allocated { start: target, inos: room, bytes: 64 };
    let mut set = AttrX { mask: 1 << 9, project: 5, ..AttrX::default() };
    let mut get = AttrX { mask: 1 << 9, ..AttrX::default() };
    let mut map = Fiemap { length: 1 << 40, ..Fiemap::default() };
    let mut space = Room { entries: room, nr: 100 };
    let privileged = [
        (INO_PATH, ptr::from_mut(&mut path) as u64),
        (GET_REFERRING_ENTRIES, ptr::from_mut(&mut entries) as u64),
        (GET_ALLOCATED_INOS, ptr::from_mut(&mut inos) as u64),
        (SET_ATTR_X, ptr::from_mut(&mut set) as u64),
    ];
    let open_to_all = [
        (WALK_INODES, ptr::from_mut(&mut walk) as u64),
        (STAT_MORE, pages.start()),
        (STATFS_MORE, pages.start()),
        (ALLOC_DETAIL, ptr::from_mut(&mut space) as u64),
        (GET_COUNTERS, ptr::from_mut(&mut space) as u64),
        (GET_ATTR_X, ptr::from_mut(&mut get) as u64),
        (FIEMAP, ptr::from_mut(&mut map) as u64),
    ];
    for (cmd, argument) in open_to_all {
        let got =
            in_child(fd, || if drop_rights() { raw(fd, cmd, argument).err().unwrap_or(0) } else { 255 });
        assert_eq!(got, 0, "{cmd:x}");
    }
    for (cmd, argument) in privileged {
        let got =
            in_child(fd, || if drop_rights() { raw(fd, cmd, argument).err().unwrap_or(0) } else { 255 });
        assert_eq!(got, libc::EPERM, "{cmd:x}");
        // Who makes a namespace of his own has all rights in it, and none here.
        let got = in_child(fd, || {
            // SAFETY: a system call that changes this process alone.
            let made = drop_rights() && unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) } == 0;
            if made { raw(fd, cmd, argument).err().unwrap_or(0) } else { 255 }
        });
        assert_eq!(got, libc::EPERM, "{cmd:x} in a user namespace");
        // The same call by who may: it was not refused for anything else.
        assert_eq!(in_child(fd, || raw(fd, cmd, argument).err().unwrap_or(0)), 0, "{cmd:x}");
    }
    drop(file);
    mounted.unmount();
}
