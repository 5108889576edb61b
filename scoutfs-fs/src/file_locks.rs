// SPDX-License-Identifier: GPL-2.0-only
//! Locks that programs have on files, by fcntl and flock. They hold on all mounts.
//!
//! The filesystem does not care for them itself. All are in the server's table, which each request asks; it survives a change of
//! the server, because each mount tells the next one what it has. When a mount dies or is fenced its locks are free as soon as it is
//! reclaimed; the programs on one that was fenced are not told, but every use of the mount fails from then on.
//!
//! # What a front end does
//!
//! It names the owner of a lock: for fcntl the process (its table of open files), for flock and for locks of an open file
//! description that file. Names need to be different on one mount only. It calls [`Fs::drop_fcntl_locks`] for each descriptor that
//! a process closes, and [`Fs::drop_locks_of_file`] when an open file is gone.
//!
//! # As on Linux, and not
//!
//! - Who waits for a lock does not keep others from taking it before him.
//! - fcntl that is refused, interrupted or found to be a deadlock leaves what was held, also of a lock that it was to make weaker,
//!   and when the server changes meanwhile: it takes what is wanted beside it first, and gives back what is too much when it has that.
//! - flock gives the old lock back before it takes one of another kind.
//! - That processes wait for each other is found for fcntl, on all mounts. The threads of one process count as one, and the users of
//!   an open file description too, so locks of the latter may be refused as a deadlock that is none.
//! - Over FUSE, locks of an open file description go a moment after its last close returns: since Linux 6.18 the kernel does not
//!   wait for the answer to RELEASE.
//! - The process that has a lock is named only on its own mount; elsewhere it is 0.
//! - A mount can have so many locks and wait for so many ([`MAX_HELD`], [`MAX_WAITING`]).
//!
//! Locking: none is held while waiting.

use scoutfs_env::Arc;
pub use scoutfs_lock::Mode;
pub use scoutfs_lock::file_locks::{ByteRange, Found, LockClass, MAX_HELD, MAX_WAITING};
use scoutfs_lock::file_locks::{FileId, FileLock, FileLockOp, FileLockResult, Step};

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::store::Store;

/// A lock that a program wants, or wants to know of.
#[derive(Clone, Copy, Debug)]
pub struct WantedLock {
    /// The inode.
    pub ino: u64,
    /// By fcntl or flock.
    pub class: LockClass,
    /// Who wants it.
    pub owner: u64,
    /// The open file by which it is wanted; 0 when nobody will say that it is gone.
    pub file: u64,
    /// The process, for those who ask who has it.
    pub pid: u32,
    /// Which bytes; for flock it is all of them.
    pub range: ByteRange,
    /// Null gives it back.
    pub mode: Mode,
}

impl WantedLock {
    fn lock(&self) -> FileLock {
        let WantedLock { ino, class, owner, pid, mode, .. } = *self;
        let range = if class == LockClass::Flock { ByteRange::ALL } else { self.range };
        FileLock { file: FileId { ino, class }, owner, range, mode, pid }
    }
}

/// Has those who wait for locks look whether they were interrupted.
#[derive(Clone)]
pub struct LockWaker(Arc<Store>);

impl LockWaker {
    /// Blocks for a moment at most.
    pub fn wake(&self) {
        self.0.file_locks.wake();
    }
}

impl Fs {
    /// For those who interrupt waiters.
    pub fn lock_waker(&self) -> LockWaker {
        LockWaker(self.shared_store())
    }

    /// The first lock in the way of this one, if there is any.
    pub fn test_lock(&self, wanted: &WantedLock) -> Result<Option<Found>> {
        let locks = &self.store().file_locks;
        let answered = locks.request(self.store(), &Step::test(wanted.lock()), wanted.file, &|| false)?;
        Ok(answered.found)
    }

    /// Takes a lock or gives it back. With `wait`, waits as long as another is in the way, until `wait` says that the caller was
    /// interrupted; it is asked whenever [`LockWaker::wake`] is called.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another is in the way, [`Error::Interrupted`], [`Error::Deadlock`], [`Error::TooManyLocks`].
    pub fn set_lock(&self, wanted: &WantedLock, wait: Option<&dyn Fn() -> bool>) -> Result<()> {
        let (locks, lock) = (&self.store().file_locks, wanted.lock());
        if lock.mode == Mode::Null && !locks.concerns(lock.file, lock.owner, &lock.range) {
            return Ok(());
        }
        let wait = wait.filter(|_| lock.mode > Mode::Null);
        let op = if wait.is_some() { FileLockOp::Wait } else { FileLockOp::Set };
        match locks.set(self.store(), op, &lock, wanted.file, wait.unwrap_or(&|| false))? {
            FileLockResult::Done => Ok(()),
            FileLockResult::Blocked => Err(Error::Locked),
            FileLockResult::Deadlock => Err(Error::Deadlock),
            FileLockResult::Cancelled => Err(Error::Interrupted),
            FileLockResult::Full => Err(Error::TooManyLocks),
        }
    }

    /// A process closes a descriptor of a file: it has no lock of fcntl on it any more. Costs nothing when it has none.
    pub fn drop_fcntl_locks(&self, ino: u64, owner: u64) -> Result<()> {
        self.drop_locks(ino, LockClass::Fcntl, owner)
    }

    /// An open file is gone: what was locked by it, and the lock of flock of `flock_owner`.
    pub fn drop_locks_of_file(&self, ino: u64, file: u64, flock_owner: Option<u64>) -> Result<()> {
        if let Some(owner) = flock_owner {
            self.drop_locks(ino, LockClass::Flock, owner)?;
        }
        // Processes have closed it before, so these are locks of the open file description.
        while let Some(owner) =
            self.store().file_locks.owner_via(FileId { ino, class: LockClass::Fcntl }, file)
        {
            self.drop_locks(ino, LockClass::Fcntl, owner)?;
        }
        Ok(())
    }

    fn drop_locks(&self, ino: u64, class: LockClass, owner: u64) -> Result<()> {
        let (range, mode) = (ByteRange::ALL, Mode::Null);
        self.set_lock(&WantedLock { ino, class, owner, file: 0, pid: 0, range, mode }, None)
    }
}
