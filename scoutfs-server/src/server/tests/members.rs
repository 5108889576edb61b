// SPDX-License-Identifier: GPL-2.0-only
//! Joining, leaving, counters, horizons, the life of the server itself.

use core::time::Duration;
use std::collections::HashSet;
use std::vec::Vec;

use scoutfs_btree::space::SpaceKind;
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_format::geometry::MIN_VOLUME_BYTES;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::*;
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_FREE, MEMBER_GONE, MEMBER_LIVE};
use scoutfs_format::voter::SUPER_CLEAN;
use scoutfs_format::{FORMAT_HASH, Key};
use scoutfs_lock::{LockName, Message, Mode};
use zerocopy::{FromBytes, IntoBytes};

use super::mount::*;
use super::rig::*;
use crate::server::locks::REVOKE_LIMIT;
use crate::server::{LEASE, LEASE_MARGIN, LeaderLease, LeaseState};
use crate::super_block::{SuperError, read_super, write_super};

#[test]
fn a_new_volume_is_sound_and_clean_and_an_interrupted_mkfs_is_no_volume() {
    let dev = make_volume(MIN_VOLUME_BYTES);
    let audit = assert_sound(&dev, "after mkfs");
    assert!(audit.empty_zones >= 57);
    let sb = read_super(&dev).unwrap().sb;
    assert_eq!(sb.flags.get(), SUPER_CLEAN);
    // Again over an old volume: no state before the last two writes is a volume.
    dev.record();
    mkfs(&dev);
    let states = dev.states();
    let last = states.len() - 1;
    for (n, (when, state)) in states.into_iter().enumerate() {
        let found = read_super(&state);
        match n {
            // Before the old super blocks are destroyed; that write torn leaves some of them.
            0 | 1 => assert_eq!(found.unwrap().sb, sb),
            // The first copy, or both, of the new super block.
            _ if n + 2 >= last => drop(assert_sound(&TestDevice::new(state), "a new volume")),
            _ => assert!(found.is_err(), "{when}: it is a volume"),
        }
    }
}

/// Invariant 68, for volumes.
#[test]
fn a_super_block_of_another_format_is_refused_with_both_hashes() {
    let dev = make_volume(MIN_VOLUME_BYTES);
    let mut sb = read_super(&dev).unwrap().sb;
    sb.id.format_hash = U64::new(0xabcd);
    write_super(&dev, 0, &mut sb).unwrap();
    let e = read_super(&dev).unwrap_err();
    assert!(matches!(e, SuperError::OtherFormat { found_hash: 0xabcd, .. }));
    let text = std::string::ToString::to_string(&e);
    assert!(text.contains("000000000000abcd") && text.contains(&std::format!("{FORMAT_HASH:016x}")));
    let empty = MemDevice::new(MIN_VOLUME_BYTES);
    assert_eq!(read_super(&empty), Err(SuperError::NotScoutfs));
}

#[test]
fn one_torn_super_block_copy_leaves_the_other() {
    let rig = Rig::smallest();
    let geometry = rig.geometry;
    for copy in 0..2 {
        let dev = TestDevice::new(rig.dev.snapshot());
        let mut sector = scoutfs_env::IoBuf::zeroed(4096).unwrap();
        dev.read(geometry.super_offset(0, copy), &mut sector).unwrap();
        sector[300] ^= 1;
        dev.write(geometry.super_offset(0, copy), &sector).unwrap();
        assert_eq!(read_super(&dev).unwrap().copy, 1 - copy);
        assert_sound(&dev, "one copy");
    }
}

#[test]
fn a_new_leader_never_overwrites_the_only_newest_copy() {
    // A crash between the two copies of a commit leaves a newer first copy, which readers may have seen.
    let mut rig = Rig::smallest();
    rig.server.commit().unwrap();
    rig.dev.record();
    SimMount::join(&mut rig, 5).unwrap();
    let between = rig.dev.states().into_iter().find_map(|(_, state)| {
        let copies = [0, 1].map(|copy| crate::super_block::read_copy(&state, 0, copy));
        let [Ok(one), Ok(other)] = copies else { return None };
        (one.sb.seq != other.sb.seq).then_some((state, one.sb.seq.get().max(other.sb.seq.get())))
    });
    let (state, newest) = between.unwrap();
    let dev = TestDevice::new(state);
    dev.record();
    drop(Rig::open(dev.clone(), &Dead(true)));
    for (when, state) in dev.states() {
        assert!(read_super(&state).unwrap().sb.seq.get() >= newest, "{when}");
    }
}

