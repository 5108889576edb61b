// SPDX-License-Identifier: GPL-2.0-only
//! What a mount was granted, and what it has asked for.

use scoutfs_env::{AllocError, OrdMap, Vec};

use super::message::{
    ByteRange, FileId, FileLock, FileLockOp, FileLockReply, FileLockRequest, FileLockResult, Found, LockClass,
};
use super::ranges::{Piece, Ranges};
use crate::{LockError, Mode};

#[derive(Debug, Default)]
struct Held {
    ranges: Ranges,
    /// The open file by which the newest of them was taken.
    via: u64,
}

/// A request without an answer.
#[derive(Debug)]
struct Open {
    request: FileLockRequest,
    via: u64,
    /// What was held more strongly before, and is given back by this.
    weakened: Vec<Piece>,
    /// In which session it was sent first.
    session: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The request.
    pub id: u64,
    /// What became of it.
    pub result: FileLockResult,
    /// Of a test: what is in the way.
    pub found: Option<Found>,
}

/// A mount's side.
///
/// - Commands: [`request`](Self::request), [`cancel`](Self::cancel), [`forget`](Self::forget).
/// - `handle_*`: [`handle_reply`](Self::handle_reply), in the order of the server's sending;
///   [`handle_new_server`](Self::handle_new_server).
/// - Getters: [`concerns`](Self::concerns), [`owner_via`](Self::owner_via), [`reports`](Self::reports).
///
/// Requests must be sent in the order of their ids; those without an answer are sent again to a new server, in the same order,
/// after the reports.
#[derive(Debug, Default)]
pub struct FileLockClient {
    /// By file and owner; none of them is empty.
    held: OrdMap<(FileId, u64), Held>,
    open: OrdMap<u64, Open>,
    last_id: u64,
    session: u64,
}

impl FileLockClient {
    /// Of a mount that has no locks.
    pub const fn new() -> Self {
        FileLockClient { held: OrdMap::new(), open: OrdMap::new(), last_id: 0, session: 0 }
    }

    /// Asks for something ([`FileLockOp::Cancel`] is for [`cancel`](Self::cancel)). `via` names the open file. What the request
    /// gives back counts as given back. On error nothing has changed.
    pub fn request(
        &mut self,
        op: FileLockOp,
        lock: FileLock,
        via: u64,
    ) -> Result<FileLockRequest, AllocError> {
        self.open.reserve(1)?;
        let mut weakened = Vec::new();
        if op != FileLockOp::Test
            && let Some(held) = self.held.get_mut(&(lock.file, lock.owner))
        {
            for piece in held.ranges.above(&lock.range, kept(&held.ranges, &lock)) {
                weakened.push(piece)?;
            }
        }
        self.weaken(&lock)?;
        self.last_id += 1;
        let request = FileLockRequest { id: self.last_id, op, lock };
        // There is room.
        self.open.insert(request.id, Open { request, via, weakened, session: self.session })?;
        Ok(request)
    }

    /// Waits no longer for an answer: the request to send, if it has none yet. The answer comes.
    pub fn cancel(&self, id: u64) -> Option<FileLockRequest> {
        let open = self.open.get(&id)?;
        Some(FileLockRequest { op: FileLockOp::Cancel, ..open.request })
    }

