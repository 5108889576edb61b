// SPDX-License-Identifier: GPL-2.0-only
//! The locks of one mount, and who uses them.

use core::ops::Bound;

use scoutfs_env::{OrdMap, Vec};

use crate::ready::{Link, Linked, ReadyList};
use crate::{LockError, LockName, Message, Mode};

/// A user of a lock that has to wait; unique in the life of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a user of a lock gets to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Version of the grant of write; items written under the lock have at least this one. 0 while the mount only
    /// reads.
    pub version: u64,
    /// Changes whenever the mount had lost the lock in between; what was remembered under another number may be
    /// out of date.
    pub refresh: u64,
}

/// Outcome of [`LockClient::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquire {
    /// The lock is in use by the caller now.
    Granted(Granted),
    /// [`Output::Acquired`] with this ticket comes later; until then the caller may [`LockClient::cancel`].
    Wait(Ticket),
}

/// Outcome of [`LockClient::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The ticket will not be heard of again.
    Cancelled,
    /// Too late: [`Output::Acquired`] was given out, so the lock must be released.
    Acquired,
}

/// Outcome of [`LockClient::handle_revoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Answer with this now.
    Answer(Message),
    /// [`Output::Answer`] comes later.
    Later,
}

/// What the host of a [`LockClient`] must do. `T` names a request of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<T> {
    /// Send this request to the server.
    Request(Message),
    /// Answer the server's request `token`.
    Answer {
        /// From [`LockClient::handle_revoke`].
        token: T,
        /// The answer.
        message: Message,
    },
    /// Commit what was changed under the lock; when `keep` is null, also drop all that is cached of its range. Then
    /// call [`LockClient::invalidated`]. Nobody uses the lock in a mode above `keep` until then.
    Invalidate {
        /// The lock.
        name: LockName,
        /// How it is held.
        held: Mode,
        /// How it will be held: null or read.
        keep: Mode,
    },
    /// A user that waited has the lock.
    Acquired {
        /// From [`LockClient::acquire`].
        ticket: Ticket,
        /// The lock.
        name: LockName,
        /// The mode that was asked for.
        mode: Mode,
        /// What it gets to know.
        granted: Granted,
    },
}

/// A user that waits, or that has the lock and was not told yet.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    mode: Mode,
    /// It counts as a user already.
    acquired: bool,
}

#[derive(Debug)]
struct Requested {
    mode: Mode,
    /// Newest generation when it was sent. A grant that answers it has a higher one, and one that was made before it
    /// does not.
    floor: u64,
    to_send: bool,
}

#[derive(Debug)]
struct Revoke<T> {
    token: T,
    keep: Mode,
    generation: u64,
}

#[derive(Debug)]
struct Invalidating {
    keep: Mode,
    told: bool,
}

#[derive(Debug)]
struct Lock<T> {
    link: Link,
    /// How it is held; lowered only when it was invalidated.
    mode: Mode,
    version: u64,
    refresh: u64,
    /// Of the newest grant or revoke.
    generation: u64,
    readers: u64,
    writers: u64,
    waiters: Vec<Waiter>,
    requested: Option<Requested>,
    revoke: Option<Revoke<T>>,
    invalidating: Option<Invalidating>,
    /// Given up by this side: the server must be told once it is invalidated.
    give_back: bool,
    /// Used since the clock hand passed.
    referenced: bool,
}

impl<T> Linked for Lock<T> {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

impl<T> Lock<T> {
    fn new() -> Self {
        Lock {
            link: Link::default(),
            mode: Mode::Null,
            version: 0,
            refresh: 0,
            generation: 0,
            readers: 0,
            writers: 0,
            waiters: Vec::new(),
            requested: None,
            revoke: None,
            invalidating: None,
            give_back: false,
            referenced: true,
        }
    }

    /// The mode up to which new users may come.
    fn usable(&self) -> Mode {
        let revoked = self.revoke.as_ref().map_or(Mode::Write, |r| r.keep);
        let invalidated = self.invalidating.as_ref().map_or(Mode::Write, |i| i.keep);
        self.mode.min(revoked).min(invalidated)
    }

    fn has_users_above(&self, keep: Mode) -> bool {
        self.writers > 0 || (keep == Mode::Null && self.readers > 0)
    }

    /// Counts a user in this mode, if there may be one more right now.
    fn try_use(&mut self, mode: Mode) -> bool {
        self.referenced = true;
        let usable = mode <= self.usable();
        if usable {
            self.use_in(mode);
        }
        usable
    }

    fn use_in(&mut self, mode: Mode) {
        match mode {
            Mode::Write => self.writers = self.writers.saturating_add(1),
            Mode::Read | Mode::Null => self.readers = self.readers.saturating_add(1),
        }
    }

