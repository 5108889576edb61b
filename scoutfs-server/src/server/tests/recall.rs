// SPDX-License-Identifier: GPL-2.0-only
//! Taking back what mounts do not use.

use std::vec::Vec;

use scoutfs_btree::space::SpaceKind;
use scoutfs_format::Key;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::*;
use zerocopy::{FromBytes, IntoBytes};

use super::mount::*;
use super::rig::*;
use crate::server::{LEASE, LEASE_MARGIN};

const DATA: SpaceKind = SpaceKind::Data;

/// A mount that has all data blocks, one that has none, and a third.
fn full_of_data() -> (Rig, SimMount, SimMount, SimMount) {
    let mut rig = Rig::smallest();
    let mut hog = SimMount::start(&mut rig, 1);
    let other = SimMount::start(&mut rig, 2);
    let third = SimMount::start(&mut rig, 3);
    while hog.get_space(&mut rig, DATA, 100_000) > 0 {
        hog.commit(&mut rig, true);
    }
    hog.exchange(&mut rig);
    (rig, hog, other, third)
}

/// Asks for ten blocks; gives those that came.
fn ask(rig: &mut Rig, mount: &mut SimMount, need: u32) -> Result<u64, u16> {
    let id = rig.new_id();
    match mount.ask_space_for(rig, id, need, DATA, 10) {
        (STATUS_OK, bytes) => Ok(mount.take(&bytes)),
        (status, _) => Err(status),
    }
}

/// All answer that they have nothing.
fn nobody_has_any(rig: &mut Rig, mounts: &[&SimMount]) {
    for mount in mounts {
        let recall = mount.recall(rig);
        mount.answer_recall(rig, &recall, false);
    }
}

#[test]
fn no_space_is_told_when_all_have_said_twice_that_they_have_none() {
    let (mut rig, hog, mut other, third) = full_of_data();
    // Nobody who lacks nothing takes from others.
    assert_eq!(ask(&mut rig, &mut other, SPACE_AHEAD), Ok(0));
    assert!(rig.poll().is_empty() && hog.recalls(&mut rig).is_empty());
    for all in [0, 1] {
        let need = if all == 0 { SPACE_NEEDED } else { SPACE_STILL_NEEDED };
        assert_eq!(ask(&mut rig, &mut other, need), Err(STATUS_AGAIN));
        let recall = hog.recall(&mut rig);
        assert_eq!((recall.all.get(), recall.blocks.get(), recall.slot.get()), (all, 10, other.slot));
        hog.answer_recall(&mut rig, &recall, false);
        // The others have not answered, and none is asked twice.
        assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
        assert!(hog.recalls(&mut rig).is_empty());
        let (mine, thirds) = (other.recall(&mut rig), third.recall(&mut rig));
        other.answer_recall(&mut rig, &mine, false);
        third.answer_recall(&mut rig, &thirds, false);
    }
    for _ in 0..3 {
        assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(0));
        assert!(hog.recalls(&mut rig).is_empty());
    }
    // What another operation wants to know nobody has been asked yet.
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    assert_eq!(hog.recall(&mut rig).all.get(), 0);
    assert_sound(&rig.dev, "after all");
}

#[test]
fn what_is_given_goes_to_who_waits_and_not_back() {
    let (mut rig, mut hog, mut other, third) = full_of_data();
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    let recall = hog.recall(&mut rig);
    hog.give_away(&mut rig, DATA, 7);
    hog.answer_recall(&mut rig, &recall, false);
    assert_eq!(ask(&mut rig, &mut hog, SPACE_AHEAD), Err(STATUS_AGAIN));
    // Even before all have answered.
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(7));
    other.commit(&mut rig, true);
    assert_eq!(ask(&mut rig, &mut hog, SPACE_AHEAD), Ok(0));
    assert_sound(&rig.dev, "given");
    // A round in which something came says nothing of whether there is more.
    nobody_has_any(&mut rig, &[&other, &third]);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    assert_eq!(hog.recall(&mut rig).all.get(), 0);
}

