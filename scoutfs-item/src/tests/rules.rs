// SPDX-License-Identifier: GPL-2.0-only
//! What each operation promises. Numbers of invariants are those of the list of bugs that the cache must not
//! have.

use std::vec::Vec;

use core::ops::ControlFlow;

use scoutfs_btree::{Error, OwnedItem, RangeItems};
use scoutfs_env::AllocError;
use scoutfs_format::Key;
use scoutfs_format::tree::MAX_VALUE_LEN;

use super::forest::{Forest, Interrupted};
use super::{ALL, SMALL_PAGES, key};
use crate::{ItemCache, ItemError, ItemReader, Limits, Misuse, RangeState};

fn small() -> ItemCache {
    ItemCache::new(SMALL_PAGES)
}

fn value(cache: &ItemCache, reader: &dyn ItemReader, n: u64) -> Option<Vec<u8>> {
    cache.get(reader, ALL, key(n), |value, _| value.to_vec()).unwrap()
}

/// Commits, and gives key, version and deletion of each item.
fn commit(cache: &ItemCache, forest: &Forest) -> Vec<(Key, u64, bool)> {
    let take = |batch: scoutfs_env::Vec<OwnedItem>| {
        let heads = batch.iter().map(|item| (item.key, item.version, item.deletion)).collect();
        forest.commit(batch)?;
        Ok::<_, AllocError>(heads)
    };
    cache.take_dirty(take).unwrap()
}

#[test]
fn a_hit_reads_nothing_and_neither_does_a_known_absence() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(3), 1, b"three");
    assert_eq!(value(&cache, &forest, 3).as_deref(), Some(&b"three"[..]));
    assert_eq!(value(&cache, &forest, 4), None);
    assert_eq!(cache.next(&forest, ALL, key(4), key(9), |k, _, _| k), Ok(None));
    assert_eq!(cache.prev(&forest, ALL, key(9), key(0), |k, _, _| k), Ok(Some(key(3))));
    assert_eq!(forest.nr_reads(), 1);
}

