// SPDX-License-Identifier: GPL-2.0-only
//! The inodes of which something is gathered, and when it is to be written.
//!
//! Locking: one mutex, a leaf.

use core::time::Duration;

use scoutfs_env::sync::atomic::{AtomicU64, Ordering};
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{AllocError, Vec};

/// What is written after so long anyway.
pub(super) const DELAY: Duration = Duration::from_millis(50);
/// Most files, and bytes of all, with which another one may begin.
const MAX_FILES: usize = 1024;
const MAX_ALL_BYTES: usize = 32 << 20;

/// The inodes of which something is gathered.
pub(crate) struct DelayedWrites {
    pub(super) queue: Mutex<Queue>,
    changed: Condvar,
    /// Commits before which all is written: nothing is gathered meanwhile.
    commits: AtomicU64,
}

/// While this lives nothing is gathered.
pub(crate) struct HeldOff<'a>(&'a DelayedWrites);

impl Drop for HeldOff<'_> {
    fn drop(&mut self) {
        self.0.commits.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) struct Queue {
    /// [`DELAY`], but for tests.
    pub delay: Duration,
    /// Somebody writes what waits long enough. Without that nothing is gathered.
    runs: bool,
    /// Inodes and when they came, the oldest first. Each once, and kept.
    pub waiting: Vec<(u64, Mono)>,
    /// Of all inodes.
    pub bytes: usize,
}

impl DelayedWrites {
    pub fn new() -> Self {
        let queue = Queue { delay: DELAY, runs: false, waiting: Vec::new(), bytes: 0 };
        DelayedWrites { queue: Mutex::new(queue), changed: Condvar::new(), commits: AtomicU64::new(0) }
    }

    /// From now on writes may be gathered: somebody calls [`Fs::write_next_delayed`] again and again.
    pub(super) fn start(&self) {
        self.queue.lock().runs = true;
    }

    /// Nothing more is gathered, and nobody waits for it.
    pub(super) fn stop(&self) {
        self.queue.lock().runs = false;
        self.changed.notify_all();
    }

    /// Whether somebody makes all durable that was done before.
    pub(super) fn is_held_off(&self) -> bool {
        self.commits.load(Ordering::Acquire) > 0
    }

    /// Whether another file may begin.
    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue.lock();
        queue.runs && queue.waiting.len() < MAX_FILES && queue.bytes < MAX_ALL_BYTES
    }

    pub(super) fn add_bytes(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.bytes = queue.bytes.saturating_add(bytes);
    }

    pub(super) fn remove_bytes(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
    }

    /// The inode that waits longest, when it has waited for long enough or there is much. It stays in the queue. None when it is to end.
    pub(super) fn wait_for_next(&self) -> Option<u64> {
        let mut queue = self.queue.lock();
        loop {
            if !queue.runs {
                return None;
            }
            let Some(&(ino, since)) = queue.waiting.first() else {
                queue = self.changed.wait(queue);
                continue;
            };
            let waited = time::mono_now().saturating_duration_since(since);
            let much = queue.waiting.len() > MAX_FILES / 2 || queue.bytes > MAX_ALL_BYTES / 2;
            let delay = queue.delay;
            if much || waited >= delay {
                return Some(ino);
            }
            (queue, _) = self.changed.wait_timeout(queue, delay - waited);
        }
    }

    /// Takes an inode out.
    pub(super) fn remove(&self, ino: u64) {
        let mut queue = self.queue.lock();
        if let Some(at) = queue.waiting.iter().position(|(other, _)| *other == ino) {
            queue.waiting.remove(at);
        }
    }

    /// Has the first inode wait anew, behind all others.
    pub(super) fn put_off(&self) {
        let mut queue = self.queue.lock();
        if let Some(first) = queue.waiting.first_mut() {
            first.1 = time::mono_now();
            queue.waiting.rotate_left(1);
        }
    }

    /// Some inodes that wait, from a number on, in the order of numbers.
    pub(super) fn some_from(&self, from: u64, inos: &mut [u64]) -> usize {
        let queue = self.queue.lock();
        let mut len = 0;
        for &(ino, _) in queue.waiting.iter().filter(|(ino, _)| *ino >= from) {
            let at = inos[..len].partition_point(|other| *other < ino);
            if at == inos.len() {
                continue;
            }
            len = (len + 1).min(inos.len());
            inos[at..len].rotate_right(1);
            inos[at] = ino;
        }
        len
    }

    /// Adds an inode, which is not there.
    pub(super) fn add(&self, ino: u64) -> Result<(), AllocError> {
        let mut queue = self.queue.lock();
        queue.waiting.push((ino, time::mono_now()))?;
        let is_first = queue.waiting.len() == 1;
        drop(queue);
        if is_first {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The inode that waits longest.
    pub(super) fn first(&self) -> Option<u64> {
        self.queue.lock().waiting.first().map(|(ino, _)| *ino)
    }

    /// Until the result is dropped nothing is gathered.
    pub(super) fn hold_off(&self) -> HeldOff<'_> {
        self.commits.fetch_add(1, Ordering::AcqRel);
        HeldOff(self)
    }
}