/// Whoever asked first may get what was given; the other is not told that there is nothing more.
#[test]
fn a_round_that_gave_something_to_somebody_else_proves_nothing() {
    let (mut rig, mut hog, mut other, mut third) = full_of_data();
    for all in [0, 1] {
        let need = if all == 0 { SPACE_NEEDED } else { SPACE_STILL_NEEDED };
        assert_eq!(ask(&mut rig, &mut other, need), Err(STATUS_AGAIN));
        if all == 1 {
            hog.give_away(&mut rig, DATA, 10);
        }
        nobody_has_any(&mut rig, &[&hog, &other, &third]);
    }
    assert_eq!(ask(&mut rig, &mut third, SPACE_NEEDED), Ok(10));
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    assert_eq!(hog.recall(&mut rig).all.get(), 0);
}

#[test]
fn who_asks_while_a_round_is_out_waits_for_the_next_one() {
    let (mut rig, hog, mut other, mut third) = full_of_data();
    for need in [SPACE_NEEDED, SPACE_STILL_NEEDED] {
        assert_eq!(ask(&mut rig, &mut other, need), Err(STATUS_AGAIN));
        if need == SPACE_STILL_NEEDED {
            // The hog may have freed something, and somebody may know of it, since it answered.
            let recall = hog.recall(&mut rig);
            hog.answer_recall(&mut rig, &recall, false);
            assert_eq!(ask(&mut rig, &mut third, SPACE_NEEDED), Err(STATUS_AGAIN));
            nobody_has_any(&mut rig, &[&other, &third]);
        } else {
            nobody_has_any(&mut rig, &[&hog, &other, &third]);
        }
    }
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(0));
    assert_eq!(ask(&mut rig, &mut third, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    assert_eq!(hog.recall(&mut rig).all.get(), 0);
}

#[test]
fn answers_of_strangers_of_other_rounds_and_told_again_say_nothing() {
    let (mut rig, hog, mut other, third) = full_of_data();
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    let first = hog.recall(&mut rig);
    nobody_has_any(&mut rig, &[&other, &third]);
    let wrong = |of: SpaceRecall| {
        let kind = U32::new(SpaceKind::Meta.to_raw().into());
        [SpaceRecall { round: U64::new(of.round.get() + 1), ..of }, SpaceRecall { kind, ..of }]
    };
    for recall in wrong(first) {
        hog.answer_recall(&mut rig, &recall, false);
    }
    third.answer_recall(&mut rig, &first, false);
    let kind = U32::new(DATA.to_raw().into());
    let answer = SpaceRecalled { round: first.round, kind, kept: U32::ZERO };
    rig.send(99, 1, MSG_SPACE_RECALL, MSG_RESPONSE, answer.as_bytes());
    rig.send(hog.rid, 1, MSG_SPACE_RECALL, MSG_RESPONSE, b"nonsense");
    let impossible = SpaceRecalled { kind: U32::new(77), ..answer };
    rig.send(hog.rid, 1, MSG_SPACE_RECALL, MSG_RESPONSE, impossible.as_bytes());
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    assert!(hog.recalls(&mut rig).is_empty(), "the hog has not answered");
    hog.answer_recall(&mut rig, &first, false);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    let second = hog.recall(&mut rig);
    assert_eq!(second.all.get(), 1);
    // Of the round before, again.
    hog.answer_recall(&mut rig, &first, false);
    nobody_has_any(&mut rig, &[&other, &third]);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    hog.answer_recall(&mut rig, &second, false);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(0));
    assert!(rig.server.failed().is_none());
}

/// What a mount keeps for operations of its own may be left over, or is used: others wait for that, it does not.
#[test]
fn others_wait_for_what_a_mount_keeps_for_its_own() {
    let (mut rig, hog, mut other, mut third) = full_of_data();
    let mut need = SPACE_NEEDED;
    for kept in [true, true, false, false] {
        assert_eq!(ask(&mut rig, &mut other, need), Err(STATUS_AGAIN));
        let recall = hog.recall(&mut rig);
        hog.answer_recall(&mut rig, &recall, false);
        let recall = third.recall(&mut rig);
        third.answer_recall(&mut rig, &recall, kept);
        let recall = other.recall(&mut rig);
        other.answer_recall(&mut rig, &recall, true);
        need = SPACE_STILL_NEEDED;
    }
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(0));
    // The other keeps some.
    assert_eq!(ask(&mut rig, &mut third, SPACE_NEEDED), Err(STATUS_AGAIN));
}

