// SPDX-License-Identifier: GPL-2.0-only
//! Btrees whose nodes never change.
//!
//! A node is built in memory from a sorted stream, written once, and never changed. [`apply`] takes a root and a sorted
//! batch of changes and returns the root of a new tree that shares all untouched nodes with the old one.
//!
//! | module | what |
//! | --- | --- |
//! | `item` | [`Item`], [`OwnedItem`] |
//! | [`node`] | the one check of a node's structure, [`Node`] |
//! | `builder` | filling a new node in key order |
//! | `read` | [`lookup`], [`leaf`], [`next`], [`Cursor`] |
//! | `change` | [`ChangeSource`], [`Rule`], [`Limit`] |
//! | `apply` | [`apply`]: old tree and changes in, new nodes out |
//! | `output` | the new nodes of all levels on their way out |
//! | `free` | [`free_tree`] |
//! | `walk` | [`walk`], for check and print |
//!
//! # What must hold
//!
//! - No node is empty, and every key of a node lies in the range that its parents give it: child i covers its key up to
//!   just below the key of child i + 1, the root covers everything. A parent's first key *is* the first key of its range.
//! - Of the nodes of a level all but the last are at least a quarter full. (The last is left alone so that a tree
//!   that grows at its end is packed.)
//! - A root with one child is replaced by the child; a tree without items is [`TreeRoot::EMPTY`].
//! - A tree is read and changed with memory for one path, two for what is written.

mod apply;
mod builder;
mod change;
mod free;
mod item;
pub mod node;
mod output;
mod read;
mod walk;

#[cfg(test)]
mod tests;

use scoutfs_format::tree::{MAX_TREE_HEIGHT, TreeRoot};
use scoutfs_format::{BlockRef, Key};

use crate::{CorruptKind, Error};

pub use apply::{Applied, ApplyStats, apply};
pub use change::{ChangeSource, Limit, Rule, SliceSource};
pub use free::{FreeCursor, free_tree};
pub use item::{Item, OwnedItem};
pub use node::Node;
pub use read::{Cursor, ItemGuard, Leaf, leaf, lookup, next};
pub use walk::{Visitor, walk, walk_down_to};

/// A node that has not been read yet, and what its parents say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The block.
    pub block: BlockRef,
    /// 0 is a leaf.
    pub level: u8,
    /// First key that it covers.
    pub first: Key,
    /// Last key that it covers.
    pub last: Key,
}

impl Place {
    /// The whole of a tree, `None` when it is empty.
    pub fn of_root(root: &TreeRoot) -> Result<Option<Self>, Error> {
        if root.height == 0 && root.block.is_none() {
            return Ok(None);
        }
        if root.height == 0 || root.height > MAX_TREE_HEIGHT || root.block.is_none() {
            return Err(Error::corrupt(root.block.blkno.get(), CorruptKind::Height { height: root.height }));
        }
        Ok(Some(Place { block: root.block, level: root.height - 1, first: Key::MIN, last: Key::MAX }))
    }
}
