// SPDX-License-Identifier: GPL-2.0-only
//! Who holds what, who waits, who must give back.

use core::time::Duration;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::time::Mono;
use scoutfs_env::{OrdMap, Vec};

use crate::ready::{Link, Linked, ReadyList};
use crate::{LockError, LockName, Message, Mode, Opens};

/// A grant without its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant(Message);

impl Grant {
    /// The lock.
    pub fn name(&self) -> LockName {
        self.0.name
    }

    /// The mode that is granted; null answers a mount that has given the lock back.
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Whether it needs a version of its own.
    pub fn needs_version(&self) -> bool {
        self.0.mode == Mode::Write
    }

    /// The message, with a number that was drawn from the server's counter *after* the grant came out of
    /// [`LockServer::poll_output`]: only then is it higher than every version that the holders before have used.
    /// It is not looked at unless [`needs_version`](Self::needs_version).
    pub fn into_message(self, version: u64) -> Message {
        Message { version: if self.needs_version() { version } else { 0 }, ..self.0 }
    }
}

/// What the host of a [`LockServer`] must do. `T` names a request of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerOutput<T> {
    /// Answer the request `token` of a mount.
    Grant {
        /// The mount.
        client: u64,
        /// From [`LockServer::handle_request`].
        token: T,
        /// The answer.
        grant: Grant,
    },
    /// Ask a mount to give a lock back, or part of it.
    Revoke {
        /// The mount.
        client: u64,
        /// The request.
        message: Message,
    },
}

#[derive(Debug)]
struct Revoke {
    keep: Mode,
    generation: u64,
    since: Mono,
}

#[derive(Debug)]
struct Holder {
    client: u64,
    /// The mount holds this much or less.
    mode: Mode,
    /// Of its newest grant; requests that do not know it are duplicates.
    granted_generation: u64,
    revoke: Option<Revoke>,
}

#[derive(Debug)]
struct Waiting<T> {
    client: u64,
    token: T,
    mode: Mode,
}

#[derive(Debug)]
struct Lock<T> {
    link: Link,
    /// Modes above null. Has room for one more of everybody that waits.
    holders: Vec<Holder>,
    /// First come, first served; each mount at most once.
    queue: Vec<Waiting<T>>,
    /// Inodes that mounts said to have open when they gave the lock back; none of them is empty. Out of date for a mount that
    /// holds the lock again.
    opens: Vec<(u64, Opens)>,
}

impl<T> Linked for Lock<T> {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

impl<T> Lock<T> {
    fn new() -> Self {
        Lock { link: Link::default(), holders: Vec::new(), queue: Vec::new(), opens: Vec::new() }
    }

    fn holder(&self, client: u64) -> Option<&Holder> {
        self.holders.iter().find(|h| h.client == client)
    }

    /// What a mount that gives the lock back has open. There is room for one more mount.
    fn note_opens(&mut self, client: u64, opens: &Opens) {
        self.opens.retain(|(other, _)| *other != client);
        if !opens.is_empty() {
            let _ = self.opens.push_within_capacity((client, *opens));
        }
    }

    fn is_unused(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty() && self.opens.is_empty()
    }

    /// A mount is known to hold no more than `mode`.
    fn lower(&mut self, client: u64, mode: Mode) {
        if let Some(at) = self.holders.iter().position(|h| h.client == client)
            && let Some(holder) = self.holders.get_mut(at)
        {
            holder.mode = holder.mode.min(mode);
            if holder.revoke.as_ref().is_some_and(|r| holder.mode <= r.keep) {
                holder.revoke = None;
            }
            if holder.mode == Mode::Null {
                self.holders.swap_remove(at);
            }
        }
    }
}

/// The server's side of the lock protocol, for all mounts.
///
/// - `handle_*`: [`handle_request`](Self::handle_request), [`handle_answer`](Self::handle_answer),
///   [`handle_client_gone`](Self::handle_client_gone), [`handle_report`](Self::handle_report).
/// - Command: [`finish_recovery`](Self::finish_recovery).
/// - [`poll_output`](Self::poll_output) after each of them, until there is none.
/// - Getters: [`len`](Self::len), [`overdue`](Self::overdue), [`is_recovering`](Self::is_recovering).
///
/// The commit numbers in requests, answers and reports are not looked at: whoever sends the grants also tells
/// which commits their receivers must see.
///
/// # Recovery
///
/// A new server begins in recovery and grants nothing. Every mount reports what it holds; when all have, or were
/// reclaimed, [`finish_recovery`](Self::finish_recovery) lets the requests that came meanwhile go on.
#[derive(Debug)]
pub struct LockServer<T> {
    locks: OrdMap<LockName, Lock<T>>,
    ready: ReadyList,
    last_generation: u64,
    recovering: bool,
}

impl<T: Copy> LockServer<T> {
    /// A server in recovery. Generations begin after `last_generation`, which is not below any that an earlier
    /// server of the volume has used: a fresh number of the server's counter will do, when each grant draws one,
    /// or the term in the upper half.
    pub const fn new(last_generation: u64) -> Self {
        LockServer { locks: OrdMap::new(), ready: ReadyList::new(), last_generation, recovering: true }
    }

