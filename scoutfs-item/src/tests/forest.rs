// SPDX-License-Identifier: GPL-2.0-only
//! What is committed, as a reader for the cache.
// Not all of it is of use under shuttle.
#![cfg_attr(feature = "shuttle", allow(dead_code))]

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::BTreeMap;

use scoutfs_btree::{Error, OwnedItem, RangeItems};
use scoutfs_env::sync::Mutex;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;

use super::key;
use crate::{Bounds, ItemReader};

/// No test uses a key from this one on.
const END: u64 = 100_000;

type Value = std::vec::Vec<u8>;

/// Version and value of an item; no value is a tombstone.
type Record = (u64, Option<Value>);

/// All that was committed. As of trees of leaves that hold `leaf_keys` of the test keys each.
pub(super) struct Forest {
    pub(super) leaf_keys: u64,
    records: Mutex<BTreeMap<Key, Record>>,
    nr_reads: Mutex<usize>,
    /// What the next reads fail with.
    failure: Mutex<Option<Error>>,
}

impl Forest {
    pub(super) fn new(leaf_keys: u64) -> Self {
        Forest {
            leaf_keys,
            records: Mutex::new(BTreeMap::new()),
            nr_reads: Mutex::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Takes over a batch. As in the trees, versions decide: a write that does not ascend is lost.
    pub(super) fn commit(&self, batch: Vec<OwnedItem>) -> Result<(), AllocError> {
        assert!(batch.is_sorted_by(|a, b| a.key < b.key), "the batch ascends, each key once");
        let mut records = self.records.lock();
        for item in batch {
            assert!(!item.deletion || item.value.is_empty());
            let value = (!item.deletion).then(|| item.value.to_vec());
            let newer = records.get(&item.key).is_none_or(|old| old.0 < item.version);
            if newer {
                records.insert(item.key, (item.version, value));
            }
        }
        Ok(())
    }

    /// Puts an item in as if it had always been there.
    pub(super) fn put(&self, key: Key, version: u64, value: &[u8]) {
        self.records.lock().insert(key, (version, Some(value.to_vec())));
    }

    pub(super) fn record(&self, key: Key) -> Option<Record> {
        self.records.lock().get(&key).cloned()
    }

    pub(super) fn nr_reads(&self) -> usize {
        *self.nr_reads.lock()
    }

    pub(super) fn fail_reads(&self, failure: Option<Error>) {
        *self.failure.lock() = failure;
    }

    /// The range of the leaf that holds a key: the first and the last one go on to the ends of the key space.
    fn leaf(&self, at: Key) -> Bounds {
        let n = match at {
            at if at < key(0) => 0,
            at if at >= key(END) => END,
            at => at.second,
        };
        let start = n / self.leaf_keys * self.leaf_keys;
        let end = start + self.leaf_keys;
        let first = if start == 0 { Key::MIN } else { key(start) };
        let last = if end > END { Key::MAX } else { key(end).saturating_prev() };
        (first, last)
    }
}

impl ItemReader for Forest {
    fn read_range(&self, key: Key, low: Key, high: Key) -> Result<RangeItems, Error> {
        *self.nr_reads.lock() += 1;
        if let Some(failure) = &*self.failure.lock() {
            return Err(failure.clone());
        }
        let (first, last) = self.leaf(key);
        let (first, last) = (first.max(low), last.min(high));
        let mut items = Vec::new();
        for (&key, (version, value)) in self.records.lock().range(first..=last) {
            if let Some(value) = value {
                let value = Vec::from_slice(value)?;
                items.push(OwnedItem { key, version: *version, deletion: false, value })?;
            }
        }
        Ok(RangeItems { first, last, items })
    }
}

/// A read that is interrupted once: after it has seen what is committed, before it returns.
pub(super) struct Interrupted<'a> {
    forest: &'a Forest,
    interruption: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl<'a> Interrupted<'a> {
    pub(super) fn new(forest: &'a Forest, interruption: impl FnOnce() + 'a) -> Self {
        Interrupted { forest, interruption: RefCell::new(Some(Box::new(interruption))) }
    }
}

impl ItemReader for Interrupted<'_> {
    fn read_range(&self, key: Key, low: Key, high: Key) -> Result<RangeItems, Error> {
        let range = self.forest.read_range(key, low, high);
        let interruption = self.interruption.borrow_mut().take();
        if let Some(interruption) = interruption {
            interruption();
        }
        range
    }
}