#[test]
fn joining_is_durable_before_the_answer_and_asking_again_gives_the_same() {
    let mut rig = Rig::smallest();
    let request = JoinRequest { rid: U64::new(7), process: process(7), read_only: U32::ZERO, pad: U32::ZERO };
    rig.send(7, 1, MSG_JOIN, 0, request.as_bytes());
    assert!(rig.poll().is_empty(), "answered before the commit");
    rig.server.commit().unwrap();
    let first = rig.poll();
    assert_eq!(first.len(), 1);
    let (status, again) = rig.request(7, 2, MSG_JOIN, request.as_bytes());
    assert_eq!((status, &again), (STATUS_OK, &first[0].3));
    // Others get other slots, until there are none.
    let mut slots = HashSet::from([JoinReply::read_from_bytes(&again).unwrap().slot.get()]);
    for rid in 8..8 + u64::from(rig.geometry.nr_slots()) - 1 {
        assert!(slots.insert(SimMount::join(&mut rig, rid).unwrap().slot));
    }
    assert_eq!(SimMount::join(&mut rig, 100).err(), Some(STATUS_NO_SLOT));
    // Strangers are told so.
    assert_eq!(rig.call::<RenewReply>(999, MSG_RENEW, &[0u8; 0]).err(), Some(STATUS_NOT_MEMBER));
}

#[test]
fn a_slot_is_used_again_with_a_new_epoch_after_its_owner_left() {
    let mut rig = Rig::smallest();
    let mount = SimMount::start(&mut rig, 7);
    let (slot, epoch) = (mount.slot, mount.epoch);
    mount.leave(&mut rig);
    assert!(rig.server.members.get(slot).unwrap().is(MEMBER_GONE));
    rig.settle();
    assert!(rig.server.members.get(slot).unwrap().is(MEMBER_FREE));
    let audit = assert_sound(&rig.dev, "after leaving");
    assert!(audit.empty_zones >= 55);
    let next = SimMount::start(&mut rig, 8);
    assert_eq!((next.slot, next.epoch), (slot, epoch + 1));
    assert_sound(&rig.dev, "after joining again");
}

#[test]
fn leaving_without_a_clean_record_is_refused() {
    let mut rig = Rig::smallest();
    let mount = SimMount::start(&mut rig, 7);
    let id = rig.new_id();
    let commit = mount.commit_number();
    assert_eq!(rig.request(7, id, MSG_LEAVE, commit.as_bytes()).0, STATUS_INVALID);
    assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_LIVE));
}

/// Invariant 3: counters go on above all that was ever given out.
#[test]
fn seqs_and_inode_numbers_are_never_given_twice_whatever_crashes() {
    let mut rig = Rig::smallest();
    let (mut last_seq, mut last_ino) = (0, 0);
    for round in 0..5 {
        let rid = 10 + round;
        SimMount::join(&mut rig, rid).unwrap();
        for n in 0..40_000 {
            if n % 7 == 0 {
                let reply: SeqReply =
                    rig.call(rid, MSG_SEQ, &SeqRequest { closed_below: U64::new(last_seq) }).unwrap();
                assert!(reply.seq.get() > last_seq);
                last_seq = reply.seq.get();
            }
            if n % 500 == 0 {
                let reply: InosReply = rig.call(rid, MSG_INOS, &[0u8; 0]).unwrap();
                assert!(reply.first.get() > last_ino && reply.count.get() > 0);
                last_ino = reply.first.get() + reply.count.get() - 1;
            }
            if n > 1_000 * (round + 1) {
                break;
            }
        }
        let sb = read_super(&rig.dev).unwrap().sb;
        assert!(sb.seq_bound.get() > last_seq && sb.ino_bound.get() > last_ino);
        rig = rig.reopen(&Dead(true));
    }
}

