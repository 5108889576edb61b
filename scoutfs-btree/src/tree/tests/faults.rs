// SPDX-License-Identifier: GPL-2.0-only
//! A failure at any point of a change leaves the old tree as it was.

use std::vec::Vec;

use scoutfs_env::alloc_fault;
use scoutfs_format::tree::TreeRoot;

use crate::Error;
use crate::testing::{Rng, Volume, delete, key, put};
use crate::tree::{Applied, FreeCursor, Limit, OwnedItem, Rule, SliceSource, apply, free_tree, lookup};

/// A tree of a dozen leaves and changes all over it.
fn volume_and_changes() -> (Volume, TreeRoot, Vec<OwnedItem>) {
    let mut volume = Volume::new(64, 4);
    let items: Vec<OwnedItem> = (1..200).map(|n| put(key(n * 10), 1, &[1; 4000])).collect();
    let root = volume.apply_all(&TreeRoot::EMPTY, &items, Rule::Log);
    let mut rng = Rng::new(3);
    let mut numbers: Vec<u64> = (0..40).map(|_| 1 + rng.below(2000)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let change = |n: u64| match n % 3 {
        0 => delete(key(n), 2),
        _ => put(key(n), 2, &[2; 4000]),
    };
    (volume, root, numbers.into_iter().map(change).collect())
}

fn change(volume: &mut Volume, root: &TreeRoot, changes: &[OwnedItem]) -> Result<Applied, Error> {
    let mut source = SliceSource::new(changes);
    let rule = Rule::Merge { tombstone_floor: 9 };
    apply(&volume.cache, &mut volume.space, root, &mut source, &rule, Limit::NONE)
}

/// Runs `step` with its n-th request to the device, allocation of memory, or allocation of a block failing, for every n,
/// until it succeeds; after each failure `check` looks at what it left.
fn with_each_fault(
    volume: &mut Volume,
    mut step: impl FnMut(&mut Volume) -> Result<(), Error>,
    check: impl Fn(&Volume),
) {
    let before = volume.space.clone();
    let mut failures = [0u64; 3];
    for (kind, failures) in failures.iter_mut().enumerate() {
        for n in 0.. {
            match kind {
                0 => volume.device.fail_after(n),
                1 => alloc_fault::fail_after(n),
                _ => volume.space.fail_alloc_at = Some(before.allocs + n),
            }
            let result = step(volume);
            let tripped = volume.device.heal() || alloc_fault::tripped();
            alloc_fault::clear();
            // Blocks that the failed attempt wrote may be anywhere: the caller rolls its space back.
            volume.space = before.clone();
            check(volume);
            let Err(error) = result else {
                assert!(!tripped, "a failure was swallowed");
                break;
            };
            let expected = match kind {
                0 => matches!(error, Error::Io(_)),
                1 => error == Error::NoMemory,
                _ => error == Error::NoSpace,
            };
            assert!(expected, "{error}");
            *failures += 1;
        }
    }
    // Freeing takes no block, everything reads and allocates.
    assert!(failures[0] > 0 && failures[1] > 0);
}

#[test]
fn a_failed_change_leaves_the_old_tree() {
    let (mut volume, root, changes) = volume_and_changes();
    let old = volume.items(&root);
    with_each_fault(
        &mut volume,
        |volume| change(volume, &root, &changes).map(drop),
        |volume| {
            volume.check_space(&[root]);
            assert!(volume.items(&root) == old);
        },
    );
    let new = change(&mut volume, &root, &changes).unwrap().root;
    volume.check_space(&[new]);
}

#[test]
fn a_failed_piece_of_freeing_can_be_repeated() {
    let (mut volume, root, _) = volume_and_changes();
    let mut cursor = FreeCursor::START;
    let (cache, space) = (&volume.cache, &mut volume.space);
    assert!(!free_tree(cache, space, &root, &mut cursor, 5).unwrap());
    space.commit();
    let start = cursor;
    with_each_fault(
        &mut volume,
        |volume| {
            let mut cursor = start;
            let (cache, space) = (&volume.cache, &mut volume.space);
            // Parents are read from the device each time.
            cache.drop_block(root.block.blkno.get());
            let done = free_tree(cache, space, &root, &mut cursor, 100);
            assert_eq!(cursor == start, done.is_err());
            done.map(drop)
        },
        |_| (),
    );
    let mut cursor = start;
    let (cache, space) = (&volume.cache, &mut volume.space);
    assert!(free_tree(cache, space, &root, &mut cursor, 100).unwrap());
    volume.check_space(&[]);
}

#[test]
fn a_failed_lookup_says_so() {
    let (mut volume, root, _) = volume_and_changes();
    with_each_fault(
        &mut volume,
        |volume| {
            for blkno in volume.space.used() {
                volume.cache.drop_block(blkno);
            }
            lookup(&volume.cache, &root, &key(10)).map(|found| assert!(found.is_some()))
        },
        |_| (),
    );
}
