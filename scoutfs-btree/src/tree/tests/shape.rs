// SPDX-License-Identifier: GPL-2.0-only
//! How full and how high trees get, and what changing them costs.

use std::vec::Vec;

use scoutfs_format::Key;
use scoutfs_format::tree::{MAX_VALUE_LEN, NODE_SPACE, TreeRoot};

use crate::Error;
use crate::testing::{Rng, Volume, delete, key, put, to_model};
use crate::tree::{
    ChangeSource, FreeCursor, Item, Limit, OwnedItem, Rule, SliceSource, apply, free_tree, leaf, next,
};

/// `count` items in key order that exist only one at a time.
struct Rising {
    at: u64,
    count: u64,
    value: [u8; 20],
}

impl ChangeSource for Rising {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        if self.at == self.count {
            return Ok(None);
        }
        Ok(Some(Item { key: Key::inode(self.at), version: 1, deletion: false, value: &self.value }))
    }

    fn advance(&mut self) {
        self.at += 1;
    }
}

#[test]
fn a_million_sorted_items_are_packed_with_few_writes() {
    let mut volume = Volume::new(256, 16);
    let count = 1_000_000;
    let mut source = Rising { at: 0, count, value: [7; 20] };
    let (cache, space) = (&volume.cache, &mut volume.space);
    let done = apply(cache, space, &TreeRoot::EMPTY, &mut source, &Rule::Log, Limit::NONE).unwrap();
    assert_eq!(done.stats.items_delta, count as i64);
    let per_leaf = (NODE_SPACE / 68) as u64;
    let per_parent = (NODE_SPACE / 72) as u64;
    let leaves = count.div_ceil(per_leaf);
    let parents = leaves.div_ceil(per_parent);
    assert_eq!(parents, 2, "so there is a root above them");
    assert_eq!(done.root.height, 3);
    assert_eq!(done.stats.blocks_written, leaves + parents + 1);
    assert!(volume.writes() <= done.stats.blocks_written.div_ceil(16) + 1);
    volume.check_space(&[done.root]);
    for n in [0, 1, count / 2, count - 1] {
        let found = next(&volume.cache, &done.root, &Key::inode(n)).unwrap().unwrap();
        assert_eq!(found.item().key, Key::inode(n));
    }
}

/// A log tree grows at its end when file after file is written.
#[test]
fn a_tree_that_grows_at_its_end_stays_packed() {
    let mut volume = Volume::new(256, 64);
    let mut root = TreeRoot::EMPTY;
    for n in 0..200 {
        let items: Vec<OwnedItem> = (0..100).map(|i| put(key(1 + n * 100 + i), 1, &[1; 20])).collect();
        root = volume.apply_all(&root, &items, Rule::Log);
    }
    let leaves = 20_000usize.div_ceil(NODE_SPACE / 68);
    assert_eq!(volume.check_tree(&root).len(), leaves + 1);
}

#[test]
fn one_change_writes_one_path() {
    let mut volume = Volume::new(256, 256);
    let count = 100_000;
    let mut source = Rising { at: 0, count, value: [7; 20] };
    let (cache, space) = (&volume.cache, &mut volume.space);
    let done = apply(cache, space, &TreeRoot::EMPTY, &mut source, &Rule::Log, Limit::NONE).unwrap();
    space.commit();
    let mut root = done.root;
    for (change, blocks) in [
        // Same size: leaf and root.
        (put(Key::inode(50_000), 2, &[8; 20]), 2),
        // A full leaf becomes two.
        (put(Key::inode(50_000).saturating_next(), 2, &[8; 20]), 3),
        (put(Key::inode(50_001).saturating_next(), 2, &[8; 20]), 2),
        (delete(Key::inode(count * 2), 2), 2),
    ] {
        let changes = [change];
        let mut source = SliceSource::new(&changes);
        let (cache, space) = (&volume.cache, &mut volume.space);
        let done = apply(cache, space, &root, &mut source, &Rule::Log, Limit::NONE).unwrap();
        assert_eq!(done.stats.blocks_written, blocks);
        volume.space.commit();
        root = done.root;
    }
    volume.check_space(&[root]);
}

