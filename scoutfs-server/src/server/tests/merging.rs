// SPDX-License-Identifier: GPL-2.0-only
//! Merges, tombstones, sweeps, and taking back what is merged.

use core::time::Duration;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_btree::space::SpaceKind;
use scoutfs_btree::tree::Cursor;
use scoutfs_format::Key;
use scoutfs_format::server_item::{MEMBER_FREE, MEMBER_GONE};

use super::mount::*;
use super::rig::*;
use crate::merge_job::Work;

/// Tombstones in the fs tree, counted.
fn tombstones(rig: &Rig) -> u64 {
    let mut cursor = Cursor::new(&rig.cache, rig.server.super_block().fs_root, Key::MIN);
    let mut count = 0;
    while let Some(item) = cursor.peek().unwrap() {
        count += u64::from(item.deletion);
        cursor.advance();
    }
    count
}

fn values(rig: &Rig) -> BTreeMap<Key, Vec<u8>> {
    rig.items().into_iter().map(|(key, (_, value))| (key, value)).collect()
}

#[test]
fn a_finalized_log_is_merged_and_its_mount_told_after_the_commit() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.put(Key::inode(1), b"one");
    mount.commit(&mut rig, false);
    mount.put(Key::inode(2), b"two");
    mount.finalize(&mut rig);
    mount.put(Key::inode(2), b"newer");
    mount.commit(&mut rig, false);
    let seen = values(&rig);
    assert_eq!(seen[&Key::inode(2)], b"newer");
    let job = rig.server.poll_job().unwrap();
    assert!(rig.server.poll_job().is_none(), "one at a time");
    let result = job.run(&rig.cache);
    rig.server.job_done(rig.now, result);
    rig.poll();
    assert_eq!(mount.merged_through(&mut rig), 0, "told before it is durable");
    assert_eq!(values(&rig), seen);
    rig.server.commit().unwrap();
    rig.poll();
    assert_eq!(rig.server.members.get(mount.slot).unwrap().merged_through(), 1);
    assert!(rig.inbox.iter().any(|(to, ..)| *to == 7));
    assert_eq!(values(&rig), seen);
    assert_sound(&rig.dev, "merged");
    // The mount frees its tree with its next checkpoint.
    let logs = mount.logs.len();
    mount.commit(&mut rig, true);
    assert_eq!(mount.logs.len(), logs - 1);
    assert_eq!(values(&rig), seen);
    assert_sound(&rig.dev, "freed");
}

/// Invariant 44: two mounts write the same keys in turn, logs are merged in any order.
#[test]
fn newer_items_in_open_logs_stay_the_newest_and_nothing_newer_is_merged_under_something_older() {
    let mut rig = Rig::smallest();
    let mut a = SimMount::start(&mut rig, 1);
    let mut b = SimMount::start(&mut rig, 2);
    for round in 0..6u8 {
        let (mount, other) = if round % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        mount.next_seq(&mut rig);
        for n in 0..20 {
            mount.put(Key::inode(n), &[round]);
        }
        mount.commit(&mut rig, false);
        if round % 3 == 0 {
            other.finalize(&mut rig);
        } else {
            mount.finalize(&mut rig);
        }
        rig.settle();
        assert!(values(&rig).values().all(|value| value == &[round]));
        assert_sound(&rig.dev, "a round");
    }
}

