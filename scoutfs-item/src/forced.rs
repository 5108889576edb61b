// SPDX-License-Identifier: GPL-2.0-only
//! Items that were written without reading, where nothing is known.
//!
//! They are meant for what is written and never looked up (the change index, orphans), and there are several for each change of
//! an inode. A page for each would make every search of the map longer, and need the map exclusively.
//!
//! All are dirty, and none is in the range of a page. The cache's sums are kept. Every method that fails leaves all as it was.

use scoutfs_env::{AllocError, OrdMap};
use scoutfs_format::Key;

use crate::error::{ItemError, Misuse};
use crate::item::{Item, Usage};
use crate::pages::Totals;

/// Bytes of an item beside itself: its place in the map.
const PLACE_BYTES: usize = size_of::<Key>();

/// See the module.
#[derive(Default)]
pub(crate) struct Forced {
    items: OrdMap<Key, Item>,
}

impl Forced {
    pub(crate) const fn new() -> Self {
        Forced { items: OrdMap::new() }
    }

    /// What an item costs here.
    pub(crate) fn usage(item: &Item) -> Usage {
        let usage = item.usage();
        Usage { bytes: usage.bytes + PLACE_BYTES, ..usage }
    }

    /// The first key in first..=last.
    pub(crate) fn first_in(&self, first: &Key, last: &Key) -> Option<Key> {
        self.items.ceiling(first).map(|(key, _)| *key).filter(|key| key <= last)
    }

    /// The item of a key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// All items, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// Takes an item out.
    pub(crate) fn remove(&mut self, totals: &Totals, key: &Key) {
        if let Some(item) = self.items.remove(key) {
            totals.replace(Forced::usage(&item), Usage::default());
        }
    }

    /// Creates or replaces an item; `absent`: the caller knows that no tree has one.
    pub(crate) fn put(
        &mut self,
        totals: &Totals,
        key: Key,
        version: u64,
        parts: &[&[u8]],
        absent: bool,
    ) -> Result<(), ItemError> {
        match self.items.get_mut(&key) {
            None => Ok(self.insert(totals, Item::unread(key, version, Some(parts), !absent)?)?),
            Some(item) => change(totals, item, |item| item.replace(version, parts)),
        }
    }

    /// Deletes an item, whether there is one in a tree or not.
    pub(crate) fn delete(&mut self, totals: &Totals, key: Key, version: u64) -> Result<(), ItemError> {
        match self.items.get_mut(&key) {
            None => Ok(self.insert(totals, Item::unread(key, version, None, true)?)?),
            Some(item) if item.is_deletion() => Ok(()),
            Some(_) => Ok(self.delete_dirty(totals, key, version)?),
        }
    }

    /// Deletes an item that is there; allocates nothing.
    pub(crate) fn delete_dirty(&mut self, totals: &Totals, key: Key, version: u64) -> Result<(), Misuse> {
        let item = self.live(&key)?;
        if !change(totals, item, |item| item.delete(version))? {
            self.remove(totals, &key);
        }
        Ok(())
    }

    /// Replaces the value of an item that is there with one that is not longer; allocates nothing.
    pub(crate) fn update_dirty(
        &mut self,
        totals: &Totals,
        key: Key,
        version: u64,
        parts: &[&[u8]],
    ) -> Result<(), Misuse> {
        change(totals, self.live(&key)?, |item| item.shorten(version, parts))
    }

    fn live(&mut self, key: &Key) -> Result<&mut Item, Misuse> {
        let found = self.items.get_mut(key).filter(|item| !item.is_deletion());
        found.ok_or(Misuse::NotDirty { key: *key })
    }

    fn insert(&mut self, totals: &Totals, item: Item) -> Result<(), AllocError> {
        let usage = Forced::usage(&item);
        self.items.insert(item.key, item)?;
        totals.replace(Usage::default(), usage);
        Ok(())
    }
}

/// Changes an item and keeps the sums.
fn change<R>(totals: &Totals, item: &mut Item, change: impl FnOnce(&mut Item) -> R) -> R {
    let before = item.usage();
    let result = change(item);
    totals.replace(before, item.usage());
    result
}
