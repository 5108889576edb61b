// SPDX-License-Identifier: GPL-2.0-only
//! Nodes of the copy-on-write btree.
//!
//! A node is a header, a dense array of [`ItemHeader`]s in key order, and the values, which grow down from the
//! end of the block in the order of the items (the first item's value is the highest). A leaf (level 0) holds items; a
//! parent's items hold a [`BlockRef`](crate::BlockRef) each, and their keys are the lowest key that the child
//! may hold: child i covers its key up to just below the key of child i + 1. The first key of the root is
//! [`Key::MIN`](crate::Key::MIN).

use crate::block::{BLOCK_SIZE, BlockHeader, BlockRef};
use crate::key::RawKey;
use crate::layout::{constants, layout};
use crate::le::{U16, U32, U64};

constants! { TREE_CONSTANTS:
    /// Bytes of the longest value.
    pub const MAX_VALUE_LEN: usize = 4096;
    /// Levels of the highest tree.
    pub const MAX_TREE_HEIGHT: u8 = 12;
    /// [`ItemHeader::flags`]: the item is a deletion (a tombstone); its value is empty.
    pub const ITEM_DELETION: u8 = 1;
    /// All known item flags.
    pub const ITEM_FLAGS: u8 = ITEM_DELETION;
}

/// Bytes of a node that item headers and values share.
pub const NODE_SPACE: usize = BLOCK_SIZE - size_of::<NodeHeader>();

layout! {
    /// A tree; height 0 is the empty tree.
    pub struct TreeRoot {
        /// The root node.
        pub block: BlockRef,
        /// Number of levels: 0 empty, 1 a leaf.
        pub height: u8,
        pub pad: [u8; 7],
    }

    /// Begins a node.
    pub struct NodeHeader {
        pub block: BlockHeader,
        /// Number of items.
        pub nr_items: U32,
        /// Sum of the bytes of all values.
        pub value_bytes: U32,
        /// 0 is a leaf.
        pub level: u8,
        pub pad: [u8; 15],
    }

    /// One item of a node.
    pub struct ItemHeader {
        pub key: RawKey,
        /// The highest version of a key wins, wherever it is found. 0 in parents and in the server's tree.
        pub version: U64,
        /// Byte offset of the value in the block; 0 when the value is empty.
        pub val_off: U16,
        /// Bytes of the value.
        pub val_len: U16,
        /// [`ITEM_FLAGS`].
        pub flags: u8,
        pub pad: [u8; 3],
    }
}

impl TreeRoot {
    /// The empty tree.
    pub const EMPTY: TreeRoot = TreeRoot { block: BlockRef::NONE, height: 0, pad: [0; 7] };
}
