// SPDX-License-Identifier: GPL-2.0-only
//! Who is dead for certain, and whose lease is known to have ended.

use std::vec::Vec;

use scoutfs_format::Key;
use scoutfs_format::le::U32;
use scoutfs_format::msg::{Death, MSG_DEATH, MSG_RENEW, MSG_RESPONSE};
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_FREE, MEMBER_LIVE};
use scoutfs_format::voter::ProcessId;
use zerocopy::{FromBytes, IntoBytes};

use super::mount::*;
use super::rig::*;
use crate::server::{LEASE, LEASE_MARGIN};

fn is(rig: &Rig, mount: &SimMount, state: u32) -> bool {
    rig.server.members.get(mount.slot).unwrap().is(state)
}

/// What mounts were asked: whom, and about which process.
fn asked(rig: &mut Rig) -> Vec<(u64, ProcessId)> {
    rig.poll();
    let questions = rig.inbox.extract_if(.., |(_, kind, _)| *kind == MSG_DEATH);
    questions.map(|(to, _, payload)| (to, Death::read_from_bytes(&payload).unwrap().process)).collect()
}

fn tell(rig: &mut Rig, from: u64, process: ProcessId, dead: u32) {
    let death = Death { process, dead: U32::new(dead), pad: U32::ZERO };
    rig.send(from, 1, MSG_DEATH, MSG_RESPONSE, death.as_bytes());
    rig.settle();
}

#[test]
fn a_member_that_is_seen_dead_is_taken_back_before_its_lease_has_ended() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    let other = SimMount::start(&mut rig, 8);
    mount.put(Key::inode(5), b"synced");
    mount.commit(&mut rig, false);
    rig.server.recheck_deaths(&DeadProcess(process(7)));
    rig.settle();
    assert!(is(&rig, &mount, MEMBER_FREE) && is(&rig, &other, MEMBER_LIVE));
    assert_eq!(rig.items()[&Key::inode(5)].1, b"synced");
    assert_sound(&rig.dev, "taken back");
}

#[test]
fn who_is_not_heard_is_asked_about_on_its_machine_and_taken_back_when_that_says_it_is_dead() {
    let mut rig = Rig::smallest();
    let mut mounts: Vec<SimMount> = (7..10).map(|rid| SimMount::start(&mut rig, rid)).collect();
    let silent = mounts.remove(0);
    rig.server.ask_about_deaths(rig.now, |_| true);
    assert!(asked(&mut rig).is_empty(), "all are heard");
    // Its stream has ended.
    rig.server.ask_about_deaths(rig.now, |rid| rid != 7);
    assert_eq!(asked(&mut rig), [(8, process(7))]);
    tell(&mut rig, 8, process(7), 0);
    assert!(is(&rig, &silent, MEMBER_LIVE), "nobody knows");
    // It has not renewed its lease for long.
    rig.advance(LEASE / 2);
    for rid in [8, 9] {
        let id = rig.new_id();
        rig.request(rid, id, MSG_RENEW, &[]);
    }
    rig.server.ask_about_deaths(rig.now, |rid| rid != 8);
    assert_eq!(asked(&mut rig), [(9, process(7)), (9, process(8))]);
    tell(&mut rig, 9, process(7), 1);
    assert!(is(&rig, &silent, MEMBER_FREE));
    assert!(mounts.iter().all(|mount| is(&rig, mount, MEMBER_LIVE)));
    assert_sound(&rig.dev, "taken back");
}

#[test]
fn a_machine_is_believed_of_its_own_processes_alone() {
    let mut rig = Rig::smallest();
    let silent = SimMount::start(&mut rig, 7);
    let elsewhere = SimMount::join_as(&mut rig, 8, ProcessId { machine_id: [8; 16], ..process(8) }).unwrap();
    rig.server.ask_about_deaths(rig.now, |rid| rid != 7);
    assert!(asked(&mut rig).is_empty());
    tell(&mut rig, 8, process(7), 1);
    assert!(is(&rig, &silent, MEMBER_LIVE), "of another machine");
    tell(&mut rig, 8, ProcessId { machine_id: [8; 16], ..process(8) }, 1);
    assert!(is(&rig, &elsewhere, MEMBER_LIVE), "who speaks is alive");
    let own = SimMount::start(&mut rig, 9);
    rig.send(9, 1, MSG_DEATH, MSG_RESPONSE, &[1; 20]);
    assert!(is(&rig, &silent, MEMBER_LIVE) && is(&rig, &own, MEMBER_LIVE) && rig.server.failed().is_none());
    tell(&mut rig, 9, process(7), 1);
    assert!(is(&rig, &silent, MEMBER_FREE));
}

/// A fenced mount's machine comes back, and another mount there knows.
#[test]
fn those_who_are_fenced_are_asked_about_too() {
    let mut rig = Rig::smallest();
    let fenced = SimMount::start(&mut rig, 7);
    rig.advance(LEASE + LEASE_MARGIN);
    rig.settle();
    assert!(is(&rig, &fenced, MEMBER_FENCED));
    let witness = SimMount::start(&mut rig, 8);
    rig.server.ask_about_deaths(rig.now, |_| true);
    assert_eq!(asked(&mut rig), [(8, process(7))]);
    tell(&mut rig, 8, process(7), 1);
    assert!(is(&rig, &fenced, MEMBER_FREE) && is(&rig, &witness, MEMBER_LIVE));
}

/// The leader's own mount has no lease when another leads; others have theirs.
#[test]
fn the_mount_of_the_leader_before_is_fenced_at_once() {
    for rid in [7, 70] {
        let dev = make_volume_for(2);
        let mut rig = Rig::lead(dev.clone(), 0, rid, &Dead(false)).unwrap();
        let leads = SimMount::start(&mut rig, 7);
        let other = SimMount::start(&mut rig, 8);
        rig.settle();
        // Whoever owns the slot by now.
        own_voter_slot(&dev, &rig.geometry, 0, 8, 0);
        let rig = rig.reopen_at(1, &Dead(false));
        assert_eq!(is(&rig, &leads, MEMBER_FENCED), rid == 7, "it led, or did not");
        assert!(is(&rig, &other, MEMBER_LIVE));
    }
}

/// Invariant 59: two who say that a mount is dead, or one who says it long after, change nothing that is another's by then.
#[test]
fn a_death_that_is_told_again_does_no_harm() {
    let mut rig = Rig::smallest();
    let dead = SimMount::start(&mut rig, 7);
    let witness = SimMount::start(&mut rig, 8);
    rig.advance(LEASE / 2);
    for rid in [8, 8] {
        rig.send(rid, 1, MSG_RENEW, 0, &[]);
    }
    // In one commit.
    for _ in 0..2 {
        rig.server.recheck_deaths(&DeadProcess(process(7)));
        tell(&mut rig, 8, process(7), 1);
    }
    assert!(is(&rig, &dead, MEMBER_FREE));
    let mut next = SimMount::start(&mut rig, 9);
    assert_eq!(next.slot, dead.slot, "the slot has another owner");
    next.put(Key::inode(5), b"synced");
    next.commit(&mut rig, false);
    tell(&mut rig, 8, process(7), 1);
    rig.server.recheck_deaths(&DeadProcess(process(7)));
    rig.settle();
    assert!(is(&rig, &next, MEMBER_LIVE) && is(&rig, &witness, MEMBER_LIVE));
    next.commit(&mut rig, false);
    assert_sound(&rig.dev, "told again");
}