#[test]
fn nothing_is_cached_outside_of_the_bounds() {
    let (cache, forest) = (small(), Forest::new(100));
    for n in 0..30 {
        forest.put(key(n), 1, b"x");
    }
    let bounds = (key(10), key(19));
    assert_eq!(cache.get(&forest, bounds, key(12), |_, version| version), Ok(Some(1)));
    assert_eq!(cache.range_cached(Key::MIN, key(9)), RangeState::Unknown);
    assert_eq!(cache.range_cached(key(20), Key::MAX), RangeState::Unknown);
    // A search ends where the bounds do.
    cache.invalidate(ALL.0, ALL.1).unwrap();
    for n in 10..20 {
        forest.put(key(n), 1, b"");
    }
    let mut seen = 0;
    let end = cache.for_each(&forest, bounds, key(15), key(25), |k, _, _| {
        assert!(k <= key(19));
        seen += 1;
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((end, seen), (Ok(None), 5));
    for n in 10..20 {
        cache.delete(&forest, bounds, key(n), 2).unwrap();
    }
    assert_eq!(cache.next(&forest, bounds, key(15), Key::MAX, |k, _, _| k), Ok(None));
    assert_eq!(cache.prev(&forest, bounds, key(15), Key::MIN, |k, _, _| k), Ok(None));
    assert_eq!(cache.range_cached(Key::MIN, key(9)), RangeState::Unknown);
    assert_eq!(cache.range_cached(key(20), Key::MAX), RangeState::Unknown);
    let outside = Misuse::OutOfBounds { key: key(20), first: key(10), last: key(19) };
    assert_eq!(cache.get(&forest, bounds, key(20), |_, _| ()), Err(outside.into()));
    assert_eq!(cache.delete(&forest, bounds, key(20), 5), Err(outside.into()));
}

#[test]
fn a_scan_can_break_and_can_call_the_cache() {
    let (cache, forest) = (small(), Forest::new(7));
    for n in 0..100 {
        forest.put(key(n), 1, &[n as u8; 100]);
    }
    let mut seen = Vec::new();
    let broke = cache.for_each(&forest, ALL, key(5), Key::MAX, |k, bytes, _| {
        assert_eq!(bytes, [k.second as u8; 100]);
        cache.delete(&forest, ALL, k, 2).unwrap();
        seen.push(k.second);
        match k.second {
            90 => ControlFlow::Break("enough"),
            _ => ControlFlow::Continue(()),
        }
    });
    assert_eq!(broke, Ok(Some("enough")));
    assert_eq!(seen, (5..=90).collect::<Vec<_>>());
}

#[test]
fn an_error_of_the_reader_is_passed_on_and_can_pass() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.fail_reads(Some(Error::NoSpace));
    assert_eq!(cache.get(&forest, ALL, key(1), |_, _| ()), Err(ItemError::Tree(Error::NoSpace)));
    assert_eq!(cache.dirty(&forest, ALL, key(1), 1), Err(ItemError::Tree(Error::NoSpace)));
    forest.fail_reads(None);
    assert_eq!(value(&cache, &forest, 1), None);
}

#[test]
fn a_reader_that_gives_what_was_not_asked_for_is_refused() {
    type Answer = fn(Key, Key, Key) -> (Key, Key, &'static [u64]);
    struct Bad(Answer);
    impl ItemReader for Bad {
        fn read_range(&self, at: Key, low: Key, high: Key) -> Result<RangeItems, Error> {
            let (first, last, keys) = (self.0)(at, low, high);
            let mut items = scoutfs_env::Vec::new();
            for &n in keys {
                let value = scoutfs_env::Vec::new();
                items.push(OwnedItem { key: key(n), version: 1, deletion: false, value })?;
            }
            Ok(RangeItems { first, last, items })
        }
    }
    let cache = small();
    let bad: [Answer; 6] = [
        |at, _, high| (at.saturating_next(), high, &[]),
        |at, low, _| (low, at.saturating_prev(), &[]),
        |_, low, high| (low.saturating_prev(), high, &[]),
        |_, low, high| (low, high.saturating_next(), &[]),
        |_, low, high| (low, high, &[6, 5]),
        |_, low, high| (low, high, &[2, 99]),
    ];
    for bad in bad {
        let result = cache.get(&Bad(bad), (key(1), key(10)), key(5), |_, _| ());
        assert!(matches!(result, Err(ItemError::Misuse(Misuse::BadRead { .. }))), "{result:?}");
        assert_eq!(cache.nr_pages(), 0);
    }
}

#[test]
fn creating_wants_absence_and_changing_wants_presence() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"old");
    assert_eq!(cache.create(&forest, ALL, key(1), 2, &[b"new"]), Err(ItemError::Exists));
    assert_eq!(cache.update(&forest, ALL, key(2), 2, &[b"new"]), Err(ItemError::NotFound));
    assert_eq!(cache.delete(&forest, ALL, key(2), 2), Err(ItemError::NotFound));
    assert_eq!(cache.dirty(&forest, ALL, key(2), 2), Err(ItemError::NotFound));
    assert_eq!(cache.delete_force(key(2), 2), Ok(()));
    assert_eq!(cache.dirty_items(), 0);
    cache.delete(&forest, ALL, key(1), 2).unwrap();
    assert_eq!(cache.delete(&forest, ALL, key(1), 2), Err(ItemError::NotFound));
    cache.create(&forest, ALL, key(1), 2, &[b"n", b"", b"ew"]).unwrap();
    assert_eq!(value(&cache, &forest, 1).as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_value_that_no_item_may_have_is_refused() {
    let (cache, forest) = (small(), Forest::new(10));
    let half = [0; MAX_VALUE_LEN / 2];
    cache.create(&forest, ALL, key(1), 1, &[&half, &half]).unwrap();
    let error = Misuse::ValueTooLong { key: key(2), len: MAX_VALUE_LEN + 1 };
    assert_eq!(cache.create_force(key(2), 1, &[&half, &half, &[0]]), Err(error.into()));
}

#[test]
fn invariant_1_space_between_items_protects_as_items_do() {
    let (cache, forest) = (small(), Forest::new(1000));
    for n in 0..20 {
        forest.put(key(n), 1, &[7; 30]);
    }
    // While a slow read has seen all items, some are deleted and committed, pages are split by what is
    // created between them, and all that can be evicted is.
    let slow = Interrupted::new(&forest, || {
        assert_eq!(value(&cache, &forest, 0).as_deref(), Some(&[7; 30][..]));
        for n in (1..20).step_by(2) {
            cache.delete(&forest, ALL, key(n), 2).unwrap();
        }
        commit(&cache, &forest);
        let pages = cache.nr_pages();
        for n in (0..20).step_by(2) {
            let between = Key { third: 1, ..key(n) };
            cache.create(&forest, ALL, between, 3, &[&[8; 60]]).unwrap();
        }
        assert!(cache.nr_pages() > pages, "pages were split");
        commit(&cache, &forest);
        cache.shrink(0);
    });
    assert_eq!(value(&cache, &slow, 5), None);
    for n in 0..20 {
        assert_eq!(value(&cache, &forest, n).is_some(), n % 2 == 0, "{n}");
    }
}

#[test]
fn invariant_2_a_slow_read_does_not_bring_back_what_was_before_a_commit() {
    // Each kind of write, in a page that was read before and in one that was not.
    let writes: [fn(&ItemCache, &Forest); 4] = [
        |cache, forest| cache.update(forest, ALL, key(5), 2, &[b"new"]).unwrap(),
        |cache, forest| cache.delete(forest, ALL, key(5), 2).unwrap(),
        |cache, _| cache.create_force(key(5), 2, &[b"new"]).unwrap(),
        |cache, _| cache.delete_force(key(5), 2).unwrap(),
    ];
    for write in writes {
        for read_key in [4, 5, 6] {
            let (cache, forest) = (small(), Forest::new(10));
            forest.put(key(5), 1, b"old");
            let slow = Interrupted::new(&forest, || {
                write(&cache, &forest);
                commit(&cache, &forest);
                cache.shrink(0);
                cache.shrink(0);
            });
            let _ = value(&cache, &slow, read_key);
            let committed = forest.record(key(5)).unwrap().1;
            assert_ne!(committed.as_deref(), Some(&b"old"[..]));
            assert_eq!(value(&cache, &forest, 5), committed);
        }
    }
}

#[test]
fn invariant_2_a_read_starts_again_when_its_range_is_invalidated() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(5), 1, b"old");
    let slow = Interrupted::new(&forest, || {
        cache.invalidate(key(0), key(9)).unwrap();
        forest.put(key(5), 2, b"of another node");
    });
    assert_eq!(value(&cache, &slow, 5).as_deref(), Some(&b"of another node"[..]));
    assert_eq!(forest.nr_reads(), 2);
}

