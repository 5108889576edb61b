// SPDX-License-Identifier: GPL-2.0-only
//! Leaders that follow one another while nobody knows whether those before still write.

use std::collections::BTreeSet;
use std::vec::Vec;
use std::{format, vec};

use scoutfs_btree::space::{Extent, SpaceKind};
use scoutfs_format::Key;
use scoutfs_format::geometry::MAX_VOTERS;
use scoutfs_format::msg::{MSG_RENEW, MSG_RESPONSE};
use scoutfs_format::voter::{LeaderId, MAX_TAKE_OVERS, ProcessId, SuperBlock, TakeOver};

use super::mount::*;
use super::rig::*;
use crate::ServerError;
use crate::server::{DeathOracle, Former};
use crate::super_block::{read_super_with_take_overs, write_super, write_super_after};

/// These are dead, by the rids of their mounts.
struct DeadMounts<'a>(&'a [u64]);

impl DeathOracle for DeadMounts<'_> {
    fn is_dead(&self, of: &ProcessId) -> bool {
        self.0.iter().any(|&rid| process(rid) == *of)
    }
}

const NOBODY: DeadMounts<'static> = DeadMounts(&[]);

fn blocks<'a>(extents: impl Iterator<Item = Extent> + 'a) -> impl Iterator<Item = u64> + 'a {
    extents.flat_map(|extent| extent.start..extent.start + extent.len)
}

/// A leader that has stopped, and what it may still do.
struct Stopped {
    /// The metadata blocks that it was allowed to write, by the super block.
    may_write: BTreeSet<u64>,
    /// What it has asked the device for, and will land.
    late: LateWrites,
}

impl Stopped {
    /// The leader handles a request and dies in the commit: all blocks are on their way, and nothing refers to them. It still owns its
    /// voter slot.
    fn in_a_commit(mut rig: Rig, voter: u32) -> Stopped {
        let may_write: BTreeSet<u64> = blocks(rig.server.work.usable.iter()).collect();
        rig.dev.hold_blocks();
        if !rig.server.taking_over {
            // Something to commit.
            rig.server.changes.put(Key::merge(0, 0), &[0u8; 32]).unwrap();
            rig.server.changes.delete(Key::merge(0, 0)).unwrap();
        }
        rig.server.commit().unwrap_err();
        let late = rig.dev.let_go();
        assert!(!late.is_empty(), "it writes nothing");
        for (offset, _) in &late {
            assert!(may_write.contains(&(offset / 65_536)), "a block that no super block has named");
        }
        own_voter_slot(&rig.dev, &rig.geometry, voter, leader_rid(voter), rig.server.term());
        Stopped { may_write, late }
    }
}

/// What a leader that goes on writes, gives to mounts, and keeps for itself.
fn live_on(rig: &mut Rig, rid: u64) -> BTreeSet<u64> {
    rig.server.commit().unwrap();
    rig.settle();
    let mut mount = SimMount::start(rig, rid);
    mount.put(Key::inode(rid), b"synced");
    mount.commit(rig, true);
    // All metadata that can be had.
    while mount.get_space(rig, SpaceKind::Meta, u64::MAX) > 0 {
        mount.commit(rig, true);
        mount.exchange(rig);
    }
    let mut touched = rig.dev.written_blocks();
    let got = mount.got.iter().filter(|e| e.kind == SpaceKind::Meta).map(|e| e.extent);
    touched.extend(blocks(got));
    touched.extend(blocks(rig.server.work.iter()));
    mount.leave(rig);
    rig.settle();
    touched.extend(rig.dev.written_blocks());
    touched
}

fn free_meta(dev: &TestDevice, when: &str) -> u64 {
    let audit = assert_sound(dev, when);
    audit.free_meta_blocks + audit.empty_zones * 16
}

