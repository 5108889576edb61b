// SPDX-License-Identifier: GPL-2.0-only
//! Items that are not in a tree yet.

use scoutfs_env::{Arc, Vec};
use scoutfs_format::Key;

use crate::Error;
use crate::tree::{ChangeSource, Item};

/// A tail that is longer than a newer one by this factor is left alone.
const JOIN: usize = 4;

/// The items of a slot's records since its last checkpoint, the newest version of each key. It belongs to the slot's
/// open log tree and is newer than all of that.
///
/// A tail that readers share does not change: a commit makes a new one of its items and publishes it. So it is a sorted list,
/// which a sorted batch is copied to or merged with, key by key, without a search.
#[derive(Debug, Default)]
pub struct Tail {
    /// Ascending by key.
    items: Vec<TailItem>,
    value_bytes: usize,
}

#[derive(Debug, Clone)]
struct TailItem {
    key: Key,
    version: u64,
    deletion: bool,
    /// The values of all items that were merged in with it, and where in there its own is.
    values: Arc<Vec<u8>>,
    start: usize,
    len: usize,
}

/// An item that is to be merged in, and where its value is.
struct Added {
    key: Key,
    version: u64,
    deletion: bool,
    start: usize,
    len: usize,
    /// Its place among those that are merged in with it.
    nr: usize,
}

impl TailItem {
    fn value(&self) -> &[u8] {
        self.values.get(self.start..self.start + self.len).unwrap_or_default()
    }

    fn borrow(&self) -> Item<'_> {
        Item { key: self.key, version: self.version, deletion: self.deletion, value: self.value() }
    }
}

impl Added {
    fn into_item(self, values: &Arc<Vec<u8>>) -> TailItem {
        let Added { key, version, deletion, start, len, .. } = self;
        TailItem { key, version, deletion, values: values.clone(), start, len }
    }
}

impl Tail {
    /// No items.
    pub const fn new() -> Self {
        Tail { items: Vec::new(), value_bytes: 0 }
    }

    /// Adds items of a record that is newer than all that were added before. An item stays when its version is
    /// higher than the added one's; when both are equal the added one does. Unchanged on failure.
    pub fn merge_in<'a>(&mut self, items: impl IntoIterator<Item = Item<'a>>) -> Result<(), Error> {
        let items = items.into_iter();
        let mut added = Vec::with_capacity(items.size_hint().0)?;
        let mut values = Vec::new();
        for item in items {
            let value = if item.deletion { &[] } else { item.value };
            let Item { key, version, deletion, .. } = item;
            let nr = added.len();
            added.push(Added { key, version, deletion, start: values.len(), len: value.len(), nr })?;
            values.extend_from_slice(value)?;
        }
        // Commits are in order; what is read from a device can be anything. The one to keep of a key comes last.
        if !added.is_sorted_by(|a, b| a.key < b.key) {
            scoutfs_env::sort::sort_by_key(&mut added, |item| (item.key, item.version, item.nr));
        }
        let values = Arc::new(values)?;
        let mut merged = Vec::with_capacity(self.items.len() + added.len())?;
        // From here on nothing can fail: there is room for all.
        self.value_bytes = 0;
        let mut old = self.items.drain(..).peekable();
        let mut added = added.into_iter().peekable();
        while let Some(item) = added.next() {
            if added.peek().is_some_and(|later| later.key == item.key) {
                continue;
            }
            while let Some(before) = old.next_if(|old| old.key < item.key) {
                self.value_bytes += before.len;
                merged.push(before)?;
            }
            let same = old.next_if(|old| old.key == item.key);
            let item = match same {
                Some(old) if old.version > item.version => old,
                _ => item.into_item(&values),
            };
            self.value_bytes += item.len;
            merged.push(item)?;
        }
        for after in old {
            self.value_bytes += after.len;
            merged.push(after)?;
        }
        self.items = merged;
        Ok(())
    }

    /// Adds a newer tail to those of a log, oldest first. It is joined with those before it that are not much longer: so there
    /// are few, no more than the logarithm of the number of items, and an item is copied about as often. On an error
    /// the list has lost some.
    pub fn push(tails: &mut Vec<Arc<Tail>>, mut newer: Arc<Tail>) -> Result<(), Error> {
        while let Some(last) = tails.last().filter(|last| last.len() <= newer.len().saturating_mul(JOIN)) {
            newer = Arc::new(Tail::joined(&[last.clone(), newer])?)?;
            tails.pop();
        }
        Ok(tails.push(newer)?)
    }

    /// Tails of a log, oldest first, as one.
    pub fn joined(tails: &[Arc<Tail>]) -> Result<Tail, Error> {
        let [first, newer @ ..] = tails else { return Ok(Tail::new()) };
        let mut all = first.try_clone()?;
        for tail in newer {
            all.merge_in(tail.range(Key::MIN, Key::MAX))?;
        }
        Ok(all)
    }

    /// A tail with the same items, whose values are shared.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let mut items = Vec::with_capacity(self.items.len())?;
        items.try_extend(self.items.iter().cloned())?;
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
        let at = self.items.binary_search_by(|item| item.key.cmp(key)).ok()?;
        self.items.get(at).map(TailItem::borrow)
    }

    /// Number of items below a key.
    pub(super) fn lower_bound(&self, key: &Key) -> usize {
        self.items.partition_point(|item| item.key < *key)
    }

    /// The key of an item by its place.
    pub(super) fn key_at(&self, at: usize) -> Option<Key> {
        self.items.get(at).map(|item| item.key)
    }

    /// The items from `first` on.
    fn from(&self, first: &Key) -> &[TailItem] {
        self.items.get(self.lower_bound(first)..).unwrap_or_default()
    }

    /// Items in `first..=last`, in key order, deletions included.
    pub fn range(&self, first: Key, last: Key) -> impl Iterator<Item = Item<'_>> {
        self.from(&first).iter().take_while(move |item| item.key <= last).map(TailItem::borrow)
    }
}

