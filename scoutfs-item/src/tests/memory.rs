// SPDX-License-Identifier: GPL-2.0-only
//! Every allocation of every operation fails once, and nothing is broken or lost.

use core::ops::ControlFlow;
use std::vec::Vec;

use scoutfs_btree::Error;
use scoutfs_env::{AllocError, alloc_fault};
use scoutfs_format::Key;

use super::forest::Forest;
use super::{ALL, SMALL_PAGES, key};
use crate::{ItemCache, ItemError};

type Operation = fn(&ItemCache, &Forest) -> Result<(), ItemError>;
type Contents = Vec<(Key, u64, Vec<u8>)>;

const NR_KEYS: u64 = 40;

/// Some keys are committed and known, some dirty, some unknown; pages are full.
fn prepared(forest: &Forest) -> ItemCache {
    let cache = ItemCache::new(SMALL_PAGES);
    for n in (0..NR_KEYS).step_by(2) {
        forest.put(key(n), 1, &[n as u8; 40]);
    }
    for n in 0..30 {
        cache.get(forest, ALL, key(n), |_, _| ()).unwrap();
    }
    for n in 4..8 {
        cache.create_force(key(n), 2, &[&[9; 20]]).unwrap();
    }
    cache.delete(forest, ALL, key(10), 2).unwrap();
    // Written without reading, where nothing is known.
    cache.create_force(key(37), 2, &[&[9; 20]]).unwrap();
    cache.delete_force(key(38), 2).unwrap();
    cache
}

