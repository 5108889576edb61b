// SPDX-License-Identifier: GPL-2.0-only
//! Mounts that are reclaimed by lease alone, and data blocks that they may still write.

use std::vec::Vec;

use scoutfs_btree::space::SpaceKind;
use scoutfs_format::msg::{
    ConfirmDeath, DEATH_CONFIRMED, DEATH_OF_LIVE, DEATH_OF_UNKNOWN, DeathConfirmed, Fences, LockMessage,
    MSG_CONFIRM_DEATH, MSG_LOCK, MSG_RENEW, MSG_STATFS, RenewReply, StatfsReply,
};
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_FREE, MEMBER_LIVE};
use scoutfs_lock::{LockName, Message, Mode};
use zerocopy::{FromBytes, IntoBytes};

use super::mount::*;
use super::rig::*;
use crate::server::{LEASE, LEASE_MARGIN};

/// As a renewal of the lease tells.
fn fences(rig: &mut Rig, rid: u64) -> (u32, u32) {
    let reply: RenewReply = rig.call(rid, MSG_RENEW, &[0u8; 0]).unwrap();
    (reply.fences.newest.get(), reply.fences.unconfirmed.get())
}

/// All but `rids` fall silent.
fn fence_others(rig: &mut Rig, rids: &[u64]) {
    for _ in 0..4 {
        rig.advance((LEASE + LEASE_MARGIN) / 4);
        for rid in rids {
            fences(rig, *rid);
        }
    }
    rig.settle();
}

/// A mount that has some data space.
fn with_data(rig: &mut Rig, rid: u64) -> SimMount {
    let mut mount = SimMount::start(rig, rid);
    assert!(mount.get_space(rig, SpaceKind::Data, 50) >= 50);
    mount.commit(rig, false);
    mount
}

#[test]
fn who_gets_a_lock_is_told_of_the_fence_of_who_had_it() {
    let mut rig = Rig::smallest();
    let (sleeper, _other) = (with_data(&mut rig, 7), with_data(&mut rig, 8));
    assert_eq!(fences(&mut rig, 8), (0, 0));
    let request = |generation| {
        let name = LockName::group_of(1024);
        let (version, commit_nr) = (0, 0);
        Message { name, version, commit_nr, generation, old_mode: Mode::Null, mode: Mode::Write }.to_raw()
    };
    let id = rig.new_id();
    assert_eq!(rig.request(7, id, MSG_LOCK, request(0).as_bytes()).0, 0);
    let id = rig.new_id();
    rig.send(8, id, MSG_LOCK, 0, request(0).as_bytes());
    assert!(rig.poll().is_empty(), "it is held");
    let told = rig.now;
    rig.advance((LEASE + LEASE_MARGIN) / 2);
    assert_eq!(fences(&mut rig, 8), (0, 0));
    rig.advance((LEASE + LEASE_MARGIN) / 2);
    assert!(rig.now > told);
    rig.server.tick(rig.now);
    rig.server.commit().unwrap();
    let granted = rig.poll().into_iter().find(|(_, answered, ..)| *answered == id).expect("a grant");
    let (_, rest) = LockMessage::read_from_prefix(&granted.3).unwrap();
    let (told, _) = Fences::read_from_prefix(rest).unwrap();
    assert_eq!((told.newest.get(), told.unconfirmed.get()), (1, 1));
    assert!(rig.server.members.get(sleeper.slot).unwrap().is(MEMBER_FENCED));
    assert_eq!(fences(&mut rig, 8), (1, 1));
    // A new server knows it as well, also when it is confirmed: numbers are never used again.
    let mut rig = rig.reopen(&Dead(false));
    rig.server.recheck_deaths(&DeadProcess(process(7)));
    rig.settle();
    assert_eq!(rig.server.fences().newest.get(), 1);
    assert_eq!(rig.server.fences().unconfirmed.get(), 0);
    let mut rig = rig.reopen(&Dead(false));
    with_data(&mut rig, 9);
    fence_others(&mut rig, &[]);
    assert_eq!(rig.server.fences().newest.get(), 3, "those that were members, too");
}

