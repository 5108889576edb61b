// SPDX-License-Identifier: GPL-2.0-only
//! Space to and from mounts.

use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_btree::space::{Extent, SpaceExtent, SpaceKind};
use scoutfs_format::Key;
use scoutfs_format::geometry::MIN_VOLUME_BYTES;
use scoutfs_format::le::U64;
use scoutfs_format::msg::*;
use zerocopy::{FromBytes, IntoBytes};

use super::mount::*;
use super::rig::*;
use crate::server::{LEASE, LEASE_MARGIN, Server};

fn number(payload: &[u8]) -> u64 {
    HandOverHeader::read_from_prefix(payload).unwrap().0.number.get()
}

/// Invariants 21, 27: a request that is sent again gets what the server has recorded for it.
#[test]
fn a_hand_over_is_durable_before_the_answer_and_the_same_request_gets_the_same() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    let id = rig.new_id();
    let request = SpaceRequest { blocks: U64::new(100), kind: 2.into(), need: 0.into() };
    rig.send(7, id, MSG_SPACE, 0, request.as_bytes());
    assert!(rig.poll().is_empty());
    rig.server.commit().unwrap();
    let first = rig.poll().remove(0).3;
    assert_sound(&rig.dev, "given");
    assert_eq!(mount.ask_space(&mut rig, id, SpaceKind::Data, 100), (STATUS_OK, first.clone()));
    assert_eq!(mount.take(&first), 100);
    mount.commit(&mut rig, false);
    assert_sound(&rig.dev, "taken, and the server does not know");
    let n = number(&first);
    mount.exchange(&mut rig);
    assert_sound(&rig.dev, "taken");
    // Told twice, it makes no difference.
    mount.exchange(&mut rig);
    assert!(rig.server.members.get(mount.slot).unwrap().hand_overs.is_empty());
    // A taking that no record proves is not believed.
    let lie = HandOverTaken { number: U64::new(n + 1), commit_nr: U64::ZERO };
    let id = rig.new_id();
    assert_eq!(rig.request(7, id, MSG_SPACE_TAKEN, lie.as_bytes()).0, STATUS_INVALID);
}

#[test]
fn a_new_server_tells_of_the_hand_overs_of_the_old_one_before_it_makes_more() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    rig.settle();
    let id = rig.new_id();
    let (_, lost) = mount.ask_space(&mut rig, id, SpaceKind::Data, 50);
    // The answer is lost with the server.
    let mut rig = rig.reopen(&Dead(false));
    mount.exchange(&mut rig);
    let id = rig.new_id();
    let (_, again) = mount.ask_space(&mut rig, id, SpaceKind::Meta, 5);
    assert_eq!(again, lost);
    assert_eq!(mount.take(&again), 50);
    let id = rig.new_id();
    let (_, next) = mount.ask_space(&mut rig, id, SpaceKind::Meta, 5);
    assert_eq!(number(&next), number(&lost) + 1);
    assert_eq!(mount.take(&next), 5);
    mount.commit(&mut rig, false);
    mount.exchange(&mut rig);
    assert_sound(&rig.dev, "after both");
}