/// Invariant 21: the next seq is a step of its own.
#[test]
fn a_seq_is_answered_without_a_commit_and_the_bound_is_raised_ahead() {
    let mut rig = Rig::smallest();
    SimMount::join(&mut rig, 7).unwrap();
    rig.settle();
    let before = rig.dev.writes();
    for n in 0..100_000u64 {
        let request = SeqRequest { closed_below: U64::new(u64::MAX) };
        rig.send(7, n + 1_000, MSG_SEQ, 0, request.as_bytes());
        assert_eq!(rig.poll().len(), 1);
        if n % 1_000 == 0 {
            rig.server.tick(rig.now);
            rig.server.commit().unwrap();
        }
    }
    let commits = (rig.dev.writes() - before) / 2;
    assert!((1..=4).contains(&commits), "{commits} commits");
}

#[test]
fn a_horizon_waits_for_every_open_seq_below_it_and_serves_all_who_wait() {
    let mut rig = Rig::smallest();
    let mut a = SimMount::start(&mut rig, 1);
    let mut b = SimMount::start(&mut rig, 2);
    let (id1, id2) = (rig.new_id(), rig.new_id());
    rig.send(1, id1, MSG_HORIZON, 0, &[]);
    rig.send(2, id2, MSG_HORIZON, 0, &[]);
    assert!(rig.poll().is_empty(), "both mounts have seqs open");
    let asked: Vec<u64> = rig
        .inbox
        .iter()
        .filter(|(_, kind, _)| *kind == MSG_COMMIT_BELOW)
        .map(|(_, _, payload)| CommitBelow::read_from_bytes(payload).unwrap().seq.get())
        .collect();
    assert_eq!(asked.len(), 2);
    let horizon = asked[0];
    assert!(horizon > a.seq && horizon > b.seq);
    // One commits and gets a seq above; the other commits and answers, its next seq in hand already.
    a.put(Key::inode(5), b"x");
    a.commit(&mut rig, false);
    assert!(a.seq >= horizon);
    assert!(rig.poll().is_empty(), "the other has not answered");
    b.write_record(&mut rig, false, false, 0);
    let commit = b.commit_number();
    rig.send(2, 1, MSG_COMMIT_BELOW, MSG_RESPONSE, commit.as_bytes());
    // The first round serves the first; the second begins after it and waits for a, which has a lower seq open.
    let answers = rig.poll();
    assert_eq!(answers.iter().map(|(_, id, _, _)| *id).collect::<Vec<_>>(), [id1]);
    let (reply, slots) = HorizonReply::read_from_prefix(&answers[0].3).unwrap();
    assert_eq!((reply.horizon.get(), reply.nr_slots.get()), (horizon, 2));
    let slots = <[CommitNumber]>::ref_from_bytes(slots).unwrap();
    assert_eq!(slots[b.slot as usize], b.commit_number());
    // Who goes away is not waited for.
    rig.advance(LEASE + LEASE_MARGIN);
    for _ in 0..4 {
        rig.server.tick(rig.now);
        rig.server.commit().unwrap();
    }
    let answers = rig.poll();
    assert_eq!(answers.iter().map(|(_, id, _, _)| *id).collect::<Vec<_>>(), [id2]);
    assert!(HorizonReply::read_from_prefix(&answers[0].3).unwrap().0.horizon.get() > horizon);
}

