// SPDX-License-Identifier: GPL-2.0-only
//! What can be wrong with a ring or a record.

use scoutfs_env::AllocError;
use scoutfs_format::Key;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::ring::{MAX_LOGS, MAX_RECORD_FRAMES};
use scoutfs_format::tree::MAX_VALUE_LEN;

use super::RING_BYTES;
use crate::Error;

/// Why a ring cannot be read or a record cannot be made or placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No memory.
    #[error("no memory for a commit record")]
    NoMemory,

    /// The ring must be read as a whole.
    #[error("a ring has {RING_BYTES} bytes, not {found}")]
    RingLength {
        /// Bytes given.
        found: usize,
    },
    /// The newest record builds on one that is not there.
    #[error("record {commit_nr} builds on record {missing}, which is missing or damaged")]
    Missing {
        /// The newest record.
        commit_nr: u64,
        /// The record that it needs.
        missing: u64,
    },
    /// Two valid records have one number.
    #[error("record {commit_nr} is there twice, in frames {first} and {second}")]
    Duplicate {
        /// The number.
        commit_nr: u64,
        /// First frame of one of them.
        first: u32,
        /// First frame of the other.
        second: u32,
    },
    /// A record names a checkpoint that cannot be its own.
    #[error("record {commit_nr} names record {found} as its checkpoint")]
    CheckpointNumber {
        /// The record.
        commit_nr: u64,
        /// What it names.
        found: u64,
    },
    /// A record follows one that said that the mount left.
    #[error("record {commit_nr} says that the mount left, but is not the newest")]
    AfterClean {
        /// The record that says so.
        commit_nr: u64,
    },

    /// The stream ends in the middle of something, or goes on after its end.
    #[error("record {commit_nr} has {found} bytes where its counts need {expected}")]
    StreamLength {
        /// The record.
        commit_nr: u64,
        /// Bytes that its counts need, as far as they can be known.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// Unknown flags of a record.
    #[error("record {commit_nr} has unknown flags {flags:#x}")]
    RecordFlags {
        /// The record.
        commit_nr: u64,
        /// Its flags.
        flags: u32,
    },
    /// More log trees than a record may name, or some in one that is no checkpoint.
    #[error("record {commit_nr} has {found} log trees: a checkpoint may have {MAX_LOGS}, other records none")]
    LogCount {
        /// The record.
        commit_nr: u64,
        /// Its log trees.
        found: u32,
    },
    /// A log tree that cannot be.
    #[error("record {commit_nr}: log tree {log_nr} is impossible")]
    Log {
        /// The record.
        commit_nr: u64,
        /// The log tree's number.
        log_nr: u64,
    },
    /// A space entry that cannot be in a record.
    #[error(
        "record {commit_nr}: space entry of kind {kind}, state {state}, start {start}, len {len} is impossible"
    )]
    Space {
        /// The record.
        commit_nr: u64,
        /// Kind of the entry.
        kind: u8,
        /// State of the entry.
        state: u8,
        /// First block.
        start: u64,
        /// Blocks.
        len: u32,
    },
    /// An item whose value or flags cannot be.
    #[error("record {commit_nr}: item {key:?} with flags {flags:#x} and {val_len} bytes is impossible")]
    Item {
        /// The record; 0 while it is being built.
        commit_nr: u64,
        /// The item's key.
        key: Key,
        /// Its flags.
        flags: u8,
        /// Bytes of its value; at most [`MAX_VALUE_LEN`].
        val_len: usize,
    },
    /// Items that are not in order.
    #[error("record {commit_nr}: item {key:?} does not come after {before:?}")]
    ItemOrder {
        /// The record; 0 while it is being built.
        commit_nr: u64,
        /// The item before.
        before: Key,
        /// The item's key.
        key: Key,
    },

    /// What was to be added makes the record longer than a record can be.
    #[error("a record has at most {MAX_RECORD_FRAMES} frames")]
    RecordFull,
    /// The ring has no room but for a checkpoint.
    #[error("a record of {frames} frames does not fit before the next checkpoint")]
    NeedCheckpoint {
        /// Frames of the record.
        frames: u32,
    },
    /// A checkpoint that is longer than what is kept free for one, and does not fit.
    #[error("a checkpoint of {frames} frames does not fit into {free} of {RING_FRAMES}")]
    CheckpointTooLong {
        /// Frames of the record.
        frames: u32,
        /// Frames that may be written.
        free: u32,
    },
    /// The record placed before is not known to be durable: it must be written again, as it is.
    #[error("record {commit_nr} is not durable yet")]
    WritePending {
        /// The record placed before.
        commit_nr: u64,
    },
    /// A record was said to be durable that is not the one that was placed.
    #[error("record {commit_nr} was not placed")]
    NotPlaced {
        /// The record.
        commit_nr: u64,
    },
    /// The mount has left: nothing may follow.
    #[error("record {commit_nr} said that the mount left")]
    Left {
        /// The last record.
        commit_nr: u64,
    },
    /// The slot holds records of this or a later epoch.
    #[error("the ring has records of epoch {found}, the new owner's is {epoch}")]
    EpochNotNew {
        /// Of the new owner.
        epoch: u64,
        /// Of the records.
        found: u64,
    },
    /// The numbers have run out.
    #[error("no record number is left after {commit_nr}")]
    NumbersExhausted {
        /// The last number.
        commit_nr: u64,
    },
}

const _: () = assert!(MAX_VALUE_LEN <= u16::MAX as usize);

impl RingError {
    /// Whether a ring that is being written while it is read can look like this. If it looks the same again, it is
    /// damaged.
    pub const fn may_be_transient(&self) -> bool {
        matches!(self, RingError::Missing { .. })
    }
}

impl From<AllocError> for RingError {
    fn from(_: AllocError) -> Self {
        RingError::NoMemory
    }
}

impl From<RingError> for Error {
    fn from(error: RingError) -> Self {
        match error {
            RingError::NoMemory => Error::NoMemory,
            other => Error::Ring(other),
        }
    }
}
