// SPDX-License-Identifier: GPL-2.0-only
//! Creating, updating and deleting items.
//!
//! Each write has a version, and makes the item dirty with it. `reader` and `bounds` as with lookups: what
//! must be known is read if it is not. Values come in parts, which are stored one after the other.

use scoutfs_format::Key;
use scoutfs_format::tree::MAX_VALUE_LEN;

use crate::cache::{Bounds, ItemCache, ItemReader, check_bounds};
use crate::error::{ItemError, Misuse};
use crate::item::{Usage, Write};
use crate::page::Items;
use crate::pages::Spot;

/// How a write finds what it must know.
type Source<'a> = (&'a dyn ItemReader, Bounds);

/// A change of an item that was made dirty, which cannot fail.
enum DirtyChange<'a> {
    Delete,
    /// With a value that is not longer.
    Update(&'a [&'a [u8]]),
}

/// What became of an attempt to write.
enum Attempt {
    /// It was carried out, or refused.
    Done(Result<(), ItemError>),
    /// The page that begins here is full.
    Full(Key),
    /// The key is unknown, and the write must know.
    Unknown,
}

impl ItemCache {
    /// Creates an item, which must not exist ([`ItemError::Exists`]).
    pub fn create(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        version: u64,
        value: &[&[u8]],
    ) -> Result<(), ItemError> {
        self.create_near(reader, bounds, key, version, &mut Spot::default(), value)
    }

    /// As [`create`](Self::create), with a guess where the item will be; notes where it is.
    pub fn create_near(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        version: u64,
        spot: &mut Spot,
        value: &[&[u8]],
    ) -> Result<(), ItemError> {
        self.write(Some((reader, bounds)), key, version, spot, Write::Create(value))
    }

    /// Creates or replaces an item without reading whether it exists. Meant for items that are not looked up:
    /// if it was unknown the cache forgets it when it is committed.
    pub fn create_force(&self, key: Key, version: u64, value: &[&[u8]]) -> Result<(), ItemError> {
        self.write(None, key, version, &mut Spot::default(), Write::CreateForce(value))
    }

    /// Creates an item that the caller knows to be in no tree and no commit record, without reading: when it is deleted
    /// in the same transaction nothing is left of it, not even a tombstone. If it was unknown the cache forgets it when it is
    /// committed.
    pub fn create_absent(&self, key: Key, version: u64, value: &[&[u8]]) -> Result<(), ItemError> {
        self.write(None, key, version, &mut Spot::default(), Write::CreateAbsent(value))
    }

    /// Replaces the value of an item, which must exist ([`ItemError::NotFound`]).
    pub fn update(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        version: u64,
        value: &[&[u8]],
    ) -> Result<(), ItemError> {
        self.write(Some((reader, bounds)), key, version, &mut Spot::default(), Write::Update(value))
    }

    /// Deletes an item, which must exist ([`ItemError::NotFound`]).
    pub fn delete(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        version: u64,
    ) -> Result<(), ItemError> {
        self.write(Some((reader, bounds)), key, version, &mut Spot::default(), Write::Delete)
    }

    /// Deletes an item without reading whether it exists; writes a tombstone when that is unknown.
    pub fn delete_force(&self, key: Key, version: u64) -> Result<(), ItemError> {
        self.write(None, key, version, &mut Spot::default(), Write::DeleteForce)
    }

    /// Makes an item, which must exist ([`ItemError::NotFound`]), dirty as it is. Until the transaction ends,
    /// [`delete_dirty`](Self::delete_dirty) and [`update_dirty`](Self::update_dirty) of it cannot fail.
    pub fn dirty(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        version: u64,
    ) -> Result<(), ItemError> {
        self.dirty_near(reader, bounds, key, version, &mut Spot::default())
    }

    /// As [`dirty`](Self::dirty), with a guess where the item is; notes where it is, for the change that will follow.
    pub fn dirty_near(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        version: u64,
        spot: &mut Spot,
    ) -> Result<(), ItemError> {
        self.write(Some((reader, bounds)), key, version, spot, Write::Dirty)
    }

    /// Deletes an item that this transaction has made dirty, or written. Fails only for a caller that breaks
    /// this.
    pub fn delete_dirty(&self, key: Key, version: u64) -> Result<(), Misuse> {
        self.delete_dirty_near(key, version, Spot::default())
    }

    /// As [`delete_dirty`](Self::delete_dirty), with a guess where the item is.
    pub fn delete_dirty_near(&self, key: Key, version: u64, spot: Spot) -> Result<(), Misuse> {
        self.change_dirty(key, version, spot, DirtyChange::Delete)
    }