/// Whoever gets a lock for writing may number a transaction with the version of the grant, and says nothing of it.
#[test]
fn a_horizon_waits_for_write_versions_that_were_granted_below_it() {
    let mut rig = Rig::smallest();
    let (a, b) = (SimMount::start(&mut rig, 1), SimMount::start(&mut rig, 2));
    let close = |rig: &mut Rig, mount: &SimMount, below: u64| {
        let closed = SeqClosed { below: U64::new(below), commit_nr: mount.commit_number().commit_nr };
        let id = rig.new_id();
        rig.request(mount.rid, id, MSG_SEQ_CLOSED, closed.as_bytes()).0
    };
    assert_eq!([close(&mut rig, &a, a.seq + 1), close(&mut rig, &b, b.seq + 1)], [STATUS_OK; 2]);
    let id = rig.new_id();
    rig.send(2, id, MSG_HORIZON, 0, &[]);
    assert_eq!(rig.poll().len(), 1, "nobody has anything open");
    let lock = |rig: &mut Rig, ino, mode| {
        let name = LockName::group_of(ino);
        let (version, commit_nr, generation) = (0, 0, 0);
        let message = Message { name, version, commit_nr, generation, old_mode: Mode::Null, mode };
        let id = rig.new_id();
        let (status, grant) = rig.request(1, id, MSG_LOCK, message.to_raw().as_bytes());
        assert_eq!(status, STATUS_OK);
        LockMessage::read_from_prefix(&grant).unwrap().0.version.get()
    };
    // Who only reads gets no version.
    assert_eq!(lock(&mut rig, 1 << 20, Mode::Read), 0);
    let id = rig.new_id();
    rig.send(2, id, MSG_HORIZON, 0, &[]);
    assert_eq!(rig.poll().len(), 1);
    let versions = [2, 3, 4].map(|n| lock(&mut rig, n << 20, Mode::Write));
    let id = rig.new_id();
    rig.send(2, id, MSG_HORIZON, 0, &[]);
    assert!(rig.poll().is_empty());
    let asked = |rig: &Rig| rig.inbox.iter().filter(|(_, kind, _)| *kind == MSG_COMMIT_BELOW).count();
    assert_eq!(asked(&rig), 1);
    // The last is still open.
    let closed = SeqClosed { below: U64::new(versions[2]), commit_nr: U64::ZERO };
    rig.send(1, id + 1, MSG_SEQ_CLOSED, 0, closed.as_bytes());
    assert_eq!(rig.poll().iter().map(|(_, id, _, _)| *id).collect::<Vec<_>>(), [id + 1]);
    let closed = SeqClosed { below: U64::new(versions[2] + 1), commit_nr: U64::ZERO };
    rig.send(1, id + 2, MSG_SEQ_CLOSED, 0, closed.as_bytes());
    let answered: HashSet<u64> = rig.poll().iter().map(|(_, id, _, _)| *id).collect();
    assert_eq!(answered, HashSet::from([id, id + 2]));
}

/// A mount that gives a lock back may take long as long as it gets on with that, as it tells with each renewal of its lease.
#[test]
fn a_mount_that_gets_on_with_what_it_gives_back_is_not_fenced() {
    for gets_on in [true, false] {
        let mut rig = Rig::smallest();
        let (holder, other) = (SimMount::start(&mut rig, 1), SimMount::start(&mut rig, 2));
        let wanted = |mode| {
            let name = LockName::group_of(1 << 20);
            Message { name, version: 0, commit_nr: 0, generation: 0, old_mode: Mode::Null, mode }.to_raw()
        };
        let id = rig.new_id();
        assert_eq!(rig.request(holder.rid, id, MSG_LOCK, wanted(Mode::Write).as_bytes()).0, STATUS_OK);
        let id = rig.new_id();
        rig.send(other.rid, id, MSG_LOCK, 0, wanted(Mode::Write).as_bytes());
        let mut granted = false;
        // Each second for longer than twice the limit.
        for second in 0..2 * REVOKE_LIMIT.as_secs() + 20 {
            rig.advance(Duration::from_secs(1));
            for rid in [holder.rid, other.rid] {
                let revoke_progress = if gets_on { second / 50 } else { 7 };
                let renewal =
                    Renewal { meta: U64::ZERO, data: U64::ZERO, revoke_progress: U64::new(revoke_progress) };
                let renew = rig.new_id();
                rig.send(rid, renew, MSG_RENEW, 0, renewal.as_bytes());
            }
            rig.settle();
            granted |= rig.poll().iter().any(|(rid, answered, _, _)| (*rid, *answered) == (other.rid, id));
        }
        assert_eq!(granted, !gets_on, "the lock is free only when its holder is fenced");
    }
}

/// A mount that commits by itself lets a round end without its answer. When that comes, in the next round, it is no answer to that.
#[test]
fn a_late_answer_says_nothing_of_a_later_round() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 1);
    let (id1, id2) = (rig.new_id(), rig.new_id());
    rig.send(1, id1, MSG_HORIZON, 0, &[]);
    assert!(rig.poll().is_empty());
    mount.put(Key::inode(5), b"x");
    mount.commit(&mut rig, false);
    // It holds the next seq by now, and says that it has none below: the round is over, the question on its way.
    let ended: Vec<u64> = rig.poll().iter().map(|(_, id, _, _)| *id).collect();
    assert_eq!(ended, [id1]);
    let late = mount.commit_number();
    mount.put(Key::inode(5), b"y");
    rig.send(1, id2, MSG_HORIZON, 0, &[]);
    rig.send(1, 1, MSG_COMMIT_BELOW, MSG_RESPONSE, late.as_bytes());
    assert!(rig.poll().is_empty(), "its transaction is open");
    let asked = |rig: &Rig| rig.inbox.iter().filter(|(_, kind, _)| *kind == MSG_COMMIT_BELOW).count();
    assert_eq!(asked(&rig), 2, "it is asked again");
    mount.write_record(&mut rig, false, false, 0);
    rig.send(1, 2, MSG_COMMIT_BELOW, MSG_RESPONSE, mount.commit_number().as_bytes());
    assert_eq!(rig.poll().iter().map(|(_, id, _, _)| *id).collect::<Vec<_>>(), [id2]);
}

