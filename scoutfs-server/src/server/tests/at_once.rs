// SPDX-License-Identifier: GPL-2.0-only
//! What whoever received a message may do for the server.

use std::vec::Vec;

use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::*;
use scoutfs_lock::file_locks::{ByteRange, FileId, FileLock, FileLockOp, FileLockRequest, LockClass};
use scoutfs_lock::{LockName, Message, Mode};
use zerocopy::IntoBytes;

use super::mount::*;
use super::rig::*;
use crate::ServerError;
use crate::server::SEQS_AT_ONCE;

/// The kinds of messages that may be handled at once now.
fn kinds(rig: &Rig) -> Vec<u8> {
    (0..=u8::MAX).filter(|kind| rig.server.handles_at_once(*kind)).collect()
}

/// A member that asks for a seq, a lock and a lock of a file.
fn ask(rig: &mut Rig, rid: u64) {
    let id = rig.new_id();
    rig.send(rid, id, MSG_SEQ, 0, SeqRequest { closed_below: U64::ZERO }.as_bytes());
    let name = LockName::group_of(5000 * rid);
    let (mode, old_mode) = (Mode::Write, Mode::Null);
    let message = Message { name, version: 0, commit_nr: 0, generation: 0, old_mode, mode };
    let id = rig.new_id();
    rig.send(rid, id, MSG_LOCK, 0, message.to_raw().as_bytes());
    let file = FileId { ino: 9, class: LockClass::Fcntl };
    let lock = FileLock { file, owner: rid, range: ByteRange::ALL, mode: Mode::Read, pid: 1 };
    let id = rig.new_id();
    let request = FileLockRequest { id, op: FileLockOp::Set, lock };
    rig.send(rid, id, MSG_FILE_LOCK, 0, request.to_raw().as_bytes());
}

/// Messages that mounts wait for when something is handed over are answered without a commit, a write or a read.
#[test]
fn what_is_handled_at_once_touches_no_device_and_leaves_nothing_to_commit() {
    let mut rig = Rig::smallest();
    let _mounts = [SimMount::start(&mut rig, 1), SimMount::start(&mut rig, 2)];
    rig.settle();
    rig.poll();
    assert_eq!(kinds(&rig), [MSG_SEQ, MSG_LOCK, MSG_FILE_LOCK]);
    let before = (rig.dev.writes(), rig.dev.bytes_read());
    for rid in [1, 2] {
        ask(&mut rig, rid);
    }
    let answers = rig.poll();
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|(_, _, status, _)| *status == STATUS_OK), "{answers:?}");
    assert!(!rig.server.dirty());
    assert_eq!((rig.dev.writes(), rig.dev.bytes_read()), before);
}

/// What must be durable first, and what cannot be without a new bound of numbers, is for the server's thread; and so is a server that
/// has failed.
#[test]
fn nothing_is_handled_at_once_that_comes_behind_a_commit_or_may_need_one() {
    let mut rig = Rig::smallest();
    let _mount = SimMount::start(&mut rig, 1);
    rig.settle();
    let at_once = kinds(&rig);
    assert!(!at_once.is_empty());
    let join = |rid: u64| JoinRequest {
        rid: U64::new(rid),
        process: process(rid),
        read_only: U32::ZERO,
        pad: U32::ZERO,
    };
    let id = rig.new_id();
    rig.send(2, id, MSG_JOIN, 0, join(2).as_bytes());
    assert!(rig.server.dirty());
    assert_eq!(kinds(&rig), []);
    rig.settle();
    assert_eq!(kinds(&rig), at_once);
    while rig.server.seqs_left() > SEQS_AT_ONCE {
        assert_eq!(kinds(&rig), at_once);
        rig.server.take_seq().unwrap();
    }
    assert_eq!(kinds(&rig), []);
    rig.settle();
    assert_eq!(kinds(&rig), at_once);
    assert!(!rig.server.dirty());
    rig.server.stop(ServerError::NoMemory);
    assert_eq!(kinds(&rig), []);
}