    fn granted(&self) -> Granted {
        Granted { version: self.version, refresh: self.refresh }
    }

    fn nothing_going_on(&self) -> bool {
        self.readers == 0
            && self.writers == 0
            && self.waiters.is_empty()
            && self.requested.is_none()
            && self.revoke.is_none()
            && self.invalidating.is_none()
            && !self.give_back
    }

    /// Takes every step that has become possible.
    fn settle(&mut self) {
        let usable = self.usable();
        let mut wanted = Mode::Null;
        for i in 0..self.waiters.len() {
            let Some(waiter) = self.waiters.get_mut(i) else {
                break;
            };
            if waiter.acquired {
                continue;
            }
            let mode = waiter.mode;
            if mode <= usable {
                waiter.acquired = true;
                self.use_in(mode);
            } else {
                wanted = wanted.max(mode);
            }
        }
        if self.invalidating.is_some() {
            return;
        }
        if let Some(keep) = self.revoke.as_ref().map(|r| r.keep) {
            if self.mode > keep && !self.has_users_above(keep) {
                self.invalidating = Some(Invalidating { keep, told: false });
            }
            return;
        }
        if self.requested.is_some() {
            return;
        }
        if wanted > self.mode || self.give_back {
            self.give_back = false;
            self.requested = Some(Requested { mode: wanted, floor: 0, to_send: true });
        }
    }
}

/// The locks of one mount, and who uses them.
///
/// - `handle_*`: [`handle_grant`](Self::handle_grant), [`handle_refused`](Self::handle_refused),
///   [`handle_revoke`](Self::handle_revoke), [`handle_new_server`](Self::handle_new_server).
/// - Commands: [`acquire`](Self::acquire), [`release`](Self::release), [`cancel`](Self::cancel),
///   [`invalidated`](Self::invalidated), [`shrink`](Self::shrink).
/// - [`poll_output`](Self::poll_output) after each of them, until there is none.
/// - Getters: [`mode`](Self::mode), [`len`](Self::len), [`reports`](Self::reports).
///
/// Users count: a lock is in use as often as it was acquired and not released, in either mode at once when it is
/// held for writing (users of one mount exclude each other by other means). A user must not acquire a lock again
/// that it already uses: a revoke that came in between would make it wait for itself.
///
/// A lock stays with the mount when nobody uses it any more, until the server wants it back or there are too many:
/// then each new lock gives at most one idle lock back, so that no storm of messages arises.
///
/// Only [`acquire`](Self::acquire) allocates; everything that gives something back cannot fail for want of memory.
#[derive(Debug)]
pub struct LockClient<T> {
    locks: OrdMap<LockName, Lock<T>>,
    ready: ReadyList,
    max_locks: usize,
    /// Idle locks are looked for from here on.
    hand: Option<LockName>,
    last_ticket: u64,
    last_refresh: u64,
    newest_generation: u64,
    commit_nr: u64,
}

impl<T: Copy> LockClient<T> {
    /// A mount without locks that keeps about `max_locks` of them.
    pub const fn new(max_locks: usize) -> Self {
        LockClient {
            locks: OrdMap::new(),
            ready: ReadyList::new(),
            max_locks,
            hand: None,
            last_ticket: 0,
            last_refresh: 0,
            newest_generation: 0,
            commit_nr: 0,
        }
    }

    /// Number of locks that are held, asked for or being given back.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether there are no locks.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// How a lock is held by the mount; while it is being given back, still the old mode.
    pub fn mode(&self, name: LockName) -> Mode {
        self.locks.get(&name).map_or(Mode::Null, |lock| lock.mode)
    }

    /// [`Granted::refresh`] of a lock that the mount holds.
    pub fn refresh(&self, name: LockName) -> Option<u64> {
        self.locks.get(&name).filter(|lock| lock.mode > Mode::Null).map(|lock| lock.refresh)
    }

    /// Uses a lock, or begins to wait for it. On error nothing has changed.
    pub fn acquire(&mut self, name: LockName, mode: Mode) -> Result<Acquire, LockError> {
        if mode == Mode::Null {
            return Err(LockError::AcquireNull { name });
        }
        if let Some(lock) = self.locks.get_mut(&name)
            && lock.try_use(mode)
        {
            return Ok(Acquire::Granted(lock.granted()));
        }
        let ticket = Ticket(self.last_ticket.saturating_add(1));
        let waiter = Waiter { ticket, mode, acquired: false };
        match self.locks.get_mut(&name) {
            Some(lock) => lock.waiters.push(waiter)?,
            None => {
                let mut lock = Lock::new();
                lock.waiters.push(waiter)?;
                self.locks.insert(name, lock)?;
                if self.locks.len() > self.max_locks {
                    self.give_back_idle(1, 8);
                }
            }
        }
        self.last_ticket = ticket.0;
        self.settle(name);
        Ok(Acquire::Wait(ticket))
    }