/// The bug: the third took the very blocks of the free space that the second was writing its first commit to.
#[test]
fn a_chain_of_leaders_that_may_live_writes_no_block_twice() {
    let dev = make_volume_for(2);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    first.settle();
    let free = free_meta(&dev, "at first");
    let first = Stopped::in_a_commit(first, 0);
    let second = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).unwrap();
    let audit = assert_sound(&dev, "the second has named its blocks");
    let named: u64 = second.server.work.usable.blocks();
    assert_eq!(audit.quarantined_blocks, named);
    let second = Stopped::in_a_commit(second, 1);
    assert!(first.may_write.is_disjoint(&second.may_write));

    dev.written_blocks();
    let mut third = Rig::lead(dev.clone(), 2, leader_rid(2), &NOBODY).unwrap();
    assert_sound(&dev, "the third has named its blocks");
    let touched = live_on(&mut third, 7);
    for (which, stopped) in [("first", &first), ("second", &second)] {
        assert!(touched.is_disjoint(&stopped.may_write), "the third writes what the {which} may write");
    }
    let quarantined = (first.may_write.len() + second.may_write.len()) as u64;
    assert_eq!(assert_sound(&dev, "the third has committed").quarantined_blocks, quarantined);
    dev.land(&second.late);
    dev.land(&first.late);
    assert_sound(&dev, "all has landed");
    assert_eq!(items(&dev)[&Key::inode(7)].1, b"synced");

    third.server.recheck_deaths(&DeadMounts(&[leader_rid(1)]));
    third.server.commit().unwrap();
    let audit = assert_sound(&dev, "the second is dead");
    assert_eq!(audit.quarantined_blocks, first.may_write.len() as u64);
    third.server.recheck_deaths(&DeadMounts(&[leader_rid(0)]));
    third.settle();
    let audit = assert_sound(&dev, "both are dead");
    assert_eq!(audit.quarantined_blocks, 0);
    // But for a node of the fs tree with what was synced.
    let now = free_meta(&dev, "in the end");
    assert!(now + 2 >= free, "{now} of {free} blocks are free again");
}

/// What the second took is free at once, as nothing says otherwise, when only the second is known to be gone; and the working set
/// is used again when only the first is.
#[test]
fn each_leader_is_looked_at_by_itself() {
    for dead in [0, 1] {
        let dev = make_volume_for(2);
        let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
        first.settle();
        let first = Stopped::in_a_commit(first, 0);
        let second = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).unwrap();
        let second = Stopped::in_a_commit(second, 1);
        dev.written_blocks();
        let mut third = Rig::lead(dev.clone(), 2, leader_rid(2), &DeadMounts(&[leader_rid(dead)])).unwrap();
        let touched = live_on(&mut third, 7);
        let (gone, lives) = if dead == 0 { (first, second) } else { (second, first) };
        assert!(touched.is_disjoint(&lives.may_write), "{dead} is dead, the other may live");
        assert!(!touched.is_disjoint(&gone.may_write), "{dead} is dead");
        dev.land(&lives.late);
        let audit = assert_sound(&dev, "all has landed");
        assert_eq!(audit.quarantined_blocks, lives.may_write.len() as u64);
    }
}

/// Who takes over a working set is who may write it from then on.
#[test]
fn a_working_set_is_of_the_leader_that_has_taken_it_over() {
    let dev = make_volume_for(2);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    first.settle();
    let first = Stopped::in_a_commit(first, 0);
    let dead = DeadMounts(&[leader_rid(0)]);
    let second = Stopped::in_a_commit(Rig::lead(dev.clone(), 1, leader_rid(1), &dead).unwrap(), 1);
    assert_eq!(first.may_write, second.may_write);
    dev.written_blocks();
    let mut third = Rig::lead(dev.clone(), 2, leader_rid(2), &dead).unwrap();
    let touched = live_on(&mut third, 7);
    assert!(touched.is_disjoint(&second.may_write));
    dev.land(&second.late);
    let audit = assert_sound(&dev, "all has landed");
    assert_eq!(audit.quarantined_blocks, second.may_write.len() as u64);
}

/// A slot that was left, or has another owner, says that its former owner writes no more.
#[test]
fn a_voter_slot_with_another_owner_confirms_the_death_of_the_one_before() {
    for owner in [None, Some(50)] {
        let dev = make_volume_for(2);
        let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
        first.settle();
        let first = Stopped::in_a_commit(first, 0);
        let second = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).unwrap();
        let geometry = second.geometry;
        Stopped::in_a_commit(second, 1);
        match owner {
            Some(rid) => own_voter_slot(&dev, &geometry, 1, rid, 0),
            None => leave_voter_slot(&dev, &geometry, 1),
        }
        let mut third = Rig::lead(dev.clone(), 2, leader_rid(2), &NOBODY).unwrap();
        third.settle();
        let audit = assert_sound(&dev, "only the first may write");
        assert_eq!(audit.quarantined_blocks, first.may_write.len() as u64);
    }
}

/// The one who owns the slot of a former leader needs to ask nobody.
#[test]
fn the_next_owner_of_a_leaders_slot_takes_over_what_it_had() {
    let dev = make_volume_for(2);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    first.settle();
    let first = Stopped::in_a_commit(first, 0);
    let second = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).unwrap();
    let taken = second.server.work.usable.blocks();
    Stopped::in_a_commit(second, 1);
    // In the slot of the first: that one's working set, and not the blocks of the second.
    let mut third = Rig::lead(dev.clone(), 0, 50, &NOBODY).unwrap();
    assert_eq!(third.server.work.usable.blocks(), first.may_write.len() as u64);
    third.settle();
    assert_eq!(assert_sound(&dev, "of the second").quarantined_blocks, taken);
    drop(third);
    own_voter_slot(&dev, &geometry_of(&dev), 0, 50, 0);
    // In the slot of the second: the working set of the third is set apart, and what the second had has its item.
    let fourth = Rig::lead(dev.clone(), 1, 51, &NOBODY).unwrap();
    assert!(fourth.server.quarantined.iter().map(|q| q.extent.len).sum::<u64>() > taken);
}

