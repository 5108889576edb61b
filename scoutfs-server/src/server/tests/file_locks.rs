// SPDX-License-Identifier: GPL-2.0-only
//! Locks of files over the life of their mounts and of the server.

use std::vec::Vec;

use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::*;
use scoutfs_lock::Mode;
use scoutfs_lock::file_locks::{
    ByteRange, FileId, FileLock, FileLockOp, FileLockReply, FileLockRequest, FileLockResult, LockClass,
};
use zerocopy::{FromBytes, IntoBytes};

use super::mount::*;
use super::rig::*;
use crate::server::{DeathOracle, LEASE, LEASE_MARGIN, Suspect};
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_LIVE};
use scoutfs_format::voter::ProcessId;

fn lock(mode: Mode) -> FileLock {
    let file = FileId { ino: 9, class: LockClass::Fcntl };
    FileLock { file, owner: 1, range: ByteRange::ALL, mode, pid: 1 }
}

/// Asks; the id is that of the message, too.
fn ask(rig: &mut Rig, rid: u64, op: FileLockOp, mode: Mode) -> u64 {
    let id = rig.new_id();
    let request = FileLockRequest { id, op, lock: lock(mode) };
    rig.send(rid, id, MSG_FILE_LOCK, 0, request.to_raw().as_bytes());
    id
}

/// What is answered by now: mount, id, result.
fn answers(rig: &mut Rig) -> Vec<(u64, u64, FileLockResult)> {
    let answer = |(to, id, status, payload): (u64, u64, u16, Vec<u8>)| {
        assert_eq!(status, STATUS_OK);
        let raw = scoutfs_format::msg::FileLockReply::read_from_bytes(&payload).unwrap();
        (to, id, FileLockReply::from_raw(&raw).unwrap().result)
    };
    rig.poll().into_iter().map(answer).collect()
}

use FileLockOp::{Lower, Set, Wait};
use FileLockResult::{Blocked, Done};

fn renew(rig: &mut Rig, rid: u64) {
    rig.call::<RenewReply>(rid, MSG_RENEW, &[0u8; 0]).unwrap();
}

#[test]
fn the_locks_of_a_mount_go_when_it_is_fenced_and_no_earlier() {
    let mut rig = Rig::smallest();
    let (a, b) = (SimMount::start(&mut rig, 1), SimMount::start(&mut rig, 2));
    rig.poll();
    let held = ask(&mut rig, 1, Set, Mode::Write);
    let waits = ask(&mut rig, 2, Wait, Mode::Read);
    let waits_too = ask(&mut rig, 1, Wait, Mode::Write);
    assert_eq!(answers(&mut rig), [(1, held, Done), (1, waits_too, Done)]);
    // A tick before the end it still has them.
    rig.advance(LEASE + LEASE_MARGIN - core::time::Duration::from_millis(1));
    renew(&mut rig, 2);
    rig.server.tick(rig.now);
    assert_eq!(answers(&mut rig), []);
    assert!(rig.server.members.get(a.slot).unwrap().is(MEMBER_LIVE));
    rig.advance(core::time::Duration::from_millis(1));
    rig.server.tick(rig.now);
    assert!(rig.server.members.get(a.slot).unwrap().is(MEMBER_FENCED));
    assert!(rig.server.members.get(b.slot).unwrap().is(MEMBER_LIVE));
    assert_eq!(answers(&mut rig), [(2, waits, Done)]);
    // It has no say any more.
    let id = ask(&mut rig, 1, Set, Mode::Write);
    let refused = rig.poll();
    assert!(matches!(&refused[..], [(1, other, STATUS_NOT_MEMBER, _)] if *other == id), "{refused:?}");
}

