// SPDX-License-Identifier: GPL-2.0-only
//! Cluster locks that an operation holds, and reading items under them.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_item::{Bounds, ItemCache, ItemReader};
use scoutfs_lock::{LockName, Mode};

use super::Store;
use super::hold::{Hold, Need};
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
    held: Vec<(LockName, LockMode)>,
}

impl<'a> Locks<'a> {
    pub(super) fn acquire(store: &'a Store, rename: bool, inos: &[(u64, LockMode)]) -> Result<Self> {
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
        want.sort_unstable_by_key(|(name, _)| *name);
        let mut locks = Locks { store, held: Vec::with_capacity(want.len())? };
        for (name, mode) in want {
            store.lock_table.acquire(store, name, mode)?;
            // There is room: the drop must release what was acquired.
            locks.held.push((name, mode))?;
        }
        // Locks are as good as the lease: without one the server may have given them to another.
        store.trans.check()?;
        store.check_lease()?;
        Ok(locks)
    }

    pub(super) fn store(&self) -> &'a Store {
        self.store
    }

    pub(super) fn items(&self) -> (&'a ItemCache, &'a dyn ItemReader) {
        (&self.store.items, &self.store.reader)
    }

    /// Range of the held lock that covers a key.
    pub(super) fn bounds(&self, key: Key) -> Result<Bounds> {
        self.held
            .iter()
            .map(|(name, _)| name.range())
            .find(|(first, last)| *first <= key && key <= *last)
            .ok_or(Error::Shutdown("an operation reads or writes an item that it has not locked"))
    }

    /// Whether an inode is locked in `mode` or a stronger one.
    pub fn covers(&self, ino: u64, mode: LockMode) -> bool {
        let name = LockName::group_of(ino);
        self.held.iter().any(|(held, m)| *held == name && *m >= mode)
    }

    /// Calls `f` with the value of an item. `f` must be short and must not read other items.
    pub fn get<R>(&self, key: Key, f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let (items, reader) = self.items();
        Ok(items.get(reader, self.bounds(key)?, key, |value, _| f(value))?)
    }

    /// Calls `f` with the first item in `from..=last`, which are keys of one inode. As for [`Locks::get`].
    pub fn next<R>(&self, from: Key, last: Key, f: impl FnOnce(Key, &[u8]) -> R) -> Result<Option<R>> {
        if from > last {
            return Ok(None);
        }
        let (items, reader) = self.items();
        Ok(items.next(reader, self.bounds(from)?, from, last, |key, value, _| f(key, value))?)
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
            self.store.lock_table.release(self.store, name, mode);
        }
    }
}
