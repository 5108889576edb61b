// SPDX-License-Identifier: GPL-2.0-only
//! What can go wrong in the server.

use scoutfs_btree::ring::RingError;
use scoutfs_env::AllocError;
use scoutfs_env::device::IoError;
use scoutfs_format::Key;

use crate::super_block::SuperError;

/// What went wrong in the server, in mkfs, or while roots were read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServerError {
    /// A metadata block, a tree, a list of space, or the device below them.
    #[error(transparent)]
    Tree(scoutfs_btree::Error),
    /// The super block.
    #[error(transparent)]
    Super(SuperError),
    /// The device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No memory.
    #[error("out of memory")]
    NoMemory,
    /// Another volume than the one that was opened.
    #[error("the volume is {found:016x}, expected {expected:016x}")]
    OtherVolume {
        /// The volume that was opened.
        expected: u64,
        /// The volume that is there now.
        found: u64,
    },
    /// A mount slot's ring.
    #[error("mount slot {slot}: {what}")]
    Slot {
        /// Which slot.
        slot: u32,
        /// What is wrong.
        what: SlotProblem,
    },
    /// An item of the server's own tree.
    #[error("server item {key}: {what}")]
    Item {
        /// Its key.
        key: Key,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Space that is owned twice, or that cannot be.
    #[error(transparent)]
    Space(scoutfs_btree::space::SpaceError),
    /// An entry in the list of the working set that is not free metadata.
    #[error("the working set lists block {start}, but not as free metadata")]
    Work {
        /// Its first block.
        start: u64,
    },
    /// A server cannot begin in a term that another one has written in.
    #[error("term {term} is not above that of the newest super block, {newest}")]
    Term {
        /// The server's.
        term: u64,
        /// Of the newest super block.
        newest: u64,
    },
    /// There is no such voter slot.
    #[error("voter slot {voter} of {nr_voters}")]
    Voter {
        /// The slot.
        voter: u32,
        /// How many the volume has.
        nr_voters: u32,
    },
    /// A leader cannot begin before the death of some that led before it is known, or they have left.
    #[error(
        "leaders before this one may still write, and no {lacks} is left for another: confirm their deaths"
    )]
    FormerLeaders {
        /// What there is none of.
        lacks: &'static str,
    },
    /// A counter of the super block that no volume reaches.
    #[error("the super block's {what} is {found}")]
    Counter {
        /// Which one.
        what: &'static str,
        /// As stored.
        found: u64,
    },
    /// The server stopped after an earlier failure.
    #[error("the server stopped after an error")]
    Stopped,
}

/// What is wrong with a mount slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotProblem {
    /// Its records are newer than the member that the server knows.
    #[error("records of epoch {found}, but its member has epoch {expected}")]
    FutureEpoch {
        /// Epoch of the member item.
        expected: u64,
        /// Epoch of the records.
        found: u64,
    },
    /// A record that must be there is missing or damaged.
    #[error(transparent)]
    Ring(RingError),
    /// Items in records, but no log tree that they belong to.
    #[error("record {commit_nr} has items but no log tree")]
    NoLog {
        /// Number of the record.
        commit_nr: u64,
    },
}

// No memory and a device that fails are what they are, whoever met them.

impl From<scoutfs_btree::Error> for ServerError {
    fn from(e: scoutfs_btree::Error) -> Self {
        match e {
            scoutfs_btree::Error::NoMemory => ServerError::NoMemory,
            scoutfs_btree::Error::Io(e) => ServerError::Io(e),
            e => ServerError::Tree(e),
        }
    }
}

impl From<SuperError> for ServerError {
    fn from(e: SuperError) -> Self {
        match e {
            SuperError::NoMemory(_) => ServerError::NoMemory,
            SuperError::Io(e) => ServerError::Io(e),
            e => ServerError::Super(e),
        }
    }
}

impl From<scoutfs_btree::space::SpaceError> for ServerError {
    fn from(e: scoutfs_btree::space::SpaceError) -> Self {
        match e {
            scoutfs_btree::space::SpaceError::NoMemory => ServerError::NoMemory,
            e => ServerError::Space(e),
        }
    }
}

impl From<AllocError> for ServerError {
    fn from(_: AllocError) -> Self {
        ServerError::NoMemory
    }
}
