// SPDX-License-Identifier: GPL-2.0-only
//! The locks that programs have on files here: the protocol's machine, and those who wait for an answer.
//!
//! Answers are taken by the thread that receives messages, in the order in which the server sent them. Who waits holds nothing:
//! no cluster lock, no transaction, no thread but his own. He may give up; then the server is asked to forget him, and its
//! answer, which may still be the lock, is waited for: so both sides know the same. Who was killed does not wait for it; the answer
//! changes what is known to be held here when it comes, and the lock goes when the file is closed, by a request that follows.
//!
//! Locking: one mutex around the machine, a leaf; requests are queued under it so that they go in order, and sent without it.

use scoutfs_env::OrdMap;
use scoutfs_env::Vec;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::time;
use scoutfs_format::msg::{FileLock as RawLock, FileLockReply as RawReply, MAX_PAYLOAD, MSG_FILE_LOCK};
use scoutfs_lock::LockError;
use scoutfs_lock::file_locks::{
    Answered, ByteRange, FileId, FileLock, FileLockClient, FileLockOp, FileLockReply, FileLockRequest,
    FileLockResult, Progress, Step,
};
use zerocopy::{FromBytes, IntoBytes};

use super::Store;
use crate::error::{Error, Result};
use crate::node::{Killed, LOOK, MEMORY_PAUSE};

/// Locks in one report to a new server.
const REPORT_LOCKS: usize = 200;
const _: () = assert!(REPORT_LOCKS * size_of::<RawLock>() <= MAX_PAYLOAD);

/// See the module.
pub(crate) struct FileLocks {
    state: Mutex<State>,
    /// There is an answer, or somebody may give up.
    changed: Condvar,
}

struct State {
    machine: FileLockClient,
    /// Not yet fetched by those who wait; there is room for all of them.
    answers: OrdMap<u64, Answered>,
    waiting: usize,
    /// Requests without an answer for which nobody waits any more.
    abandoned: OrdMap<u64, ()>,
}

impl FileLocks {
    pub fn new() -> Self {
        let (answers, abandoned) = (OrdMap::new(), OrdMap::new());
        let state = State { machine: FileLockClient::new(), answers, waiting: 0, abandoned };
        FileLocks { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Does for a program what it wants: takes a lock (`op` is `Set` or `Wait`) or, in mode null, gives it back.
    pub fn set(
        &self,
        store: &Store,
        op: FileLockOp,
        lock: &FileLock,
        via: u64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<FileLockResult> {
        let (mut progress, mut killed) = (Progress::Begun, Killed::default());
        loop {
            let step = self.state.lock().machine.next_step(op, lock, progress);
            let Some(step) = step else { return Ok(FileLockResult::Done) };
            let answered = match self.request(store, &step, via, interrupted) {
                // What was taken is too much, and nobody knows of it.
                Err(Error::NoMemory) if step.owed => {
                    store.client.check_patience(&mut killed)?;
                    time::sleep(MEMORY_PAUSE);
                    continue;
                }
                // What is given back was asked for, and counts as given back here.
                Err(Error::Interrupted) if step.op == FileLockOp::Lower && step.then == Progress::Done => {
                    return Ok(FileLockResult::Done);
                }
                answered => answered?,
            };
            if answered.result != FileLockResult::Done {
                return Ok(answered.result);
            }
            progress = step.then;
        }
    }

    /// Asks the server, and waits for the answer. One who waits for a lock may be interrupted, and then asks not to wait any
    /// longer; [`FileLocks::wake`] has him look. `via` names the open file.
    pub fn request(
        &self,
        store: &Store,
        step: &Step,
        via: u64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answered> {
        store.trans.check()?;
        let mut state = self.state.lock();
        let waiting = state.waiting + 1;
        state.answers.reserve(waiting)?;
        let abandoned = state.abandoned.len().saturating_add(waiting);
        state.abandoned.reserve(abandoned)?;
        let Some(request) = state.machine.request(step, via)? else {
            return Ok(Answered { id: 0, result: FileLockResult::Full, found: None });
        };
        let id = request.id;
        if let Err(e) = queue(store, &request) {
            state.machine.forget(id);
            return Err(e);
        }
        // Room for it was made.
        state.machine.sent(&request)?;
        state.waiting = waiting;
        drop(state);
        store.client.transmit();

        let mut state = self.state.lock();
        let (mut cancelled, mut killed) = (false, Killed::default());
        let answer = loop {
            if let Some(answered) = state.answers.remove(&id) {
                break Ok(answered);
            }
            let patience = store.trans.check().and_then(|()| store.client.check_patience(&mut killed));
            if let Err(e) = patience {
                match e {
                    // There is room.
                    Error::Interrupted => drop(state.abandoned.insert(id, ())),
                    _ => state.machine.forget(id),
                }
                break Err(e);
            }
            if step.op == FileLockOp::Wait && !cancelled && interrupted() {
                let cancel = state.machine.cancel(id);
                // Without memory it is tried again at the next look.
                cancelled = cancel.is_some_and(|cancel| queue(store, &cancel).is_ok());
                if cancelled {
                    drop(state);
                    store.client.transmit();
                    state = self.state.lock();
                    continue;
                }
            }
            (state, _) = self.changed.wait_timeout(state, LOOK);
        };
        state.waiting -= 1;
        answer
    }

    /// Whether an owner may have something of a range that he could give back.
    pub fn concerns(&self, file: FileId, owner: u64, range: &ByteRange) -> bool {
        self.state.lock().machine.concerns(file, owner, range)
    }

    /// An owner that has locks by this open file.
    pub fn owner_via(&self, file: FileId, via: u64) -> Option<u64> {
        self.state.lock().machine.owner_via(file, via)
    }

    /// An answer of the server. Can be called again when it failed for want of memory.
    pub fn answered(&self, payload: &[u8]) -> Result<()> {
        let raw = RawReply::ref_from_bytes(payload).map_err(|_| BAD_ANSWER)?;
        let reply = FileLockReply::from_raw(raw).map_err(lock_error)?;
        let mut state = self.state.lock();
        if let Some(answered) = state.machine.handle_reply(&reply).map_err(lock_error)?
            && state.abandoned.remove(&answered.id).is_none()
        {
            // There is room: it was reserved by who waits for it.
            state.answers.insert(answered.id, answered)?;
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Another server has taken over: `report` gets what is held here, some at a time, as it is sent.
    pub fn recover(&self, mut report: impl FnMut(&[RawLock]) -> Result<()>) -> Result<()> {
        let state = self.state.lock();
        let mut after = None;
        let mut part = Vec::with_capacity(REPORT_LOCKS)?;
        loop {
            part.clear();
            for lock in state.machine.reports(after).take(REPORT_LOCKS) {
                after = Some((lock.file, lock.owner, lock.range.start()));
                part.push(lock.to_raw())?;
            }
            if part.is_empty() {
                return Ok(());
            }
            report(&part)?;
        }
    }

    /// Has everybody look whether to give up.
    pub fn wake(&self) {
        let state = self.state.lock();
        drop(state);
        self.changed.notify_all();
    }
}

const BAD_ANSWER: Error = Error::Shutdown("an answer about a file's lock makes no sense");

fn queue(store: &Store, request: &FileLockRequest) -> Result<()> {
    store.client.enqueue(MSG_FILE_LOCK, request.to_raw().as_bytes())
}

fn lock_error(e: LockError) -> Error {
    match e {
        LockError::NoMemory(_) => Error::NoMemory,
        e => {
            scoutfs_env::error!("locks of files: {e}");
            BAD_ANSWER
        }
    }
}
