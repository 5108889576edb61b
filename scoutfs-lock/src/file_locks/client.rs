// SPDX-License-Identifier: GPL-2.0-only
//! What a mount was granted, and what it has asked for.

use scoutfs_env::{AllocError, OrdMap};

use super::message::{
    ByteRange, FileId, FileLock, FileLockOp, FileLockReply, FileLockRequest, FileLockResult, Found, LockClass,
};
use super::ranges::{Piece, Ranges};
use super::server::MAX_HELD;
use crate::{LockError, Mode};

/// The most pieces that it adds to give back what was taken too much ([`Step::owed`]).
const OWED: usize = 2;

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
    /// So many pieces more there may be at the server.
    more: usize,
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

/// How far a program's wish is carried out ([`FileLockClient::next_step`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is done.
    #[default]
    Begun,
    /// What flock gives back first is given back.
    GivenBack,
    /// The lock is taken.
    Taken,
    /// All is done.
    Done,
}

/// What is to be asked next for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to ask.
    pub op: FileLockOp,
    /// Of what.
    pub lock: FileLock,
    /// How far the wish is carried out then.
    pub then: Progress,
    /// It gives back what was taken with the step before: room for that was made with that.
    pub owed: bool,
}

impl Step {
    /// To know which lock is in the way of this one.
    pub const fn test(lock: FileLock) -> Step {
        Step { op: FileLockOp::Test, lock, then: Progress::Done, owed: false }
    }
}

/// A mount's side.
///
/// - Commands: [`request`](Self::request) and [`sent`](Self::sent), [`cancel`](Self::cancel), [`forget`](Self::forget).
/// - `handle_*`: [`handle_reply`](Self::handle_reply), in the order of the server's sending.
/// - Getters: [`next_step`](Self::next_step), [`concerns`](Self::concerns), [`owner_via`](Self::owner_via),
///   [`reports`](Self::reports).
///
/// Requests must be sent in the order of their ids; those without an answer are sent again to a new server, in the same order,
/// after the [`reports`](Self::reports).
#[derive(Debug, Default)]
pub struct FileLockClient {
    /// By file and owner; none of them is empty.
    held: OrdMap<(FileId, u64), Held>,
    /// Pieces of all of them.
    pieces: usize,
    open: OrdMap<u64, Open>,
    /// The pieces that requests without an answer may add.
    more: usize,
    last_id: u64,
}

impl FileLockClient {
    /// Of a mount that has no locks.
    pub const fn new() -> Self {
        FileLockClient { held: OrdMap::new(), pieces: 0, open: OrdMap::new(), more: 0, last_id: 0 }
    }

    /// A program wants a lock, or wants to give one back: what to ask next, none when all is done. `op` is `Set` or `Wait`. A step
    /// that is not [`FileLockResult::Done`] ends it, and its result is the program's.
    ///
    /// fcntl keeps what it has until it has got what it wants, and then gives back what is too much. flock gives back first what it
    /// has of another kind, and does not get it back.
    pub fn next_step(&self, op: FileLockOp, lock: &FileLock, progress: Progress) -> Option<Step> {
        let lower = |mode, then| {
            let owed = progress == Progress::Taken;
            Step { op: FileLockOp::Lower, lock: FileLock { mode, ..*lock }, then, owed }
        };
        let take = Step { op, lock: *lock, then: Progress::Taken, owed: false };
        let held = self.held.get(&(lock.file, lock.owner)).map(|held| &held.ranges);
        let is_above = held.is_some_and(|held| held.above(&lock.range, lock.mode).next().is_some());
        let has_all = held.is_some_and(|held| held.first_below(&lock.range, lock.mode).is_none());
        match (progress, lock.file.class) {
            (Progress::Done, _) => None,
            // What was asked for and is not answered is given back as well.
            _ if lock.mode == Mode::Null => Some(lower(Mode::Null, Progress::Done)),
            (Progress::Begun, LockClass::Flock) if held.is_some() && (is_above || !has_all) => {
                Some(lower(Mode::Null, Progress::GivenBack))
            }
            // Nothing can be in the way.
            (Progress::Begun, LockClass::Fcntl) if has_all && is_above => {
                Some(lower(lock.mode, Progress::Done))
            }
            (Progress::Begun | Progress::GivenBack, _) => Some(take),
            (Progress::Taken, _) => is_above.then(|| lower(lock.mode, Progress::Done)),
        }
    }