#[test]
fn invariant_2_a_read_starts_again_when_a_page_goes_that_was_cut_elsewhere() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(2), 1, b"old");
    let slow = Interrupted::new(&forest, || {
        // The page reaches further than the read, and what is invalidated does not touch the read.
        cache.update(&forest, ALL, key(2), 2, &[b"new"]).unwrap();
        commit(&cache, &forest);
        cache.invalidate(key(5), key(9)).unwrap();
    });
    let found = cache.get(&slow, (key(0), key(4)), key(2), |value, _| value.to_vec());
    assert_eq!(found, Ok(Some(b"new".to_vec())));
}

#[test]
fn invariant_2_a_read_starts_again_when_a_forced_write_in_its_range_is_committed() {
    for (written, nr_reads) in [(5, 2), (15, 1)] {
        let (cache, forest) = (small(), Forest::new(10));
        forest.put(key(5), 1, b"old");
        let slow = Interrupted::new(&forest, || {
            cache.create_force(key(written), 2, &[b"new"]).unwrap();
            commit(&cache, &forest);
        });
        let committed: &[u8] = if written == 5 { b"new" } else { b"old" };
        let found = cache.get(&slow, (key(0), key(9)), key(5), |value, _| value.to_vec());
        assert_eq!(found, Ok(Some(committed.to_vec())));
        assert_eq!(forest.nr_reads(), nr_reads);
    }
}

#[test]
fn a_read_takes_in_what_was_written_without_reading() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"old");
    forest.put(key(4), 1, b"old");
    cache.create_force(key(1), 2, &[b"new"]).unwrap();
    cache.create_absent(key(2), 2, &[b"new"]).unwrap();
    cache.delete_force(key(4), 2).unwrap();
    let sums = (cache.dirty_items(), cache.dirty_bytes());
    let found: Vec<_> = (0..6).map(|n| value(&cache, &forest, n)).collect();
    let new = || Some(b"new".to_vec());
    assert_eq!(found, [None, new(), new(), None, None, None]);
    cache.assert_consistent();
    assert_eq!((cache.dirty_items(), cache.dirty_bytes()), sums);
    assert_eq!(forest.nr_reads(), 1);
    // What is known now goes on as what was created in the transaction.
    cache.delete(&forest, ALL, key(2), 2).unwrap();
    cache.update_dirty(key(1), 2, &[b"n"]).unwrap();
    assert_eq!(cache.delete_dirty(key(4), 2), Err(Misuse::NotDirty { key: key(4) }));
    assert_eq!(commit(&cache, &forest), [(key(1), 2, false), (key(4), 2, true)]);
    assert_eq!(value(&cache, &forest, 1).as_deref(), Some(&b"n"[..]));
}

