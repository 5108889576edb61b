// SPDX-License-Identifier: GPL-2.0-only
//! How many metadata blocks things take at most, as it follows from the sizes of blocks, rings, items and transactions.
//!
//! Both who spends blocks and who sees to it that there are some count by this.

use scoutfs_format::block::BLOCK_SIZE;
use scoutfs_format::space::SPACE_LIST_ENTRIES;
use scoutfs_format::tree::ItemHeader;

use super::list_blocks;
use crate::ring::RING_BYTES;

/// Bytes of items that one step of a deletion makes at most, headers included.
pub const DELETE_BYTES: usize = 32 << 10;
/// Bytes of items in one transaction of a mount that lives on its reserve, but for a single step that needs more.
pub const DELETE_TRANS_BYTES: usize = 32 << 10;

/// Transactions that can be on their way at once: the one that is being committed, and the open one.
const TRANSACTIONS: usize = 2;
/// A change of one extent item adds at most so many extents to what is free: what it frees, and what is left of what it takes.
const EXTENTS_OF_ITEM: usize = 2;
/// The root, the last leaf of each tree that is written, and the extents that taking the blocks themselves cuts off.
const FEW: u64 = 4;

/// Metadata blocks that a checkpoint takes at most to write so many bytes of items, and a list of so many extents: leaves are
/// half full at least, and each level above has at most a fiftieth of the one below.
pub fn checkpoint_blocks(bytes: u64, extents: usize) -> u64 {
    let leaves = bytes.div_ceil(BLOCK_SIZE as u64 / 2);
    leaves + leaves.div_ceil(50) + list_blocks(extents) as u64 + FEW
}

/// Metadata blocks that checkpoints may take with what the transactions of a mount may still hold, each up to `trans_bytes`, and
/// `bytes` more; `extents` are free before.
pub fn trans_blocks(trans_bytes: usize, bytes: usize, extents: usize) -> u64 {
    let bytes = (TRANSACTIONS * trans_bytes).saturating_add(bytes);
    let more = EXTENTS_OF_ITEM * (bytes / size_of::<ItemHeader>());
    checkpoint_blocks(bytes as u64, extents.saturating_add(more))
}

/// Metadata blocks by which the fs tree may grow when so many bytes of items are merged into it: half filled leaves.
pub fn merge_growth(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE as u64 / 2)
}

/// Metadata blocks with which a mount that has no more surely gets a step of a deletion to disk: a checkpoint of all that is in its
/// ring, and one of its transactions and the deletion. A mount whose free space is in more pieces than fit into a block of the
/// list must keep more, for it knows how many.
pub fn delete_blocks() -> u64 {
    let extents = SPACE_LIST_ENTRIES;
    let ring = checkpoint_blocks(RING_BYTES as u64, extents);
    ring + trans_blocks(DELETE_TRANS_BYTES, DELETE_BYTES, extents)
}
