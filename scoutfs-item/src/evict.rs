// SPDX-License-Identifier: GPL-2.0-only
//! Giving memory back, and dropping a range whose cluster lock goes.
//!
//! Eviction goes round in key order, as the hand of a clock: a page that was used since the hand last came by
//! stays for another round.

use scoutfs_env::AllocError;
use scoutfs_format::Key;

use crate::cache::ItemCache;
use crate::error::ItemError;
use crate::pages::PageMap;

/// Pages that eviction looks at before it lets others have the map.
const PAGES_AT_ONCE: usize = 32;

/// What the cache has in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeState {
    /// It knows of no key in it.
    Unknown,
    /// It knows of some keys, and none is dirty.
    Clean,
    /// There are uncommitted changes.
    Dirty,
}

impl ItemCache {
    /// What the cache has in `first..=last`.
    pub fn range_cached(&self, first: Key, last: Key) -> RangeState {
        let map = self.map.read();
        if self.forced.lock().first_in(&first, &last).is_some() {
            return RangeState::Dirty;
        }
        let mut state = RangeState::Unknown;
        let mut at = Some(first);
        while let Some(page) = at.and_then(|key| map.covering_or_after(&key))
            && page.first <= last
        {
            if page.items.lock().first_dirty(&first, &last).is_some() {
                return RangeState::Dirty;
            }
            state = RangeState::Clean;
            at = page.last.next();
        }
        state
    }

    /// Forgets all about `first..=last`, and perhaps about some keys next to it. Nothing in it may be dirty
    /// ([`ItemError::DirtyInvalidate`]). Reads that are going on in it start again. Memory can be short only
    /// if a page that the range cuts is dirty in the rest.
    pub fn invalidate(&self, first: Key, last: Key) -> Result<(), ItemError> {
        let mut map = self.map.write();
        if let Some(key) = self.forced.lock().first_in(&first, &last) {
            return Err(ItemError::DirtyInvalidate { first, last, key });
        }
        let mut at = Some(first);
        while let Some(page) = at.and_then(|key| map.covering_or_after(&key))
            && page.first <= last
        {
            if let Some(key) = page.items.lock().first_dirty(&first, &last) {
                return Err(ItemError::DirtyInvalidate { first, last, key });
            }
            at = page.last.next();
        }

        self.cut(&mut map, first)?;
        if let Some(after) = last.next() {
            self.cut(&mut map, after)?;
        }
        while let Some(page_first) = map.first_overlap(&first, &last) {
            self.drop_page(&mut map, &page_first);
        }
        self.reads.make_stale(&first, &last);
        Ok(())
    }

    /// Gives clean pages up until the cache has at most `target_bytes`, or only pages that must stay: dirty
    /// ones, those where reads are going on, and those used meanwhile. Gives the bytes that were freed.
    pub fn shrink(&self, target_bytes: usize) -> usize {
        let before = self.bytes();
        let nr_pages = self.map.read().len();
        // One round may only find that all pages were used; starting over at the first page is a visit, too.
        self.evict(target_bytes, nr_pages.saturating_add(1).saturating_mul(2));
        before.saturating_sub(self.bytes())
    }

    /// Gives up to about `bytes` back, in clean pages that were not used since the clock's hand last came by, and says how many bytes that
    /// were. Looks at a number of pages that grows with `bytes`, and waits for nothing; so it may give back nothing.
    pub fn reclaim(&self, bytes: usize) -> usize {
        let before = self.bytes();
        let target = before.saturating_sub(bytes);
        let Some(nr_pages) = self.map.try_read().map(|map| map.len()) else { return 0 };
        let wanted = bytes.checked_div(self.limits.page_bytes).unwrap_or(nr_pages);
        // Twice around all pages are gone that are not used meanwhile.
        let round = nr_pages.saturating_add(1).saturating_mul(2);
        let mut visits = wanted.saturating_mul(4).saturating_add(PAGES_AT_ONCE).min(round);
        while visits > 0
            && self.bytes() > target
            && let Some(mut map) = self.map.try_write()
        {
            let now = visits.min(PAGES_AT_ONCE);
            self.evict_some(&mut map, target, now);
            visits -= now;
        }
        before.saturating_sub(self.bytes())
    }

    /// Called after `nr_pages` pages were added or became clean: if the cache is over its limit, gives up
    /// about as many, if there are.
    pub(crate) fn keep_limit(&self, nr_pages: usize) {
        self.evict(self.limits.cache_bytes, nr_pages.saturating_mul(2).saturating_add(PAGES_AT_ONCE));
    }

    /// Looks at up to `visits` pages until the cache has at most `target_bytes`.
    fn evict(&self, target_bytes: usize, mut visits: usize) {
        while visits > 0 && self.bytes() > target_bytes {
            let now = visits.min(PAGES_AT_ONCE);
            self.evict_some(&mut self.map.write(), target_bytes, now);
            visits -= now;
        }
    }

    fn evict_some(&self, map: &mut PageMap, target_bytes: usize, visits: usize) {
        for _ in 0..visits {
            if self.bytes() <= target_bytes {
                return;
            }
            let hand = map.hand;
            let Some(first) = map.first_overlap(&hand, &Key::MAX) else {
                map.hand = Key::MIN;
                continue;
            };
            let Some(page) = map.page_mut(&first) else {
                return;
            };
            let last = page.last;
            let items = page.items.get_mut();
            let used = core::mem::replace(&mut items.referenced, false);
            let stays = used || items.is_dirty() || self.reads.overlap(&first, &last);
            if !stays {
                self.drop_page(map, &first);
            }
            map.hand = last.next().unwrap_or(Key::MIN);
        }
    }

    /// Makes sure that no page has keys on both sides of `at`: splits the page that has if it is dirty, else
    /// drops it.
    fn cut(&self, map: &mut PageMap, at: Key) -> Result<(), AllocError> {
        let Some(first) = map.covering(&at).map(|page| page.first).filter(|first| *first != at) else {
            return Ok(());
        };
        let dirty = map.page_mut(&first).is_some_and(|page| page.items.get_mut().is_dirty());
        if dirty {
            return self.split_page(map, &first, at);
        }
        self.drop_page(map, &first);
        Ok(())
    }
}
