// SPDX-License-Identifier: GPL-2.0-only
//! The cluster locks of this mount: the protocol's machine, its waiters, and its messages.
//!
//! Grants are taken by the thread that receives messages, so a waiter waits for its grant alone. A range whose lock goes
//! back is committed and dropped by the worker.
//!
//! What the machine asks for is never lost for want of memory: it is kept (`undone`), the worker is woken, and what comes
//! after it waits its turn. Only who waits for a lock gets an errno.
//!
//! Locking: one mutex around the machine, a leaf; messages are queued under it so that those about one lock stay in order.

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::sync::{Condvar, Mutex, MutexGuard};
use scoutfs_env::{OrdMap, Vec};
use scoutfs_format::msg::{LockMessage, MAX_PAYLOAD, MSG_LOCK};
use scoutfs_lock::{Acquire, Cancel, LockClient, LockName, Message, Mode, Output, Revoked, Ticket};
use scoutfs_net::connection::RequestId;
use zerocopy::IntoBytes;

use super::Store;
use super::commit::Wish;
use super::locks::LockMode;
use crate::counters::Counter;
use crate::error::{Error, Result};

/// Locks that a mount keeps though nobody uses them.
const IDLE_LOCKS: usize = 10_000;
/// Locks in one report to a new server.
const REPORT_LOCKS: usize = 200;
const _: () = assert!(REPORT_LOCKS * size_of::<LockMessage>() <= MAX_PAYLOAD);

/// See the module.
pub(crate) struct LockTable {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    machine: LockClient<RequestId>,
    /// Those who have their lock and do not know it yet. There is room for all who wait.
    acquired: OrdMap<Ticket, ()>,
    waiting: usize,
    /// Locks that go back.
    invalidate: Vec<(LockName, Mode)>,
    /// What the machine asked for and could not be done yet.
    undone: Option<Output<RequestId>>,
}

