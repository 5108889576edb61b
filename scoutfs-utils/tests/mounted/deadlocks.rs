// SPDX-License-Identifier: GPL-2.0-only
//! System calls whose memory is itself a mapping of the mount: serving one takes a page fault that is served by the mount, too.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::ptr::null_mut;
use std::thread;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::raw_ioctl::{FIEMAP, Fiemap, raw};
use crate::volume::Volume;

const LEN: usize = 1 << 20;

/// A shared mapping of a file that others may shorten: only the kernel touches its memory, which then is a fault of the call.
struct Mapping(usize);

impl Mapping {
    fn new(file: &File) -> Mapping {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, which becomes no reference.
        let address = unsafe { mmap(null_mut(), LEN, protection, MapFlags::SHARED, file.as_fd(), 0) };
        Mapping(address.unwrap() as usize)
    }

    /// An address in it, of pages that are not mapped now.
    fn cold(&self, offset: usize) -> usize {
        // SAFETY: shared pages of a file keep their content; nobody has a reference to this memory.
        unsafe { madvise(self.0 as *mut _, LEN, Advice::LinuxDontNeed) }.unwrap();
        self.0 + offset
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody has a reference to.
        unsafe { munmap(self.0 as *mut _, LEN) }.unwrap();
    }
}

/// What a system call may answer when pages of its memory come and go.
fn faults_at_worst(result: i64) {
    let error = std::io::Error::last_os_error();
    assert!(result >= 0 || error.raw_os_error() == Some(libc::EFAULT), "{error}");
}

/// Invariant 16. A mount that hangs is ended by the watchdog of the tests, and the calls fail.
#[test]
fn calls_with_mapped_memory_of_the_mount_never_wait_in_a_circle() {
    const ROUNDS: usize = 40;
    let volume = Volume::new(64);
    let mounted = volume.mount();
    for n in 0..200 {
        File::create(mounted.join(format!("name-{n}"))).unwrap();
    }
    let open = |name: &str, flags| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
        options.open(mounted.join(name)).unwrap()
    };
    let (file, direct) = (open("file", 0), open("file", libc::O_DIRECT));
    let lasting = open("lasting", 0);
    for file in [&file, &lasting] {
        file.write_all_at(&vec![1; LEN], 0).unwrap();
    }
    let dir = File::open(mounted.path()).unwrap();
    let own = Mapping::new(&file);
    let other = Mapping::new(&lasting);
    // Arguments of the ioctl, with the room for extents behind them, in memory of the mount.
    let room = Fiemap { length: u64::MAX, count: 100, ..Fiemap::default() };
    // SAFETY: the structure is plain numbers without padding.
    let room: [u8; size_of::<Fiemap>()] = unsafe { std::mem::transmute(room) };
    lasting.write_all_at(&room, 0).unwrap();
    thread::scope(|s| {
        for by in [&file, &direct] {
            for memory in [&own, &other] {
                s.spawn(move || {
                    for n in 0..ROUNDS {
                        let (address, at) = (memory.cold(n % 5 * 65_536 + 131_072), (n % 3 * 131_072) as i64);
                        // SAFETY: the memory is a mapping that lives as long, and that has no references.
                        let read = unsafe { libc::pread(by.as_raw_fd(), address as *mut _, 262_144, at) };
                        faults_at_worst(read as i64);
                        let address = memory.cold(131_072);
                        // SAFETY: as before.
                        let wrote = unsafe { libc::pwrite(by.as_raw_fd(), address as *const _, 262_144, at) };
                        faults_at_worst(wrote as i64);
                    }
                });
            }
        }
        s.spawn(|| {
            for n in 0..ROUNDS as u64 {
                ftruncate(&file, n % 4 * 300_000).unwrap();
                ftruncate(&file, LEN as u64).unwrap();
            }
        });
        s.spawn(|| {
            for n in 0..ROUNDS as u64 {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let flags = if n % 2 == 0 { FallocateFlags::empty() } else { punch };
                fallocate(&file, flags, n % 5 * 100_000, 200_000).unwrap();
            }
        });
        s.spawn(|| {
            for n in 0..ROUNDS {
                let address = if n % 2 == 0 { own.cold(65_536) } else { other.cold(65_536) };
                // SAFETY: a number, for the kernel to check.
                assert_eq!(unsafe { libc::lseek(dir.as_raw_fd(), 0, libc::SEEK_SET) }, 0);
                // SAFETY: as before.
                let listed = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), address, 32_768) };
                faults_at_worst(listed);
            }
        });
        s.spawn(|| {
            for _ in 0..ROUNDS {
                // Of the very file whose memory it is, and of another.
                for asked in [&lasting, &file] {
                    let told = raw(asked.as_raw_fd(), FIEMAP, other.cold(0) as u64);
                    assert!(matches!(told, Ok(0) | Err(libc::EFAULT)), "{told:?}");
                }
            }
        });
        s.spawn(|| {
            for _ in 0..ROUNDS / 4 {
                lasting.sync_all().unwrap();
                mounted.sync();
            }
        });
    });
    // Nothing may hold the mount when it is to go.
    drop((file, direct, lasting, dir, own, other));
    mounted.unmount();
}
