// SPDX-License-Identifier: GPL-2.0-only
//! One item by itself, what a write does to it, and what items cost.
//!
//! Nothing here locks, and every method that fails leaves the item as it was.

use scoutfs_btree::OwnedItem;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;
use scoutfs_format::tree::ItemHeader;

use crate::error::{ItemError, Misuse};

/// Bytes that an allocation costs the allocator, about.
pub(crate) const HEAP_BYTES: usize = 16;

/// Bytes of an item beside its value, as trees and commit records store it.
pub(crate) const ITEM_HEADER_BYTES: usize = size_of::<ItemHeader>();

/// An item that is in no page.
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) version: u64,
    pub(crate) value: Vec<u8>,
    /// Written in this transaction.
    dirty: bool,
    /// Some tree or commit record has the item, or may have it; a deletion needs a tombstone.
    persistent: bool,
    /// A tombstone: to readers the item is absent. Always dirty and persistent, without value.
    deletion: bool,
}

/// What a write does. Values come in parts that are stored one after the other.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// Makes an item that must not be there.
    Create(&'a [&'a [u8]]),
    /// Makes or replaces an item.
    CreateForce(&'a [&'a [u8]]),
    /// Makes an item that no tree or commit record has.
    CreateAbsent(&'a [&'a [u8]]),
    /// Replaces the value of an item that must be there.
    Update(&'a [&'a [u8]]),
    /// Deletes an item that must be there.
    Delete,
    /// Deletes an item if it is there.
    DeleteForce,
    /// Writes an item that must be there as it is.
    Dirty,
}

/// What items cost.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    /// Bytes of memory.
    pub(crate) bytes: usize,
    /// Dirty items, tombstones among them.
    pub(crate) dirty_items: usize,
    /// Bytes of these with their headers.
    pub(crate) dirty_bytes: usize,
}

impl Write<'_> {
    /// Bytes that the write may add to a page.
    pub(crate) fn added_bytes(&self) -> usize {
        match self {
            Write::Create(parts)
            | Write::CreateForce(parts)
            | Write::CreateAbsent(parts)
            | Write::Update(parts) => ITEM_HEADER_BYTES.saturating_add(len(parts)),
            Write::Delete | Write::DeleteForce | Write::Dirty => 0,
        }
    }

    /// Bytes of the value that is written.
    pub(crate) fn value_len(&self) -> usize {
        match self {
            Write::Create(parts)
            | Write::CreateForce(parts)
            | Write::CreateAbsent(parts)
            | Write::Update(parts) => len(parts),
            Write::Delete | Write::DeleteForce | Write::Dirty => 0,
        }
    }
}

impl Item {
    /// Written without reading; no value is a deletion. There may be an older one, unless the writer knows better.
    pub(crate) fn unread(
        key: Key,
        version: u64,
        value: Option<&[&[u8]]>,
        persistent: bool,
    ) -> Result<Self, AllocError> {
        let deletion = value.is_none();
        let value = concat(value.unwrap_or_default())?;
        Ok(Item { key, version, value, dirty: true, persistent, deletion })
    }

    /// What it costs outside of a page.
    pub(crate) fn usage(&self) -> Usage {
        let (dirty_items, dirty_bytes) = if self.dirty { (1, self.payload_bytes()) } else { (0, 0) };
        Usage { bytes: size_of::<Item>() + self.heap_bytes(), dirty_items, dirty_bytes }
    }

    /// A copy for the commit.
    pub(crate) fn copy(&self) -> Result<OwnedItem, AllocError> {
        let value = Vec::from_slice(&self.value)?;
        Ok(OwnedItem { key: self.key, version: self.version, deletion: self.deletion, value })
    }

    pub(crate) fn is_deletion(&self) -> bool {
        self.deletion
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }

    fn payload_bytes(&self) -> usize {
        ITEM_HEADER_BYTES + self.value.len()
    }

    fn heap_bytes(&self) -> usize {
        match self.value.capacity() {
            0 => 0,
            capacity => capacity + HEAP_BYTES,
        }
    }

    fn check_version(&self, given: u64) -> Result<(), Misuse> {
        check_version(self.key, self.version, self.dirty, given)
    }

    /// Writes another value, over a deletion too. Unchanged on failure.
    pub(crate) fn replace(&mut self, version: u64, parts: &[&[u8]]) -> Result<(), ItemError> {
        self.check_version(version)?;
        if len(parts) <= self.value.len() {
            self.overwrite(parts);
        } else {
            self.value = concat(parts)?;
        }
        self.version = version;
        self.dirty = true;
        self.deletion = false;
        Ok(())
    }

    /// Replaces the value with one that is not longer; allocates nothing.
    pub(crate) fn shorten(&mut self, version: u64, parts: &[&[u8]]) -> Result<(), Misuse> {
        self.check_version(version)?;
        if len(parts) > self.value.len() {
            return Err(Misuse::Grows { key: self.key, len: self.value.len(), given: len(parts) });
        }
        self.overwrite(parts);
        self.version = version;
        Ok(())
    }

    /// Deletes it; allocates nothing. Whether a tombstone is left of it: else the caller takes it out.
    pub(crate) fn delete(&mut self, version: u64) -> Result<bool, Misuse> {
        self.check_version(version)?;
        if self.persistent {
            self.value = Vec::new();
            self.version = version;
            self.dirty = true;
            self.deletion = true;
        }
        Ok(self.persistent)
    }

    /// Replaces the value with one that is not longer, in place.
    fn overwrite(&mut self, parts: &[&[u8]]) {
        let mut rest = self.value.as_mut_slice();
        let mut stored = 0;
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
            stored += part.len();
        }
        self.value.truncate(stored);
    }
}

/// Bytes of a value in parts.
pub(crate) fn len(parts: &[&[u8]]) -> usize {
    parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()))
}

/// Whether an item with this version may be written with another.
pub(crate) fn check_version(key: Key, item: u64, dirty: bool, given: u64) -> Result<(), Misuse> {
    let too_low = match dirty {
        true => given < item,
        false => given <= item,
    };
    if too_low { Err(Misuse::VersionTooLow { key, item, dirty, given }) } else { Ok(()) }
}

fn concat(parts: &[&[u8]]) -> Result<Vec<u8>, AllocError> {
    let mut value = Vec::with_capacity(len(parts))?;
    for part in parts {
        value.extend_from_slice(part)?;
    }
    Ok(value)
}
