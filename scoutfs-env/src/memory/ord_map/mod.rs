// SPDX-License-Identifier: GPL-2.0-only
//! An ordered map whose growth can fail.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`OrdMap`] |
//! | `iter` | [`Range`], [`RangeMut`], [`IntoIter`] |
//! | `tree` | searches, splits, merges, spare nodes |
//! | `node` | the nodes, and walking from entry to entry |
//!
//! A B-tree with up to 23 entries in a node and entries at all levels. Nodes know their parents, so an iterator
//! is two positions. Nodes that are not the root keep at least 5 entries: few enough that a map which grows and
//! shrinks around one size does not split and merge all the time, and that
//! [`reserve`](OrdMap::reserve) can promise much for few nodes.
//!
//! `unsafe` is needed for uninitialised entries and parent pointers, and stays in this folder.

mod iter;
mod node;
#[cfg(test)]
mod tests;
mod tree;

use core::borrow::Borrow;
use core::fmt;
use core::mem;
use core::ops::{Bound, RangeBounds};

use iter::RawRange;
pub use iter::{IntoIter, Range, RangeMut};
use node::Position;
use tree::{Place, Tree};

use super::AllocError;

/// An ordered map. Only [`insert`](Self::insert) and [`reserve`](Self::reserve) allocate; everything else
/// cannot fail.
pub struct OrdMap<K, V> {
    tree: Tree<K, V>,
    len: usize,
}

impl<K, V> OrdMap<K, V> {
    /// An empty map; allocates nothing.
    pub const fn new() -> Self {
        Self { tree: Tree::new(), len: 0 }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops all entries and gives all memory back, the reserve too.
    pub fn clear(&mut self) {
        drop(mem::take(self));
    }

    /// Makes sure that the next `count` inserts cannot fail, wherever they go, whatever is removed before
    /// or between them ([`clear`](Self::clear) alone ends it). What is already in reserve counts; the reserve of
    /// one caller does not add to that of another.
    ///
    /// Costs one node for each level of the tree when `count` is 1, and less for each insert the larger it is.
    pub fn reserve(&mut self, count: usize) -> Result<(), AllocError> {
        self.tree.reserve(self.len, count)
    }

    /// Gives back what is in reserve.
    pub fn release_reserve(&mut self) {
        self.tree.release_spare();
    }

    fn entry(&self, position: Position<K, V>) -> (&K, &V) {
        // SAFETY: positions are those of live entries of this tree, which is borrowed.
        unsafe {
            let Position { node, index } = position;
            (&*node.key(index), &*node.value(index))
        }
    }

    fn entry_mut(&mut self, position: Position<K, V>) -> (&K, &mut V) {
        // SAFETY: as in `entry`, and borrowed exclusively.
        unsafe {
            let Position { node, index } = position;
            (&*node.key(index), &mut *node.value(index))
        }
    }

    fn remove_at(&mut self, position: Position<K, V>) -> (K, V) {
        self.len -= 1;
        self.tree.remove(position)
    }

    fn all(&self) -> RawRange<K, V> {
        RawRange::new(self.tree.first(), self.tree.last())
    }

    /// The entry with the lowest key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.tree.first().map(|at| self.entry(at))
    }