/// What a mount was asked in a session that has ended is not answered any more: it is asked again in the next.
#[test]
fn a_mount_that_begins_another_session_is_asked_again() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 1);
    let asked = |rig: &Rig| rig.inbox.iter().filter(|(_, kind, _)| *kind == MSG_COMMIT_BELOW).count();
    let id = rig.new_id();
    rig.send(1, id, MSG_HORIZON, 0, &[]);
    assert!(rig.poll().is_empty());
    assert_eq!(asked(&rig), 1);
    let again = JoinRequest { rid: U64::new(1), process: process(1), read_only: U32::ZERO, pad: U32::ZERO };
    assert_eq!(rig.request(1, 2, MSG_JOIN, again.as_bytes()).0, STATUS_OK);
    assert_eq!(asked(&rig), 2);
    mount.write_record(&mut rig, false, false, 0);
    rig.send(1, 1, MSG_COMMIT_BELOW, MSG_RESPONSE, mount.commit_number().as_bytes());
    assert_eq!(rig.poll().iter().map(|(_, id, _, _)| *id).collect::<Vec<_>>(), [id]);
}

/// While the leader's own lease was over nobody could renew one.
#[test]
fn after_a_pause_of_the_leader_its_members_have_a_whole_lease_to_renew() {
    let mut rig = Rig::smallest();
    let mount = SimMount::start(&mut rig, 7);
    rig.advance(LEASE * 100);
    rig.server.resumed(rig.now);
    rig.settle();
    assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_LIVE));
    rig.advance(LEASE + LEASE_MARGIN);
    rig.settle();
    assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_FENCED), "a pause is no excuse for ever");
}

/// A lease of the leader that is as its test says.
struct Held(std::sync::Arc<std::sync::Mutex<LeaseState>>);

impl LeaderLease for Held {
    fn confirm(&self) -> LeaseState {
        *self.0.lock().unwrap()
    }
}

/// When a commit was late another leader may go on from the super block before: what that refers to is not used again.
#[test]
fn a_commit_counts_only_under_the_lease_of_the_leader() {
    let mut rig = Rig::smallest();
    let state = std::sync::Arc::new(std::sync::Mutex::new(LeaseState::Valid));
    let lease: scoutfs_env::Box<dyn LeaderLease + Send> = scoutfs_env::try_box(Held(state.clone())).unwrap();
    rig.server.set_lease(lease);
    let mount = SimMount::start(&mut rig, 7);
    // It had ended meanwhile: nobody could renew a lease.
    rig.advance(LEASE * 100);
    *state.lock().unwrap() = LeaseState::Resumed(rig.now);
    let request = JoinRequest { rid: U64::new(8), process: process(8), read_only: U32::ZERO, pad: U32::ZERO };
    assert_eq!(rig.request(8, 1, MSG_JOIN, request.as_bytes()).0, STATUS_OK);
    *state.lock().unwrap() = LeaseState::Valid;
    rig.settle();
    assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_LIVE));
    // It is over.
    let writes = rig.dev.writes();
    *state.lock().unwrap() = LeaseState::Over;
    let usable = rig.server.work.usable.blocks();
    let request = JoinRequest { rid: U64::new(9), process: process(9), read_only: U32::ZERO, pad: U32::ZERO };
    rig.send(9, 1, MSG_JOIN, 0, request.as_bytes());
    assert!(rig.server.commit().is_err());
    assert!(rig.dev.writes() > writes && rig.server.work.usable.blocks() < usable);
    let writes = rig.dev.writes();
    rig.server.tick(rig.now);
    assert!(rig.server.commit().is_err());
    assert_eq!(rig.dev.writes(), writes, "it goes on");
    let refused = rig.poll();
    assert!(refused.iter().all(|(_, _, status, _)| *status == STATUS_IO), "nobody is told that it counts");
    assert_sound(&rig.dev, "a commit that did not count");
}