#[test]
fn a_tombstone_stays_as_long_as_any_log_may_hold_an_older_item() {
    let mut rig = Rig::smallest();
    let mut a = SimMount::start(&mut rig, 1);
    let mut b = SimMount::start(&mut rig, 2);
    // b's open log holds the key, then a deletes it, later, and is merged first.
    b.put(Key::inode(5), b"old");
    b.commit(&mut rig, false);
    a.next_seq(&mut rig);
    a.delete(Key::inode(5));
    a.finalize(&mut rig);
    rig.settle();
    // However long it is there.
    wait_for_sweeps(&mut rig, &[1, 2]);
    assert_eq!(tombstones(&rig), 1);
    assert!(values(&rig).is_empty());
    // b's log is merged under the tombstone.
    b.finalize(&mut rig);
    rig.settle();
    assert!(values(&rig).is_empty(), "the deleted item is back");
    assert_sound(&rig.dev, "both merged");
    // Once nobody can hold an older item, the next merge that touches the leaf drops it.
    for mount in [&mut a, &mut b] {
        mount.commit(&mut rig, true);
        mount.next_seq(&mut rig);
        mount.put(Key::inode(100 + mount.rid), b"x");
        mount.finalize(&mut rig);
        rig.settle();
    }
    a.next_seq(&mut rig);
    a.put(Key::inode(7), b"x");
    a.finalize(&mut rig);
    rig.settle();
    assert_eq!(tombstones(&rig), 0);
    assert_eq!(values(&rig).len(), 3);
}

#[test]
fn a_tombstone_in_a_leaf_that_a_piece_ends_in_survives_the_piece() {
    // The log that is being merged may hold older items behind the piece.
    let mut rig = Rig::smallest();
    let mut a = SimMount::start(&mut rig, 1);
    let mut b = SimMount::start(&mut rig, 2);
    for n in 0..2_000 {
        b.put(Key::inode(n), b"old old old old old old old old");
    }
    b.finalize(&mut rig);
    a.next_seq(&mut rig);
    for n in 0..2_000 {
        a.delete(Key::inode(n));
    }
    a.finalize(&mut rig);
    // a's log is merged first: by hand, b's in tiny pieces after it.
    let first = rig.server.poll_job().unwrap();
    assert!(matches!(first.work, Work::Merge { .. }));
    let result = first.run(&rig.cache);
    rig.server.job_done(rig.now, result);
    rig.server.commit().unwrap();
    let mut pieces = 0;
    while let Some(mut job) = rig.server.poll_job() {
        job.limit.max_changes = 150;
        let result = job.run(&rig.cache);
        rig.server.job_done(rig.now, result);
        rig.server.commit().unwrap();
        pieces += 1;
        assert!(values(&rig).is_empty(), "a reader sees deleted items after piece {pieces}");
    }
    assert!(pieces >= 13);
    assert_sound(&rig.dev, "merged in pieces");
}

/// Invariants 26, 31, 46.
#[test]
fn a_merge_goes_on_where_its_last_published_piece_ended_after_a_crash_at_every_write() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Meta, 60);
    mount.commit(&mut rig, true);
    for n in 0..6_000u64 {
        mount.put(Key::inode(n * 7), &[n as u8; 100]);
    }
    mount.finalize(&mut rig);
    mount.put(Key::inode(3), b"tail");
    mount.commit(&mut rig, false);
    mount.finalize(&mut rig);
    let seen = values(&rig);
    rig.dev.record();
    while let Some(mut job) = rig.server.poll_job() {
        job.limit.max_changes = 900;
        let result = job.run(&rig.cache);
        rig.server.job_done(rig.now, result);
        rig.server.commit().unwrap();
    }
    mount.merged_through(&mut rig);
    crash_everywhere(&rig.dev, "a merge", |rig| {
        assert_eq!(values(rig), seen);
        assert!(rig.server.members.iter().all(|m| m.is(MEMBER_FREE)));
    });
}

#[test]
fn the_result_of_a_piece_of_another_server_is_not_accepted() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.put(Key::inode(1), b"one");
    mount.finalize(&mut rig);
    let job = rig.server.poll_job().unwrap();
    let mut rig = rig.reopen(&Dead(false));
    let result = job.run(&rig.cache);
    let root = rig.server.super_block().fs_root;
    rig.server.job_done(rig.now, result);
    rig.server.commit().unwrap();
    assert_eq!(rig.server.super_block().fs_root, root);
    rig.settle();
    assert_eq!(values(&rig).len(), 1);
    assert_sound(&rig.dev, "merged by the next server");
}

