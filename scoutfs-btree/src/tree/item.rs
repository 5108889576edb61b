// SPDX-License-Identifier: GPL-2.0-only
//! Items as values.

use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;

/// An item, its value borrowed from wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Where in the key space.
    pub key: Key,
    /// The highest version of a key wins.
    pub version: u64,
    /// The key was deleted; the value is empty.
    pub deletion: bool,
    /// At most [`MAX_VALUE_LEN`](scoutfs_format::tree::MAX_VALUE_LEN) bytes.
    pub value: &'a [u8],
}

/// An item with a value of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedItem {
    /// Where in the key space.
    pub key: Key,
    /// The highest version of a key wins.
    pub version: u64,
    /// The key was deleted; the value is empty.
    pub deletion: bool,
    /// At most [`MAX_VALUE_LEN`](scoutfs_format::tree::MAX_VALUE_LEN) bytes.
    pub value: Vec<u8>,
}

impl Item<'_> {
    /// A copy with a value of its own.
    pub fn to_owned(&self) -> Result<OwnedItem, AllocError> {
        Ok(OwnedItem {
            key: self.key,
            version: self.version,
            deletion: self.deletion,
            value: Vec::from_slice(self.value)?,
        })
    }
}

impl OwnedItem {
    /// The item, borrowed.
    pub fn borrow(&self) -> Item<'_> {
        Item { key: self.key, version: self.version, deletion: self.deletion, value: &self.value }
    }
}
