// SPDX-License-Identifier: GPL-2.0-only
//! What can be wrong.

use scoutfs_env::AllocError;

use crate::{LockName, Mode};

/// An error of the lock machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// No memory. Nothing has changed.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
    /// A message has the wrong size.
    #[error("a lock message has {found} bytes, expected {expected}")]
    Length {
        /// As received.
        found: usize,
        /// As it should be.
        expected: usize,
    },
    /// A message names an unknown kind of lock.
    #[error("a lock has the unknown kind {found}")]
    Kind {
        /// As received.
        found: u8,
    },
    /// A message names a group of another size: locks of different sizes would overlap.
    #[error("a lock of kind {kind} has order {found}, expected {expected}")]
    Order {
        /// Of the lock.
        kind: u8,
        /// As received.
        found: u8,
        /// As it should be.
        expected: u8,
    },
    /// A message names a group that does not begin where groups begin.
    #[error("a lock of kind {kind} and order {order} cannot start at {start}")]
    Start {
        /// Of the lock.
        kind: u8,
        /// Of the lock.
        order: u8,
        /// As received.
        start: u64,
    },
    /// A message has an unknown mode.
    #[error("a lock message has the unknown mode {found}")]
    Mode {
        /// As received.
        found: u8,
    },
    /// Bytes that mean nothing are not zero.
    #[error("a lock message has stray bytes where zeros belong")]
    Stray,
    /// A lock was released that is not in use in this mode: a bug of the caller.
    #[error("{name} is released from mode {mode}, in which nobody uses it")]
    NotInUse {
        /// The lock.
        name: LockName,
        /// The mode.
        mode: Mode,
    },
    /// An invalidation was reported that was not asked for: a bug of the caller.
    #[error("{name} is reported as invalidated, which was not asked for")]
    NotInvalidating {
        /// The lock.
        name: LockName,
    },
    /// Null was asked for where a mode is needed: a bug of the caller.
    #[error("{name} is acquired in mode null")]
    AcquireNull {
        /// The lock.
        name: LockName,
    },
    /// A mount answers a revoke with more than it may keep.
    #[error("mount {client:016x} answers the revoke of {name} to {to} with mode {found}")]
    NotGivenBack {
        /// The mount.
        client: u64,
        /// The lock.
        name: LockName,
        /// What it may keep.
        to: Mode,
        /// What it says it keeps.
        found: Mode,
    },
    /// Two mounts report that they hold a lock in modes that exclude each other.
    #[error(
        "mount {client:016x} reports {name} in mode {mode}, but mount {other:016x} holds it in mode {other_mode}"
    )]
    Conflict {
        /// The lock.
        name: LockName,
        /// The mount that reports.
        client: u64,
        /// What it reports.
        mode: Mode,
        /// A mount that reported before.
        other: u64,
        /// What that one holds.
        other_mode: Mode,
    },
    /// A report came though recovery is over.
    #[error("mount {client:016x} reports {name} after recovery has ended")]
    NotRecovering {
        /// The mount.
        client: u64,
        /// The lock.
        name: LockName,
    },
    /// A lock of a file has no bytes, or some that no file has.
    #[error("a lock of a file is of the bytes {start} to {end}")]
    Range {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    },
    /// Two mounts report locks of a file that exclude each other.
    #[error("mount {client:016x} reports a lock of inode {ino} that excludes one of mount {other:016x}")]
    FileConflict {
        /// The inode.
        ino: u64,
        /// The mount that reports.
        client: u64,
        /// A mount that has a lock.
        other: u64,
    },
    /// A mount reports more locks of files than it can have.
    #[error("mount {client:016x} reports too many locks of files")]
    TooManyFileLocks {
        /// The mount.
        client: u64,
    },
}