#[test]
fn giving_back_is_idempotent_in_order_and_space_that_is_free_already_is_refused() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Data, 100);
    mount.commit(&mut rig, false);
    let held = mount.space.alloc_to_give(SpaceKind::Data, 30, false).unwrap();
    let extent = SpaceExtent { kind: SpaceKind::Data, extent: held };
    let n = mount.space.give(&[extent]).unwrap();
    let payload = give_payload(n, &[extent]);
    // Not before the record is durable.
    let id = rig.new_id();
    assert_eq!(rig.request(7, id, MSG_SPACE_GIVE, &payload).0, STATUS_INVALID);
    mount.commit(&mut rig, false);
    assert_sound(&rig.dev, "given and not taken");
    let before = rig.server.free.of(SpaceKind::Data).blocks();
    for _ in 0..3 {
        let id = rig.new_id();
        assert_eq!(rig.request(7, id, MSG_SPACE_GIVE, &payload).0, STATUS_OK);
        assert_eq!(rig.server.free.of(SpaceKind::Data).blocks(), before + 30);
    }
    assert_sound(&rig.dev, "taken");
    mount.exchange(&mut rig);
    mount.commit(&mut rig, false);
    assert_sound(&rig.dev, "forgotten");
    // The same blocks again, as another hand-over; and blocks of nobody's concern.
    let working = rig.server.work.iter().next().unwrap().start;
    for wrong in [
        extent,
        SpaceExtent::new(SpaceKind::Data, u64::MAX - 5, 3),
        SpaceExtent::new(SpaceKind::Meta, working, 1),
    ] {
        let held = mount.space.alloc_to_give(SpaceKind::Data, 1, false).unwrap();
        mount.space.release_held(SpaceExtent { kind: SpaceKind::Data, extent: held }).unwrap();
        let id = rig.new_id();
        let status = rig.request(7, id, MSG_SPACE_GIVE, &give_payload(n + 1, &[wrong])).0;
        assert_eq!(status, STATUS_INVALID, "no record gives it");
    }
    let good = mount.space.alloc_to_give(SpaceKind::Data, 1, false).unwrap();
    mount.space.give(&[SpaceExtent { kind: SpaceKind::Data, extent: good }]).unwrap();
    mount.commit(&mut rig, false);
    let id = rig.new_id();
    assert_eq!(rig.request(7, id, MSG_SPACE_GIVE, &give_payload(n + 1, &[extent])).0, STATUS_CORRUPT);
    assert!(rig.server.failed().is_none());
    assert_sound(&rig.dev, "after the lie");
}

#[test]
fn both_kinds_and_several_mounts_get_some_of_the_smallest_volume() {
    let mut rig = Rig::smallest();
    let mut mounts: Vec<SimMount> = (1..=4).map(|rid| SimMount::start(&mut rig, rid)).collect();
    for round in 0..2 {
        for mount in &mut mounts {
            for kind in SpaceKind::ALL {
                let got = mount.get_space(&mut rig, kind, u64::MAX);
                assert!(got > 0, "round {round}");
                let all =
                    rig.geometry.nr_zones() * crate::server::free_space::zone_blocks(&rig.geometry, kind);
                assert!(got <= all / 8, "{got} of {all} at once");
            }
            mount.commit(&mut rig, false);
        }
    }
    assert_sound(&rig.dev, "all have some");
}

/// Invariant 40.
#[test]
fn no_space_is_true_and_space_that_comes_back_is_found_again() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    for round in 0..3 {
        let mut files = 0;
        loop {
            let id = rig.new_id();
            let (status, bytes) = mount.ask_space(&mut rig, id, SpaceKind::Data, 300);
            assert_eq!(status, STATUS_OK);
            if mount.take(&bytes) == 0 {
                break;
            }
            mount.commit(&mut rig, true);
            while mount.write_file(round * 10_000 + files, 37) > 0 {
                files += 1;
            }
            mount.commit(&mut rig, true);
            mount.exchange(&mut rig);
        }
        // What is not data is metadata, or what the server keeps for it.
        let data: u64 = mount.data.values().map(|e| e.len).sum();
        assert!(data > 61 * 256 * 3 / 4, "only {data} blocks for data");
        assert_eq!(rig.server.free.of(SpaceKind::Data).blocks(), 0);
        assert_sound(&rig.dev, "full");
        // Metadata can still be had: deletes and merges work.
        assert!(mount.get_space(&mut rig, SpaceKind::Meta, 4) > 0);
        // Every third file is deleted, committed, and given back in pieces.
        let doomed: Vec<Key> = mount.data.keys().copied().step_by(3).collect();
        for key in doomed {
            mount.delete_file(key);
        }
        mount.commit(&mut rig, true);
        while mount.space.free_blocks(SpaceKind::Data) > 0 {
            let mut extents = Vec::new();
            while extents.len() < 20
                && let Ok(extent) = mount.space.alloc_to_give(SpaceKind::Data, 300, false)
            {
                extents.push(SpaceExtent { kind: SpaceKind::Data, extent });
            }
            mount.space.give(&extents).unwrap();
            mount.commit(&mut rig, true);
            mount.exchange(&mut rig);
        }
        assert!(rig.server.free.of(SpaceKind::Data).blocks() > 61 * 256 / 6);
        assert_sound(&rig.dev, "a third given back");
    }
}

