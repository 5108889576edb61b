// SPDX-License-Identifier: GPL-2.0-only
//! The map of pages; splitting pages and filling gaps between them.
//!
//! Changing the map needs it exclusively, and keeps the cache's sums and its set of dirty pages true.

use core::mem;
use core::sync::atomic::Ordering::Relaxed;

use scoutfs_btree::{OwnedItem, RangeItems};
use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::AtomicUsize;
use scoutfs_env::{AllocError, Box, OrdMap, try_box};
use scoutfs_format::Key;

use crate::cache::{Bounds, ItemCache};
#[cfg(test)]
use crate::forced::Forced;
use crate::item::{HEAP_BYTES, ITEM_HEADER_BYTES, Usage};
use crate::page::Items;
use crate::rank;
use crate::slab::Slab;

/// Bytes of a page beside its items, with its places in the map.
const PAGE_BYTES: usize =
    size_of::<Page>() + HEAP_BYTES + Slab::<Page>::PLACE_BYTES + size_of::<(Key, u32)>() + size_of::<Key>();

/// A range of keys and all items in it.
pub(crate) struct Page {
    /// Where it is in the slab.
    place: u32,
    /// First key of the range.
    pub(crate) first: Key,
    /// Last key of the range. Changes only while the map is exclusive.
    pub(crate) last: Key,
    pub(crate) items: Mutex<Items>,
}

/// Where an item was, or where it would go: a hint, with which the next search for a key near by is short. It may be given with any
/// key, and makes no difference but in time.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Of the page. It may have become another's.
    place: u32,
    /// Among the page's items.
    pub(crate) index: u32,
}

impl Default for Spot {
    /// The last item of some page.
    fn default() -> Self {
        Spot { place: 0, index: u32::MAX }
    }
}

/// All pages.
pub(crate) struct PageMap {
    slab: Slab<Page>,
    /// Where they are in the slab, by the first key of their range.
    order: OrdMap<Key, u32>,
    /// No page begins before it. What is written without reading is below all pages, so it need not be searched for.
    lowest: Key,
    /// Where eviction goes on.
    pub(crate) hand: Key,
}

/// Sums over all pages. Exact while the map is exclusive.
pub(crate) struct Totals {
    bytes: AtomicUsize,
    dirty_items: AtomicUsize,
    dirty_bytes: AtomicUsize,
}

impl Page {
    /// Which is in no map yet.
    pub(crate) fn new(first: Key, last: Key, items: Items) -> Self {
        Page { place: 0, first, last, items: Mutex::with_rank(items, rank::PAGE) }
    }

    fn covers(&self, key: &Key) -> bool {
        self.first <= *key && *key <= self.last
    }

    /// The spot of one of its items.
    pub(crate) fn spot(&self, index: usize) -> Spot {
        // A wrong index is a useless hint, no more.
        Spot { place: self.place, index: index as u32 }
    }
}

impl PageMap {
    pub(crate) const fn new() -> Self {
        PageMap { slab: Slab::new(), order: OrdMap::new(), lowest: Key::MAX, hand: Key::MIN }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The last page that begins at or before a key.
    fn floor(&self, key: &Key) -> Option<&Page> {
        if *key < self.lowest {
            return None;
        }
        self.slab.get(*self.order.floor(key)?.1)
    }

    /// The page that covers a key.
    pub(crate) fn covering(&self, key: &Key) -> Option<&Page> {
        self.floor(key).filter(|page| *key <= page.last)
    }

    /// As [`covering`](Self::covering), without a search if it is the page of the spot.
    pub(crate) fn covering_near(&self, spot: &Spot, key: &Key) -> Option<&Page> {
        match self.slab.get(spot.place) {
            // Pages do not overlap, so whichever it is by now, it is the right one.
            Some(page) if page.covers(key) => Some(page),
            _ => self.covering(key),
        }
    }

    /// The page that covers a key, or the first one after it.
    pub(crate) fn covering_or_after(&self, key: &Key) -> Option<&Page> {
        self.covering(key).or_else(|| self.slab.get(*self.order.ceiling(key)?.1))
    }

    /// The first key of the page that covers a key or is the first one after it, if that begins by `last`.
    pub(crate) fn first_overlap(&self, key: &Key, last: &Key) -> Option<Key> {
        let first = self.covering_or_after(key)?.first;
        (first <= *last).then_some(first)
    }

    /// The unknown keys around an unknown key, as far as the bounds go. None if the key is known.
    pub(crate) fn hole(&self, key: &Key, bounds: &Bounds) -> Option<Bounds> {
        let low = match self.floor(key) {
            Some(page) if *key <= page.last => return None,
            Some(page) => bounds.0.max(page.last.saturating_next()),
            None => bounds.0,
        };
        let high = match self.order.higher(key) {
            Some((first, _)) => bounds.1.min(first.saturating_prev()),
            None => bounds.1,
        };
        Some((low, high))
    }

    /// The page that begins at `first`.
    pub(crate) fn page_mut(&mut self, first: &Key) -> Option<&mut Page> {
        self.slab.get_mut(*self.order.get(first)?)
    }

    /// Makes sure that there are places for one more page.
    fn reserve(&mut self) -> Result<(), AllocError> {
        self.slab.reserve()?;
        self.order.reserve(1)
    }

    /// Adds a page where there is none. All stays as it was on failure.
    fn insert(&mut self, page: Box<Page>) -> Result<(), AllocError> {
        self.reserve()?;
        let first = page.first;
        let place = self.slab.insert(page)?;
        if let Some(page) = self.slab.get_mut(place) {
            page.place = place;
        }
        self.order.insert(first, place)?;
        self.lowest = self.lowest.min(first);
        Ok(())
    }

    fn remove(&mut self, first: &Key) -> Option<Box<Page>> {
        let place = self.order.remove(first)?;
        if *first == self.lowest {
            self.lowest = self.order.first_key_value().map_or(Key::MAX, |(key, _)| *key);
        }
        self.slab.remove(place)
    }
}

impl Totals {
    pub(crate) const fn new() -> Self {
        Totals {
            bytes: AtomicUsize::new(0),
            dirty_items: AtomicUsize::new(0),
            dirty_bytes: AtomicUsize::new(0),
        }
    }

