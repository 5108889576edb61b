// SPDX-License-Identifier: GPL-2.0-only
//! Who has which lock on a file, and who waits for one.

use scoutfs_env::{AllocError, OrdMap, Vec};

use super::message::{
    ByteRange, FileId, FileLock, FileLockOp, FileLockReply, FileLockRequest, FileLockResult, Found, LockClass,
};
use super::ranges::Ranges;
use crate::{LockError, Mode};

/// Pieces that one mount can hold. It counts them itself, and asks for nothing that may need more ([`FileLockClient`](super::FileLockClient)):
/// so what it gives back is never refused.
pub const MAX_HELD: usize = 64 << 10;
/// The server's own limit, for mounts that do not. What is on its way makes its count another than the mount's.
const LIMIT: usize = 2 * MAX_HELD;
/// Locks that one mount can wait for.
pub const MAX_WAITING: usize = 1 << 10;

/// A process or an open file description on some mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub client: u64,
    pub owner: u64,
}

#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub owner: Owner,
    pub id: u64,
    token: T,
    pub range: ByteRange,
    pub mode: Mode,
    pid: u32,
}

#[derive(Debug)]
pub(super) struct File<T> {
    /// None of them is empty.
    held: OrdMap<Owner, Ranges>,
    /// In the order of their coming.
    pub queue: Vec<Waiting<T>>,
}

impl<T> File<T> {
    /// Who holds bytes of the range in a mode that does not go with this one, with what they hold of it first.
    pub fn in_the_way(
        &self,
        owner: Owner,
        range: ByteRange,
        mode: Mode,
    ) -> impl Iterator<Item = (Owner, super::Piece)> {
        let others = self.held.iter().filter(move |(other, _)| **other != owner);
        others.filter_map(move |(other, held)| {
            let mut overlapping = held.overlapping(&range).iter();
            let piece = overlapping.find(|piece| piece.mode > Mode::beside(mode))?;
            Some((*other, *piece))
        })
    }

    pub fn is_free(&self, owner: Owner, range: ByteRange, mode: Mode) -> bool {
        self.in_the_way(owner, range, mode).next().is_none()
    }
}

/// What a mount has.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    held: usize,
    waiting: usize,
}

/// An answer to a request of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLockOutput<T> {
    /// The mount.
    pub client: u64,
    /// From [`FileLockServer::handle_request`].
    pub token: T,
    /// The answer.
    pub reply: FileLockReply,
}

/// The server's side, for all mounts.
///
/// - `handle_*`: [`handle_request`](Self::handle_request), [`handle_report`](Self::handle_report),
///   [`handle_client_gone`](Self::handle_client_gone).
/// - Command: [`finish_recovery`](Self::finish_recovery).
/// - [`poll_output`](Self::poll_output) after each of them, until there is none.
///
/// A new server begins in recovery: requests wait until every mount has reported what it holds, or was reclaimed.
#[derive(Debug)]
pub struct FileLockServer<T> {
    files: OrdMap<FileId, File<T>>,
    /// The files of requests of fcntl that wait, by owner and id.
    pub(super) waits: OrdMap<(Owner, u64), FileId>,
    counts: OrdMap<u64, Count>,
    /// Came during recovery.
    deferred: Vec<(u64, T, FileLockRequest)>,
    /// Answers in the order of handling; the first `polled` were given out.
    outputs: Vec<FileLockOutput<T>>,
    polled: usize,
    /// From this file on, somebody may go on because a mount is gone.
    wake_from: Option<FileId>,
    recovering: bool,
}

impl<T: Copy> Default for FileLockServer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> FileLockServer<T> {
    /// A new server, in recovery.
    pub const fn new() -> Self {
        FileLockServer {
            files: OrdMap::new(),
            waits: OrdMap::new(),
            counts: OrdMap::new(),
            deferred: Vec::new(),
            outputs: Vec::new(),
            polled: 0,
            wake_from: None,
            recovering: true,
        }
    }

