// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the forest against one map of the newest versions.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_env::{Arc, alloc_fault};
use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use super::{ForestRoots, LogSource, RangeItems, Tail, read_range};
use crate::testing::{Model, Rng, Volume, delete, key, play, put, to_model};
use crate::tree::{ChangeSource, FreeCursor, Limit, OwnedItem, Rule, free_tree};
use crate::{Error, merge_step};

/// A forest, and what must be found in it.
struct Forest {
    volume: Volume,
    roots: ForestRoots,
    newest: Model,
}

fn log(slot: u32, root: TreeRoot) -> LogSource {
    LogSource { slot, nr: 1, root }
}

fn tail(items: &[OwnedItem]) -> Arc<Tail> {
    let mut tail = Tail::new();
    tail.merge_in(items.iter().map(OwnedItem::borrow)).unwrap();
    Arc::new(tail).unwrap()
}

/// Writes with rising versions, dealt out to trees and tails in no order.
fn forest(seed: u64, keys: u64, nr_logs: usize, nr_tails: usize, value_len: usize) -> Forest {
    let mut rng = Rng::new(seed);
    let mut sources: Vec<BTreeMap<Key, OwnedItem>> = Vec::new();
    sources.resize_with(1 + nr_logs + nr_tails, BTreeMap::new);
    let mut newest = Model::new();
    for version in 1..=keys * 3 {
        let key = key(rng.below(keys));
        let item = match rng.one_in(3) {
            true => delete(key, version),
            false => put(key, version, &std::vec![version as u8; value_len]),
        };
        play(&mut newest, item.borrow(), Rule::Log);
        let source = rng.below(sources.len() as u64) as usize;
        sources[source].insert(key, item);
    }
    newest.retain(|_, item| !item.1);
    let mut volume = Volume::new(256, 64);
    let mut lists = sources.into_iter().map(|items| items.into_values().collect::<Vec<_>>());
    let mut tree = |items: Vec<OwnedItem>| volume.apply_all(&TreeRoot::EMPTY, &items, Rule::Log);
    let mut roots = ForestRoots {
        fs_root: tree(lists.next().unwrap()),
        logs: scoutfs_env::Vec::new(),
        tails: scoutfs_env::Vec::new(),
    };
    for slot in 0..nr_logs {
        roots.logs.push(log(slot as u32, tree(lists.next().unwrap()))).unwrap();
    }
    for items in lists {
        roots.tails.push(tail(&items)).unwrap();
    }
    Forest { volume, roots, newest }
}

