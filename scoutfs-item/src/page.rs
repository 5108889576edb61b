// SPDX-License-Identifier: GPL-2.0-only
//! The items of one page, packed, and what a write does to them.
//!
//! Two buffers hold all items of a page. The *table* has an entry of fixed size for each item, ascending by key: the key, packed as
//! the page's [`Shape`] says, the version, flags, and where the value is. The *heap* has the values, in the order in which they came,
//! and dead bytes between them where values went or got shorter. An item takes about 25 bytes more than its value.
//!
//! A key that does not fit the shape, or growth of a buffer, makes new buffers, with a little room to spare and without dead bytes;
//! that can fail. What must not fail (deleting, replacing by what is no longer) stays in its entry and its place in the heap.
//!
//! Nothing here locks, and every method that fails leaves the items as they were.

use core::cmp::Ordering;
use core::mem;

use scoutfs_btree::OwnedItem;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;
use scoutfs_format::tree::MAX_VALUE_LEN;

use crate::error::{ItemError, Misuse};
use crate::item::{HEAP_BYTES, ITEM_HEADER_BYTES, Item, Usage, Write, check_version, len};
use crate::shape::{Packed, Shape};

/// Written in this transaction.
const DIRTY: u8 = 1;
/// Some tree or commit record has the item, or may have it; a deletion needs a tombstone.
const PERSISTENT: u8 = 2;
/// A tombstone: to readers the item is absent. Always dirty and persistent, without value.
const DELETION: u8 = 4;

/// Bytes of an entry after the key.
const META_BYTES: usize = 15;
const _: () = assert!(MAX_VALUE_LEN <= u16::MAX as usize);

/// What an entry says beside the key.
#[derive(Clone, Copy)]
struct Meta {
    version: u64,
    /// Where the value begins in the heap.
    offset: u32,
    len: u16,
    flags: u8,
}

/// An item of a page.
#[derive(Clone, Copy)]
pub(crate) struct ItemRef<'a> {
    items: &'a Items,
    /// Where its entry is.
    pub(crate) at: usize,
    pub(crate) version: u64,
    pub(crate) value: &'a [u8],
    flags: u8,
}

/// An item for a new page.
#[derive(Clone, Copy)]
struct NewItem<'a> {
    key: Key,
    version: u64,
    value: &'a [u8],
    flags: u8,
}

/// The items of a page.
#[derive(Default)]
pub(crate) struct Items {
    shape: Shape,
    count: usize,
    table: Vec<u8>,
    heap: Vec<u8>,
    /// Bytes of the heap that are no value's.
    dead_bytes: usize,
    dirty_items: usize,
    dirty_bytes: usize,
    /// Used since the eviction's hand last came by.
    pub(crate) referenced: bool,
}

impl Meta {
    fn get(bytes: &[u8; META_BYTES]) -> Meta {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, flags] = *bytes;
        Meta {
            version: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            offset: u32::from_le_bytes([i, j, k, l]),
            len: u16::from_le_bytes([m, n]),
            flags,
        }
    }

    fn put(&self, bytes: &mut [u8; META_BYTES]) {
        bytes[..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.len.to_le_bytes());
        bytes[14] = self.flags;
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn len(&self) -> usize {
        usize::from(self.len)
    }

    fn payload_bytes(&self) -> usize {
        ITEM_HEADER_BYTES + self.len()
    }
}

impl ItemRef<'_> {
    /// Takes some time.
    pub(crate) fn key(&self) -> Key {
        self.items.key(self.at)
    }

    fn is_deletion(&self) -> bool {
        self.flags & DELETION != 0
    }

    /// A copy for the commit.
    fn copy(&self) -> Result<OwnedItem, AllocError> {
        let value = Vec::from_slice(self.value)?;
        Ok(OwnedItem { key: self.key(), version: self.version, deletion: self.is_deletion(), value })
    }
}

/// Room for a few more of what takes `bytes`. By an eighth: pages are small, and unused room is overhead.
fn with_room(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8)
}

impl Items {
    /// Of what was read; deletions are left out.
    pub(crate) fn read(items: &[OwnedItem]) -> Result<Self, AllocError> {
        Items::gather(items.iter().filter(|item| !item.deletion).map(|item| NewItem {
            key: item.key,
            version: item.version,
            value: &item.value,
            flags: PERSISTENT,
        }))
    }

