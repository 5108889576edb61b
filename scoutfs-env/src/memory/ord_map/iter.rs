// SPDX-License-Identifier: GPL-2.0-only
//! Iterators over a map.

use core::marker::PhantomData;
use core::mem;

use super::OrdMap;
use super::node::Position;
use super::tree::Tree;

/// The first and the last entry still to come; both or none.
pub(super) struct RawRange<K, V> {
    ends: Option<(Position<K, V>, Position<K, V>)>,
}

impl<K, V> Clone for RawRange<K, V> {
    fn clone(&self) -> Self {
        Self { ends: self.ends }
    }
}

impl<K, V> RawRange<K, V> {
    pub(super) fn new(first: Option<Position<K, V>>, last: Option<Position<K, V>>) -> Self {
        Self { ends: first.zip(last) }
    }

    /// # Safety
    ///
    /// The shape of the tree has not changed since the range was made.
    unsafe fn next(&mut self) -> Option<Position<K, V>> {
        let (first, last) = self.ends?;
        self.ends = if first == last {
            None
        } else {
            // SAFETY: by the contract.
            unsafe { first.next() }.map(|first| (first, last))
        };
        Some(first)
    }

    /// # Safety
    ///
    /// As [`next`](Self::next).
    unsafe fn next_back(&mut self) -> Option<Position<K, V>> {
        let (first, last) = self.ends?;
        self.ends = if first == last {
            None
        } else {
            // SAFETY: by the contract.
            unsafe { last.previous() }.map(|last| (first, last))
        };
        Some(last)
    }

    /// Drops the entries; the caller owns them, and nobody uses them again.
    pub(super) fn drop_entries(&mut self) {
        // SAFETY: the tree still has its shape, and each position comes once.
        while let Some(Position { node, index }) = unsafe { self.next() } {
            // SAFETY: as above.
            unsafe {
                node.key(index).drop_in_place();
                node.value(index).drop_in_place();
            }
        }
    }
}

/// Entries of a map in order, see [`OrdMap::range`] and [`OrdMap::iter`].
pub struct Range<'a, K, V> {
    raw: RawRange<K, V>,
    borrows: PhantomData<&'a OrdMap<K, V>>,
}

/// Entries of a map in order, with values that may be changed, see [`OrdMap::range_mut`] and
/// [`OrdMap::iter_mut`].
pub struct RangeMut<'a, K, V> {
    raw: RawRange<K, V>,
    borrows: PhantomData<&'a mut OrdMap<K, V>>,
}

/// Entries that are moved out of a map in order. Nodes are given back at the end.
pub struct IntoIter<K, V> {
    raw: RawRange<K, V>,
    _tree: Tree<K, V>,
}

impl<K, V> Range<'_, K, V> {
    pub(super) fn new(raw: RawRange<K, V>) -> Self {
        Self { raw, borrows: PhantomData }
    }
}

impl<K, V> RangeMut<'_, K, V> {
    pub(super) fn new(raw: RawRange<K, V>) -> Self {
        Self { raw, borrows: PhantomData }
    }
}

impl<K, V> Clone for Range<'_, K, V> {
    fn clone(&self) -> Self {
        Self::new(self.raw.clone())
    }
}

impl<'a, K, V> Iterator for Range<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the map is borrowed for 'a, so it does not change.
        unsafe {
            let Position { node, index } = self.raw.next()?;
            Some((&*node.key(index), &*node.value(index)))
        }
    }
}

impl<K, V> DoubleEndedIterator for Range<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        // SAFETY: as in `next`.
        unsafe {
            let Position { node, index } = self.raw.next_back()?;
            Some((&*node.key(index), &*node.value(index)))
        }
    }
}

impl<'a, K, V> Iterator for RangeMut<'a, K, V> {
    type Item = (&'a K, &'a mut V);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the map is borrowed exclusively for 'a, its shape does not change, and each position comes
        // once, so no two references to one value are given out.
        unsafe {
            let Position { node, index } = self.raw.next()?;
            Some((&*node.key(index), &mut *node.value(index)))
        }
    }
}

impl<K, V> DoubleEndedIterator for RangeMut<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        // SAFETY: as in `next`.
        unsafe {
            let Position { node, index } = self.raw.next_back()?;
            Some((&*node.key(index), &mut *node.value(index)))
        }
    }
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        // SAFETY: the iterator owns the tree, and each position comes once.
        unsafe {
            let Position { node, index } = self.raw.next()?;
            Some(node.read_entry(index))
        }
    }
}

impl<K, V> DoubleEndedIterator for IntoIter<K, V> {
    fn next_back(&mut self) -> Option<(K, V)> {
        // SAFETY: as in `next`.
        unsafe {
            let Position { node, index } = self.raw.next_back()?;
            Some(node.read_entry(index))
        }
    }
}

impl<K, V> Drop for IntoIter<K, V> {
    fn drop(&mut self) {
        self.raw.drop_entries();
    }
}

impl<K, V> IntoIterator for OrdMap<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(mut self) -> IntoIter<K, V> {
        IntoIter { raw: self.all(), _tree: mem::replace(&mut self.tree, Tree::new()) }
    }
}

impl<'a, K, V> IntoIterator for &'a OrdMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Range<'a, K, V>;

    fn into_iter(self) -> Range<'a, K, V> {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut OrdMap<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = RangeMut<'a, K, V>;

    fn into_iter(self) -> RangeMut<'a, K, V> {
        self.iter_mut()
    }
}
