// SPDX-License-Identifier: GPL-2.0-only
//! What a mount's space promises, one promise after the other; the `model` has them all at once.

mod model;

use proptest::prelude::*;
use scoutfs_env::alloc_fault;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::space::{
    ENTRY_FORGOTTEN, ENTRY_FREE, ENTRY_GIVEN, ENTRY_QUARANTINE, ENTRY_USED, SPACE_DATA, SPACE_META,
    SPACE_ZONES, SpaceEntry,
};
use std::vec;
use std::vec::Vec;

use super::*;

fn geometry() -> Geometry {
    Geometry::new(64 << 20, 1).unwrap()
}

/// First block of the model in each kind; metadata and data are in different zones.
fn base(kind: SpaceKind) -> u64 {
    match kind {
        SpaceKind::Meta => geometry().first_meta_block(),
        SpaceKind::Data => geometry().first_data_block() + geometry().zone_data_blocks() * 20,
    }
}

fn blocks(kind: SpaceKind, at: u64, len: u64) -> SpaceExtent {
    SpaceExtent::new(kind, base(kind) + at, len)
}

fn replay(list: &[SpaceEntry], records: &[Vec<SpaceEntry>]) -> Result<SpaceReplay, SpaceError> {
    let mut replay = SpaceReplay::new(geometry());
    list.iter().try_for_each(|entry| replay.list_entry(entry))?;
    records.iter().flatten().try_for_each(|entry| replay.record_entry(entry))?;
    Ok(replay)
}

/// A mount that has taken these blocks, durably.
fn mount_with(extents: &[SpaceExtent]) -> MountSpace {
    let mut space = MountSpace::new(geometry(), 0, 0);
    space.take(1, extents).unwrap();
    commit(&mut space);
    space
}

fn commit(space: &mut MountSpace) -> scoutfs_env::Vec<SpaceEntry> {
    let token = space.close_trans().unwrap();
    let entries = space.trans_entries(token).unwrap();
    space.commit_done(token).unwrap();
    entries
}

/// Allocates data and puts it to use.
fn use_data(space: &mut MountSpace, want: u64) -> Extent {
    let extent = space.alloc_data(want, None).unwrap();
    space.use_held(SpaceExtent { kind: SpaceKind::Data, extent }).unwrap();
    extent
}

/// Invariant 40: what is in the pipeline is named, and one commit brings it back.
#[test]
fn freed_blocks_are_reused_only_when_the_commit_of_their_transaction_is_done() {
    let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 10)]);
    let all = use_data(&mut space, 10);
    commit(&mut space);
    space.free_data(all.start, 4).unwrap();
    let first = space.close_trans().unwrap();
    space.free_data(all.start + 4, 6).unwrap();
    let pending = SpaceError::NoSpace { kind: SpaceKind::Data, pending: 10 };
    assert_eq!(space.alloc_data(10, None), Err(pending));
    space.commit_done(first).unwrap();
    // Those of the next transaction are not.
    assert_eq!(space.alloc_data(10, None), Ok(Extent::new(all.start, 4)));
    let pending = SpaceError::NoSpace { kind: SpaceKind::Data, pending: 6 };
    assert_eq!(space.alloc_data(10, None), Err(pending));
    // What is in the pipeline is named, and one commit brings it back.
    commit(&mut space);
    assert_eq!(space.alloc_data(10, None), Ok(Extent::new(all.start + 4, 6)));
}