/// A merge may give blocks back to the mount whose log it was.
#[test]
fn a_round_in_which_something_was_merged_proves_nothing() {
    let (mut rig, mut hog, mut other, third) = full_of_data();
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    nobody_has_any(&mut rig, &[&hog, &other, &third]);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    hog.put(Key::inode(9), b"x");
    hog.finalize(&mut rig);
    nobody_has_any(&mut rig, &[&hog, &other, &third]);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN), "something is to be merged");
    rig.settle();
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    assert_eq!(hog.recall(&mut rig).all.get(), 0);
}

#[test]
fn a_mount_that_dies_or_leaves_while_it_is_asked_is_not_waited_for() {
    let (mut rig, hog, mut other, third) = full_of_data();
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    nobody_has_any(&mut rig, &[&hog, &other]);
    third.leave(&mut rig);
    rig.settle();
    // The round is over, and zones that it had are empty.
    while ask(&mut rig, &mut other, SPACE_STILL_NEEDED).unwrap_or(0) > 0 {
        other.commit(&mut rig, true);
    }
    assert!(hog.recalls(&mut rig).len() == 1 && other.recalls(&mut rig).len() == 1);
    for _ in 0..3 {
        rig.advance((LEASE + LEASE_MARGIN) / 2);
        let id = rig.new_id();
        rig.request(other.rid, id, MSG_RENEW, &[]);
        rig.server.tick(rig.now);
    }
    assert!(!rig.server.is_member(hog.rid));
    rig.settle();
    // All is in quarantine, and nobody is left who could have any.
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Ok(0));
    rig.server.recheck_deaths(&DeadProcess(process(1)));
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    rig.settle();
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(10));
    assert_sound(&rig.dev, "taken back");
}

#[test]
fn a_new_server_and_a_new_session_ask_again() {
    let (mut rig, mut hog, mut other, third) = full_of_data();
    assert_eq!(ask(&mut rig, &mut other, SPACE_NEEDED), Err(STATUS_AGAIN));
    nobody_has_any(&mut rig, &[&hog, &other, &third]);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    nobody_has_any(&mut rig, &[&hog, &other, &third]);
    // What they said to the old server the new one does not know.
    let mut rig = rig.reopen(&Dead(false));
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    let lost = hog.recall(&mut rig);
    let join = JoinRequest { rid: U64::new(1), process: process(1), ..JoinRequest::default() };
    let reply: JoinReply = rig.call(1, MSG_JOIN, &join).unwrap();
    assert_eq!(reply.slot.get(), hog.slot);
    assert_eq!(hog.recall(&mut rig).as_bytes(), lost.as_bytes());
    nobody_has_any(&mut rig, &[&other, &third]);
    // Who has answered is not asked again.
    hog.answer_recall(&mut rig, &lost, false);
    let _: JoinReply = rig.call(1, MSG_JOIN, &join).unwrap();
    assert!(hog.recalls(&mut rig).is_empty());
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Err(STATUS_AGAIN));
    let recall = hog.recall(&mut rig);
    hog.give_away(&mut rig, DATA, 10);
    hog.answer_recall(&mut rig, &recall, false);
    assert_eq!(ask(&mut rig, &mut other, SPACE_STILL_NEEDED), Ok(10));
}

/// Takes all metadata blocks, but for those that nobody is given.
fn full_of_meta() -> (Rig, SimMount) {
    let mut rig = Rig::smallest();
    let mut hog = SimMount::start(&mut rig, 1);
    while hog.get_space(&mut rig, SpaceKind::Meta, 1000) > 0 {
        hog.commit(&mut rig, true);
    }
    hog.exchange(&mut rig);
    (rig, hog)
}