#[test]
fn memory_is_given_back_as_much_as_is_asked_for_but_for_what_is_dirty_or_looked_at() {
    let (cache, forest) = (small(), Forest::new(10));
    for n in 0..1000 {
        forest.put(key(n), 1, &[7; 30]);
    }
    for n in 0..1000 {
        value(&cache, &forest, n);
    }
    cache.update(&forest, ALL, key(500), 2, &[b"dirty"]).unwrap();
    assert!(cache.nr_pages() > 100);
    let before = cache.bytes();
    assert_eq!(cache.reclaim(0), 0);
    // All were used since the hand was there. How far it looks is bounded.
    let mut given = 0;
    for _ in 0..cache.nr_pages() {
        given += cache.reclaim(1000);
        assert_eq!(cache.bytes(), before - given);
        if given > 0 {
            break;
        }
    }
    assert!((1000..2000).contains(&given), "{given} bytes");
    {
        // Somebody is at it.
        let _map = cache.map.read();
        assert_eq!(cache.reclaim(usize::MAX), 0);
    }
    given += cache.reclaim(usize::MAX);
    assert_eq!(cache.bytes(), before - given);
    assert_eq!(cache.nr_pages(), 1, "the dirty page");
    assert_eq!(value(&cache, &forest, 500).as_deref(), Some(&b"dirty"[..]));
    assert_eq!(value(&cache, &forest, 3).as_deref(), Some(&[7; 30][..]));
}

#[test]
fn pages_where_a_read_goes_on_are_not_evicted_and_others_are() {
    let (cache, forest) = (small(), Forest::new(10));
    assert_eq!(value(&cache, &forest, 105), None);
    let slow = Interrupted::new(&forest, || {
        cache.create(&forest, ALL, key(5), 1, &[b"x"]).unwrap();
        cache.take_dirty(|_| Ok::<_, AllocError>(())).unwrap();
        cache.shrink(0);
        assert_eq!(cache.range_cached(key(5), key(5)), RangeState::Clean);
        assert_eq!(cache.range_cached(key(100), key(109)), RangeState::Unknown);
    });
    assert_eq!(value(&cache, &slow, 6), None);
    drop(slow);
    cache.shrink(0);
    assert_eq!((cache.nr_pages(), cache.bytes()), (0, 0));
}

#[test]
fn invariant_4_versions_of_a_key_ascend() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 10, b"v");
    let refused = |given, item, dirty| {
        let error = Misuse::VersionTooLow { key: key(1), item, dirty, given };
        assert_eq!(cache.update(&forest, ALL, key(1), given, &[b"w"]), Err(error.into()));
        assert_eq!(cache.create_force(key(1), given, &[b"w"]), Err(error.into()));
        assert_eq!(cache.delete(&forest, ALL, key(1), given), Err(error.into()));
        assert_eq!(cache.delete_force(key(1), given), Err(error.into()));
        assert_eq!(cache.dirty(&forest, ALL, key(1), given), Err(error.into()));
        if dirty {
            assert_eq!(cache.update_dirty(key(1), given, &[b"w"]), Err(error));
            assert_eq!(cache.delete_dirty(key(1), given), Err(error));
        }
        assert_eq!(value(&cache, &forest, 1).as_deref(), Some(&b"v"[..]));
    };
    // A tie with another transaction's write would be a coin toss.
    refused(9, 10, false);
    refused(10, 10, false);
    assert_eq!(cache.dirty_items(), 0);
    cache.dirty(&forest, ALL, key(1), 12).unwrap();
    // In one transaction the later write replaces the earlier one, so a tie is fine.
    refused(11, 12, true);
    cache.delete(&forest, ALL, key(1), 12).unwrap();
    let error = Misuse::VersionTooLow { key: key(1), item: 12, dirty: true, given: 11 };
    assert_eq!(cache.create(&forest, ALL, key(1), 11, &[b"w"]), Err(error.into()));
    // The deletion sorts after what it deletes.
    assert_eq!(commit(&cache, &forest), [(key(1), 12, true)]);
}

