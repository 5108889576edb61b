// SPDX-License-Identifier: GPL-2.0-only
//! A mount's slot: the ring of commit records.
//!
//! A record is a stream of bytes cut into frames of 4 KiB that follow each other in the ring (a record never
//! wraps: it begins anew at frame 0 when it would not fit before the end). Every frame begins with a
//! [`FrameHeader`], which no user data can reach, so that content of a record is never taken for a frame. The
//! record is valid when all its frames are.
//!
//! The stream is a [`RecordHeader`], then `nr_logs` [`LogTree`]s, `nr_space` space entries
//! ([`SpaceEntry`](crate::space::SpaceEntry)), and `nr_items` items, each an [`InlineItem`] and its value.
//!
//! The newest record (the highest commit number of the slot's epoch) tells the mount's roots. A *checkpoint*
//! record has no items of its own before it: its trees and its space list hold all. Items and space entries of
//! the records after the last checkpoint, up to and including the newest, are applied on top, in order. (Where the
//! mount's space is few entries, the checkpoint itself holds them and its list is empty.)

use crate::block::SECTOR_SIZE;
use crate::key::RawKey;
use crate::layout::{constants, layout};
use crate::le::{I64, U16, U32, U64};
use crate::space::SpaceListRef;
use crate::tree::TreeRoot;
use crate::voter::ProcessId;

constants! { RING_CONSTANTS:
    /// Magic of a frame.
    pub const MAGIC_FRAME: u32 = 0x6674_6373;
    /// Most frames of one record.
    pub const MAX_RECORD_FRAMES: u32 = 16;
    /// Most log trees that a record names.
    pub const MAX_LOGS: u32 = 64;
    /// [`RecordHeader::flags`]: nothing before this record is needed.
    pub const RECORD_CHECKPOINT: u32 = 1;
    /// [`RecordHeader::flags`]: the mount left; nothing follows in this epoch.
    pub const RECORD_CLEAN: u32 = 2;
    /// [`LogTree::flags`]: the tree will not change any more, and is to be merged.
    pub const LOG_FINALIZED: u32 = 1;
    /// [`LogTree::flags`]: the tree will not change any more, but its mount may replace it, with others, by a larger one.
    pub const LOG_SEALED: u32 = 2;
}

/// Bytes of a record's stream that one frame carries.
pub const FRAME_PAYLOAD: usize = SECTOR_SIZE - size_of::<FrameHeader>();

layout! {
    /// Begins each 4 KiB frame of a ring.
    pub struct FrameHeader {
        /// crc32c of the frame from the byte after this field to its end.
        pub crc: U32,
        /// [`MAGIC_FRAME`].
        pub magic: U32,
        /// The volume.
        pub fsid: U64,
        /// Number of the record; a slot never uses a number twice.
        pub commit_nr: U64,
        /// The slot whose ring this is.
        pub slot: U16,
        /// This frame in the record, from 0.
        pub index: u8,
        /// Frames in the record.
        pub count: u8,
        /// Bytes of the stream in this frame, not 0.
        pub payload_len: U16,
        pub pad: U16,
        /// Epoch of the slot's owner.
        pub epoch: U64,
    }

    /// Begins the stream of a record: the state of the mount.
    pub struct RecordHeader {
        /// The mount.
        pub rid: U64,
        /// `RECORD_*`.
        pub flags: U32,
        /// Log trees that follow, in a checkpoint, oldest first: finalized ones, sealed ones, and the open one, to which
        /// the items of the records belong. Other records name none: they are those of the checkpoint.
        pub nr_logs: U32,
        /// Space entries that follow.
        pub nr_space: U32,
        /// Items that follow.
        pub nr_items: U32,
        /// Number of the newest checkpoint at or before this record.
        pub checkpoint_nr: U64,
        /// Seq of the transaction that this record commits.
        pub trans_seq: U64,
        /// Block counter: blocks of `trans_seq` that were written have lower ones.
        pub block_counter: U32,
        pub pad: U32,
        /// Hand-overs from the server that were taken: all up to this number.
        pub taken: U64,
        /// Hand-overs to the server that were given: all up to this number.
        pub given: U64,
        /// Inodes made less inodes deleted by this mount in this epoch.
        pub inode_delta: I64,
        /// Bytes of the items of all log trees that are not finalized, at the checkpoint (an estimate that decides when to
        /// finalize).
        pub log_bytes: U64,
        /// The mount's space at the checkpoint.
        pub space: SpaceListRef,
        /// Who mounts.
        pub process: ProcessId,
    }

    /// One of a mount's log trees.
    pub struct LogTree {
        /// Its number: a slot counts its log trees and uses no number twice.
        pub nr: U64,
        /// Its root. The open tree's newest items are in the records.
        pub root: TreeRoot,
        /// No item in it has, or will have, a lower version than this.
        pub min_version: U64,
        /// No item in it has a higher version than this (so far, for the open tree).
        pub max_version: U64,
        /// [`LOG_FINALIZED`], [`LOG_SEALED`], or 0 for the open tree.
        pub flags: U32,
        pub pad: U32,
        /// Room for a filter over the keys that the tree may hold.
        pub filter: crate::block::BlockRef,
    }

    /// An item in a record, before its value.
    pub struct InlineItem {
        pub key: RawKey,
        /// Its version.
        pub version: U64,
        /// Bytes of the value that follows.
        pub val_len: U16,
        /// [`ITEM_FLAGS`](crate::tree::ITEM_FLAGS).
        pub flags: u8,
        pub pad: [u8; 5],
    }
}
