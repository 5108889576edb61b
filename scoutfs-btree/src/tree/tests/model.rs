// SPDX-License-Identifier: GPL-2.0-only
//! Random changes and reads, compared with a `BTreeMap`.

use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_format::Key;
use scoutfs_format::tree::{MAX_VALUE_LEN, TreeRoot};

use crate::Error;
use crate::testing::{Model, Rng, Volume, above_floor, add_stats, delete, key, play, put, to_model};
use crate::tree::{
    ApplyStats, FreeCursor, Limit, OwnedItem, Rule, SliceSource, apply, free_tree, leaf, lookup, next,
};

/// How a random batch of changes looks.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Keys are below this.
    keys: u64,
    changes: u64,
    /// One change in this many is a deletion.
    deletions: u64,
    /// Keys lie in a row rather than anywhere.
    dense: bool,
    long_values: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        prop_oneof![Just(40u64), Just(5_000), Just(1 << 40)],
        prop_oneof![1u64..5, 1u64..2000],
        prop_oneof![Just(1u64), Just(2), Just(8), Just(1 << 40)],
        any::<bool>(),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(keys, changes, deletions, dense, long_values)| Shape {
            keys,
            changes,
            deletions,
            dense,
            long_values,
        })
}

fn batch(rng: &mut Rng, shape: &Shape, max_version: u64) -> Vec<OwnedItem> {
    let start = rng.below(shape.keys);
    let mut numbers: Vec<u64> = (0..shape.changes)
        .map(|i| match shape.dense {
            true => (start + i) % shape.keys,
            false => rng.below(shape.keys),
        })
        .collect();
    if rng.one_in(8) {
        numbers.push(u64::MAX);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut item = |n| {
        let version = 1 + rng.below(max_version);
        if rng.one_in(shape.deletions) {
            return delete(key(n), version);
        }
        let len = match shape.long_values {
            true if rng.one_in(4) => MAX_VALUE_LEN as u64,
            true => rng.below(MAX_VALUE_LEN as u64),
            false => rng.below(40),
        };
        let byte = rng.next() as u8;
        put(key(n), version, &std::vec![byte; len as usize])
    };
    numbers.into_iter().map(&mut item).collect()
}

fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![
        Just(Rule::Log),
        Just(Rule::Plain),
        (0u64..200).prop_map(|tombstone_floor| Rule::Merge { tombstone_floor }),
    ]
}

/// Deletions that a merge may drop at any time.
fn floor(rule: Rule) -> u64 {
    match rule {
        Rule::Merge { tombstone_floor } => tombstone_floor,
        Rule::Log | Rule::Plain => 0,
    }
}

fn tombstones(model: &Model) -> i64 {
    model.values().filter(|item| item.1).count() as i64
}