#[test]
fn a_silent_member_is_fenced_after_lease_and_margin_and_its_late_records_do_not_count() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    assert!(mount.get_space(&mut rig, SpaceKind::Data, 50) > 0);
    mount.commit(&mut rig, false);
    mount.write_file(5, 3);
    mount.commit(&mut rig, false);
    let slot = mount.slot;
    rig.advance(LEASE);
    rig.server.tick(rig.now);
    assert!(rig.server.members.get(slot).unwrap().is(MEMBER_LIVE), "the margin counts");
    rig.advance(LEASE_MARGIN);
    rig.settle();
    let member = rig.server.members.get(slot).unwrap();
    assert!(member.is(MEMBER_FENCED));
    assert_eq!(member.merged_through(), 1, "what it had synced is merged");
    assert_eq!(rig.call::<RenewReply>(7, MSG_RENEW, &[0u8; 0]).err(), Some(STATUS_NOT_MEMBER));
    let before = assert_sound(&rig.dev, "fenced");
    // The zombie writes another record.
    let mut late = mount;
    late.write_late_record(&mut rig);
    let after = assert_sound(&rig.dev, "after a late record");
    assert_eq!(before.free_data_blocks, after.free_data_blocks);
    assert!(rig.items().keys().all(|key| *key != Key::inode(666)));
    // Its space stays as it is until its death is confirmed, also for the next server.
    let mut rig = rig.reopen(&Dead(false));
    rig.settle();
    assert!(rig.server.members.get(slot).unwrap().is(MEMBER_FENCED));
    rig.server.recheck_deaths(&Dead(true));
    rig.settle();
    assert!(rig.server.members.get(slot).unwrap().is(MEMBER_FREE));
    let audit = assert_sound(&rig.dev, "reclaimed");
    assert_eq!(audit.free_data_blocks % 256, 256 - 3);
    assert_eq!(rig.items().len(), 1);
}

/// One mount deletes what others made, and is reclaimed before them: what is counted of it is less than nothing.
#[test]
fn a_mount_that_deleted_more_than_it_made_is_not_forgotten() {
    let mut rig = Rig::smallest();
    let mut deletes = SimMount::start(&mut rig, 7);
    deletes.put(Key::inode(5), b"deletes");
    deletes.inode_delta = -9;
    deletes.commit(&mut rig, false);
    let inodes = rig.server.super_block().inodes.get().cast_signed();
    let mut rig = rig.reopen(&Dead(true));
    rig.settle();
    assert_eq!(rig.server.super_block().inodes.get().cast_signed(), inodes - 9);
    let mut made = SimMount::start(&mut rig, 8);
    made.put(Key::inode(6), b"made");
    made.inode_delta = 10;
    made.commit(&mut rig, false);
    let mut rig = rig.reopen(&Dead(true));
    rig.settle();
    assert_eq!(rig.server.super_block().inodes.get().cast_signed(), inodes + 1);
}

#[test]
fn members_of_dead_processes_are_reclaimed_by_the_next_server_at_once() {
    let mut rig = Rig::smallest();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.put(Key::inode(5), b"synced");
    mount.inode_delta = 1;
    mount.commit(&mut rig, false);
    mount.put(Key::inode(6), b"not synced");
    let inodes = rig.server.super_block().inodes.get();
    let mut rig = rig.reopen(&Dead(true));
    assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_GONE));
    rig.settle();
    assert!(rig.server.members.get(mount.slot).unwrap().is(MEMBER_FREE));
    assert_eq!(rig.server.super_block().inodes.get(), inodes + 1);
    let items = rig.items();
    assert_eq!(items.len(), 1);
    assert_eq!(items[&Key::inode(5)].1, b"synced");
    assert_sound(&rig.dev, "reclaimed");
}