#[test]
fn a_piece_that_fails_loses_nothing_and_is_tried_again() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.put(Key::inode(1), b"one");
    mount.finalize(&mut rig);
    let total = rig.server.work.total();
    let job = rig.server.poll_job().unwrap();
    rig.dev.fail_writes(true);
    let result = job.run(&rig.cache);
    rig.dev.fail_writes(false);
    rig.server.job_done(rig.now, result);
    assert!(rig.server.failed().is_none());
    assert_eq!(rig.server.work.total(), total);
    assert!(rig.server.poll_job().is_none(), "not at once");
    for _ in 0..2 {
        rig.advance(Duration::from_secs(5));
        let id = rig.new_id();
        rig.request(7, id, scoutfs_format::msg::MSG_RENEW, &[]);
    }
    rig.server.tick(rig.now);
    rig.server.commit().unwrap();
    rig.settle();
    assert_eq!(rig.server.members.get(mount.slot).unwrap().merged_through(), 1);
    assert_sound(&rig.dev, "merged");
}

/// Invariants 47, 26, 27, 30.
#[test]
fn a_departed_mount_never_blocks_merging_and_all_of_it_is_taken_back_whatever_crashes() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Meta, 100);
    mount.get_space(&mut rig, SpaceKind::Data, 200);
    mount.commit(&mut rig, true);
    // Two log trees, a tail, fragmented free space, a hand-over each way.
    for n in 0..3_000u64 {
        mount.put(Key::inode(n), &[1; 300]);
    }
    mount.finalize(&mut rig);
    for n in 0..40 {
        mount.write_file(10_000 + n, 1);
    }
    mount.commit(&mut rig, true);
    let keys: Vec<Key> = mount.data.keys().copied().step_by(2).collect();
    for key in keys {
        mount.delete_file(key);
    }
    mount.commit(&mut rig, false);
    let extent = mount.space.alloc_to_give(SpaceKind::Data, 9, false).unwrap();
    let extent = scoutfs_btree::space::SpaceExtent { kind: SpaceKind::Data, extent };
    mount.space.give(&[extent]).unwrap();
    mount.commit(&mut rig, false);
    let id = rig.new_id();
    mount.ask_space(&mut rig, id, SpaceKind::Data, 50);
    let seen = values(&rig);
    // The mount dies; the next server does it all, in small steps.
    let mut rig = rig.reopen(&Dead(true));
    rig.dev.record();
    assert!(rig.server.members.get(0).unwrap().is(MEMBER_GONE));
    rig.settle();
    assert!(rig.server.members.get(0).unwrap().is(MEMBER_FREE));
    assert_eq!(values(&rig), seen);
    crash_everywhere(&rig.dev, "taking back", |rig| {
        assert_eq!(values(rig), seen);
        assert!(rig.server.members.get(0).unwrap().is(MEMBER_FREE));
        let audit = audit_device(&rig.dev);
        assert_eq!(audit.free_data_blocks, 256 - 20);
    });
}

#[test]
fn many_tombstones_are_swept_when_nothing_needs_them() {
    tombstones_are_swept(6_000);
}

/// The smallest volumes give every block back.
#[test]
fn the_few_tombstones_of_a_small_tree_are_swept_once_nothing_is_merged_any_more() {
    tombstones_are_swept(600);
}

/// The others have written before and are idle since: an empty log promises nothing that would keep tombstones.
#[test]
fn the_last_deletions_are_swept_although_other_mounts_are_idle() {
    let mut rig = Rig::smallest();
    let mut idle = SimMount::start(&mut rig, 8);
    let mut mount = SimMount::start(&mut rig, 7);
    mount.put(Key::inode(5), b"short");
    mount.commit(&mut rig, false);
    idle.next_seq(&mut rig);
    idle.put(Key::inode(6), b"short");
    idle.finalize(&mut rig);
    rig.settle();
    idle.commit(&mut rig, true);
    mount.next_seq(&mut rig);
    mount.delete(Key::inode(5));
    mount.finalize(&mut rig);
    rig.settle();
    assert_eq!(tombstones(&rig), 1);
    wait_for_sweeps(&mut rig, &[7, 8]);
    assert_eq!(tombstones(&rig), 0);
    // What is deleted with a number that was in hand when the last sweep took place is swept as well.
    for (mount, ino) in [(&mut idle, 6), (&mut mount, 5)] {
        mount.delete(Key::inode(ino));
        mount.finalize(&mut rig);
        rig.settle();
        assert!(tombstones(&rig) > 0, "inode {ino}");
        wait_for_sweeps(&mut rig, &[7, 8]);
        assert_eq!(tombstones(&rig), 0, "inode {ino}");
    }
    assert_sound(&rig.dev, "swept");
}

