// SPDX-License-Identifier: GPL-2.0-only
//! Whether somebody who waits would wait for himself: for one who waits for another, who waits, ..., for him.
//!
//! As on Linux, an owner counts as one though it may have several threads, of which one could go on while another waits. A mount
//! does not tell an open file description, whose users may be many processes, from a process. So a deadlock may be seen where there
//! is none between threads; one of processes with locks of their own is always found, unless it goes over more than
//! [`MAX_OWNERS`] of them.

use scoutfs_env::{AllocError, OrdMap, Vec};

use super::message::FileLock;
use super::server::{FileLockServer, Owner};

/// Owners that are looked at, and edges between them.
const MAX_OWNERS: usize = 256;
const MAX_EDGES: usize = 4096;

impl<T: Copy> FileLockServer<T> {
    /// Whether `waiter` would wait for himself, if he waited for this lock, which is not free.
    pub(super) fn is_deadlock(&self, waiter: Owner, lock: &FileLock) -> Result<bool, AllocError> {
        // Nobody waits for anything that he holds.
        if self.waits.is_empty() {
            return Ok(false);
        }
        let mut seen = OrdMap::new();
        let mut next = Vec::new();
        let mut edges = 0;
        if let Some(file) = self.file(&lock.file) {
            for (owner, _) in file.in_the_way(waiter, lock.range, lock.mode).take(MAX_EDGES) {
                next.push(owner)?;
            }
        }
        while let Some(owner) = next.pop() {
            if owner == waiter {
                return Ok(true);
            }
            if seen.len() >= MAX_OWNERS || seen.insert(owner, ())?.is_some() {
                continue;
            }
            for ((_, id), file) in self.waits.range((owner, 0)..=(owner, u64::MAX)) {
                let Some(file) = self.file(file) else { continue };
                let waiting = file.queue.iter().find(|w| w.owner == owner && w.id == *id);
                let Some(waiting) = waiting else { continue };
                for (other, _) in file.in_the_way(owner, waiting.range, waiting.mode) {
                    edges += 1;
                    if edges > MAX_EDGES {
                        return Ok(false);
                    }
                    next.push(other)?;
                }
            }
        }
        Ok(false)
    }
}