/// Invariant 30.
#[test]
fn an_extent_is_freed_exactly_once() {
    // The second free finds the first one wherever it has come to.
    let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 100)]);
    let all = use_data(&mut space, 100);
    commit(&mut space);
    let twice = |space: &mut MountSpace, owner| {
        let before = (space.free_blocks(SpaceKind::Data), space.pending_blocks(SpaceKind::Data));
        for (start, len, with) in [(10, 5, (10, 5)), (8, 4, (10, 2)), (14, 30, (14, 1)), (0, 100, (10, 5))] {
            let (start, with) = (all.start + start, Extent::new(all.start + with.0, with.1));
            let error = SpaceError::Owned { kind: SpaceKind::Data, start, len, with, owner };
            assert_eq!(space.free_data(start, len), Err(error));
        }
        assert_eq!(before, (space.free_blocks(SpaceKind::Data), space.pending_blocks(SpaceKind::Data)));
    };
    space.free_data(all.start + 10, 5).unwrap();
    twice(&mut space, Owner::Added);
    let token = space.close_trans().unwrap();
    twice(&mut space, Owner::Added);
    space.commit_done(token).unwrap();
    twice(&mut space, Owner::Free);
    let held = SpaceExtent { kind: SpaceKind::Data, extent: space.alloc_data(5, None).unwrap() };
    twice(&mut space, Owner::Held);
    space.give(&[held]).unwrap();
    twice(&mut space, Owner::Given);
}

#[test]
fn what_a_transaction_uses_and_frees_itself_is_free_at_once() {
    let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 10)]);
    let all = use_data(&mut space, 10);
    space.free_data(all.start + 2, 3).unwrap();
    assert_eq!((space.free_blocks(SpaceKind::Data), space.pending_blocks(SpaceKind::Data)), (3, 0));
    let entries = commit(&mut space);
    let used: Vec<_> = entries.iter().map(|entry| (entry.state, entry.len.get())).collect();
    assert_eq!(used, [(ENTRY_USED, 2), (ENTRY_USED, 5)]);
}

#[test]
fn held_blocks_are_free_after_a_crash() {
    let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 10)]);
    space.alloc_data(4, None).unwrap();
    assert_eq!(commit(&mut space).len(), 0);
    // Long after, in the transaction that refers to them.
    space.use_held(blocks(SpaceKind::Data, 1, 2)).unwrap();
    space.release_held(blocks(SpaceKind::Data, 3, 1)).unwrap();
    let entries = commit(&mut space);
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].start.get(), entries[0].len.get()), (base(SpaceKind::Data) + 1, 2));
    assert_eq!(space.held_blocks(SpaceKind::Data), 1);
    let error = Err(SpaceError::NotInSet { start: base(SpaceKind::Data), len: 2 });
    assert_eq!(space.use_held(blocks(SpaceKind::Data, 0, 2)), error);
    assert_eq!(space.release_held(blocks(SpaceKind::Data, 0, 2)), error);
}

/// 400 data blocks, of which every second one is in use and the others are held.
fn alternately_used_and_held() -> MountSpace {
    let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 400)]);
    assert_eq!(space.alloc_data(400, None).unwrap().len, 400);
    for n in 0..200 {
        space.use_held(blocks(SpaceKind::Data, 2 * n, 1)).unwrap();
    }
    commit(&mut space);
    space
}

#[test]
fn what_is_held_can_be_released_without_memory() {
    let mut space = alternately_used_and_held();
    alloc_fault::fail_after(0);
    let released = (0..200).try_for_each(|n| space.release_held(blocks(SpaceKind::Data, 2 * n + 1, 1)));
    alloc_fault::clear();
    assert_eq!(released, Ok(()));
    assert_eq!(space.free_blocks(SpaceKind::Data), 200);
}

#[test]
fn a_commit_that_counts_needs_no_memory() {
    // Nor does undoing a checkpoint. What was reserved is not asked for again on the way.
    for (before, count) in (0..60).flat_map(|before| [1, 2, 3, 140].map(|count| (before, count))) {
        // Nothing is held, so that room is reserved for nothing but what the commit frees.
        let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 400)]);
        assert_eq!(use_data(&mut space, 400).len, 400);
        commit(&mut space);
        for n in 0..before + count {
            if n == before {
                commit(&mut space);
            }
            space.free_data(base(SpaceKind::Data) + 2 * n, 1).unwrap();
        }
        let token = space.close_trans().unwrap();
        alloc_fault::fail_after(0);
        let done = space.commit_done(token);
        alloc_fault::clear();
        assert_eq!(done, Ok(()), "{before} extents were free, {count} more are");
        assert_eq!(space.free_blocks(SpaceKind::Data), before + count);
    }

    let pieces: Vec<_> = (0..100).map(|n| blocks(SpaceKind::Meta, 2 * n, 1)).collect();
    let mut space = mount_with(&pieces);
    let token = space.close_trans().unwrap();
    while space.checkpoint_alloc(token).is_ok() {}
    alloc_fault::fail_after(0);
    let undone = space.undo_checkpoint(token);
    alloc_fault::clear();
    assert_eq!(undone, Ok(()));
    assert_eq!(space.free_blocks(SpaceKind::Meta), 100);
}