fn geometry_of(dev: &TestDevice) -> scoutfs_format::geometry::Geometry {
    read_super_with_take_overs(dev).unwrap().0.geometry
}

/// The super block, and what it names of leaders that took over.
fn named(dev: &TestDevice) -> (SuperBlock, Vec<TakeOver>) {
    let (sb, take_overs) = read_super_with_take_overs(dev).unwrap();
    (sb.sb, take_overs.to_vec())
}

/// As many as there are voter slots, each stopped in its first commit: the super block has room for all of them.
#[test]
fn every_voter_may_lead_and_fail_before_its_first_commit() {
    let dev = make_volume_for(8);
    let geometry = geometry_of(&dev);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    first.settle();
    let mut stopped = vec![Stopped::in_a_commit(first, 0)];
    for voter in 1..geometry.nr_voters() {
        let rig = Rig::lead(dev.clone(), voter, leader_rid(voter), &NOBODY).unwrap();
        assert_sound(&dev, &format!("voter {voter} leads"));
        let next = Stopped::in_a_commit(rig, voter);
        assert!(stopped.iter().all(|before| before.may_write.is_disjoint(&next.may_write)), "voter {voter}");
        stopped.push(next);
    }
    let named: Vec<u32> = named(&dev).1.iter().map(|t| t.voter.get()).collect();
    assert!(named.len() <= MAX_TAKE_OVERS && named.iter().collect::<BTreeSet<_>>().len() == 14, "{named:?}");
    // The next one has a slot of one of them, which is gone then.
    dev.written_blocks();
    let mut last = Rig::lead(dev.clone(), 3, 50, &NOBODY).unwrap();
    last.server.commit().unwrap();
    let touched = dev.written_blocks();
    for (voter, before) in stopped.iter().enumerate().filter(|(voter, _)| *voter != 3) {
        assert!(touched.is_disjoint(&before.may_write), "voter {voter}");
        dev.land(&before.late);
    }
    assert_sound(&dev, "all has landed");
    last.server.recheck_deaths(&Dead(true));
    last.settle();
    assert_eq!(assert_sound(&dev, "all are dead").quarantined_blocks, 0);
}

/// No chain of leaders leaves such a super block.
#[test]
fn without_room_for_its_blocks_a_leader_does_not_begin_and_writes_nothing() {
    let dev = make_volume_for(2);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    first.settle();
    let geometry = first.geometry;
    let free: Vec<u64> = blocks(first.server.free.of(SpaceKind::Meta).iter()).collect();
    let zone = first.server.free.zones().next().unwrap();
    let empty =
        blocks([crate::server::free_space::zone_extent(&geometry, SpaceKind::Meta, zone)].into_iter());
    Stopped::in_a_commit(first, 0);
    own_voter_slot(&dev, &geometry, 1, leader_rid(1), 0);
    let (mut sb, _) = named(&dev);
    let all: Vec<TakeOver> = free
        .into_iter()
        .chain(empty)
        .map(|block| TakeOver {
            start: block.into(),
            term: 1.into(),
            rid: leader_rid(1).into(),
            len: 1.into(),
            voter: 1.into(),
        })
        .collect();
    write_super_after(&dev, 0, 1, &mut sb, &all).unwrap();
    assert_eq!(named(&dev).1.len(), MAX_TAKE_OVERS);
    assert_sound(&dev, "full");
    let before = dev.writes();
    let refused = Rig::lead(dev.clone(), 2, leader_rid(2), &NOBODY).err();
    let Some(ServerError::FormerLeaders { lacks: "room in the super block" }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(dev.writes(), before);
    let mut third = Rig::lead(dev.clone(), 2, leader_rid(2), &DeadMounts(&[leader_rid(1)])).unwrap();
    third.settle();
    assert_sound(&dev, "one is dead");
}

/// However many extents each needs, because the free space is in fragments.
#[test]
fn there_is_an_entry_for_every_voter() {
    for nr_voters in (1..=MAX_VOTERS).step_by(2) {
        let mut former = Former::default();
        for voter in 0..nr_voters {
            let share = former.share(nr_voters);
            assert!(share > 0, "voter {voter} of {nr_voters}");
            for _ in 0..share {
                former.may_write(TakeOver { voter: voter.into(), ..TakeOver::default() });
            }
        }
        assert!(former.used() <= MAX_TAKE_OVERS && former.used() + 1 >= MAX_TAKE_OVERS, "{nr_voters}");
    }
}

/// Nothing that all may use is left: nobody may write before somebody is known to be dead.
#[test]
fn without_a_free_block_a_leader_does_not_begin_and_writes_nothing() {
    let dev = make_volume_for(2);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    let mut hog = SimMount::start(&mut first, 7);
    while hog.get_space(&mut first, SpaceKind::Meta, u64::MAX) > 0 {
        hog.commit(&mut first, true);
    }
    first.settle();
    assert_eq!(first.server.free.available(SpaceKind::Meta), 0);
    own_voter_slot(&dev, &first.geometry, 0, leader_rid(0), 0);
    let before = dev.writes();
    let refused = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).err();
    let Some(ServerError::FormerLeaders { lacks: "free metadata block" }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(dev.writes(), before);
    let mut second = Rig::lead(dev.clone(), 1, leader_rid(1), &DeadMounts(&[leader_rid(0)])).unwrap();
    second.settle();
    assert_sound(&dev, "the first is dead");
}

/// What is handled in the first round waits for the commit that names what was taken over.
#[test]
fn a_take_over_is_committed_before_anything_is_handled() {
    type Step = fn(&mut Rig);
    let steps: [Step; 4] = [
        |rig| assert!(SimMount::join(rig, 7).is_ok()),
        |rig| rig.server.tick(rig.now),
        |rig| rig.send(7, 1, MSG_RENEW, MSG_RESPONSE, &[]),
        |rig| rig.server.recheck_deaths(&NOBODY),
    ];
    for step in steps {
        let dev = make_volume_for(2);
        let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
        first.settle();
        Stopped::in_a_commit(first, 0);
        let mut second = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).unwrap();
        let (sb, take_overs) = named(&dev);
        assert_eq!((sb.work_leader.rid.get(), take_overs.is_empty()), (leader_rid(0), false));
        step(&mut second);
        let (sb, take_overs) = named(&dev);
        assert_eq!((sb.work_leader.rid.get(), take_overs.is_empty()), (leader_rid(1), true));
        assert_eq!(sb.term, sb.work_leader.term);
    }
}

