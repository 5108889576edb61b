// SPDX-License-Identifier: GPL-2.0-only
//! Nodes that were tampered with, their checksums right.

use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_format::block::MAGIC_SPACE_LIST;
use scoutfs_format::le::U64;
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::{BLOCK_SIZE, BlockRef, Key};

use crate::testing::{Rng, Volume, delete, key, put};
use crate::tree::{
    FreeCursor, Limit, Node, OwnedItem, Place, Rule, SliceSource, Visitor, apply, free_tree, leaf, lookup,
    next, walk,
};
use crate::{BlockSpace, CorruptKind, Error, StaleBlock};

/// Takes and frees anything: on a hostile volume a block may well be freed twice.
struct AnySpace {
    next: u64,
    end: u64,
}

impl BlockSpace for AnySpace {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        if self.next == self.end {
            return Err(Error::NoSpace);
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn free_block(&mut self, _: &BlockRef) -> Result<(), Error> {
        Ok(())
    }

    fn block_seq(&mut self) -> (u64, u32) {
        (1 << 40, self.next as u32)
    }
}

#[derive(Default)]
struct Count {
    nodes: usize,
    broken: Vec<Error>,
}

impl Visitor for Count {
    fn node(&mut self, _: &Place, _: &Node) -> Result<(), Error> {
        self.nodes += 1;
        Ok(())
    }

