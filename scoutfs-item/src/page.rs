// SPDX-License-Identifier: GPL-2.0-only
//! The items of one page, and what a write does to them.
//!
//! Nothing here locks, and every method that fails leaves the items as they were.

use scoutfs_btree::OwnedItem;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;
use scoutfs_format::tree::ItemHeader;

use crate::error::{ItemError, Misuse};

/// Bytes that an allocation costs the allocator, about.
pub(crate) const HEAP_BYTES: usize = 16;

/// Bytes of an item beside its value, as trees and commit records store it.
pub(crate) const ITEM_HEADER_BYTES: usize = size_of::<ItemHeader>();

/// An item in the cache.
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

// With the heap's share of the value and unused capacity this keeps the overhead near 100 bytes an item.
const _: () = assert!(size_of::<Item>() <= 72);

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

/// The items of a page.
#[derive(Default)]
pub(crate) struct Items {
    /// Ascending.
    items: Vec<Item>,
    /// Bytes on the heap of all values.
    value_heap_bytes: usize,
    /// Bytes of all items with their headers.
    payload_bytes: usize,
    dirty_items: usize,
    dirty_bytes: usize,
    /// Used since the eviction's hand last came by.
    pub(crate) referenced: bool,
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
    /// As it was read.
    pub(crate) fn clean(key: Key, version: u64, value: Vec<u8>) -> Self {
        Item { key, version, value, dirty: false, persistent: true, deletion: false }
    }

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
        let too_low = match self.dirty {
            true => given < self.version,
            false => given <= self.version,
        };
        if too_low {
            return Err(Misuse::VersionTooLow {
                key: self.key,
                item: self.version,
                dirty: self.dirty,
                given,
            });
        }
        Ok(())
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

impl Items {
    /// Of ascending items.
    pub(crate) fn new(items: Vec<Item>) -> Self {
        let mut this = Items {
            items,
            value_heap_bytes: 0,
            payload_bytes: 0,
            dirty_items: 0,
            dirty_bytes: 0,
            referenced: false,
        };
        this.count_all();
        this
    }