/// So long that the few tombstones of a small tree are swept.
fn wait_for_sweeps(rig: &mut Rig, rids: &[u64]) {
    for _ in 0..6 {
        rig.advance(Duration::from_secs(6));
        for &rid in rids {
            let id = rig.new_id();
            rig.request(rid, id, scoutfs_format::msg::MSG_RENEW, &[]);
        }
        rig.settle();
    }
}

fn tombstones_are_swept(items: u64) {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Meta, 80);
    mount.commit(&mut rig, true);
    for n in 0..items {
        mount.put(Key::inode(n), b"short");
    }
    mount.finalize(&mut rig);
    rig.settle();
    mount.commit(&mut rig, true);
    for n in 0..items {
        if n % 100 != 0 {
            mount.delete(Key::inode(n));
        }
    }
    mount.finalize(&mut rig);
    rig.settle();
    assert!(tombstones(&rig) == rig.server.super_block().tombstones.get());
    // Many are swept at once.
    assert_eq!(tombstones(&rig) == 0, items >= 4096);
    wait_for_sweeps(&mut rig, &[7]);
    mount.commit(&mut rig, true);
    assert_eq!(tombstones(&rig), 0);
    assert_eq!(rig.server.super_block().tombstones.get(), 0);
    assert_eq!(values(&rig).len() as u64, items / 100);
    assert_sound(&rig.dev, "swept");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn readers_see_the_newest_write_of_each_key_in_every_order_of_merges(
        steps in proptest::collection::vec((0u8..10, 0usize..3, 0u64..12), 1..80)
    ) {
        // Keys are "locked": before another mount writes a key, its last writer commits.
        let mut rig = Rig::smallest();
        let mut mounts: Vec<SimMount> = (1..=3).map(|rid| SimMount::start(&mut rig, rid)).collect();
        let mut model: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
        let mut n = 0u32;
        for (step, which, key) in steps {
            n += 1;
            let key = Key::inode(key);
            match step {
                0..=4 => {
                    for mount in &mut mounts {
                        mount.commit(&mut rig, false);
                    }
                    mounts[which].next_seq(&mut rig);
                    if step < 2 {
                        mounts[which].delete(key);
                        model.remove(&key);
                    } else {
                        mounts[which].put(key, &n.to_le_bytes());
                        model.insert(key, n.to_le_bytes().to_vec());
                    }
                    let checkpoint = n.is_multiple_of(3);
                    mounts[which].commit(&mut rig, checkpoint);
                }
                5 | 6 => mounts[which].finalize(&mut rig),
                7 => {
                    if let Some(mut job) = rig.server.poll_job() {
                        job.limit.max_changes = 2;
                        let result = job.run(&rig.cache);
                        rig.server.job_done(rig.now, result);
                        rig.server.commit().unwrap();
                    }
                }
                8 => rig.settle(),
                _ => {
                    let gone = mounts.remove(which);
                    gone.leave(&mut rig);
                    mounts.insert(which, SimMount::start(&mut rig, 1_000 + u64::from(n)));
                }
            }
            for mount in &mut mounts {
                if mount.ring.checkpoint_nr().is_some() && n.is_multiple_of(4) {
                    mount.commit(&mut rig, true);
                }
            }
            prop_assert_eq!(&values(&rig), &model);
        }
        rig.settle();
        prop_assert_eq!(&values(&rig), &model);
        assert_sound(&rig.dev, "in the end");
    }
}
