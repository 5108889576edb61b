// SPDX-License-Identifier: GPL-2.0-only
//! Extents of free space, and blocks that list them.
//!
//! A party (a mount, or the server for what it works with) writes all that it owns as a flat list, so that
//! writing down free space never needs an allocation that depends on what is written.

use crate::block::{BLOCK_SIZE, BlockHeader, BlockRef};
use crate::layout::{constants, layout};
use crate::le::{U32, U64};

constants! { SPACE_CONSTANTS:
    /// Metadata space, in units of 64 KiB blocks.
    pub const SPACE_META: u8 = 1;
    /// Data space, in units of 4 KiB blocks.
    pub const SPACE_DATA: u8 = 2;
    /// Whole empty zones, in zones from the first; a zone gets its kind when it is first leased.
    pub const SPACE_ZONES: u8 = 3;

    /// The extent is free and the list's owner may use it.
    pub const ENTRY_FREE: u8 = 1;
    /// Taken from the free space by the transaction (in records only).
    pub const ENTRY_USED: u8 = 2;
    /// Part of the hand-over `number` that the owner has given and whose taking is not yet known.
    pub const ENTRY_GIVEN: u8 = 3;
    /// The hand-over `number` is known to be taken: its given extents are forgotten (in records only).
    pub const ENTRY_FORGOTTEN: u8 = 4;
    /// Owned by nobody until the death of those who could still write it is confirmed.
    pub const ENTRY_QUARANTINE: u8 = 5;
}

/// Entries of one list block.
pub const SPACE_LIST_ENTRIES: usize = (BLOCK_SIZE - size_of::<SpaceListHeader>()) / size_of::<SpaceEntry>();

layout! {
    /// One extent and what it is.
    pub struct SpaceEntry {
        /// First block, in units of its kind.
        pub start: U64,
        /// Number of the hand-over for [`ENTRY_GIVEN`] and [`ENTRY_FORGOTTEN`], else 0.
        pub number: U64,
        /// Blocks, in units of its kind, not 0 (but 0 for [`ENTRY_FORGOTTEN`]).
        pub len: U32,
        /// [`SPACE_META`] or [`SPACE_DATA`].
        pub kind: u8,
        /// `ENTRY_*`.
        pub state: u8,
        pub pad: [u8; 2],
    }

    /// Begins a block of [`SpaceEntry`]s.
    pub struct SpaceListHeader {
        pub block: BlockHeader,
        /// The next block of the list, or none.
        pub next: BlockRef,
        /// Entries in this block.
        pub nr_entries: U32,
        pub pad: U32,
    }

    /// A list of space; none when it is empty.
    pub struct SpaceListRef {
        /// The first block.
        pub first: BlockRef,
        /// Blocks in the list, so that a reader can bound its walk.
        pub nr_blocks: U32,
        pub pad: U32,
    }
}