    /// Number of locks that are held or waited for.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether nothing is held or waited for.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// Whether mounts still report what they hold.
    pub fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// A mount asks for a lock, or gives one back (mode null). The answer is a grant with this `token`. A duplicate
    /// of a request that was granted gets no answer; one of a request that waits takes its place. `opens` are the inodes that a
    /// mount that gives the lock back has open. On error nothing has changed.
    pub fn handle_request(
        &mut self,
        client: u64,
        token: T,
        message: &Message,
        opens: &Opens,
    ) -> Result<(), LockError> {
        let name = message.name;
        let mut waiting = Waiting { client, token, mode: message.mode };
        match self.locks.get_mut(&name) {
            Some(lock) => {
                if lock.holder(client).is_some_and(|h| message.generation < h.granted_generation) {
                    return Ok(());
                }
                lock.holders.reserve(lock.queue.len() + 1)?;
                lock.queue.reserve(1)?;
                lock.opens.reserve(1)?;
                if message.mode == Mode::Null {
                    lock.note_opens(client, opens);
                }
                if let Some(at) = lock.queue.iter().position(|w| w.client == client) {
                    // It keeps its turn.
                    if let Some(place) = lock.queue.get_mut(at) {
                        core::mem::swap(place, &mut waiting);
                    }
                } else if message.mode == Mode::Null {
                    // There is nothing to wait for.
                    lock.queue.insert(0, waiting)?;
                } else {
                    lock.queue.push(waiting)?;
                }
            }
            None => {
                let mut lock = Lock::new();
                lock.holders.reserve(1)?;
                lock.queue.push(waiting)?;
                lock.opens.reserve(1)?;
                if message.mode == Mode::Null {
                    lock.note_opens(client, opens);
                }
                self.locks.insert(name, lock)?;
            }
        }
        self.ready.push(&mut self.locks, name);
        Ok(())
    }

    /// A mount answers a revoke; `opens` are the inodes that it has open, if it gives all back. Answers that nobody waits for
    /// (duplicates) are ignored. On error nothing has changed.
    pub fn handle_answer(&mut self, client: u64, message: &Message, opens: &Opens) -> Result<(), LockError> {
        let name = message.name;
        let Some(lock) = self.locks.get_mut(&name) else {
            return Ok(());
        };
        let revoke = lock.holder(client).and_then(|h| h.revoke.as_ref());
        let Some(revoke) = revoke.filter(|r| r.generation == message.generation) else {
            return Ok(());
        };
        if message.mode > revoke.keep {
            return Err(LockError::NotGivenBack { client, name, to: revoke.keep, found: message.mode });
        }
        if message.mode == Mode::Null {
            lock.opens.reserve(1)?;
            lock.note_opens(client, opens);
        }
        lock.lower(client, message.mode);
        self.ready.push(&mut self.locks, name);
        Ok(())
    }

    /// A mount has left, or was reclaimed: it holds nothing, waits for nothing and has nothing open any more.
    pub fn handle_client_gone(&mut self, client: u64) {
        let mut next = self.locks.first_key_value().map(|(name, _)| *name);
        while let Some(name) = next {
            if let Some(lock) = self.locks.get_mut(&name) {
                lock.holders.retain(|h| h.client != client);
                lock.queue.retain(|w| w.client != client);
                lock.opens.retain(|(other, _)| *other != client);
            }
            self.ready.push(&mut self.locks, name);
            next = self.locks.higher(&name).map(|(name, _)| *name);
        }
    }

    /// In recovery: a mount holds this. Reporting it twice does no harm. On error nothing has changed.
    pub fn handle_report(&mut self, client: u64, message: &Message) -> Result<(), LockError> {
        let (name, mode) = (message.name, message.mode);
        if !self.recovering {
            return Err(LockError::NotRecovering { client, name });
        }
        if self.locks.get(&name).is_none() {
            self.locks.insert(name, Lock::new())?;
            self.ready.push(&mut self.locks, name);
        }
        let Some(lock) = self.locks.get_mut(&name) else {
            return Ok(());
        };
        if let Some(other) = lock.holders.iter().find(|h| h.client != client && h.mode > Mode::beside(mode)) {
            return Err(LockError::Conflict {
                name,
                client,
                mode,
                other: other.client,
                other_mode: other.mode,
            });
        }
        lock.holders.reserve(lock.queue.len() + 1)?;
        lock.lower(client, Mode::Null);
        if mode > Mode::Null {
            lock.holders.push(Holder { client, mode, granted_generation: 0, revoke: None })?;
        }
        self.last_generation = self.last_generation.max(message.generation);
        Ok(())
    }