#[test]
fn freeing_many_pieces_at_once_is_all_or_nothing() {
    let mut failures = 0;
    for nth in 0.. {
        let mut space = alternately_used_and_held();
        for n in 0..200 {
            space.use_held(blocks(SpaceKind::Data, 2 * n + 1, 1)).unwrap();
        }
        alloc_fault::fail_after(nth);
        let result = space.free_data(base(SpaceKind::Data), 400);
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        let found = (space.free_blocks(SpaceKind::Data), space.pending_blocks(SpaceKind::Data));
        if !tripped {
            assert_eq!((result, found), (Ok(()), (200, 200)));
            break;
        }
        assert_eq!((result, found), (Err(SpaceError::NoMemory), (0, 0)));
        failures += 1;
    }
    assert!(failures > 5, "{failures}");
}

#[test]
fn giving_and_taking_many_pieces_at_once_is_all_or_nothing() {
    let pieces: Vec<_> = (0..100).map(|n| blocks(SpaceKind::Data, 4 * n + 1, 1)).collect();
    type Op<'a> = &'a dyn Fn(&mut MountSpace) -> Result<(), SpaceError>;
    let ops: [Op<'_>; 3] =
        [&|space| space.give(&pieces).map(drop), &|space| space.forget_given(1), &|space| {
            space.take(2, &pieces)
        }];
    let counts = |space: &MountSpace| {
        (space.held_blocks(SpaceKind::Data), space.pending_blocks(SpaceKind::Data), space.given().count())
    };
    let after = [(100, 0, 0), (100, 0, 0), (100, 100, 0)];
    for nr in 0..ops.len() {
        for nth in 0.. {
            let mut space = alternately_used_and_held();
            for op in &ops[..nr] {
                op(&mut space).unwrap();
                commit(&mut space);
            }
            let before = counts(&space);
            alloc_fault::fail_after(nth);
            let result = ops[nr](&mut space);
            let tripped = alloc_fault::tripped();
            alloc_fault::clear();
            if !tripped {
                assert_eq!((result, counts(&space)), (Ok(()), after[nr]));
                break;
            }
            assert_eq!((result, counts(&space)), (Err(SpaceError::NoMemory), before));
            // What failed can be done again.
            assert_eq!(ops[nr](&mut space), Ok(()));
            assert_eq!(counts(&space), after[nr]);
        }
    }
}

#[test]
fn forgetting_one_of_two_interleaved_hand_overs_is_all_or_nothing() {
    let pieces = |odd: u64| -> Vec<_> { (0..100).map(|n| blocks(SpaceKind::Data, 2 * n + odd, 1)).collect() };
    let mut failures = 0;
    for nth in 0.. {
        let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 200)]);
        space.alloc_data(200, None).unwrap();
        space.give(&pieces(0)).unwrap();
        space.give(&pieces(1)).unwrap();
        commit(&mut space);
        alloc_fault::fail_after(nth);
        let result = space.forget_given(1);
        let tripped = alloc_fault::tripped();
        alloc_fault::clear();
        assert_eq!(result, if tripped { Err(SpaceError::NoMemory) } else { Ok(()) });
        let first = if tripped { 1 } else { 2 };
        assert!(space.given().map(|(number, _)| number).eq(first..=2));
        space.forget_given(2).unwrap();
        space.take(2, &[blocks(SpaceKind::Data, 0, 200)]).unwrap();
        if !tripped {
            break;
        }
        failures += 1;
    }
    assert!(failures > 1, "{failures}");
}

