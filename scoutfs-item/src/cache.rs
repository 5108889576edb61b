// SPDX-License-Identifier: GPL-2.0-only
//! The cache, lookups and scans, and reading what is missing.

use core::ops::ControlFlow;
// Only counted, never waited for.
use core::sync::atomic::{AtomicU64, Ordering};

use scoutfs_btree::{Error, RangeItems};
use scoutfs_env::sync::{Mutex, RwLock};
use scoutfs_env::{AllocError, OrdMap, Vec};
use scoutfs_format::Key;

use crate::error::{ItemError, Misuse};
use crate::forced::Forced;
use crate::page::ItemRef;
use crate::pages::{PageMap, Spot, Totals};
use crate::rank;
use crate::reads::{Reading, Reads};

/// First and last key of the range of the cluster lock that the caller holds.
pub type Bounds = (Key, Key);

/// A batch of a scan ends after this many bytes of values.
const BATCH_BYTES: usize = 4096;
/// A batch of a scan has at most this many items.
const BATCH_ITEMS: usize = 64;

/// Reads committed items, those of this mount's own transactions that [`ItemCache::take_dirty`] has handed
/// over among them.
pub trait ItemReader {
    /// All items, without deletions, of a range around `key` and in `low..=high`, in ascending order.
    fn read_range(&self, key: Key, low: Key, high: Key) -> Result<RangeItems, Error>;
}

/// Sizes of a cache.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of items and their headers in a page, unless one or two items alone have more.
    pub page_bytes: usize,
    /// Bytes of memory from which the cache gives clean pages up by itself, a few at a time.
    pub cache_bytes: usize,
}

