// SPDX-License-Identifier: GPL-2.0-only
//! The map of pages; splitting pages and filling gaps between them.
//!
//! Changing the map needs it exclusively, and keeps the cache's sums and its set of dirty pages true.

use core::mem;
use core::sync::atomic::Ordering::Relaxed;

use scoutfs_btree::{OwnedItem, RangeItems};
use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::AtomicUsize;
use scoutfs_env::{AllocError, OrdMap, Vec};
use scoutfs_format::Key;

use crate::cache::{Bounds, ItemCache};
#[cfg(test)]
use crate::forced::Forced;
use crate::page::{ITEM_HEADER_BYTES, Item, Items, Usage};
use crate::rank;

/// Bytes of a page beside its items, with its place in the map.
const PAGE_BYTES: usize = size_of::<Page>() + 2 * size_of::<Key>();

/// A range of keys and all items in it. The map has its first key.
pub(crate) struct Page {
    /// Last key of the range. Changes only while the map is exclusive.
    pub(crate) last: Key,
    pub(crate) items: Mutex<Items>,
}

/// All pages, by the first key of their range.
pub(crate) struct PageMap {
    pages: OrdMap<Key, Page>,
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
    pub(crate) fn new(last: Key, items: Items) -> Self {
        Page { last, items: Mutex::with_rank(items, rank::PAGE) }
    }
}

impl PageMap {
    pub(crate) const fn new() -> Self {
        PageMap { pages: OrdMap::new(), hand: Key::MIN }
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// The page that covers a key, and its first key.
    pub(crate) fn covering(&self, key: &Key) -> Option<(Key, &Page)> {
        let (first, page) = self.pages.floor(key)?;
        (*key <= page.last).then_some((*first, page))
    }

    /// The page that covers a key, or the first one after it.
    pub(crate) fn covering_or_after(&self, key: &Key) -> Option<(Key, &Page)> {
        self.covering(key).or_else(|| self.pages.ceiling(key).map(|(first, page)| (*first, page)))
    }

    /// The first key of the page that covers a key or is the first one after it, if that begins by `last`.
    pub(crate) fn first_overlap(&self, key: &Key, last: &Key) -> Option<Key> {
        let (first, _) = self.covering_or_after(key)?;
        (first <= *last).then_some(first)
    }

    /// The unknown keys around an unknown key, as far as the bounds go. None if the key is known.
    pub(crate) fn hole(&self, key: &Key, bounds: &Bounds) -> Option<Bounds> {
        let low = match self.pages.floor(key) {
            Some((_, page)) if *key <= page.last => return None,
            Some((_, page)) => bounds.0.max(page.last.saturating_next()),
            None => bounds.0,
        };
        let high = match self.pages.higher(key) {
            Some((first, _)) => bounds.1.min(first.saturating_prev()),
            None => bounds.1,
        };
        Some((low, high))
    }

    /// The page that begins at `first`.
    pub(crate) fn page_mut(&mut self, first: &Key) -> Option<&mut Page> {
        self.pages.get_mut(first)
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
    /// Adds a page where there is none. If it is dirty the caller puts it into the set of dirty pages.
    pub(crate) fn insert_page(
        &self,
        map: &mut PageMap,
        first: Key,
        mut page: Page,
    ) -> Result<(), AllocError> {
        let mut usage = page.items.get_mut().usage();
        usage.bytes += PAGE_BYTES;
        map.pages.insert(first, page)?;
        self.totals.replace(Usage::default(), usage);
        Ok(())
    }

    /// Drops a page without dirty items. Reads that may fill a part of its range start again.
    pub(crate) fn drop_page(&self, map: &mut PageMap, first: &Key) {
        if let Some(mut page) = map.pages.remove(first) {
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
        map.pages.reserve(1)?;
        let mut dirty_pages = self.dirty_pages.lock();
        dirty_pages.reserve(1)?;
        let Some(page) = map.pages.get_mut(first) else {
            return Ok(());
        };
        let items = page.items.get_mut();
        let before = items.usage();
        let right = items.split_off(&at)?;
        let after = items.usage();

        if right.is_dirty() {
            dirty_pages.insert(at, ())?;
        }
        if before.dirty_items != 0 && !items.is_dirty() {
            dirty_pages.remove(first);
        }
        let right_page = Page::new(mem::replace(&mut page.last, at.saturating_prev()), right);
        self.totals.replace(before, after);
        self.insert_page(map, at, right_page)
    }

    /// Makes a page of its own of each item in a range that was written without reading, before the range around them is
    /// filled. On failure some are left, and all of them are somewhere.
    pub(crate) fn take_in_forced(&self, map: &mut PageMap, first: Key, last: Key) -> Result<(), AllocError> {
        let mut forced = self.forced.lock();
        while let Some(key) = forced.first_in(&first, &last) {
            // What may fail comes first.
            map.pages.reserve(1)?;
            let mut items = Vec::with_capacity(1)?;
            let mut dirty_pages = self.dirty_pages.lock();
            dirty_pages.reserve(1)?;
            if let Some(item) = forced.take(&self.totals, &key) {
                items.push(item)?;
                dirty_pages.insert(key, ())?;
                self.insert_page(map, key, Page::new(key, Items::new(items)))?;
            }
        }
        Ok(())
    }

    /// Makes pages of the parts of a range, as it was read, that are not known yet.
    pub(crate) fn fill_gaps(&self, map: &mut PageMap, range: &mut RangeItems) -> Result<(), AllocError> {
        let bounds = (range.first, range.last);
        let mut rest = range.items.as_mut_slice();
        let mut at = Some(range.first);
        while let Some(key) = at.filter(|key| *key <= range.last) {
            let (last, gap) = match map.covering(&key) {
                Some((_, page)) => (page.last, None),
                None => {
                    let hole = map.hole(&key, &bounds).unwrap_or((key, key));
                    (hole.1, Some(hole))
                }
            };
            let count = rest.partition_point(|item| item.key <= last);
            let (here, after) = rest.split_at_mut(count);
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
        mut rest: &mut [OwnedItem],
    ) -> Result<(), AllocError> {
        loop {
            let (here, after) = rest.split_at_mut(self.fitting(rest));
            let next = after.first().map(|item| item.key);
            let mut items = Vec::with_capacity(here.len())?;
            for item in here.iter_mut().filter(|item| !item.deletion) {
                let value = mem::take(&mut item.value);
                items.push(Item::clean(item.key, item.version, value))?;
            }
            let last = next.map_or(high, Key::saturating_prev);
            self.insert_page(map, low, Page::new(last, Items::new(items)))?;
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
        for (first, page) in map.pages.iter_mut() {
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