    /// A request is not sent, or nobody is left who would hear the answer.
    pub fn forget(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// An answer came. None when nobody waits for it. On error nothing that matters has changed: to be called again.
    pub fn handle_reply(&mut self, reply: &FileLockReply) -> Result<Option<Answered>, LockError> {
        let Some(open) = self.open.get(&reply.id) else { return Ok(None) };
        let Open { request: FileLockRequest { op, lock, .. }, via, session, .. } = *open;
        let answered = Answered { id: reply.id, result: reply.result, found: reply.found };
        match (op, reply.result) {
            (FileLockOp::Test, _) => {}
            (_, FileLockResult::Done) => {
                self.apply(&lock, via)?;
                self.weaken_for_later(reply.id, &lock)?;
            }
            // The server has given nothing back. One that did not hear the request first may have seen less of this mount, though,
            // and what others have got meanwhile must not be believed to be held here.
            _ if lock.file.class == LockClass::Fcntl && session == self.session => {
                let weakened = open.weakened.try_clone()?;
                for Piece { range, mode, pid } in &*weakened {
                    self.apply(&FileLock { range: *range, mode: *mode, pid: *pid, ..lock }, via)?;
                }
                self.weaken_for_later(reply.id, &lock)?;
            }
            _ => {}
        }
        self.open.remove(&reply.id);
        Ok(Some(answered))
    }

    /// There is a new server: what [`reports`](Self::reports) gives is to be told to it. Requests without an answer are made once more, those
    /// too that are older than what was granted since: they give it back. On error it is to be called again.
    pub fn handle_new_server(&mut self) -> Result<(), AllocError> {
        self.session += 1;
        let mut after = 0;
        while let Some((&id, open)) = self.open.higher(&after) {
            after = id;
            let FileLockRequest { op, lock, .. } = open.request;
            if op != FileLockOp::Test {
                self.weaken(&lock)?;
            }
        }
        Ok(())
    }

    /// What is held, after a place in the order.
    pub fn reports(&self, after: Option<(FileId, u64, u64)>) -> impl Iterator<Item = FileLock> {
        let from = after.map(|(file, owner, _)| (file, owner));
        let first = (FileId { ino: 0, class: LockClass::Fcntl }, 0);
        self.held.range(from.unwrap_or(first)..).flat_map(move |(&(file, owner), held)| {
            let pieces = held.ranges.pieces().iter();
            let wanted =
                move |piece: &&Piece| after.is_none_or(|after| (file, owner, piece.range.start()) > after);
            pieces.filter(wanted).map(move |&Piece { range, mode, pid }| FileLock {
                file,
                owner,
                range,
                mode,
                pid,
            })
        })
    }

    /// Whether the owner may have something of the range, by all that was asked for: if not, there is nothing to give back.
    pub fn concerns(&self, file: FileId, owner: u64, range: &ByteRange) -> bool {
        let held = self.held.get(&(file, owner));
        held.is_some_and(|held| !held.ranges.overlapping(range).is_empty())
            || self.open.values().any(|open| {
                open.request.op != FileLockOp::Test
                    && (open.request.lock.file, open.request.lock.owner) == (file, owner)
            })
    }

    /// An owner that took the newest of its locks by this open file.
    pub fn owner_via(&self, file: FileId, via: u64) -> Option<u64> {
        let mut owners = self.held.range((file, 0)..=(file, u64::MAX));
        owners.find(|(_, held)| held.via == via).map(|((_, owner), _)| *owner)
    }

    /// What is asked for is held.
    fn apply(&mut self, lock: &FileLock, via: u64) -> Result<(), AllocError> {
        let key = (lock.file, lock.owner);
        if !self.held.contains_key(&key) {
            if lock.mode == Mode::Null {
                return Ok(());
            }
            self.held.insert(key, Held::default())?;
        }
        if let Some(held) = self.held.get_mut(&key) {
            let done = held.ranges.set(lock.range, lock.mode, lock.pid);
            if lock.mode > Mode::Null && done.is_ok() {
                held.via = via;
            }
            if held.ranges.is_empty() {
                self.held.remove(&key);
            }
            done?;
        }
        Ok(())
    }

    /// Of what is asked for, no more is held than that.
    fn weaken(&mut self, lock: &FileLock) -> Result<(), AllocError> {
        let key = (lock.file, lock.owner);
        let Some(held) = self.held.get_mut(&key) else { return Ok(()) };
        let mode = kept(&held.ranges, lock);
        loop {
            let Some(piece) = held.ranges.above(&lock.range, mode).next() else { break };
            held.ranges.set(piece.range, mode, piece.pid)?;
        }
        if held.ranges.is_empty() {
            self.held.remove(&key);
        }
        Ok(())
    }

    /// The same for requests that were made later and have no answer.
    fn weaken_for_later(&mut self, id: u64, lock: &FileLock) -> Result<(), AllocError> {
        let key = (lock.file, lock.owner);
        let mut after = id;
        while let Some((&id, open)) = self.open.higher(&after) {
            after = id;
            let FileLockRequest { op, lock, .. } = open.request;
            if op != FileLockOp::Test && (lock.file, lock.owner) == key {
                self.weaken(&lock)?;
            }
        }
        Ok(())
    }
}

/// The most that a request leaves to its owner of what he holds of its range, until it is answered: with flock all or nothing.
fn kept(held: &Ranges, lock: &FileLock) -> Mode {
    match lock.file.class {
        LockClass::Fcntl => lock.mode,
        LockClass::Flock if held.pieces().iter().all(|piece| piece.mode == lock.mode) => lock.mode,
        LockClass::Flock => Mode::Null,
    }
}