#[test]
fn the_reserve_is_for_the_privileged() {
    let mut space = mount_with(&[blocks(SpaceKind::Meta, 0, 5)]);
    space.set_reserve_blocks(3);
    space.alloc_meta(false).unwrap();
    space.alloc_meta(false).unwrap();
    let reserved = SpaceError::Reserved { free: 3, reserve: 3, pending: 0 };
    assert_eq!(space.alloc_meta(false), Err(reserved));
    assert_eq!(space.alloc_to_give(SpaceKind::Meta, 10, false), Err(reserved));
    let token = space.close_trans().unwrap();
    space.checkpoint_alloc(token).unwrap();
    space.alloc_meta(true).unwrap();
    space.alloc_meta(true).unwrap();
    let none = SpaceError::NoSpace { kind: SpaceKind::Meta, pending: 0 };
    assert_eq!(space.alloc_meta(true), Err(none));
    assert_eq!(space.checkpoint_alloc(token), Err(none));
}

#[test]
fn what_is_given_back_leaves_the_reserve() {
    let mut space = mount_with(&[blocks(SpaceKind::Meta, 0, 3), blocks(SpaceKind::Meta, 10, 9)]);
    space.set_reserve_blocks(5);
    assert_eq!(space.alloc_to_give(SpaceKind::Meta, 100, false), Ok(blocks(SpaceKind::Meta, 10, 7).extent));
}

#[test]
fn new_metadata_blocks_are_neighbours() {
    let mut space = mount_with(&[blocks(SpaceKind::Meta, 0, 20)]);
    let token = space.close_trans().unwrap();
    let taken: Vec<_> =
        (0..10).map(|_| space.checkpoint_alloc(token).unwrap() - base(SpaceKind::Meta)).collect();
    assert_eq!(taken, Vec::from_iter(0..10));
}

#[test]
fn hand_overs_are_taken_in_order_and_whole() {
    let mut space = MountSpace::new(geometry(), 7, 3);
    let one = blocks(SpaceKind::Data, 0, 5);
    for found in [0, 7, 9, u64::MAX] {
        assert_eq!(space.take(found, &[one]), Err(SpaceError::HandOverOrder { last: 7, found }));
    }
    let overlapping = [one, blocks(SpaceKind::Meta, 0, 1), blocks(SpaceKind::Data, 4, 1)];
    assert!(matches!(space.take(8, &overlapping), Err(SpaceError::Overlap { .. })));
    let outside = [one, SpaceExtent::new(SpaceKind::Data, geometry().end_data_block() - 1, 2)];
    assert!(matches!(space.take(8, &outside), Err(SpaceError::OutsideZones { .. })));
    assert_eq!(space.pending_blocks(SpaceKind::Data), 0);
    space.take(8, &[one]).unwrap();
    assert!(matches!(space.take(9, &[one]), Err(SpaceError::Owned { owner: Owner::Added, .. })));
    let token = space.close_trans().unwrap();
    assert_eq!((token.taken(), token.given()), (8, 3));
}

#[test]
fn a_hand_over_is_told_of_when_it_is_durable_and_forgotten_when_it_is_taken() {
    let mut space = mount_with(&[blocks(SpaceKind::Data, 0, 10)]);
    let extent = space.alloc_to_give(SpaceKind::Data, 4, false).unwrap();
    let part = SpaceExtent { kind: SpaceKind::Data, extent };
    assert!(matches!(space.give(&[part, part]), Err(SpaceError::Overlap { .. })));
    assert!(matches!(space.give(&[blocks(SpaceKind::Data, 2, 5)]), Err(SpaceError::NotInSet { .. })));
    assert!(matches!(space.give(&[]), Err(SpaceError::Impossible { .. })));
    assert_eq!(space.give(&[part]), Ok(1));
    assert_eq!(space.given().count(), 0);
    assert_eq!(space.forget_given(1), Err(SpaceError::NotGiven { number: 1, durable: 0 }));
    let mut records = vec![commit(&mut space).to_vec()];
    assert!(space.given().eq([(1, &[part][..])]));
    space.forget_given(1).unwrap();
    assert_eq!(space.given().count(), 0);
    // The server may give the same blocks back at once.
    space.take(2, &[part]).unwrap();
    records.push(commit(&mut space).to_vec());
    let list = [entry(SPACE_DATA, ENTRY_FREE, 0, base(SpaceKind::Data), 10)];
    let replay = replay(&list, &records).unwrap();
    assert!(replay.free(SpaceKind::Data).iter().eq([blocks(SpaceKind::Data, 0, 10).extent]));
    assert_eq!(replay.given().count(), 0);
}

