// SPDX-License-Identifier: GPL-2.0-only
//! Cluster locks that an operation holds, and reading items under them.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::key::ZONE_FS;
use scoutfs_item::{Bounds, ItemCache, ItemReader, Spot};
use scoutfs_lock::{LockName, Mode};

use super::Store;
use super::hold::{Hold, Need};
use super::lock_table::{Pages, Use};
use crate::error::{Error, Result};

/// What a lock allows. The order is that of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Reading items.
    Read,
    /// Reading and changing items.
    Write,
}

impl From<LockMode> for Mode {
    fn from(mode: LockMode) -> Mode {
        match mode {
            LockMode::Read => Mode::Read,
            LockMode::Write => Mode::Write,
        }
    }
}

/// The cluster locks of an operation, until it is dropped.
pub struct Locks<'a> {
    store: &'a Store,
    /// Each lock once. While they are acquired those that are not yet are at the end.
    held: Vec<(LockName, LockMode)>,
    /// How the lock of an inode with pages is used; all others are granted.
    used: Use,
}

impl<'a> Locks<'a> {
    /// The lock of one inode, for a request that a kernel makes for pages of it.
    pub(super) fn acquire_for_pages(store: &'a Store, mode: LockMode, pages: Pages) -> Result<Self> {
        let name = LockName::group_of(pages.ino);
        let mut locks = Locks { store, held: Vec::with_capacity(1)?, used: Use::Granted };
        locks.used = store.lock_table.acquire(store, name, mode, Some(pages), core::iter::empty())?;
        // There is room.
        locks.held.push((name, mode))?;
        store.check_usable()?;
        Ok(locks)
    }

    /// The lock of an inode that goes back, for the thread that sees to that: nobody else uses it.
    pub(super) fn going_back(store: &'a Store, ino: u64) -> Result<Self> {
        let mut held = Vec::with_capacity(1)?;
        held.push((LockName::group_of(ino), LockMode::Write))?;
        Ok(Locks { store, held, used: Use::GoesBack })
    }

    /// The locks of some inodes. When one has to be waited for, all that come after it are asked for at once, and that
    /// of the inode that the caller guesses to want then, for reading.
    #[inline(never)]
    pub(super) fn acquire(
        store: &'a Store,
        rename: bool,
        inos: &[(u64, LockMode)],
        guess: &dyn Fn() -> Option<u64>,
    ) -> Result<Self> {
        let mut want: Vec<(LockName, LockMode)> = Vec::with_capacity(inos.len() + 1)?;
        for &(ino, mode) in inos {
            let name = LockName::group_of(ino);
            match want.iter_mut().find(|(other, _)| *other == name) {
                Some((_, held)) => *held = mode.max(*held),
                None => want.push((name, mode))?,
            }
        }
        if rename {
            want.push((LockName::RENAME, LockMode::Write))?;
        }
        scoutfs_env::sort::sort_by_key(&mut want, |(name, _)| *name);
        let mut locks = Locks { store, held: want, used: Use::Granted };
        for at in 0..locks.held.len() {
            let (name, mode) = locks.held[at];
            let got = match store.lock_table.try_acquire(store, name, mode) {
                Ok(false) => {
                    let rest = locks.held.get(at + 1..).unwrap_or_default().iter().copied();
                    let guessed = guess().map(|ino| (LockName::group_of(ino), LockMode::Read));
                    store.lock_table.acquire(store, name, mode, None, rest.chain(guessed)).map(drop)
                }
                got => got.map(drop),
            };
            if let Err(e) = got {
                locks.held.truncate(at);
                return Err(e);
            }
        }
        store.check_usable()?;
        Ok(locks)
    }

    /// Adds the lock of an inode if that takes no waiting, in which case its place in the order does not matter. False if the inode is
    /// not locked in this mode then: the caller gives all locks back and acquires them together.
    pub fn add(&mut self, ino: u64, mode: LockMode) -> Result<bool> {
        let name = LockName::group_of(ino);
        if let Some((_, held)) = self.held.iter().find(|(held, _)| *held == name) {
            return Ok(*held >= mode);
        }
        self.held.reserve(1)?;
        let added = self.store.lock_table.try_acquire(self.store, name, mode)?;
        if added {
            self.held.push((name, mode))?;
        }
        Ok(added)
    }

    /// Whether these are used while they go back.
    pub(crate) fn go_back(&self) -> bool {
        self.used != Use::Granted
    }

    pub(super) fn store(&self) -> &'a Store {
        self.store
    }

    pub(super) fn items(&self) -> (&'a ItemCache, &'a dyn ItemReader) {
        (&self.store.items, &*self.store.reader)
    }

    /// Range of the held lock that covers a key.
    pub(super) fn bounds(&self, key: Key) -> Result<Bounds> {
        // Those of the inodes' own items have the inode number first.
        let name = LockName::group_of(key.first);
        let held = key.zone == ZONE_FS && self.held.iter().any(|(held, _)| *held == name);
        if held {
            return Ok(name.range());
        }
        Err(Error::Shutdown("an operation reads or writes an item that it has not locked"))
    }

    /// Whether an inode is locked in `mode` or a stronger one.
    pub fn covers(&self, ino: u64, mode: LockMode) -> bool {
        let name = LockName::group_of(ino);
        self.held.iter().any(|(held, m)| *held == name && *m >= mode)
    }

    /// Calls `f` with the value of an item. `f` must be short and must not read other items.
    pub fn get<R>(&self, key: Key, f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.get_near(key, &mut Spot::default(), f)
    }

    /// As [`Locks::get`], with a guess where the item is; notes where it is, or would be.
    pub fn get_near<R>(&self, key: Key, spot: &mut Spot, f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let (items, reader) = self.items();
        Ok(items.get_near(reader, self.bounds(key)?, key, spot, |value, _| f(value))?)
    }

    /// Calls `f` with the first item in `from..=last`, which are keys of one inode. As for [`Locks::get`].
    pub fn next<R>(&self, from: Key, last: Key, f: impl FnOnce(Key, &[u8]) -> R) -> Result<Option<R>> {
        self.next_near(from, last, &mut Spot::default(), f)
    }

    /// As [`Locks::next`], with a guess where `from` is; notes where the item is, or would most likely be.
    pub fn next_near<R>(
        &self,
        from: Key,
        last: Key,
        spot: &mut Spot,
        f: impl FnOnce(Key, &[u8]) -> R,
    ) -> Result<Option<R>> {
        if from > last {
            return Ok(None);
        }
        let (items, reader) = self.items();
        let bounds = self.bounds(from)?;
        Ok(items.next_near(reader, bounds, from, last, spot, |key, value, _| f(key, value))?)
    }

    /// Calls `f` with the last item in `first..=from`, which are keys of one inode. As for [`Locks::get`].
    pub fn prev<R>(&self, from: Key, first: Key, f: impl FnOnce(Key, &[u8]) -> R) -> Result<Option<R>> {
        if from < first {
            return Ok(None);
        }
        let (items, reader) = self.items();
        Ok(items.prev(reader, self.bounds(from)?, from, first, |key, value, _| f(key, value))?)
    }

    /// Enters the transaction, with what the operation needs reserved: waits for space before, never inside.
    pub fn hold(&self, need: Need) -> Result<Hold<'_>> {
        let (seq, version) = self.store.enter(need)?;
        Ok(Hold::new(self, seq, version, need.total_bytes()))
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        for (name, mode) in self.held.drain(..).rev() {
            self.store.lock_table.release(self.store, name, mode, self.used);
        }
    }
}