#[test]
fn a_zone_that_gets_free_may_become_the_other_kind() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Meta, 16 * 4);
    mount.commit(&mut rig, false);
    let zones = rig.server.free.empty_zones();
    let meta_zones = rig.server.free.meta_zones;
    let free = mount.space.free_blocks(SpaceKind::Meta);
    let keep = mount.reserve;
    let mut extents = Vec::new();
    mount.space.set_reserve_blocks(keep);
    while let Ok(extent) = mount.space.alloc_to_give(SpaceKind::Meta, free, false) {
        extents.push(SpaceExtent { kind: SpaceKind::Meta, extent });
    }
    mount.space.give(&extents).unwrap();
    mount.commit(&mut rig, false);
    mount.exchange(&mut rig);
    assert!(rig.server.free.empty_zones() > zones);
    assert!(rig.server.free.meta_zones < meta_zones);
    let statfs: StatfsReply = rig.call(7, MSG_STATFS, &[0u8; 0]).unwrap();
    assert_eq!(statfs.free_zones.get(), rig.server.free.empty_zones());
    assert_eq!(statfs.total_meta.get(), rig.server.free.meta_zones * 16);
    assert_sound(&rig.dev, "zones are empty again");
}

#[test]
fn the_working_set_moves_out_of_zones_that_hold_nothing_else_when_data_are_short() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    rig.settle();
    let meta_zones = rig.server.free.meta_zones;
    let Server { free, work, changes, .. } = &mut rig.server;
    for _ in 0..6 {
        // Two blocks of an empty zone instead of two in one that holds something.
        let zone = free.take_zones(SpaceKind::Meta, 1, changes).unwrap().unwrap();
        work.pending.insert(Extent::new(zone.start, 2)).unwrap();
        free.add(SpaceKind::Meta, Extent::new(zone.start + 2, zone.len - 2), changes).unwrap();
        let first = work.usable.at_or_after(0).unwrap();
        let other = Extent::new(first.start, 2);
        work.usable.remove(other).unwrap();
        free.add(SpaceKind::Meta, other, changes).unwrap();
    }
    rig.server.commit().unwrap();
    assert_sound(&rig.dev, "scattered");
    assert_eq!(rig.server.free.meta_zones, meta_zones + 6);
    let mut rounds = 0;
    while mount.get_space(&mut rig, SpaceKind::Data, u64::MAX) > 0 {
        mount.commit(&mut rig, true);
        mount.exchange(&mut rig);
        rounds += 1;
        assert_sound(&rig.dev, "data are given");
    }
    assert!(rounds > 10);
    assert!(rig.server.free.meta_zones <= meta_zones, "{} zones of metadata", rig.server.free.meta_zones);
    assert!(rig.server.work.total() >= rig.server.work_target(), "the working set is as large as it must be");
}

#[test]
fn a_volume_whose_metadata_are_all_given_refuses_a_mount_and_takes_it_when_they_come_back() {
    let mut rig = Rig::smallest();
    let mut hog = SimMount::start(&mut rig, 1);
    loop {
        let id = rig.new_id();
        let (_, bytes) = hog.ask_space(&mut rig, id, SpaceKind::Meta, 1000);
        if hog.take(&bytes) == 0 {
            break;
        }
        hog.commit(&mut rig, true);
    }
    hog.exchange(&mut rig);
    // It is asked for what it does not use, and uses all.
    for all in [0, 1] {
        assert_eq!(SimMount::join(&mut rig, 2).err(), Some(STATUS_AGAIN));
        let recall = hog.recall(&mut rig);
        assert_eq!((recall.all.get(), recall.slot.get()), (all, u32::MAX));
        hog.answer_recall(&mut rig, &recall, false);
    }
    assert_eq!(SimMount::join(&mut rig, 2).err(), Some(STATUS_NO_SPACE));
    assert_sound(&rig.dev, "all metadata are given");
    // The server itself goes on: the hog leaves, is merged and taken back.
    hog.put(Key::inode(9), b"x");
    hog.leave(&mut rig);
    rig.settle();
    SimMount::start(&mut rig, 2);
    assert_eq!(rig.items().len(), 1);
    assert_sound(&rig.dev, "taken back");
}