    /// Of one item that was written without reading.
    pub(crate) fn of_unread(item: &Item) -> Result<Self, AllocError> {
        let mut flags = DIRTY;
        if item.is_persistent() {
            flags |= PERSISTENT;
        }
        if item.is_deletion() {
            flags |= DELETION;
        }
        let item = NewItem { key: item.key, version: item.version, value: &item.value, flags };
        Items::gather(core::iter::once(item))
    }

    /// Of ascending items, without room for more.
    fn gather<'a>(items: impl Iterator<Item = NewItem<'a>> + Clone) -> Result<Self, AllocError> {
        let shape = Shape::of(items.clone().map(|item| item.key));
        let (count, bytes) =
            items.clone().fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.value.len()));
        let mut this = Items {
            shape,
            table: Vec::with_capacity(count * (shape.width() + META_BYTES))?,
            heap: Vec::with_capacity(bytes)?,
            ..Items::default()
        };
        for item in items {
            this.open_entry(this.count, &shape.pack(&item.key))?;
            let meta = this.append(item.version, item.flags, &[item.value])?;
            this.count(&meta);
            this.set_meta(this.count - 1, &meta);
        }
        Ok(this)
    }

    pub(crate) fn usage(&self) -> Usage {
        let of = |capacity: usize| if capacity == 0 { 0 } else { capacity + HEAP_BYTES };
        Usage {
            bytes: of(self.table.capacity()) + of(self.heap.capacity()),
            dirty_items: self.dirty_items,
            dirty_bytes: self.dirty_bytes,
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty_items != 0
    }

    /// Bytes of all items with their headers.
    fn payload_bytes(&self) -> usize {
        self.count * ITEM_HEADER_BYTES + self.heap.len() - self.dead_bytes
    }

    /// Whether the page should be split before `added_bytes` come to it. One item cannot be split.
    pub(crate) fn is_full(&self, added_bytes: usize, page_bytes: usize) -> bool {
        added_bytes != 0 && self.count >= 2 && self.payload_bytes().saturating_add(added_bytes) > page_bytes
    }

    /// Where the item of a key is, or would go, `near` being a guess; and the item, if there is one.
    pub(crate) fn get(&self, near: usize, key: &Key) -> (usize, Option<ItemRef<'_>>) {
        match self.find(near, key) {
            Ok(at) => (at, Some(self.item(at)).filter(|item| !item.is_deletion())),
            Err(at) => (at, None),
        }
    }

    /// The items from `from` on.
    pub(crate) fn ascending(&self, from: &Key) -> impl Iterator<Item = ItemRef<'_>> {
        self.ascending_near(usize::MAX, from)
    }

    /// As [`ascending`](Self::ascending); `near` is a guess where that is.
    pub(crate) fn ascending_near(&self, near: usize, from: &Key) -> impl Iterator<Item = ItemRef<'_>> {
        let start = self.find(near, from).unwrap_or_else(|at| at);
        (start..self.count).map(|at| self.item(at)).filter(|item| !item.is_deletion())
    }

    /// The items up to `last`, backwards.
    pub(crate) fn descending(&self, last: &Key) -> impl Iterator<Item = ItemRef<'_>> {
        let end = match self.find(usize::MAX, last) {
            Ok(at) => at + 1,
            Err(at) => at,
        };
        (0..end).rev().map(|at| self.item(at)).filter(|item| !item.is_deletion())
    }

    /// The first dirty item in first..=last, which may be a tombstone.
    pub(crate) fn first_dirty(&self, first: &Key, last: &Key) -> Option<Key> {
        if !self.is_dirty() {
            return None;
        }
        let at = (self.at_or_after(first)..self.count).find(|at| self.meta(*at).has(DIRTY))?;
        Some(self.key(at)).filter(|key| key <= last)
    }

    /// Carries a write out, and gives the place of what was written. `near` is a guess of it.
    pub(crate) fn write(
        &mut self,
        near: usize,
        key: Key,
        version: u64,
        write: &Write<'_>,
    ) -> Result<usize, ItemError> {
        let packed = self.shape.pack(&key);
        let found = self.find_packed(near, &packed);
        let live = found.ok().filter(|at| !self.meta(*at).has(DELETION));
        match (write, live) {
            (Write::Create(_), Some(_)) => return Err(ItemError::Exists),
            (Write::Update(_) | Write::Delete | Write::Dirty, None) => return Err(ItemError::NotFound),
            (Write::DeleteForce, None) => {}
            (
                Write::Create(parts)
                | Write::CreateForce(parts)
                | Write::CreateAbsent(parts)
                | Write::Update(parts),
                _,
            ) => match found {
                Ok(at) => self.replace(at, key, version, parts)?,
                Err(at) => self.insert(at, key, packed, version, parts)?,
            },
            (Write::Delete | Write::DeleteForce, Some(at)) => self.delete(at, key, version)?,
            (Write::Dirty, Some(at)) => {
                let old = self.checked_meta(at, key, version)?;
                self.change(at, &old, Meta { version, flags: old.flags | DIRTY, ..old });
            }
        }
        Ok(found.unwrap_or_else(|at| at))
    }

    /// Deletes an item that was made dirty; allocates nothing.
    pub(crate) fn delete_dirty(&mut self, near: usize, key: Key, version: u64) -> Result<(), Misuse> {
        let at = self.find_dirty(near, key)?;
        self.delete(at, key, version)
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
        let old = self.checked_meta(at, key, version)?;
        if len(parts) > old.len() {
            return Err(Misuse::Grows { key, len: old.len(), given: len(parts) });
        }
        self.overwrite(at, &old, version, parts);
        Ok(())
    }

    /// Adds copies of all dirty items.
    pub(crate) fn copy_dirty(&self, batch: &mut Vec<OwnedItem>) -> Result<(), AllocError> {
        for at in (0..self.count).filter(|at| self.meta(*at).has(DIRTY)) {
            batch.push(self.item(at).copy()?)?;
        }
        Ok(())
    }

    /// The transaction has been handed over: nothing is dirty, tombstones go, all else is persistent.
    pub(crate) fn set_clean(&mut self) {
        let stride = self.stride();
        let mut kept = 0;
        for at in 0..self.count {
            let meta = self.meta(at);
            if meta.has(DELETION) {
                continue;
            }
            if kept != at {
                self.table.copy_within(at * stride..(at + 1) * stride, kept * stride);
            }
            self.set_meta(kept, &Meta { flags: PERSISTENT, ..meta });
            kept += 1;
        }
        self.count = kept;
        self.table.truncate(kept * stride);
        (self.dirty_items, self.dirty_bytes) = (0, 0);
        if self.dead_bytes > self.heap.len() / 2 {
            // It stays as it is when there is no memory to do it in.
            let _ = self.renew_heap(0);
        }
    }

    /// Where to split so that both halves have about the same payload: the first key of the right half.
    /// None if there are fewer than two items.
    pub(crate) fn middle(&self) -> Option<Key> {
        let last = self.count.checked_sub(1).filter(|last| *last > 0)?;
        let half = self.payload_bytes().div_ceil(2);
        let mut left_bytes = 0;
        let balanced = (0..last).find(|at| {
            left_bytes += self.meta(*at).payload_bytes();
            left_bytes >= half
        });
        Some(self.key(balanced.map_or(last, |at| at + 1)))
    }

    /// Takes out the items from `at` on. Neither half keeps unused room.
    pub(crate) fn split_off(&mut self, at: &Key) -> Result<Items, AllocError> {
        let start = self.at_or_after(at);
        let left = self.part(0, start)?;
        let right = self.part(start, self.count)?;
        *self = left;
        Ok(right)
    }

    /// A copy of some of the items, in the same shape and without unused room.
    fn part(&self, start: usize, end: usize) -> Result<Items, AllocError> {
        let stride = self.stride();
        let bytes = (start..end).map(|at| self.meta(at).len()).sum();
        let mut part = Items {
            shape: self.shape,
            table: Vec::from_slice(self.table.get(start * stride..end * stride).unwrap_or_default())?,
            heap: Vec::with_capacity(bytes)?,
            count: end - start,
            referenced: self.referenced,
            ..Items::default()
        };
        for at in start..end {
            let meta = self.meta(at);
            let meta = part.append(meta.version, meta.flags, &[self.value(&meta)])?;
            part.count(&meta);
            part.set_meta(at - start, &meta);
        }
        Ok(part)
    }

    /// Bytes of an entry; at least 16.
    fn stride(&self) -> usize {
        self.shape.width() + META_BYTES
    }

    /// The table from an entry on.
    #[inline]
    fn entry(&self, at: usize) -> &[u8] {
        self.table.get(at * self.stride()..).unwrap_or_default()
    }

    #[inline]
    fn meta(&self, at: usize) -> Meta {
        let meta = self.entry(at).get(self.shape.width()..).and_then(|bytes| bytes.first_chunk());
        // There is an entry for each item.
        meta.map_or(Meta { version: 0, offset: 0, len: 0, flags: 0 }, Meta::get)
    }

    fn set_meta(&mut self, at: usize, meta: &Meta) {
        let begin = at * self.stride() + self.shape.width();
        if let Some(bytes) = self.table.get_mut(begin..).and_then(|bytes| bytes.first_chunk_mut()) {
            meta.put(bytes);
        }
    }

    fn key(&self, at: usize) -> Key {
        self.shape.get(self.entry(at))
    }

    fn value(&self, meta: &Meta) -> &[u8] {
        let begin = meta.offset as usize;
        self.heap.get(begin..begin + meta.len()).unwrap_or_default()
    }

    #[inline]
    fn item(&self, at: usize) -> ItemRef<'_> {
        let meta = self.meta(at);
        ItemRef { items: self, at, version: meta.version, value: self.value(&meta), flags: meta.flags }
    }

    /// How many items `before` is true for. It must be true of all up to some point, and then false.
    #[inline]
    fn partition_point(&self, before: impl Fn(&Self, usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self, middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    #[inline]
    fn number(&self, at: usize) -> u128 {
        self.shape.number(self.entry(at))
    }

    /// Where the item of a key is, or would go; `near` is a guess.
    fn find(&self, near: usize, key: &Key) -> Result<usize, usize> {
        self.find_packed(near, &self.shape.pack(key))
    }

    /// The place of a number, if it is right at the guess, before it or after it. No guess is the last item: keys often ascend.
    #[inline]
    fn find_near(&self, near: usize, number: u128) -> Option<Result<usize, usize>> {
        let near = near.min(self.count.checked_sub(1)?);
        match self.number(near).cmp(&number) {
            Ordering::Equal => Some(Ok(near)),
            Ordering::Greater if near == 0 || self.number(near - 1) < number => Some(Err(near)),
            Ordering::Greater => None,
            Ordering::Less if near + 1 == self.count => Some(Err(near + 1)),
            Ordering::Less => match self.number(near + 1).cmp(&number) {
                Ordering::Less => None,
                Ordering::Equal => Some(Ok(near + 1)),
                Ordering::Greater => Some(Err(near + 1)),
            },
        }
    }

    fn find_packed(&self, near: usize, key: &Packed) -> Result<usize, usize> {
        match *key {
            Packed::Number(number) => {
                if let Some(found) = self.find_near(near, number) {
                    return found;
                }
                let at = self.partition_point(|items, at| items.number(at) < number);
                if at < self.count && self.number(at) == number { Ok(at) } else { Err(at) }
            }
            Packed::Before(number) => Err(self.partition_point(|items, at| items.number(at) < number)),
            Packed::After(number) => Err(self.partition_point(|items, at| items.number(at) <= number)),
            Packed::Full(key) => {
                let at = self.partition_point(|items, at| items.key(at) < key);
                if at < self.count && self.key(at) == key { Ok(at) } else { Err(at) }
            }
        }
    }

    fn at_or_after(&self, key: &Key) -> usize {
        self.find(usize::MAX, key).unwrap_or_else(|at| at)
    }

    fn find_dirty(&self, near: usize, key: Key) -> Result<usize, Misuse> {
        match self.find(near, &key) {
            Ok(at) if self.meta(at).flags & (DIRTY | DELETION) == DIRTY => Ok(at),
            _ => Err(Misuse::NotDirty { key }),
        }
    }

    /// What an item is before a write with this version.
    fn checked_meta(&self, at: usize, key: Key, version: u64) -> Result<Meta, Misuse> {
        let meta = self.meta(at);
        check_version(key, meta.version, meta.has(DIRTY), version)?;
        Ok(meta)
    }

    fn insert(
        &mut self,
        at: usize,
        key: Key,
        packed: Packed,
        version: u64,
        parts: &[&[u8]],
    ) -> Result<(), ItemError> {
        // What may fail comes first.
        self.make_heap_room(len(parts))?;
        let packed = self.make_entry_room(&key, packed)?;
        self.open_entry(at, &packed)?;
        let meta = self.append(version, DIRTY, parts)?;
        self.count(&meta);
        self.set_meta(at, &meta);
        Ok(())
    }

    fn replace(&mut self, at: usize, key: Key, version: u64, parts: &[&[u8]]) -> Result<(), ItemError> {
        let old = self.checked_meta(at, key, version)?;
        if len(parts) <= old.len() {
            self.overwrite(at, &old, version, parts);
            return Ok(());
        }
        self.make_heap_room(len(parts))?;
        // Values may have moved.
        let old = self.meta(at);
        let new = self.append(version, (old.flags | DIRTY) & !DELETION, parts)?;
        self.change(at, &old, new);
        self.dead_bytes += old.len();
        Ok(())
    }

    /// Replaces a value with one that is not longer, in place.
    fn overwrite(&mut self, at: usize, old: &Meta, version: u64, parts: &[&[u8]]) {
        let begin = old.offset as usize;
        let mut rest = self.heap.get_mut(begin..begin + old.len()).unwrap_or_default();
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
        let unused = rest.len();
        self.dead_bytes += unused;
        let flags = (old.flags | DIRTY) & !DELETION;
        // A shorter length fits as the longer one did.
        self.change(at, old, Meta { version, flags, len: old.len - unused as u16, ..*old });
    }

    fn delete(&mut self, at: usize, key: Key, version: u64) -> Result<(), Misuse> {
        let old = self.checked_meta(at, key, version)?;
        self.dead_bytes += old.len();
        if old.has(PERSISTENT) {
            self.change(at, &old, Meta { version, len: 0, flags: DIRTY | PERSISTENT | DELETION, ..old });
            return Ok(());
        }
        self.uncount(&old);
        let stride = self.stride();
        self.table.copy_within((at + 1) * stride.., at * stride);
        self.count -= 1;
        self.table.truncate(self.count * stride);
        if old.offset as usize + old.len() == self.heap.len() {
            self.heap.truncate(old.offset as usize);
            self.dead_bytes -= old.len();
        }
        Ok(())
    }

    /// Makes room for the value of one more entry. On success values may have moved.
    fn make_heap_room(&mut self, bytes: usize) -> Result<(), AllocError> {
        if bytes <= self.heap.capacity() - self.heap.len() { Ok(()) } else { self.renew_heap(bytes) }
    }

    /// Moves all values to a new heap, without dead bytes and with room for `bytes` more.
    fn renew_heap(&mut self, bytes: usize) -> Result<(), AllocError> {
        let live = self.heap.len() - self.dead_bytes;
        let capacity = if bytes == 0 { live } else { with_room(live.saturating_add(bytes)) };
        u32::try_from(capacity).map_err(|_| AllocError)?;
        let mut heap = Vec::with_capacity(capacity)?;
        if self.dead_bytes == 0 {
            heap.extend_from_slice(&self.heap)?;
        } else {
            for at in 0..self.count {
                let meta = self.meta(at);
                let offset = heap.len() as u32;
                // There is room for all, so this cannot fail halfway.
                heap.extend_from_slice(self.value(&meta))?;
                self.set_meta(at, &Meta { offset, ..meta });
            }
        }
        self.heap = heap;
        self.dead_bytes = 0;
        Ok(())
    }

    /// Makes room for one more entry, with this key, which is packed, and gives it packed as it is to be from now on.
    fn make_entry_room(&mut self, key: &Key, packed: Packed) -> Result<Packed, AllocError> {
        let stride = self.stride();
        if self.count > 0 && packed.fits() {
            if stride > self.table.capacity() - self.table.len() {
                let mut table = Vec::with_capacity(with_room((self.count + 1) * stride))?;
                table.extend_from_slice(&self.table)?;
                self.table = table;
            }
            return Ok(packed);
        }
        let keys = (0..self.count).map(|at| self.key(at));
        let shape = Shape::of(keys.chain(core::iter::once(*key)));
        let stride = shape.width() + META_BYTES;
        let mut table = Vec::with_capacity(with_room((self.count + 1) * stride))?;
        table.resize(self.count * stride, 0)?;
        let mut new = Items { shape, table, count: self.count, ..Items::default() };
        for at in 0..self.count {
            shape.put(&shape.pack(&self.key(at)), &mut new.table[at * stride..]);
            new.set_meta(at, &self.meta(at));
        }
        self.shape = shape;
        self.table = mem::take(&mut new.table);
        Ok(shape.pack(key))
    }

    /// Inserts an entry, for which there is room, with this key and nothing else.
    fn open_entry(&mut self, at: usize, key: &Packed) -> Result<(), AllocError> {
        let stride = self.stride();
        let end = self.table.len();
        self.table.resize(end + stride, 0)?;
        self.table.copy_within(at * stride..end, (at + 1) * stride);
        self.shape.put(key, &mut self.table[at * stride..]);
        self.count += 1;
        Ok(())
    }

    /// Puts a value, for which there is room, at the end of the heap.
    fn append(&mut self, version: u64, flags: u8, parts: &[&[u8]]) -> Result<Meta, AllocError> {
        // Renewing the heap has made sure of it; values have no more than their greatest length.
        let offset = self.heap.len() as u32;
        for part in parts {
            self.heap.extend_from_slice(part)?;
        }
        let len = (self.heap.len() - offset as usize) as u16;
        Ok(Meta { version, offset, len, flags })
    }

    /// Changes an entry and keeps the sums.
    fn change(&mut self, at: usize, old: &Meta, new: Meta) {
        self.uncount(old);
        self.count(&new);
        self.set_meta(at, &new);
    }

    fn count(&mut self, meta: &Meta) {
        if meta.has(DIRTY) {
            self.dirty_items += 1;
            self.dirty_bytes += meta.payload_bytes();
        }
    }

    fn uncount(&mut self, meta: &Meta) {
        if meta.has(DIRTY) {
            self.dirty_items -= 1;
            self.dirty_bytes -= meta.payload_bytes();
        }
    }
}

#[cfg(test)]
impl Items {
    /// Asserts what must hold of the items of a page of this range.
    pub(crate) fn assert_consistent(&self, first: &Key, last: &Key) {
        let items: std::vec::Vec<ItemRef<'_>> = (0..self.count).map(|at| self.item(at)).collect();
        assert!(items.is_sorted_by(|a, b| a.key() < b.key()));
        assert_eq!(self.table.len(), self.count * if self.count == 0 { 0 } else { self.stride() });
        let (mut live, mut dirty_items, mut dirty_bytes) = (0, 0, 0);
        let mut places = std::vec::Vec::new();
        for (at, item) in items.iter().enumerate() {
            let meta = self.meta(at);
            assert!(*first <= item.key() && item.key() <= *last);
            assert_eq!(self.find(usize::MAX, &item.key()), Ok(at));
            assert_eq!(item.value.len(), meta.len());
            assert!(meta.flags & (DIRTY | PERSISTENT) != 0);
            if meta.has(DELETION) {
                assert_eq!((meta.flags, meta.len), (DIRTY | PERSISTENT | DELETION, 0));
            }
            if meta.has(DIRTY) {
                dirty_items += 1;
                dirty_bytes += ITEM_HEADER_BYTES + item.value.len();
            }
            live += item.value.len();
            if meta.len > 0 {
                places.push((meta.offset as usize, meta.offset as usize + meta.len()));
            }
        }
        places.sort_unstable();
        assert!(places.is_sorted_by(|a, b| a.1 <= b.0), "values overlap");
        assert_eq!(self.heap.len(), live + self.dead_bytes);
        assert_eq!((self.dirty_items, self.dirty_bytes), (dirty_items, dirty_bytes));
    }
}