    pub(crate) fn usage(&self) -> Usage {
        let heap = match self.items.capacity() {
            0 => 0,
            capacity => capacity * size_of::<Item>() + HEAP_BYTES,
        };
        Usage {
            bytes: heap + self.value_heap_bytes,
            dirty_items: self.dirty_items,
            dirty_bytes: self.dirty_bytes,
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty_items != 0
    }

    /// Whether the page should be split before `added_bytes` come to it. One item cannot be split.
    pub(crate) fn is_full(&self, added_bytes: usize, page_bytes: usize) -> bool {
        added_bytes != 0
            && self.items.len() >= 2
            && self.payload_bytes.saturating_add(added_bytes) > page_bytes
    }

    /// Where the item of a key is, or would go, `near` being a guess; and the item, if there is one.
    pub(crate) fn get(&self, near: usize, key: &Key) -> (usize, Option<&Item>) {
        match self.find(near, key) {
            Ok(at) => (at, self.items.get(at).filter(|item| !item.deletion)),
            Err(at) => (at, None),
        }
    }

    /// The items from `from` on, with their places.
    pub(crate) fn from(&self, from: &Key) -> impl Iterator<Item = (usize, &Item)> {
        let start = self.items.partition_point(|item| item.key < *from);
        let items = self.items.iter().enumerate().skip(start);
        items.filter(|(_, item)| !item.deletion)
    }

    /// The items up to `last`, backwards.
    pub(crate) fn back_from(&self, last: &Key) -> impl Iterator<Item = &Item> {
        let end = self.items.partition_point(|item| item.key <= *last);
        self.items.get(..end).unwrap_or_default().iter().rev().filter(|item| !item.deletion)
    }

    /// The first dirty item in first..=last, which may be a tombstone.
    pub(crate) fn first_dirty(&self, first: &Key, last: &Key) -> Option<Key> {
        if !self.is_dirty() {
            return None;
        }
        let mut dirty = self.items.iter().filter(|item| item.dirty);
        dirty.find(|item| *first <= item.key && item.key <= *last).map(|item| item.key)
    }

    /// Carries a write out, and gives the place of what was written. `near` is a guess of it.
    pub(crate) fn write(
        &mut self,
        near: usize,
        key: Key,
        version: u64,
        write: &Write<'_>,
    ) -> Result<usize, ItemError> {
        let found = self.find(near, &key);
        self.write_at(found, key, version, write)?;
        Ok(found.unwrap_or_else(|at| at))
    }

    fn write_at(
        &mut self,
        found: Result<usize, usize>,
        key: Key,
        version: u64,
        write: &Write<'_>,
    ) -> Result<(), ItemError> {
        let live = found.ok().filter(|&at| self.items.get(at).is_some_and(|item| !item.deletion));
        match (write, live) {
            (Write::Create(_), Some(_)) => Err(ItemError::Exists),
            (Write::Update(_) | Write::Delete | Write::Dirty, None) => Err(ItemError::NotFound),
            (Write::DeleteForce, None) => Ok(()),
            (
                Write::Create(parts)
                | Write::CreateForce(parts)
                | Write::CreateAbsent(parts)
                | Write::Update(parts),
                _,
            ) => match found {
                Ok(at) => self.replace(at, version, parts),
                Err(at) => self.insert(at, key, version, parts),
            },
            (Write::Delete | Write::DeleteForce, Some(at)) => Ok(self.delete(at, version)?),
            (Write::Dirty, Some(at)) => {
                self.items[at].check_version(version)?;
                self.change(at, |item| {
                    item.version = version;
                    item.dirty = true;
                });
                Ok(())
            }
        }
    }

    /// Deletes an item that was made dirty; allocates nothing.
    pub(crate) fn delete_dirty(&mut self, near: usize, key: Key, version: u64) -> Result<(), Misuse> {
        let at = self.find_dirty(near, key)?;
        self.delete(at, version)
    }

    /// Updates an item that was made dirty with a value that is not longer; allocates nothing.
    pub(crate) fn update_dirty(
        &mut self,
        near: usize,
        key: Key,
        version: u64,
        parts: &[&[u8]],
    ) -> Result<(), Misuse> {
        let at = self.find_dirty(near, key)?;
        self.change(at, |item| item.shorten(version, parts))
    }

    /// Adds copies of all dirty items.
    pub(crate) fn copy_dirty(&self, batch: &mut Vec<OwnedItem>) -> Result<(), AllocError> {
        for item in self.items.iter().filter(|item| item.dirty) {
            batch.push(item.copy()?)?;
        }
        Ok(())
    }

    /// The transaction has been handed over: nothing is dirty, tombstones go, all else is persistent.
    pub(crate) fn set_clean(&mut self) {
        self.items.retain_mut(|item| {
            item.dirty = false;
            item.persistent = true;
            !item.deletion
        });
        self.count_all();
    }

    /// Where to split so that both halves have about the same payload: the first key of the right half.
    /// None if there are fewer than two items.
    pub(crate) fn middle(&self) -> Option<Key> {
        let mut left_bytes: usize = 0;
        let balanced = self.items.windows(2).find_map(|pair| match pair {
            [left, right] => {
                left_bytes += left.payload_bytes();
                (left_bytes.saturating_mul(2) >= self.payload_bytes).then_some(right.key)
            }
            _ => None,
        });
        balanced.or(self.items.get(1..)?.last().map(|item| item.key))
    }

    /// Takes out the items from `at` on. Neither half keeps unused room.
    pub(crate) fn split_off(&mut self, at: &Key) -> Result<Items, AllocError> {
        let start = self.items.partition_point(|item| item.key < *at);
        let mut left = Vec::with_capacity(start)?;
        let mut right = Vec::with_capacity(self.items.len() - start)?;
        // There is room for all, so this cannot fail halfway.
        right.try_extend(self.items.drain(start..))?;
        left.try_extend(self.items.drain(..))?;
        self.items = left;
        self.count_all();
        let mut right = Items::new(right);
        right.referenced = self.referenced;
        Ok(right)
    }

    /// Where the item of a key is, or would go; `near` is a guess.
    fn find(&self, near: usize, key: &Key) -> Result<usize, usize> {
        if self.items.get(near).is_some_and(|item| item.key == *key) {
            return Ok(near);
        }
        self.items.binary_search_by(|item| item.key.cmp(key))
    }

    fn find_dirty(&self, near: usize, key: Key) -> Result<usize, Misuse> {
        match self.find(near, &key) {
            Ok(at) if self.items[at].dirty && !self.items[at].deletion => Ok(at),
            _ => Err(Misuse::NotDirty { key }),
        }
    }

    fn insert(&mut self, at: usize, key: Key, version: u64, parts: &[&[u8]]) -> Result<(), ItemError> {
        let item =
            Item { key, version, value: concat(parts)?, dirty: true, persistent: false, deletion: false };
        self.grow()?;
        self.items.insert(at, item)?;
        self.count(at);
        Ok(())
    }

    fn replace(&mut self, at: usize, version: u64, parts: &[&[u8]]) -> Result<(), ItemError> {
        self.change(at, |item| item.replace(version, parts))
    }

    fn delete(&mut self, at: usize, version: u64) -> Result<(), Misuse> {
        if !self.change(at, |item| item.delete(version))? {
            self.uncount(at);
            self.items.remove(at);
        }
        Ok(())
    }

    /// Makes room for one more item. By a quarter, not by half: pages are small, and unused room is overhead.
    fn grow(&mut self) -> Result<(), AllocError> {
        let len = self.items.len();
        if len < self.items.capacity() {
            return Ok(());
        }
        let mut larger = Vec::with_capacity(len + len / 4 + 1)?;
        // There is room for all, so this cannot fail halfway.
        larger.try_extend(self.items.drain(..))?;
        self.items = larger;
        Ok(())
    }

    /// Changes an item and keeps the sums.
    fn change<R>(&mut self, at: usize, change: impl FnOnce(&mut Item) -> R) -> R {
        self.uncount(at);
        let result = change(&mut self.items[at]);
        self.count(at);
        result
    }

    fn count(&mut self, at: usize) {
        let item = &self.items[at];
        self.value_heap_bytes += item.heap_bytes();
        self.payload_bytes += item.payload_bytes();
        if item.dirty {
            self.dirty_items += 1;
            self.dirty_bytes += item.payload_bytes();
        }
    }

    fn uncount(&mut self, at: usize) {
        let item = &self.items[at];
        self.value_heap_bytes -= item.heap_bytes();
        self.payload_bytes -= item.payload_bytes();
        if item.dirty {
            self.dirty_items -= 1;
            self.dirty_bytes -= item.payload_bytes();
        }
    }

    fn count_all(&mut self) {
        self.value_heap_bytes = 0;
        self.payload_bytes = 0;
        self.dirty_items = 0;
        self.dirty_bytes = 0;
        for at in 0..self.items.len() {
            self.count(at);
        }
    }
}

fn len(parts: &[&[u8]]) -> usize {
    parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()))
}

fn concat(parts: &[&[u8]]) -> Result<Vec<u8>, AllocError> {
    let mut value = Vec::with_capacity(len(parts))?;
    for part in parts {
        value.extend_from_slice(part)?;
    }
    Ok(value)
}

#[cfg(test)]
impl Items {
    /// Asserts what must hold of the items of a page of this range.
    pub(crate) fn assert_consistent(&self, first: &Key, last: &Key) {
        assert!(self.items.is_sorted_by(|a, b| a.key < b.key));
        for item in &self.items {
            assert!(*first <= item.key && item.key <= *last);
            assert!(item.dirty || item.persistent);
            assert!(!item.deletion || item.dirty && item.persistent && item.value.is_empty());
        }
        let payload = self.items.iter().map(Item::payload_bytes);
        assert_eq!(self.payload_bytes, payload.sum::<usize>());
        let heap = self.items.iter().map(Item::heap_bytes);
        assert_eq!(self.value_heap_bytes, heap.sum::<usize>());
        let dirty = self.items.iter().filter(|item| item.dirty);
        assert_eq!(self.dirty_items, dirty.clone().count());
        assert_eq!(self.dirty_bytes, dirty.map(Item::payload_bytes).sum::<usize>());
    }
}
