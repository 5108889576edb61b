// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls by their description, written down once more: numbers, structures, and the call itself. Nothing here comes from
//! our own crates.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;

/// `_IOC` of the kernel's headers.
pub const fn ioc(direction: u32, nr: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | 0xe8 << 8 | nr
}
pub const W: u32 = 1;
pub const R: u32 = 2;

pub const WALK_INODES: u32 = ioc(W, 1, 72);
pub const INO_PATH: u32 = ioc(W, 2, 40);
pub const STAT_MORE: u32 = ioc(R, 5, 56);
pub const STATFS_MORE: u32 = ioc(R, 10, 48);
pub const ALLOC_DETAIL: u32 = ioc(W, 12, 16);
pub const GET_ALLOCATED_INOS: u32 = ioc(W, 16, 24);
pub const GET_REFERRING_ENTRIES: u32 = ioc(W, 17, 40);
pub const GET_ATTR_X: u32 = ioc(W, 18, 104);
pub const SET_ATTR_X: u32 = ioc(W, 19, 104);
pub const FIEMAP: u32 = ioc(W | R, 64, 32);
pub const GET_COUNTERS: u32 = ioc(W, 65, 16);
/// The kernel's own.
pub const FS_IOC_FIEMAP: u32 = 0xc020_660b;

/// Number, and bytes of the argument.
pub const ALL: [(u32, usize); 11] = [
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
pub struct WalkEntry {
    pub major: u64,
    pub ino: u64,
    pub minor: u32,
    pub pad: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Walk {
    pub first: WalkEntry,
    pub last: WalkEntry,
    pub entries: u64,
    pub nr: u32,
    pub index: u8,
    pub pad: [u8; 11],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct InoPath {
    pub ino: u64,
    pub dir_ino: u64,
    pub dir_pos: u64,
    pub result: u64,
    pub bytes: u16,
    pub pad: [u8; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Referring {
    pub ino: u64,
    pub dir_ino: u64,
    pub dir_pos: u64,
    pub entries: u64,
    pub bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Allocated {
    pub start: u64,
    pub inos: u64,
    pub bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct AttrX {
    pub mask: u64,
    pub flags: u64,
    pub meta_seq: u64,
    pub data_seq: u64,
    pub data_version: u64,
    pub online: u64,
    pub offline: u64,
    pub ctime_sec: u64,
    pub ctime_nsec: u32,
    pub crtime_nsec: u32,
    pub crtime_sec: u64,
    pub size: u64,
    pub bits: u64,
    pub project: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct StatMore {
    pub meta_seq: u64,
    pub data_seq: u64,
    pub data_version: u64,
    pub online: u64,
    pub offline: u64,
    pub crtime_sec: u64,
    pub crtime_nsec: u32,
    pub pad: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Fiemap {
    pub start: u64,
    pub length: u64,
    pub flags: u32,
    pub mapped: u32,
    pub count: u32,
    pub reserved: u32,
}

/// Room for an array of entries: of space, and of counters.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Room {
    pub entries: u64,
    pub nr: u64,
}

/// Calls an ioctl with an address. Gives what it returns, or the errno.
pub fn raw(fd: i32, cmd: u32, address: u64) -> Result<i32, i32> {
    // SAFETY: the kernel, and the filesystem behind it, check the address; where it is this process's memory, that is memory
    // which the test has set aside for the answer.
    let n = unsafe { libc::ioctl(fd, cmd as _, address) };
    if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(n) }
}

pub fn call<T>(file: &File, cmd: u32, argument: &mut T) -> Result<i32, i32> {
    assert_eq!(size_of::<T>(), (cmd >> 16 & 0x3fff) as usize);
    raw(file.as_raw_fd(), cmd, ptr::from_mut(argument) as u64)
}

pub fn open(path: impl AsRef<Path>) -> File {
    File::open(path).unwrap()
}

pub fn ino(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Two pages of memory, and behind them none.
pub struct Pages(pub *mut u8);

pub const PAGE: usize = 4096;

impl Pages {
    pub fn new() -> Self {
        // SAFETY: new private memory; nobody else knows of it. The last page is taken away again.
        unsafe {
            let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(ptr::null_mut(), 3 * PAGE, libc::PROT_READ | libc::PROT_WRITE, none, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            assert_eq!(libc::munmap(at.byte_add(2 * PAGE), PAGE), 0);
            Pages(at.cast())
        }
    }

    pub fn start(&self) -> u64 {
        self.0 as u64
    }

    pub fn end(&self) -> u64 {
        self.start() + 2 * PAGE as u64
    }

    /// Nothing of it can be written from now on.
    pub fn read_only(&self) {
        // SAFETY: the two pages are ours, and no reference to them is held.
        assert_eq!(unsafe { libc::mprotect(self.0.cast(), 2 * PAGE, libc::PROT_READ) }, 0);
    }

    pub fn bytes(&self) -> &[u8] {
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

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