/// Applies all changes, in pieces of `limit`.
fn apply_in_pieces(
    volume: &mut Volume,
    root: TreeRoot,
    changes: &[OwnedItem],
    rule: Rule,
    limit: Limit,
) -> (TreeRoot, ApplyStats) {
    let mut root = root;
    let mut from = Key::MIN;
    let mut stats = ApplyStats::default();
    loop {
        let mut source = SliceSource::starting_at(changes, &from);
        let (cache, space) = (&volume.cache, &mut volume.space);
        let (allocs, frees) = (space.allocs, space.frees);
        let done = apply(cache, space, &root, &mut source, &rule, limit).unwrap();
        assert_eq!(done.stats.blocks_written, space.allocs - allocs);
        assert_eq!(done.stats.blocks_freed, space.frees - frees);
        assert!(done.stats.changes <= limit.max_changes);
        let slack = Limit::SLACK_PER_LEVEL * (u64::from(root.height) + 1);
        assert!(done.stats.blocks_written <= limit.max_blocks.saturating_add(slack));
        add_stats(&mut stats, &done.stats);
        space.commit();
        root = done.root;
        volume.check_space(&[root]);
        let Some(next) = done.next else {
            return (root, stats);
        };
        assert!(next > from || from == Key::MIN, "each piece gets on");
        from = next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Invariants 3 (the newest version wins), for log and merged trees, and 31 (blocks are taken and freed once).
    #[test]
    fn a_changed_tree_holds_what_the_model_holds(
        seed: u64,
        shapes in prop::collection::vec(shapes(), 1..6),
        rule in rules(),
        max_changes in prop_oneof![Just(u64::MAX), 50u64..500],
        max_blocks in prop_oneof![Just(u64::MAX), 1u64..9],
    ) {
        let mut rng = Rng::new(seed);
        let mut volume = Volume::new(1024, 7);
        let mut model = Model::new();
        let mut root = TreeRoot::EMPTY;
        let mut items = 0;
        let mut deletions = 0;
        for shape in &shapes {
            let changes = batch(&mut rng, shape, 300);
            let limit = Limit { max_changes, max_blocks };
            let (new_root, stats) = apply_in_pieces(&mut volume, root, &changes, rule, limit);
            root = new_root;
            for change in &changes {
                play(&mut model, change.borrow(), rule);
            }
            let found = volume.items(&root);
            prop_assert!(found.is_sorted_by_key(|item| item.key));
            let found = to_model(&found);
            // Which deletions below the floor are still there depends on which leaves were written anew.
            prop_assert!(above_floor(&found, floor(rule)) == above_floor(&model, floor(rule)));
            prop_assert!(found.iter().all(|(key, item)| model.get(key) == Some(item)));
            prop_assert_eq!(stats.changes, changes.len() as u64);
            items += stats.items_delta;
            deletions += stats.tombstones_delta;
            prop_assert_eq!(items, found.len() as i64);
            prop_assert_eq!(deletions, tombstones(&found));
            model = found;
        }
    }

    #[test]
    fn reads_find_what_the_model_has(
        seed: u64,
        shapes in prop::collection::vec(shapes(), 1..4),
        probes in prop::collection::vec(any::<u64>(), 60),
    ) {
        let mut rng = Rng::new(seed);
        let mut volume = Volume::new(1024, 300);
        let mut model = Model::new();
        let mut root = TreeRoot::EMPTY;
        for shape in &shapes {
            let changes = batch(&mut rng, shape, 9);
            root = volume.apply_all(&root, &changes, Rule::Log);
            for change in &changes {
                play(&mut model, change.borrow(), Rule::Log);
            }
        }
        let mut keys: Vec<Key> = model.keys().copied().take(300).collect();
        keys.extend(probes.iter().map(|n| key(n % 5_001)));
        keys.extend(keys.clone().iter().flat_map(|key| [key.saturating_next(), key.saturating_prev()]));
        keys.extend([Key::MIN, Key::MAX]);
        for key in keys {
            let found = lookup(&volume.cache, &root, &key).unwrap();
            let found = found.as_ref().map(|guard| guard.item());
            let found = found.map(|item| (item.version, item.deletion, item.value.to_vec()));
            prop_assert_eq!(found.as_ref(), model.get(&key));

            let found = next(&volume.cache, &root, &key).unwrap().map(|guard| guard.item().key);
            prop_assert_eq!(found.as_ref(), model.range(key..).next().map(|(key, _)| key));

            let leaf = leaf(&volume.cache, &root, &key).unwrap();
            prop_assert!(leaf.first() <= key && key <= leaf.last());
            let items: Vec<Key> = leaf.iter().map(|item| item.key).collect();
            let expected: Vec<Key> = model.range(leaf.first()..=leaf.last()).map(|(key, _)| *key).collect();
            prop_assert_eq!(items, expected);
            prop_assert_eq!(leaf.find(&key).is_some(), model.contains_key(&key));
            let tail: Vec<Key> = leaf.range(&key, leaf.last().saturating_prev()).map(|item| item.key).collect();
            let end = leaf.last().saturating_prev();
            let expected: Vec<Key> = leaf.iter().map(|item| item.key).filter(|k| *k >= key && *k <= end).collect();
            prop_assert_eq!(tail, expected);
        }
    }

    /// Invariant 26: freeing is split over many calls, and each block is freed once (the space proves it).
    #[test]
    fn a_tree_is_freed_piece_by_piece(seed: u64, shape in shapes(), max_blocks in 1u64..40) {
        let mut volume = Volume::new(1024, 20);
        let changes = batch(&mut Rng::new(seed), &shape, 9);
        let root = volume.apply_all(&TreeRoot::EMPTY, &changes, Rule::Log);
        let mut cursor = FreeCursor::START;
        loop {
            let used = volume.space.nr_used();
            let done = free_tree(&volume.cache, &mut volume.space, &root, &mut cursor, max_blocks).unwrap();
            volume.space.commit();
            let freed = (used - volume.space.nr_used()) as u64;
            prop_assert!(freed <= max_blocks + u64::from(root.height));
            if done {
                break;
            }
            prop_assert!(freed >= max_blocks);
            // As if it had been stored and read again.
            cursor = FreeCursor::at(cursor.position().unwrap());
        }
        prop_assert_eq!(cursor.position(), None);
        volume.check_space(&[]);
    }
}

#[test]
fn changes_that_do_not_ascend_are_refused() {
    let mut volume = Volume::new(64, 16);
    for changes in [[put(key(2), 1, b""), put(key(1), 1, b"")], [put(key(2), 1, b""), delete(key(2), 2)]] {
        let mut source = SliceSource::new(&changes);
        let refused =
            apply(&volume.cache, &mut volume.space, &TreeRoot::EMPTY, &mut source, &Rule::Log, Limit::NONE);
        let expected = Error::Unsorted { previous: changes[0].key, key: changes[1].key };
        assert_eq!(refused, Err(expected));
    }
}

#[test]
fn a_value_that_is_too_long_is_refused() {
    let mut volume = Volume::new(64, 16);
    let changes = [put(key(1), 1, &std::vec![0; MAX_VALUE_LEN + 1])];
    let mut source = SliceSource::new(&changes);
    let (cache, space) = (&volume.cache, &mut volume.space);
    let refused = apply(cache, space, &TreeRoot::EMPTY, &mut source, &Rule::Log, Limit::NONE);
    let len = MAX_VALUE_LEN + 1;
    assert_eq!(refused, Err(Error::ValueTooLong { key: key(1), len }));
}

#[test]
fn no_changes_leave_the_tree_as_it_is() {
    let mut volume = Volume::new(64, 16);
    let root = volume.apply_all(&TreeRoot::EMPTY, &[put(key(1), 1, b"a")], Rule::Log);
    assert_eq!(volume.apply_all(&root, &[], Rule::Log), root);
    assert_eq!(volume.space.nr_used(), 1);
}

/// Invariants 3 and 44, at the place where they are decided.
#[test]
fn each_rule_decides_ties_and_deletions_its_own_way() {
    let mut volume = Volume::new(64, 16);
    let mut outcome = |rule, old: OwnedItem, change: OwnedItem| {
        let root = volume.apply_all(&TreeRoot::EMPTY, &[old], Rule::Log);
        let root = volume.apply_all(&root, &[change], rule);
        let items = volume.items(&root);
        items.first().map(|item| (item.version, item.deletion))
    };
    let merge = |tombstone_floor| Rule::Merge { tombstone_floor };
    let k = key(1);
    assert_eq!(outcome(Rule::Log, put(k, 5, b"a"), delete(k, 4)), Some((5, false)));
    assert_eq!(outcome(Rule::Log, put(k, 5, b"a"), delete(k, 5)), Some((5, true)));
    assert_eq!(outcome(merge(0), put(k, 5, b"a"), delete(k, 4)), Some((5, false)));
    assert_eq!(outcome(merge(0), put(k, 5, b"a"), delete(k, 5)), Some((5, false)));
    assert_eq!(outcome(merge(6), put(k, 5, b"a"), delete(k, 6)), Some((6, true)));
    assert_eq!(outcome(merge(7), put(k, 5, b"a"), delete(k, 6)), None);
    assert_eq!(outcome(merge(7), delete(k, 6), put(k, 5, b"a")), None);
    assert_eq!(outcome(merge(6), delete(k, 6), put(k, 5, b"a")), Some((6, true)));
    assert_eq!(outcome(Rule::Plain, put(k, 5, b"a"), put(k, 1, b"b")), Some((0, false)));
    assert_eq!(outcome(Rule::Plain, put(k, 5, b"a"), delete(k, 1)), None);
}