#[test]
fn space_that_comes_back_without_the_mounts_doing_is_waited_for() {
    let mut rig = Rig::smallest();
    let mut hog = SimMount::start(&mut rig, 1);
    let mut other = SimMount::start(&mut rig, 2);
    while hog.get_space(&mut rig, SpaceKind::Data, 100_000) > 0 {
        hog.commit(&mut rig, true);
    }
    assert_eq!(other.get_space(&mut rig, SpaceKind::Data, 10), 0, "a true ENOSPC");
    hog.leave(&mut rig);
    let id = rig.new_id();
    assert_eq!(other.ask_space(&mut rig, id, SpaceKind::Data, 10).0, STATUS_AGAIN);
    rig.settle();
    assert_eq!(other.get_space(&mut rig, SpaceKind::Data, 10), 10);
}

#[test]
fn hand_overs_and_returns_survive_a_crash_at_every_write() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    rig.settle();
    rig.dev.record();
    for round in 0..3 {
        for kind in SpaceKind::ALL {
            let id = rig.new_id();
            let (_, bytes) = mount.ask_space(&mut rig, id, kind, 70);
            mount.take(&bytes);
        }
        mount.commit(&mut rig, round == 1);
        mount.write_file(round, 30);
        mount.commit(&mut rig, false);
        mount.exchange(&mut rig);
        let extent = mount.space.alloc_to_give(SpaceKind::Data, 20, false).unwrap();
        mount.space.give(&[SpaceExtent { kind: SpaceKind::Data, extent }]).unwrap();
        mount.commit(&mut rig, false);
        mount.exchange(&mut rig);
        mount.commit(&mut rig, false);
    }
    crash_everywhere(&rig.dev, "space", |_| {});
}

