// SPDX-License-Identifier: GPL-2.0-only
//! The cluster locks of this mount: the protocol's machine, its waiters, and its messages.
//!
//! Grants are taken by the thread that receives messages, so a waiter waits for its grant alone. A range whose lock goes
//! back is committed and dropped by a thread of its own (`node/revoker.rs`).
//!
//! What the machine asks for is never lost for want of memory: it is kept (`undone`), that thread is woken, and what comes
//! after it waits its turn. Only who waits for a lock gets an errno.
//!
//! Locking: one mutex around the machine, a leaf; messages are queued under it so that those about one lock stay in order. Threads
//! are woken when it is free again ([`LockTable::end`]), else they would wake to wait for it.

use core::time::Duration;

use scoutfs_env::probe::{self, Event, Held};
use scoutfs_env::sync::atomic::{AtomicU64, Ordering};
use scoutfs_env::sync::{Condvar, Mutex, MutexGuard};
use scoutfs_env::{OrdMap, Vec};
use scoutfs_format::msg::{Fences, LockMessage, MAX_PAYLOAD, MSG_LOCK};
use scoutfs_lock::{Acquire, Cancel, LockClient, LockName, Message, Mode, Opens, Output, Revoked, Ticket};
use scoutfs_net::connection::RequestId;
use zerocopy::FromBytes;

use super::Store;
use super::fences::FencesAtGrants;
use super::flush::{ByteRange, Flush};
use super::locks::LockMode;
use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::node::{Killed, LOOK};

/// Locks that a mount keeps though nobody uses them.
const IDLE_LOCKS: usize = 10_000;
/// Locks in one report to a new server.
const REPORT_LOCKS: usize = 200;
const _: () = assert!(REPORT_LOCKS * size_of::<LockMessage>() <= MAX_PAYLOAD);

/// What waits for memory is tried again after this long.
const MEMORY_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct LockTable {
    state: Mutex<State>,
    /// Somebody has a lock, or may be a guest, or a guest is done.
    changed: Condvar,
    /// There is something for the revoker.
    revoked: Condvar,
    /// What was done for locks that go back.
    progress: AtomicU64,
}

/// How a lock is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// As granted.
    Granted,
    /// While it goes back, see [`super::flush`].
    Guest,
    /// By the thread that gives it back.
    GoesBack,
}

/// A lock that goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revoke {
    /// Which.
    pub name: LockName,
    /// How it is held until then.
    pub held: Mode,
    /// What of it stays.
    pub keep: Mode,
}

struct State {
    machine: LockClient<RequestId>,
    /// Those who have their lock and do not know it yet. There is room for all who wait.
    acquired: OrdMap<Ticket, ()>,
    waiting: usize,
    /// Locks that go back.
    invalidate: Vec<Revoke>,
    /// What the machine asked for and could not be done yet.
    undone: Option<Output<RequestId>>,
    /// Inodes that are open on other mounts, of locks that are held for writing; none of them is empty.
    elsewhere: OrdMap<LockName, Opens>,
    /// Pages that are dropped while their lock goes back.
    flush: Flush,
    /// What was known of fences when the locks came.
    fences: FencesAtGrants,
    /// The revoker is to end.
    stopped: bool,
    /// Whom to wake when the mutex is free.
    wake: Wake,
}

/// Who is to look again.
#[derive(Clone, Copy, Default)]
struct Wake {
    /// Those who wait for locks.
    users: bool,
    /// The revoker.
    revoker: bool,
}