/// The items of a tail as changes to a tree.
pub struct TailSource<'a> {
    items: &'a [TailItem],
}

impl<'a> TailSource<'a> {
    /// Begins at the first item at or above `from`.
    pub fn new(tail: &'a Tail, from: Key) -> Self {
        TailSource { items: tail.from(&from) }
    }
}

impl ChangeSource for TailSource<'_> {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.items.first().map(TailItem::borrow))
    }

    fn advance(&mut self) {
        self.items = self.items.get(1..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(items: &[(u64, u64)]) -> Tail {
        let mut tail = Tail::new();
        for (ino, version) in items {
            let value = version.to_le_bytes();
            let item =
                Item { key: Key::inode(*ino), version: *version, deletion: version % 3 == 0, value: &value };
            tail.merge_in([item]).unwrap();
        }
        tail
    }

    fn items(tail: &Tail) -> std::vec::Vec<(Key, u64, bool, std::vec::Vec<u8>)> {
        let all = tail.range(Key::MIN, Key::MAX);
        all.map(|item| (item.key, item.version, item.deletion, item.value.to_vec())).collect()
    }

    #[test]
    fn tails_that_are_pushed_one_after_the_other_are_few_and_hold_what_one_would() {
        let (mut tails, mut one) = (Vec::new(), Tail::new());
        let mut most = 0;
        for n in 0..2000u64 {
            // Of different lengths; the keys come again.
            let new: std::vec::Vec<_> = (0..1 + n % 7).map(|i| ((n * n + i) % 5000, n + 1)).collect();
            let new = tail(&new);
            one.merge_in(new.range(Key::MIN, Key::MAX)).unwrap();
            Tail::push(&mut tails, Arc::new(new).unwrap()).unwrap();
            most = most.max(tails.len());
            assert!(tails.windows(2).all(|two| two[0].len() > two[1].len()), "after {n}");
        }
        assert!((3..=8).contains(&most), "{most} tails");
        assert_eq!(items(&Tail::joined(&tails).unwrap()), items(&one));
        assert!(Tail::joined(&[]).unwrap().is_empty());
    }
}
