// SPDX-License-Identifier: GPL-2.0-only
//! Being in the transaction: the only way to change items.

use core::cell::Cell;

use scoutfs_format::Key;
use scoutfs_item::Spot;

use super::locks::Locks;
use super::space::DataRun;
use crate::error::{Error, Result};

/// What an operation may need at most while it is in the transaction.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Items that it changes.
    pub items: u32,
    /// Bytes of their values.
    pub bytes: usize,
    /// It makes room in the end (a deletion, a truncation), so it may use the reserve of metadata blocks.
    pub privileged: bool,
}

impl Need {
    /// Bytes that the operation adds to the transaction at most, headers included.
    pub(crate) fn total_bytes(&self) -> usize {
        (self.items as usize)
            .saturating_mul(size_of::<scoutfs_format::tree::ItemHeader>())
            .saturating_add(self.bytes)
    }
}

/// An operation that is in the transaction. Dropping it leaves.
pub struct Hold<'a> {
    locks: &'a Locks<'a>,
    seq: u64,
    version: u64,
    promised_bytes: usize,
    /// Changes of space that were reserved.
    promised: Cell<usize>,
}

impl<'a> Hold<'a> {
    pub(super) fn new(locks: &'a Locks<'a>, seq: u64, version: u64, promised_bytes: usize) -> Self {
        Hold { locks, seq, version, promised_bytes, promised: Cell::new(0) }
    }

    /// The version of everything that this operation writes; what goes into `meta_seq` and `data_seq`.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Seq of the transaction, for [`Store::sync_seq`](super::Store::sync_seq).
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Creates an item; [`Error::Exists`].
    pub fn create(&self, key: Key, parts: &[&[u8]]) -> Result<()> {
        self.create_near(key, &mut Spot::default(), parts)
    }

    /// As [`Hold::create`], with a guess where the item will be; notes where it is.
    pub fn create_near(&self, key: Key, spot: &mut Spot, parts: &[&[u8]]) -> Result<()> {
        let (items, reader) = self.locks.items();
        Ok(items.create_near(reader, self.locks.bounds(key)?, key, self.version, spot, parts)?)
    }

    /// Creates or replaces an item of the index, search or orphan zone without reading.
    pub fn create_force(&self, key: Key, parts: &[&[u8]]) -> Result<()> {
        Ok(self.locks.items().0.create_force(key, self.version, parts)?)
    }

    /// Creates an item of the index or orphan zone that is known to be in no tree and no commit record, without reading.
    pub fn create_absent(&self, key: Key, parts: &[&[u8]]) -> Result<()> {
        Ok(self.locks.items().0.create_absent(key, self.version, parts)?)
    }

    /// Replaces the value of an item; [`Error::NotFound`].
    pub fn update(&self, key: Key, parts: &[&[u8]]) -> Result<()> {
        let (items, reader) = self.locks.items();
        Ok(items.update(reader, self.locks.bounds(key)?, key, self.version, parts)?)
    }

    /// Deletes an item; [`Error::NotFound`].
    pub fn delete(&self, key: Key) -> Result<()> {
        let (items, reader) = self.locks.items();
        Ok(items.delete(reader, self.locks.bounds(key)?, key, self.version)?)
    }

    /// Deletes an item of the index, search or orphan zone without reading, whether it exists or not.
    pub fn delete_force(&self, key: Key) -> Result<()> {
        Ok(self.locks.items().0.delete_force(key, self.version)?)
    }

    /// Makes an item dirty as it is: afterwards [`Hold::delete_dirty`] and [`Hold::update_dirty`] of it cannot fail.
    ///
    /// `spot` is a guess where the item is, and notes where it is.
    pub fn dirty(&self, key: Key, spot: &mut Spot) -> Result<()> {
        let (items, reader) = self.locks.items();
        Ok(items.dirty_near(reader, self.locks.bounds(key)?, key, self.version, spot)?)
    }

    /// Deletes an item that was made dirty in this hold, about at this spot.
    pub fn delete_dirty(&self, key: Key, spot: Spot) {
        let done = self.locks.items().0.delete_dirty_near(key, self.version, spot);
        self.must(done.is_ok());
    }

    /// Replaces the value of an item that was made dirty in this hold, about at this spot, with one that is not longer.
    pub fn update_dirty(&self, key: Key, spot: Spot, parts: &[&[u8]]) {
        let done = self.locks.items().0.update_dirty_near(key, self.version, spot, parts);
        self.must(done.is_ok());
    }

    /// Makes sure that `count` calls of [`Hold::use_data`] and [`Hold::free_data`] do not fail for want of memory.
    pub fn reserve_space_changes(&self, count: usize) -> Result<()> {
        self.locks.store().space.lock().promise(count)?;
        self.promised.set(self.promised.get() + count);
        Ok(())
    }

    /// The run is referenced by an extent item of this hold from now on. To be
    /// [reserved](Hold::reserve_space_changes).
    pub fn use_data(&self, run: DataRun) {
        let done = self.locks.store().space.use_data(run);
        self.must(done.is_ok());
    }

    /// Frees data blocks; they can be used again when the transaction is durable, and nobody else may still write to them: so many
    /// fences were known when the file got them. To be [reserved](Hold::reserve_space_changes).
    pub fn free_data(&self, start: u64, len: u64, fences: u32) -> Result<()> {
        let store = self.locks.store();
        store.space.free_data(start, len, store.fences.withholds(fences))
    }

    /// Counts inodes: made less deleted.
    pub fn inode_delta(&self, delta: i64) {
        self.locks.store().trans.add_inodes(delta);
    }

    /// A caller that breaks the rule of dirty first would leave half an operation in the transaction: nothing of it
    /// may become durable, so the mount shuts down.
    fn must(&self, ok: bool) {
        if !ok {
            self.locks.store().trans.fail("an operation broke the rules of the item cache");
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let promised = self.promised.get();
        if promised > 0 {
            self.locks.store().space.lock().end_promise(promised);
        }
        self.locks.store().trans.leave(self.promised_bytes);
    }
}

impl From<scoutfs_btree::ring::RingError> for Error {
    fn from(e: scoutfs_btree::ring::RingError) -> Self {
        match e {
            scoutfs_btree::ring::RingError::NoMemory => Error::NoMemory,
            _ => Error::Shutdown("the mount's commit ring is unusable"),
        }
    }
}