    pub(crate) fn get(&self) -> Usage {
        Usage {
            bytes: self.bytes.load(Relaxed),
            dirty_items: self.dirty_items.load(Relaxed),
            dirty_bytes: self.dirty_bytes.load(Relaxed),
        }
    }

    /// What cost `before` costs `after` now.
    pub(crate) fn replace(&self, before: Usage, after: Usage) {
        // Differences below zero wrap, and so does the addition.
        let add = |sum: &AtomicUsize, before: usize, after: usize| {
            if before != after {
                sum.fetch_add(after.wrapping_sub(before), Relaxed);
            }
        };
        add(&self.bytes, before.bytes, after.bytes);
        add(&self.dirty_items, before.dirty_items, after.dirty_items);
        add(&self.dirty_bytes, before.dirty_bytes, after.dirty_bytes);
    }
}

impl ItemCache {
    /// Adds a page where there is none; cannot fail after [`PageMap::reserve`]. If it is dirty the caller puts it into the set of
    /// dirty pages.
    pub(crate) fn insert_page(&self, map: &mut PageMap, mut page: Box<Page>) -> Result<(), AllocError> {
        let mut usage = page.items.get_mut().usage();
        usage.bytes += PAGE_BYTES;
        map.insert(page)?;
        self.totals.replace(Usage::default(), usage);
        Ok(())
    }

    /// Drops a page without dirty items. Reads that may fill a part of its range start again.
    pub(crate) fn drop_page(&self, map: &mut PageMap, first: &Key) {
        if let Some(mut page) = map.remove(first) {
            let mut usage = page.items.get_mut().usage();
            usage.bytes += PAGE_BYTES;
            self.totals.replace(usage, Usage::default());
            self.reads.make_stale(first, &page.last);
        }
    }

    /// Splits the page that begins at `first` before `at`, which must lie after `first` in the page. The two
    /// halves cover all that the page did: the space between items says that keys are absent, and may not get
    /// lost.
    pub(crate) fn split_page(&self, map: &mut PageMap, first: &Key, at: Key) -> Result<(), AllocError> {
        // What may fail comes first.
        map.reserve()?;
        let mut dirty_pages = self.dirty_pages.lock();
        dirty_pages.reserve(1)?;
        let mut right = try_box(Page::new(at, at, Items::default()))?;
        let Some(page) = map.page_mut(first) else {
            return Ok(());
        };
        let items = page.items.get_mut();
        let before = items.usage();
        *right.items.get_mut() = items.split_off(&at)?;
        let after = items.usage();

        if right.items.get_mut().is_dirty() {
            dirty_pages.insert(at, ())?;
        }
        if before.dirty_items != 0 && !items.is_dirty() {
            dirty_pages.remove(first);
        }
        right.last = mem::replace(&mut page.last, at.saturating_prev());
        self.totals.replace(before, after);
        self.insert_page(map, right)
    }

