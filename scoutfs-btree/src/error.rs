// SPDX-License-Identifier: GPL-2.0-only
//! Everything that can go wrong with blocks and trees.

use scoutfs_env::AllocError;
use scoutfs_env::device::IoError;
use scoutfs_format::{BlockRef, Key};

use crate::ring::RingError;
use crate::space::SpaceError;

/// Why an operation on blocks or trees failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No memory.
    #[error("out of memory")]
    NoMemory,
    /// No metadata block is free.
    #[error("no metadata block is free")]
    NoSpace,
    /// A block is not, or no longer, the one that was referred to, perhaps because it is being written right now.
    /// The reader throws away what it has gathered and begins again from fresh roots.
    #[error("block {} is not that of seq {}.{}: {found}", .expected.blkno, .expected.trans_seq, .expected.counter)]
    Stale {
        /// The reference.
        expected: BlockRef,
        /// What is there instead.
        found: StaleBlock,
    },
    /// What is on the device breaks an invariant.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Space is not accounted for as it should be.
    #[error(transparent)]
    Space(SpaceError),
    /// A ring of commit records is damaged, or cannot take a record.
    #[error(transparent)]
    Ring(RingError),
    /// The caller's changes do not ascend.
    #[error("changes must ascend, but {key} follows {previous}")]
    Unsorted {
        /// Key of a change.
        previous: Key,
        /// Key of the change after it.
        key: Key,
    },
    /// The caller's value is longer than any item's may be.
    #[error("a value of {len} bytes at {key} is longer than the longest allowed")]
    ValueTooLong {
        /// Where.
        key: Key,
        /// Bytes of the value.
        len: usize,
    },
    /// A tree would get more levels than any may have.
    #[error("a tree cannot have more than {max} levels")]
    TreeTooHigh {
        /// The most levels that a tree may have.
        max: u8,
    },
}

/// What was found in place of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StaleBlock {
    /// The checksum is wrong.
    #[error("its checksum is {computed:#010x}, stored is {stored:#010x}")]
    Checksum {
        /// What the block says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A block of another volume.
    #[error("found a block of the volume {fsid:#018x}")]
    Volume {
        /// The other volume.
        fsid: u64,
    },
    /// A block that was written for another place or at another time.
    #[error("found block {blkno} of seq {trans_seq}.{counter}")]
    Other {
        /// The block's number as it says.
        blkno: u64,
        /// Its seq.
        trans_seq: u64,
        /// Its count in the transaction.
        counter: u32,
    },
}

/// An invariant that is broken on the device, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {blkno}: {kind}")]
pub struct Corruption {
    /// Number of the metadata block.
    pub blkno: u64,
    /// The invariant.
    pub kind: CorruptKind,
}

/// An invariant of metadata blocks that is broken. Indexes count the items of the block from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptKind {
    /// The block's number is not one of a metadata block of the zones.
    #[error("its number is outside of the zones")]
    OutsideZones,
    /// The block did not become what its reference says when everything was read again.
    #[error("unreadable: {0}")]
    Unreadable(StaleBlock),
    /// Another kind of block.
    #[error("its magic is {found:#010x}, expected {expected:#010x}")]
    Magic {
        /// The kind referred to.
        expected: u32,
        /// The kind found.
        found: u32,
    },
    /// The root's height is more than any tree has, or does not agree with its having a block.
    #[error("a tree of height {height} cannot have this root block")]
    Height {
        /// Levels that the root names.
        height: u8,
    },
    /// A node on another level than its parent or root says.
    #[error("its level is {found}, expected {expected}")]
    Level {
        /// One below the parent's.
        expected: u8,
        /// The node's.
        found: u8,
    },
    /// No items, or more than a node can hold.
    #[error("it counts {found} items, expected 1 to {max}")]
    ItemCount {
        /// What the node says.
        found: u32,
        /// Most items that fit.
        max: u32,
    },
    /// Keys do not ascend.
    #[error("item {index}: its key {key} is not above {previous}")]
    KeyOrder {
        /// Of the item.
        index: u32,
        /// Key of the item before it.
        previous: Key,
        /// Its key.
        key: Key,
    },
    /// Values do not lie one below the other.
    #[error("item {index}: its value is at {found}, expected {expected}")]
    ValueOffset {
        /// Of the item.
        index: u32,
        /// Where it has to be, 0 for none.
        expected: u32,
        /// Where the item says it is.
        found: u32,
    },
    /// A value is longer than any may be.
    #[error("item {index}: its value has {len} bytes, expected at most {max}")]
    ValueLen {
        /// Of the item.
        index: u32,
        /// Bytes that the item says.
        len: u32,
        /// Most bytes of a value.
        max: u32,
    },
    /// Values run into the items.
    #[error("item {index}: its value of {len} bytes does not fit into the {free} that are left")]
    ValueSpace {
        /// Of the item.
        index: u32,
        /// Bytes of the value.
        len: u32,
        /// Bytes left between items and values.
        free: u32,
    },
    /// The sum of the values' bytes is wrong.
    #[error("its values have {found} bytes, it counts {counted}")]
    ValueBytes {
        /// What the node says.
        counted: u32,
        /// The sum.
        found: u32,
    },
    /// Unknown flags, a deletion with a value, or flags or version in a parent.
    #[error(
        "item {index}: flags {flags:#x}, version {version} and {len} bytes do not go together on level {level}"
    )]
    ItemState {
        /// Of the item.
        index: u32,
        /// Level of the node.
        level: u8,
        /// The item's flags.
        flags: u8,
        /// Its version.
        version: u64,
        /// Bytes of its value.
        len: u32,
    },
    /// A parent's value is not a reference to a block of the zones.
    #[error("item {index}: block {blkno} cannot be a child")]
    Child {
        /// Of the item.
        index: u32,
        /// The number of the child.
        blkno: u64,
    },
    /// The first key of a parent is not the first that its own parent promised.
    #[error("its first key is {found}, expected {expected}")]
    FirstKey {
        /// The key in the node's parent.
        expected: Key,
        /// The node's.
        found: Key,
    },
    /// An item outside of the range that the node's parents give it.
    #[error("key {key} is not in {first} to {last}")]
    KeyOutside {
        /// The item's.
        key: Key,
        /// First key that the node covers.
        first: Key,
        /// Last key that the node covers.
        last: Key,
    },
    /// A block of a list of space counts more entries than it can hold.
    #[error("it counts {found} space entries, expected at most {max}")]
    ListEntries {
        /// What the block says.
        found: u32,
        /// Most entries that fit.
        max: u32,
    },
    /// A list of space that ends early, goes on after its end, or comes to a block twice.
    #[error("it cannot be block {at} of a list of {nr_blocks} blocks")]
    ListChain {
        /// Its place in the list, from 0.
        at: u32,
        /// Blocks of the list as its reference says.
        nr_blocks: u32,
    },
}

impl Error {
    /// Says that something on the device is wrong.
    pub const fn corrupt(blkno: u64, kind: CorruptKind) -> Self {
        Error::Corrupt(Corruption { blkno, kind })
    }

    /// Whether the reader should begin again from fresh roots.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Error::Stale { .. })
    }

    /// For the caller who began again and read the same roots: a block that is stale then is corrupt. Other errors
    /// stay what they are.
    pub fn stale_to_corrupt(self) -> Self {
        match self {
            Error::Stale { expected, found } => {
                Error::corrupt(expected.blkno.get(), CorruptKind::Unreadable(found))
            }
            other => other,
        }
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        Error::NoMemory
    }
}
