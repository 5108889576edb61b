// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls as a program that knows only their description calls them: numbers and structures are written down here once
//! more, and every call is a raw ioctl(2).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::ptr;

use crate::run::{program, run};
use crate::volume::{Mounted, Volume};

/// `_IOC` of the kernel's headers.
const fn ioc(direction: u32, nr: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | 0xe8 << 8 | nr
}
const W: u32 = 1;
const R: u32 = 2;

const WALK_INODES: u32 = ioc(W, 1, 72);
const INO_PATH: u32 = ioc(W, 2, 40);
const STAT_MORE: u32 = ioc(R, 5, 56);
const STATFS_MORE: u32 = ioc(R, 10, 48);
const ALLOC_DETAIL: u32 = ioc(W, 12, 16);
const GET_ALLOCATED_INOS: u32 = ioc(W, 16, 24);
const GET_REFERRING_ENTRIES: u32 = ioc(W, 17, 40);
const GET_ATTR_X: u32 = ioc(W, 18, 104);
const SET_ATTR_X: u32 = ioc(W, 19, 104);
const FIEMAP: u32 = ioc(W | R, 64, 32);
const GET_COUNTERS: u32 = ioc(W, 65, 16);
/// The kernel's own.
const FS_IOC_FIEMAP: u32 = 0xc020_660b;

/// Number, and bytes of the argument.
const ALL: [(u32, usize); 11] = [
    (WALK_INODES, 72),
    (INO_PATH, 40),
    (STAT_MORE, 56),
    (STATFS_MORE, 48),
    (ALLOC_DETAIL, 16),
    (GET_ALLOCATED_INOS, 24),
    (GET_REFERRING_ENTRIES, 40),
    (GET_ATTR_X, 104),
    (SET_ATTR_X, 104),
    (FIEMAP, 32),
    (GET_COUNTERS, 16),
];

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct WalkEntry {
    major: u64,
    ino: u64,
    minor: u32,
    pad: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Walk {
    first: WalkEntry,
    last: WalkEntry,
    entries: u64,
    nr: u32,
    index: u8,
    pad: [u8; 11],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct InoPath {
    ino: u64,
    dir_ino: u64,
    dir_pos: u64,
    result: u64,
    bytes: u16,
    pad: [u8; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Referring {
    ino: u64,
    dir_ino: u64,
    dir_pos: u64,
    entries: u64,
    bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Allocated {
    start: u64,
    inos: u64,
    bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct AttrX {
    mask: u64,
    flags: u64,
    meta_seq: u64,
    data_seq: u64,
    data_version: u64,
    online: u64,
    offline: u64,
    ctime_sec: u64,
    ctime_nsec: u32,
    crtime_nsec: u32,
    crtime_sec: u64,
    size: u64,
    bits: u64,
    project: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct StatMore {
    meta_seq: u64,
    data_seq: u64,
    data_version: u64,
    online: u64,
    offline: u64,
    crtime_sec: u64,
    crtime_nsec: u32,
    pad: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

/// Room for an array of entries: of space, and of counters.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Room {
    entries: u64,
    nr: u64,
}

/// Calls an ioctl with an address. Gives what it returns, or the errno.
fn raw(fd: i32, cmd: u32, address: u64) -> Result<i32, i32> {
    // SAFETY: the kernel, and the filesystem behind it, check the address; where it is this process's memory, that is memory
    // which the test has set aside for the answer.
    let n = unsafe { libc::ioctl(fd, cmd as _, address) };
    if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(n) }
}

fn call<T>(file: &File, cmd: u32, argument: &mut T) -> Result<i32, i32> {
    assert_eq!(size_of::<T>(), (cmd >> 16 & 0x3fff) as usize);
    raw(file.as_raw_fd(), cmd, ptr::from_mut(argument) as u64)
}

fn open(path: impl AsRef<Path>) -> File {
    File::open(path).unwrap()
}

fn ino(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Two pages of memory, and behind them none.
struct Pages(*mut u8);

const PAGE: usize = 4096;

impl Pages {
    fn new() -> Self {
        // SAFETY: new private memory; nobody else knows of it. The last page is taken away again.
        unsafe {
            let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(ptr::null_mut(), 3 * PAGE, libc::PROT_READ | libc::PROT_WRITE, none, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            assert_eq!(libc::munmap(at.byte_add(2 * PAGE), PAGE), 0);
            Pages(at.cast())
        }
    }

    fn start(&self) -> u64 {
        self.0 as u64
    }

    fn end(&self) -> u64 {
        self.start() + 2 * PAGE as u64
    }

    /// Nothing of it can be written from now on.
    fn read_only(&self) {
        // SAFETY: the two pages are ours, and no reference to them is held.
        assert_eq!(unsafe { libc::mprotect(self.0.cast(), 2 * PAGE, libc::PROT_READ) }, 0);
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the pages are mapped and were zeroed; the filesystem writes to them only during a call.
        unsafe { std::slice::from_raw_parts(self.0, 2 * PAGE) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the two pages are ours, and this is their end.
        unsafe { libc::munmap(self.0.cast(), 2 * PAGE) };
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

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
fn extents_are_told_by_an_ioctl_of_our_own() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_at(&[1; 4096], 8192).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 20_480, 8192).unwrap();
    // What the kernel asks no FUSE filesystem.
    let mut map = Fiemap { length: u64::MAX, ..Fiemap::default() };
    assert_eq!(call(&file, FS_IOC_FIEMAP, &mut map), Err(libc::EOPNOTSUPP));
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