/// Deletes and inserts in a tree of three levels, at its ends and in its middle, so that whole parents vanish, neighbours join
/// and the root goes down.
#[test]
fn a_high_tree_loses_and_regains_its_parts() {
    let long = [9; MAX_VALUE_LEN];
    let count = 15_000;
    let mut base = Volume::new(256, 64);
    let items: Vec<OwnedItem> = (1..=count).map(|n| put(key(n), 1, &long)).collect();
    let base_root = base.apply_all(&TreeRoot::EMPTY, &items, Rule::Plain);
    assert_eq!(base_root.height, 3);
    let parent = 15 * 909;
    let mut cuts = std::vec![
        (1, 1),
        (1, 15),
        (1, 16),
        (1, parent),
        (1, parent + 1),
        (2, count),
        (1, count - 1),
        (1, count),
        (parent - 7, parent + 7),
        (parent, count),
        (parent + 1, count),
        (100, parent + 100),
        (30, 14_000),
    ];
    let mut rng = Rng::new(1);
    for _ in 0..6 {
        let a = 1 + rng.below(count);
        let b = 1 + rng.below(count);
        cuts.push((a.min(b), a.max(b)));
    }
    for (first, last) in cuts {
        let mut volume = base.fork(64);
        let changes: Vec<OwnedItem> = (first..=last).map(|n| delete(key(n), 0)).collect();
        let root = volume.apply_all(&base_root, &changes, Rule::Plain);
        volume.check_space(&[root]);
        let left = count - (last + 1 - first);
        assert_eq!(volume.items(&root).len() as u64, left, "without {first}..={last}");
        assert_eq!(root == TreeRoot::EMPTY, left == 0);
        if left > 0 {
            let lowest = leaf(&volume.cache, &root, &Key::MIN).unwrap();
            assert_eq!(lowest.first(), Key::MIN);
        }
        // And back, with one change anywhere for each leaf.
        let changes: Vec<OwnedItem> = (first..=last).step_by(15).map(|n| put(key(n), 0, b"new")).collect();
        let root = volume.apply_all(&root, &changes, Rule::Plain);
        volume.check_space(&[root]);
        let found = to_model(&volume.items(&root));
        assert_eq!(found.len() as u64, left + changes.len() as u64);
        assert!(changes.iter().all(|change| found[&change.key].2 == b"new"));
    }
}

/// Invariant 26, on a tree with parents of parents.
#[test]
fn a_high_tree_is_freed_with_all_its_parents() {
    let mut base = Volume::new(256, 64);
    let items: Vec<OwnedItem> = (1..=15_000).map(|n| put(key(n), 1, &[9; MAX_VALUE_LEN])).collect();
    let root = base.apply_all(&TreeRoot::EMPTY, &items, Rule::Log);
    assert_eq!(root.height, 3);
    for max_blocks in [1, 100, 908, 909, 910, u64::MAX] {
        let mut volume = base.fork(64);
        let mut cursor = FreeCursor::START;
        while !free_tree(&volume.cache, &mut volume.space, &root, &mut cursor, max_blocks).unwrap() {
            volume.space.commit();
        }
        volume.check_space(&[]);
    }
}

/// Random updates in the steady state.
#[test]
fn random_updates_keep_leaves_reasonably_full() {
    let mut volume = Volume::new(256, 64);
    let mut rng = Rng::new(2);
    let mut root = TreeRoot::EMPTY;
    for round in 0..150 {
        let mut numbers: Vec<u64> = (0..200).map(|_| 1 + rng.below(1 << 40)).collect();
        numbers.sort_unstable();
        let items: Vec<OwnedItem> = numbers.iter().map(|n| put(key(*n), round, &[1; 20])).collect();
        root = volume.apply_all(&root, &items, Rule::Log);
        volume.check_space(&[root]);
    }
    let blocks = volume.check_tree(&root).len();
    let packed = (150 * 200 * 68usize).div_ceil(NODE_SPACE);
    assert!(blocks <= packed * 2, "{blocks} blocks for what fits into {packed}");
}