    /// Files with locks, held or waited for.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn file(&self, file: &FileId) -> Option<&File<T>> {
        self.files.get(file)
    }

    /// A mount wants something. It is answered once, by [`poll_output`](Self::poll_output), now or later. A request that waits and
    /// comes again is answered at its newest token alone.
    pub fn handle_request(
        &mut self,
        client: u64,
        token: T,
        request: &FileLockRequest,
    ) -> Result<(), LockError> {
        if self.recovering {
            self.deferred.push((client, token, *request))?;
            return Ok(());
        }
        self.serve(client, token, request)?;
        Ok(())
    }

    /// A mount holds this, by what it was told by a former server. Saying it again does no harm, nor does saying less than is known.
    ///
    /// # Errors
    ///
    /// [`LockError::FileConflict`] when another has a lock that excludes it, [`LockError::TooManyFileLocks`].
    pub fn handle_report(&mut self, client: u64, lock: &FileLock) -> Result<(), LockError> {
        let owner = Owner { client, owner: lock.owner };
        if let Some(file) = self.files.get(&lock.file)
            && let Some((other, _)) = file.in_the_way(owner, lock.range, lock.mode).next()
        {
            return Err(LockError::FileConflict { ino: lock.file.ino, client, other: other.client });
        }
        match self.raise(owner, lock)? {
            FileLockResult::Done => Ok(()),
            _ => Err(LockError::TooManyFileLocks { client }),
        }
    }

    /// A mount holds nothing any more, and waits for nothing.
    pub fn handle_client_gone(&mut self, client: u64) {
        self.deferred.retain(|(other, ..)| *other != client);
        self.outputs.drain(..core::mem::take(&mut self.polled));
        self.outputs.retain(|output| output.client != client);
        if self.counts.remove(&client).is_none() {
            return;
        }
        for file in self.files.values_mut() {
            file.held.retain(|owner, _| owner.client != client);
            file.queue.retain(|waiting| waiting.owner.client != client);
        }
        self.waits.retain(|(owner, _), _| owner.client != client);
        self.wake_from = self.files.first_key_value().map(|(file, _)| *file);
    }

    /// Every mount has reported, or was reclaimed.
    pub fn finish_recovery(&mut self) {
        self.recovering = false;
    }

    /// The next answer to be sent.
    pub fn poll_output(&mut self) -> Result<Option<FileLockOutput<T>>, LockError> {
        if !self.recovering {
            for (client, token, request) in core::mem::take(&mut self.deferred) {
                self.serve(client, token, &request)?;
            }
            while let Some(file) = self.wake_from {
                self.wake(file)?;
                self.wake_from = self.files.higher(&file).map(|(file, _)| *file);
            }
        }
        let output = self.outputs.get(self.polled).copied();
        self.polled += 1;
        if output.is_none() {
            self.outputs.clear();
            self.polled = 0;
        }
        Ok(output)
    }

    fn serve(&mut self, client: u64, token: T, request: &FileLockRequest) -> Result<(), AllocError> {
        self.outputs.reserve(1)?;
        let FileLockRequest { id, op, lock } = request;
        let owner = Owner { client, owner: lock.owner };
        let done = |result| Some(FileLockReply { id: *id, result, found: None });
        let reply = match op {
            FileLockOp::Test => {
                Some(FileLockReply { id: *id, result: FileLockResult::Done, found: self.find(owner, lock) })
            }
            FileLockOp::Cancel => {
                self.cancel(owner, *id, lock.file)?;
                Some(FileLockReply { id: 0, result: FileLockResult::Done, found: None })
            }
            FileLockOp::Set => done(self.set(owner, lock)?),
            FileLockOp::Lower => done(self.lower(owner, lock)?),
            FileLockOp::Wait => match self.set(owner, lock)? {
                FileLockResult::Blocked => self.wait(owner, *id, token, lock)?.and_then(done),
                result => done(result),
            },
        };
        if let Some(reply) = reply {
            self.outputs.push(FileLockOutput { client, token, reply })?;
        }
        Ok(())
    }

    fn find(&self, owner: Owner, lock: &FileLock) -> Option<Found> {
        let file = self.files.get(&lock.file)?;
        let found = file.in_the_way(owner, lock.range, lock.mode);
        let (other, piece) = found.min_by_key(|(_, piece)| piece.range.start())?;
        let pid = if other.client == owner.client { piece.pid } else { 0 };
        Some(Found { range: piece.range, mode: piece.mode, pid })
    }

    fn count(&self, client: u64) -> Count {
        self.counts.get(&client).copied().unwrap_or_default()
    }

    /// Takes a lock, if nothing is in its way now.
    fn set(&mut self, owner: Owner, lock: &FileLock) -> Result<FileLockResult, AllocError> {
        let FileLock { file: id, range, mode, .. } = *lock;
        let Some(file) = self.files.get(&id) else { return self.raise(owner, lock) };
        if !file.is_free(owner, range, mode) {
            return Ok(FileLockResult::Blocked);
        }
        self.raise(owner, lock)
    }

    /// A lock that nothing is in the way of is held, if the mount can have so many.
    fn raise(&mut self, owner: Owner, lock: &FileLock) -> Result<FileLockResult, AllocError> {
        if lock.mode == Mode::Null {
            return Ok(FileLockResult::Done);
        }
        let held = self.files.get(&lock.file).and_then(|file| file.held.get(&owner));
        let more = held.map_or(1, |held| held.raise_adds(&lock.range));
        if self.count(owner.client).held.saturating_add(more) > LIMIT {
            return Ok(FileLockResult::Full);
        }
        self.change(owner, lock.file, |held| held.raise(&lock.range, lock.mode, lock.pid))?;
        Ok(FileLockResult::Done)
    }

    /// Gives back what is held in a higher mode than this one, and others go on.
    fn lower(&mut self, owner: Owner, lock: &FileLock) -> Result<FileLockResult, AllocError> {
        let FileLock { file: id, range, mode, pid, .. } = *lock;
        let held = self.files.get(&id).and_then(|file| file.held.get(&owner));
        let Some(held) = held else { return Ok(FileLockResult::Done) };
        let more = held.lower_adds(&range, mode);
        if more > 0 && self.count(owner.client).held.saturating_add(more) > LIMIT {
            return Ok(FileLockResult::Full);
        }
        self.change(owner, id, |held| held.lower(&range, mode, pid))?;
        self.wake(id)?;
        Ok(FileLockResult::Done)
    }

    /// Changes what an owner holds of a file. On error nothing has changed.
    fn change(
        &mut self,
        owner: Owner,
        file: FileId,
        change: impl FnOnce(&mut Ranges) -> Result<(), AllocError>,
    ) -> Result<(), AllocError> {
        if !self.counts.contains_key(&owner.client) {
            self.counts.insert(owner.client, Count::default())?;
        }
        if !self.files.contains_key(&file) {
            self.files.insert(file, File { held: OrdMap::new(), queue: Vec::new() })?;
        }
        let Some(file) = self.files.get_mut(&file) else { return Ok(()) };
        if !file.held.contains_key(&owner) {
            file.held.insert(owner, Ranges::new())?;
        }
        let Some(ranges) = file.held.get_mut(&owner) else { return Ok(()) };
        let before = ranges.len();
        let done = change(ranges);
        let after = ranges.len();
        if after == 0 {
            file.held.remove(&owner);
        }
        if let Some(count) = self.counts.get_mut(&owner.client) {
            count.held = (count.held + after).saturating_sub(before);
        }
        done
    }

    /// Waits, unless that must not be: then says why.
    fn wait(
        &mut self,
        owner: Owner,
        id: u64,
        token: T,
        lock: &FileLock,
    ) -> Result<Option<FileLockResult>, AllocError> {
        let again = self.files.get_mut(&lock.file).and_then(|file| {
            file.queue.iter_mut().find(|other| other.id == id && other.owner.client == owner.client)
        });
        if let Some(waiting) = again {
            waiting.token = token;
            return Ok(None);
        }
        if lock.file.class == LockClass::Fcntl && self.is_deadlock(owner, lock)? {
            return Ok(Some(FileLockResult::Deadlock));
        }
        if self.count(owner.client).waiting >= MAX_WAITING {
            return Ok(Some(FileLockResult::Full));
        }
        if !self.counts.contains_key(&owner.client) {
            self.counts.insert(owner.client, Count::default())?;
        }
        let FileLock { range, mode, pid, .. } = *lock;
        // Somebody has a lock, so the file is there.
        let Some(file) = self.files.get_mut(&lock.file) else { return Ok(None) };
        file.queue.reserve(1)?;
        if lock.file.class == LockClass::Fcntl {
            self.waits.insert((owner, id), lock.file)?;
        }
        file.queue.push(Waiting { owner, id, token, range, mode, pid })?;
        if let Some(count) = self.counts.get_mut(&owner.client) {
            count.waiting += 1;
        }
        Ok(None)
    }

    fn cancel(&mut self, owner: Owner, id: u64, file: FileId) -> Result<(), AllocError> {
        self.outputs.reserve(2)?;
        let Some(queue) = self.files.get_mut(&file).map(|file| &mut file.queue) else { return Ok(()) };
        let place = queue.iter().position(|other| other.id == id && other.owner.client == owner.client);
        let Some(place) = place else { return Ok(()) };
        let waiting = queue.remove(place);
        self.waited(&waiting);
        let reply = FileLockReply { id, result: FileLockResult::Cancelled, found: None };
        self.outputs.push(FileLockOutput { client: owner.client, token: waiting.token, reply })
    }

    /// Somebody waits no longer.
    fn waited(&mut self, waiting: &Waiting<T>) {
        self.waits.remove(&(waiting.owner, waiting.id));
        if let Some(count) = self.counts.get_mut(&waiting.owner.client) {
            count.waiting = count.waiting.saturating_sub(1);
        }
    }

    /// Gives what is free of a file to those who wait for it, and forgets a file that nobody has locked.
    fn wake(&mut self, id: FileId) -> Result<(), AllocError> {
        while self.wake_one(id)? {}
        if self.files.get(&id).is_some_and(|file| file.held.is_empty() && file.queue.is_empty()) {
            self.files.remove(&id);
        }
        Ok(())
    }

    /// Gives the first that can have it what it waits for.
    fn wake_one(&mut self, id: FileId) -> Result<bool, AllocError> {
        self.outputs.reserve(1)?;
        let Some(file) = self.files.get(&id) else { return Ok(false) };
        let free = file.queue.iter().position(|w| file.is_free(w.owner, w.range, w.mode));
        let Some((place, first)) = free.and_then(|place| Some((place, file.queue.get(place)?))) else {
            return Ok(false);
        };
        let Waiting { owner, range, mode, pid, .. } = *first;
        let lock = FileLock { file: id, owner: owner.owner, range, mode, pid };
        let result = self.raise(owner, &lock)?;
        let Some(file) = self.files.get_mut(&id) else { return Ok(false) };
        let waiting = file.queue.remove(place);
        self.waited(&waiting);
        let reply = FileLockReply { id: waiting.id, result, found: None };
        self.outputs.push(FileLockOutput { client: owner.client, token: waiting.token, reply })?;
        Ok(true)
    }
}
