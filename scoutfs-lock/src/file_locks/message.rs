// SPDX-License-Identifier: GPL-2.0-only
//! What is said about locks of files.

use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    FILE_LOCK_BLOCKED, FILE_LOCK_CANCEL, FILE_LOCK_CANCELLED, FILE_LOCK_DEADLOCK, FILE_LOCK_DONE,
    FILE_LOCK_FCNTL, FILE_LOCK_FLOCK, FILE_LOCK_FULL, FILE_LOCK_LOWER, FILE_LOCK_SET, FILE_LOCK_TEST,
    FILE_LOCK_WAIT, FileLock as RawLock, FileLockReply as RawReply, FileLockRequest as RawRequest,
};

use crate::{LockError, Mode};

/// Which system call makes such locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockClass {
    /// fcntl: of ranges, by process or open file description.
    Fcntl,
    /// flock: of whole files, by open file description.
    Flock,
}

/// A file, as one class of locks sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// The class.
    pub class: LockClass,
}

/// Bytes of a file: never empty, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The last byte that a file can have. A range that ends there goes on to the end of the file, however it grows.
    pub const MAX_END: u64 = i64::MAX as u64;
    /// All of a file.
    pub const ALL: ByteRange = ByteRange { start: 0, end: Self::MAX_END };

    /// The bytes `start..=end`; none when there are none, or some that no file has.
    pub const fn new(start: u64, end: u64) -> Option<ByteRange> {
        if start <= end && end <= Self::MAX_END { Some(ByteRange { start, end }) } else { None }
    }

    /// First byte.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Last byte.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// What both have, if anything.
    pub fn common(&self, other: &ByteRange) -> Option<ByteRange> {
        ByteRange::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A lock that somebody on a mount has or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// The file.
    pub file: FileId,
    /// The mount's name for whose it is.
    pub owner: u64,
    /// Which bytes; all for flock.
    pub range: ByteRange,
    /// Null gives it back.
    pub mode: Mode,
    /// The process, as its mount's machine calls it.
    pub pid: u32,
}

impl FileLock {
    /// Checks a received lock.
    pub fn from_raw(raw: &RawLock) -> Result<FileLock, LockError> {
        let class = match raw.class {
            FILE_LOCK_FCNTL => LockClass::Fcntl,
            FILE_LOCK_FLOCK => LockClass::Flock,
            found => return Err(LockError::Kind { found }),
        };
        let (start, end) = (raw.start.get(), raw.end.get());
        let range = ByteRange::new(start, end).ok_or(LockError::Range { start, end })?;
        if class == LockClass::Flock && range != ByteRange::ALL {
            return Err(LockError::Range { start, end });
        }
        if raw.pad != [0; 2] {
            return Err(LockError::Stray);
        }
        Ok(FileLock {
            file: FileId { ino: raw.ino.get(), class },
            owner: raw.owner.get(),
            range,
            mode: Mode::parse(raw.mode)?,
            pid: raw.pid.get(),
        })
    }

    /// As it is sent.
    pub const fn to_raw(&self) -> RawLock {
        RawLock {
            ino: U64::new(self.file.ino),
            owner: U64::new(self.owner),
            start: U64::new(self.range.start),
            end: U64::new(self.range.end),
            pid: U32::new(self.pid),
            class: match self.file.class {
                LockClass::Fcntl => FILE_LOCK_FCNTL,
                LockClass::Flock => FILE_LOCK_FLOCK,
            },
            mode: self.mode.to_raw(),
            pad: [0; 2],
        }
    }
}

/// What is wanted of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileLockOp {
    /// To know which lock is in its way.
    Test,
    /// To have it now. What is held of its range in a higher mode stays so.
    Set,
    /// The same, as soon as nothing is in its way.
    Wait,
    /// To have nothing more of its range than that, with [`Mode::Null`] nothing. It takes nothing, so nothing can be in its way.
    Lower,
    /// To wait for it no longer.
    Cancel,
}

/// A request of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLockRequest {
    /// The mount counts its requests, from 1; a cancel has the number of what it cancels.
    pub id: u64,
    /// What is wanted.
    pub op: FileLockOp,
    /// Of what.
    pub lock: FileLock,
}