#[test]
fn a_commit_is_one_at_a_time_and_named() {
    let mut space = mount_with(&[blocks(SpaceKind::Meta, 0, 10)]);
    let first = space.close_trans().unwrap();
    assert_eq!(space.close_trans(), Err(SpaceError::CommitPending));
    space.commit_done(first).unwrap();
    assert_eq!(space.commit_done(first), Err(SpaceError::NoCommit));
    assert_eq!(space.checkpoint_alloc(first), Err(SpaceError::NoCommit));
    let second = space.close_trans().unwrap();
    assert_eq!(space.undo_checkpoint(first), Err(SpaceError::NoCommit));
    space.checkpoint_alloc(second).unwrap();
    assert_eq!(space.trans_entries(second).err(), Some(SpaceError::CheckpointOrder));
    space.checkpoint_list(second, 100).unwrap();
    assert_eq!(space.checkpoint_alloc(second), Err(SpaceError::CheckpointOrder));
    assert_eq!(space.checkpoint_list(second, 100).err(), Some(SpaceError::CheckpointOrder));
    space.undo_checkpoint(second).unwrap();
    assert_eq!(space.trans_entries(second).unwrap().len(), 0);
}

/// Invariant 29: 50,000 fragments in one transaction, a list of many blocks, and all of it comes back.
#[test]
fn extents_freed_in_any_fragments_are_absorbed() {
    let geometry = Geometry::new(4 << 30, 1).unwrap();
    let (meta, data) =
        (geometry.first_meta_block(), geometry.first_data_block() + geometry.zone_data_blocks());
    let count = 100_000;
    let mut space = MountSpace::new(geometry, 0, 0);
    space.take(1, &[SpaceExtent::new(SpaceKind::Meta, meta, 30)]).unwrap();
    space.take(2, &[SpaceExtent::new(SpaceKind::Data, data, count)]).unwrap();
    commit(&mut space);
    assert_eq!(use_data(&mut space, count).len, count);
    commit(&mut space);
    for n in 0..count / 2 {
        // In an order that is not the device's.
        space.free_data(data + (n * 7919 % (count / 2)) * 2, 1).unwrap();
    }
    let token = space.close_trans().unwrap();
    let checkpoint = space.checkpoint_list(token, 0).unwrap();
    assert_eq!(checkpoint.entries.len() as u64, count / 2 + 1);
    assert_eq!(checkpoint.blocks.len(), list_blocks(checkpoint.entries.len()));
    space.commit_done(token).unwrap();
    let mut replay = SpaceReplay::new(geometry);
    checkpoint.entries.iter().try_for_each(|entry| replay.list_entry(entry)).unwrap();
    let mut space = replay.into_mount(2, 0).unwrap();
    assert_eq!(space.free_blocks(SpaceKind::Data), count / 2);
    // One by one and with a wish that cannot be met: none of it looks at many extents.
    for n in 0..count / 2 {
        assert_eq!(space.alloc_data(64, Some(data + 2 * n + 1)).unwrap().len, 1);
    }
    assert!(space.alloc_data(1, None).is_err());
}

fn entry(kind: u8, state: u8, number: u64, start: u64, len: u32) -> SpaceEntry {
    let (start, number, len) = (U64::new(start), U64::new(number), U32::new(len));
    SpaceEntry { start, number, len, kind, state, pad: [0; 2] }
}