    /// Makes a page of its own of each item in a range that was written without reading, before the range around them is
    /// filled. On failure some are left, and all of them are somewhere.
    pub(crate) fn take_in_forced(&self, map: &mut PageMap, first: Key, last: Key) -> Result<(), AllocError> {
        let mut forced = self.forced.lock();
        while let Some(key) = forced.first_in(&first, &last) {
            // What may fail comes first.
            map.reserve()?;
            let Some(item) = forced.get(&key) else {
                return Ok(());
            };
            let page = try_box(Page::new(key, key, Items::of_unread(item)?))?;
            let mut dirty_pages = self.dirty_pages.lock();
            dirty_pages.insert(key, ())?;
            forced.remove(&self.totals, &key);
            self.insert_page(map, page)?;
        }
        Ok(())
    }

    /// Makes pages of the parts of a range, as it was read, that are not known yet.
    pub(crate) fn fill_gaps(&self, map: &mut PageMap, range: &RangeItems) -> Result<(), AllocError> {
        let bounds = (range.first, range.last);
        let mut rest = range.items.as_slice();
        let mut at = Some(range.first);
        while let Some(key) = at.filter(|key| *key <= range.last) {
            let (last, gap) = match map.covering(&key) {
                Some(page) => (page.last, None),
                None => {
                    let hole = map.hole(&key, &bounds).unwrap_or((key, key));
                    (hole.1, Some(hole))
                }
            };
            let count = rest.partition_point(|item| item.key <= last);
            let (here, after) = rest.split_at(count);
            if let Some((low, high)) = gap {
                self.fill_gap(map, low, high, here)?;
            }
            rest = after;
            at = last.next();
        }
        Ok(())
    }

    /// Makes pages of a range in which nothing is known.
    fn fill_gap(
        &self,
        map: &mut PageMap,
        mut low: Key,
        high: Key,
        mut rest: &[OwnedItem],
    ) -> Result<(), AllocError> {
        loop {
            let (here, after) = rest.split_at(self.fitting(rest));
            let next = after.first().map(|item| item.key);
            let last = next.map_or(high, Key::saturating_prev);
            self.insert_page(map, try_box(Page::new(low, last, Items::read(here)?))?)?;
            match next {
                Some(key) => low = key,
                None => return Ok(()),
            }
            rest = after;
        }
    }

    /// How many of the items fit into a page; at least one, if there is one.
    fn fitting(&self, items: &[OwnedItem]) -> usize {
        let mut bytes: usize = 0;
        let more = items.iter().skip_while(|item| {
            let first = bytes == 0;
            bytes += ITEM_HEADER_BYTES + item.value.len();
            first || bytes <= self.limits.page_bytes
        });
        items.len() - more.count()
    }
}

#[cfg(test)]
impl ItemCache {
    /// Asserts what must hold whenever no operation is going on.
    pub(crate) fn assert_consistent(&self) {
        let mut map = self.map.write();
        let forced = self.forced.lock();
        let dirty_pages = self.dirty_pages.lock();
        let mut total = Usage::default();
        let mut nr_dirty_pages = 0;
        let mut previous: Option<Key> = None;
        assert_eq!(map.lowest, map.order.first_key_value().map_or(Key::MAX, |(key, _)| *key));
        let PageMap { slab, order, .. } = &mut *map;
        for (first, place) in order.iter() {
            let page = slab.get_mut(*place).expect("a page is where the order says");
            assert_eq!((page.first, page.place), (*first, *place));
            assert!(*first <= page.last, "a page keeps first <= last");
            assert!(previous.is_none_or(|last| last < *first), "pages overlap at {first}");
            assert_eq!(forced.first_in(first, &page.last), None, "what is known is in its page");
            previous = Some(page.last);

            let items = page.items.get_mut();
            items.assert_consistent(first, &page.last);
            assert_eq!(dirty_pages.contains_key(first), items.is_dirty());
            nr_dirty_pages += usize::from(items.is_dirty());
            let usage = items.usage();
            total.bytes += usage.bytes + PAGE_BYTES;
            total.dirty_items += usage.dirty_items;
            total.dirty_bytes += usage.dirty_bytes;
        }
        for item in forced.iter() {
            let usage = Forced::usage(item);
            assert_eq!(usage.dirty_items, 1, "what is written without reading is dirty");
            total.bytes += usage.bytes;
            total.dirty_items += usage.dirty_items;
            total.dirty_bytes += usage.dirty_bytes;
        }
        assert_eq!(dirty_pages.len(), nr_dirty_pages);
        assert_eq!(self.totals.get(), total);
    }

    /// Number of pages.
    #[cfg(not(feature = "shuttle"))]
    pub(crate) fn nr_pages(&self) -> usize {
        self.map.read().len()
    }
}