/// Invariants 29, 23: the working set holds what commits of a fragmented tree need.
#[test]
fn free_space_in_many_fragments_is_absorbed() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Meta, 100);
    mount.commit(&mut rig, true);
    let mut ino = 0;
    for _ in 0..25 {
        let id = rig.new_id();
        let (_, bytes) = mount.ask_space(&mut rig, id, SpaceKind::Data, 256);
        mount.take(&bytes);
        mount.commit(&mut rig, true);
        while mount.write_file(ino, 1) > 0 {
            ino += 1;
        }
        mount.commit(&mut rig, true);
        mount.exchange(&mut rig);
    }
    // Every other block, a thousand fragments a message, in an order that has nothing to do with the device's.
    let blocks: BTreeSet<Key> = mount.data.keys().copied().step_by(2).collect();
    for key in blocks {
        mount.delete_file(key);
    }
    mount.commit(&mut rig, true);
    let mut all = Vec::new();
    while let Ok(extent) = mount.space.alloc_to_give(SpaceKind::Data, 1, false) {
        all.push(SpaceExtent { kind: SpaceKind::Data, extent });
    }
    assert!(all.len() > 3_000);
    let mut mixed: Vec<SpaceExtent> = (0..all.len()).map(|n| all[n * 1_009 % all.len()]).collect();
    if all.len() % 1_009 == 0 {
        mixed = all;
    }
    for part in mixed.chunks(1_000) {
        mount.space.give(part).unwrap();
        mount.commit(&mut rig, true);
        mount.exchange(&mut rig);
        assert!(rig.server.failed().is_none());
    }
    assert!(rig.server.free.of(SpaceKind::Data).nr_extents() > 2_500);
    assert_sound(&rig.dev, "in fragments");
    // And handed out again.
    let id = rig.new_id();
    let (_, bytes) = mount.ask_space(&mut rig, id, SpaceKind::Data, 200);
    assert_eq!(mount.take(&bytes), 200);
    mount.leave(&mut rig);
    rig.settle();
    assert_sound(&rig.dev, "all taken back");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Invariant 25: the server starts again from whatever a sequence of steps left, and goes on.
    #[test]
    fn any_sequence_of_steps_leaves_one_owner_for_each_block(
        steps in proptest::collection::vec((0u8..12, 0usize..3, 1u64..200), 1..60)
    ) {
        let mut rig = Rig::open(make_volume(MIN_VOLUME_BYTES), &Dead(true));
        let mut mounts: Vec<Option<SimMount>> = std::vec![None, None, None];
        let mut rid = 1;
        for (step, which, n) in steps {
            let Some(mount) = &mut mounts[which] else {
                if let Ok(mount) = SimMount::join(&mut rig, rid) {
                    mounts[which] = Some(mount);
                    let mount = mounts[which].as_mut().unwrap();
                    while mount.space.free_blocks(SpaceKind::Meta) < mount.reserve
                        && mount.get_space(&mut rig, SpaceKind::Meta, mount.reserve) > 0
                    {
                        mount.commit(&mut rig, false);
                    }
                }
                rid += 1;
                continue;
            };
            match step {
                0 | 1 => {
                    let kind = if step == 0 { SpaceKind::Meta } else { SpaceKind::Data };
                    let id = rig.new_id();
                    let (status, bytes) = mount.ask_space(&mut rig, id, kind, n * 3);
                    if status == STATUS_OK && mount.take(&bytes) > 0 {
                        mount.commit(&mut rig, true);
                    }
                }
                // Each file has one extent: another one under the same key would leave the first to nobody.
                2 if mount.data.contains_key(&Key::extent(rid * 1_000_000 + n, n - 1)) => {}
                2 => drop(mount.write_file(rid * 1_000_000 + n, n)),
                3 => {
                    if let Some(&key) = mount.data.keys().nth(n as usize % mount.data.len().max(1)) {
                        mount.delete_file(key);
                    }
                }
                4 => mount.commit(&mut rig, n % 3 == 0),
                5 => {
                    if let Ok(extent) = mount.space.alloc_to_give(SpaceKind::Data, n, false) {
                        let extent = SpaceExtent { kind: SpaceKind::Data, extent };
                        mount.space.give(&[extent]).unwrap();
                        mount.commit(&mut rig, true);
                    }
                }
                6 => mount.exchange(&mut rig),
                7 => mount.finalize(&mut rig),
                8 => rig.settle(),
                9 => {
                    mounts[which].take().unwrap().leave(&mut rig);
                }
                10 => {
                    // One mount falls silent.
                    let silent = mounts[which].take().map(|mount| process(mount.rid));
                    for mount in mounts.iter().flatten() {
                        let id = rig.new_id();
                        rig.request(mount.rid, id, MSG_RENEW, &[]);
                    }
                    rig.advance(LEASE / 2);
                    for mount in mounts.iter().flatten() {
                        let id = rig.new_id();
                        rig.request(mount.rid, id, MSG_RENEW, &[]);
                    }
                    rig.advance(LEASE_MARGIN + LEASE / 2);
                    rig.server.tick(rig.now);
                    rig.server.recheck_deaths(&DeadProcess(silent.unwrap()));
                }
                _ => {
                    rig = rig.reopen(&Dead(false));
                    rig.now = rig.now.saturating_add(LEASE);
                }
            }
            prop_assert!(rig.server.failed().is_none());
            rig.server.commit().unwrap();
            assert_sound(&rig.dev, "a step");
        }
        // In the end all leave, or are reclaimed, and everything is free again but what files hold.
        for mount in mounts.into_iter().flatten() {
            mount.leave(&mut rig);
        }
        let mut rig = rig.reopen(&Dead(true));
        rig.settle();
        let audit = assert_sound(&rig.dev, "the end");
        let zone = 256;
        let files: u64 = rig.items().values().map(|(_, value)| {
            scoutfs_format::item::ExtentItem::read_from_bytes(value).map_or(0, |e| e.len.get())
        }).sum();
        prop_assert_eq!((audit.free_data_blocks + files) % zone, 0);
    }
}