impl LockTable {
    pub fn new() -> Self {
        LockTable {
            state: Mutex::new(State {
                machine: LockClient::new(IDLE_LOCKS),
                acquired: OrdMap::new(),
                waiting: 0,
                invalidate: Vec::new(),
                undone: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Uses a lock, waiting until it is granted. What was committed elsewhere under it is to be read from then on.
    pub fn acquire(&self, store: &Store, name: LockName, mode: LockMode) -> Result<()> {
        self.acquire_as_is(store, name, mode)?;
        let caught_up = store.catch_up();
        if caught_up.is_err() {
            self.release(store, name, mode);
        }
        caught_up
    }

    fn acquire_as_is(&self, store: &Store, name: LockName, mode: LockMode) -> Result<()> {
        let mut state = self.state.lock();
        let waiting = state.waiting + 1;
        state.acquired.reserve(waiting)?;
        let ticket = match state.machine.acquire(name, mode.into()).map_err(lock_error)? {
            Acquire::Granted(_) => return Ok(()),
            Acquire::Wait(ticket) => ticket,
        };
        store.counters.inc(Counter::LockWait);
        state.waiting = waiting;
        let result = self.wait(store, state, ticket);
        let mut state = self.state.lock();
        state.waiting -= 1;
        match result {
            Ok(()) => Ok(()),
            Err(e) => {
                if state.acquired.remove(&ticket).is_some()
                    || state.machine.cancel(name, ticket) == Cancel::Acquired
                {
                    state.machine.release(name, mode.into()).map_err(lock_error)?;
                }
                self.pump_later(store, &mut state);
                Err(e)
            }
        }
    }

    /// Waits until the user with this ticket has the lock. On an error it may have it, or get it.
    fn wait(&self, store: &Store, mut state: MutexGuard<'_, State>, ticket: Ticket) -> Result<()> {
        self.pump(store, &mut state)?;
        loop {
            if state.acquired.remove(&ticket).is_some() {
                return Ok(());
            }
            store.trans.check()?;
            state = self.changed.wait(state);
        }
    }

    /// Ends a use.
    pub fn release(&self, store: &Store, name: LockName, mode: LockMode) {
        let mut state = self.state.lock();
        if state.machine.release(name, mode.into()).map_err(lock_error).is_err() {
            store.trans.fail("the cluster locks are inconsistent");
        }
        self.pump_later(store, &mut state);
    }

    /// An answer of the server to a request for a lock.
    pub fn granted(&self, store: &Store, payload: &[u8]) -> Result<()> {
        let (payload, commits) = payload.split_at_checked(size_of::<LockMessage>()).unwrap_or((payload, &[]));
        let message = Message::parse(payload).map_err(lock_error)?;
        // Both count before anybody can use the lock.
        store.news.note(commits, store.identity.slot)?;
        store.trans.note_granted(message.version);
        let mut state = self.state.lock();
        state.machine.handle_grant(&message);
        store.counters.inc(Counter::LockGrant);
        self.pump_later(store, &mut state);
        Ok(())
    }

    /// Another server has taken over: `report` gets the locks that this mount holds, some at a time, as they are sent.
    pub fn recover(&self, mut report: impl FnMut(&[LockMessage]) -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        // What was to be said to the old server is said to nobody.
        if matches!(state.undone, Some(Output::Request(_) | Output::Answer { .. })) {
            state.undone = None;
        }
        state.machine.handle_new_server();
        let mut after = None;
        let mut part = Vec::with_capacity(REPORT_LOCKS)?;
        loop {
            part.clear();
            for message in state.machine.reports(after).take(REPORT_LOCKS) {
                after = Some(message.name);
                part.push(message.to_raw())?;
            }
            if part.is_empty() {
                return Ok(());
            }
            report(&part)?;
        }
    }

    /// After [`LockTable::recover`]: goes on with what is wanted.
    pub fn recovered(&self, store: &Store) {
        self.pump_later(store, &mut self.state.lock());
    }

    /// The server wants a lock back. May be called again with the same message when it failed for want of memory.
    pub fn revoked(&self, store: &Store, id: RequestId, payload: &[u8]) -> Result<()> {
        let message = Message::parse(payload).map_err(lock_error)?;
        store.counters.inc(Counter::LockRevoke);
        let mut state = self.state.lock();
        if let Revoked::Answer(answer) = state.machine.handle_revoke(id, &message) {
            store.client.answer(MSG_LOCK, id, 0, answer.to_raw().as_bytes())?;
        }
        self.pump_later(store, &mut state);
        Ok(())
    }

    /// Commits and drops what the locks that go back cover. For the worker; true when there was something to do. What an error
    /// leaves undone is done by the next call.
    pub fn invalidate(&self, store: &Store) -> Result<bool> {
        let next = {
            let mut state = self.state.lock();
            self.pump(store, &mut state)?;
            state.invalidate.last().copied()
        };
        let Some((name, keep)) = next else { return Ok(false) };
        let commit_nr = if planted(Fault::RevokeWithoutCommit) {
            store.commit_nr.load(core::sync::atomic::Ordering::Acquire)
        } else {
            store.commit(Wish::default())?
        };
        if keep == Mode::Null && !planted(Fault::KeepCacheOnRevoke) {
            let (first, last) = name.range();
            store.items.invalidate(first, last)?;
        }
        let mut state = self.state.lock();
        // More may have come meanwhile; each lock is there once.
        state.invalidate.retain(|(other, _)| *other != name);
        state.machine.invalidated(name, commit_nr).map_err(lock_error)?;
        self.pump(store, &mut state)?;
        Ok(true)
    }

    /// Wakes all who wait, when the mount has failed.
    pub fn wake(&self) {
        let state = self.state.lock();
        drop(state);
        self.changed.notify_all();
    }

    /// As [`LockTable::pump`], and leaves what cannot be done now to the worker.
    fn pump_later(&self, store: &Store, state: &mut State) {
        match self.pump(store, state) {
            Ok(()) => {}
            Err(Error::NoMemory) => store.wake_worker(),
            Err(_) => store.trans.fail("the cluster locks are inconsistent"),
        }
    }

    /// Does what the machine asks for, in order. What could not be done is done by the next call.
    fn pump(&self, store: &Store, state: &mut State) -> Result<()> {
        while let Some(output) = state.undone.take().or_else(|| state.machine.poll_output()) {
            if let Err(e) = self.carry_out(store, state, output) {
                state.undone = Some(output);
                return Err(e);
            }
        }
        Ok(())
    }

    fn carry_out(&self, store: &Store, state: &mut State, output: Output<RequestId>) -> Result<()> {
        match output {
            Output::Request(message) => store.client.post(MSG_LOCK, message.to_raw().as_bytes())?,
            Output::Answer { token, message } => {
                store.client.answer(MSG_LOCK, token, 0, message.to_raw().as_bytes())?;
            }
            Output::Invalidate { name, keep, .. } => {
                state.invalidate.push((name, keep))?;
                store.wake_worker();
            }
            Output::Acquired { ticket, .. } => {
                state.acquired.insert(ticket, ())?;
                self.changed.notify_all();
            }
        }
        Ok(())
    }
}

fn lock_error(e: scoutfs_lock::LockError) -> Error {
    match e {
        scoutfs_lock::LockError::NoMemory(_) => Error::NoMemory,
        e => {
            scoutfs_env::error!("cluster locks: {e}");
            Error::Shutdown("the cluster locks are inconsistent")
        }
    }
}
