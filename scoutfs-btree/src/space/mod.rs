// SPDX-License-Identifier: GPL-2.0-only
//! Free space: extents, lists of them, and what a mount owns.
//!
//! | module | what |
//! | --- | --- |
//! | `error` | [`SpaceError`]: everything that can go wrong but the reading and writing of lists |
//! | `extent` | [`SpaceKind`], [`Extent`], [`SpaceExtent`] |
//! | `extent_set` | [`ExtentSet`]: extents that do not overlap; neighbours are one |
//! | `free_runs` | [`FreeRuns`]: a set to allocate from, which also knows its longest runs |
//! | `mount` | [`MountSpace`]: all that one mount owns, and what its transactions do to it |
//! | `pool` | one kind of a mount's space |
//! | `replay` | [`SpaceReplay`]: a mount's space put together from a list and records |
//! | `budget` | how many blocks checkpoints, merges and deletions take at most |
//! | `entries` | making [`SpaceEntry`](scoutfs_format::space::SpaceEntry)s |
//! | `list` | [`write_list`], [`read_list`]: chained blocks of entries |
//!
//! # What must hold
//!
//! - A block is in exactly one place: free, held, freed and not yet reusable, part of a hand-over, or in use (and
//!   then in none of these sets).
//! - A block is allocated only if the durable state has it free, and so has every transaction that is being committed:
//!   nothing that the durable state refers to is overwritten, whenever the power fails.
//! - What a list and the entries of the records after it say, replayed in order, is the mount's space as of the last of
//!   these records, to the block.
//! - An operation that fails changes nothing.
//!
//! # Locking
//!
//! None. A [`MountSpace`] is a value that its owner keeps under a lock of its own; no operation waits or does IO.

pub mod budget;
mod entries;
mod error;
mod extent;
mod extent_set;
mod free_runs;
mod list;
mod mount;
mod pool;
mod replay;
#[cfg(test)]
mod tests;

pub use error::{Owner, SpaceError};
pub use extent::{Extent, SpaceExtent, SpaceKind};
pub use extent_set::ExtentSet;
pub use free_runs::FreeRuns;
pub use list::{list_blocks, read_list, write_list};
pub use mount::{CheckpointSpace, CommitToken, MountSpace};
pub use replay::SpaceReplay;