#[test]
fn invariant_6_a_page_keeps_its_range_when_split_or_cut() {
    let (cache, forest) = (small(), Forest::new(1000));
    // Two long items may share a page, and only they can be split.
    for n in 0..4 {
        cache.create(&forest, ALL, key(n), 1, &[&[1; 400]]).unwrap();
        cache.assert_consistent();
    }
    assert!(cache.nr_pages() >= 2);
    // Neighbouring keys: the left half of a split has a single key.
    for third in 0..12 {
        let key = Key { third: third / 2, fourth: (third % 2) as u8 * 255, ..key(9) };
        cache.create(&forest, ALL, key, 1, &[&[1; 100]]).unwrap();
        cache.assert_consistent();
    }
    // Cut inside, at the left edge, and at the right edge of pages that are dirty beside the cut.
    for (first, last) in [(key(100), key(100)), (Key::MIN, key(0).saturating_prev()), (key(500), Key::MAX)] {
        cache.invalidate(first, last).unwrap();
        cache.assert_consistent();
        assert_eq!(cache.range_cached(first, last), RangeState::Unknown);
    }
    assert_eq!(cache.dirty_items(), 16);
    assert_eq!(commit(&cache, &forest).len(), 16);
}

#[test]
fn invariant_7_sums_are_those_of_the_items_and_end_at_zero() {
    let (cache, forest) = (small(), Forest::new(10));
    for n in 0..50 {
        cache.create(&forest, ALL, key(n), 1, &[&[1; 77]]).unwrap();
    }
    assert_eq!((cache.dirty_items(), cache.dirty_bytes()), (50, 50 * (48 + 77)));
    for n in 0..50 {
        match n % 3 {
            0 => cache.delete_dirty(key(n), 1).unwrap(),
            1 => cache.update_dirty(key(n), 1, &[&[1; 7]]).unwrap(),
            _ => cache.update(&forest, ALL, key(n), 1, &[&[1; 177]]).unwrap(),
        }
        cache.assert_consistent();
    }
    assert_eq!((cache.dirty_items(), cache.dirty_bytes()), (33, 17 * (48 + 7) + 16 * (48 + 177)));
    for n in 0..50 {
        cache.delete_force(key(n), 1).unwrap();
    }
    assert_eq!((cache.dirty_items(), cache.dirty_bytes()), (0, 0));
    cache.shrink(0);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn invariant_8_a_shorter_value_ends_where_it_ends() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"a long value");
    cache.dirty(&forest, ALL, key(1), 2).unwrap();
    cache.update_dirty(key(1), 2, &[b"sho", b"rt"]).unwrap();
    assert_eq!(value(&cache, &forest, 1).as_deref(), Some(&b"short"[..]));
    // What it was before does not count.
    let grows = Misuse::Grows { key: key(1), len: 5, given: 6 };
    assert_eq!(cache.update_dirty(key(1), 2, &[b"longer"]), Err(grows));
    cache.update_dirty(key(1), 2, &[]).unwrap();
    assert_eq!(value(&cache, &forest, 1).as_deref(), Some(&b""[..]));
    assert_eq!(commit(&cache, &forest), [(key(1), 2, false)]);
    assert_eq!(forest.record(key(1)), Some((2, Some(Vec::new()))));
}

#[test]
fn what_was_never_persistent_leaves_no_tombstone() {
    let (cache, forest) = (small(), Forest::new(10));
    cache.create(&forest, ALL, key(1), 1, &[b"x"]).unwrap();
    cache.delete(&forest, ALL, key(1), 1).unwrap();
    assert_eq!(commit(&cache, &forest), []);
    // Created in one transaction, deleted in the next.
    cache.create(&forest, ALL, key(1), 1, &[b"x"]).unwrap();
    assert_eq!(commit(&cache, &forest), [(key(1), 1, false)]);
    cache.delete(&forest, ALL, key(1), 2).unwrap();
    assert_eq!(commit(&cache, &forest), [(key(1), 2, true)]);
    // Its absence is known now.
    cache.create(&forest, ALL, key(1), 3, &[b"x"]).unwrap();
    cache.delete(&forest, ALL, key(1), 3).unwrap();
    assert_eq!(commit(&cache, &forest), []);
    assert_eq!(forest.nr_reads(), 1);
}