impl FileLockRequest {
    /// Checks a received request.
    pub fn from_raw(raw: &RawRequest) -> Result<FileLockRequest, LockError> {
        let op = match raw.op {
            FILE_LOCK_TEST => FileLockOp::Test,
            FILE_LOCK_SET => FileLockOp::Set,
            FILE_LOCK_WAIT => FileLockOp::Wait,
            FILE_LOCK_LOWER => FileLockOp::Lower,
            FILE_LOCK_CANCEL => FileLockOp::Cancel,
            found => return Err(LockError::Kind { found }),
        };
        if raw.pad != [0; 7] || raw.id.get() == 0 {
            return Err(LockError::Stray);
        }
        Ok(FileLockRequest { id: raw.id.get(), op, lock: FileLock::from_raw(&raw.lock)? })
    }

    /// As it is sent.
    pub const fn to_raw(&self) -> RawRequest {
        RawRequest {
            id: U64::new(self.id),
            lock: self.lock.to_raw(),
            op: match self.op {
                FileLockOp::Test => FILE_LOCK_TEST,
                FileLockOp::Set => FILE_LOCK_SET,
                FileLockOp::Wait => FILE_LOCK_WAIT,
                FileLockOp::Lower => FILE_LOCK_LOWER,
                FileLockOp::Cancel => FILE_LOCK_CANCEL,
            },
            pad: [0; 7],
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileLockResult {
    /// Done.
    Done,
    /// Another lock is in the way.
    Blocked,
    /// It would wait for itself.
    Deadlock,
    /// It does not wait any longer.
    Cancelled,
    /// The mount has too many.
    Full,
}

/// A lock that is in the way of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which bytes.
    pub range: ByteRange,
    /// Read or write.
    pub mode: Mode,
    /// The process, if it is on the mount that asks; otherwise 0.
    pub pid: u32,
}

/// An answer to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLockReply {
    /// The request's; 0 of a cancel.
    pub id: u64,
    /// What became of it.
    pub result: FileLockResult,
    /// Of a test: what is in the way.
    pub found: Option<Found>,
}

impl FileLockReply {
    /// Checks a received answer.
    pub fn from_raw(raw: &RawReply) -> Result<FileLockReply, LockError> {
        let result = match raw.result {
            FILE_LOCK_DONE => FileLockResult::Done,
            FILE_LOCK_BLOCKED => FileLockResult::Blocked,
            FILE_LOCK_DEADLOCK => FileLockResult::Deadlock,
            FILE_LOCK_CANCELLED => FileLockResult::Cancelled,
            FILE_LOCK_FULL => FileLockResult::Full,
            found => return Err(LockError::Kind { found }),
        };
        if raw.pad != [0; 2] {
            return Err(LockError::Stray);
        }
        let found = match Mode::parse(raw.mode)? {
            Mode::Null if (raw.start, raw.end, raw.pid) == (U64::ZERO, U64::ZERO, U32::ZERO) => None,
            Mode::Null => return Err(LockError::Stray),
            mode => {
                let (start, end) = (raw.start.get(), raw.end.get());
                let range = ByteRange::new(start, end).ok_or(LockError::Range { start, end })?;
                Some(Found { range, mode, pid: raw.pid.get() })
            }
        };
        Ok(FileLockReply { id: raw.id.get(), result, found })
    }

    /// As it is sent.
    pub fn to_raw(&self) -> RawReply {
        let (start, end, pid, mode) = match self.found {
            Some(Found { range, mode, pid }) => (range.start, range.end, pid, mode),
            None => (0, 0, 0, Mode::Null),
        };
        RawReply {
            id: U64::new(self.id),
            start: U64::new(start),
            end: U64::new(end),
            pid: U32::new(pid),
            mode: mode.to_raw(),
            result: match self.result {
                FileLockResult::Done => FILE_LOCK_DONE,
                FileLockResult::Blocked => FILE_LOCK_BLOCKED,
                FileLockResult::Deadlock => FILE_LOCK_DEADLOCK,
                FileLockResult::Cancelled => FILE_LOCK_CANCELLED,
                FileLockResult::Full => FILE_LOCK_FULL,
            },
            pad: [0; 2],
        }
    }
}