#[test]
fn impossible_entries_are_refused() {
    let (meta, data) = (base(SpaceKind::Meta), base(SpaceKind::Data));
    let free = entry(SPACE_DATA, ENTRY_FREE, 0, data, 10);
    let given = entry(SPACE_DATA, ENTRY_GIVEN, 4, data + 20, 10);
    let refused = |entry: SpaceEntry| replay(&[free, given], &[vec![entry]]).err();
    let wrong = |e: SpaceEntry| {
        let (number, start) = (e.number.get(), e.start.get());
        Some(SpaceError::Entry { kind: e.kind, state: e.state, number, start, len: e.len.get() })
    };
    for bad in [
        entry(SPACE_ZONES, ENTRY_FREE, 0, data, 1),
        entry(SPACE_DATA, 0, 0, data + 50, 1),
        entry(SPACE_DATA, ENTRY_QUARANTINE, 0, data + 50, 1),
        entry(SPACE_DATA, ENTRY_FREE, 1, data + 50, 1),
        entry(SPACE_DATA, ENTRY_GIVEN, 0, data + 50, 1),
        entry(SPACE_META, ENTRY_FORGOTTEN, 4, 0, 1),
        entry(SPACE_META, ENTRY_FORGOTTEN, 5, 0, 0),
    ] {
        assert_eq!(refused(bad), wrong(bad));
    }
    for state in [ENTRY_USED, ENTRY_FORGOTTEN] {
        let bad = entry(SPACE_DATA, state, u64::from(state == ENTRY_FORGOTTEN), data, 1);
        assert_eq!(replay(&[free, bad], &[]).err(), wrong(bad));
    }
    let outside = entry(SPACE_DATA, ENTRY_FREE, 0, 0, 1);
    assert!(matches!(refused(outside), Some(SpaceError::OutsideZones { .. })));
    let empty = entry(SPACE_DATA, ENTRY_FREE, 0, data + 50, 0);
    assert!(matches!(refused(empty), Some(SpaceError::Impossible { .. })));
    assert!(matches!(refused(free), Some(SpaceError::Overlap { .. })));
    let free_given = entry(SPACE_DATA, ENTRY_FREE, 0, data + 25, 1);
    assert!(matches!(refused(free_given), Some(SpaceError::Owned { owner: Owner::Given, .. })));
    let give_free = entry(SPACE_DATA, ENTRY_GIVEN, 5, data + 5, 1);
    assert!(matches!(refused(give_free), Some(SpaceError::Owned { owner: Owner::Free, .. })));
    let use_given = entry(SPACE_DATA, ENTRY_USED, 0, data + 20, 1);
    assert!(matches!(refused(use_given), Some(SpaceError::NotInSet { .. })));

    let given_later = replay(&[given], &[]).unwrap();
    assert_eq!(given_later.check(3), Err(SpaceError::HandOverOrder { last: 3, found: 4 }));
    assert_eq!(given_later.check(4), Ok(()));
    let both =
        [entry(SPACE_META, ENTRY_FREE, 0, meta, 2), entry(SPACE_DATA, ENTRY_FREE, 0, meta * 16 + 31, 1)];
    let both = replay(&both, &[]).unwrap();
    assert_eq!(both.check(0), Err(SpaceError::TwoKinds { start: meta, len: 2 }));
}

#[test]
fn an_extent_longer_than_an_entry_is_written_in_parts() {
    let mut out = scoutfs_env::Vec::new();
    let len = u64::from(u32::MAX) * 2 + 5;
    entries::push(&mut out, SpaceKind::Data, ENTRY_FREE, 0, Extent::new(100, len)).unwrap();
    let mut set = ExtentSet::new();
    for entry in &out {
        set.insert(Extent::new(entry.start.get(), u64::from(entry.len.get()))).unwrap();
    }
    assert_eq!(out.len(), 3);
    assert!(set.iter().eq([Extent::new(100, len)]));
}

proptest! {
    #[test]
    fn hostile_entries_are_errors_and_never_panic(
        entries in prop::collection::vec(
            (0u8..5, 0u8..7, prop_oneof![0u64..5, any::<u64>()], prop_oneof![0u64..4000, any::<u64>()], prop_oneof![0u32..50, any::<u32>()]),
            0..40,
        ),
    ) {
        let mut replay = SpaceReplay::new(geometry());
        for (kind, state, number, start, len) in entries {
            let start = start.wrapping_add(base(SpaceKind::Meta));
            // An error ends it for others; here the rest must not panic either.
            let _ = replay.record_entry(&entry(kind, state, number, start, len));
        }
        let _ = replay.into_mount(0, 4);
    }
}