    /// Uses a lock, if it can be used in this mode right now; else nothing changes, and nothing is asked for.
    pub fn try_acquire(&mut self, name: LockName, mode: Mode) -> bool {
        mode != Mode::Null && self.locks.get_mut(&name).is_some_and(|lock| lock.try_use(mode))
    }

    /// Ends one use of a lock in the mode in which it was acquired.
    pub fn release(&mut self, name: LockName, mode: Mode) -> Result<(), LockError> {
        let error = LockError::NotInUse { name, mode };
        let lock = self.locks.get_mut(&name).ok_or(error)?;
        let users = match mode {
            Mode::Write => &mut lock.writers,
            Mode::Read => &mut lock.readers,
            Mode::Null => return Err(error),
        };
        *users = users.checked_sub(1).ok_or(error)?;
        if lock.revoke.is_some() {
            self.settle(name);
        }
        Ok(())
    }

    /// Gives up waiting.
    pub fn cancel(&mut self, name: LockName, ticket: Ticket) -> Cancel {
        let Some(lock) = self.locks.get_mut(&name) else {
            return Cancel::Acquired;
        };
        let Some(at) = lock.waiters.iter().position(|w| w.ticket == ticket) else {
            return Cancel::Acquired;
        };
        let waiter = lock.waiters.remove(at);
        if waiter.acquired {
            // It cannot fail: the waiter was counted when it acquired the lock.
            let _ = self.release(name, waiter.mode);
        }
        self.ready.push(&mut self.locks, name);
        Cancel::Cancelled
    }

    /// What [`Output::Invalidate`] asked for is done. `commit_nr` is the mount's newest durable commit number.
    pub fn invalidated(&mut self, name: LockName, commit_nr: u64) -> Result<(), LockError> {
        let lock = self.locks.get_mut(&name);
        let Some(lock) = lock.filter(|l| l.invalidating.as_ref().is_some_and(|i| i.told)) else {
            return Err(LockError::NotInvalidating { name });
        };
        if let Some(done) = lock.invalidating.take() {
            lock.mode = lock.mode.min(done.keep);
            lock.version = 0;
        }
        self.commit_nr = self.commit_nr.max(commit_nr);
        self.settle(name);
        Ok(())
    }

    /// The server has answered a request. Grants that nobody waits for (duplicates) are ignored.
    pub fn handle_grant(&mut self, message: &Message) {
        self.newest_generation = self.newest_generation.max(message.generation);
        let Some(lock) = self.locks.get_mut(&message.name) else {
            return;
        };
        let Some(requested) = &mut lock.requested else {
            return;
        };
        if message.generation <= requested.floor {
            return;
        }
        if requested.mode != message.mode || requested.to_send || message.generation <= lock.generation {
            // Not what was asked for: the server has taken a late duplicate for a request, and may have taken the
            // request, which is older than this grant, for a duplicate. Or the grant was overtaken by its revoke,
            // and is no longer held.
            requested.to_send = true;
            self.ready.push(&mut self.locks, message.name);
            return;
        }
        lock.requested = None;
        lock.generation = message.generation;
        if message.mode > lock.mode {
            if lock.mode == Mode::Null {
                self.last_refresh = self.last_refresh.saturating_add(1);
                lock.refresh = self.last_refresh;
            }
            lock.mode = message.mode;
            lock.version = message.version;
        }
        self.settle(message.name);
    }

    /// The server could not handle a request (no memory, not ready). It is sent again; wait a moment before the
    /// next [`poll_output`](Self::poll_output).
    pub fn handle_refused(&mut self, name: LockName) {
        if let Some(lock) = self.locks.get_mut(&name)
            && let Some(requested) = &mut lock.requested
        {
            requested.to_send = true;
            self.ready.push(&mut self.locks, name);
        }
    }

    /// The server wants a lock back, or part of it. `token` names its request.
    pub fn handle_revoke(&mut self, token: T, message: &Message) -> Revoked {
        self.newest_generation = self.newest_generation.max(message.generation);
        let answer = |held: Mode, commit_nr: u64| {
            Revoked::Answer(Message {
                name: message.name,
                version: 0,
                commit_nr,
                generation: message.generation,
                old_mode: held,
                mode: held,
            })
        };
        let Some(lock) = self.locks.get_mut(&message.name) else {
            return answer(Mode::Null, self.commit_nr);
        };
        if message.generation <= lock.generation {
            // A duplicate: either of the revoke that is being carried out, or of one that is done with.
            return match &mut lock.revoke {
                Some(revoke) if revoke.generation == message.generation => {
                    revoke.token = token;
                    Revoked::Later
                }
                _ => answer(lock.mode, self.commit_nr),
            };
        }
        lock.generation = message.generation;
        if lock.mode <= message.mode {
            return answer(lock.mode, self.commit_nr);
        }
        let keep = match &lock.revoke {
            Some(revoke) => revoke.keep.min(message.mode),
            None => message.mode,
        };
        lock.revoke = Some(Revoke { token, keep, generation: message.generation });
        self.settle(message.name);
        Revoked::Later
    }