/// See the [crate](crate).
pub struct ItemCache {
    pub(crate) limits: Limits,
    pub(crate) map: RwLock<PageMap>,
    /// Items that were written without reading, and that no page covers.
    pub(crate) forced: Mutex<Forced>,
    /// First keys of the pages with dirty items.
    pub(crate) dirty_pages: Mutex<OrdMap<Key, ()>>,
    pub(crate) reads: Reads,
    pub(crate) totals: Totals,
    /// Looks at the cache that found what they looked for known, and reads of what was not.
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Items that a scan has copied.
struct Batch {
    heads: Vec<Head>,
    /// Their values, one after the other.
    bytes: Vec<u8>,
}

struct Head {
    key: Key,
    version: u64,
    value_len: usize,
}

impl Limits {
    /// Pages of 16 KiB.
    pub const fn new(cache_bytes: usize) -> Self {
        Limits { page_bytes: 16 * 1024, cache_bytes }
    }
}

impl ItemCache {
    /// A cache that knows nothing.
    pub const fn new(limits: Limits) -> Self {
        ItemCache {
            limits,
            map: RwLock::with_rank(PageMap::new(), rank::MAP),
            forced: Mutex::with_rank(Forced::new(), rank::FORCED),
            dirty_pages: Mutex::with_rank(OrdMap::new(), rank::DIRTY_PAGES),
            reads: Reads::new(),
            totals: Totals::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// How often an item, or that there is none, was known, and how often a range had to be read first.
    pub fn lookups(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of memory that pages and items take.
    pub fn bytes(&self) -> usize {
        self.totals.get().bytes
    }

    /// Number of items, tombstones among them, that this transaction has written.
    pub fn dirty_items(&self) -> usize {
        self.totals.get().dirty_items
    }

    /// Bytes of these items with the headers that trees and records store with them.
    pub fn dirty_bytes(&self) -> usize {
        self.totals.get().dirty_bytes
    }

    /// Calls `f` with the value and version of an item. `f` must be short and must not call the cache.
    pub fn get<R>(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        f: impl FnOnce(&[u8], u64) -> R,
    ) -> Result<Option<R>, ItemError> {
        self.get_near(reader, bounds, key, &mut Spot::default(), f)
    }

    /// As [`get`](Self::get), with a guess where the item is; notes where it is, or would be.
    pub fn get_near<R>(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        key: Key,
        spot: &mut Spot,
        f: impl FnOnce(&[u8], u64) -> R,
    ) -> Result<Option<R>, ItemError> {
        check_bounds(&bounds, key)?;
        let mut _kept;
        loop {
            {
                let map = self.map.read();
                if let Some(page) = map.covering_near(spot, &key) {
                    let mut items = page.items.lock();
                    items.referenced = true;
                    self.hit();
                    let (at, found) = items.get(spot.index as usize, &key);
                    *spot = page.spot(at);
                    return Ok(found.map(|item| f(item.value, item.version)));
                }
            }
            _kept = self.fill(reader, &bounds, key)?;
        }
    }

    /// Calls `f` with key, value and version of the first item in `from..=last`. Items beyond the bounds are
    /// not looked for. `f` must be short and must not call the cache. An item that others create in the range
    /// meanwhile may be passed over.
    pub fn next<R>(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        from: Key,
        last: Key,
        f: impl FnOnce(Key, &[u8], u64) -> R,
    ) -> Result<Option<R>, ItemError> {
        self.next_near(reader, bounds, from, last, &mut Spot::default(), f)
    }

    /// As [`next`](Self::next), with a guess where `from` is; notes where the item is. If there is none and all of `from..=last` is
    /// in one page, an item in that range would be near the spot.
    pub fn next_near<R>(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        from: Key,
        last: Key,
        spot: &mut Spot,
        f: impl FnOnce(Key, &[u8], u64) -> R,
    ) -> Result<Option<R>, ItemError> {
        check_bounds(&bounds, from)?;
        let last = last.min(bounds.1);
        let mut at = from;
        let mut _kept;
        loop {
            {
                let map = self.map.read();
                while at <= last
                    && let Some(page) = map.covering_near(spot, &at)
                {
                    let mut items = page.items.lock();
                    items.referenced = true;
                    if let Some(item) = items.ascending_near(spot.index as usize, &at).next() {
                        self.hit();
                        *spot = page.spot(item.at);
                        let key = item.key();
                        return Ok((key <= last).then(|| f(key, item.value, item.version)));
                    }
                    // It would come last.
                    *spot = page.spot(usize::MAX);
                    match page.last.next() {
                        Some(key) => at = key,
                        None => return Ok(None),
                    }
                }
            }
            if at > last {
                self.hit();
                return Ok(None);
            }
            _kept = self.fill(reader, &bounds, at)?;
        }
    }

    /// Calls `f` with key, value and version of the last item in `first..=from`, as [`next`](Self::next)
    /// does.
    pub fn prev<R>(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        from: Key,
        first: Key,
        f: impl FnOnce(Key, &[u8], u64) -> R,
    ) -> Result<Option<R>, ItemError> {
        check_bounds(&bounds, from)?;
        let first = first.max(bounds.0);
        let mut at = from;
        let mut _kept;
        loop {
            {
                let map = self.map.read();
                while at >= first
                    && let Some(page) = map.covering(&at)
                {
                    let mut items = page.items.lock();
                    items.referenced = true;
                    if let Some(item) = items.descending(&at).next() {
                        self.hit();
                        let key = item.key();
                        return Ok((key >= first).then(|| f(key, item.value, item.version)));
                    }
                    match page.first.prev() {
                        Some(key) => at = key,
                        None => return Ok(None),
                    }
                }
            }
            if at < first {
                self.hit();
                return Ok(None);
            }
            _kept = self.fill(reader, &bounds, at)?;
        }
    }

    /// Calls `f` with key, value and version of each item in `from..=last`, ascending, until it breaks; what
    /// it broke with is returned. Items beyond the bounds are not looked for. `f` runs without locks, on
    /// copies that are made in small batches; it may call the cache, and writes behind the item that it is
    /// called with may be seen or not.
    pub fn for_each<B>(
        &self,
        reader: &dyn ItemReader,
        bounds: Bounds,
        from: Key,
        last: Key,
        mut f: impl FnMut(Key, &[u8], u64) -> ControlFlow<B>,
    ) -> Result<Option<B>, ItemError> {
        check_bounds(&bounds, from)?;
        let last = last.min(bounds.1);
        let mut batch = Batch { heads: Vec::new(), bytes: Vec::new() };
        let mut at = Some(from);
        while let Some(key) = at.filter(|key| *key <= last) {
            batch.clear();
            at = self.copy_batch(reader, &bounds, key, last, &mut batch)?;
            let mut rest = batch.bytes.as_slice();
            for head in &batch.heads {
                let (value, after) = rest.split_at(head.value_len);
                rest = after;
                if let ControlFlow::Break(result) = f(head.key, value, head.version) {
                    return Ok(Some(result));
                }
            }
        }
        Ok(None)
    }

    /// Copies items from `from` on, and gives the key to go on from. There may be none in a batch.
    fn copy_batch(
        &self,
        reader: &dyn ItemReader,
        bounds: &Bounds,
        from: Key,
        last: Key,
        batch: &mut Batch,
    ) -> Result<Option<Key>, ItemError> {
        let mut _kept;
        loop {
            {
                let map = self.map.read();
                if let Some(page) = map.covering(&from) {
                    let mut items = page.items.lock();
                    items.referenced = true;
                    self.hit();
                    for item in items.ascending(&from) {
                        let key = item.key();
                        if key > last {
                            break;
                        }
                        if batch.is_full() {
                            return Ok(Some(key));
                        }
                        batch.push(key, &item)?;
                    }
                    return Ok(page.last.next());
                }
            }
            _kept = self.fill(reader, bounds, from)?;
        }
    }

    /// Reads what is around an unknown key, unless somebody else has done so. What was filled is not evicted
    /// while the returned value lives, so that the caller gets to see it.
    pub(crate) fn fill(
        &self,
        reader: &dyn ItemReader,
        bounds: &Bounds,
        key: Key,
    ) -> Result<Option<Reading<'_>>, ItemError> {
        loop {
            let reading = {
                let map = self.map.read();
                match map.hole(&key, bounds) {
                    Some((low, high)) => self.reads.begin(low, high)?,
                    None => return Ok(None),
                }
            };
            self.misses.fetch_add(1, Ordering::Relaxed);
            let range = reader.read_range(key, reading.low, reading.high)?;
            check_read(&range, key, &reading)?;
            {
                let mut map = self.map.write();
                if reading.is_stale() {
                    continue;
                }
                self.take_in_forced(&mut map, range.first, range.last)?;
                self.fill_gaps(&mut map, &range)?;
            }
            self.keep_limit(1);
            return Ok(Some(reading));
        }
    }
}

impl Batch {
    fn clear(&mut self) {
        self.heads.clear();
        self.bytes.clear();
    }

    fn is_full(&self) -> bool {
        self.heads.len() >= BATCH_ITEMS || self.bytes.len() >= BATCH_BYTES
    }

    fn push(&mut self, key: Key, item: &ItemRef<'_>) -> Result<(), AllocError> {
        self.bytes.extend_from_slice(item.value)?;
        self.heads.push(Head { key, version: item.version, value_len: item.value.len() })
    }
}

/// The key must be covered by the caller's lock.
pub(crate) fn check_bounds(bounds: &Bounds, key: Key) -> Result<(), Misuse> {
    let (first, last) = *bounds;
    if first <= key && key <= last {
        return Ok(());
    }
    Err(Misuse::OutOfBounds { key, first, last })
}

/// The range must hold the key, keep to what was asked, and hold its items in order.
fn check_read(range: &RangeItems, key: Key, reading: &Reading<'_>) -> Result<(), Misuse> {
    let RangeItems { first, last, .. } = *range;
    let range_holds = reading.low <= first && first <= key && key <= last && last <= reading.high;
    let items_hold = range.items.is_sorted_by(|a, b| a.key < b.key)
        && range.items.first().is_none_or(|item| first <= item.key)
        && range.items.last().is_none_or(|item| item.key <= last);
    if range_holds && items_hold {
        return Ok(());
    }
    Err(Misuse::BadRead { key, first, last })
}