    /// In recovery: a mount has these inodes of a group open, whether it holds the lock or not. On error nothing has changed.
    pub fn handle_opens(&mut self, client: u64, name: LockName, opens: &Opens) -> Result<(), LockError> {
        if !self.recovering {
            return Err(LockError::NotRecovering { client, name });
        }
        if self.locks.get(&name).is_none() {
            self.locks.insert(name, Lock::new())?;
            self.ready.push(&mut self.locks, name);
        }
        if let Some(lock) = self.locks.get_mut(&name) {
            lock.opens.reserve(1)?;
            lock.note_opens(client, opens);
        }
        Ok(())
    }

    /// The inodes of a group that others than `client` have open; complete while `client` holds the lock for writing.
    pub fn opens_elsewhere(&self, name: LockName, client: u64) -> Opens {
        let mut all = Opens::default();
        let lock = self.locks.get(&name);
        for (_, opens) in lock.iter().flat_map(|lock| &*lock.opens).filter(|(other, _)| *other != client) {
            all.add(opens);
        }
        all
    }

    /// Every mount has reported, or was reclaimed.
    pub fn finish_recovery(&mut self) {
        self.recovering = false;
    }

    /// A mount that has not answered a revoke, nor got on with it, for `limit` or longer: whatever else it does, it must be fenced. Looks
    /// at all locks, so ask now and then, not for each message.
    pub fn overdue(&self, now: Mono, limit: Duration) -> Option<u64> {
        self.locks.values().flat_map(|lock| &*lock.holders).find_map(|h| {
            let since = h.revoke.as_ref()?.since;
            (now.saturating_duration_since(since) >= limit).then_some(h.client)
        })
    }

    /// A mount gets on with what it gives back, which may take long: its revokes count as sent now.
    pub fn note_progress(&mut self, client: u64, now: Mono) {
        for lock in self.locks.values_mut() {
            let holder = lock.holders.iter_mut().find(|holder| holder.client == client);
            if let Some(revoke) = holder.and_then(|holder| holder.revoke.as_mut()) {
                revoke.since = revoke.since.max(now);
            }
        }
    }

    /// What is to be done next. `now` is when a revoke counts as sent.
    pub fn poll_output(&mut self, now: Mono) -> Option<ServerOutput<T>> {
        if self.recovering {
            return None;
        }
        while let Some(name) = self.ready.first() {
            if let Some(output) = self.output_of(name, now) {
                return Some(output);
            }
            self.ready.pop(&mut self.locks);
            if self.locks.get(&name).is_some_and(Lock::is_unused) {
                self.locks.remove(&name);
            }
        }
        None
    }

    fn output_of(&mut self, name: LockName, now: Mono) -> Option<ServerOutput<T>> {
        let lock = self.locks.get_mut(&name)?;
        let first = lock.queue.first()?;
        let (client, wanted) = (first.client, first.mode);
        let keep = Mode::beside(wanted);
        let generation = self.last_generation.saturating_add(1);
        let mut in_the_way = false;
        for holder in &mut *lock.holders {
            if holder.client == client || holder.mode <= keep {
                continue;
            }
            in_the_way = true;
            if holder.revoke.is_none() {
                self.last_generation = generation;
                holder.revoke = Some(Revoke { keep, generation, since: now });
                return Some(ServerOutput::Revoke {
                    client: holder.client,
                    message: Message {
                        name,
                        version: 0,
                        commit_nr: 0,
                        generation,
                        old_mode: holder.mode,
                        mode: keep,
                    },
                });
            }
        }
        if in_the_way && !planted(Fault::GrantBeforeRevoke) {
            return None;
        }
        let first = lock.queue.remove(0);
        self.last_generation = generation;
        lock.lower(client, Mode::Null);
        if wanted > Mode::Null {
            // There is room: it was reserved when the request came.
            let _ = lock.holders.push_within_capacity(Holder {
                client,
                mode: wanted,
                granted_generation: generation,
                revoke: None,
            });
        }
        Some(ServerOutput::Grant {
            client,
            token: first.token,
            grant: Grant(Message {
                name,
                version: 0,
                commit_nr: 0,
                generation,
                old_mode: Mode::Null,
                mode: wanted,
            }),
        })
    }
}
