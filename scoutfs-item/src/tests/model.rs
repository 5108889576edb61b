// SPDX-License-Identifier: GPL-2.0-only
//! Random operations against a map.
//!
//! The model is the map of items as of now; the forest gets what `take_dirty` gives. Since pages are evicted
//! and dropped at random, what was committed is read again and again. An operation may be interrupted in the
//! middle of its read by others, with which it is as if a slow read met everything that another thread can
//! do.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use core::ops::ControlFlow;

use proptest::collection;
use proptest::prelude::*;
use scoutfs_env::AllocError;
use scoutfs_env::sync::Mutex;
use scoutfs_format::Key;

use super::forest::{Forest, Interrupted};
use super::{ALL, SMALL_PAGES, key};
use crate::{ItemCache, ItemError, ItemReader, Limits, Misuse, RangeState, Spot};

const NR_KEYS: u64 = 48;
const NR_SPOTS: u64 = 5;

#[derive(Debug, Clone)]
enum Op {
    Get(u64),
    Next(u64, u64),
    Prev(u64, u64),
    ForEach(u64, u64),
    Create(u64, usize),
    CreateForce(u64, usize),
    /// Where the item exists it is a lookup.
    CreateAbsent(u64, usize),
    Update(u64, usize),
    Delete(u64),
    DeleteForce(u64),
    Dirty(u64),
    DeleteDirty(u64),
    UpdateDirty(u64, usize),
    /// The version of the writes from now on is higher.
    RaiseVersion,
    TakeDirty,
    FailTakeDirty,
    Invalidate(u64, u64),
    Shrink(usize),
    RangeCached(u64, u64),
    /// The second while the first reads; just the first if it does not.
    Interrupted(Box<Op>, Vec<Op>),
}

fn simple_op() -> impl Strategy<Value = Op> {
    let k = || 0..NR_KEYS;
    let len = || prop_oneof![4 => 0..30usize, 1 => 0..300usize];
    prop_oneof![
        3 => k().prop_map(Op::Get),
        2 => (k(), k()).prop_map(|(a, b)| Op::Next(a, b)),
        2 => (k(), k()).prop_map(|(a, b)| Op::Prev(a, b)),
        1 => (k(), k()).prop_map(|(a, b)| Op::ForEach(a, b)),
        4 => (k(), len()).prop_map(|(k, len)| Op::Create(k, len)),
        3 => (k(), len()).prop_map(|(k, len)| Op::CreateForce(k, len)),
        3 => (k(), len()).prop_map(|(k, len)| Op::CreateAbsent(k, len)),
        3 => (k(), len()).prop_map(|(k, len)| Op::Update(k, len)),
        3 => k().prop_map(Op::Delete),
        3 => k().prop_map(Op::DeleteForce),
        2 => k().prop_map(Op::Dirty),
        3 => k().prop_map(Op::DeleteDirty),
        3 => (k(), 0..40usize).prop_map(|(k, len)| Op::UpdateDirty(k, len)),
        1 => Just(Op::RaiseVersion),
        3 => Just(Op::TakeDirty),
        1 => Just(Op::FailTakeDirty),
        2 => (k(), k()).prop_map(|(a, b)| Op::Invalidate(a, b)),
        3 => prop_oneof![2 => Just(0usize), 1 => 0..6000usize].prop_map(Op::Shrink),
        1 => (k(), k()).prop_map(|(a, b)| Op::RangeCached(a, b)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => simple_op(),
        1 => (simple_op(), collection::vec(simple_op(), 1..6)).prop_map(|(a, b)| Op::Interrupted(Box::new(a), b)),
    ]
}

#[derive(Default)]
struct Model {
    /// Version and value of the items that exist.
    items: BTreeMap<Key, (u64, Vec<u8>)>,
    /// Keys written in this transaction, with the version.
    written: BTreeMap<Key, u64>,
    version: u64,
    nr_writes: u64,
}

struct Run<'a> {
    cache: &'a ItemCache,
    forest: &'a Forest,
    reader: &'a dyn ItemReader,
    model: &'a Mutex<Model>,
    /// Where items were found: of the key that is searched next, of others, and of pages that are gone or split since.
    spots: &'a Mutex<[Spot; NR_SPOTS as usize]>,
    /// A write that is interrupted has a version above those of the writes that interrupt it.
    ahead: u64,
}

