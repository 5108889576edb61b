// SPDX-License-Identifier: GPL-2.0-only
//! Merging logs in any order, in pieces, again, and interrupted, against one map of the newest versions.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_env::{Arc, alloc_fault};
use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use super::{MergeStep, merge_step};
use crate::Error;
use crate::forest::{ForestRoots, LogSource, Tail, read_range};
use crate::testing::{Model, Rng, Volume, above_floor, delete, key, play, put, to_model};
use crate::tree::{FreeCursor, Limit, OwnedItem, Rule, free_tree};

/// A log of one mount, perhaps with a tail; `min_version` is the lowest that it holds.
struct Log {
    root: TreeRoot,
    tail: Option<Arc<Tail>>,
    min_version: u64,
    /// Where its merge goes on.
    from: Option<Key>,
}

struct Cluster {
    volume: Volume,
    fs_root: TreeRoot,
    logs: Vec<Log>,
    /// Newest version of each key, deletions included.
    newest: Model,
}

/// Writes of several mounts with rising versions; each mount has several logs, whose versions overlap with those of the
/// others.
fn cluster(seed: u64, keys: u64, nr_logs: u64) -> Cluster {
    let mut rng = Rng::new(seed);
    let mut newest = Model::new();
    let mut volume = Volume::new(256, 16);
    let mut items: Vec<BTreeMap<Key, OwnedItem>> = Vec::new();
    items.resize_with(2 * nr_logs as usize, BTreeMap::new);
    let writes = keys * 3;
    for version in 1..=writes {
        let key = key(rng.below(keys));
        let item = match rng.one_in(3) {
            true => delete(key, version),
            false => put(key, version, &std::vec![version as u8; rng.below(60) as usize]),
        };
        play(&mut newest, item.borrow(), Rule::Log);
        // Early writes go to early logs, but not strictly; late ones of a log to its tail.
        let early = version * nr_logs / (writes + 1);
        let log = (early + rng.below(2)).min(nr_logs - 1);
        let is_tail = rng.one_in(4);
        let source = (2 * log + u64::from(is_tail)) as usize;
        items[source].insert(key, item);
    }
    let logs = items
        .chunks(2)
        .map(|items| {
            let [tree, tail] = items else { unreachable!() };
            let versions = tree.values().chain(tail.values()).map(|item| item.version);
            let min_version = versions.min().unwrap_or(u64::MAX);
            let mut in_tail = Tail::new();
            in_tail.merge_in(tail.values().map(OwnedItem::borrow)).unwrap();
            let tree: Vec<OwnedItem> = tree.values().map(|item| item.borrow().to_owned().unwrap()).collect();
            Log {
                root: volume.apply_all(&TreeRoot::EMPTY, &tree, Rule::Log),
                tail: (!tail.is_empty()).then(|| Arc::new(in_tail).unwrap()),
                min_version,
                from: Some(Key::MIN),
            }
        })
        .collect();
    let fs_root = TreeRoot::EMPTY;
    Cluster { volume, fs_root, logs, newest }
}

impl Cluster {
    /// The lowest version that a log may hold which is not known to be merged.
    fn floor(&self) -> u64 {
        self.logs.iter().map(|log| log.min_version).min().unwrap_or(u64::MAX)
    }

    fn step(&mut self, log: usize, from: Key, limit: Limit) -> Result<MergeStep, Error> {
        let floor = self.floor();
        let log = &self.logs[log];
        merge_step(
            &self.volume.cache,
            &mut self.volume.space,
            &self.fs_root,
            &[log.root],
            log.tail.as_deref(),
            from,
            floor,
            limit,
        )
    }

    /// What a reader sees, who reads the fs tree and all logs that are not known to be merged.
    fn read(&self) -> Model {
        let mut roots = ForestRoots {
            fs_root: self.fs_root,
            logs: scoutfs_env::Vec::new(),
            tails: scoutfs_env::Vec::new(),
        };
        for log in &self.logs {
            let (slot, nr, root) = (0, 0, log.root);
            roots.logs.push(LogSource { slot, nr, root }).unwrap();
            if let Some(tail) = &log.tail {
                roots.tails.push(tail.clone()).unwrap();
            }
        }
        let mut all = Model::new();
        let mut from = Some(Key::MIN);
        while let Some(key) = from {
            let range = read_range(&self.volume.cache, &roots, key, Key::MIN, Key::MAX).unwrap();
            all.append(&mut to_model(&range.items));
            from = range.last.next();
        }
        all
    }

