// SPDX-License-Identifier: GPL-2.0-only
//! Metadata blocks, free space, copy-on-write btrees, and the forest of log trees that is read as one.
//!
//! | module | what |
//! | --- | --- |
//! | [`error`] | everything that can go wrong, one variant per violated invariant |
//! | [`block`] | 64 KiB metadata blocks and the cache of clean, verified ones |
//! | [`tree`] | btrees of immutable nodes: lookup, batch changes, freeing, walking |
//! | [`forest`] | the fs tree, all log trees and the tails of the rings, read together |
//! | [`merge`] | merging a finalized log tree into the fs tree, piece by piece |
//! | [`space`] | extents of free space, lists of them, and what one mount owns |
//! | [`ring`] | a mount slot's ring of commit records |
//!
//! # What must hold
//!
//! - A metadata block is written once, before anything refers to it, and never changed while something does.
//!   So the cache holds no dirty block, and whoever holds a root may read its whole tree without a lock, until
//!   the tree's blocks are freed and used again, which the reader sees as [`Error::Stale`].
//! - Nothing that is read from a device can make this crate panic, loop, recurse deeper than the height of a
//!   tree or allocate without bound.
//! - On an error a change leaves nothing behind but blocks that its [`BlockSpace`] must roll back.
//!
//! # Locking
//!
//! Only the [block cache](block::BlockCache) has locks: innermost ones, held for a few instructions, never during IO.
//! Everything else is a value that its owner changes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod block;
pub mod error;
pub mod forest;
pub mod merge;
pub mod ring;
pub mod space;
pub mod tree;

#[cfg(test)]
mod testing;

pub use block::{Block, BlockCache, BlockSpace, NewBlock, WriteBatch};
pub use error::{CorruptKind, Corruption, Error, StaleBlock};
pub use forest::{ForestRoots, LogSource, RangeItems, Tail, TailSource, read_range};
pub use merge::{MergeStep, merge_step};
pub use tree::{
    Applied, ApplyStats, ChangeSource, Cursor, FreeCursor, Item, ItemGuard, Leaf, Limit, Node, OwnedItem,
    Place, Rule, SliceSource, Visitor, apply, free_tree, leaf, lookup, next, walk, walk_down_to,
};