#[test]
fn a_new_server_answers_when_all_have_told_what_they_hold_or_are_gone() {
    let mut rig = Rig::smallest();
    let _mounts: Vec<_> = (1..=3).map(|rid| SimMount::start(&mut rig, rid)).collect();
    rig.poll();
    ask(&mut rig, 1, Set, Mode::Read);
    rig.settle();
    let mut rig = rig.reopen(&Dead(false));
    let held = lock(Mode::Read).to_raw();
    let recovered = |rig: &mut Rig, rid| {
        let said = Recovered { last_seq: U64::new(1), ..Default::default() };
        rig.call::<[u8; 0]>(rid, MSG_RECOVERED, &said).unwrap();
    };
    // Sent again before the others have told.
    rig.call::<[u8; 0]>(1, MSG_FILE_LOCK_REPORT, &held).unwrap();
    recovered(&mut rig, 1);
    let read = ask(&mut rig, 1, Set, Mode::Read);
    recovered(&mut rig, 2);
    let write = ask(&mut rig, 2, Set, Mode::Write);
    let waits = ask(&mut rig, 2, Wait, Mode::Write);
    rig.server.tick(rig.now);
    assert_eq!(answers(&mut rig), []);
    // The third one never comes.
    rig.advance(LEASE + LEASE_MARGIN);
    for rid in 1..=2 {
        renew(&mut rig, rid);
    }
    rig.server.tick(rig.now);
    assert_eq!(answers(&mut rig), [(1, read, Done), (2, write, Blocked)]);
    let unlock = ask(&mut rig, 1, Lower, Mode::Null);
    let mut all = answers(&mut rig);
    all.sort_by_key(|(_, id, _)| *id);
    assert_eq!(all, [(2, waits, Done), (1, unlock, Done)]);
}

#[test]
fn rubbish_is_refused_and_changes_nothing() {
    let mut rig = Rig::smallest();
    let _mount = SimMount::start(&mut rig, 1);
    rig.poll();
    let mut bad = FileLockRequest { id: 1, op: Set, lock: lock(Mode::Write) }.to_raw();
    bad.op = 9;
    assert_eq!(rig.call::<[u8; 0]>(1, MSG_FILE_LOCK, &bad), Err(STATUS_INVALID));
    bad.op = FILE_LOCK_SET;
    bad.lock.start = U64::new(u64::MAX);
    assert_eq!(rig.call::<[u8; 0]>(1, MSG_FILE_LOCK, &bad), Err(STATUS_INVALID));
    assert_eq!(rig.call::<[u8; 0]>(1, MSG_FILE_LOCK, &U32::new(1)), Err(STATUS_INVALID));
    assert_eq!(rig.call::<[u8; 0]>(1, MSG_FILE_LOCK_REPORT, &bad.lock), Err(STATUS_INVALID));
    assert!(rig.server.file_locks.is_empty());
}

/// Knows of nobody's death, but has one mount confirmed.
struct Agent(u64);

impl DeathOracle for Agent {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }

    fn confirm(&self, suspect: &Suspect) -> bool {
        suspect.rid == self.0
    }
}

#[test]
fn an_agent_is_asked_about_fenced_mounts_only_and_what_it_confirms_is_taken_back() {
    let mut rig = Rig::smallest();
    let (a, b) = (SimMount::start(&mut rig, 1), SimMount::start(&mut rig, 2));
    let state = |rig: &Rig, mount: &SimMount| rig.server.members.get(mount.slot).unwrap().item.state.get();
    rig.server.recheck_deaths(&Agent(1));
    assert_eq!(state(&rig, &a), MEMBER_LIVE);
    rig.advance(LEASE + LEASE_MARGIN);
    rig.settle();
    rig.server.recheck_deaths(&Agent(7));
    rig.settle();
    assert_eq!([state(&rig, &a), state(&rig, &b)], [MEMBER_FENCED; 2]);
    rig.server.recheck_deaths(&Agent(1));
    rig.settle();
    assert_ne!(state(&rig, &a), MEMBER_FENCED);
    assert_eq!(state(&rig, &b), MEMBER_FENCED);
}
