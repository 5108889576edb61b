// SPDX-License-Identifier: GPL-2.0-only
//! The item cache: what one mount knows of the items, and what it has changed and not committed yet.
//!
//! A *page* covers a range of keys and holds all items in it. A key in a page without an item is known to be
//! absent; a key in no page is unknown and is read through the caller's [`ItemReader`] when somebody asks.
//! An item that is written where nothing is known, without reading, is kept apart from the pages.
//! A [`Spot`] notes where an operation found an item, so that the next one on it, or near it, need not search.
//! Changes make items *dirty*. [`ItemCache::take_dirty`] closes a transaction: it hands the dirty items over
//! for the commit and makes them clean. Clean pages can go at any time.
//!
//! | module | what |
//! | --- | --- |
//! | `cache` | [`ItemCache`], lookups and scans, reading what is missing |
//! | `write` | creating, updating and deleting items |
//! | `commit` | the end of a transaction |
//! | `evict` | giving memory back, dropping a range whose cluster lock goes |
//! | `pages` | the map of pages; splitting pages and filling gaps between them |
//! | `forced` | items that were written without reading |
//! | `page` | the items of one page, packed, and what a write does to them |
//! | `shape` | how the keys of a page are packed |
//! | `item` | an item by itself; what writes do, and what items cost |
//! | `slab` | where pages are, so that they are found again without a search |
//! | `reads` | reads that are going on, and their ranges |
//! | `error` | [`ItemError`], [`Misuse`] |
//!
//! # What must hold
//!
//! - Pages never overlap, and first <= last in each. The items of a page ascend and lie in its range.
//! - A dirty item's page is never dropped.
//! - An item that was written without reading is in no page's range. When its range is read it gets a page.
//! - What was read is only put where there is no page: what the cache has is as new or newer.
//! - While a read is going on, no page that overlaps the range being read is evicted. So the read cannot
//!   bring back what was there before a write that was committed meanwhile: the page written to is still
//!   there. A page that must go, because its range is invalidated, makes the read start again, and so does the
//!   commit of what was written without reading.
//! - Versions of one key ascend. A write with a version that is lower than that of the item it replaces, or
//!   equal to it when another transaction wrote that, is refused with [`Misuse::VersionTooLow`].
//! - A deletion leaves a tombstone in the transaction, unless it is certain that no tree has the item: it was
//!   created where its absence was known, in the same transaction.
//! - **Dirty first.** There is no undo. After [`ItemCache::dirty`] an item can be deleted, or replaced with a
//!   value that is no longer, without allocating, so without failing, until the transaction ends.
//!
//! Who calls must hold the cluster lock that covers the keys, keep [`ItemCache::take_dirty`] out while
//! several writes have to be in one transaction, and give each write a version as section 5 of the design says.
//!
//! # Locking
//!
//! In this order, none of them during a read of the device:
//!
//! 1. the map of pages, a read-write lock: shared by all that look or change items in a page; exclusive for
//!    adding, splitting and dropping pages, and for the whole of `take_dirty`, which thus sees each write
//!    wholly or not;
//! 2. a mutex for each page: its items. Nobody holds two. Not needed by who has the map exclusively;
//! 3. the items that were written without reading;
//! 4. the set of dirty pages;
//! 5. the list of reads going on.
//!
//! Callers' functions run under 1 and 2 (1, 3 and 4 for that of `take_dirty`), and must not call the cache; that of
//! [`ItemCache::for_each`] runs under none.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod cache;
mod commit;
mod error;
mod evict;
mod forced;
mod item;
mod page;
mod pages;
mod reads;
mod shape;
mod slab;
mod write;

#[cfg(test)]
mod tests;

pub use cache::{Bounds, ItemCache, ItemReader, Limits};
pub use error::{ItemError, Misuse};
pub use evict::RangeState;
pub use pages::Spot;

/// Places of this crate's locks in the lock order. Locks that callers' functions take rank higher than all.
mod rank {
    pub(crate) const MAP: u16 = 500;
    pub(crate) const PAGE: u16 = 510;
    pub(crate) const FORCED: u16 = 515;
    pub(crate) const DIRTY_PAGES: u16 = 520;
    pub(crate) const READS: u16 = 530;
}
