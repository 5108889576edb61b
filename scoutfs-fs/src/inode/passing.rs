// SPDX-License-Identifier: GPL-2.0-only
//! Inodes between the look-up of their name and what it was for.
//!
//! A kernel opens a file in two steps: it looks the name up, and opens the inode. When the inode's cluster lock goes to another mount in
//! between, which takes the name away (by an atomic replacement, say), the inode would be gone and the open would fail,
//! though there was a file of that name all the time. A kernel tries once more, and no more often. So whoever gives a lock back counts the
//! inodes that were looked up just before as open, and closes them a moment later: what has lost its last link meanwhile is deleted
//! then, as after any last close.
//!
//! Locking: one mutex, a leaf.

use core::sync::atomic::Ordering;
use core::time::Duration;

use scoutfs_env::sync::Mutex;
use scoutfs_env::time::Mono;
use scoutfs_env::{AllocError, Vec};

use super::table::MemInode;
use crate::fs::Fs;

/// What was looked up longer ago was not looked up to be opened.
const JUST_NOW: Duration = Duration::from_millis(100);

/// Inodes that are open because they were just looked up, each once.
#[derive(Default)]
pub(crate) struct Passing {
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    /// Since the last [`Fs::close_passing`].
    young: Vec<u64>,
    /// Since the one before.
    old: Vec<u64>,
}

impl Passing {
    fn push(&self, ino: u64) -> Result<(), AllocError> {
        self.lists.lock().young.push(ino)
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