#[test]
fn who_joins_is_given_a_reserve_that_nobody_else_can_take() {
    let (mut rig, mut hog) = full_of_meta();
    assert_eq!(SimMount::join(&mut rig, 2).err(), Some(STATUS_AGAIN));
    let recall = hog.recall(&mut rig);
    let reserve = rig.server.reserve_blocks();
    assert!(recall.blocks.get() >= reserve);
    // Half is not enough.
    hog.give_away(&mut rig, SpaceKind::Meta, reserve / 2);
    hog.answer_recall(&mut rig, &recall, false);
    assert_eq!(SimMount::join(&mut rig, 2).err(), Some(STATUS_AGAIN));
    let recall = hog.recall(&mut rig);
    hog.give_away(&mut rig, SpaceKind::Meta, recall.blocks.get());
    hog.answer_recall(&mut rig, &recall, false);
    let mut second = SimMount::join(&mut rig, 2).unwrap();
    assert_sound(&rig.dev, "joined");
    while hog.get_space(&mut rig, SpaceKind::Meta, 1000) > 0 {
        hog.commit(&mut rig, true);
    }
    // A new server tells of it as well.
    let mut rig = rig.reopen(&Dead(false));
    let mut got = 0;
    while got < reserve {
        let more = second.get_space(&mut rig, SpaceKind::Meta, reserve);
        assert!(more > 0, "{got} of {reserve} blocks");
        got += more;
    }
    assert_eq!(got, reserve);
    second.commit(&mut rig, false);
    second.exchange(&mut rig);
    assert_sound(&rig.dev, "taken");
}

#[test]
fn who_changes_nothing_joins_a_full_volume() {
    let (mut rig, hog) = full_of_meta();
    let process = process(2);
    let join = JoinRequest { rid: U64::new(2), process, read_only: U32::new(1), pad: U32::ZERO };
    let _: JoinReply = rig.call(2, MSG_JOIN, &join).unwrap();
    assert!(hog.recalls(&mut rig).is_empty());
    assert_sound(&rig.dev, "joined");
}

/// A mount on which much goes on may never get to an end of it.
#[test]
fn who_joins_does_not_wait_forever() {
    let (mut rig, hog) = full_of_meta();
    let mut asked = 0;
    loop {
        match SimMount::join(&mut rig, 2) {
            Err(STATUS_AGAIN) => {}
            Err(STATUS_NO_SPACE) => break,
            joined => panic!("{:?}", joined.err()),
        }
        for recall in hog.recalls(&mut rig) {
            hog.answer_recall(&mut rig, &recall, true);
            asked += 1;
        }
        rig.advance(core::time::Duration::from_millis(100));
        let id = rig.new_id();
        rig.request(hog.rid, id, MSG_RENEW, &[]);
    }
    assert!(asked > 10, "it was asked {asked} times");
}

#[test]
fn what_others_have_is_told_to_each() {
    let (mut rig, mut hog, mut other, _third) = full_of_data();
    let free = hog.space.free_blocks(DATA);
    let of_others = |rig: &mut Rig, rid: u64, own: &[u64]| {
        let own: Vec<u8> = own.iter().flat_map(|n| n.to_le_bytes()).collect();
        let id = rig.new_id();
        let (status, bytes) = rig.request(rid, id, MSG_STATFS, &own);
        assert_eq!(status, STATUS_OK);
        let reply = StatfsReply::read_from_bytes(&bytes).unwrap();
        (reply.others_data.get(), reply.free_data.get())
    };
    // It was all given, so it is known.
    assert_eq!(of_others(&mut rig, 2, &[]), (free, 0));
    assert_eq!(of_others(&mut rig, 1, &[]), (0, 0));
    assert_eq!(hog.write_file(1, 100), 100);
    let now = Renewal { meta: U64::ZERO, data: U64::new(free - 100), revoke_progress: U64::ZERO };
    let id = rig.new_id();
    assert_eq!(rig.request(1, id, MSG_RENEW, now.as_bytes()).0, STATUS_OK);
    assert_eq!(of_others(&mut rig, 2, &[5, 6]), (free - 100, 0));
    assert_eq!(of_others(&mut rig, 3, &[]), (free - 100 + 6, 0));
    hog.give_away(&mut rig, DATA, 40);
    assert_eq!(of_others(&mut rig, 2, &[0, 0]), (free - 140, 40));
    assert_eq!(other.get_space(&mut rig, DATA, 30), 30);
    assert_eq!(of_others(&mut rig, 3, &[0, 0]), (free - 140 + 30, 10));
    hog.leave(&mut rig);
    assert_eq!(of_others(&mut rig, 3, &[0, 0]).0, 30);
}