/// What a mount frees may be blocks that a fenced one still writes; they come back with the rest of its space.
#[test]
fn data_space_that_comes_back_while_a_fence_is_not_confirmed_is_in_quarantine() {
    let mut rig = Rig::smallest();
    let (first, leaves) = (with_data(&mut rig, 7), with_data(&mut rig, 8));
    let second = with_data(&mut rig, 9);
    let free = assert_sound(&rig.dev, "before").free_data_blocks;
    fence_others(&mut rig, &[8, 9]);
    assert!(rig.server.members.get(first.slot).unwrap().is(MEMBER_FENCED));
    leaves.leave(&mut rig);
    rig.settle();
    let quarantined = assert_sound(&rig.dev, "one left").quarantined_blocks;
    assert!(quarantined >= 50, "{quarantined}");
    // Another fence that comes later holds back what comes back then, and no more.
    fence_others(&mut rig, &[]);
    assert!(rig.server.members.get(second.slot).unwrap().is(MEMBER_FENCED));
    // Who asks is told of them, and of what fenced mounts have.
    let rid = 10;
    with_data(&mut rig, rid);
    let told: StatfsReply = rig.call(rid, MSG_STATFS, &[0u8; 0]).unwrap();
    assert!(told.quarantined_data.get() >= quarantined + 50, "{}", told.quarantined_data);
    let of_members = |rig: &Rig| {
        let fenced = rig.server.members.iter().filter(|m| m.is(MEMBER_FENCED));
        fenced.map(|m| (m.slot, m.free)).collect::<Vec<_>>()
    };
    let (quarantined_now, known) = (rig.server.quarantined_blocks(SpaceKind::Data), of_members(&rig));
    let mut rig = rig.reopen(&Dead(false));
    assert!(rig.server.quarantined_blocks(SpaceKind::Data) >= quarantined_now);
    assert!(known.iter().all(|member| of_members(&rig).contains(member)), "a new server knows as much");
    rig.settle();
    assert_eq!(assert_sound(&rig.dev, "a new server").quarantined_blocks, quarantined);
    rig.server.recheck_deaths(&DeadProcess(process(7)));
    rig.settle();
    assert!(rig.server.members.get(first.slot).unwrap().is(MEMBER_FREE));
    let audit = assert_sound(&rig.dev, "the first is dead");
    assert!((50..quarantined + 50).contains(&audit.quarantined_blocks), "{}", audit.quarantined_blocks);
    let of_first = audit.quarantined_blocks;
    assert!(rig.server.fenced_data.iter().map(|extent| extent.len).sum::<u64>() == of_first);
    rig.server.recheck_deaths(&DeadProcess(process(9)));
    rig.settle();
    let audit = assert_sound(&rig.dev, "all are dead");
    assert_eq!(audit.quarantined_blocks, 0);
    assert!(audit.empty_zones * 256 + audit.free_data_blocks > free);
}

/// A machine that never comes back: only the administrator knows that it is dead. Nobody who lives is taken for dead by a mistake.
#[test]
fn the_administrator_confirms_the_death_of_a_fenced_mount_and_of_no_other() {
    let mut rig = Rig::smallest();
    let (dead, asks, lives) = (with_data(&mut rig, 7), with_data(&mut rig, 8), with_data(&mut rig, 9));
    let say = |rig: &mut Rig, rid: u64| {
        let said = ConfirmDeath { rid: rid.into() };
        let reply: DeathConfirmed = rig.call(8, MSG_CONFIRM_DEATH, &said).unwrap();
        rig.settle();
        reply.result.get()
    };
    assert_eq!(say(&mut rig, 7), DEATH_OF_LIVE);
    assert_eq!(say(&mut rig, 70), DEATH_OF_UNKNOWN);
    // That of a slot that nobody has.
    assert_eq!(say(&mut rig, 0), DEATH_OF_UNKNOWN);
    fence_others(&mut rig, &[8, 9]);
    assert!(rig.server.members.get(dead.slot).unwrap().is(MEMBER_FENCED));
    assert!(rig.server.quarantined_blocks(SpaceKind::Data) >= 50);
    assert_eq!(say(&mut rig, 7), DEATH_CONFIRMED);
    assert!(rig.server.members.get(dead.slot).unwrap().is(MEMBER_FREE), "all is taken back");
    assert_eq!(rig.server.quarantined_blocks(SpaceKind::Data), 0);
    assert_eq!(fences(&mut rig, 8), (1, 0));
    assert_eq!(say(&mut rig, 7), DEATH_OF_UNKNOWN);
    for mount in [&asks, &lives] {
        assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_LIVE));
    }
    assert_sound(&rig.dev, "one is dead");
}
