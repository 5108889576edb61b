// SPDX-License-Identifier: GPL-2.0-only
//! Between the filesystem's types and those of FUSE.

use scoutfs_env::time::Timespec;
use scoutfs_fs::file_locks::{ByteRange, Found, LockClass, Mode, WantedLock};
use scoutfs_fs::inode::{Attr as FsAttr, SetAttr as FsSetAttr, SetTime as FsSetTime};
use scoutfs_fs::{Error, Fs};

use crate::fuse::{Attr, Errno, FileLock, LockRequest, LockType, SetAttr, SetTime, Timestamp};

/// An error as an errno. What a program is told is one number: the rest goes to the log.
pub fn errno(fs: &Fs, e: Error) -> Errno {
    let e = fs.store().verdict(e);
    if matches!(
        e,
        Error::Io(_) | Error::Tree(_) | Error::Volume(_) | Error::Corrupt { .. } | Error::Server(_)
    ) {
        scoutfs_env::error!("{e}");
    }
    Errno::from_raw_os_error(e.errno())
}

fn timestamp(t: Timespec) -> Timestamp {
    Timestamp { secs: t.sec, nanos: t.nsec }
}

/// A time as the filesystem has it.
pub fn timespec(t: Timestamp) -> Timespec {
    Timespec { sec: t.secs, nsec: t.nanos }
}

/// A device number as FUSE has it: 12 bits of major and 20 of minor.
fn rdev_out(rdev: u64) -> u32 {
    let (major, minor) = ((rdev >> 32) as u32, rdev as u32);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// A device number as the filesystem has it: major in the high half.
pub fn rdev_in(rdev: u32) -> u64 {
    let major = rdev >> 8 & 0xfff;
    let minor = rdev & 0xff | rdev >> 12 & 0xf_ff00;
    u64::from(major) << 32 | u64::from(minor)
}

/// Attributes for the kernel.
pub fn attr(a: &FsAttr) -> Attr {
    Attr {
        ino: a.ino,
        size: a.size,
        blocks: a.blocks,
        atime: timestamp(a.atime),
        mtime: timestamp(a.mtime),
        ctime: timestamp(a.ctime),
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: rdev_out(a.rdev),
        blksize: 4096,
    }
}

/// A lock that is asked for.
pub fn wanted_lock(ino: u64, request: &LockRequest) -> Result<WantedLock, Errno> {
    let FileLock { start, end, typ, pid } = request.lock;
    Ok(WantedLock {
        ino,
        class: if request.flock { LockClass::Flock } else { LockClass::Fcntl },
        owner: request.owner,
        file: request.fh,
        pid,
        range: ByteRange::new(start, end).ok_or(Errno::INVAL)?,
        mode: match typ {
            LockType::Read => Mode::Read,
            LockType::Write => Mode::Write,
            LockType::Unlock => Mode::Null,
        },
    })
}

/// A lock in the way of one that is asked for; if there is none, that one as it could be taken.
pub fn found_lock(found: Option<Found>, asked: &FileLock) -> FileLock {
    match found {
        Some(Found { range, mode, pid }) => FileLock {
            start: range.start(),
            end: range.end(),
            typ: if mode == Mode::Write { LockType::Write } else { LockType::Read },
            pid,
        },
        None => FileLock { typ: LockType::Unlock, ..*asked },
    }
}

/// Attributes to set.
pub fn set_attr(set: &SetAttr) -> FsSetAttr {
    let time = |t| match t {
        SetTime::Now => FsSetTime::Now,
        SetTime::At(t) => FsSetTime::At(timespec(t)),
    };
    FsSetAttr {
        mode: set.mode,
        uid: set.uid,
        gid: set.gid,
        size: set.size,
        atime: set.atime.map(time),
        mtime: set.mtime.map(time),
        ctime: set.ctime.map(timespec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn device_numbers_round_trip(major in 0u64..1 << 12, minor in 0u64..1 << 20) {
            let rdev = major << 32 | minor;
            prop_assert_eq!(rdev_in(rdev_out(rdev)), rdev);
        }
    }

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        assert_eq!(rdev_out(8 << 32 | 1), 0x801);
        assert_eq!(rdev_out(0xfff << 32 | 0xfffff), 0xffff_ffff);
    }
}
