// SPDX-License-Identifier: GPL-2.0-only
//! Items that are not in a tree yet.

use core::iter::Peekable;

use scoutfs_env::{Arc, OrdMap, Vec, memory};
use scoutfs_format::Key;

use crate::Error;
use crate::tree::{ChangeSource, Item};

/// The items of a slot's records since its last checkpoint, the newest version of each key. It belongs to the slot's
/// open log tree and is newer than all of that.
///
/// A tail that readers share does not change: a commit makes the next one with [`try_clone`](Self::try_clone), which
/// shares the values, merges its items in and publishes it.
#[derive(Debug, Default)]
pub struct Tail {
    items: OrdMap<Key, TailItem>,
    value_bytes: usize,
}

/// An item of a tail.
#[derive(Debug, Clone)]
pub struct TailItem {
    /// The highest version of a key wins.
    pub version: u64,
    /// The key was deleted; the value is empty.
    pub deletion: bool,
    /// The values of all items that were merged in with it, and where in there its own is.
    values: Arc<Vec<u8>>,
    start: usize,
    len: usize,
}

impl TailItem {
    /// The value.
    pub fn value(&self) -> &[u8] {
        self.values.get(self.start..self.start + self.len).unwrap_or_default()
    }

    fn to_item(&self, key: Key) -> Item<'_> {
        Item { key, version: self.version, deletion: self.deletion, value: self.value() }
    }
}

impl Tail {
    /// No items.
    pub const fn new() -> Self {
        Tail { items: OrdMap::new(), value_bytes: 0 }
    }

    /// Adds items of a record that is newer than all that were added before. An item stays when its version is
    /// higher than the added one's; when both are equal the added one does. Unchanged on failure.
    pub fn merge_in<'a>(&mut self, items: impl IntoIterator<Item = Item<'a>>) -> Result<(), Error> {
        let mut added = Vec::new();
        let mut values = Vec::new();
        for item in items {
            let value = if item.deletion { &[] } else { item.value };
            added.push((item.key, item.version, item.deletion, values.len(), value.len()))?;
            values.extend_from_slice(value)?;
        }
        let values = Arc::new(values)?;
        self.items.reserve(added.len())?;
        for (key, version, deletion, start, len) in added {
            let old = self.items.get(&key);
            if old.is_some_and(|old| old.version > version) {
                continue;
            }
            let old_len = old.map_or(0, |old| old.len);
            let item = TailItem { version, deletion, values: values.clone(), start, len };
            // Cannot fail: there is room for all of them.
            self.items.insert(key, item)?;
            self.value_bytes = self.value_bytes - old_len + len;
        }
        Ok(())
    }

    /// A tail with the same items, whose values are shared.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let mut items = OrdMap::new();
        for (key, item) in &self.items {
            items.insert(*key, item.clone())?;
        }
        Ok(Tail { items, value_bytes: self.value_bytes })
    }

    /// Number of items, deletions included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Sum of the bytes of all values.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The item with this very key, a deletion included.
    pub fn get(&self, key: &Key) -> Option<Item<'_>> {
        self.items.get(key).map(|item| item.to_item(*key))
    }

    /// Items in `first..=last`, in key order, deletions included.
    pub fn range(&self, first: Key, last: Key) -> impl Iterator<Item = Item<'_>> {
        // An empty range, not a panic, when first is above last.
        self.items
            .range(first.min(last)..=last)
            .map(|(key, item)| item.to_item(*key))
            .skip_while(move |item| item.key < first)
    }
}

/// The items of a tail as changes to a tree.
pub struct TailSource<'a> {
    items: Peekable<memory::Range<'a, Key, TailItem>>,
}

impl<'a> TailSource<'a> {
    /// Begins at the first item at or above `from`.
    pub fn new(tail: &'a Tail, from: Key) -> Self {
        TailSource { items: tail.items.range(from..).peekable() }
    }
}

impl ChangeSource for TailSource<'_> {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.items.peek().map(|(key, item)| item.to_item(**key)))
    }

    fn advance(&mut self) {
        self.items.next();
    }
}