    fn broken(&mut self, _: &Place, error: Error) -> Result<(), Error> {
        self.broken.push(error);
        Ok(())
    }
}

fn tree() -> (Volume, TreeRoot, Vec<OwnedItem>) {
    let mut volume = Volume::new(64, 16);
    let items: Vec<OwnedItem> = (1..300)
        .map(|n| match n % 7 {
            0 => delete(key(n * 2), n),
            _ => put(key(n * 2), n, &std::vec![1; (n as usize * 97) % 4000]),
        })
        .collect();
    let root = volume.apply_all(&TreeRoot::EMPTY, &items, Rule::Log);
    assert_eq!(root.height, 2);
    (volume, root, items)
}

/// Every operation ends, with whatever result but a panic.
fn exercise(volume: &Volume, root: &TreeRoot) -> Count {
    let mut count = Count::default();
    walk(&volume.cache, root, &mut count).unwrap();
    // No block can be reached twice.
    assert!(count.nodes <= volume.space.nr_used());
    let mut from = Some(Key::MIN);
    while let Some(key) = from {
        let _ = lookup(&volume.cache, root, &key);
        let _ = leaf(&volume.cache, root, &key)
            .map(|leaf| leaf.iter().map(|item| item.value.len()).sum::<usize>());
        from = match next(&volume.cache, root, &key) {
            Ok(found) => found.and_then(|found| found.item().key.next()),
            Err(_) => break,
        };
    }
    let changes: Vec<OwnedItem> = (1..600).step_by(29).map(|n| put(key(n), 500, &[3; 900])).collect();
    for rule in [Rule::Log, Rule::Merge { tombstone_floor: 100 }, Rule::Plain] {
        let mut space =
            AnySpace { next: volume.geometry.end_meta_block() - 200, end: volume.geometry.end_meta_block() };
        let limit = Limit { max_changes: 9, max_blocks: u64::MAX };
        let mut source = SliceSource::new(&changes);
        let _ = apply(&volume.cache, &mut space, root, &mut source, &rule, limit);
        let mut cursor = FreeCursor::START;
        for _ in 0..volume.space.nr_used() {
            match free_tree(&volume.cache, &mut space, root, &mut cursor, 3) {
                Ok(false) => (),
                Ok(true) | Err(_) => break,
            }
        }
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_tampered_node_is_an_error_and_never_a_panic(seed: u64, changes in 1usize..6) {
        let (volume, root, _) = tree();
        let mut rng = Rng::new(seed);
        let blocks: Vec<u64> = volume.space.used().into_iter().collect();
        let target = match rng.one_in(2) {
            true => root.block.blkno.get(),
            false => blocks[rng.below(blocks.len() as u64) as usize],
        };
        volume.tamper(target, |bytes| {
            for _ in 0..changes {
                // Mostly where the structure is.
                let at = match rng.below(8) {
                    0 => rng.below(BLOCK_SIZE as u64),
                    1 => BLOCK_SIZE as u64 - 1 - rng.below(400),
                    2 => 40 + rng.below(24),
                    _ => 64 + rng.below(48 * 22),
                } as usize;
                bytes[at] = match rng.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => bytes[at] ^ (1 << rng.below(8)),
                    _ => rng.next() as u8,
                };
            }
        });
        exercise(&volume, &root);
    }

    #[test]
    fn a_child_in_the_wrong_place_is_found_out(seed: u64) {
        let (volume, root, _) = tree();
        let mut rng = Rng::new(seed);
        let children = volume.space.nr_used() as u64 - 1;
        let from = rng.below(children) as usize;
        let to = rng.below(children) as usize;
        volume.tamper(root.block.blkno.get(), |bytes| {
            // The keys of the children of the root stay, their references are mixed up.
            let value = |i: usize| BLOCK_SIZE - (i + 1) * 24;
            let child = bytes[value(from)..value(from) + 24].to_vec();
            bytes[value(to)..value(to) + 24].copy_from_slice(&child);
        });
        let count = exercise(&volume, &root);
        prop_assert_eq!(count.broken.is_empty(), from == to);
    }
}

fn only_corruption(volume: &Volume, root: &TreeRoot) -> CorruptKind {
    let count = exercise(volume, root);
    match &count.broken[..] {
        [Error::Corrupt(corruption)] => corruption.kind.clone(),
        broken => panic!("{broken:?}"),
    }
}

#[test]
fn a_loop_in_a_tree_is_found_out() {
    let (volume, root, _) = tree();
    // The first child of the root is the root.
    volume.tamper(root.block.blkno.get(), |bytes| {
        let at = BLOCK_SIZE - 24;
        bytes[at..at + 8].copy_from_slice(&root.block.blkno.get().to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&root.block.trans_seq.get().to_le_bytes());
        bytes[at + 16..at + 20].copy_from_slice(&root.block.counter.get().to_le_bytes());
    });
    let expected = CorruptKind::Level { expected: 0, found: 1 };
    assert_eq!(only_corruption(&volume, &root), expected);
}

#[test]
fn a_parent_that_begins_behind_its_range_is_found_out() {
    let (volume, root, _) = tree();
    // The first key of the root is no longer the lowest of all.
    volume.tamper(root.block.blkno.get(), |bytes| bytes[64 + 26] = 1);
    let found = Key::MIN.saturating_next();
    assert_eq!(only_corruption(&volume, &root), CorruptKind::FirstKey { expected: Key::MIN, found });
}

#[test]
fn a_walk_goes_on_behind_a_broken_node() {
    let (volume, root, items) = tree();
    let target = leaf(&volume.cache, &root, &items[100].key).unwrap();
    let nodes = volume.check_tree(&root).len();
    let place = lookup(&volume.cache, &root, &target.get(0).unwrap().key).unwrap().unwrap();
    volume.tamper(place.node().reference().blkno.get(), |bytes| bytes[64 + 44] = 9);
    let mut count = Count::default();
    walk(&volume.cache, &root, &mut count).unwrap();
    assert_eq!((count.nodes, count.broken.len()), (nodes - 1, 1));
}

#[test]
fn roots_that_cannot_be_are_refused() {
    let (volume, root, _) = tree();
    let zero = TreeRoot { height: 0, ..root };
    let high = TreeRoot { height: 200, ..root };
    let none = TreeRoot { height: 1, ..TreeRoot::EMPTY };
    for (root, height) in [(zero, 0), (high, 200), (none, 1)] {
        assert_eq!(only_corruption(&volume, &root), CorruptKind::Height { height });
    }
    let mut outside = root;
    outside.block.blkno = U64::new(1);
    assert_eq!(only_corruption(&volume, &outside), CorruptKind::OutsideZones);
    let low = TreeRoot { height: 1, ..root };
    let expected = CorruptKind::Level { expected: 0, found: 1 };
    assert_eq!(only_corruption(&volume, &low), expected);
}

#[test]
fn a_block_that_is_not_the_one_referred_to_is_stale() {
    let (volume, root, _) = tree();
    let blkno = root.block.blkno.get();
    let read = |root: &TreeRoot| next(&volume.cache, root, &Key::MIN).map(drop).unwrap_err();

    let mut older = root;
    older.block.trans_seq = U64::new(0);
    let error = read(&older);
    assert!(error.is_stale());
    assert!(matches!(error.stale_to_corrupt(), Error::Corrupt(corruption)
        if corruption.blkno == blkno && matches!(corruption.kind, CorruptKind::Unreadable(_))));

    volume.tamper(blkno, |bytes| bytes[8] ^= 1);
    assert!(matches!(read(&root), Error::Stale { found: StaleBlock::Volume { .. }, .. }));
    volume.tamper(blkno, |bytes| bytes[8] ^= 1);
    volume.tamper(blkno, |bytes| bytes[16] ^= 1);
    assert!(matches!(read(&root), Error::Stale { found: StaleBlock::Other { .. }, .. }));
    volume.tamper(blkno, |bytes| bytes[16] ^= 1);
    volume.tamper(blkno, |bytes| bytes[4..8].copy_from_slice(&MAGIC_SPACE_LIST.to_le_bytes()));
    assert!(matches!(read(&root), Error::Corrupt(corruption)
        if matches!(corruption.kind, CorruptKind::Magic { .. })));
}