    /// Updates an item that this transaction has made dirty, or written, with a value that is not longer than
    /// the one it has. Fails only for a caller that breaks this.
    pub fn update_dirty(&self, key: Key, version: u64, value: &[&[u8]]) -> Result<(), Misuse> {
        self.update_dirty_near(key, version, Spot::default(), value)
    }

    /// As [`update_dirty`](Self::update_dirty), with a guess where the item is.
    pub fn update_dirty_near(
        &self,
        key: Key,
        version: u64,
        spot: Spot,
        value: &[&[u8]],
    ) -> Result<(), Misuse> {
        self.change_dirty(key, version, spot, DirtyChange::Update(value))
    }

    fn write(
        &self,
        source: Option<Source<'_>>,
        key: Key,
        version: u64,
        spot: &mut Spot,
        write: Write<'_>,
    ) -> Result<(), ItemError> {
        if write.value_len() > MAX_VALUE_LEN {
            return Err(ItemError::Misuse(Misuse::ValueTooLong { key, len: write.value_len() }));
        }
        if let Some((_, bounds)) = &source {
            check_bounds(bounds, key)?;
        }
        let mut _kept;
        loop {
            match (self.try_write(key, version, spot, &write), source) {
                (Attempt::Done(result), _) => return result,
                (Attempt::Full(first), _) => self.split_full(&first, &write)?,
                (Attempt::Unknown, Some((reader, bounds))) => {
                    _kept = self.fill(reader, &bounds, key)?;
                }
                // It is only told to who can read.
                (Attempt::Unknown, None) => {}
            }
        }
    }

    fn try_write(&self, key: Key, version: u64, spot: &mut Spot, write: &Write<'_>) -> Attempt {
        let map = self.map.read();
        let Some(page) = map.covering_near(spot, &key) else {
            return self.write_unknown(key, version, write);
        };
        let mut items = page.items.lock();
        if items.is_full(write.added_bytes(), self.limits.page_bytes) {
            return Attempt::Full(page.first);
        }
        items.referenced = true;
        let before = items.usage();
        if !items.is_dirty() && self.dirty_pages.lock().insert(page.first, ()).is_err() {
            return Attempt::Done(Err(ItemError::NoMemory));
        }
        let result = items.write(spot.index as usize, key, version, write);
        self.settle(page.first, before, &items);
        Attempt::Done(result.map(|at| *spot = page.spot(at)))
    }

    /// A write where nothing is known, and the map is shared, so that nothing becomes known.
    fn write_unknown(&self, key: Key, version: u64, write: &Write<'_>) -> Attempt {
        let mut forced = self.forced.lock();
        let totals = &self.totals;
        Attempt::Done(match write {
            Write::CreateForce(parts) => forced.put(totals, key, version, parts, false),
            Write::CreateAbsent(parts) => forced.put(totals, key, version, parts, true),
            Write::DeleteForce => forced.delete(totals, key, version),
            Write::Create(_) | Write::Update(_) | Write::Delete | Write::Dirty => return Attempt::Unknown,
        })
    }

    fn change_unknown(&self, key: Key, version: u64, change: DirtyChange<'_>) -> Result<(), Misuse> {
        let mut forced = self.forced.lock();
        match change {
            DirtyChange::Delete => forced.delete_dirty(&self.totals, key, version),
            DirtyChange::Update(parts) => forced.update_dirty(&self.totals, key, version, parts),
        }
    }

    fn change_dirty(
        &self,
        key: Key,
        version: u64,
        spot: Spot,
        change: DirtyChange<'_>,
    ) -> Result<(), Misuse> {
        let map = self.map.read();
        let Some(page) = map.covering_near(&spot, &key) else {
            return self.change_unknown(key, version, change);
        };
        let mut items = page.items.lock();
        let before = items.usage();
        let near = spot.index as usize;
        let result = match change {
            DirtyChange::Delete => items.delete_dirty(near, key, version),
            DirtyChange::Update(parts) => items.update_dirty(near, key, version, parts),
        };
        self.settle(page.first, before, &items);
        result
    }

    /// After a change of a page that is in the set of dirty pages.
    fn settle(&self, first: Key, before: Usage, items: &Items) {
        if !items.is_dirty() {
            self.dirty_pages.lock().remove(&first);
        }
        self.totals.replace(before, items.usage());
    }

    /// Splits a page, if it is still there and full.
    fn split_full(&self, first: &Key, write: &Write<'_>) -> Result<(), ItemError> {
        let mut map = self.map.write();
        let Some(page) = map.page_mut(first) else {
            return Ok(());
        };
        let items = page.items.get_mut();
        if items.is_full(write.added_bytes(), self.limits.page_bytes)
            && let Some(at) = items.middle()
        {
            self.split_page(&mut map, first, at)?;
        }
        Ok(())
    }
}
