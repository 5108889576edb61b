// SPDX-License-Identifier: GPL-2.0-only
//! Values of the items in the server's own tree.

use crate::key::RawKey;
use crate::layout::{constants, layout};
use crate::le::{U32, U64};
use crate::voter::ProcessId;

constants! { SERVER_ITEM_CONSTANTS:
    /// [`MemberItem::state`]: mounted.
    pub const MEMBER_LIVE: u32 = 1;
    /// [`MemberItem::state`]: it left, or was reclaimed with its death confirmed; its logs are being merged and its
    /// space taken back. The item is removed when that is done.
    pub const MEMBER_GONE: u32 = 2;
    /// [`MemberItem::state`]: reclaimed by lease alone; quarantined until its death is confirmed.
    pub const MEMBER_FENCED: u32 = 3;
    /// [`MemberItem::state`]: nobody uses the slot; its numbers are kept, for they are never used again.
    pub const MEMBER_FREE: u32 = 4;
    /// Most extents in one part of a hand-over.
    pub const HAND_OVER_EXTENTS: u32 = 64;
}

layout! {
    /// The owner of a mount slot, as the server knows it.
    pub struct MemberItem {
        /// The mount.
        pub rid: U64,
        /// Its epoch: records of the slot with another one are ignored.
        pub epoch: U64,
        /// `MEMBER_*`.
        pub state: U32,
        /// By which fence the slot's owner, or the last one that was, was reclaimed by lease alone. Fences are counted over all slots,
        /// from 1; 0 is none.
        pub fence: U32,
        /// All log trees of this slot up to this number are completely merged and must not be read.
        pub merged_through: U64,
        /// Number of the last hand-over from the server to the slot.
        pub down_given: U64,
        /// Hand-overs from the server up to this number are known to be taken and are forgotten.
        pub down_forgotten: U64,
        /// Hand-overs from the slot up to this number were taken by the server.
        pub up_taken: U64,
        /// When the state is gone or fenced: the last record of the slot that counts; later ones are ignored.
        pub frozen_commit_nr: U64,
        /// When the state is gone: 1 when its space was taken back.
        pub reclaimed: U64,
        /// Who mounts.
        pub process: ProcessId,
    }

    /// Free space that the server owns.
    pub struct FreeItem {
        /// Blocks in units of the kind, or zones.
        pub len: U64,
    }

    /// One extent of a hand-over from the server: the value of its item is up to [`HAND_OVER_EXTENTS`] of them.
    pub struct HandOverExtent {
        /// First block.
        pub start: U64,
        /// Blocks.
        pub len: U32,
        /// The kind of space.
        pub kind: u8,
        pub pad: [u8; 3],
    }

    /// Progress of the merge of a log tree; once the log tree of a member that is gone is merged, progress of
    /// freeing its blocks; and, with log number `u64::MAX`, progress of taking back such a member's space.
    pub struct MergeItem {
        /// All items below this key are merged; or all blocks freed that hold only keys below this one; or
        /// all extents taken back that are below (`first` kind of space, `second` block).
        pub next: RawKey,
    }

    /// An extent of space that nobody uses, and that somebody whose death is not confirmed may still write: metadata blocks a former
    /// leader, data blocks mounts that were fenced.
    pub struct QuarantineItem {
        /// Blocks in units of the kind.
        pub len: U64,
        /// The leader's term; 0 for data blocks.
        pub term: U64,
        /// Data blocks are free when the deaths of all that were fenced up to this fence are confirmed; 0 for metadata blocks.
        pub fence: U32,
        pub pad: U32,
        /// The leader; when its death is confirmed the metadata blocks are free.
        pub process: ProcessId,
    }
}