fn read_all(volume: &Volume, roots: &ForestRoots) -> Model {
    let mut all = Model::new();
    let mut from = Some(Key::MIN);
    while let Some(key) = from {
        let range = read_range(&volume.cache, roots, key, Key::MIN, Key::MAX).unwrap();
        all.append(&mut to_model(&range.items));
        from = range.last.next();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Invariant 3: the newest version of a key wins, wherever it is found.
    #[test]
    fn a_range_holds_the_newest_version_of_each_key(
        seed: u64,
        keys in prop_oneof![1u64..20, 500u64..3000],
        nr_logs in 0usize..5,
        nr_tails in 0usize..3,
        value_len in prop_oneof![Just(0usize), Just(30), Just(300)],
        bounds in (0u64..3000, 0u64..3000, 0u64..3000),
    ) {
        let forest = forest(seed, keys, nr_logs, nr_tails, value_len);
        prop_assert!(read_all(&forest.volume, &forest.roots) == forest.newest);

        let mut bounds = [bounds.0, bounds.1, bounds.2];
        bounds.sort_unstable();
        let [low, at, high] = bounds.map(key);
        let range = read_range(&forest.volume.cache, &forest.roots, at, low, high).unwrap();
        prop_assert!(low <= range.first && range.first <= at && at <= range.last && range.last <= high);
        let expected: Model = forest.newest.range(range.first..=range.last)
            .map(|(key, item)| (*key, item.clone()))
            .collect();
        prop_assert!(range.items.is_sorted_by(|a, b| a.key < b.key));
        prop_assert_eq!(to_model(&range.items), expected);
        prop_assert!(!range.items.is_empty() || range.last == high || keys > 500);
    }

    #[test]
    fn a_tail_keeps_the_newest_version(seed: u64, nr in 1u64..60) {
        let mut rng = Rng::new(seed);
        let mut tail = Tail::new();
        let mut model = Model::new();
        for _ in 0..5 {
            let mut batch = Model::new();
            for _ in 0..nr {
                let len = rng.below(50) as usize;
                let deletion = rng.one_in(3);
                let value = if deletion { Vec::new() } else { std::vec![rng.next() as u8; len] };
                batch.insert(key(rng.below(50)), (rng.below(20), deletion, value));
            }
            let items: Vec<OwnedItem> = batch.iter().map(|(key, (version, deletion, value))| match deletion {
                true => delete(*key, *version),
                false => put(*key, *version, value),
            }).collect();
            let shared = tail.try_clone().unwrap();
            let before = model.clone();
            tail.merge_in(items.iter().map(OwnedItem::borrow)).unwrap();
            items.iter().for_each(|item| play(&mut model, item.borrow(), Rule::Log));
            for (tail, model) in [(&tail, &model), (&shared, &before)] {
                let found: Vec<OwnedItem> = tail.range(Key::MIN, Key::MAX).map(|item| item.to_owned().unwrap()).collect();
                prop_assert_eq!(&to_model(&found), model);
                prop_assert_eq!(tail.len(), model.len());
                prop_assert_eq!(tail.value_bytes(), model.values().map(|item| item.2.len()).sum::<usize>());
            }
        }
        for n in 0..51 {
            prop_assert_eq!(tail.get(&key(n)).map(|item| item.version), model.get(&key(n)).map(|item| item.0));
        }
        prop_assert_eq!(tail.range(key(9), key(3)).count(), 0);
    }
}

#[test]
fn an_empty_forest_has_nothing_anywhere() {
    let volume = Volume::new(64, 4);
    let roots = ForestRoots {
        fs_root: TreeRoot::EMPTY,
        logs: scoutfs_env::Vec::new(),
        tails: scoutfs_env::Vec::new(),
    };
    let range = read_range(&volume.cache, &roots, key(5), key(3), key(9)).unwrap();
    let items = scoutfs_env::Vec::new();
    assert_eq!(range, RangeItems { first: key(3), last: key(9), items });
}

/// A scan over a large deleted directory gets on quickly.
#[test]
fn a_range_without_items_grows_over_several_leaves() {
    let mut volume = Volume::new(64, 64);
    let count = 10_000;
    let items: Vec<OwnedItem> = (1..=count).map(|n| put(key(n), 1, &[1; 20])).collect();
    let fs_root = volume.apply_all(&TreeRoot::EMPTY, &items, Rule::Log);
    let items: Vec<OwnedItem> = (1..count).map(|n| delete(key(n), 2)).collect();
    let deleted = volume.apply_all(&TreeRoot::EMPTY, &items, Rule::Log);
    let mut roots = ForestRoots { fs_root, logs: scoutfs_env::Vec::new(), tails: scoutfs_env::Vec::new() };
    roots.logs.push(log(0, deleted)).unwrap();
    let range = read_range(&volume.cache, &roots, key(1), Key::MIN, Key::MAX).unwrap();
    assert_eq!(range.first, Key::MIN);
    assert_eq!(range.items.len(), 1);
    assert_eq!(range.items[0].key, key(count));
}

/// Invariant 5: what was gathered under old roots is thrown away when a block turns out to be stale.
#[test]
fn a_stale_tree_gives_no_items_of_the_others() {
    let mut volume = Volume::new(64, 64);
    let old_log = volume.apply_all(&TreeRoot::EMPTY, &[put(key(1), 2, b"log")], Rule::Log);
    let fs_root = volume.apply_all(&TreeRoot::EMPTY, &[put(key(1), 1, b"old")], Rule::Log);
    let roots = |fs_root, log_root| {
        let mut logs = scoutfs_env::Vec::new();
        logs.push(log(0, log_root)).unwrap();
        let tails = scoutfs_env::Vec::new();
        ForestRoots { fs_root, logs, tails }
    };
    let old = roots(fs_root, old_log);
    // The log is merged and freed, its block is used again.
    let floor = 0;
    let (cache, space) = (&volume.cache, &mut volume.space);
    let step = merge_step(cache, space, &fs_root, &[old_log], None, Key::MIN, floor, Limit::NONE).unwrap();
    let mut cursor = FreeCursor::START;
    assert!(free_tree(cache, space, &old_log, &mut cursor, 9).unwrap());
    volume.space.commit();
    let mut reused = TreeRoot::EMPTY;
    while reused.block.blkno != old_log.block.blkno {
        reused = volume.apply_all(&TreeRoot::EMPTY, &[put(key(9), 3, b"new")], Rule::Log);
    }
    let read = |roots: &ForestRoots| read_range(&volume.cache, roots, key(1), Key::MIN, Key::MAX);
    assert!(matches!(read(&old), Err(error) if error.is_stale()));
    let fresh = read(&roots(step.fs_root, TreeRoot::EMPTY)).unwrap();
    assert_eq!(fresh.items[0].value, b"log"[..]);
    assert_eq!(fresh.items.len(), 1);
}

#[test]
fn every_failed_allocation_of_a_read_is_an_error() {
    let forest = forest(4, 40, 2, 1, 10);
    let (cache, roots) = (&forest.volume.cache, &forest.roots);
    let read = || read_range(cache, roots, key(9), Key::MIN, Key::MAX);
    let whole = read().unwrap();
    for n in 0.. {
        alloc_fault::fail_after(n);
        let result = read();
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        if !tripped {
            assert!(n > 10);
            assert_eq!(result, Ok(whole));
            break;
        }
        assert_eq!(result, Err(Error::NoMemory));
    }
}

#[test]
fn a_failed_addition_leaves_the_tail_as_it_was() {
    let mut tail = Tail::new();
    let old = [put(key(1), 1, b"one"), put(key(2), 1, b"two")];
    tail.merge_in(old.iter().map(OwnedItem::borrow)).unwrap();
    let new: Vec<OwnedItem> = (1..100).map(|n| put(key(n), 2, b"new")).collect();
    for n in 0.. {
        alloc_fault::fail_after(n);
        let result = tail.merge_in(new.iter().map(OwnedItem::borrow));
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        if !tripped {
            assert!(n > 3);
            break;
        }
        assert_eq!(result, Err(Error::NoMemory));
        let found: Vec<OwnedItem> =
            tail.range(Key::MIN, Key::MAX).map(|item| item.to_owned().unwrap()).collect();
        assert_eq!(found, old);
    }
    assert_eq!(tail.len(), 99);
}

#[test]
fn a_tail_takes_items_in_any_order_and_the_later_of_equal_ones() {
    let mut tail = Tail::new();
    let old = [put(key(2), 3, b"old"), put(key(4), 9, b"stays")];
    tail.merge_in(old.iter().map(OwnedItem::borrow)).unwrap();
    let new = [
        put(key(2), 5, b"first"),
        put(key(1), 1, b"deleted"),
        put(key(2), 5, b"second"),
        put(key(4), 8, b"too old"),
        put(key(2), 4, b"older"),
        delete(key(1), 1),
        put(key(3), 1, b"new"),
    ];
    tail.merge_in(new.iter().map(OwnedItem::borrow)).unwrap();
    let found: Vec<OwnedItem> = tail.range(Key::MIN, Key::MAX).map(|item| item.to_owned().unwrap()).collect();
    let expected =
        [delete(key(1), 1), put(key(2), 5, b"second"), put(key(3), 1, b"new"), put(key(4), 9, b"stays")];
    assert_eq!(found, expected);
    assert_eq!(tail.value_bytes(), 6 + 3 + 5);
}

#[test]
fn a_tail_is_a_source_of_changes_from_any_key_on() {
    let items: Vec<OwnedItem> = (1..20).map(|n| put(key(n), n, &[n as u8])).collect();
    let tail = tail(&items);
    let mut source = super::TailSource::new(&tail, key(15));
    let mut found = Vec::new();
    while let Some(item) = source.peek().unwrap() {
        found.push(item.to_owned().unwrap());
        source.advance();
    }
    assert_eq!(found, items[14..]);
}