#[test]
fn an_item_that_is_deleted_and_created_again_stays_persistent() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"x");
    cache.delete(&forest, ALL, key(1), 2).unwrap();
    cache.create(&forest, ALL, key(1), 2, &[b"y"]).unwrap();
    cache.delete(&forest, ALL, key(1), 2).unwrap();
    assert_eq!(commit(&cache, &forest), [(key(1), 2, true)]);
}

#[test]
fn forced_writes_read_nothing_and_leave_a_tombstone_where_nothing_is_known() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"old");
    forest.put(key(2), 1, b"old");
    cache.delete_force(key(1), 2).unwrap();
    cache.create_force(key(2), 2, &[b"new"]).unwrap();
    cache.create_force(key(3), 2, &[b"new"]).unwrap();
    cache.delete_force(key(3), 2).unwrap();
    cache.assert_consistent();
    assert_eq!(forest.nr_reads(), 0);
    // Reads fill in what is around them.
    let mut keys = Vec::new();
    let end = cache.for_each(&forest, ALL, key(0), key(9), |k, value, _| {
        keys.push((k.second, value.to_vec()));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((end, keys), (Ok(None), Vec::from([(2, b"new".to_vec())])));
    assert_eq!(commit(&cache, &forest), [(key(1), 2, true), (key(2), 2, false), (key(3), 2, true)]);
}

#[test]
fn forced_writes_are_forgotten_when_they_are_committed() {
    let (cache, forest) = (small(), Forest::new(10));
    for n in 0..100 {
        cache.create_force(key(n), 1, &[b"x"]).unwrap();
    }
    assert!(cache.bytes() > 100 * size_of::<Key>());
    assert_eq!((cache.nr_pages(), cache.dirty_items()), (0, 100));
    assert_eq!(cache.range_cached(key(7), key(7)), RangeState::Dirty);
    let error = ItemError::DirtyInvalidate { first: key(7), last: key(8), key: key(7) };
    assert_eq!(cache.invalidate(key(7), key(8)), Err(error));
    assert_eq!(commit(&cache, &forest).len(), 100);
    assert_eq!(cache.range_cached(Key::MIN, Key::MAX), RangeState::Unknown);
    assert_eq!((cache.nr_pages(), cache.bytes()), (0, 0));
}

#[test]
fn what_is_created_where_nothing_was_leaves_nothing_when_it_goes_at_once() {
    let (cache, forest) = (small(), Forest::new(10));
    for n in 0..10 {
        cache.create_absent(key(n), 1, &[]).unwrap();
    }
    for n in 1..10 {
        cache.delete_dirty(key(n), 1).unwrap();
    }
    assert_eq!(cache.dirty_items(), 1, "nothing remembers what is gone");
    assert_eq!(commit(&cache, &forest), [(key(0), 1, false)]);
    // In a later transaction it does leave a tombstone.
    cache.create_force(key(0), 2, &[]).unwrap();
    cache.delete_dirty(key(0), 2).unwrap();
    assert_eq!(commit(&cache, &forest), [(key(0), 2, true)]);
    assert_eq!((cache.nr_pages(), cache.bytes(), forest.nr_reads()), (0, 0, 0));
}

#[test]
fn infallible_changes_want_an_item_that_was_made_dirty() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"x");
    let not_dirty = Err(Misuse::NotDirty { key: key(1) });
    assert_eq!(cache.delete_dirty(key(1), 2), not_dirty);
    assert!(value(&cache, &forest, 1).is_some());
    assert_eq!(cache.update_dirty(key(1), 2, &[]), not_dirty);
    cache.dirty(&forest, ALL, key(1), 2).unwrap();
    commit(&cache, &forest);
    assert_eq!(cache.delete_dirty(key(1), 3), not_dirty);
    cache.dirty(&forest, ALL, key(1), 3).unwrap();
    cache.delete_dirty(key(1), 3).unwrap();
    assert_eq!(cache.delete_dirty(key(1), 3), not_dirty);
}

#[test]
fn dirty_items_stay_whatever_is_evicted() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"x");
    forest.put(key(31), 1, b"x");
    cache.dirty(&forest, ALL, key(1), 2).unwrap();
    assert!(value(&cache, &forest, 31).is_some());
    let freed = cache.shrink(0);
    assert!(freed > 0);
    assert_eq!(cache.nr_pages(), 1);
    let reads = forest.nr_reads();
    cache.delete_dirty(key(1), 2).unwrap();
    assert_eq!(forest.nr_reads(), reads);
}

