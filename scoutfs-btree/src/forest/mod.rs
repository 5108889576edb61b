// SPDX-License-Identifier: GPL-2.0-only
//! The fs tree, all log trees and the tails of the rings, read as one.
//!
//! | module | what |
//! | --- | --- |
//! | `tail` | [`Tail`], the items of a ring's records since its checkpoint |
//! | `read` | [`ForestRoots`], [`read_range`] |
//! | `union` | [`Union`], log trees and a tail as one source of changes |
//!
//! # What must hold
//!
//! - The highest version of a key wins, wherever it is found; a deletion is an item too.
//! - What one call of [`read_range`] returns comes from one set of roots. When a block is stale all that was gathered is
//!   thrown away, and the caller begins again with fresh roots.

mod read;
mod tail;
mod union;

#[cfg(test)]
mod tests;

pub use read::{ForestRoots, LogSource, RangeItems, read_range};
pub use tail::{Tail, TailSource};
pub use union::Union;