    /// The entry with the highest key.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.tree.last().map(|at| self.entry(at))
    }

    /// Takes the entry with the lowest key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.tree.first().map(|at| self.remove_at(at))
    }

    /// Takes the entry with the highest key.
    pub fn pop_last(&mut self) -> Option<(K, V)> {
        self.tree.last().map(|at| self.remove_at(at))
    }

    /// All entries in order.
    pub fn iter(&self) -> Range<'_, K, V> {
        Range::new(self.all())
    }

    /// All entries in order; values may be changed.
    pub fn iter_mut(&mut self) -> RangeMut<'_, K, V> {
        RangeMut::new(self.all())
    }

    /// All keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All values in the order of their keys; they may be changed.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> OrdMap<K, V> {
    /// Sets the value of a key and returns the one that it had; a key that is there is kept, not replaced. On
    /// failure the map is unchanged and `key` and `value` are dropped.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, AllocError> {
        let gap = match self.tree.find(|probe| probe.cmp(&key)) {
            Place::Found(at) => return Ok(Some(mem::replace(self.entry_mut(at).1, value))),
            Place::Gap(at) => Some(at),
            Place::Nowhere => None,
        };
        self.tree.insert(gap, key, value)?;
        self.len += 1;
        Ok(None)
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Position<K, V>>
    where
        K: Borrow<Q>,
    {
        match self.tree.find(|probe| probe.borrow().cmp(key)) {
            Place::Found(at) => Some(at),
            Place::Gap(_) | Place::Nowhere => None,
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|at| self.entry(at).1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|at| self.entry_mut(at).1)
    }

    /// The key that is in the map, and its value.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|at| self.entry(at))
    }

    /// Whether there is an entry with this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_some()
    }

    /// Takes the entry of a key and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Takes the entry of a key.
    pub fn remove_entry<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|at| self.remove_at(at))
    }

    fn at_or_after<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Position<K, V>>
    where
        K: Borrow<Q>,
    {
        self.tree.first_not(|probe| probe.borrow() < key)
    }

    fn after<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Position<K, V>>
    where
        K: Borrow<Q>,
    {
        self.tree.first_not(|probe| probe.borrow() <= key)
    }

    fn at_or_before<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Position<K, V>>
    where
        K: Borrow<Q>,
    {
        self.tree.last_before(|probe| probe.borrow() <= key)
    }

    fn before<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Position<K, V>>
    where
        K: Borrow<Q>,
    {
        self.tree.last_before(|probe| probe.borrow() < key)
    }

    /// The first entry whose key is `key` or higher.
    pub fn ceiling<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.at_or_after(key).map(|at| self.entry(at))
    }

    /// The first entry whose key is `key` or higher; its value may be changed.
    pub fn ceiling_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(&K, &mut V)>
    where
        K: Borrow<Q>,
    {
        self.at_or_after(key).map(|at| self.entry_mut(at))
    }

    /// The first entry whose key is higher than `key`.
    pub fn higher<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.after(key).map(|at| self.entry(at))
    }

    /// The last entry whose key is `key` or lower.
    pub fn floor<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.at_or_before(key).map(|at| self.entry(at))
    }

    /// The last entry whose key is `key` or lower; its value may be changed.
    pub fn floor_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(&K, &mut V)>
    where
        K: Borrow<Q>,
    {
        self.at_or_before(key).map(|at| self.entry_mut(at))
    }

    /// The last entry whose key is lower than `key`.
    pub fn lower<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.before(key).map(|at| self.entry(at))
    }

    fn raw_range<Q: Ord + ?Sized>(&self, range: impl RangeBounds<Q>) -> RawRange<K, V>
    where
        K: Borrow<Q>,
    {
        let first = match range.start_bound() {
            Bound::Included(key) => self.at_or_after(key),
            Bound::Excluded(key) => self.after(key),
            Bound::Unbounded => self.tree.first(),
        };
        let last = match range.end_bound() {
            Bound::Included(key) => self.at_or_before(key),
            Bound::Excluded(key) => self.before(key),
            Bound::Unbounded => self.tree.last(),
        };
        match (first, last) {
            (Some(first), Some(last)) if self.entry(first).0 <= self.entry(last).0 => {
                RawRange::new(Some(first), Some(last))
            }
            _ => RawRange::new(None, None),
        }
    }

    /// The entries of a range of keys in order. A range that ends before it starts is empty.
    pub fn range<Q: Ord + ?Sized>(&self, range: impl RangeBounds<Q>) -> Range<'_, K, V>
    where
        K: Borrow<Q>,
    {
        Range::new(self.raw_range(range))
    }

    /// The entries of a range of keys in order; values may be changed.
    pub fn range_mut<Q: Ord + ?Sized>(&mut self, range: impl RangeBounds<Q>) -> RangeMut<'_, K, V>
    where
        K: Borrow<Q>,
    {
        RangeMut::new(self.raw_range(range))
    }

    /// Drops the entries for which `keep` is false. It is called once for each entry, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut next = self.tree.first();
        while let Some(at) = next {
            let (key, value) = self.entry_mut(at);
            next = if keep(key, value) {
                // SAFETY: `at` is an entry of this tree, which has not changed since.
                unsafe { at.next() }
            } else {
                // Merges move entries about, so the next one is looked up.
                let (key, _) = self.remove_at(at);
                self.after(&key)
            };
        }
    }
}

impl<K, V> Default for OrdMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Drop for OrdMap<K, V> {
    fn drop(&mut self) {
        // The tree gives its nodes back when it is dropped, but knows nothing of the entries.
        self.all().drop_entries();
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for OrdMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for OrdMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for OrdMap<K, V> {}
