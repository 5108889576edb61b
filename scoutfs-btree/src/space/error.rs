// SPDX-License-Identifier: GPL-2.0-only
//! What can go wrong with space.

use scoutfs_env::AllocError;

use super::{Extent, SpaceKind};
use crate::Error;

/// Who owns a block that somebody else was said to own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is free.
    Free,
    /// It was allocated and is not yet in use.
    Held,
    /// It was freed, or came with a hand-over, and cannot be used before the commit.
    Added,
    /// It was given away with a hand-over.
    Given,
    /// Another transaction that is not yet durable put it to use.
    Used,
}

impl Owner {
    const fn text(self) -> &'static str {
        match self {
            Owner::Free => "free",
            Owner::Held => "held",
            Owner::Added => "freed",
            Owner::Given => "given away",
            Owner::Used => "used by another transaction",
        }
    }
}

/// Why an operation on space failed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// No memory.
    #[error("no memory to account for space")]
    NoMemory,
    /// No block of the kind is free. The blocks that a commit would free, if there are any, can be waited for.
    #[error("no free {kind} block; {pending} wait for a commit")]
    NoSpace {
        /// The kind.
        kind: SpaceKind,
        /// Blocks of the kind that become free with the commits of the current transactions.
        pending: u64,
    },
    /// The free metadata blocks are kept for commits and deletes.
    #[error("{free} metadata blocks are free, {reserve} are kept; {pending} wait for a commit")]
    Reserved {
        /// Free metadata blocks.
        free: u64,
        /// Blocks that are kept.
        reserve: u64,
        /// Blocks that become free with the commits of the current transactions.
        pending: u64,
    },

    /// An extent without blocks, or one that ends after the last block number.
    #[error("an extent of {len} blocks at {start} is impossible")]
    Impossible {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// An extent that is not in the zones of the volume.
    #[error("{kind} blocks {start} + {len} are not in the volume's zones")]
    OutsideZones {
        /// The kind.
        kind: SpaceKind,
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// An extent was to be added to a set that has some of its blocks.
    #[error("blocks {start} + {len} overlap with {}", .with)]
    Overlap {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
        /// What is in the set.
        with: Extent,
    },
    /// An extent was to be removed from a set that does not have all of its blocks.
    #[error("blocks {start} + {len} are not all in the set")]
    NotInSet {
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// Blocks were freed, taken or given that are somebody else's.
    #[error("of {kind} blocks {start} + {len}, {with} are {}", .owner.text())]
    Owned {
        /// The kind.
        kind: SpaceKind,
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
        /// Where the owner's blocks are.
        with: Extent,
        /// The owner.
        owner: Owner,
    },
    /// Metadata and data space overlap.
    #[error("metadata blocks {start} + {len} are data blocks as well")]
    TwoKinds {
        /// First metadata block.
        start: u64,
        /// Metadata blocks.
        len: u64,
    },

    /// An entry that cannot be in the list or record.
    #[error("a space entry of kind {kind}, state {state}, number {number}, {start} + {len} cannot be here")]
    Entry {
        /// Kind of the entry.
        kind: u8,
        /// State of the entry.
        state: u8,
        /// Number of the entry's hand-over.
        number: u64,
        /// First block.
        start: u64,
        /// Blocks.
        len: u32,
    },
    /// A hand-over out of order.
    #[error("hand-over {found} cannot follow {last}")]
    HandOverOrder {
        /// The last one.
        last: u64,
        /// The one after it.
        found: u64,
    },
    /// A hand-over was said to be taken whose giving is not durable.
    #[error("hand-over {number} cannot be taken: hand-overs after {durable} are not durable")]
    NotGiven {
        /// The hand-over.
        number: u64,
        /// The last one whose giving is durable.
        durable: u64,
    },

    /// A transaction was to be closed before the commit of the one before it was done.
    #[error("the transaction before is still being committed")]
    CommitPending,
    /// No transaction, or another one, is being committed.
    #[error("that transaction is not being committed")]
    NoCommit,
    /// The entries of a transaction cannot be had once a checkpoint has begun, nor can blocks be had from a checkpoint
    /// whose list has been made.
    #[error("the checkpoint has gone too far for this")]
    CheckpointOrder,
}

impl From<AllocError> for SpaceError {
    fn from(_: AllocError) -> Self {
        SpaceError::NoMemory
    }
}

impl From<SpaceError> for Error {
    fn from(error: SpaceError) -> Self {
        match error {
            SpaceError::NoMemory => Error::NoMemory,
            SpaceError::NoSpace { .. } | SpaceError::Reserved { .. } => Error::NoSpace,
            other => Error::Space(other),
        }
    }
}