impl Model {
    /// A value that no other write has.
    fn value(&mut self, len: usize) -> Vec<u8> {
        self.nr_writes += 1;
        let number = self.nr_writes.to_le_bytes();
        number.iter().copied().cycle().take(len).collect()
    }

    fn set(&mut self, key: Key, value: Vec<u8>) {
        self.items.insert(key, (self.version, value));
        self.written.insert(key, self.version);
    }

    fn remove(&mut self, key: Key) {
        self.items.remove(&key);
        self.written.insert(key, self.version);
    }

    fn range(&self, first: u64, last: u64) -> impl DoubleEndedIterator<Item = (Key, u64, Vec<u8>)> {
        let range = (first <= last).then(|| self.items.range(key(first)..=key(last)));
        let range = range.into_iter().flatten();
        let found: Vec<_> = range.map(|(&k, (version, value))| (k, *version, value.clone())).collect();
        found.into_iter()
    }
}

fn owned(key: Key, value: &[u8], version: u64) -> (Key, u64, Vec<u8>) {
    (key, version, value.to_vec())
}

impl Run<'_> {
    fn op(&self, op: &Op) {
        match op {
            Op::Interrupted(op, others) => {
                let reader = Interrupted::new(self.forest, || others.iter().for_each(|op| self.op(op)));
                Run { reader: &reader, ahead: 100, ..*self }.op(op);
            }
            Op::Get(_) | Op::Next(..) | Op::Prev(..) | Op::ForEach(..) | Op::RangeCached(..) => self.look(op),
            Op::RaiseVersion => self.model.lock().version += 1,
            Op::TakeDirty => self.take_dirty(),
            Op::FailTakeDirty => {
                let result: Result<(), AllocError> = self.cache.take_dirty(|_| Err(AllocError));
                assert_eq!(result, Err(AllocError));
            }
            Op::Invalidate(a, b) => {
                let (first, last) = (key(*a.min(b)), key(*a.max(b)));
                let dirty = self.cache.range_cached(first, last) == RangeState::Dirty;
                match self.cache.invalidate(first, last) {
                    Ok(()) => {
                        assert!(!dirty);
                        assert_eq!(self.cache.range_cached(first, last), RangeState::Unknown);
                    }
                    Err(ItemError::DirtyInvalidate { key, .. }) => {
                        assert!(dirty && first <= key && key <= last);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Shrink(bytes) => {
                self.cache.shrink(*bytes);
            }
            Op::CreateAbsent(k, _) if self.model.lock().items.contains_key(&key(*k)) => {
                self.look(&Op::Get(*k))
            }
            write => self.write(write),
        }
        self.cache.assert_consistent();
    }

    /// Calls `f` with a spot that an operation on some key has left.
    fn near<R>(&self, k: u64, f: impl FnOnce(&mut Spot) -> R) -> R {
        let at = (k % NR_SPOTS) as usize;
        let mut spot = self.spots.lock()[at];
        let result = f(&mut spot);
        self.spots.lock()[at] = spot;
        result
    }

    /// Answers must be those of the model. A search that is interrupted has seen one part of its range before
    /// and another after the interruption, but misses nothing that was there all the time.
    fn look(&self, op: &Op) {
        let (cache, reader) = (self.cache, self.reader);
        let range = |a, b| self.model.lock().range(a, b).collect::<Vec<_>>();
        match *op {
            Op::Get(k) => {
                let got = self.near(k, |spot| {
                    cache.get_near(reader, ALL, key(k), spot, |value, version| owned(key(k), value, version))
                });
                assert_eq!(got.unwrap(), range(k, k).pop());
            }
            Op::Next(a, b) => {
                let before = range(a, b);
                let got =
                    self.near(a, |spot| cache.next_near(reader, ALL, key(a), key(b), spot, owned)).unwrap();
                let after = range(a, b);
                let always = before.iter().find(|item| after.contains(item));
                assert!(got.iter().all(|got| after.contains(got)));
                assert!(always.is_none_or(|item| got.is_some_and(|got| got.0 <= item.0)));
            }
            Op::Prev(a, b) => {
                let before = range(b, a);
                let got = cache.prev(reader, ALL, key(a), key(b), owned).unwrap();
                let after = range(b, a);
                let always = before.iter().rfind(|item| after.contains(item));
                assert!(got.iter().all(|got| after.contains(got)));
                assert!(always.is_none_or(|item| got.is_some_and(|got| got.0 >= item.0)));
            }
            Op::ForEach(a, b) => {
                let before = range(a, b);
                let mut got = Vec::new();
                let end = cache.for_each(reader, ALL, key(a), key(b), |k, value, version| {
                    got.push(owned(k, value, version));
                    ControlFlow::<()>::Continue(())
                });
                assert_eq!(end.unwrap(), None);
                let after = range(a, b);
                assert!(got.is_sorted_by(|a, b| a.0 < b.0));
                assert!(got.iter().all(|item| before.contains(item) || after.contains(item)));
                assert!(before.iter().all(|item| got.contains(item) || !after.contains(item)));
            }
            Op::RangeCached(a, b) => {
                let model = self.model.lock();
                if cache.range_cached(key(a), key(b)) != RangeState::Dirty {
                    let live = model.range(a, b).filter(|item| model.written.contains_key(&item.0));
                    assert_eq!(live.count(), 0, "a written item is dirty until it is committed");
                }
            }
            _ => unreachable!(),
        }
    }

    fn write(&self, op: &Op) {
        let (cache, reader) = (self.cache, self.reader);
        let (version, value) = {
            let mut model = self.model.lock();
            let value = match op {
                Op::Create(_, len)
                | Op::CreateForce(_, len)
                | Op::CreateAbsent(_, len)
                | Op::Update(_, len)
                | Op::UpdateDirty(_, len) => model.value(*len),
                _ => Vec::new(),
            };
            (model.version + self.ahead, value)
        };
        let (head, tail) = value.split_at(value.len() / 2);
        let parts: &[&[u8]] = &[head, tail];
        let (k, result) = match *op {
            Op::Create(k, _) => {
                (k, self.near(k, |spot| cache.create_near(reader, ALL, key(k), version, spot, parts)))
            }
            Op::CreateForce(k, _) => (k, cache.create_force(key(k), version, parts)),
            Op::CreateAbsent(k, _) => (k, cache.create_absent(key(k), version, parts)),
            Op::Update(k, _) => (k, cache.update(reader, ALL, key(k), version, parts)),
            Op::Delete(k) => (k, cache.delete(reader, ALL, key(k), version)),
            Op::DeleteForce(k) => (k, cache.delete_force(key(k), version)),
            Op::Dirty(k) => (k, self.near(k, |spot| cache.dirty_near(reader, ALL, key(k), version, spot))),
            Op::DeleteDirty(k) => {
                let result = self.near(k, |spot| cache.delete_dirty_near(key(k), version, *spot));
                (k, result.map_err(Into::into))
            }
            Op::UpdateDirty(k, _) => {
                let result = self.near(k, |spot| cache.update_dirty_near(key(k), version, *spot, parts));
                (k, result.map_err(Into::into))
            }
            _ => unreachable!(),
        };
        let key = key(k);
        let mut model = self.model.lock();
        assert!(model.version <= version);
        model.version = version;
        let old = model.items.get(&key).cloned();
        let dirty = old.is_some() && model.written.contains_key(&key);
        match (op, old) {
            (Op::Create(..), Some(_)) => assert_eq!(result, Err(ItemError::Exists)),
            (Op::Update(..) | Op::Delete(_) | Op::Dirty(_), None) => {
                assert_eq!(result, Err(ItemError::NotFound));
            }
            (Op::DeleteDirty(_) | Op::UpdateDirty(..), _) if !dirty => {
                assert_eq!(result, Err(Misuse::NotDirty { key }.into()));
            }
            (Op::UpdateDirty(..), Some((_, old))) if value.len() > old.len() => {
                let grows = Misuse::Grows { key, len: old.len(), given: value.len() };
                assert_eq!(result, Err(grows.into()));
            }
            (
                Op::Create(..)
                | Op::CreateForce(..)
                | Op::CreateAbsent(..)
                | Op::Update(..)
                | Op::UpdateDirty(..),
                _,
            ) => {
                assert_eq!(result, Ok(()));
                model.set(key, value);
            }
            (Op::Delete(_) | Op::DeleteForce(_) | Op::DeleteDirty(_), _) => {
                assert_eq!(result, Ok(()));
                model.remove(key);
            }
            (Op::Dirty(_), Some((_, old))) => {
                assert_eq!(result, Ok(()));
                model.set(key, old);
            }
            _ => unreachable!(),
        }
    }

    fn take_dirty(&self) {
        let mut model = self.model.lock();
        let result = self.cache.take_dirty(|batch| {
            let mut seen = BTreeSet::new();
            for item in &batch {
                seen.insert(item.key);
                match model.items.get(&item.key) {
                    Some((version, value)) => {
                        assert!(!item.deletion);
                        assert_eq!((item.version, &*item.value), (*version, &**value));
                    }
                    None => assert!(item.deletion),
                }
                let committed = self.forest.record(item.key);
                assert!(committed.is_none_or(|old| old.0 < item.version), "versions of a key ascend");
                assert!(model.written.contains_key(&item.key));
            }
            for key in model.written.keys() {
                let committed = self.forest.record(*key).is_some_and(|old| old.1.is_some());
                let needed = committed || model.items.contains_key(key);
                assert!(!needed || seen.contains(key), "{key} is missing in the batch");
            }
            assert_eq!(batch.len(), self.cache.dirty_items());
            self.forest.commit(batch)
        });
        result.unwrap();
        assert_eq!((self.cache.dirty_items(), self.cache.dirty_bytes()), (0, 0));
        model.written.clear();
        // Of what another transaction wrote the version must be higher.
        model.version += 1;
    }
}

fn run(ops: &[Op], leaf_keys: u64, limits: Limits) {
    let cache = ItemCache::new(limits);
    let forest = Forest::new(leaf_keys);
    let model = Mutex::new(Model { version: 10, ..Model::default() });
    for k in (0..NR_KEYS).step_by(3) {
        forest.put(key(k), 1, &[k as u8; 20]);
        model.lock().items.insert(key(k), (1, [k as u8; 20].to_vec()));
    }
    let spots = Mutex::new(<[Spot; NR_SPOTS as usize]>::default());
    let run = Run { cache: &cache, forest: &forest, reader: &forest, model: &model, spots: &spots, ahead: 0 };
    for op in ops {
        run.op(op);
    }
    // Whatever happened, everything is readable from what is committed alone.
    run.op(&Op::TakeDirty);
    cache.invalidate(ALL.0, ALL.1).unwrap();
    assert_eq!((cache.nr_pages(), cache.bytes()), (0, 0));
    for k in 0..NR_KEYS {
        run.op(&Op::Get(k));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Invariants 1, 2, 4, 6 and 7 under all that can happen at once.
    #[test]
    fn the_cache_answers_as_a_map_does(
        ops in collection::vec(op(), 1..120),
        leaf_keys in 1..20u64,
        page_bytes in 100..600usize,
        cache_bytes in prop_oneof![Just(usize::MAX), 0..8000usize],
    ) {
        run(&ops, leaf_keys, Limits { page_bytes, cache_bytes });
    }
}

#[test]
fn the_whole_is_one_batch_when_nothing_is_committed_meanwhile() {
    let ops: Vec<Op> = (0..NR_KEYS).map(|k| Op::CreateForce(k, 50)).collect();
    run(&ops, 4, SMALL_PAGES);
}