    fn check(&self, live: &Model) {
        assert!(self.read() == *live, "a merge changed what a reader sees");
        let mut roots: Vec<TreeRoot> = self.logs.iter().map(|log| log.root).collect();
        roots.push(self.fs_root);
        self.volume.check_space(&roots);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Invariants 3 (the newest version wins), 31 (a block is freed once, as the space proves), 44 (newer items never end
    /// up under older ones) and 46 (every range is merged). A deletion keeps older versions away until the floor has passed
    /// it, in whatever order and however often logs are merged.
    #[test]
    fn merging_in_any_order_and_again_changes_nothing_for_a_reader(
        seed: u64,
        keys in prop_oneof![1u64..30, 200u64..1500],
        nr_logs in 1u64..5,
        max_changes in prop_oneof![Just(u64::MAX), 20u64..400],
        max_blocks in prop_oneof![Just(u64::MAX), 1u64..4],
    ) {
        let mut cluster = cluster(seed, keys, nr_logs);
        let mut live = cluster.newest.clone();
        live.retain(|_, item| !item.1);
        let mut rng = Rng::new(seed ^ 1);
        let mut tombstones = 0;
        cluster.check(&live);
        while !cluster.logs.is_empty() {
            let nr = rng.below(cluster.logs.len() as u64) as usize;
            // Sometimes from the start again, as a new server may that does not know how far the last one came.
            if rng.one_in(10) {
                cluster.logs[nr].from = Some(Key::MIN);
            }
            let Some(from) = cluster.logs[nr].from else { continue };
            let mut limit = Limit { max_changes, max_blocks };
            if rng.one_in(5) {
                limit = Limit::NONE;
            }
            let space = cluster.volume.space.clone();
            let step = cluster.step(nr, from, limit).unwrap();
            if rng.one_in(8) {
                // The server dies before it publishes the piece.
                cluster.volume.space = space;
                continue;
            }
            cluster.volume.space.commit();
            cluster.fs_root = step.fs_root;
            tombstones += step.tombstones_delta;
            cluster.logs[nr].from = step.next;
            cluster.check(&live);
            if step.next.is_none() {
                if rng.one_in(3) {
                    // Known to be merged only later; merged again until then.
                    cluster.logs[nr].from = Some(Key::MIN);
                    continue;
                }
                let log = cluster.logs.swap_remove(nr);
                let mut cursor = FreeCursor::START;
                let (cache, space) = (&cluster.volume.cache, &mut cluster.volume.space);
                while !free_tree(cache, space, &log.root, &mut cursor, 2).unwrap() {}
                space.commit();
                cluster.check(&live);
            }
        }
        let items = to_model(&cluster.volume.items(&cluster.fs_root));
        prop_assert_eq!(above_floor(&items, u64::MAX), live);
        prop_assert_eq!(tombstones, items.values().filter(|item| item.1).count() as i64);
        // What is left of deletions are the newest versions.
        prop_assert!(items.iter().all(|(key, item)| cluster.newest.get(key) == Some(item)));
    }

    /// Merging several logs at once leaves the items that merging one after the other does, in pieces of any size.
    #[test]
    fn logs_that_are_merged_together_leave_what_they_do_one_by_one(
        seed: u64,
        keys in 1u64..600,
        nr_logs in 1u64..6,
        max_changes in prop_oneof![Just(u64::MAX), 20u64..200],
    ) {
        let mut one_by_one = cluster(seed, keys, nr_logs);
        for nr in 0..nr_logs as usize {
            // Of a mount that lives only the last log has a tail.
            if nr + 1 < nr_logs as usize {
                one_by_one.logs[nr].tail = None;
            }
            let step = one_by_one.step(nr, Key::MIN, Limit::NONE).unwrap();
            one_by_one.volume.space.commit();
            one_by_one.fs_root = step.fs_root;
        }
        let Cluster { mut volume, logs, .. } = cluster(seed, keys, nr_logs);
        let roots: Vec<TreeRoot> = logs.iter().map(|log| log.root).collect();
        let tail = logs.last().and_then(|log| log.tail.clone());
        let floor = logs.iter().map(|log| log.min_version).min().unwrap_or(u64::MAX);
        let mut fs_root = TreeRoot::EMPTY;
        let mut from = Some(Key::MIN);
        while let Some(key) = from {
            let (cache, space) = (&volume.cache, &mut volume.space);
            let limit = Limit { max_changes, ..Limit::NONE };
            let step = merge_step(cache, space, &fs_root, &roots, tail.as_deref(), key, floor, limit).unwrap();
            space.commit();
            (fs_root, from) = (step.fs_root, step.next);
        }
        let expected = to_model(&one_by_one.volume.items(&one_by_one.fs_root));
        prop_assert!(to_model(&volume.items(&fs_root)) == expected);
    }

    #[test]
    fn a_second_merge_of_the_same_log_leaves_the_same_items(seed: u64, keys in 1u64..400) {
        let mut cluster = cluster(seed, keys, 1);
        let step = cluster.step(0, Key::MIN, Limit::NONE).unwrap();
        cluster.volume.space.commit();
        cluster.fs_root = step.fs_root;
        let once = cluster.volume.items(&cluster.fs_root);
        let step = cluster.step(0, Key::MIN, Limit::NONE).unwrap();
        cluster.volume.space.commit();
        prop_assert_eq!(step.stats.items_delta, 0);
        prop_assert_eq!(step.tombstones_delta, 0);
        prop_assert!(cluster.volume.items(&step.fs_root) == once);
    }
}

/// A deletion waits for the log that holds what it deleted, however late that is merged.
#[test]
fn a_deletion_stays_until_no_log_can_hold_what_it_deleted() {
    let mut volume = Volume::new(64, 16);
    let old = volume.apply_all(&TreeRoot::EMPTY, &[put(key(1), 1, b"old")], Rule::Log);
    let new = volume.apply_all(&TreeRoot::EMPTY, &[delete(key(1), 5)], Rule::Log);
    let other = volume.apply_all(&TreeRoot::EMPTY, &[put(key(2), 6, b"x")], Rule::Log);
    let mut merge = |fs_root: TreeRoot, log: &TreeRoot, floor| {
        let (cache, space) = (&volume.cache, &mut volume.space);
        let step = merge_step(cache, space, &fs_root, &[*log], None, Key::MIN, floor, Limit::NONE).unwrap();
        space.commit();
        let items = volume.items(&step.fs_root);
        let found: Vec<(Key, u64)> = items.iter().map(|item| (item.key, item.version)).collect();
        (step.fs_root, step.tombstones_delta, found)
    };
    // The old log may still hold version 1.
    let (root, delta, items) = merge(TreeRoot::EMPTY, &new, 1);
    assert_eq!((delta, items), (1, Vec::from([(key(1), 5)])));
    let (root, delta, items) = merge(root, &old, 1);
    assert_eq!((delta, items), (0, Vec::from([(key(1), 5)])));
    // Both are known to be merged; the deletion goes when its leaf is written anew.
    let (_, delta, items) = merge(root, &other, 6);
    assert_eq!((delta, items), (-1, Vec::from([(key(2), 6)])));
}

#[test]
fn a_tail_is_newer_than_its_log() {
    let mut volume = Volume::new(64, 16);
    let log =
        [put(key(1), 3, b"log"), put(key(2), 9, b"log"), put(key(3), 4, b"log"), put(key(6), 1, b"log")];
    let later =
        [put(key(1), 4, b"tail"), put(key(2), 8, b"tail"), put(key(3), 4, b"tail"), put(key(4), 1, b"tail")];
    let log_root = volume.apply_all(&TreeRoot::EMPTY, &log, Rule::Log);
    let mut tail = Tail::new();
    tail.merge_in(later.iter().map(OwnedItem::borrow)).unwrap();
    let (cache, space) = (&volume.cache, &mut volume.space);
    let empty = TreeRoot::EMPTY;
    let step = merge_step(cache, space, &empty, &[log_root], Some(&tail), Key::MIN, 0, Limit::NONE).unwrap();
    let found: Vec<u8> = volume.items(&step.fs_root).iter().map(|item| item.value[0]).collect();
    assert_eq!(found, b"tlttl");
    let space = &mut volume.space;
    let step =
        merge_step(&volume.cache, space, &empty, &[empty], Some(&tail), key(3), 0, Limit::NONE).unwrap();
    assert_eq!(step.stats.changes, 2);
}

/// A failure at any point of a piece leaves the fs tree as it was.
#[test]
fn a_failed_piece_leaves_the_old_tree() {
    let mut cluster = cluster(5, 3000, 3);
    let mut live = cluster.newest.clone();
    live.retain(|_, item| !item.1);
    for nr in 0..2 {
        let step = cluster.step(nr, Key::MIN, Limit::NONE).unwrap();
        cluster.volume.space.commit();
        cluster.fs_root = step.fs_root;
    }
    let before = cluster.volume.space.clone();
    for io in [true, false] {
        for n in 0.. {
            for blkno in before.used() {
                cluster.volume.cache.drop_block(blkno);
            }
            match io {
                true => cluster.volume.device.fail_after(n),
                false => alloc_fault::fail_after(n),
            }
            let result = cluster.step(2, Key::MIN, Limit::NONE);
            let tripped = cluster.volume.device.heal() || alloc_fault::tripped();
            alloc_fault::clear();
            assert_eq!(result.is_err(), tripped);
            cluster.volume.space = before.clone();
            cluster.check(&live);
            if !tripped {
                assert!(n > 3);
                break;
            }
        }
    }
}