    /// Another server has taken over: what the old one asked is void, and what it was asked is asked again. Call it
    /// before anything of the new server is handled, then send it the [`reports`](Self::reports).
    pub fn handle_new_server(&mut self) {
        let mut next = self.locks.first_key_value().map(|(name, _)| *name);
        while let Some(name) = next {
            if let Some(lock) = self.locks.get_mut(&name) {
                lock.revoke = None;
                match &mut lock.requested {
                    Some(r) if r.mode == Mode::Null => lock.requested = None,
                    Some(r) => r.to_send = true,
                    None => {}
                }
            }
            self.settle(name);
            next = self.locks.higher(&name).map(|(name, _)| *name);
        }
    }

    /// What the mount holds, in the order of names after `after`, for a new server. A lock that is being given back
    /// is reported as it was.
    pub fn reports(&self, after: Option<LockName>) -> impl Iterator<Item = Message> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.locks.range::<LockName>((from, Bound::Unbounded)).filter(|(_, lock)| lock.mode > Mode::Null).map(
            |(name, lock)| Message {
                name: *name,
                version: lock.version,
                commit_nr: self.commit_nr,
                generation: lock.generation,
                old_mode: lock.mode,
                mode: lock.mode,
            },
        )
    }

    /// Begins to give back up to `count` locks that nobody uses, least recently used ones first (about). Returns how
    /// many.
    pub fn shrink(&mut self, count: usize) -> usize {
        self.give_back_idle(count, self.locks.len().saturating_mul(2))
    }

    /// The hand goes round over the locks; one that was used since it passed is spared once.
    fn give_back_idle(&mut self, count: usize, steps: usize) -> usize {
        let mut given = 0;
        for _ in 0..steps {
            if given == count {
                break;
            }
            let next = match &self.hand {
                Some(hand) => self.locks.higher(hand),
                None => None,
            };
            let Some((&name, _)) = next.or_else(|| self.locks.first_key_value()) else {
                break;
            };
            self.hand = Some(name);
            let Some(lock) = self.locks.get_mut(&name) else {
                break;
            };
            if !core::mem::take(&mut lock.referenced) && lock.mode > Mode::Null && lock.nothing_going_on() {
                lock.give_back = true;
                lock.invalidating = Some(Invalidating { keep: Mode::Null, told: false });
                self.ready.push(&mut self.locks, name);
                given += 1;
            }
        }
        given
    }

    fn settle(&mut self, name: LockName) {
        if let Some(lock) = self.locks.get_mut(&name) {
            lock.settle();
            self.ready.push(&mut self.locks, name);
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        while let Some(name) = self.ready.first() {
            if let Some(output) = self.output_of(name) {
                return Some(output);
            }
            self.ready.pop(&mut self.locks);
            if let Some(lock) = self.locks.get(&name)
                && lock.mode == Mode::Null
                && lock.nothing_going_on()
            {
                self.locks.remove(&name);
            }
        }
        None
    }

    fn output_of(&mut self, name: LockName) -> Option<Output<T>> {
        let lock = self.locks.get_mut(&name)?;
        let message = Message {
            name,
            version: 0,
            commit_nr: self.commit_nr,
            generation: lock.generation,
            old_mode: lock.mode,
            mode: lock.mode,
        };
        if lock.revoke.as_ref().is_some_and(|r| lock.mode <= r.keep)
            && let Some(revoke) = lock.revoke.take()
        {
            // The answer gives the lock back, if that was under way.
            lock.give_back &= lock.mode > Mode::Null;
            lock.settle();
            return Some(Output::Answer {
                token: revoke.token,
                message: Message { generation: revoke.generation, ..message },
            });
        }
        if let Some(invalidating) = &mut lock.invalidating
            && !invalidating.told
        {
            invalidating.told = true;
            return Some(Output::Invalidate { name, held: lock.mode, keep: invalidating.keep });
        }
        if let Some(requested) = &mut lock.requested
            && requested.to_send
        {
            requested.to_send = false;
            requested.floor = self.newest_generation;
            let generation = self.newest_generation;
            return Some(Output::Request(Message { mode: requested.mode, generation, ..message }));
        }
        let at = lock.waiters.iter().rposition(|w| w.acquired)?;
        let waiter = lock.waiters.remove(at);
        Some(Output::Acquired { ticket: waiter.ticket, name, mode: waiter.mode, granted: lock.granted() })
    }
}