#[test]
fn eviction_prefers_what_was_not_used_since_it_last_came_by() {
    let (cache, forest) = (small(), Forest::new(10));
    for n in 0..10 {
        assert_eq!(value(&cache, &forest, n * 10), None);
    }
    let page_bytes = cache.bytes() / 10;
    // The first round clears all marks and evicts one page.
    cache.shrink(page_bytes * 9);
    for n in [30, 50] {
        assert_eq!(value(&cache, &forest, n), None);
    }
    cache.shrink(page_bytes * 2);
    for n in 0..10 {
        let known = cache.range_cached(key(n * 10), key(n * 10)) != RangeState::Unknown;
        assert_eq!(known, n == 3 || n == 5, "{n}");
    }
}

/// Invariant 66.
#[test]
fn the_cache_keeps_near_its_limit_by_itself() {
    let limits = Limits { page_bytes: 256, cache_bytes: 20_000 };
    let (cache, forest) = (ItemCache::new(limits), Forest::new(10));
    for n in 0..1000 {
        forest.put(key(n), 1, &[1; 50]);
    }
    for n in 0..1000 {
        assert!(value(&cache, &forest, n).is_some());
        assert!(cache.bytes() < 24_000, "{}", cache.bytes());
    }
    for n in 0..1000 {
        cache.update(&forest, ALL, key(n), 2, &[&[2; 50]]).unwrap();
    }
    assert!(cache.bytes() > 100_000, "dirty items are not limited here");
    assert_eq!(commit(&cache, &forest).len(), 1000);
    for n in 0..1000 {
        assert_eq!(value(&cache, &forest, n), Some([2; 50].to_vec()));
    }
    assert!(cache.bytes() < 24_000, "{}", cache.bytes());
}

#[test]
fn a_range_with_uncommitted_changes_cannot_be_invalidated() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(5), 1, b"x");
    cache.delete(&forest, ALL, key(5), 2).unwrap();
    let error = ItemError::DirtyInvalidate { first: key(3), last: key(7), key: key(5) };
    assert_eq!(cache.invalidate(key(3), key(7)), Err(error));
    assert_eq!(cache.range_cached(key(3), key(7)), RangeState::Dirty);
    assert_eq!(cache.range_cached(key(6), key(7)), RangeState::Clean);
    assert_eq!(cache.range_cached(key(10), key(17)), RangeState::Unknown);
    // What is beside the item can go; the item stays.
    cache.invalidate(key(6), key(7)).unwrap();
    cache.invalidate(key(0), key(5).saturating_prev()).unwrap();
    cache.assert_consistent();
    assert_eq!(cache.range_cached(key(0), key(4)), RangeState::Unknown);
    assert_eq!(commit(&cache, &forest), [(key(5), 2, true)]);
}

#[test]
fn a_batch_that_could_not_be_kept_stays_dirty() {
    let (cache, forest) = (small(), Forest::new(10));
    forest.put(key(1), 1, b"x");
    cache.delete(&forest, ALL, key(1), 2).unwrap();
    cache.create(&forest, ALL, key(2), 2, &[b"y"]).unwrap();
    let before = (cache.dirty_items(), cache.dirty_bytes());
    let failed = cache.take_dirty(|batch| match batch.len() {
        2 => Err(ItemError::NoMemory),
        _ => Ok(()),
    });
    assert_eq!(failed, Err(ItemError::NoMemory));
    assert_eq!((cache.dirty_items(), cache.dirty_bytes()), before);
    cache.delete_dirty(key(2), 2).unwrap();
    assert_eq!(commit(&cache, &forest), [(key(1), 2, true)]);
}

#[test]
fn an_item_costs_about_a_hundred_bytes_beside_its_value() {
    let (cache, forest) = (ItemCache::new(Limits::new(usize::MAX)), Forest::new(1000));
    for n in 0..10_000 {
        cache.create(&forest, ALL, key(n), 1, &[&[1; 64]]).unwrap();
    }
    assert!(cache.bytes() / 10_000 - 64 < 120, "{}", cache.bytes() / 10_000);
    commit(&cache, &forest);
    cache.invalidate(ALL.0, ALL.1).unwrap();
    for n in 0..10_000 {
        assert!(value(&cache, &forest, n).is_some());
    }
    assert!(cache.bytes() / 10_000 - 64 < 100, "{}", cache.bytes() / 10_000);
}
