// SPDX-License-Identifier: GPL-2.0-only
//! 64 KiB metadata blocks: how they are checked, written and kept in memory.
//!
//! | module | what |
//! | --- | --- |
//! | `buffer` | [`Block`], clean and verified; [`NewBlock`], still being filled |
//! | `cache` | [`BlockCache`], which reads, writes and keeps blocks |
//! | `space` | [`BlockSpace`], where blocks to be written come from and freed ones go |
//! | `batch` | [`WriteBatch`], which writes neighbouring new blocks at once |
//!
//! # What must hold
//!
//! - A [`Block`] never changes. Its checksum, volume, number and seq were those of its reference when it was read, and
//!   the structure of a btree node was verified then, once.
//! - A block in the cache is found only by its whole reference, number and seq, so a block that was freed and written
//!   again, here or by another mount, is never taken for its successor.
//!
//! # Locking
//!
//! Each set of the cache has one lock of rank [`RANK_BLOCK_CACHE`]. No other lock is taken, no IO is done and nothing is
//! allocated or dropped but pointers while it is held.

mod batch;
mod buffer;
mod cache;
mod space;
#[cfg(test)]
mod tests;

pub use batch::WriteBatch;
pub use buffer::{Block, NewBlock};
pub use cache::{BlockCache, CacheStats, RANK_BLOCK_CACHE};
pub use space::BlockSpace;