    /// Asks for something: the request to send. [`sent`](Self::sent) or [`forget`](Self::forget) must follow at once. `via` names the
    /// open file. None, and nothing has changed, when there may be too many pieces then ([`MAX_HELD`]): the server is not asked. On error
    /// nothing has changed.
    pub fn request(&mut self, step: &Step, via: u64) -> Result<Option<FileLockRequest>, AllocError> {
        let Step { op, lock, owed, .. } = *step;
        self.open.reserve(1)?;
        let held = self.held.get_mut(&(lock.file, lock.owner)).map(|held| &mut held.ranges);
        let more = match (op, held) {
            (FileLockOp::Test | FileLockOp::Cancel, _) | (FileLockOp::Lower, None) => 0,
            (FileLockOp::Set | FileLockOp::Wait, held) => {
                held.map_or(1, |held| held.raise_adds(&lock.range)).saturating_add(OWED)
            }
            (FileLockOp::Lower, Some(held)) => {
                held.reserve_lower(&lock.range, lock.mode)?;
                held.lower_adds(&lock.range, lock.mode)
            }
        };
        let most = self.pieces.saturating_add(self.more).saturating_add(more);
        if more > 0 && most > MAX_HELD && !owed {
            return Ok(None);
        }
        let request = FileLockRequest { id: self.last_id.saturating_add(1), op, lock };
        // There is room.
        self.open.insert(request.id, Open { request, via, more })?;
        self.last_id = request.id;
        self.more = self.more.saturating_add(more);
        Ok(Some(request))
    }

    /// The request will be sent, before all that are made after this: what it gives back counts as given back.
    pub fn sent(&mut self, request: &FileLockRequest) -> Result<(), AllocError> {
        match request.op {
            // There is room.
            FileLockOp::Lower => self.lower(&request.lock),
            _ => Ok(()),
        }
    }

    /// Waits no longer for an answer: the request to send, if it has none yet. The answer comes.
    pub fn cancel(&self, id: u64) -> Option<FileLockRequest> {
        let open = self.open.get(&id)?;
        Some(FileLockRequest { op: FileLockOp::Cancel, ..open.request })
    }

    /// A request is not sent, or nobody is left who would hear the answer.
    pub fn forget(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            self.more = self.more.saturating_sub(open.more);
        }
    }

    /// An answer came. None when nobody waits for it. On error it is to be called again, before anything else.
    pub fn handle_reply(&mut self, reply: &FileLockReply) -> Result<Option<Answered>, LockError> {
        let Some(open) = self.open.get(&reply.id) else { return Ok(None) };
        let Open { request: FileLockRequest { op, lock, .. }, via, .. } = *open;
        if matches!(op, FileLockOp::Set | FileLockOp::Wait) && reply.result == FileLockResult::Done {
            self.raise(&lock, via)?;
            self.lower_for_later(reply.id, &lock)?;
        }
        self.forget(reply.id);
        Ok(Some(Answered { id: reply.id, result: reply.result, found: reply.found }))
    }

    /// What is held, after a place in the order: to be told to a new server, before the requests that have no answer are made once more.
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

    /// What was asked for is held.
    fn raise(&mut self, lock: &FileLock, via: u64) -> Result<(), AllocError> {
        let key = (lock.file, lock.owner);
        if lock.mode == Mode::Null {
            return Ok(());
        }
        if !self.held.contains_key(&key) {
            self.held.insert(key, Held::default())?;
        }
        if let Some(held) = self.held.get_mut(&key) {
            held.via = via;
        }
        self.change(key, |held| held.raise(&lock.range, lock.mode, lock.pid))
    }

    /// No more is held than that.
    fn lower(&mut self, lock: &FileLock) -> Result<(), AllocError> {
        self.change((lock.file, lock.owner), |held| held.lower(&lock.range, lock.mode, lock.pid))
    }

    /// The same for what was asked later and has no answer: the server lowers what it has granted.
    fn lower_for_later(&mut self, id: u64, lock: &FileLock) -> Result<(), AllocError> {
        let mut after = id;
        while let Some((&id, open)) = self.open.higher(&after) {
            after = id;
            let FileLockRequest { op, lock: later, .. } = open.request;
            if op == FileLockOp::Lower && (later.file, later.owner) == (lock.file, lock.owner) {
                self.lower(&later)?;
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        key: (FileId, u64),
        change: impl FnOnce(&mut Ranges) -> Result<(), AllocError>,
    ) -> Result<(), AllocError> {
        let Some(held) = self.held.get_mut(&key) else { return Ok(()) };
        let before = held.ranges.len();
        let done = change(&mut held.ranges);
        self.pieces = self.pieces.saturating_add(held.ranges.len()).saturating_sub(before);
        if held.ranges.is_empty() {
            self.held.remove(&key);
        }
        done
    }
}
