// SPDX-License-Identifier: GPL-2.0-only
//! Inodes between the look-up of their name and what it was for.
//!
//! A kernel opens a file in two steps: it looks the name up, and opens the inode. When the inode's cluster lock goes to another mount in
//! between, which takes the name away (by an atomic replacement, say), the inode would be gone and the open would fail,
//! though there was a file of that name all the time. A kernel tries once more, and no more often. So whoever gives a lock back counts the
//! inodes that were looked up just before as open, and closes them a moment later: what has lost its last link meanwhile is deleted
//! then, as after any last close.
//!
//! Until then its blocks are not free. So nobody is told meanwhile that there is no space: who has such inodes says so when another mount
//! lacks some ([`Passing::keeps`]), and an operation that has found none gives its locks back, one of which the deletion may
//! need, and is done again ([`Attempts`]).
//!
//! Locking: one mutex, a leaf.

use core::sync::atomic::Ordering;
use core::time::Duration;

use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::AtomicU64;
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{AllocError, Vec, thread};

use super::table::MemInode;
use crate::error::{Error, Result};
use crate::fs::Fs;

/// What was looked up longer ago was not looked up to be opened.
const JUST_NOW: Duration = Duration::from_millis(100);

/// What is open in passing is closed, and deleted, sooner than this after its lock has gone.
const CLOSED: Duration = Duration::from_secs(3);
/// Between two attempts of an operation that waits for that, and the most that there are.
const PAUSE: Duration = Duration::from_millis(100);
const MOST_ATTEMPTS: u32 = 60;

/// Inodes that are open because they were just looked up, each once.
#[derive(Default)]
pub(crate) struct Passing {
    lists: Mutex<Lists>,
    /// When the last of them was opened.
    opened: Moment,
    /// When this mount last left it to another to delete an inode that is open there.
    left: Moment,
}

/// In nanoseconds of the monotonic clock; 0 is never.
#[derive(Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self) {
        self.0.store(time::mono_now().as_ns(), Ordering::Relaxed);
    }

    /// Whether what began then may not be over at `now`.
    fn lasts(&self, now: Mono) -> bool {
        let began = self.0.load(Ordering::Relaxed);
        began != 0 && now.saturating_duration_since(Mono::from_ns(began)) < CLOSED
    }
}

#[derive(Default)]
struct Lists {
    /// Since the last [`Fs::close_passing`].
    young: Vec<u64>,
    /// Since the one before.
    old: Vec<u64>,
}

impl Passing {
    fn push(&self, ino: u64) -> core::result::Result<(), AllocError> {
        self.lists.lock().young.push(ino)?;
        self.opened.set();
        Ok(())
    }

    /// Whether inodes that have lost their last link elsewhere may still have their blocks because they are open in passing here.
    pub fn keeps(&self) -> bool {
        self.opened.lasts(time::mono_now())
    }

    /// An unlinked inode is open on another mount, maybe in passing only: that one deletes it.
    pub fn note_left(&self) {
        self.left.set();
    }
}

/// Attempts of an operation that may find no space while inodes are about to be deleted.
pub(crate) struct Attempts<'a> {
    passing: &'a Passing,
    began: Mono,
    left: u32,
}

impl<'a> Attempts<'a> {
    /// The first one begins.
    pub fn of(fs: &'a Fs) -> Self {
        Attempts { passing: &fs.passing, began: time::mono_now(), left: MOST_ATTEMPTS }
    }

    /// An attempt has ended so, and has no locks any more. True if it is to be made once more, after a moment: there was no space,
    /// and something was open in passing when it began. Waits for no lock: who is asked here may be what keeps one from going back.
    pub fn once_more<T>(&mut self, done: &Result<T>) -> bool {
        let Passing { opened, left, .. } = self.passing;
        let pending = opened.lasts(self.began) || left.lasts(self.began);
        if !matches!(done, Err(Error::NoSpace)) || !pending || self.left == 0 || thread::is_killed() {
            return false;
        }
        self.left -= 1;
        time::sleep(PAUSE);
        self.began = time::mono_now();
        true
    }
}

impl Fs {
    /// All of an inode's lock is about to go back. Without memory nothing is done.
    pub(crate) fn keep_passing(&self, inode: &MemInode, now: Mono) {
        let looked_up = Mono::from_ns(inode.looked_up_at.load(Ordering::Relaxed));
        if now.saturating_duration_since(looked_up) < JUST_NOW && !self.store().read_only() {
            self.open_passing(inode.ino, || self.passing.push(inode.ino));
        }
    }

    /// Closes the inodes that have been open for long enough: since the last call, or all. May wait for locks.
    pub(crate) fn close_passing(&self, all: bool) {
        loop {
            let mut lists = self.passing.lists.lock();
            let young = core::mem::take(&mut lists.young);
            let mut done = core::mem::replace(&mut lists.old, young);
            drop(lists);
            if self.store().trans.check().is_err() {
                return;
            }
            // One lock after the other.
            done.sort_unstable();
            for ino in &done {
                self.release_passing(*ino);
            }
            let lists = self.passing.lists.lock();
            if !all || lists.young.is_empty() && lists.old.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
