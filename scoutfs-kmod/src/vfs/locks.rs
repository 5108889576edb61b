// SPDX-License-Identifier: GPL-2.0-only
//! Locks that programs have on files, by fcntl and flock: the core's, which hold on all nodes. The VFS keeps none of them.
//!
//! Owners are named by addresses: a process by that of its table of open files, an open file by its own.

use kernel::bindings;
use kernel::ffi::{c_int, c_void};
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode, WantedLock};
use scoutfs_fs::{Error, Fs};

use super::{volume, with};
use crate::ffi;
use crate::kobj::error::{code, Errno, Result};
use crate::kobj::folio::{offset, position};
use crate::kobj::nofs::NoFs;

const F_RDLCK: u8 = 0;
const F_WRLCK: u8 = 1;
const F_UNLCK: u8 = 2;

/// What the caller wants.
///
/// # Safety
///
/// The file is valid.
unsafe fn wanted(
    file: *mut bindings::file,
    lock: &ffi::scoutfs_file_lock,
    class: LockClass,
) -> Result<WantedLock> {
    // SAFETY: by the contract; the current task is alive.
    let (ino, pid) = unsafe { ((*(*file).f_inode).i_ino, (*bindings::get_current()).tgid) };
    let range = ByteRange::new(position(lock.start)?, position(lock.end)?);
    Ok(WantedLock {
        ino,
        class,
        owner: lock.owner.addr() as u64,
        file: file.addr() as u64,
        pid: pid.unsigned_abs(),
        range: range.ok_or(Errno::INVAL)?,
        mode: match lock.type_ {
            F_RDLCK => Mode::Read,
            F_WRLCK => Mode::Write,
            F_UNLCK => Mode::Null,
            _ => return Err(Errno::INVAL),
        },
    })
}

/// Takes a lock or gives it back.
///
/// # Safety
///
/// The file is one of ours, and the lock is what the caller wants.
unsafe fn set(file: *mut bindings::file, lock: *mut bindings::file_lock, class: LockClass) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        let lock = ffi::scoutfs_file_lock(lock);
        let wanted = wanted(file, &lock, class)?;
        let interrupted = || ffi::scoutfs_signal_pending();
        let waits = lock.flags & ffi::SCOUTFS_FL_SLEEP != 0;
        let wait: Option<&dyn Fn() -> bool> = if waits { Some(&interrupted) } else { None };
        let fs = volume((*(*file).f_inode).i_sb).mount.fs();
        let _nofs = NoFs::enter();
        match fs.set_lock(&wanted, wait) {
            Err(Error::Interrupted) => Err(Errno::RESTARTSYS),
            done => done.map_err(Errno::from),
        }
    }
}

/// fcntl.
pub(super) unsafe extern "C" fn lock(
    file: *mut bindings::file,
    cmd: c_int,
    lock: *mut bindings::file_lock,
) -> c_int {
    // SAFETY: the VFS gives a file of ours and a lock that is wanted or asked about.
    unsafe {
        match cmd {
            ffi::SCOUTFS_F_CANCELLK => 0,
            ffi::SCOUTFS_F_GETLK => code(test(file, lock)),
            _ => code(set(file, lock, LockClass::Fcntl)),
        }
    }
}

/// Puts what is in the way into the lock.
///
/// # Safety
///
/// As [`set`].
unsafe fn test(file: *mut bindings::file, lock: *mut bindings::file_lock) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        let mut found = ffi::scoutfs_file_lock(lock);
        let wanted = wanted(file, &found, LockClass::Fcntl)?;
        match with((*file).f_inode, |fs, _| fs.test_lock(&wanted))? {
            Some(other) => {
                found.type_ = if other.mode == Mode::Write { F_WRLCK } else { F_RDLCK };
                found.pid = other.pid as bindings::pid_t;
                found.start = offset(other.range.start());
                found.end = offset(other.range.end());
            }
            None => found.type_ = F_UNLCK,
        }
        ffi::scoutfs_set_file_lock(lock, &found);
    }
    Ok(())
}

/// flock.
pub(super) unsafe extern "C" fn flock(
    file: *mut bindings::file,
    _cmd: c_int,
    lock: *mut bindings::file_lock,
) -> c_int {
    // SAFETY: the VFS gives a file of ours and a lock that is wanted.
    code(unsafe { set(file, lock, LockClass::Flock) })
}

/// A process closes a descriptor.
pub(super) unsafe extern "C" fn flush(file: *mut bindings::file, owner: *mut c_void) -> c_int {
    // SAFETY: the VFS gives a file of ours.
    code(unsafe { with((*file).f_inode, |fs, ino| fs.drop_fcntl_locks(ino, owner.addr() as u64)) })
}

/// An open file is gone.
pub(super) fn drop_locks_of(fs: &Fs, ino: u64, file: *mut bindings::file) -> scoutfs_fs::Result<()> {
    let file = file.addr() as u64;
    fs.drop_locks_of_file(ino, file, Some(file))
}