#[test]
fn a_take_over_survives_a_crash_at_every_write() {
    let dev = make_volume_for(2);
    let mut first = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    first.settle();
    Stopped::in_a_commit(first, 0);
    dev.record();
    let second = Rig::lead(dev.clone(), 1, leader_rid(1), &NOBODY).unwrap();
    Stopped::in_a_commit(second, 1);
    let mut third = Rig::lead(dev.clone(), 2, leader_rid(2), &NOBODY).unwrap();
    third.settle();
    crash_everywhere(&dev, "take-overs", |rig| {
        assert!(rig.server.quarantined.is_empty(), "all are dead");
    });
}

/// A super block that names what no leader can have named.
#[test]
fn impossible_take_overs_are_refused() {
    let dev = make_volume_for(2);
    let mut rig = Rig::lead(dev.clone(), 0, leader_rid(0), &NOBODY).unwrap();
    rig.settle();
    let used = rig.server.sb.server_root.block.blkno.get();
    let (end, free) =
        (rig.geometry.end_meta_block(), rig.server.free.of(SpaceKind::Meta).at_or_after(0).unwrap().start);
    let (sb, _) = named(&dev);
    own_voter_slot(&dev, &rig.geometry, 1, leader_rid(1), 0);
    for (start, len, voter) in
        [(used, 1, 1), (end, 1, 1), (0, 1, 1), (u64::MAX, 1, 1), (free, u32::MAX, 1), (free, 1, 3)]
    {
        let mut sb = sb;
        let leader =
            LeaderId { term: 1.into(), rid: leader_rid(1).into(), voter: voter.into(), pad: 0.into() };
        let LeaderId { term, rid, voter, .. } = leader;
        let entry = TakeOver { start: start.into(), term, rid, len: len.into(), voter };
        sb.seq = (sb.seq.get() + 10).into();
        write_super_after(&dev, 0, 1, &mut sb, &[TakeOver::default(), entry]).unwrap();
        assert!(!audit_device(&dev).issues.is_empty() || voter.get() == 3);
        Rig::lead(dev.clone(), 2, leader_rid(2), &NOBODY).err().expect("an error");
    }
    let mut sb = sb;
    sb.work_leader = LeaderId { rid: 5.into(), voter: 3.into(), ..LeaderId::default() };
    sb.seq = (sb.seq.get() + 100).into();
    write_super(&dev, 0, &mut sb).unwrap();
    assert!(matches!(
        Rig::lead(dev, 2, leader_rid(2), &NOBODY).err(),
        Some(ServerError::Voter { voter: 3, nr_voters: 3 })
    ));
}