#[test]
fn the_working_set_of_a_leader_that_may_live_is_quarantined_and_freed_when_it_is_dead() {
    // Three voters, so that the next leader writes elsewhere.
    let dev = make_volume_for(2);
    let mut rig = Rig::open(dev.clone(), &Dead(false));
    rig.settle();
    let work = rig.server.work.total();
    own_voter_slot(&dev, &rig.geometry, 0, leader_rid(0), 0);
    let mut server = rig.reopen_at(1, &Dead(false)).server;
    server.commit().unwrap();
    assert_eq!(read_super(&dev).unwrap().voter, 1);
    let audit = assert_sound(&dev, "with a quarantine");
    assert_eq!(audit.quarantined_blocks, work);
    server.recheck_deaths(&Dead(true));
    server.commit().unwrap();
    let audit = assert_sound(&dev, "without");
    assert_eq!(audit.quarantined_blocks, 0);
}

#[test]
fn a_clean_stop_is_seen_and_nothing_is_handled_after_it() {
    let mut rig = Rig::smallest();
    let mount = SimMount::start(&mut rig, 7);
    mount.leave(&mut rig);
    rig.server.stop_clean().unwrap();
    assert_eq!(read_super(&rig.dev).unwrap().sb.flags.get(), SUPER_CLEAN);
    rig.poll();
    assert_eq!(SimMount::join(&mut rig, 8).err(), Some(STATUS_AGAIN));
    let rig = rig.reopen(&Dead(false));
    assert_eq!(rig.server.super_block().flags.get(), 0);
}

#[test]
fn a_commit_with_nothing_to_do_writes_nothing() {
    let mut rig = Rig::smallest();
    rig.settle();
    let before = rig.dev.writes();
    for _ in 0..10 {
        rig.server.tick(rig.now);
        assert!(!rig.server.dirty());
        rig.server.commit().unwrap();
    }
    assert_eq!(rig.dev.writes(), before);
}

#[test]
fn joining_committing_and_leaving_survive_a_crash_at_every_write() {
    let mut rig = Rig::smallest();
    rig.settle();
    rig.dev.record();
    let mut mount = SimMount::start(&mut rig, 7);
    mount.get_space(&mut rig, SpaceKind::Data, 20);
    mount.commit(&mut rig, false);
    mount.write_file(5, 7);
    mount.commit(&mut rig, true);
    mount.write_file(6, 7);
    mount.commit(&mut rig, false);
    mount.leave(&mut rig);
    rig.settle();
    rig.server.stop_clean().unwrap();
    crash_everywhere(&rig.dev, "a whole life", |rig| {
        assert!(rig.server.members.iter().all(|m| m.is(MEMBER_FREE)));
    });
}

/// Invariant 22: nobody hears of what was prepared and not written.
#[test]
fn a_failed_commit_stops_the_server_and_waiting_requests_are_refused() {
    let mut rig = Rig::smallest();
    let request = JoinRequest { rid: U64::new(7), process: process(7), read_only: U32::ZERO, pad: U32::ZERO };
    rig.send(7, 1, MSG_JOIN, 0, request.as_bytes());
    rig.dev.fail_writes(true);
    assert!(rig.server.commit().is_err());
    assert!(rig.server.failed().is_some());
    assert_eq!(rig.poll(), [(7, 1, STATUS_IO, std::vec![])]);
    rig.dev.fail_writes(false);
    rig.send(8, 2, MSG_JOIN, 0, request.as_bytes());
    assert_eq!(rig.poll(), [(8, 2, STATUS_IO, std::vec![])]);
    assert!(rig.server.commit().is_err());
    assert_sound(&rig.dev, "after the failure");
}

#[test]
fn messages_that_make_no_sense_are_refused() {
    let mut rig = Rig::smallest();
    SimMount::start(&mut rig, 7);
    for kind in 0..=255u8 {
        for len in [0usize, 1, 8, 16, 40] {
            if kind == MSG_LEAVE || (len == 0 && kind == MSG_HORIZON) {
                continue;
            }
            let id = rig.new_id();
            rig.send(7, id, kind, 0, &std::vec![0xff; len]);
            rig.send(7, id, kind, MSG_RESPONSE, &std::vec![0xff; len]);
            rig.server.commit().unwrap();
            let answers = rig.poll();
            assert!(answers.len() <= 1);
        }
    }
    assert!(rig.server.failed().is_none());
    assert_sound(&rig.dev, "after rubbish");
}
