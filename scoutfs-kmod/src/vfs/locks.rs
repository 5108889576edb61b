// SPDX-License-Identifier: GPL-2.0-only
//! Locks that programs have on files, by fcntl and flock: the core's, which hold on all nodes.
//!
//! Owners are named by addresses: a process by that of its table of open files, an open file by its own.
//!
//! Of those by fcntl the VFS has a list, too, in which NFS servers look for what their clients have locked: a file without is closed.
//! Nothing is in the list that the core has not granted: a lock comes there last, and goes first.

use kernel::bindings;
use kernel::ffi::{c_int, c_void};
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode, WantedLock};
use scoutfs_fs::{Error, Fs};

use super::{volume, with};
use crate::ffi;
use crate::host::clock;
use crate::kobj::error::{check, code, Errno, Result};
use crate::kobj::folio::{offset, position};
use crate::kobj::nofs::NoFs;

const F_RDLCK: u8 = 0;
const F_WRLCK: u8 = 1;
const F_UNLCK: u8 = 2;

/// Before the VFS's list is looked at again.
const PAUSE_NS: u64 = 1_000_000;

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
unsafe fn set(file: *mut bindings::file, raw: *mut bindings::file_lock, class: LockClass) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        let lock = ffi::scoutfs_file_lock(raw);
        let wanted = wanted(file, &lock, class)?;
        let interrupted = || ffi::scoutfs_signal_pending();
        let waits = lock.flags & ffi::SCOUTFS_FL_SLEEP != 0;
        let wait: Option<&dyn Fn() -> bool> = if waits { Some(&interrupted) } else { None };
        let listed = matches!(class, LockClass::Fcntl);
        if listed && wanted.mode == Mode::Null {
            list(file, raw)?;
        }
        let fs = volume((*(*file).f_inode).i_sb).mount.fs();
        let ask = |wanted: &WantedLock, wait| {
            let _nofs = NoFs::enter();
            fs.set_lock(wanted, wait)
        };
        match ask(&wanted, wait) {
            Err(Error::Interrupted) => return Err(Errno::RESTARTSYS),
            done => done?,
        }
        if listed && wanted.mode != Mode::Null {
            if let Err(e) = list(file, raw) {
                ask(&WantedLock { mode: Mode::Null, ..wanted }, None)?;
                return Err(e);
            }
        }
        Ok(())
    }
}

/// Has the VFS note a lock that was granted, or forget one that is to be given back.
///
/// # Safety
///
/// As [`set`].
unsafe fn list(file: *mut bindings::file, lock: *mut bindings::file_lock) -> Result<()> {
    // SAFETY: by the contract.
    unsafe {
        ffi::scoutfs_file_lock_wait_not(lock);
        loop {
            match check(ffi::posix_lock_file(file, lock, core::ptr::null_mut())) {
                // It has, for a moment, one that was given back.
                Err(Errno::AGAIN) if ffi::scoutfs_fatal_signal_pending() => return Err(Errno::INTR),
                Err(Errno::AGAIN) => clock::sleep_ns(PAUSE_NS),
                done => return done.map(drop),
            }
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

/// A process closes a descriptor. The VFS has what is in its list given back afterwards.
pub(super) unsafe extern "C" fn flush(file: *mut bindings::file, owner: *mut c_void) -> c_int {
    // SAFETY: the VFS gives a file of ours.
    code(unsafe { with((*file).f_inode, |fs, ino| fs.drop_fcntl_locks(ino, owner.addr() as u64)) })
}

/// An open file is gone.
pub(super) fn drop_locks_of(fs: &Fs, ino: u64, file: *mut bindings::file) -> scoutfs_fs::Result<()> {
    let file = file.addr() as u64;
    fs.drop_locks_of_file(ino, file, Some(file))
}
