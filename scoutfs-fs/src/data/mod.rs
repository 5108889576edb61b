// SPDX-License-Identifier: GPL-2.0-only
//! Data of regular files.
//!
//! | module | what |
//! | --- | --- |
//! | `extent` | extents, and changing what a range of a file maps to |
//! | `state` | what is kept in memory of a file that is being written |
//! | `block_io` | reading and writing runs of blocks, whole ones without a copy |
//! | `read` | read, SEEK_DATA, SEEK_HOLE |
//! | `read_ahead` | reading for which nobody waits |
//! | `write` | write, append |
//! | `behind` | writes that are answered before they are done |
//! | `delayed` | writes at the end that are gathered in memory |
//! | `changed` | what attributes are shown with while pages are not written |
//! | `pages` | what programs change in a kernel's memory, and is written later |
//! | `truncate` | setting the size, freeing extents |
//! | `allocate` | fallocate |
//! | `fiemap` | where the data are |
//!
//! # What must hold
//!
//! - A write goes: take free blocks (in memory), write the data to them, enter the transaction, map them. So an extent
//!   item never names blocks whose data are not written, and a commit has nothing to wait for once it has begun; whoever asks for one
//!   has what was gathered written before. Written blocks are
//!   overwritten in place, unless a mount that was fenced may still write to them: then new ones are taken.
//! - What lies behind the end of file in its last block may be anything, and is zeroed before the file
//!   grows over it; before, not when it shrinks, so that a crash never shows zeros in a file that was not yet cut.
//! - Size, times, block counts and sequence numbers change in the same transaction as the extents.
//! - `data_version` changes whenever the contents or the size may have.
//! - Work on many extents goes in transactions of bounded size. A truncation that takes several is noted in the inode
//!   by the first, with the new size, and finished at the next open or change of the data if a crash cuts it short.
//!
//! Locking: the inode's cluster lock, its local lock (shared to read), then for each step the transaction.

mod allocate;
pub(crate) mod behind;
mod block_io;
pub(crate) mod changed;
pub(crate) mod delayed;
pub(crate) mod extent;
mod fiemap;
mod pages;
mod read;
mod read_ahead;
pub(crate) mod state;
mod truncate;
mod write;

pub use allocate::AllocateMode;
pub use pages::Copied;
pub use read_ahead::Done;

#[cfg(test)]
mod tests;
