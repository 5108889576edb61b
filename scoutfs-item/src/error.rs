// SPDX-License-Identifier: GPL-2.0-only
//! What can go wrong in the item cache.

use scoutfs_btree::Error;
use scoutfs_env::AllocError;
use scoutfs_format::Key;
use scoutfs_format::tree::MAX_VALUE_LEN;

/// Why an operation on items failed. It has changed nothing then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// To be created, but is there.
    #[error("the item exists")]
    Exists,
    /// To be changed, but is not there.
    #[error("no such item")]
    NotFound,
    /// Reading what the cache does not know failed.
    #[error(transparent)]
    Tree(#[from] Error),
    /// No memory.
    #[error("out of memory")]
    NoMemory,
    /// A range with uncommitted changes cannot be dropped.
    #[error("cannot drop {first} to {last}: the item {key} is not committed")]
    DirtyInvalidate {
        /// First key of the range.
        first: Key,
        /// Last key of the range.
        last: Key,
        /// The first dirty item in it.
        key: Key,
    },
    /// The caller, or its reader, broke a rule of the cache.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// A rule of the cache that its caller broke: a bug, from which there is no way on with these items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// The write would lose against what it replaces, or be a tie with it.
    #[error("version {given} for {key}, which has {item}{}", if *.dirty { "" } else { " of another transaction" })]
    VersionTooLow {
        /// The item.
        key: Key,
        /// Its version.
        item: u64,
        /// Whether this transaction wrote it; only then may the versions be equal.
        dirty: bool,
        /// Version of the write.
        given: u64,
    },
    /// An infallible change of an item that was not made dirty in this transaction.
    #[error("{key} was not made dirty")]
    NotDirty {
        /// The item.
        key: Key,
    },
    /// An infallible update with more bytes than the item has.
    #[error("{given} bytes for {key}, which was made dirty with {len}")]
    Grows {
        /// The item.
        key: Key,
        /// Bytes that it has.
        len: usize,
        /// Bytes that it should get.
        given: usize,
    },
    /// A value that no item may have.
    #[error("a value of {len} bytes for {key}, the longest allowed has {MAX_VALUE_LEN}")]
    ValueTooLong {
        /// The item.
        key: Key,
        /// Bytes of the value.
        len: usize,
    },
    /// A key that the caller's cluster lock does not cover.
    #[error("{key} is not in the locked range {first} to {last}")]
    OutOfBounds {
        /// The key.
        key: Key,
        /// First key that the lock covers.
        first: Key,
        /// Last key that the lock covers.
        last: Key,
    },
    /// The reader gave a range that does not hold the key or goes beyond what was asked for, or items that do
    /// not ascend in it.
    #[error("asked for {key}, the reader gave {first} to {last}: it or an item is out of place")]
    BadRead {
        /// The key that was asked for.
        key: Key,
        /// First key that the reader says it covered.
        first: Key,
        /// Last key that the reader says it covered.
        last: Key,
    },
}

impl From<AllocError> for ItemError {
    fn from(_: AllocError) -> Self {
        ItemError::NoMemory
    }
}
