// SPDX-License-Identifier: GPL-2.0-only
//! How many metadata blocks things take at most, as it follows from the sizes of blocks, rings and transactions.
//!
//! Both who spends blocks and who sees to it that there are some count by this.

use scoutfs_format::block::BLOCK_SIZE;
use scoutfs_format::geometry::Geometry;

use crate::ring::RING_BYTES;

/// Bytes of items that one step of a deletion makes at most.
pub const DELETE_BYTES: usize = 64 << 10;

/// Transactions that can be on their way at once: the one that is being committed, and the open one.
const TRANSACTIONS: u64 = 2;

/// Bytes of items in one transaction of a mount at most.
pub fn max_trans_bytes(geometry: &Geometry) -> usize {
    (geometry.volume_bytes() / 256).clamp(256 << 10, 8 << 20) as usize
}

/// Metadata blocks that a checkpoint takes at most to write so many bytes of items: leaves of which the last two may be half
/// full, each level above has at most a hundredth of the one below, and a few more for the list of space.
pub fn checkpoint_blocks(bytes: u64) -> u64 {
    let leaves = bytes.div_ceil(BLOCK_SIZE as u64 / 2);
    leaves + leaves.div_ceil(50) + 16
}

/// Metadata blocks that checkpoints may take with what the transactions of a mount may still hold, each up to `max_trans_bytes`,
/// and `bytes` more.
pub fn trans_blocks(max_trans_bytes: usize, bytes: usize) -> u64 {
    checkpoint_blocks((TRANSACTIONS * max_trans_bytes as u64).saturating_add(bytes as u64))
}

/// Metadata blocks by which the fs tree may grow when so many bytes of items are merged into it: half filled leaves.
pub fn merge_growth(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE as u64 / 2)
}

/// Metadata blocks with which a mount surely gets a step of a deletion to disk, whatever else is on its way: a checkpoint of all
/// that is in its ring, and one of full transactions with the deletion.
pub fn delete_blocks(geometry: &Geometry) -> u64 {
    checkpoint_blocks(RING_BYTES as u64) + trans_blocks(max_trans_bytes(geometry), DELETE_BYTES)
}