impl State {
    /// Tells a simulation how a lock is held now.
    fn tell_held(&self, name: LockName) {
        let held = match self.machine.mode(name) {
            Mode::Null => Held::No,
            Mode::Read => Held::Read,
            Mode::Write => Held::Write,
        };
        let first_ino = name.inodes().map_or(u64::MAX, |(first, _)| first);
        probe::tell(Event::Lock { first_ino, held });
    }
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
                elsewhere: OrdMap::new(),
                flush: Flush::default(),
                fences: FencesAtGrants::default(),
                stopped: false,
                wake: Wake::default(),
            }),
            changed: Condvar::new(),
            revoked: Condvar::new(),
            progress: AtomicU64::new(0),
        }
    }

    /// Uses a lock, waiting until it is granted, or until the program is killed that waits ([`Error::Interrupted`]). What was
    /// committed elsewhere under it is to be read from then on. A request of a kernel for `pages` of an inode may be let in as a
    /// guest while they are dropped. If it has to be waited for, the server is asked for those that will be wanted `next` in the same
    /// breath, so that they are on their way, too, and there when their turn comes, or nearly.
    pub fn acquire(
        &self,
        store: &Store,
        name: LockName,
        mode: LockMode,
        pages: Option<Pages>,
        next: impl Iterator<Item = (LockName, LockMode)>,
    ) -> Result<Use> {
        if self.acquire_as_is(store, name, mode, pages, next)? == Use::Guest {
            return Ok(Use::Guest);
        }
        self.catch_up(store, name, mode).map(|()| Use::Granted)
    }

    /// As [`LockTable::acquire`], but false if the lock is not there to be used right now.
    pub fn try_acquire(&self, store: &Store, name: LockName, mode: LockMode) -> Result<bool> {
        if !self.state.lock().machine.try_acquire(name, mode.into()) {
            return Ok(false);
        }
        self.catch_up(store, name, mode).map(|()| true)
    }

    /// Catches up with what was committed elsewhere under a lock that was granted; without that it is not used.
    fn catch_up(&self, store: &Store, name: LockName, mode: LockMode) -> Result<()> {
        let caught_up = store.catch_up();
        if caught_up.is_err() {
            self.release(store, name, mode, Use::Granted);
        }
        caught_up
    }

    fn acquire_as_is(
        &self,
        store: &Store,
        name: LockName,
        mode: LockMode,
        pages: Option<Pages>,
        next: impl Iterator<Item = (LockName, LockMode)>,
    ) -> Result<Use> {
        let mut state = self.state.lock();
        if state.machine.try_acquire(name, mode.into()) {
            return Ok(Use::Granted);
        }
        let waiting = state.waiting + 1;
        state.acquired.reserve(waiting)?;
        let ticket = match state.machine.acquire(name, mode.into()).map_err(lock_error)? {
            Acquire::Granted(_) => return Ok(Use::Granted),
            Acquire::Wait(ticket) => ticket,
        };
        store.counters.inc(Counter::LockWait);
        state.waiting = waiting;
        for (name, mode) in next {
            ask_for(&mut state.machine, name, mode.into());
        }
        let result = self.wait(store, state, ticket, name, pages);
        let mut state = self.state.lock();
        state.waiting -= 1;
        if !matches!(result, Ok(Use::Granted)) {
            if state.acquired.remove(&ticket).is_some()
                || state.machine.cancel(name, ticket) == Cancel::Acquired
            {
                state.machine.release(name, mode.into()).map_err(lock_error)?;
            }
            self.pump_later(store, &mut state);
        }
        self.end(state);
        result
    }

    /// Waits until the user with this ticket has the lock, or is let in as a guest. Unless it was granted it may have the lock,
    /// or get it.
    fn wait(
        &self,
        store: &Store,
        mut state: MutexGuard<'_, State>,
        ticket: Ticket,
        name: LockName,
        pages: Option<Pages>,
    ) -> Result<Use> {
        self.pump(store, &mut state)?;
        // Who waits does not come to give the mutex up by himself.
        self.wake_all(core::mem::take(&mut state.wake));
        let mut killed = Killed::default();
        loop {
            if state.acquired.remove(&ticket).is_some() {
                return Ok(Use::Granted);
            }
            store.trans.check()?;
            store.client.check_patience(&mut killed)?;
            if let Some(pages) = &pages
                && state.machine.mode(name) >= pages.guest.into()
                && state.flush.admit(pages.ino, pages.range)
            {
                return Ok(Use::Guest);
            }
            (state, _) = self.changed.wait_timeout(state, LOOK);
        }
    }

    /// Ends a use.
    pub fn release(&self, store: &Store, name: LockName, mode: LockMode, used: Use) {
        if used == Use::GoesBack {
            return;
        }
        let mut state = self.state.lock();
        if used == Use::Guest {
            state.flush.leave();
            drop(state);
            self.note_progress();
            self.changed.notify_all();
            return;
        }
        if state.machine.release(name, mode.into()).map_err(lock_error).is_err() {
            store.trans.fail("the cluster locks are inconsistent");
        }
        self.pump_later(store, &mut state);
        self.end(state);
    }

    /// Changes whenever this mount had lost the lock in between; none while it does not hold it.
    pub fn refresh(&self, name: LockName) -> Option<u64> {
        self.state.lock().machine.refresh(name)
    }

    /// How many fences were known, at most, when the lock of an inode that this mount holds was granted.
    pub fn fences_at_grant(&self, ino: u64) -> u32 {
        let state = self.state.lock();
        state.machine.refresh(LockName::group_of(ino)).map_or(u32::MAX, |refresh| state.fences.known(refresh))
    }

    /// Whether an inode is open on another mount. True only while its lock is held for writing.
    pub fn is_open_elsewhere(&self, ino: u64) -> bool {
        let name = LockName::group_of(ino);
        self.state.lock().elsewhere.get(&name).is_some_and(|opens| opens.contains(ino))
    }

    /// An answer of the server to a request for a lock.
    pub fn granted(&self, store: &Store, payload: &[u8]) -> Result<()> {
        let (message, opens, rest) = Message::parse(payload).map_err(lock_error)?;
        let (fences, commits) = Fences::ref_from_prefix(rest)
            .map_err(|_| Error::Shutdown("an answer of the server has a wrong length"))?;
        // All of it counts before anybody can use the lock.
        store.fences.note(fences);
        store.news.note(commits, store.identity.slot)?;
        store.trans.note_granted(message.version);
        let mut state = self.state.lock();
        if message.mode == Mode::Write && !opens.is_empty() {
            state.elsewhere.insert(message.name, opens)?;
        }
        state.machine.handle_grant(&message);
        if let Some(refresh) = state.machine.refresh(message.name) {
            state.fences.note(refresh, store.fences.newest());
        }
        state.tell_held(message.name);
        store.counters.inc(Counter::LockGrant);
        self.pump_later(store, &mut state);
        self.end(state);
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
        let mut state = self.state.lock();
        self.pump_later(store, &mut state);
        self.end(state);
    }

    /// The server wants a lock back. May be called again with the same message when it failed for want of memory.
    pub fn revoked(&self, store: &Store, id: RequestId, payload: &[u8]) -> Result<()> {
        let (message, _) = Message::parse_whole(payload).map_err(lock_error)?;
        store.counters.inc(Counter::LockRevoke);
        let mut state = self.state.lock();
        if let Revoked::Answer(answer) = state.machine.handle_revoke(id, &message) {
            let payload = payload_of(store, &answer)?;
            store.client.answer(MSG_LOCK, id, 0, &payload)?;
        }
        self.pump_later(store, &mut state);
        self.end(state);
        Ok(())
    }

    /// Waits until locks go back and tells how many; none when the revoker is to end.
    pub fn wait_for_revokes(&self, store: &Store) -> Option<usize> {
        let mut state = self.state.lock();
        loop {
            match self.pump(store, &mut state) {
                Ok(()) | Err(Error::NoMemory) => {}
                Err(_) => store.trans.fail("the cluster locks are inconsistent"),
            }
            self.wake_all(core::mem::take(&mut state.wake));
            if state.stopped || store.trans.check().is_err() {
                return None;
            }
            if !state.invalidate.is_empty() {
                return Some(state.invalidate.len());
            }
            state = match state.undone {
                Some(_) => self.revoked.wait_timeout(state, MEMORY_PAUSE).0,
                None => self.revoked.wait(state),
            };
        }
    }

    /// The `n`-th of the locks that go back.
    pub fn revoke(&self, n: usize) -> Option<Revoke> {
        self.state.lock().invalidate.get(n).copied()
    }

    /// What the first of the locks that go back covers is committed and dropped.
    pub fn invalidated(&self, store: &Store, commit_nr: u64) -> Result<()> {
        let mut state = self.state.lock();
        if state.invalidate.is_empty() {
            return Ok(());
        }
        self.note_progress();
        // Each lock is there once.
        let Revoke { name, .. } = state.invalidate.remove(0);
        state.elsewhere.remove(&name);
        state.machine.invalidated(name, commit_nr).map_err(lock_error)?;
        state.tell_held(name);
        self.pump_later(store, &mut state);
        self.end(state);
        Ok(())
    }

    /// Something was done for a lock that goes back.
    fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// How much was done for locks that go back.
    pub fn revoke_progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Ends the revoker.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.revoked.notify_all();
    }

    /// A kernel drops pages of an inode with `drop_pages`, which may wait for requests for these pages: they come in as guests,
    /// and then what they left is dropped, too. Nobody else uses the inode.
    pub fn flush(&self, ino: u64, range: ByteRange, mut drop_pages: impl FnMut(ByteRange)) {
        let mut next = Some(range);
        while let Some(range) = next {
            self.state.lock().flush.begin(ino, range);
            // Some may be waiting.
            self.changed.notify_all();
            drop_pages(range);
            let mut state = self.state.lock();
            state.flush.close();
            while !state.flush.is_quiet() {
                state = self.changed.wait(state);
            }
            next = state.flush.pop_again();
        }
    }

    /// Wakes all who wait, when the mount has failed.
    pub fn wake(&self) {
        let state = self.state.lock();
        drop(state);
        self.changed.notify_all();
        self.revoked.notify_all();
    }

    /// As [`LockTable::pump`], and leaves what cannot be done now to the revoker.
    fn pump_later(&self, store: &Store, state: &mut State) {
        match self.pump(store, state) {
            Ok(()) => {}
            Err(Error::NoMemory) => state.wake.revoker = true,
            Err(_) => store.trans.fail("the cluster locks are inconsistent"),
        }
    }

    /// Gives the mutex up, and then wakes who is to look.
    fn end(&self, mut state: MutexGuard<'_, State>) {
        let wake = core::mem::take(&mut state.wake);
        drop(state);
        self.wake_all(wake);
    }

    fn wake_all(&self, wake: Wake) {
        if wake.users {
            self.changed.notify_all();
        }
        if wake.revoker {
            self.revoked.notify_all();
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
            Output::Request(message) => store.client.post(MSG_LOCK, &payload_of(store, &message)?)?,
            Output::Answer { token, message } => {
                store.client.answer(MSG_LOCK, token, 0, &payload_of(store, &message)?)?;
            }
            Output::Invalidate { name, held, keep } => {
                state.invalidate.push(Revoke { name, held, keep })?;
                state.wake.revoker = true;
            }
            Output::Acquired { ticket, .. } => {
                state.acquired.insert(ticket, ())?;
                state.wake.users = true;
            }
        }
        Ok(())
    }
}

/// What a request of a kernel for pages is about, which may be let in while their lock goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    /// Of this inode.
    pub ino: u64,
    /// These bytes.
    pub range: ByteRange,
    /// What a guest needs: to read pages that are dropped again, no more than a lock for reading.
    pub guest: LockMode,
}

/// Has the machine ask for a lock, unless it is held or on its way. Nobody uses it before it is acquired: who asked holds nothing
/// meanwhile, and it may go again before he comes.
fn ask_for<T: Copy>(machine: &mut LockClient<T>, name: LockName, mode: Mode) {
    match machine.acquire(name, mode) {
        // What was asked for is still wanted.
        Ok(Acquire::Wait(ticket)) => drop(machine.cancel(name, ticket)),
        Ok(Acquire::Granted(_)) => drop(machine.release(name, mode)),
        // Whoever wants it asks himself.
        Err(_) => {}
    }
}

/// A message to the server; one that gives all of a lock back says what of it is open here.
fn payload_of(store: &Store, message: &Message) -> Result<Vec<u8>> {
    let opens = if message.mode == Mode::Null { store.opens.of(message.name) } else { Opens::default() };
    Ok(message.to_payload(&opens)?)
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

#[cfg(test)]
mod tests;