fn contents(cache: &ItemCache, forest: &Forest) -> Contents {
    let mut all = Contents::new();
    let end = cache.for_each(forest, ALL, Key::MIN, Key::MAX, |key, value, version| {
        all.push((key, version, value.to_vec()));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(end, Ok(None));
    all
}

/// Both forms in which a lack of memory can come.
fn is_no_memory(error: &ItemError) -> bool {
    matches!(error, ItemError::NoMemory | ItemError::Tree(Error::NoMemory))
}

/// Runs an operation with each of its allocations failing. Gives how many there were.
fn fail_each(operation: Operation) -> u64 {
    let forest = Forest::new(10);
    let before = contents(&prepared(&forest), &forest);
    for n in 0.. {
        let forest = Forest::new(10);
        let cache = prepared(&forest);
        alloc_fault::fail_after(n);
        let result = operation(&cache, &forest);
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        cache.assert_consistent();
        if !tripped {
            result.unwrap();
            return n;
        }
        // Eviction and the like may do without what they could not get.
        match result {
            Ok(()) => continue,
            Err(error) => assert!(is_no_memory(&error), "{error}"),
        }
        assert_eq!(contents(&cache, &forest), before, "allocation {n} failed");
        // What is dirty can still be committed, and the operation still be done.
        operation(&cache, &forest).unwrap();
        cache.assert_consistent();
    }
    unreachable!()
}

#[test]
fn a_failed_allocation_of_any_operation_changes_nothing() {
    let operations: &[(&str, Operation)] = &[
        ("get", |c, f| c.get(f, ALL, key(35), |_, _| ()).map(|_| ())),
        ("next", |c, f| c.next(f, ALL, key(31), key(39), |_, _, _| ()).map(|_| ())),
        ("prev", |c, f| c.prev(f, ALL, key(39), key(25), |_, _, _| ()).map(|_| ())),
        ("for_each", |c, f| {
            c.for_each(f, ALL, key(0), key(39), |_, _, _| ControlFlow::<()>::Continue(())).map(|_| ())
        }),
        ("create", |c, f| c.create(f, ALL, key(21), 3, &[&[1; 100]])),
        ("create, unknown", |c, f| c.create(f, ALL, key(35), 3, &[&[1; 100]])),
        ("create, split", |c, f| c.create(f, ALL, key(5).next().unwrap(), 3, &[&[1; 200]])),
        ("create_force, unknown", |c, _| c.create_force(key(35), 3, &[&[1; 100]])),
        ("create_force, first of all", |c, f| {
            c.take_dirty(|batch| f.commit(batch))?;
            c.invalidate(ALL.0, ALL.1)?;
            c.create_force(key(35), 3, &[&[1; 100]])
        }),
        ("create_force, known", |c, _| c.create_force(key(12), 3, &[&[1; 100]])),
        ("update, longer", |c, f| c.update(f, ALL, key(12), 3, &[&[1; 100]])),
        ("update, shorter, first of a transaction", |c, f| {
            c.take_dirty(|batch| f.commit(batch))?;
            c.update(f, ALL, key(20), 3, &[&[1; 10]])
        }),
        ("delete, first of a transaction", |c, f| {
            c.take_dirty(|batch| f.commit(batch))?;
            c.delete(f, ALL, key(14), 3)
        }),
        ("create_force, written without reading before", |c, _| c.create_force(key(37), 3, &[&[1; 100]])),
        ("delete_force, first of a transaction", |c, f| {
            c.take_dirty(|batch| f.commit(batch))?;
            c.delete_force(key(36), 3)
        }),
        ("dirty, first of a transaction", |c, f| {
            c.take_dirty(|batch| f.commit(batch))?;
            c.dirty(f, ALL, key(16), 3)
        }),
        ("dirty, unknown", |c, f| c.dirty(f, ALL, key(36), 3)),
        ("invalidate, cutting a dirty page", |c, _| c.invalidate(key(11), key(12))),
        ("take_dirty", |c, f| Ok(c.take_dirty(|batch| f.commit(batch))?)),
    ];
    for (name, operation) in operations {
        assert!(fail_each(*operation) > 0, "{name} should allocate");
    }
}

#[test]
fn what_is_dirty_is_committed_wholly_after_any_failure() {
    for n in 0.. {
        let forest = Forest::new(10);
        let cache = prepared(&forest);
        let before = contents(&cache, &forest);
        alloc_fault::fail_after(n);
        let result: Result<(), AllocError> = cache.take_dirty(|batch| forest.commit(batch));
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        assert_eq!(result.is_err(), tripped);
        cache.take_dirty(|batch| forest.commit(batch)).unwrap();
        cache.invalidate(ALL.0, ALL.1).unwrap();
        assert_eq!(contents(&cache, &forest), before);
        if !tripped {
            return;
        }
    }
}

#[test]
fn a_hit_allocates_nothing() {
    let forest = Forest::new(10);
    let cache = prepared(&forest);
    alloc_fault::clear();
    assert_eq!(cache.get(&forest, ALL, key(4), |value, _| value.len()), Ok(Some(20)));
    assert_eq!(cache.get(&forest, ALL, key(10), |_, _| ()), Ok(None));
    assert_eq!(cache.next(&forest, ALL, key(8), key(29), |k, _, _| k), Ok(Some(key(8))));
    assert_eq!(cache.prev(&forest, ALL, key(11), key(0), |k, _, _| k), Ok(Some(key(8))));
    assert_eq!(alloc_fault::count(), 0);
}

#[test]
fn changes_of_dirty_items_and_dropping_pages_allocate_nothing() {
    let forest = Forest::new(10);
    let cache = prepared(&forest);
    for n in [20, 22, 24] {
        cache.dirty(&forest, ALL, key(n), 3).unwrap();
    }
    alloc_fault::clear();
    cache.delete_dirty(key(20), 3).unwrap();
    cache.update_dirty(key(22), 3, &[&[1; 20], &[2; 20]]).unwrap();
    cache.delete_dirty(key(22), 3).unwrap();
    cache.delete_dirty(key(4), 2).unwrap();
    assert_eq!(alloc_fault::count(), 0);
    cache.take_dirty(|batch| forest.commit(batch)).unwrap();
    alloc_fault::clear();
    // Clean pages that the range cuts are dropped.
    cache.invalidate(key(1), key(3)).unwrap();
    cache.shrink(0);
    assert_eq!(alloc_fault::count(), 0);
}
